//! Fisher information of LoRA'd linears and their parameters, from batched forward and backward passes.
//!
//! One pass of a batch gives every sample's own gradient; any number of estimators take from it what they need, and keep sums
//! (or a file), so that memory does not grow with the number of samples.
//!
//! - [`estimate`]: from examples to artefacts, going on where it was interrupted;
//! - [`shard`]: the part of one machine of several; `sst_subspace::reduce` joins them.

mod config;
mod error;
mod estimator;
mod pass;
mod protocol;

pub use config::FisherConfig;
pub use error::Error;
pub use pass::{Estimate, FisherProgress, PassTimes, Samples, Source, estimate, shard};
pub use protocol::Protocol;
