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
use anyhow::Context;
use clap::Subcommand;
use sst_data::{DataFolder, Dataset, Split};
use std::path::PathBuf;

/// What to do.
// Each has the help of its type, all of which a doc comment on the variant would replace.
#[derive(Subcommand)]
pub enum Command {
    #[command(subcommand)]
    Model(model::Model),
    #[command(subcommand)]
    Data(data::Data),
    Train(train::Train),
    Fisher(fisher::Fisher),
    Subspace(subspace::Subspace),
    Import(import::Import),
    Merge(merge::Merge),
    Bake(bake::Bake),
    Eval(eval::Eval),
    #[command(subcommand)]
    Judge(judge::Judge),
    Compare(compare::Compare),
    Attribute(attribute::Attribute),
    Inspect(inspect::Inspect),
    Sweep(sweep::Sweep),
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

/// `sst` with arguments, as a shell reads it.
fn shown(arguments: &[String]) -> String {
    let words: Vec<String> = arguments.iter().map(|word| sst_experiment::quoted(word)).collect();
    format!("sst {}", words.join(" "))
}

/// The settings of `--set KEY=VALUE`, of which there may be several, as one table.
fn settings(given: &[String]) -> anyhow::Result<toml::Table> {
    let mut table = toml::Table::new();
    for setting in given {
        let parsed: toml::Table = toml::from_str(setting)
            .with_context(|| format!("--set {setting}: not KEY=VALUE with a TOML value; texts need quotes"))?;
        table.extend(parsed);
    }
    Ok(table)
}
