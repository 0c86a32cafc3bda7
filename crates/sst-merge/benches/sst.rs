//! SST on two square modules of a given width, r = 16, each with an input of its own. The time of reading the
//! covariances is the baseline: every merge has to.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_merge::{
    Adapter, Array2, Estimator, FisherMeta, KroneckerFactors, KroneckerFisher, LoraConfig, MergeInputs, MergeStrategy,
    ModulePath, Sides, SstConfig, Statistics,
};
use std::collections::BTreeMap;
use std::hint::black_box;

const RANK: usize = 16;
const WIDTHS: [usize; 2] = [576, 1024];

fn modules() -> [ModulePath; 2] {
    ["q_proj", "o_proj"].map(|name| ModulePath::new(format!("model.layers.0.self_attn.{name}")))
}

fn adapter(d: usize, seed: u64) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |rows, cols| Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-0.02f32..0.02));
    let pairs = modules().map(|path| (path, draw(RANK, d), draw(d, RANK)));
    Adapter::from_pairs(LoraConfig::new(RANK, 32.0, ["q_proj", "o_proj"]), pairs).expect("valid by construction")
}

/// Diagonally dominant, which takes no product of its own to make.
fn covariance(d: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
    let mut m = Array2::zeros((d, d));
    for i in 0..d {
        m[[i, i]] = 1.0 / (1.0 + i as f64);
        for j in 0..i {
            let x = rng.random_range(-0.1..0.1) / (d * (1 + i)) as f64;
            m[[i, j]] = x;
            m[[j, i]] = x;
        }
    }
    m
}

fn fisher(d: usize, seed: u64) -> KroneckerFisher {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let factors: BTreeMap<_, _> = modules()
        .map(|path| {
            let (input, output) = (covariance(d, &mut rng), covariance(d, &mut rng));
            (path, KroneckerFactors { input, output })
        })
        .into();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let meta = FisherMeta::new(Estimator::Kron, "synthetic", seed);
    KroneckerFisher::save(folder.path(), &meta, &factors, BTreeMap::new()).expect("valid by construction");
    // The mapping outlives its name.
    KroneckerFisher::load(folder.path()).expect("just written")
}

fn sst(c: &mut Criterion) {
    let mut group = c.benchmark_group("SST, two modules d x d");
    group.sample_size(10);
    for d in WIDTHS {
        let (utility, safety) = (adapter(d, 1), adapter(d, 2));
        let (f_utility, f_safety) = (fisher(d, 3), fisher(d, 4));
        let statistics = Statistics {
            utility: vec![&f_utility],
            safety: &f_safety,
        };
        let inputs = MergeInputs::new(std::slice::from_ref(&utility), &safety).with_statistics(&statistics);
        group.bench_function(BenchmarkId::new("reading A_s and A_u (baseline)", d), |b| {
            b.iter(|| {
                for path in modules() {
                    for fisher in [&f_safety, &f_utility] {
                        black_box(fisher.input_factor(&path).expect("valid by construction"));
                    }
                }
            })
        });
        for (name, sides, spectrum) in [
            ("input side", Sides::Input, false),
            ("input side and its spectrum", Sides::Input, true),
            ("both sides", Sides::Both, true),
        ] {
            let config = SstConfig {
                sides,
                spectrum: Some(spectrum),
                ..SstConfig::default()
            };
            let strategy = config.check().expect("valid settings");
            group.bench_function(BenchmarkId::new(name, d), |b| {
                b.iter(|| strategy.merge(black_box(&inputs)).expect("valid by construction"))
            });
        }
    }
    group.finish();
}

criterion_group!(benches, sst);
criterion_main!(benches);
