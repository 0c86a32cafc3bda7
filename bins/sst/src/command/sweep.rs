//! `sst sweep`

use crate::options::Options;
use clap::Args;
use sst_experiment::{Comparison, Recipe, Run, sweep};
use std::path::PathBuf;

/// Run a recipe: train the adapters, measure Fisher information, merge over the grid, evaluate everything, compare.
#[derive(Args)]
#[command(after_help = "\
Example:
  sst sweep docs/recipes/demo.toml --data runs/data --out runs/demo

Interrupted? Run the same command again: finished parts are reused, training goes on from its last checkpoint.")]
pub struct Sweep {
    /// The recipe, a TOML file.
    recipe: PathBuf,
    /// Folder of the base model.
    #[arg(long, default_value = ".models/smollm2-135m-instruct", value_name = "DIR")]
    model: PathBuf,
    /// Folder of data sets.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The run folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Sweep {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let recipe = Recipe::read(&self.recipe)?;
        let run = Run {
            data: self.data,
            out: self.out,
            command: super::command_line(),
        };
        let results = sweep(&mut options.base(self.model)?, &recipe, &run, &mut *options.reporter())?;
        options.print(&results, &Comparison::of(&results).text())
    }
}
