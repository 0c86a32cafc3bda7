//! The pipeline: train, measure, merge, evaluate, compare; each step once, each result in a folder of its own.
//!
//! The functions in [`step`] are what the commands of the front door call, one each. [`sweep`] runs a whole [`Recipe`] in
//! a run folder whose parts are named by what went into them, so that nothing is computed twice, not even after an
//! interruption. Its [`Plan`] is what runs it: here part by part, as commands for a scheduler ([`WrittenPlan`]), or on Slurm
//! ([`sweep_on_slurm`]). [`Comparison`] is the table at the end. [`attribute`] says which stage of the pipeline carries the
//! difference between two merges.

mod answerer;
mod attribute;
mod attribution;
mod attribution_table;
mod cells;
mod comparison;
mod error;
mod failures;
mod invocation;
mod judge;
mod lazy_model;
mod leakage;
mod lock;
mod measurement;
mod merge_cell;
mod over_seeds;
mod plan;
mod recipe;
mod recipe_pair;
pub mod report;
mod reporter;
mod request;
mod results;
mod selection;
mod selection_recipe;
mod selection_table;
mod slurm;
pub mod step;
mod sweep;
mod time_left;

pub use answerer::{Answerer, EvaluatedSystem};
pub use attribute::{AttributeConfig, attribute};
pub use attribution::{Attribution, BenchmarkShares, Combination, Share};
pub use comparison::Comparison;
pub use error::Error;
pub use failures::FailedCell;
pub use invocation::{Invocation, PlannedPart, PlannedStage, WrittenPlan, quoted};
pub use judge::judge;
pub use lazy_model::{LazyModel, ModelSource};
pub use measurement::Measurement;
pub use merge_cell::MergeCell;
pub use over_seeds::{OverSeeds, Spread};
pub use plan::{Candidate, Finalist, PLAN_STAGES, Part, PartNumber, Plan, PlanStage};
pub use recipe::{AdapterRecipe, FisherRecipe, Goals, Recipe, Role, StatisticsRecipe, UtilityAnswers, Variant};
pub use recipe_pair::{RecipePair, Stage, StageDifference};
pub use reporter::{Reporter, Silent};
pub use results::{FisherFacts, Results, System};
pub use selection::{Axes, EarlierChoice, MethodChoice, Point, Selection};
pub use selection_recipe::{SelectionRecipe, SelectionRule};
pub use slurm::{SlurmConfig, SlurmOption, sweep_on_slurm};
pub use sweep::{Run, remaining, sweep, sweep_parts};
pub use time_left::Overall;
