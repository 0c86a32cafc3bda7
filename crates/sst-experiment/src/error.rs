//! Errors of the pipeline: those of its parts, and those of recipes and output folders.

use sst_data::Dataset;
use std::path::PathBuf;

/// A step of the pipeline could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
    /// An adapter is not usable.
    #[error(transparent)]
    Adapter(#[from] sst_adapter::Error),
    /// A Fisher artefact or a subspace is not usable.
    #[error(transparent)]
    Subspace(#[from] sst_subspace::Error),
    /// Adapters could not be merged.
    #[error(transparent)]
    Merge(#[from] sst_merge::Error),
    /// Data is missing or malformed.
    #[error(transparent)]
    Data(#[from] sst_data::Error),
    /// An evaluation failed.
    #[error(transparent)]
    Eval(#[from] sst_eval::Error),
    /// A server cannot be asked.
    #[error(transparent)]
    Endpoint(#[from] sst_eval::EndpointError),
    /// The answers of an evaluation that was cut off cannot be used, or new ones not be kept.
    #[error(transparent)]
    Journal(#[from] sst_eval::JournalError),
    /// The model is not usable, or training failed.
    #[error(transparent)]
    Model(#[from] sst_model::Error),
    /// Fisher information could not be estimated.
    #[error(transparent)]
    Fisher(#[from] sst_fim::Error),
    /// A recipe is malformed or inconsistent.
    #[error("{}: {reason}", path.display())]
    Recipe {
        /// The recipe file.
        path: PathBuf,
        /// The key or line and what is wrong.
        reason: String,
    },
    /// Items are trained on and evaluated on alike.
    #[error(
        "{count} of {n} items of {eval_set} are trained on in {train_set} ({eval} is {train}): `sst data check` lists them; \
         remove them, or set `allow_leakage = true` in the recipe"
    )]
    Leakage {
        /// The set trained on.
        train_set: Dataset,
        /// The set evaluated on.
        eval_set: String,
        /// Items that leak.
        count: usize,
        /// Items of the set evaluated on.
        n: usize,
        /// The first that leaks.
        eval: String,
        /// Its copy.
        train: String,
    },
    /// An output folder already holds the result of another request.
    #[error("{} already holds another result ({difference}); choose another output folder or delete it", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
        /// What differs from the present request.
        difference: String,
    },
    /// There is nothing to compare, or what there is does not belong together.
    #[error("{0}")]
    Compare(String),
    /// A result that was to be read is not computed yet.
    #[error("{} is not there yet", path.display())]
    NotThere {
        /// Its folder.
        path: PathBuf,
    },
    /// What failed before, with its error, is not tried again.
    #[error("{0}")]
    FailedBefore(String),
    /// A part is none of the plan's.
    #[error("{0}")]
    Plan(String),
    /// Slurm refused, cannot be asked, or a part failed in it.
    #[error("{0}")]
    Slurm(String),
}
