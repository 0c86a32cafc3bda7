//! `sst eval`

use crate::options::Options;
use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, ValueEnum};
use serde::Serialize;
use sst_eval::{
    AnswerLengths, BENCHMARKS, Benchmark, BenchmarkScore, Endpoint, EndpointConfig, Evaluation, ItemCounts, ItemSplit,
    JudgeChoice, MmluScoring, Protocol, Sampling, SuiteConfig,
};
use sst_experiment::step::{EvaluateAllStep, evaluate_all, folder_name};
use sst_experiment::{Answerer, EvaluatedSystem};
use std::path::PathBuf;

/// Measure safety and skill of a model, with or without adapters.
///
/// Jailbreak refusals, MMLU, RepliQA and Alpaca, or the benchmarks that are named, each with its 95 % interval.
///
/// Killed at any moment, the same command goes on where it stopped and ends with the same bytes.
#[derive(Args)]
#[command(
    group = ArgGroup::new("answerer").required(true),
    after_help = "\
Examples:
  sst eval --model .models/smollm2-135m-instruct --data runs/data --out runs/eval-base
  sst eval --model .models/smollm2-135m-instruct --adapter runs/v1 --data runs/data --shots 0 -n 50 --out runs/eval-v1
  sst eval --model .models/smollm2-135m-instruct --with-base --adapter runs/v1 --adapter runs/v2 --data runs/data --out runs/evals
  sst eval --endpoint http://localhost:8000/v1 --adapter v1 --data runs/data --out runs/eval-served
  sst eval --endpoint http://localhost:8080/v1 --set scoring='\"next-token\"' --set concurrency=4 --data runs/data --out runs/eval-llamacpp"
)]
pub struct Eval {
    /// Folder of the base model.
    #[arg(long, value_name = "DIR", group = "answerer")]
    model: Option<PathBuf>,
    /// A server in place of a model of ours (vLLM, llama.cpp, TGI): its URL, up to and including /v1.
    #[arg(long, value_name = "URL", group = "answerer")]
    endpoint: Option<String>,
    /// Folder of an adapter, or with --endpoint the name of a served model. May be repeated: all are evaluated in one batch.
    #[arg(long = "adapter", value_name = "DIR")]
    adapters: Vec<PathBuf>,
    /// Evaluate the base model beside the adapters.
    #[arg(long, requires = "adapters")]
    with_base: bool,
    /// Name in tables; the adapter's, or `base`, if not given.
    #[arg(long)]
    name: Option<String>,
    /// With --endpoint: the model that is the base; the only one served if not given.
    #[arg(long, value_name = "NAME", requires = "endpoint")]
    model_name: Option<String>,
    /// With --endpoint: the environment variable that holds the API key.
    #[arg(long, value_name = "VARIABLE", requires = "endpoint")]
    api_key_env: Option<String>,
    /// With --endpoint, a setting in TOML: concurrency=4, retries=10, scoring="next-token", body={stop=["END"]}. May be
    /// repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "endpoint")]
    settings: Vec<String>,
    /// Folder of data sets.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Preset of all that follows: default, study-v1 or study-v2.
    #[arg(long, default_value_t)]
    protocol: Protocol,
    /// Benchmarks to run, in order; those of the protocol if not given.
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = benchmark())]
    benchmarks: Vec<Benchmark>,
    /// Items of each benchmark, drawn by the seed; all if not given.
    #[arg(short, long)]
    n: Option<usize>,
    /// Which items: all, dev (to choose settings on) or test (to judge the choice on).
    ///
    /// Questions about one document are on one side, the seed decides which.
    #[arg(long, value_enum, default_value_t = Part::All)]
    split: Part,
    /// With --split: share of the items that are for development.
    #[arg(long, value_name = "SHARE", default_value_t = 0.4, requires = "split")]
    dev_share: f64,
    /// Worked examples before each MMLU question, 0 to 5; those of the protocol if not given.
    #[arg(long)]
    shots: Option<usize>,
    /// What MMLU weighs: letters (" A" to " D") or choices (their texts, per byte; tells more on small models).
    #[arg(long, value_enum, value_name = "WHAT")]
    mmlu_scoring: Option<Scoring>,
    /// Who says what refuses: rules, keyword, classifier:FOLDER or endpoint:URL; the protocol's if not given.
    ///
    /// A classifier's labels may be named: classifier:FOLDER?refuses=LABEL&harmful=LABEL&input=pair. So may the model that
    /// judges and the variable of its key: endpoint:URL?model=NAME&key=VARIABLE.
    #[arg(long)]
    judge: Option<JudgeChoice>,
    /// Tokens of a generated answer at most, for every benchmark; each its own default if not given.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Sample answers at this temperature; 0 takes the likeliest token; the protocol's way if not given.
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// With --temperature: sample from the likeliest tokens of this total probability; the protocol's if not given, 1
    /// where it does not sample.
    #[arg(long, value_name = "P", requires = "temperature")]
    top_p: Option<f64>,
    /// Seed of the drawn items and of sampling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Requests between two saves; more fill batches better, fewer lose less when cut off.
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,
    /// Folder for scores and answers; of several systems, each gets a folder inside.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    All,
    Dev,
    Test,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scoring {
    Letters,
    Choices,
}

/// What `--json` prints of one system.
#[derive(Serialize)]
struct Scores<'a> {
    name: &'a str,
    out: &'a PathBuf,
    scores: &'a [BenchmarkScore],
}

