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
    /// A system that a selection judges cannot be evaluated on the test items.
    #[error("{name} on the test items: {source}")]
    OnTestItems {
        /// Its name in tables.
        name: String,
        /// What is wrong.
        #[source]
        source: Box<Error>,
    },
    /// A part is none of the plan's.
    #[error("{0}")]
    Plan(String),
    /// Slurm refused, cannot be asked, or a part failed in it.
    #[error("{0}")]
    Slurm(String),
}

impl Error {
    /// Whether it lies in the adapters that are merged, measured or evaluated, or in their settings: it is kept, and the sweep goes
    /// on without them. What the model, a judge, a server, a journal or the disk does is none of their doing.
    pub(crate) fn is_own(&self) -> bool {
        let own = match self {
            Self::Adapter(_) | Self::Subspace(_) | Self::Merge(_) | Self::FailedBefore(_) => true,
            Self::Fisher(error) => !matches!(error, sst_fim::Error::Model(_)),
            // An adapter that does not fit the model; a likelihood that is no number.
            Self::Model(sst_model::Error::Shape { .. } | sst_model::Error::Module { .. }) => true,
            Self::Eval(sst_eval::Error::Answers { .. }) => true,
            // The settings ask for a data set that nobody put there.
            Self::Data(sst_data::Error::Missing { .. }) => true,
            _ => false,
        };
        own && !is_of_disk(self)
    }
}

/// Whether a file that cannot be read or written, or is malformed, is behind it.
fn is_of_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|error| {
        error.is::<std::io::Error>() || error.is::<serde_json::Error>() || error.is::<safetensors::SafeTensorError>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensorError;
    use sst_eval::{Benchmark, GeneratorError, JournalError, JudgeError};
    use std::path::Path;

    #[test]
    fn only_what_lies_in_a_merge_is_its_own() {
        let directions = || sst_subspace::Error::Directions { k: 9, available: 3 };
        let no_number = sst_eval::Error::Answers {
            benchmark: Benchmark::Mmlu,
            expected: "4 finite log-likelihoods".to_owned(),
            got: "NaN".to_owned(),
        };
        for own in [
            Error::Subspace(directions()),
            Error::Merge(directions().into()),
            Error::Fisher(directions().into()),
            Error::FailedBefore("too few samples".to_owned()),
            Error::Eval(no_number),
        ] {
            assert!(own.is_own(), "{own}");
        }
        let full = || sst_artefact::Error::io("write", "somewhere")(std::io::Error::other("no space left"));
        let cut = || SafeTensorError::InvalidHeaderLength;
        let cut_file = || sst_adapter::Error::in_file(Path::new("adapter_model.safetensors"))(cut().into());
        let lost = || Box::new(JournalError::Count { expected: 2, got: 1 });
        let benchmark = Benchmark::Jailbreak;
        for other in [
            Error::Artefact(full()),
            Error::Adapter(full().into()),
            Error::Subspace(full().into()),
            Error::Merge(sst_merge::Error::Adapter(full().into())),
            Error::Fisher(full().into()),
            Error::Adapter(cut_file()),
            Error::Merge(sst_merge::Error::Adapter(cut_file())),
            Error::Subspace(cut().into()),
            Error::Journal(full().into()),
            Error::Eval(sst_eval::Error::Generator {
                benchmark,
                source: GeneratorError(lost()),
            }),
            Error::Eval(sst_eval::Error::Judge {
                benchmark,
                judge: "endpoint".to_owned(),
                source: JudgeError(lost()),
            }),
            Error::NotThere { path: PathBuf::new() },
        ] {
            assert!(!other.is_own(), "{other}");
        }
    }
}
