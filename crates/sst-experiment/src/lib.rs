//! The pipeline: train, measure, merge, evaluate, compare; each step once, each result in a folder of its own.
//!
//! The functions in [`step`] are what the commands of the front door call, one each. [`sweep`] runs a whole [`Recipe`] in
//! a run folder whose parts are named by what went into them, so that nothing is computed twice, not even after an
//! interruption. [`Comparison`] is the table at the end. [`attribute`] says which stage of the pipeline carries the
//! difference between two merges.

mod answerer;
mod attribute;
mod attribution;
mod attribution_table;
mod cells;
mod comparison;
mod error;
mod judge;
mod lazy_model;
mod leakage;
mod recipe;
mod recipe_pair;
pub mod report;
mod reporter;
mod request;
mod results;
mod selection;
mod selection_recipe;
mod selection_table;
pub mod step;
mod sweep;

pub use answerer::{Answerer, EvaluatedSystem};
pub use attribute::{AttributeConfig, attribute};
pub use attribution::{Attribution, BenchmarkShares, Combination, Share};
pub use comparison::Comparison;
pub use error::Error;
pub use judge::judge;
pub use lazy_model::{LazyModel, ModelSource};
pub use recipe::{AdapterRecipe, FisherRecipe, Goals, Recipe, Role, StatisticsRecipe, Variant};
pub use recipe_pair::{RecipePair, Stage, StageDifference};
pub use reporter::{Reporter, Silent};
pub use results::{FailedCell, FisherFacts, Results, System};
pub use selection::{Axes, EarlierChoice, MethodChoice, Point, Selection};
pub use selection_recipe::{SelectionRecipe, SelectionRule};
pub use sweep::{Run, sweep};
