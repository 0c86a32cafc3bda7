//! Errors of Fisher artefacts, solvers and bases.

use crate::{Estimator, Shard};
use std::path::{Path, PathBuf};

/// A Fisher, a basis or an eigenproblem is wrong, or a file of one could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
    /// Two layouts differ, or one is malformed.
    #[error(transparent)]
    Layout(#[from] sst_adapter::Error),
    /// An error inside the named file.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        #[source]
        source: Box<Error>,
    },
    /// The file is not a whole safetensors file: cut short, corrupt or something else.
    #[error("not a whole safetensors file: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// The file is whole but does not hold what it should.
    #[error("{what}: {reason}")]
    Content {
        /// The tensor, key or part at fault.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A Fisher entry that is NaN, infinite or negative.
    #[error("Fisher of tensor {tensor} is {value} at flat index {index}: it must be finite and not negative")]
    FisherEntry {
        /// The tensor.
        tensor: String,
        /// Row-major index within the tensor.
        index: usize,
        /// The entry.
        value: f32,
    },
    /// A ratio is not finite: the denominator is zero or the quotient too large.
    #[error("eigenvalue of tensor {tensor} at flat index {index} is {value}: raise the ridge or eps")]
    Ratio {
        /// The tensor.
        tensor: String,
        /// Row-major index within the tensor.
        index: usize,
        /// The ratio.
        value: f64,
    },
    /// Fishers that were not estimated in the same way cannot be averaged.
    #[error("Fishers differ in {what}: {left} and {right}")]
    FisherMeta {
        /// What differs.
        what: String,
        /// The first Fisher's.
        left: String,
        /// The other's.
        right: String,
    },
    /// Shards that do not belong to one run.
    #[error("shards {} and {} differ in {what}: {there} there, {here} here", left.display(), right.display())]
    ShardsDiffer {
        /// What differs.
        what: String,
        /// The first shard's folder.
        left: PathBuf,
        /// The other shard's folder.
        right: PathBuf,
        /// The first shard's value.
        there: String,
        /// The other shard's value.
        here: String,
    },
    /// A shard that was interrupted.
    #[error("shard {shard} in {} has done {done} of {batches} batches: run it again to finish it", path.display())]
    ShardUnfinished {
        /// Its place in the run.
        shard: Shard,
        /// Its folder.
        path: PathBuf,
        /// Batches that its sums hold.
        done: usize,
        /// Batches that it has to do.
        batches: usize,
    },
    /// A set of shards that is not every shard exactly once.
    #[error("{reason}")]
    ShardSet {
        /// Which shard is missing or doubled.
        reason: String,
    },
    /// Two Fisher folders of different families.
    #[error(
        "{} holds a `{left_estimator}` Fisher and {} a `{right_estimator}` one: give Fishers of one estimator",
        left.display(), right.display()
    )]
    Families {
        /// The first folder.
        left: PathBuf,
        /// Its estimator.
        left_estimator: Estimator,
        /// The other folder.
        right: PathBuf,
        /// Its estimator.
        right_estimator: Estimator,
    },
    /// A setting that the solver of this estimator does not have.
    #[error("`{name}` is no setting for `{estimator}` Fishers: use {instead}")]
    Inapplicable {
        /// The setting.
        name: &'static str,
        /// The Fishers' estimator.
        estimator: Estimator,
        /// What it has instead.
        instead: &'static str,
    },
    /// The mean of no Fisher at all.
    #[error("the mean needs at least one Fisher")]
    NoFisher,
    /// A number of directions that the space or the basis does not have.
    #[error("k = {k} is not between 1 and {available}")]
    Directions {
        /// What was asked for.
        k: usize,
        /// What there is.
        available: usize,
    },
    /// A vector or list of the wrong length.
    #[error("{op}: got {got} values, expected {expected}")]
    Length {
        /// The operation.
        op: &'static str,
        /// Entries of the layout.
        expected: usize,
        /// Entries given.
        got: usize,
    },
    /// A setting outside its range.
    #[error("`{name}` = {value} must be finite and not negative")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// Two matrices that do not form a pair.
    #[error("gevp: F_s is {safety:?} and F_u is {utility:?}; both must be square, of the same size and not empty")]
    Pair {
        /// Shape of F_s.
        safety: [usize; 2],
        /// Shape of F_u.
        utility: [usize; 2],
    },
    /// A matrix entry that is NaN or infinite.
    #[error("gevp: {matrix} holds {value} at [{row}, {col}]")]
    NotFinite {
        /// `F_s`, `F_u` or a Gram block.
        matrix: &'static str,
        /// Row.
        row: usize,
        /// Column.
        col: usize,
        /// The entry.
        value: f64,
    },
    /// A matrix that is not symmetric to rounding.
    #[error("gevp: {matrix} is not symmetric at [{row}, {col}]: {upper} and {lower}")]
    NotSymmetric {
        /// `F_s`, `F_u` or a Gram block.
        matrix: &'static str,
        /// Row.
        row: usize,
        /// Column.
        col: usize,
        /// Entry `[row, col]`.
        upper: f64,
        /// Entry `[col, row]`.
        lower: f64,
    },
    /// F_u + eps I has no Cholesky factor, or is singular to rounding.
    #[error("gevp: F_u + eps I is not positive definite to rounding: raise the ridge or eps")]
    NotPositiveDefinite,
    /// An error of the named module.
    #[error("module {module}: {source}")]
    InModule {
        /// The module.
        module: String,
        /// What is wrong in it.
        #[source]
        source: Box<Error>,
    },
    /// An error of one Kronecker factor of the named module.
    #[error("module {module}, {side} factor: {source}")]
    InFactor {
        /// The module.
        module: String,
        /// `input` (A) or `output` (G).
        side: &'static str,
        /// What is wrong in it.
        #[source]
        source: Box<Error>,
    },
    /// F_u is zero, or no Fisher at all, so that a ridge relative to its mean eigenvalue means nothing.
    #[error("gevp: F_u has trace {value}: a relative ridge refers to a positive one")]
    Trace {
        /// The trace.
        value: f64,
    },
    /// A matrix that should be positive semidefinite has a negative eigenvalue that rounding does not explain.
    #[error("gevp: {matrix} is indefinite: eigenvalue {value:e}, where rounding explains {allowed:e}")]
    Indefinite {
        /// The matrix.
        matrix: &'static str,
        /// The smallest eigenvalue.
        value: f64,
        /// The most negative eigenvalue that is taken for 0.
        allowed: f64,
    },
    /// Two matrices whose shapes do not fit the operation.
    #[error("{op}: {left:?} and {right:?} do not fit")]
    Shapes {
        /// The operation.
        op: &'static str,
        /// Shape of the first.
        left: [usize; 2],
        /// Shape of the second.
        right: [usize; 2],
    },
    /// Columns that do not span as many dimensions as there are of them.
    #[error("the columns of {matrix} {shape:?} are linearly dependent to rounding, or not finite")]
    RankDeficient {
        /// The matrix.
        matrix: String,
        /// Its shape.
        shape: [usize; 2],
    },
    /// Prefix projection of a subspace that is not spanned by coordinates.
    #[error("prefix projection is defined for coordinates only: use `aligned` with a sample basis")]
    PrefixOfVectors,
    /// Two bases that cannot be compared.
    #[error("angles are between two bases of coordinates, or two of dense vectors of phi, not between other pairs")]
    BasisKinds,
    /// A backend gave up or its answer does not solve the problem.
    #[error("gevp ({solver}): {reason}")]
    Solver {
        /// The backend.
        solver: &'static str,
        /// What happened.
        reason: String,
    },
}

impl Error {
    pub(crate) fn in_file(path: &Path) -> impl FnOnce(Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::InFile {
            path,
            source: Box::new(source),
        }
    }

    pub(crate) fn in_module(module: &str) -> impl FnOnce(Error) -> Error {
        move |source| Error::InModule {
            module: module.to_owned(),
            source: Box::new(source),
        }
    }

    pub(crate) fn in_factor(module: &str, side: &'static str) -> impl FnOnce(Error) -> Error {
        move |source| Error::InFactor {
            module: module.to_owned(),
            side,
            source: Box::new(source),
        }
    }

    pub(crate) fn content(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Content {
            what: what.into(),
            reason: reason.into(),
        }
    }
}
