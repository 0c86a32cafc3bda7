//! One measured process of the Fisher benchmark, told by its arguments what to do; `cargo xtask bench fisher` runs it beside a
//! loop in PyTorch and PEFT. The last line that it prints is a JSON object.
#![allow(clippy::unwrap_used)] // a benchmark that cannot go on stops

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use sst_adapter::{Adapter, Dtype, LoraConfig, ModulePath};
use sst_data::{DataFolder, Dataset, Example, Sizes, Split, SplitSizes, synthesise};
use sst_fim::{Estimate, FisherConfig, PassTimes, Samples, Source, shard};
use sst_model::{BatchLimits, DeviceChoice, Encoded, LanguageModel, Objective, Precision, TokenWeight, uniform};
use sst_subspace::{Estimator, Shard};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// The lengths of the samples, in tokens.
const LENGTHS: std::ops::RangeInclusive<usize> = 100..=300;
const TARGETS: [&str; 4] = ["q_proj", "k_proj", "v_proj", "o_proj"];

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Write samples and an adapter for both sides.
    Prepare {
        #[arg(long)]
        model: PathBuf,
        #[arg(long)]
        out: PathBuf,
        #[arg(long)]
        data: Option<PathBuf>,
        #[arg(long)]
        samples: usize,
    },
    /// The rate of f32 matrix products.
    Matmul {
        #[arg(long)]
        threads: usize,
    },
    /// One pass over the samples.
    Run {
        #[arg(long)]
        what: String,
        #[arg(long)]
        model: PathBuf,
        #[arg(long)]
        adapter: PathBuf,
        #[arg(long)]
        samples: PathBuf,
        #[arg(long)]
        n: usize,
        #[arg(long)]
        threads: usize,
        #[arg(long)]
        out: Option<PathBuf>,
        #[arg(long, default_value_t = 512)]
        batch_tokens: usize,
        #[arg(long, default_value = "all")]
        weighting: sst_subspace::TokenWeighting,
        #[arg(long, value_delimiter = ',')]
        targets: Vec<String>,
    },
}

/// One sample as both sides read it, and the texts that it was made of.
#[derive(Clone, Serialize, Deserialize)]
struct Sample {
    ids: Vec<u32>,
    scored_from: usize,
    example: Example,
}

fn main() {
    sst_model::restart_tuned();
    match Arguments::parse().action {
        Action::Prepare {
            model,
            out,
            data,
            samples,
        } => prepare(&load(&model), &out, data.as_deref(), samples),
        Action::Matmul { threads } => matmul(threads),
        Action::Run {
            what,
            model,
            adapter,
            samples,
            n,
            threads,
            out,
            batch_tokens,
            weighting,
            targets,
        } => {
            sst_model::set_threads(threads).unwrap();
            let samples = read(&samples, n);
            let mut model = load(&model);
            let tokens = batch_tokens;
            model.set_limits(BatchLimits { rows: 64, tokens }).unwrap();
            model
                .add_adapter("measured", &Adapter::load(&adapter).unwrap())
                .unwrap();
            let config = FisherConfig {
                weighting,
                targets,
                ..FisherConfig::default()
            };
            run(&model, &what, config, &samples, out.as_deref());
        }
    }
}

fn load(folder: &Path) -> LanguageModel {
    LanguageModel::load(folder, DeviceChoice::Auto, Precision::F32).unwrap()
}

fn read(path: &Path, n: usize) -> Vec<Sample> {
    let text = std::fs::read_to_string(path).unwrap();
    let samples: Vec<Sample> = text
        .lines()
        .take(n)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(samples.len(), n, "{} holds too few samples", path.display());
    samples
}

