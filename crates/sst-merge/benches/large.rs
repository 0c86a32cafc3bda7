//! One measured process of the merge benchmark, told by its arguments what to do; `cargo xtask bench merge` runs it beside
//! PEFT and beside plain copies. The last line that it prints is a JSON object.
//!
//! Adapters have the shape of an 8B Llama's with rank 16 on q, k, v, o: 13.6 million parameters in 32 layers.
#![allow(clippy::unwrap_used)] // a benchmark that cannot go on stops

use clap::{Parser, Subcommand};
use half::bf16;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use safetensors::tensor::TensorView;
use sst_merge::{
    Adapter, Array2, DiagonalFisher, Dtype, Estimator, FisherMeta, KroneckerFactors, KroneckerFisher, LoraConfig,
    MergeInputs, MergeRecord, ModulePath, PhiBasis, RATIO_EPS, Statistics, StrategyConfig, bake, gevp, write_merged,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const RANK: usize = 16;
const D: usize = 4096;
const FF: usize = 14336;
/// (name, d_in, d_out) of what carries LoRA.
const ATTENTION: [(&str, usize, usize); 4] = [
    ("q_proj", D, D),
    ("k_proj", D, 1024),
    ("v_proj", D, 1024),
    ("o_proj", D, D),
];
const MLP: [(&str, usize, usize); 3] = [("gate_proj", D, FF), ("up_proj", D, FF), ("down_proj", FF, D)];
/// Layers of the model to bake in one file.
const LAYERS_PER_FILE: usize = 2;
const WEIGHTS: &str = "adapter_model.safetensors";

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Write a utility and a safety adapter, and what is asked for besides.
    Prepare {
        #[arg(long)]
        out: PathBuf,
        #[arg(long)]
        layers: usize,
        /// Solve for a subspace of so many directions.
        #[arg(long)]
        k: Option<usize>,
        /// Covariances of every module's inputs, for both tasks.
        #[arg(long)]
        statistics: bool,
        /// A bf16 model of these layers, MLP included.
        #[arg(long)]
        model: bool,
    },
    /// Read both adapters, merge, write the result.
    Run {
        /// The strategy as JSON.
        #[arg(long)]
        strategy: String,
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        out: PathBuf,
    },
    /// Read both adapters' bytes and write as many as a result has.
    Io {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        like: PathBuf,
    },
    /// How far two merges are from each other, and each from the sum of both adapters.
    Compare {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        ours: PathBuf,
        #[arg(long)]
        theirs: PathBuf,
    },
    /// Add the utility adapter to the model.
    Bake {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        out: PathBuf,
    },
    /// Copy the model.
    Copy {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() {
    let report = match Arguments::parse().action {
        Action::Prepare {
            out,
            layers,
            k,
            statistics,
            model,
        } => prepare(&out, layers, k, statistics, model),
        Action::Run { strategy, folder, out } => run(&strategy, &folder, &out),
        Action::Io { folder, like } => io(&folder, &like),
        Action::Compare { folder, ours, theirs } => compare(&folder, &ours, &theirs),
        Action::Bake { folder, out } => {
            let started = Instant::now();
            let baked = bake(&folder.join("model"), &folder.join("utility"), &out, &mut |_, _| ()).unwrap();
            let seconds = started.elapsed().as_secs_f64();
            serde_json::json!({ "seconds": seconds, "bytes": baked.bytes, "peak_bytes": peak(), "baked": baked })
        }
        Action::Copy { folder, out } => copy(&folder.join("model"), &out),
    };
    println!("{report}");
}

fn prepare(out: &Path, layers: usize, k: Option<usize>, statistics: bool, model: bool) -> serde_json::Value {
    let [utility, safety] = [(1, "utility"), (2, "safety")].map(|(seed, name)| {
        let adapter = adapter(layers, seed);
        adapter.save(&out.join(name), Dtype::F32).unwrap();
        adapter
    });
    if let Some(k) = k {
        let basis = gevp::diagonal(&fisher(&safety, 3), &fisher(&utility, 4), k, RATIO_EPS).unwrap();
        PhiBasis::from(basis).save(&out.join("basis"), BTreeMap::new()).unwrap();
    }
    if statistics {
        for (seed, name) in [(5, "utility-statistics"), (6, "safety-statistics")] {
            covariances(&out.join(name), &utility, seed);
        }
    }
    if model {
        write_model(&out.join("model"), layers);
    }
    serde_json::json!({ "parameters": utility.layout().len() })
}

fn adapter(layers: usize, seed: u64) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |rows, cols| Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-0.02f32..0.02));
    let pairs: Vec<_> = (0..layers)
        .flat_map(|layer| ATTENTION.map(|(name, d_in, d_out)| (layer, name, d_in, d_out)))
        .map(|(layer, name, d_in, d_out)| {
            let path = ModulePath::new(format!("model.layers.{layer}.self_attn.{name}"));
            (path, draw(RANK, d_in), draw(d_out, RANK))
        })
        .collect();
    Adapter::from_pairs(LoraConfig::new(RANK, 32.0, ATTENTION.map(|m| m.0)), pairs).unwrap()
}

