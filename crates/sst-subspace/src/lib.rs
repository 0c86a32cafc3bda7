//! Fisher artefacts, generalised eigenproblems and the safety subspace.
//!
//! F_s v = lambda (F_u + eps I) v: a large lambda marks a direction that matters for safety and not for utility.
//!
//! - [`Fisher`]: an artefact on disk: [`DiagonalFisher`], [`KroneckerFisher`] or [`SampleFisher`].
//! - [`write_shard`], [`reduce`]: checkpoints and shards of an estimate, and the artefact that they add up to.
//! - [`gevp::diagonal`]: top k of the ratios, O(n); [`gevp::dense`]: small dense pairs, two backends;
//!   [`gevp::kronecker`]: two small pairs per layer; [`gevp::samples`]: exact, from inner products of gradients.
//! - [`Basis`], [`SampleBasis`], [`KroneckerBasis`]: the span of the top k, its projection and how much it keeps;
//!   [`PhiBasis`] is any basis of phi.
//! - [`SubspaceConfig`]: from Fisher folders to a subspace by the estimator's solver; [`inspect`](mod@inspect): what is in
//!   an artefact's folder.
//! - [`principal_angles`], [`SubspaceAngles`], [`bootstrap`], [`effective_rank`]: how alike, how stable, how large.
//!
//! ```
//! use sst_adapter::ParamLayout;
//! use sst_subspace::{DiagonalFisher, Estimator, FisherMeta, Projection, RATIO_EPS, gevp};
//! # fn main() -> Result<(), sst_subspace::Error> {
//! let layout = ParamLayout::new([("layers.0.q_proj.lora_A".to_owned(), 2, 2)])?;
//! let meta = FisherMeta::new(Estimator::DiagVariance, "response", 7);
//! let safety = DiagonalFisher::new(layout.clone(), vec![1.0, 9.0, 4.0, 2.0], meta.clone())?;
//! let utility = DiagonalFisher::new(layout, vec![1.0, 3.0, 1.0, 2.0], meta)?;
//! let basis = gevp::diagonal(&safety, &utility, 2, RATIO_EPS)?;
//! assert_eq!(basis.indices(), [2, 1]); // the ratios are near 1, 3, 4, 1
//! assert_eq!(basis.project(&[1.0, 1.0, 1.0, 1.0], Projection::Aligned)?, [0.0, 1.0, 1.0, 0.0]);
//! # Ok(())
//! # }
//! ```

mod angles;
mod basis;
mod basis_file;
mod bootstrap;
mod decompose;
mod draw;
mod effective_rank;
mod error;
mod fisher;
pub mod gevp;
pub mod inspect;
mod kronecker_basis;
mod phi_basis;
mod projection;
mod reduce;
mod sample_basis;
mod selection;
mod shard;
pub mod solve;
mod spectrum;
mod tensor_file;
mod tensor_writer;

pub use angles::{SubspaceAngles, principal_angles};
pub use basis::Basis;
pub use basis_file::BASIS_FILE;
pub use bootstrap::{BootstrapConfig, Stability, bootstrap};
pub use effective_rank::{effective_rank, participation_ratio};
pub use error::Error;
pub use fisher::{
    DiagonalFisher, ESTIMATOR_RIDGE, Estimator, FISHER_FILE, Fisher, FisherMeta, GRADIENTS_FILE, GRAM_FILE,
    GradientStore, KroneckerFactors, KroneckerFisher, Labels, MEAN_FILE, SampleFisher, TokenWeighting,
};
pub use gevp::RATIO_EPS;
pub use kronecker_basis::{Direction, Frame, KroneckerBasis, KroneckerDirections};
pub use phi_basis::PhiBasis;
pub use projection::Projection;
pub use reduce::reduce;
pub use sample_basis::{SampleBasis, SampleDirections};
pub use selection::{RandomControl, Selection};
pub use shard::{FisherShard, Shard, ShardMeta, write_shard};
pub use solve::{Factors, KroneckerPair, SafetySubspace, Sides, SubspaceConfig, SubspaceProblem, SubspaceSummary};
pub use spectrum::{Quantile, Spectrum};
