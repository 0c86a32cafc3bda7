//! Fisher artefacts, generalised eigenproblems and the safety subspace.
//!
//! F_s v = lambda (F_u + eps I) v: a large lambda marks a direction that matters for safety and not for utility.
//!
//! - [`DiagonalFisher`]: a Fisher diagonal as an artefact on disk.
//! - [`gevp::diagonal`]: top k of the ratios, O(n); [`gevp::dense`]: small dense pairs, two backends.
//! - [`Basis`]: the span of the top k, its projection and how much of a vector it keeps.
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

mod basis;
mod error;
mod fisher;
pub mod gevp;
mod projection;
mod spectrum;

pub use basis::{BASIS_FILE, Basis, RandomControl, Selection};
pub use error::Error;
pub use fisher::{DiagonalFisher, ESTIMATOR_RIDGE, Estimator, FISHER_FILE, FisherMeta};
pub use gevp::RATIO_EPS;
pub use projection::Projection;
pub use spectrum::{Quantile, Spectrum};
