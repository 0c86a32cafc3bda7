//! `sst compare`

use crate::options::Options;
use clap::Args;
use sst_experiment::{Comparison, Goals, Results};
use std::path::{Path, PathBuf};

/// Print evaluations side by side, with goals, intervals and retained energy.
#[derive(Args)]
#[command(after_help = "\
Examples:
  sst compare runs/demo
  sst compare runs/eval-base runs/eval-A5 runs/eval-v1 --goal-jailbreak 90")]
pub struct Compare {
    /// Evaluation folders in the order of the table, or one run folder.
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Goal for jailbreak refusals, in %.
    #[arg(long, default_value_t = 77.0, value_name = "PERCENT")]
    goal_jailbreak: f64,
    /// Goal for MMLU, in %.
    #[arg(long, default_value_t = 52.0, value_name = "PERCENT")]
    goal_mmlu: f64,
    /// Goal for RepliQA, in %.
    #[arg(long, default_value_t = 40.0, value_name = "PERCENT")]
    goal_repliqa: f64,
}

impl Compare {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let goals = Goals {
            jailbreak: self.goal_jailbreak / 100.0,
            mmlu: self.goal_mmlu / 100.0,
            repliqa: self.goal_repliqa / 100.0,
        };
        let comparison = match self.folders.as_slice() {
            [run] if is_run(run) => Comparison::of(&Results {
                goals,
                ..Results::read(run)?
            }),
            folders => Comparison::read(folders, goals)?,
        };
        options.print(&comparison.systems(), &comparison.text())
    }
}

fn is_run(folder: &Path) -> bool {
    folder.join("aggregated_results.json").exists()
}
