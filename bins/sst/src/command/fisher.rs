//! `sst fisher`

use crate::options::Options;
use clap::{Args, ValueEnum};
use sst_data::{Dataset, Split};
use sst_experiment::step::{FisherStep, fisher};
use sst_fim::{FisherConfig, Protocol};
use sst_subspace::Estimator;
use std::path::PathBuf;

/// Measure Fisher information of an adapter's parameters, on the model with that adapter.
#[derive(Args)]
#[command(after_help = "\
Example:
  sst fisher --model .models/smollm2-135m-instruct --adapter runs/A5 --data runs/data --dataset repliqa \\
    --samples 100 --out runs/fisher-A5")]
pub struct Fisher {
    /// Folder of the base model.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of the adapter.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// Folder of data sets (DATASET/train.jsonl or .csv), or one file.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Columns to expect: repliqa, alpaca or jailbreak.
    #[arg(long)]
    dataset: Dataset,
    /// Folder for the artefact.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which diagonal.
    #[arg(long, value_enum, default_value = "diag-variance")]
    estimator: EstimatorName,
    /// Whose tokens the loss is about: `response`, or `legacy-prompt` as the earlier study had it.
    #[arg(long, default_value = "response")]
    protocol: Protocol,
    /// Examples used: the first of one seeded order; all if not given.
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Longer examples are left out and counted.
    #[arg(long, default_value_t = FisherConfig::default().max_tokens)]
    max_tokens: usize,
    /// Seed of the order of examples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum EstimatorName {
    /// Variance of the per-sample gradients.
    DiagVariance,
    /// Mean square of the per-sample gradients.
    Diag,
}

impl Fisher {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let step = FisherStep {
            name: super::folder_name(&self.adapter),
            adapter: self.adapter,
            dataset: self.dataset,
            data: super::data_file(self.data, self.dataset, Split::Train)?,
            config: FisherConfig {
                estimator: match self.estimator {
                    EstimatorName::DiagVariance => Estimator::DiagVariance,
                    EstimatorName::Diag => Estimator::Diag,
                },
                protocol: self.protocol,
                samples: self.samples,
                max_tokens: self.max_tokens,
                seed: self.seed,
            },
            out: self.out,
        };
        let estimate = fisher(&mut options.base(self.model)?, &step, &mut *options.reporter())?;
        let below = estimate.share_below(estimate.meta.ridge);
        let text = format!(
            "{}: {} entries from {} samples ({} tokens), {:.1} % below the ridge of {:e}",
            step.out.display(),
            estimate.values.len(),
            estimate.meta.samples,
            estimate.meta.tokens,
            100.0 * below,
            estimate.meta.ridge
        );
        let value =
            serde_json::json!({ "meta": estimate.meta, "entries": estimate.values.len(), "share_below_ridge": below });
        options.print(&value, &text)
    }
}
