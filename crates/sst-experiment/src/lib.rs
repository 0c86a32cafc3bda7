//! The pipeline: train, measure, merge, evaluate, compare; each step once, each result in a folder of its own.
//!
//! The functions in [`step`] are what the commands of the front door call, one each. [`sweep`] runs a whole [`Recipe`] in
//! a run folder whose parts are named by what went into them, so that nothing is computed twice, not even after an
//! interruption. [`Comparison`] is the table at the end.

mod comparison;
mod error;
mod recipe;
mod reporter;
mod request;
mod results;
mod session;
pub mod step;
mod sweep;

pub use comparison::Comparison;
pub use error::Error;
pub use recipe::{AdapterRecipe, FisherRecipe, Goals, Recipe, Role, Variant};
pub use reporter::{Reporter, Silent};
pub use results::{FisherFacts, Results, System};
pub use session::{ModelSource, Session};
pub use sweep::{Run, sweep};
