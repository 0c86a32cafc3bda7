//! Merge a utility and a safety LoRA adapter of one language model.
//!
//! - [`MergeStrategy`]: the trait; [`V1`] and [`V2`] are the study's two methods on phi, all A and B entries, as is
//!   [`FisherMerging`]; the others work on delta, the changes of the weights, and take adapters of any ranks, alphas and
//!   target modules. Where a setting asks for the factors (`space = "factors"`, `peft-factors`), the layouts must agree.
//! - [`Sst`]: our own method, the minimiser of two quadratic losses.
//! - [`MergeInputs`]: utility adapters U (several: their mean), a safety adapter S, a safety subspace, statistics and
//!   [`ModuleWeights`].
//! - [`Merged`]: the adapter and what was measured on the way; [`write_merged`] makes it a PEFT folder.
//! - [`StrategyConfig`]: a strategy as a recipe spells it; [`MergeRecipe`]: a whole merge as a TOML file.
//! - [`bake`]: an adapter added to the weights of its base model, file by file.
//! - [`shapley`]: which stage of a pipeline carries a difference between two merges.
//!
//! Everything that a downstream crate needs from the crates below is re-exported here.
//!
//! ```
//! use sst_merge::{Adapter, DiagonalFisher, Estimator, FisherMeta, LoraConfig, MergeInputs, RATIO_EPS, gevp};
//! use sst_merge::{MergeStrategy, V2Config, array};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let adapter = |a, b| {
//!     Adapter::from_pairs(LoraConfig::new(1, 2.0, ["q_proj"]), [("layers.0.q_proj".into(), a, b)])
//! };
//! let utility = adapter(array![[1.0, 2.0]], array![[3.0], [4.0]])?;
//! let safety = adapter(array![[0.5, -1.0]], array![[2.0], [-3.0]])?;
//!
//! let fisher = |values: [f32; 4]| {
//!     DiagonalFisher::new(utility.layout(), values.to_vec(), FisherMeta::new(Estimator::Diag, "response", 0))
//! };
//! let (f_safety, f_utility) = (fisher([1.0, 9.0, 1.0, 8.0])?, fisher([1.0, 1.0, 1.0, 1.0])?);
//! let basis = gevp::diagonal(&f_safety, &f_utility, 2, RATIO_EPS)?.into();
//!
//! let strategy = V2Config { k: 2, weight: 0.5, ..V2Config::default() }.check()?;
//! let merged = strategy.merge(&MergeInputs::new(std::slice::from_ref(&utility), &safety).with_basis(&basis))?;
//! assert_eq!(merged.adapter.to_flat(), [1.0, 1.5, 3.0, 2.5]);
//! # Ok(())
//! # }
//! ```

mod alignment_change;
mod attribution;
mod bake;
mod card;
mod counter;
mod error;
mod inputs;
mod merged;
mod model_difference;
mod recipe;
mod strategy;
mod weights;
mod write;

pub use alignment_change::AlignmentChange;
pub use attribution::{Interaction, MAX_STAGES, Shapley, shapley};
pub use bake::{BakeError, Baked, bake};
pub use counter::Counter;
pub use error::Error;
pub use inputs::{MergeInputs, Statistics};
pub use merged::{Diagnostics, Merged, OutputRank, Space};
pub use model_difference::ModelDifference;
pub use recipe::{AlignmentPaths, LoadedRecipe, MergeRecipe, StatisticsPaths};
pub use strategy::*;
pub use weights::{ModuleOverride, ModuleWeights, ModuleWeightsConfig};
pub use write::{MergeRecord, write_merged};

pub use ndarray::{Array2, array};
pub use sst_adapter::{
    Adapter, Dtype, Error as AdapterError, LoraConfig, LoraModule, LowRank, LowRankSvd, ModulePath, ParamLayout,
    ParamSlot, TargetModules,
};
pub use sst_artefact::{Input, Manifest, ParseError};
pub use sst_subspace::{
    Basis, DiagonalFisher, Direction, ESTIMATOR_RIDGE, Error as SubspaceError, Estimator, FisherMeta, Frame,
    KroneckerBasis, KroneckerDirections, KroneckerFactors, KroneckerFisher, KroneckerPair, Labels, PhiBasis,
    Projection, Quantile, RATIO_EPS, RandomControl, SampleBasis, SampleDirections, Selection, Sides, Spectrum,
    TokenWeighting, gevp,
};
