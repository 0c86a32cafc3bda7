//! `sst sweep`

use crate::options::Options;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use sst_experiment::{
    Comparison, Invocation, OverSeeds, PartNumber, Plan, PlanStage, Recipe, Results, Run, SlurmConfig, SlurmOption,
    WrittenPlan, remaining, sweep, sweep_on_slurm, sweep_parts,
};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// How often a part is submitted again where nothing is said.
const RETRIES: usize = 2;

/// Run a recipe: train adapters, measure Fisher information, merge over a grid, evaluate, compare.
#[derive(Args)]
#[command(after_help = "\
Examples:
  sst sweep docs/recipes/demo.toml --data runs/data --out runs/demo
  sst sweep docs/recipes/demo.toml --data runs/data --out runs/demo --plan
  sst sweep grid.toml --data data --out runs/grid --fisher-shards 8 --executor slurm --slurm partition=gpu \\
    --slurm gres=gpu:1 --slurm time=1:00:00 --slurm evaluate.time=4:00:00

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
    /// Compute every Fisher estimate in so many shards, which can run side by side.
    #[arg(long, default_value_t = NonZeroUsize::MIN, value_name = "N")]
    fisher_shards: NonZeroUsize,
    /// Try again what failed in an earlier run of this recipe.
    #[arg(long, conflicts_with = "stage")]
    retry_failed: bool,
    /// Where the recipe has a selection whose test scores are known already and the grid has changed: choose again, and record
    /// that they were known.
    #[arg(long)]
    choose_again: bool,
    /// Print the commands that run what is left, stage by stage, and compute nothing.
    #[arg(long, conflicts_with_all = ["stage", "executor"])]
    plan: bool,
    /// Run one stage alone: train, fisher, reduce, merge, evaluate, test or report.
    #[arg(long)]
    stage: Option<PlanStage>,
    /// With --stage: one of its parts, as --plan counts them; all if not given.
    #[arg(long, value_name = "I/N", requires = "stage")]
    part: Option<PartNumber>,
    /// Where the plan runs: in this process if not given, or in jobs of a Slurm cluster.
    #[arg(long, value_enum, conflicts_with = "stage")]
    executor: Option<Executor>,
    /// With --executor slurm: a long option for sbatch, for all stages or one: time=2:00:00, fisher.gres=gpu:1, exclusive.
    /// May be repeated.
    #[arg(long, value_name = "[STAGE.]KEY=VALUE", requires = "executor")]
    slurm: Vec<SlurmOption>,
    /// With --executor slurm: how often a part is submitted again whose time was up or whose node was lost. [default: 2]
    #[arg(long, value_name = "N", requires = "executor")]
    retries: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Executor {
    Local,
    Slurm,
}

impl Sweep {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        if self.executor == Some(Executor::Local) && (!self.slurm.is_empty() || self.retries.is_some()) {
            let flag = if self.slurm.is_empty() { "--retries" } else { "--slurm" };
            bail!("{flag} is for --executor slurm; --executor local submits nothing");
        }
        let recipe = Recipe::read(&self.recipe)?;
        let arguments = self.arguments(options);
        let run = Run {
            data: self.data,
            out: self.out,
            command: super::shown(&arguments),
            retry_failed: self.retry_failed,
            fisher_shards: self.fisher_shards.get(),
            choose_again: self.choose_again,
        };
        let mut base = options.base(self.model)?;
        let mut reporter = options.reporter();
        if let Some(stage) = self.stage {
            let failed = sweep_parts(&mut base, &recipe, &run, (stage, self.part), &mut *reporter)?;
            for cell in &failed {
                eprintln!("failed: {}: {}", cell.name, cell.error);
            }
            let part = self.part.map(|part| part.to_string());
            let text = part
                .as_ref()
                .map_or(format!("{stage}: done"), |part| format!("{stage} part {part}: done"));
            let value = serde_json::json!({ "stage": stage, "part": part, "failed": failed });
            return options.print(&value, &text);
        }
        let again = self.choose_again.then(|| "--choose-again".to_owned());
        let invocation = || -> anyhow::Result<Invocation> {
            Ok(Invocation {
                folder: std::env::current_dir().context("the present folder is gone")?,
                program: std::env::current_exe().context("the program's own path is unknown")?,
                arguments: arguments.into_iter().chain(again).collect(),
            })
        };
        if self.plan {
            let plan = Plan::of(&recipe, run.fisher_shards)?;
            let left = remaining(&mut base, &recipe, &run, &plan, &mut sst_experiment::Silent)?;
            let written = WrittenPlan::of(&plan, &left, &invocation()?);
            return options.print(&written, &written.to_string());
        }
        let results = match self.executor {
            Some(Executor::Slurm) => {
                let config = SlurmConfig {
                    options: self.slurm,
                    retries: self.retries.unwrap_or(RETRIES),
                };
                sweep_on_slurm(&mut base, &recipe, &run, (&invocation()?, &config), &mut *reporter)?
            }
            Some(Executor::Local) | None => sweep(&mut base, &recipe, &run, &mut *reporter)?,
        };
        drop(reporter);
        print(options, &results)
    }

    /// All that decides results, the same however the sweep is run.
    fn arguments(&self, options: &Options) -> Vec<String> {
        let path = |path: &PathBuf| path.display().to_string();
        let mut arguments = vec!["sweep".to_owned(), path(&self.recipe)];
        for (name, value) in [("--model", &self.model), ("--data", &self.data), ("--out", &self.out)] {
            arguments.extend([name.to_owned(), path(value)]);
        }
        if self.fisher_shards > NonZeroUsize::MIN {
            arguments.extend(["--fisher-shards".to_owned(), self.fisher_shards.to_string()]);
        }
        arguments.extend(options.arguments());
        arguments
    }
}

/// The table, and what failed.
fn print(options: &Options, results: &Results) -> anyhow::Result<()> {
    let selection = results.selection.iter().map(|selection| selection.text());
    let tables: Vec<String> = std::iter::once(Comparison::of(results).text())
        .chain(OverSeeds::text(results))
        .chain(selection)
        .collect();
    options.print(results, &tables.join("\n\n"))?;
    for cell in &results.failed {
        eprintln!("failed: {}: {}", cell.name, cell.error);
    }
    match results.failed.len() {
        0 => Ok(()),
        n => bail!("{n} merges failed; mend what they name and run again with --retry-failed"),
    }
}
