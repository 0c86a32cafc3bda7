//! Subspace and merge on an adapter of the shape that the study used: Llama-3.1-8B, q, k, v, o, rank 16, 32 layers,
//! 13.6 million parameters. Copying phi once is the baseline that no merge can beat.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_merge::{
    Adapter, Array2, Convention, DareConfig, DiagonalFisher, EntrySpace, Estimator, FisherMeta, LoraConfig,
    MergeInputs, MergeStrategy, ModulePath, PhiBasis, RATIO_EPS, TiesConfig, V1Config, V2Config, gevp,
};
use std::hint::black_box;

const RANK: usize = 16;
const LAYERS: usize = 32;
const K: usize = 20;
/// (name, d_in, d_out).
const MODULES: [(&str, usize, usize); 4] = [
    ("q_proj", 4096, 4096),
    ("k_proj", 4096, 1024),
    ("v_proj", 4096, 1024),
    ("o_proj", 4096, 4096),
];

fn adapter(seed: u64) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |rows, cols| Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-0.02f32..0.02));
    let pairs: Vec<_> = (0..LAYERS)
        .flat_map(|layer| MODULES.map(|(name, d_in, d_out)| (layer, name, d_in, d_out)))
        .map(|(layer, name, d_in, d_out)| {
            let path = ModulePath::new(format!("model.layers.{layer}.self_attn.{name}"));
            (path, draw(RANK, d_in), draw(d_out, RANK))
        })
        .collect();
    Adapter::from_pairs(LoraConfig::new(RANK, 32.0, MODULES.map(|m| m.0)), pairs).expect("valid by construction")
}

/// Log-uniform over seven decades, as gradients' variances roughly are.
fn fisher(like: &Adapter, seed: u64) -> DiagonalFisher {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let layout = like.layout();
    let values = (0..layout.len())
        .map(|_| 10f32.powf(rng.random_range(-11.0..-4.0)))
        .collect();
    let meta = FisherMeta::new(Estimator::DiagVariance, "synthetic", seed);
    DiagonalFisher::new(layout, values, meta).expect("valid by construction")
}

fn merge(c: &mut Criterion) {
    let (utility, safety) = (adapter(1), adapter(2));
    let (f_safety, f_utility) = (fisher(&safety, 3), fisher(&utility, 4));
    let phi = utility.to_flat();
    let basis = gevp::diagonal(&f_safety, &f_utility, K, RATIO_EPS).expect("valid by construction");
    let basis = PhiBasis::from(basis);
    let inputs = MergeInputs::new(std::slice::from_ref(&utility), &safety).with_basis(&basis);
    let v1 = V1Config {
        k: K,
        ..V1Config::default()
    }
    .check()
    .expect("valid settings");
    let v2 = V2Config {
        k: K,
        ..V2Config::default()
    }
    .check()
    .expect("valid settings");

    let mut group = c.benchmark_group("merge 13.6M");
    group.sample_size(10).throughput(Throughput::Elements(phi.len() as u64));
    group.bench_function("copy of phi (baseline)", |b| {
        b.iter(|| black_box(black_box(&phi).clone()))
    });
    group.bench_function("diagonal GEVP, k = 20", |b| {
        b.iter(|| gevp::diagonal(black_box(&f_safety), &f_utility, K, RATIO_EPS).expect("valid by construction"))
    });
    group.bench_function("diagonal GEVP, k = 1000000", |b| {
        b.iter(|| {
            gevp::diagonal(black_box(&f_safety), &f_utility, 1_000_000, RATIO_EPS).expect("valid by construction")
        })
    });
    group.bench_function("V1 with diagnostics", |b| {
        b.iter(|| v1.merge(black_box(&inputs)).expect("valid by construction"))
    });
    group.bench_function("V2 with diagnostics", |b| {
        b.iter(|| v2.merge(black_box(&inputs)).expect("valid by construction"))
    });
    let space = EntrySpace::Factors;
    for convention in [Convention::Paper, Convention::Peft] {
        let config = TiesConfig {
            space,
            convention,
            ..TiesConfig::default()
        };
        let ties = config.check().expect("valid settings");
        group.bench_function(format!("TIES on factors, {convention:?}, with diagnostics"), |b| {
            b.iter(|| ties.merge(black_box(&inputs)).expect("valid by construction"))
        });
    }
    let config = DareConfig {
        space,
        ..DareConfig::default()
    };
    let dare = config.check().expect("valid settings");
    group.bench_function("DARE on factors with diagnostics", |b| {
        b.iter(|| dare.merge(black_box(&inputs)).expect("valid by construction"))
    });
    group.finish();
}

criterion_group!(benches, merge);
criterion_main!(benches);
