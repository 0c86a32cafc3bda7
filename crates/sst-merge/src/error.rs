//! Errors of merging; each names the setting, the adapter or the tensor at fault.

use sst_adapter::ModulePath;
use sst_subspace::Sides;

/// A merge could not be configured, computed or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An adapter is wrong, or two adapters do not fit together.
    #[error(transparent)]
    Adapter(#[from] sst_adapter::Error),
    /// The basis is wrong or does not fit.
    #[error(transparent)]
    Subspace(#[from] sst_subspace::Error),
    /// Writing a file failed.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
    /// An adapter could not be added to the weights of its base model.
    #[error(transparent)]
    Bake(#[from] crate::BakeError),
    /// No utility adapter was given.
    #[error("a merge needs at least one utility adapter")]
    NoUtility,
    /// The strategy projects, but no basis was given.
    #[error("strategy {strategy} projects onto a safety subspace: give a basis")]
    NoBasis {
        /// The strategy.
        strategy: &'static str,
    },
    /// The strategy weighs by covariances, but none were given.
    #[error(
        "strategy {strategy} weighs by covariances of inputs: give statistics over utility and over safety data, for \
         regmean one per adapter"
    )]
    NoStatistics {
        /// The strategy.
        strategy: &'static str,
    },
    /// A recipe names what its strategy does not read.
    #[error(
        "strategy {strategy} does not read `{key}` as it is set: leave it out, or choose the settings that read it \
         (docs/baselines.md)"
    )]
    NotRead {
        /// The strategy.
        strategy: &'static str,
        /// The recipe's key.
        key: &'static str,
    },
    /// Statistics of more or fewer utility adapters than there are.
    #[error("statistics of {got} utility adapters, but there are {expected}")]
    StatisticsCount {
        /// Utility adapters.
        expected: usize,
        /// Statistics given.
        got: usize,
    },
    /// Adapters of different base models.
    #[error(
        "{left} is of base model `{left_base}`, {right} of `{right_base}`; where they are the same model, name it alike as \
         base_model_name_or_path in both adapter_config.json"
    )]
    BaseModelsDiffer {
        /// One adapter.
        left: String,
        /// Its base model.
        left_base: String,
        /// The other adapter.
        right: String,
        /// Its base model.
        right_base: String,
    },
    /// Weights that are wrong or do not fit the adapters.
    #[error("weights: {reason}")]
    Weights {
        /// What is wrong with them.
        reason: String,
    },
    /// The strategy weighs by diagonal Fishers, but none were given.
    #[error("strategy {strategy} weighs entries by their Fisher information: give a diagonal Fisher of every adapter")]
    NoDiagonals {
        /// The strategy.
        strategy: &'static str,
    },
    /// More or fewer diagonal Fishers than adapters.
    #[error("{got} diagonal Fishers for {expected} adapters")]
    DiagonalsCount {
        /// Adapters.
        expected: usize,
        /// Fishers given.
        got: usize,
    },
    /// The strategy projects onto what alignment changed, but the models that say it were not given.
    #[error("strategy {strategy} projects onto what alignment changed: give an aligned and an unaligned model")]
    NoAlignment {
        /// The strategy.
        strategy: &'static str,
    },
    /// The exact projection onto what alignment changed in a whole model.
    #[error(
        "strategy {strategy}: `projection = \"exact\"` needs `alignment = \"adapter\"`: two models differ in every direction"
    )]
    ExactAlignment {
        /// The strategy.
        strategy: &'static str,
    },
    /// What alignment changed in a module is of another shape than the adapters' change.
    #[error("module {module} is {expected:?} in the adapters but {got:?} in the models that alignment is read from")]
    AlignmentShape {
        /// The module's path.
        module: String,
        /// `[d_out, d_in]` of the adapters.
        expected: [usize; 2],
        /// `[d_out, d_in]` of the models.
        got: [usize; 2],
    },
    /// The models that alignment is read from lack a module.
    #[error("module {module} is not in the models that alignment is read from")]
    AlignmentMissing {
        /// The module's path.
        module: String,
    },
    /// What alignment changed in a module is not finite.
    #[error(
        "module {module} holds NaN or infinity in the models that alignment is read from: give models that are whole"
    )]
    AlignmentNotFinite {
        /// The module's path.
        module: String,
    },
    /// A covariance of another size than the module's input.
    #[error("module {module} has {expected} inputs, but its covariance is of {got}")]
    StatisticsShape {
        /// The module's path.
        module: String,
        /// d_in of the adapters.
        expected: usize,
        /// d_in of the covariance.
        got: usize,
    },
    /// The covariances leave directions in which any change is as good as another.
    #[error("the covariances of module {module}'s inputs add up to a singular matrix: raise `ridge`")]
    SingularStatistics {
        /// The first module that reads these inputs.
        module: String,
    },
    /// Statistics and a Kronecker basis, which each settle the directions.
    #[error("strategy {strategy} takes its directions from statistics or from a Kronecker basis: give one of them")]
    TwoSources {
        /// The strategy.
        strategy: &'static str,
    },
    /// A Kronecker basis of other sides than the strategy's.
    #[error("strategy {strategy}: `sides` is {sides}, but the basis was solved for {basis}")]
    BasisSides {
        /// The strategy.
        strategy: &'static str,
        /// The setting.
        sides: Sides,
        /// The basis'.
        basis: Sides,
    },
    /// The two losses together leave a direction undetermined.
    #[error("module {module}: A_u + eps I + gamma A_s is singular to rounding at gamma = {gamma}: raise `ridge`")]
    Singular {
        /// The module's path.
        module: String,
        /// Its gamma.
        gamma: f64,
    },
    /// A setting outside its range.
    #[error("strategy {strategy}: `{setting}` = {value} {reason}")]
    Setting {
        /// The strategy.
        strategy: &'static str,
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: f64,
        /// The range.
        reason: &'static str,
    },
    /// A choice that the method does not offer.
    #[error("strategy {strategy}: `{setting}` = \"{value}\" is not defined")]
    NotDefined {
        /// The strategy.
        strategy: &'static str,
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: &'static str,
    },
    /// A strategy that does not exist.
    #[error("unknown strategy `{name}`: known are {known}")]
    UnknownStrategy {
        /// The name given.
        name: String,
        /// All names.
        known: String,
    },
    /// A recipe file that cannot be understood.
    #[error("{}: {reason}", path.display())]
    Recipe {
        /// The file.
        path: std::path::PathBuf,
        /// The line and key at fault.
        reason: String,
    },
    /// Scores that are not those of all combinations of stages.
    #[error("attribution: {reason}")]
    Scores {
        /// The combination and item at fault.
        reason: String,
    },
    /// An error of a strategy defined elsewhere.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Names the module in an error of the algebra on its change, which knows of none.
    pub(crate) fn in_module(path: &ModulePath) -> impl FnOnce(Error) -> Error {
        move |error| match error {
            Error::Adapter(source) => Error::Adapter(sst_adapter::Error::in_module(path)(source)),
            other => other,
        }
    }
}
