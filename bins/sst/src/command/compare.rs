//! `sst compare`

use crate::options::Options;
use anyhow::{Context, bail};
use clap::Args;
use sst_eval::{CompareConfig, Count, Evaluated};
use sst_experiment::{Comparison, Goals, Results};
use std::path::{Path, PathBuf};

/// Say which differences between evaluations are real: intervals, paired tests on the same items, and how large a
/// difference could be and go unseen.
#[derive(Args)]
#[command(after_help = "\
Examples:
  sst compare runs/demo
  sst compare runs/eval-A5 runs/eval-v1 runs/eval-v2 --margin 0.02 --out runs/comparison
  sst compare runs/eval-base runs/eval-v1 --reference v1 --goal-jailbreak 90
  sst compare --counts V1=388/500 --counts V2=391/500")]
pub struct Compare {
    /// Evaluation folders in the order of the table, or one run folder.
    #[arg(required_unless_present = "counts", conflicts_with = "counts", value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Instead of folders: a rate of which only the counts are known, as a published table gives it.
    #[arg(long, value_name = "NAME=SUCCESSES/N", value_parser = counted)]
    counts: Vec<(String, Count)>,
    /// The system that all others are compared with; the first if not given.
    #[arg(long, value_name = "NAME", conflicts_with = "all_pairs")]
    reference: Option<String>,
    /// Compare every pair of systems.
    #[arg(long)]
    all_pairs: bool,
    /// Compare what is shared where settings, data or items differ, and say what is not.
    #[arg(long)]
    shared: bool,
    /// Print the secondary metrics too; --out and --json always have them.
    #[arg(long)]
    secondary: bool,
    /// Also test that a system is not worse by more than this, in units of the score: 0.02 for two points.
    #[arg(long, value_name = "D")]
    margin: Option<f64>,
    /// Resamples of the bootstrap.
    #[arg(long, default_value_t = CompareConfig::default().resamples, value_name = "N")]
    resamples: usize,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for comparison.json and comparison.md.
    #[arg(long, value_name = "DIR", conflicts_with = "counts")]
    out: Option<PathBuf>,
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
        if !self.counts.is_empty() {
            let comparison = sst_eval::compare_counts(&self.counts)?;
            return options.print(&comparison, &comparison.text());
        }
        let goals = Goals {
            jailbreak: self.goal_jailbreak / 100.0,
            mmlu: self.goal_mmlu / 100.0,
            repliqa: self.goal_repliqa / 100.0,
        };
        let run = match self.folders.as_slice() {
            [run] if is_run(run) => Some(Results {
                goals,
                ..Results::read(run)?
            }),
            _ => None,
        };
        let folders: Vec<PathBuf> = match &run {
            Some(results) => results
                .systems
                .iter()
                .map(|s| self.folders[0].join(&s.evaluation))
                .collect(),
            None => self.folders.clone(),
        };
        let evaluated = Evaluated::load(&folders)?;
        let tests = if evaluated.len() < 2 {
            if self.out.is_some() {
                bail!("one evaluation alone is nothing to compare; give two or more");
            }
            None
        } else {
            Some(sst_eval::compare(&evaluated, &self.config(options))?)
        };
        if let (Some(tests), Some(out)) = (&tests, &self.out) {
            tests.save(out)?;
        }
        let alike = evaluated
            .windows(2)
            .all(|pair| pair[0].evaluation.config == pair[1].evaluation.config);
        let table = match &run {
            Some(results) => Some(Comparison::of(results)),
            // One legend holds for all rows only where the settings are the same.
            None if alike => Some(Comparison::read(&folders, goals)?),
            None => None,
        };
        let texts = [
            table.as_ref().map(Comparison::text),
            tests.as_ref().map(|t| t.text(self.secondary)),
        ];
        options.print(
            &serde_json::json!({ "systems": table.as_ref().map(Comparison::systems), "comparison": tests }),
            &texts.into_iter().flatten().collect::<Vec<_>>().join("\n\n"),
        )
    }

    fn config(&self, options: &Options) -> CompareConfig {
        CompareConfig {
            reference: self.reference.clone(),
            all_pairs: self.all_pairs,
            shared: self.shared,
            secondary: self.secondary || options.json || self.out.is_some(),
            margin: self.margin,
            resamples: self.resamples,
            seed: self.seed,
        }
    }
}

fn is_run(folder: &Path) -> bool {
    folder.join("aggregated_results.json").exists()
}

/// `V1=388/500`
fn counted(text: &str) -> anyhow::Result<(String, Count)> {
    let parse = || {
        let (name, counts) = text.rsplit_once('=')?;
        let (successes, n) = counts.split_once('/')?;
        let (successes, n) = (successes.trim().parse().ok()?, n.trim().parse().ok()?);
        Some((name.to_owned(), Count { successes, n }))
    };
    parse().context("expected NAME=SUCCESSES/N, as V1=388/500")
}