/// Log-uniform over seven decades, as gradients' variances roughly are.
fn fisher(like: &Adapter, seed: u64) -> DiagonalFisher {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let layout = like.layout();
    let values = (0..layout.len()).map(|_| 10f32.powf(rng.random_range(-11.0..-4.0)));
    let meta = FisherMeta::new(Estimator::DiagVariance, "synthetic", seed);
    DiagonalFisher::new(layout.clone(), values.collect(), meta).unwrap()
}

/// A decaying diagonal and a few strong common directions for the inputs; outputs all alike.
fn covariances(folder: &Path, of: &Adapter, seed: u64) {
    const DIRECTIONS: usize = 32;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let factors = of.modules.iter().map(|(path, module)| {
        let (d_in, d_out) = (module.a.ncols(), module.b.nrows());
        let x = Array2::from_shape_simple_fn((DIRECTIONS, d_in), || rng.random_range(-1.0..1.0));
        let mut input: Array2<f64> = x.t().dot(&x);
        input
            .diag_mut()
            .iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x += 1.0 / (1.0 + i as f64 / 64.0));
        let output = Array2::eye(d_out);
        (path.clone(), KroneckerFactors { input, output })
    });
    let meta = FisherMeta::new(Estimator::Kron, "synthetic", seed);
    KroneckerFisher::save(folder, &meta, &factors.collect(), BTreeMap::new()).unwrap();
}

fn write_model(folder: &Path, layers: usize) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), "{}").unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    // One tensor's entries serve all: how fast they are read and changed does not hang on their values.
    let entries = (0..D * FF).flat_map(|_| bf16::from_f32(rng.random_range(-0.05..0.05)).to_le_bytes());
    let entries: Vec<u8> = entries.collect();
    let mut weight_map = serde_json::Map::new();
    for first in (0..layers).step_by(LAYERS_PER_FILE) {
        let file = format!("model-{first:05}.safetensors");
        let mut views = Vec::new();
        for layer in first..layers.min(first + LAYERS_PER_FILE) {
            let parts = [("self_attn", &ATTENTION[..]), ("mlp", &MLP[..])];
            for (part, (name, d_in, d_out)) in parts
                .into_iter()
                .flat_map(|(part, of)| of.iter().map(move |m| (part, *m)))
            {
                let tensor = format!("model.layers.{layer}.{part}.{name}.weight");
                let data = &entries[..2 * d_in * d_out];
                views.push((
                    tensor.clone(),
                    TensorView::new(safetensors::Dtype::BF16, vec![d_out, d_in], data).unwrap(),
                ));
                weight_map.insert(tensor, file.clone().into());
            }
        }
        safetensors::serialize_to_file(views, None, &folder.join(file)).unwrap();
    }
    let index = serde_json::json!({ "weight_map": weight_map }).to_string();
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
}

