//! LoRA adapters as plain arrays, read from and written to PEFT folders.
//!
//! - [`Adapter`]: every module's A and B in model order, with [`Adapter::load`] and [`Adapter::save`]; [`Adapter::import_pt`] reads
//!   what `torch.save` wrote, without executing it.
//! - [`LoraConfig`]: what `adapter_config.json` says; what it says that we cannot honour is refused by name.
//! - [`LowRank`]: one module's change of weight, s B A: sums, inner products, decomposition, compression, never dense;
//!   [`Adapter::sum`] and [`Adapter::compress`] do the same for whole adapters.
//! - [`ParamLayout`]: where each tensor lies in the flat vector phi of all A and B entries.
//! - [`decompose`]: dense decompositions that give the same bits on any number of threads.
//!
//! ```
//! use ndarray::array;
//! use sst_adapter::{Adapter, LoraConfig, ModulePath};
//! # fn main() -> Result<(), sst_adapter::Error> {
//! let q = ModulePath::new("model.layers.0.self_attn.q_proj");
//! let config = LoraConfig::new(1, 2.0, ["q_proj"]);
//! let adapter = Adapter::from_pairs(config, [(q.clone(), array![[1.0, 0.5]], array![[3.0], [4.0]])])?;
//! assert_eq!(adapter.to_flat(), [1.0, 0.5, 3.0, 4.0]);
//! assert_eq!(adapter.modules[&q].delta(), array![[6.0, 3.0], [8.0, 4.0]]); // s = 2/1
//! # Ok(())
//! # }
//! ```

mod adapter;
mod config;
pub mod decompose;
mod delta;
mod dtype;
mod error;
mod layout;
mod low_rank;
mod module;
mod module_path;
mod peft;
mod pt;

pub use adapter::Adapter;
pub use config::{LoraConfig, TargetModules};
pub use dtype::Dtype;
pub use error::Error;
pub use layout::{ParamLayout, ParamSlot};
pub use low_rank::{LowRank, LowRankSvd};
pub use module::LoraModule;
pub use module_path::ModulePath;
pub use peft::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE};
pub use pt::PtImport;
