//! `sst eval`

use crate::options::Options;
use anyhow::Context;
use clap::{Args, ValueEnum};
use sst_eval::{AnswerLengths, BENCHMARKS, Benchmark, ItemCounts, MmluScoring, Sampling, SuiteConfig};
use sst_experiment::step::{EvaluateStep, evaluate};
use std::path::PathBuf;

/// Measure safety and skill: jailbreak refusals, MMLU, RepliQA and Alpaca, each with its 95 % interval.
#[derive(Args)]
#[command(after_help = "\
Examples:
  sst eval --model .models/smollm2-135m-instruct --data runs/data --out runs/eval-base
  sst eval --model .models/smollm2-135m-instruct --adapter runs/v1 --data runs/data --shots 0 -n 50 --out runs/eval-v1")]
pub struct Eval {
    /// Folder of the base model.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of an adapter; the base model alone if not given.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Name in tables; the adapter folder's name, or `base`, if not given.
    #[arg(long)]
    name: Option<String>,
    /// Folder of data sets.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Benchmarks to run, in order; jailbreak, mmlu, repliqa and alpaca if not given.
    #[arg(long, value_delimiter = ',')]
    benchmarks: Vec<String>,
    /// Items of each benchmark, drawn by the seed; all if not given.
    #[arg(short, long)]
    n: Option<usize>,
    /// Worked examples before each MMLU question: 0 or 5.
    #[arg(long, default_value_t = SuiteConfig::default().mmlu_shots)]
    shots: usize,
    /// What MMLU weighs: letters (" A" to " D") or choices (their texts, per byte; tells more on small models).
    #[arg(long, value_enum, default_value = "letters", value_name = "WHAT")]
    mmlu_scoring: Scoring,
    /// Tokens of a generated answer at most, for every benchmark; each its own default if not given.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Sample answers at this temperature instead of taking the likeliest token.
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// With --temperature: sample from the likeliest tokens of this total probability.
    #[arg(long, default_value_t = 1.0, value_name = "P", requires = "temperature")]
    top_p: f64,
    /// Seed of the drawn items and of sampling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for scores and answers.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scoring {
    Letters,
    Choices,
}

impl Eval {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let default = SuiteConfig::default();
        let n = self.n;
        let benchmarks = if self.benchmarks.is_empty() {
            default.benchmarks.clone()
        } else {
            self.benchmarks
                .iter()
                .map(|name| benchmark(name))
                .collect::<anyhow::Result<_>>()?
        };
        let lengths = self.max_new_tokens.map_or(default.max_new_tokens, AnswerLengths::all);
        let sampling = match self.temperature {
            Some(temperature) => Sampling::Sample {
                temperature,
                top_p: self.top_p,
                seed: self.seed,
            },
            None => Sampling::Greedy,
        };
        let adapter_name = || self.adapter.as_deref().map(sst_experiment::step::folder_name);
        let name = self
            .name
            .clone()
            .or_else(adapter_name)
            .unwrap_or_else(|| "base".to_owned());
        let step = EvaluateStep {
            name,
            adapter: self.adapter,
            data: self.data,
            config: SuiteConfig {
                benchmarks,
                n: ItemCounts::all(n),
                max_new_tokens: lengths,
                mmlu_shots: self.shots,
                mmlu_scoring: match self.mmlu_scoring {
                    Scoring::Letters => MmluScoring::Letters,
                    Scoring::Choices => MmluScoring::Choices,
                },
                seed: self.seed,
                sampling,
                ..default
            },
            out: self.out,
        };
        let evaluation = evaluate(&mut options.base(self.model)?, &step, &mut *options.reporter())?;
        let lines: Vec<String> = evaluation
            .scores
            .iter()
            .map(|s| {
                let (factor, unit) = if s.benchmark.is_share() {
                    (100.0, " %")
                } else {
                    (1.0, "")
                };
                format!(
                    "{:<14} {:>6.1}{unit} [{:.1}, {:.1}]  n = {}  {}",
                    s.benchmark.name(),
                    factor * s.value,
                    factor * s.ci_low,
                    factor * s.ci_high,
                    s.n,
                    s.metric
                )
            })
            .collect();
        options.print(&evaluation.scores, &lines.join("\n"))
    }
}

fn benchmark(name: &str) -> anyhow::Result<Benchmark> {
    let known = || BENCHMARKS.map(Benchmark::name).join(", ");
    serde_json::from_value(serde_json::json!(name))
        .with_context(|| format!("unknown benchmark `{name}`: known are {}", known()))
}