impl Eval {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let step = EvaluateAllStep {
            systems: self.systems()?,
            data: self.data.clone(),
            config: self.suite()?,
            journal: self.out.clone(),
            chunk: self.chunk,
            device: options.device,
        };
        let mut reporter = options.reporter();
        let evaluations = match (self.endpoint()?, self.model) {
            (Some(config), _) => {
                let mut endpoint = Endpoint::connect(&config.check()?)?;
                evaluate_all(Answerer::Endpoint(&mut endpoint), &step, &mut *reporter)?
            }
            (None, Some(model)) => evaluate_all(Answerer::Model(&mut options.base(model)?), &step, &mut *reporter)?,
            (None, None) => bail!("give --model or --endpoint"),
        };
        let pairs = || step.systems.iter().zip(&evaluations);
        let scores = |(system, evaluation): (&'_ EvaluatedSystem, &'_ Evaluation)| text(system, evaluation);
        let text: Vec<String> = pairs().map(scores).collect();
        let json: Vec<Scores> = pairs()
            .map(|(system, evaluation)| Scores {
                name: &system.name,
                out: &system.out,
                scores: &evaluation.scores,
            })
            .collect();
        options.print(&json, &text.join("\n"))
    }

    /// What to evaluate: the base model, the adapters, or both.
    fn systems(&self) -> anyhow::Result<Vec<EvaluatedSystem>> {
        let with_base = self.with_base || self.adapters.is_empty();
        let adapters = self
            .adapters
            .iter()
            .map(|adapter| (folder_name(adapter), Some(adapter)));
        let mut systems: Vec<EvaluatedSystem> = with_base
            .then(|| ("base".to_owned(), None))
            .into_iter()
            .chain(adapters)
            .map(|(name, adapter)| EvaluatedSystem {
                out: self.out.join(&name),
                adapter: adapter.cloned(),
                name,
            })
            .collect();
        match (&mut *systems, &self.name) {
            ([system], name) => {
                self.out.clone_into(&mut system.out);
                system.name = name.clone().unwrap_or(std::mem::take(&mut system.name));
            }
            (_, Some(_)) => bail!("--name is for one system; several are named by their folders"),
            (_, None) => {}
        }
        Ok(systems)
    }

    fn endpoint(&self) -> anyhow::Result<Option<EndpointConfig>> {
        let Some(url) = &self.endpoint else { return Ok(None) };
        let mut config: EndpointConfig = super::settings(&self.settings)?.try_into().context("--set")?;
        url.clone_into(&mut config.url);
        config.model = self.model_name.clone().or(config.model);
        config.api_key_variable = self.api_key_env.clone().or(config.api_key_variable);
        Ok(Some(config))
    }

    fn suite(&self) -> anyhow::Result<SuiteConfig> {
        let mut config = SuiteConfig::of(self.protocol);
        if !self.benchmarks.is_empty() {
            config.benchmarks.clone_from(&self.benchmarks);
        }
        config.n = ItemCounts::all(self.n);
        config.split = match self.split {
            Part::All => ItemSplit::All,
            Part::Dev => ItemSplit::Dev(self.dev_share),
            Part::Test => ItemSplit::Test(self.dev_share),
        };
        config.mmlu_shots = self.shots.unwrap_or(config.mmlu_shots);
        config.mmlu_scoring = match self.mmlu_scoring {
            Some(Scoring::Letters) => MmluScoring::Letters,
            Some(Scoring::Choices) => MmluScoring::Choices,
            None => config.mmlu_scoring,
        };
        config.judge = self.judge.clone().unwrap_or(config.judge);
        config.max_new_tokens = self.max_new_tokens.map_or(config.max_new_tokens, AnswerLengths::all);
        config.seed = self.seed;
        config.sampling = self.sampling(config.sampling)?;
        Ok(config)
    }

    /// How answers are drawn: as the protocol has it, but for what was asked for.
    fn sampling(&self, protocol: Sampling) -> anyhow::Result<Sampling> {
        let (temperature, top_p) = match (self.temperature, protocol) {
            (Some(0.0), _) if self.top_p.is_some() => {
                bail!("--top-p is about sampling, and --temperature 0 takes the likeliest token: leave one out")
            }
            (Some(0.0), _) | (None, Sampling::Greedy) => return Ok(Sampling::Greedy),
            (Some(temperature), Sampling::Greedy) => (temperature, 1.0),
            (Some(temperature), Sampling::Sample { top_p, .. }) => (temperature, top_p),
            (None, Sampling::Sample { temperature, top_p, .. }) => (temperature, top_p),
        };
        Ok(Sampling::Sample {
            temperature,
            top_p: self.top_p.unwrap_or(top_p),
            seed: self.seed,
        })
    }
}

fn text(system: &EvaluatedSystem, evaluation: &Evaluation) -> String {
    let line = |s: &BenchmarkScore| {
        let (value, interval) = match s.metric.as_str() {
            "nll_per_token" => (
                format!("{:.3}", s.value),
                format!("[{:.3}, {:.3}]", s.ci_low, s.ci_high),
            ),
            _ => {
                let [value, low, high] = [s.value, s.ci_low, s.ci_high].map(|share| 100.0 * share);
                (format!("{value:.1} %"), format!("[{low:.1}, {high:.1}]"))
            }
        };
        let (name, benchmark) = (&system.name, s.benchmark.name());
        format!(
            "{name:<13} {benchmark:<15} {value:>7} {interval:<14} n = {}  {}",
            s.n, s.metric
        )
    };
    evaluation.scores.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Reads a benchmark's name, and takes no other.
fn benchmark() -> impl TypedValueParser<Value = Benchmark> {
    PossibleValuesParser::new(BENCHMARKS.map(Benchmark::name))
        .try_map(|name| serde_json::from_value::<Benchmark>(serde_json::Value::String(name)))
}
