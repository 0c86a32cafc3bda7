//! One function per step of the pipeline. Each reuses a finished result of the same request, refuses to overwrite another
//! one's, and leaves a folder with a manifest.

mod evaluate;
mod fisher;
mod fisher_shards;
mod merge;
mod subspace;
mod train;

pub use evaluate::{EvaluateAllStep, evaluate_all};
pub use fisher::{FisherStep, fisher, fisher_shard};
pub use merge::{MergeStep, merge};
pub use subspace::{SubspaceStep, subspace};
pub use train::{TrainStep, train};

pub(crate) use evaluate::requests as evaluate_requests;
pub(crate) use fisher::request as fisher_request;
pub(crate) use fisher_shards::{ShardStep, reduce as fisher_reduce};
pub(crate) use merge::request as merge_request;
pub(crate) use subspace::request as subspace_request;
pub(crate) use train::request as train_request;

/// The last part of a path, as a name for people.
pub fn folder_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