/// Examples of real length from all data sets in turn, and an adapter whose B is not zero.
fn prepare(model: &LanguageModel, out: &Path, data: Option<&Path>, count: usize) {
    std::fs::create_dir_all(out).unwrap();
    let made = out.join("data");
    let folder = data.map_or_else(
        || {
            let split = SplitSizes {
                train: 2 * count,
                eval: 8,
            };
            let sizes = Sizes {
                repliqa: SplitSizes {
                    train: 4 * count,
                    eval: 8,
                },
                alpaca: split,
                jailbreak: split,
                ..Sizes::default()
            };
            synthesise(&made, 0, &sizes).unwrap();
            made.clone()
        },
        Path::to_path_buf,
    );
    let folder = DataFolder::open(folder).unwrap();
    let mut samples: Vec<Sample> = Vec::new();
    for dataset in [Dataset::RepliQa, Dataset::Alpaca, Dataset::Jailbreak] {
        for example in folder.examples(dataset, Split::Train).unwrap() {
            let Encoded { ids, scored_from, .. } = model.encode_response(&example).unwrap();
            if LENGTHS.contains(&ids.len()) {
                samples.push(Sample {
                    ids,
                    scored_from,
                    example,
                });
            }
        }
    }
    let found = samples.len();
    assert!(
        found >= count,
        "only {found} examples have {LENGTHS:?} tokens; {count} are needed"
    );
    let chosen = sst_data::sample(&samples, count, 0);
    let file = std::fs::File::create(out.join("samples.jsonl")).unwrap();
    let mut file = BufWriter::new(file);
    for sample in &chosen {
        serde_json::to_writer(&mut file, sample).unwrap();
        file.write_all(b"\n").unwrap();
    }
    let targets = TARGETS.map(str::to_owned);
    let factors = model.modules(&targets).into_iter().map(|path| {
        let (d_out, d_in) = model.linear_shape(&path).unwrap();
        let entry = |factor: &str, i, bound: f64| uniform(0, &format!("{path}.{factor}"), i, -bound, bound);
        let a = ndarray::Array2::from_shape_fn((16, d_in), |(i, j)| entry("lora_A", i * d_in + j, 0.04));
        let b = ndarray::Array2::from_shape_fn((d_out, 16), |(i, j)| entry("lora_B", i * 16 + j, 0.01));
        (path, a, b)
    });
    let factors: Vec<_> = factors.collect();
    let adapter = Adapter::from_pairs(LoraConfig::new(16, 32.0, targets), factors).unwrap();
    adapter.save(&out.join("adapter"), Dtype::F32).unwrap();
    print(&serde_json::json!({ "samples": count, "found": found }));
}

/// The rate that products of two square matrices keep up for some seconds, as a pass over samples has to.
fn matmul(threads: usize) {
    const SIZE: i64 = 2048;
    const PRODUCTS: u32 = 60;
    sst_model::set_threads(threads).unwrap();
    let device = Device::cuda_if_available();
    let a = Tensor::rand([SIZE, SIZE], (Kind::Float, device));
    let product = || a.matmul(&a).double_value(&[0, 0]);
    product();
    let started = Instant::now();
    (0..PRODUCTS).for_each(|_| _ = product());
    let flop = f64::from(PRODUCTS) * 2.0 * (SIZE as f64).powi(3);
    print(&serde_json::json!({ "gflops": flop / started.elapsed().as_secs_f64() / 1e9 }));
}

