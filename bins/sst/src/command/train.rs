//! `sst train`

use crate::options::Options;
use clap::Args;
use sst_data::{Dataset, Split};
use sst_experiment::step::{TrainStep, train};
use sst_model::TrainConfig;
use std::path::PathBuf;

/// Fine-tune a LoRA adapter on the training split of a data set.
#[derive(Args)]
#[command(after_help = "\
Example:
  sst train --model .models/smollm2-135m-instruct --data runs/data --dataset repliqa --out runs/A5

Interrupted? Run the same command again: it goes on from its last checkpoint and ends with the same bytes.")]
pub struct Train {
    /// Folder of the base model.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of data sets (DATASET/train.jsonl or .csv), or one file.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Columns to expect: repliqa, alpaca or jailbreak; beavertails, jailbreakbench and advbench have no answers.
    #[arg(long)]
    dataset: Dataset,
    /// Folder for the adapter.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Rank.
    #[arg(long, default_value_t = TrainConfig::default().r)]
    r: usize,
    /// LoRA alpha; the update is scaled by alpha / r.
    #[arg(long, default_value_t = TrainConfig::default().alpha)]
    alpha: f64,
    /// Scale by alpha / sqrt r instead.
    #[arg(long)]
    rslora: bool,
    /// Linears that get an adapter, by last path component.
    #[arg(long, value_delimiter = ',', default_values_t = TrainConfig::default().targets)]
    targets: Vec<String>,
    /// Passes over the examples.
    #[arg(long, default_value_t = TrainConfig::default().epochs)]
    epochs: usize,
    /// Examples per forward and backward pass.
    #[arg(long, default_value_t = TrainConfig::default().batch_size)]
    batch_size: usize,
    /// Passes per optimizer step.
    #[arg(long, default_value_t = TrainConfig::default().gradient_accumulation)]
    gradient_accumulation: usize,
    /// Peak learning rate.
    #[arg(long, default_value_t = TrainConfig::default().learning_rate)]
    learning_rate: f64,
    /// Share of steps of linear warm-up; cosine decay follows.
    #[arg(long, default_value_t = TrainConfig::default().warmup_ratio)]
    warmup_ratio: f64,
    /// Decoupled weight decay.
    #[arg(long, default_value_t = TrainConfig::default().weight_decay)]
    weight_decay: f64,
    /// The global gradient norm is clipped to this.
    #[arg(long, default_value_t = TrainConfig::default().max_grad_norm)]
    max_grad_norm: f64,
    /// Longer examples are left out and counted, as are those beyond the model's context.
    #[arg(long, default_value_t = TrainConfig::default().max_tokens)]
    max_tokens: usize,
    /// Optimizer steps between checkpoints; 0 writes none.
    #[arg(long, default_value_t = TrainConfig::default().checkpoint_every)]
    checkpoint_every: usize,
    /// Seed of the initial A and of the order of examples.
    #[arg(long, default_value_t = TrainConfig::default().seed)]
    seed: u64,
}

impl Train {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let step = TrainStep {
            name: sst_experiment::step::folder_name(&self.out),
            dataset: self.dataset,
            data: super::data_file(self.data, self.dataset, Split::Train)?,
            config: TrainConfig {
                r: self.r,
                alpha: self.alpha,
                rslora: self.rslora,
                targets: self.targets,
                epochs: self.epochs,
                batch_size: self.batch_size,
                gradient_accumulation: self.gradient_accumulation,
                learning_rate: self.learning_rate,
                warmup_ratio: self.warmup_ratio,
                weight_decay: self.weight_decay,
                max_grad_norm: self.max_grad_norm,
                max_tokens: self.max_tokens,
                checkpoint_every: self.checkpoint_every,
                seed: self.seed,
            },
            out: self.out,
        };
        let report = train(&mut options.base(self.model)?, &step, &mut *options.reporter())?;
        let left_out = match report.too_long {
            0 => String::new(),
            n => {
                let limit = step.config.max_tokens;
                format!(" ({n} left out as longer than --max-tokens {limit} or the model's context)")
            }
        };
        let text = format!(
            "{}: {} examples{left_out}, {} steps, {} parameters, loss {:.4} -> {:.4}",
            step.out.display(),
            report.examples,
            report.steps,
            report.parameters,
            report.first_loss,
            report.last_loss
        );
        options.print(&report, &text)
    }
}
