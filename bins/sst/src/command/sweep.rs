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

Interrupted? Run the same command again: finished parts are reused, training goes on from its last checkpoint.
A merge that fails is reported at the end and left out of the table; --retry-failed tries it again.")]
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
    /// Try merges again that failed in an earlier run of this recipe.
    #[arg(long)]
    retry_failed: bool,
    /// Where the recipe has a [selection] whose test scores are known already and the grid has changed: choose again, and record
    /// that they were known.
    #[arg(long)]
    choose_again: bool,
}

impl Sweep {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let recipe = Recipe::read(&self.recipe)?;
        let run = Run {
            data: self.data,
            out: self.out,
            command: super::command_line(),
            retry_failed: self.retry_failed,
            choose_again: self.choose_again,
        };
        let results = sweep(&mut options.base(self.model)?, &recipe, &run, &mut *options.reporter())?;
        let selection = results.selection.iter().map(|selection| selection.text());
        let tables: Vec<String> = std::iter::once(Comparison::of(&results).text())
            .chain(selection)
            .collect();
        options.print(&results, &tables.join("\n\n"))?;
        for cell in &results.failed {
            eprintln!("failed: {}: {}", cell.name, cell.error);
        }
        match results.failed.len() {
            0 => Ok(()),
            n => anyhow::bail!("{n} merges failed; mend what they name and run again with --retry-failed"),
        }
    }
}