fn run(model: &LanguageModel, what: &str, config: FisherConfig, samples: &[Sample], out: Option<&Path>) {
    // One sample warms up what is made at first use.
    let folder = tempfile::tempdir().unwrap();
    pass(model, "plain", &config, &samples[..1], folder.path());
    let model_bytes = memory("VmRSS");
    // The peak of loading would hide that of the run; where the system forbids it, the larger figure stands.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let started = Instant::now();
    let times = pass(model, what, &config, samples, folder.path());
    let seconds = started.elapsed().as_secs_f64();
    let peak_bytes = memory("VmHWM");
    if let (Some(out), Ok(estimator)) = (out, what.parse::<Estimator>()) {
        let reduced = folder.path().join("reduced");
        sst_subspace::reduce(&[folder.path().join(estimator.name())], &reduced).unwrap();
        std::fs::copy(reduced.join(sst_subspace::FISHER_FILE), out).unwrap();
    }
    let tokens: usize = samples.iter().map(|s| s.ids.len()).sum();
    let scored: usize = samples.iter().map(|s| s.ids.len() - s.scored_from).sum();
    print(&serde_json::json!({
        "seconds": seconds,
        "samples": samples.len(),
        "tokens": tokens,
        "scored_tokens": scored,
        "flop": flop(model, tokens, scored),
        "peak_bytes": peak_bytes,
        "model_bytes": model_bytes,
        "forward_s": times.forward.as_secs_f64(),
        "backward_s": times.backward.as_secs_f64(),
        "statistics_s": times.statistics.as_secs_f64(),
        "batch_tokens": model.limits().tokens,
        "device": model.device_name(),
    }));
}

/// 4 operations per token and weight of the linears: 2 forward, 2 for the gradient at the input. The head's count where labels are.
fn flop(model: &LanguageModel, tokens: usize, scored: usize) -> f64 {
    let all = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ]
    .map(str::to_owned);
    let shapes = model
        .modules(&all)
        .into_iter()
        .filter_map(|path| model.linear_shape(&path));
    let linears: usize = shapes.map(|(d_out, d_in)| d_out * d_in).sum();
    let (vocab, d_model) = model.head_shape();
    4.0 * (tokens as f64 * linears as f64 + scored as f64 * (vocab * d_model) as f64)
}

/// A figure of this process from the system, in bytes.
fn memory(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    let kilobytes: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    1024 * kilobytes
}

fn pass(model: &LanguageModel, what: &str, config: &FisherConfig, samples: &[Sample], folder: &Path) -> PassTimes {
    if what == "plain" {
        return plain(model, samples);
    }
    let estimator: Estimator = what.parse().unwrap();
    let examples: Vec<Example> = samples.iter().map(|s| s.example.clone()).collect();
    let estimate = Estimate {
        config: FisherConfig {
            estimator,
            ..config.clone()
        },
        out: folder.join(estimator.name()),
    };
    shard(
        model,
        &Source::new(Samples::Drawn(&examples), &["measured"]),
        &[estimate],
        Shard::WHOLE,
        &mut |_| (),
    )
    .unwrap()
}

/// Forward and backward with the gradients that training takes.
fn plain(model: &LanguageModel, samples: &[Sample]) -> PassTimes {
    let rows: Vec<Encoded> = samples
        .iter()
        .map(|s| model.encode_response(&s.example).unwrap())
        .collect();
    let lengths: Vec<usize> = rows.iter().map(|r| r.ids.len()).collect();
    let objective = Objective {
        adapters: &["measured"],
        draw_labels: None,
        weight: TokenWeight::RowMean,
    };
    let wanted = |path: &ModulePath| TARGETS.iter().any(|t| path.as_str().ends_with(t));
    let mut sums: BTreeMap<ModulePath, [Tensor; 2]> = BTreeMap::new();
    let mut times = PassTimes::default();
    for batch in model.limits().plan(&lengths) {
        let batch: Vec<&Encoded> = batch.into_iter().map(|i| &rows[i]).collect();
        let report = model.backward(&batch, &objective, &wanted, &mut |reading| {
            for of in reading.summed(0) {
                match sums.get_mut(&of.path) {
                    Some([a, b]) => {
                        let _ = (a.g_add_(&of.a), b.g_add_(&of.b));
                    }
                    None => _ = sums.insert(of.path, [of.a, of.b]),
                }
            }
            Ok::<(), sst_model::Error>(())
        });
        let report = report.unwrap();
        times.forward += report.forward;
        times.backward += report.backward;
        times.statistics += report.shown;
    }
    times
}

fn print(value: &serde_json::Value) {
    println!("{value}");
}
