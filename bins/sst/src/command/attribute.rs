//! `sst attribute`

use crate::options::Options;
use clap::Args;
use sst_experiment::{AttributeConfig, RecipePair, Run, attribute};
use std::path::PathBuf;

/// Find the stage of the pipeline that carries the difference between two merges.
///
/// All mixtures of the two recipes' stages (training, fisher, subspace, projection, rule, evaluation) are merged and
/// evaluated, what they share only once; the difference of every benchmark is divided among the stages by Shapley values.
#[derive(Args)]
#[command(after_help = "\
Example:
  sst attribute docs/recipes/attribute-v1.toml docs/recipes/attribute-v2.toml --data runs/data --out runs/attribution

Each recipe is one of `sst sweep` with one variant, one sample count and one merge; both draw the same evaluation items.
Interrupted? Run the same command again: finished parts are reused.")]
pub struct Attribute {
    /// The recipe of merge A, a TOML file.
    first: PathBuf,
    /// The recipe of merge B.
    second: PathBuf,
    /// Folder of the base model.
    #[arg(long, default_value = ".models/smollm2-135m-instruct", value_name = "DIR")]
    model: PathBuf,
    /// Folder of data sets.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The run folder; that of a sweep may be used, its parts are reused.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Resamples of the items behind every interval.
    #[arg(long, default_value_t = AttributeConfig::default().resamples, value_name = "N")]
    resamples: usize,
    /// Seed of the resamples.
    #[arg(long, default_value_t = AttributeConfig::default().seed, value_name = "N")]
    seed: u64,
}

impl Attribute {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let pair = RecipePair::read(&self.first, &self.second)?;
        let config = AttributeConfig {
            resamples: self.resamples,
            seed: self.seed,
        };
        let run = Run {
            data: self.data,
            out: self.out,
            command: super::command_line(),
            retry_failed: false,
            fisher_shards: 1,
            choose_again: false,
        };
        let base = &mut options.base(self.model)?;
        let attribution = attribute(base, &pair, config, &run, &mut *options.reporter())?;
        options.print(&attribution, &attribution.text())
    }
}