fn run(strategy: &str, folder: &Path, out: &Path) -> serde_json::Value {
    let strategy = serde_json::from_str::<StrategyConfig>(strategy)
        .unwrap()
        .check()
        .unwrap();
    let needs = strategy.needs();
    let basis = needs.basis.then(|| PhiBasis::load(&folder.join("basis")).unwrap());
    let [of_utility, of_safety] = ["utility-statistics", "safety-statistics"].map(|name| {
        needs
            .statistics
            .then(|| KroneckerFisher::load(&folder.join(name)).unwrap())
    });
    let statistics = of_utility
        .as_ref()
        .zip(of_safety.as_ref())
        .map(|(utility, safety)| Statistics {
            utility: vec![utility],
            safety,
        });

    // A new folder, as the other side writes a new file: what replacing one costs is the file system's.
    if out.exists() {
        std::fs::remove_dir_all(out).unwrap();
    }
    let started = Instant::now();
    let [utility, safety] = load(folder);
    let loaded = started.elapsed();
    let mut inputs = MergeInputs::new(std::slice::from_ref(&utility), &safety);
    if let Some(basis) = &basis {
        inputs = inputs.with_basis(basis);
    }
    if let Some(statistics) = &statistics {
        inputs = inputs.with_statistics(statistics);
    }
    let merged = strategy.merge(&inputs).unwrap();
    let done = started.elapsed();
    let record = MergeRecord {
        recipe: strategy.config(),
        inputs: BTreeMap::new(),
        command: String::new(),
        dtype: Dtype::F32,
    };
    write_merged(out, &merged, &record).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    serde_json::json!({
        "seconds": seconds,
        "load_s": loaded.as_secs_f64(),
        "merge_s": (done - loaded).as_secs_f64(),
        "save_s": seconds - done.as_secs_f64(),
        "parameters": merged.diagnostics.parameters,
        "output": merged.diagnostics.output,
        "peak_bytes": peak(),
    })
}

fn load(folder: &Path) -> [Adapter; 2] {
    ["utility", "safety"].map(|name| Adapter::load(&folder.join(name)).unwrap())
}

fn io(folder: &Path, like: &Path) -> serde_json::Value {
    let result = std::fs::read(like.join(WEIGHTS)).unwrap();
    let target = folder.join("io.bin");
    let started = Instant::now();
    let read = ["utility", "safety"].map(|name| std::fs::read(folder.join(name).join(WEIGHTS)).unwrap());
    std::fs::write(&target, &result).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(&target).unwrap();
    serde_json::json!({ "seconds": seconds, "bytes": read.iter().map(Vec::len).sum::<usize>() + result.len() })
}

/// Relative distances over all modules: of ours from theirs, and of each from U + S.
fn compare(folder: &Path, ours: &Path, theirs: &Path) -> serde_json::Value {
    let sum = Adapter::sum(&load(folder).each_ref().map(|adapter| (1.0, adapter))).unwrap();
    let [ours, theirs] = [ours, theirs].map(|folder| Adapter::load(folder).unwrap());
    serde_json::json!({
        "difference": distance(&ours, &theirs),
        "error_ours": distance(&ours, &sum),
        "error_theirs": distance(&theirs, &sum),
    })
}

/// ||M - N|| / ||N||.
fn distance(m: &Adapter, n: &Adapter) -> f64 {
    let norm = |adapter: &Adapter| {
        adapter
            .low_rank()
            .values()
            .map(|x| x.norm().powi(2))
            .sum::<f64>()
            .sqrt()
    };
    norm(&Adapter::sum(&[(1.0, m), (-1.0, n)]).unwrap()) / norm(n)
}

/// What `cp` does, and then waits until it is on disk, as baking waits.
fn copy(model: &Path, out: &Path) -> serde_json::Value {
    std::fs::create_dir_all(out.parent().unwrap()).unwrap();
    let started = Instant::now();
    let status = Command::new("cp").arg("-r").args([model, out]).status().unwrap();
    assert!(status.success(), "cp: {status}");
    let mut bytes = 0;
    for entry in std::fs::read_dir(out).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        file.sync_data().unwrap();
        bytes += file.metadata().unwrap().len();
    }
    serde_json::json!({ "seconds": started.elapsed().as_secs_f64(), "bytes": bytes })
}

/// The most memory that this process has held, in bytes; none where the system does not say.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(1024 * kilobytes)
}
