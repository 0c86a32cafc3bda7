//! One file per command.

mod attribute;
mod bake;
mod compare;
mod data;
mod eval;
mod fisher;
mod import;
mod inspect;
mod judge;
mod merge;
mod model;
mod report;
mod subspace;
mod sweep;
mod train;

use crate::options::Options;
use clap::Subcommand;
use sst_data::{DataFolder, Dataset, Split};
use std::path::PathBuf;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Bring a base model here.
    #[command(subcommand)]
    Model(model::Model),
    /// Make data sets.
    #[command(subcommand)]
    Data(data::Data),
    /// Fine-tune a LoRA adapter.
    Train(train::Train),
    /// Measure Fisher information of an adapter's parameters.
    Fisher(fisher::Fisher),
    /// Find the directions that matter for safety and not for utility.
    Subspace(subspace::Subspace),
    /// Turn an adapter that `torch.save` wrote into a PEFT folder.
    Import(import::Import),
    /// Merge utility adapters with a safety adapter.
    Merge(merge::Merge),
    /// Add an adapter to the weights of its base model.
    Bake(bake::Bake),
    /// Measure safety and skill of a model, with or without an adapter.
    Eval(eval::Eval),
    /// Check a judge of refusals against people.
    #[command(subcommand)]
    Judge(judge::Judge),
    /// Print evaluations side by side.
    Compare(compare::Compare),
    /// Find the stage that carries the difference between two merges.
    Attribute(attribute::Attribute),
    /// Show what is inside artefact folders.
    Inspect(inspect::Inspect),
    /// Run a recipe: train, measure, merge over a grid, evaluate, compare.
    Sweep(sweep::Sweep),
    /// Write the report of a run: tables, tests, charts, findings.
    Report(report::Report),
}

impl Command {
    /// Runs the command.
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        match self {
            Self::Model(command) => command.run(options),
            Self::Data(command) => command.run(options),
            Self::Train(command) => command.run(options),
            Self::Fisher(command) => command.run(options),
            Self::Subspace(command) => command.run(options),
            Self::Import(command) => command.run(options),
            Self::Merge(command) => command.run(options),
            Self::Bake(command) => command.run(options),
            Self::Eval(command) => command.run(options),
            Self::Judge(command) => command.run(options),
            Self::Compare(command) => command.run(options),
            Self::Attribute(command) => command.run(options),
            Self::Inspect(command) => command.run(options),
            Self::Sweep(command) => command.run(options),
            Self::Report(command) => command.run(options),
        }
    }
}

/// The file of a split: `path` itself, or the one inside the folder `path`.
fn data_file(path: PathBuf, dataset: Dataset, split: Split) -> anyhow::Result<PathBuf> {
    if path.is_dir() {
        Ok(DataFolder::open(&path)?.path(dataset, split)?)
    } else {
        Ok(path)
    }
}

/// The command as it was typed, for model cards.
fn command_line() -> String {
    shown(&std::env::args().skip(1).collect::<Vec<_>>())
}

/// `sst` with arguments, as a user would type it.
fn shown(arguments: &[String]) -> String {
    let word = |argument: &String| {
        if argument.is_empty() || argument.contains(char::is_whitespace) {
            format!("'{argument}'")
        } else {
            argument.clone()
        }
    };
    let words: Vec<String> = arguments.iter().map(word).collect();
    format!("sst {}", words.join(" "))
}
