//! `sst fisher`

use crate::options::Options;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use sst_adapter::Dtype;
use sst_artefact::Manifest;
use sst_data::{Dataset, Split};
use sst_experiment::step::{FisherStep, fisher, fisher_shard};
use sst_fim::{Estimate, FisherConfig, Protocol};
use sst_subspace::{Estimator, FisherMeta, Labels, Shard, TokenWeighting};
use std::path::{Path, PathBuf};

/// Measure Fisher information on a model, with any stack of adapters or none.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  sst fisher --model .models/smollm2-135m-instruct --adapter runs/A5 --data runs/data --dataset repliqa \\
    --samples 100 --out runs/fisher-A5
  sst fisher --model .models/smollm2-135m-instruct --adapter runs/A5 --adapter runs/A7 --data runs/data \\
    --dataset jailbreak --estimator kron,samples --weighting gradient-norm --out runs/fisher-A5-A7
  sst fisher --model ... --adapter ... --data ... --dataset ... --estimator kron --shard 2/8 --out shards/2
  sst fisher reduce shards/* --out runs/fisher

Interrupted? Run the same command again: it goes on from its last checkpoint, with the same result."
)]
pub struct Fisher {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    measure: Option<Measure>,
}

#[derive(Subcommand)]
enum Action {
    /// Join all shards of one run into the artefact of a single run.
    #[command(after_help = "\
Example:
  sst fisher reduce shards/* --out runs/fisher")]
    Reduce {
        /// Folders of the shards, in any order.
        #[arg(required = true, value_name = "DIR")]
        shards: Vec<PathBuf>,
        /// Folder for the artefact.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Args)]
struct Measure {
    /// Folder of the base model.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of an adapter on the base model; several are stacked in the order given, none measures the base model.
    #[arg(long, value_name = "DIR")]
    adapter: Vec<PathBuf>,
    /// diag-variance, diag, samples: the adapter whose parameters the gradients are of, by the last part of its path; the
    /// last one if not given.
    #[arg(long, value_name = "NAME")]
    parameters: Option<String>,
    /// Folder of data sets (DATASET/train.jsonl or .csv), or one file.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Columns to expect: repliqa, alpaca, jailbreak, beavertails, jailbreakbench or advbench; the last three have no
    /// answers of their own.
    #[arg(long)]
    dataset: Dataset,
    /// Folder for the artefact, or for the shard; with several estimators, each gets a folder of its name in it.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// diag-variance, diag, kron or samples; several share one pass.
    #[arg(long, value_delimiter = ',', default_value = "diag-variance")]
    estimator: Vec<Estimator>,
    /// Whose tokens the loss is about: `response`, or `legacy-prompt` as the earlier study had it.
    #[arg(long, default_value = "response")]
    protocol: Protocol,
    /// The answer that the loss is about in place of every example's own: with a refusal, what a refusal of these requests
    /// depends on.
    #[arg(long, value_name = "TEXT", conflicts_with = "draw_labels")]
    answer: Option<String>,
    /// Draw the labels from the model with this seed (true Fisher) instead of taking the data's (empirical Fisher).
    #[arg(long, value_name = "SEED")]
    draw_labels: Option<u64>,
    /// kron: tokens that count: all, completion, completion-and-last-prompt or gradient-norm. [default: all]
    #[arg(long)]
    weighting: Option<TokenWeighting>,
    /// kron: linears to measure, by last path component; those that the adapters change if not given.
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// samples: number type of the stored gradients, f32 or bf16. [default: f32]
    #[arg(long)]
    gradient_dtype: Option<Dtype>,
    /// Examples used: the first of one seeded order; all if not given.
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Longer examples are left out and counted, as are those beyond the model's context; legacy-prompt cuts prompts to this
    /// instead, and to 512 at most.
    #[arg(long, default_value_t = FisherConfig::default().max_tokens)]
    max_tokens: usize,
    /// Seed of the order of examples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Compute shard I of N alone; `sst fisher reduce` joins them.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
}

impl Fisher {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        match (self.action, self.measure) {
            (Some(Action::Reduce { shards, out }), _) => {
                let meta = sst_subspace::reduce(&shards, &out)?;
                print(options, &[(out, meta)])
            }
            (None, Some(measure)) => measure.run(options),
            (None, None) => bail!("nothing to do: give --model, --data, --dataset and --out, or `reduce`"),
        }
    }
}

impl Measure {
    /// Refuses what nothing would read.
    fn check(&self) -> anyhow::Result<()> {
        let of_parameters = [Estimator::DiagVariance, Estimator::Diag, Estimator::Samples];
        let flags = [
            ("--parameters", self.parameters.is_some(), &of_parameters[..]),
            ("--weighting", self.weighting.is_some(), &[Estimator::Kron]),
            ("--targets", !self.targets.is_empty(), &[Estimator::Kron]),
            ("--gradient-dtype", self.gradient_dtype.is_some(), &[Estimator::Samples]),
        ];
        for (flag, given, readers) in flags {
            if given && !self.estimator.iter().any(|estimator| readers.contains(estimator)) {
                let readers: Vec<&str> = readers.iter().map(|estimator| estimator.name()).collect();
                bail!("{flag} is for --estimator {}; leave it out", readers.join(" or "));
            }
        }
        if self.answer.is_some() && self.protocol == Protocol::LegacyPrompt {
            bail!("--answer is never seen under --protocol legacy-prompt, which scores the prompt; leave one out");
        }
        Ok(())
    }

    fn run(self, options: &Options) -> anyhow::Result<()> {
        self.check()?;
        let names: Vec<String> = self
            .adapter
            .iter()
            .map(|p| sst_experiment::step::folder_name(p))
            .collect();
        let several = self.estimator.len() > 1;
        let default = FisherConfig::default();
        let estimate = |&estimator: &Estimator| Estimate {
            config: FisherConfig {
                estimator,
                protocol: self.protocol,
                labels: self.draw_labels.map_or(Labels::Given, |seed| Labels::Sampled { seed }),
                weighting: self.weighting.unwrap_or(default.weighting),
                gradient_dtype: self.gradient_dtype.unwrap_or(default.gradient_dtype),
                targets: self.targets.clone(),
                samples: self.samples,
                max_tokens: self.max_tokens,
                seed: self.seed,
            },
            out: if several {
                self.out.join(estimator.name())
            } else {
                self.out.clone()
            },
        };
        let step = FisherStep {
            name: if names.is_empty() {
                "base".to_owned()
            } else {
                names.join(" + ")
            },
            estimates: self.estimator.iter().map(estimate).collect(),
            adapters: self.adapter,
            parameters: self.parameters,
            dataset: self.dataset,
            data: super::data_file(self.data, self.dataset, Split::Train)?,
            answer: self.answer,
        };
        let mut base = options.base(self.model)?;
        if let Some(shard) = self.shard {
            fisher_shard(&mut base, &step, shard, &mut *options.reporter())?;
            let folders: Vec<String> = step.estimates.iter().map(|e| e.out.display().to_string()).collect();
            let value = serde_json::json!({ "shard": shard, "folders": folders });
            return options.print(&value, &format!("{}: shard {shard} is complete", folders.join(", ")));
        }
        let metas = fisher(&mut base, &step, &mut *options.reporter())?;
        let folders = step.estimates.iter().map(|e| e.out.clone());
        print(options, &folders.zip(metas).collect::<Vec<_>>())
    }
}

/// One line per artefact.
fn print(options: &Options, artefacts: &[(PathBuf, FisherMeta)]) -> anyhow::Result<()> {
    let facts = |folder: &Path| -> anyhow::Result<serde_json::Value> {
        Ok(Manifest::read(folder)
            .context("the artefact was written and cannot be read")?
            .facts)
    };
    let (mut lines, mut values) = (Vec::new(), Vec::new());
    for (folder, meta) in artefacts {
        let facts = facts(folder)?;
        let below = facts["share_below_ridge"].as_f64().map_or(String::new(), |share| {
            format!(
                ", {:.1} % of entries below the ridge of {:e}",
                100.0 * share,
                meta.ridge
            )
        });
        lines.push(format!(
            "{}: {} from {} samples ({} scored tokens){below}",
            folder.display(),
            meta.estimator,
            meta.samples,
            meta.tokens
        ));
        values.push(serde_json::json!({ "folder": folder, "meta": meta, "facts": facts }));
    }
    options.print(&values, &lines.join("\n"))
}
