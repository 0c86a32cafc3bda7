//! Fisher information of LoRA parameters, from batched per-sample gradients.
//!
//! One forward and one backward pass of a batch give every sample's own gradient; only running sums are kept, so memory
//! does not grow with the number of samples.

mod diagonal;
mod error;
mod protocol;

pub use diagonal::{FisherConfig, FisherProgress, diagonal_fisher};
pub use error::Error;
pub use protocol::Protocol;
