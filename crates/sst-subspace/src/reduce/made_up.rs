//! Made-up runs for the tests: seven batches of two samples, split over any number of shards.

use crate::{Error, Estimator, GRADIENTS_FILE, GradientStore, Shard, ShardMeta, write_shard};
use ndarray::Array2;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_adapter::{Dtype, ModulePath, ParamLayout};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(super) const A: &str = "layers.0.q_proj.lora_A";
pub(super) const B: &str = "layers.0.q_proj.lora_B";
pub(super) const Q: &str = "layers.0.q_proj";
pub(super) const K: &str = "layers.0.k_proj";
pub(super) const O: &str = "layers.0.o_proj";
pub(super) const BATCHES: usize = 7;
pub(super) const SAMPLES: usize = 2 * BATCHES;

pub(super) fn layout() -> ParamLayout {
    ParamLayout::new([(A.to_owned(), 1, 3), (B.to_owned(), 2, 1)]).unwrap()
}

/// Multiples of 1/64: their sums of products are exact in f64, in any order.
pub(super) fn draw(rows: usize, cols: usize, seed: u64) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_simple_fn((rows, cols), || f64::from(rng.random_range(-64..64)) / 64.0)
}

/// Gradients of all samples, `[SAMPLES, 5]`; batch b holds the samples b and SAMPLES - 1 - b.
pub(super) fn gradients() -> Array2<f64> {
    draw(SAMPLES, 5, 1)
}

pub(super) fn samples_of(shard: Shard) -> Vec<usize> {
    let batches = (0..BATCHES).filter(|&b| shard.owns(b));
    batches.flat_map(|b| [b, SAMPLES - 1 - b]).collect()
}

pub(super) fn meta(estimator: Estimator, shard: Shard) -> ShardMeta {
    let samples = samples_of(shard).len();
    let mut meta = crate::shard::tests::meta(estimator, shard);
    meta.fisher.samples = samples as u64;
    meta.fisher.tokens = 10 * samples as u64;
    (meta.batches_done, meta.batches, meta.total_samples) = (samples / 2, samples / 2, SAMPLES);
    meta
}

pub(super) fn write(folder: &Path, meta: &ShardMeta, sums: BTreeMap<String, Array2<f64>>) {
    let tensors: Vec<_> = sums.iter().map(|(name, m)| (name.clone(), m.dim().into())).collect();
    let fill = |name: &str| Ok::<_, Error>(sums[name].iter().copied().collect());
    write_shard(folder, meta, BTreeMap::new(), &tensors, fill).unwrap();
}

/// Shards of a diagonal estimate in folders 1 to n.
pub(super) fn diagonal(dir: &TempDir, estimator: Estimator, n: usize) -> Vec<PathBuf> {
    let shards = Shard::all(n);
    let folders = shards.map(|shard| {
        let folder = dir.path().join(shard.index().to_string());
        let (g, mut sums) = (gradients(), BTreeMap::new());
        for slot in layout().slots().iter().filter(|_| !samples_of(shard).is_empty()) {
            for (moment, power) in [("first", 1), ("second", 2)]
                .into_iter()
                .skip(usize::from(estimator == Estimator::Diag))
            {
                let entry = |j: usize| {
                    samples_of(shard)
                        .iter()
                        .map(|&i| g[[i, slot.offset + j]].powi(power))
                        .sum()
                };
                let sum = Array2::from_shape_fn((slot.rows, slot.cols), |(r, c)| entry(r * slot.cols + c));
                sums.insert(format!("{moment}/{}", slot.name), sum);
            }
        }
        write(&folder, &meta(estimator, shard), sums);
        folder
    });
    folders.collect()
}

/// Outer products of one vector per sample, summed over a shard's samples with weights 1, 2, 3, 1, ...
pub(super) fn covariance(size: usize, seed: u64, samples: &[usize]) -> (Array2<f64>, f64) {
    let x = draw(SAMPLES, size, seed);
    let (mut sum, mut weight) = (Array2::zeros((size, size)), 0.0);
    for &i in samples {
        let w = (1 + i % 3) as f64;
        sum.indexed_iter_mut()
            .for_each(|((a, b), s)| *s += w * x[[i, a]] * x[[i, b]]);
        weight += w;
    }
    (sum, weight)
}

/// Name, size and seed of each covariance; q and k share their input.
pub(super) const COVARIANCES: [(&str, &str, usize, u64); 5] = [
    ("A", Q, 3, 10),
    ("A", O, 2, 11),
    ("G", Q, 4, 12),
    ("G", K, 2, 13),
    ("G", O, 3, 14),
];

pub(super) fn kron(dir: &TempDir, n: usize) -> Vec<PathBuf> {
    let shards = Shard::all(n);
    let folders = shards.map(|shard| {
        let folder = dir.path().join(shard.index().to_string());
        let (mut meta, samples, mut sums) = (meta(Estimator::Kron, shard), samples_of(shard), BTreeMap::new());
        if !samples.is_empty() {
            meta.inputs = [(Q, Q), (K, Q), (O, O)].map(|(m, i)| (m.into(), i.into())).into();
        }
        for (side, module, size, seed) in COVARIANCES.into_iter().filter(|_| !samples.is_empty()) {
            let (sum, weight) = covariance(size, seed, &samples);
            sums.insert(format!("{side}/{module}"), sum);
            sums.insert(format!("{side}.weight/{module}"), Array2::from_elem((1, 1), weight));
        }
        write(&folder, &meta, sums);
        folder
    });
    folders.collect()
}

pub(super) fn samples(dir: &TempDir, dtype: Dtype, n: usize) -> Vec<PathBuf> {
    let (g, q) = (gradients(), ModulePath::new(Q));
    let shards = Shard::all(n);
    let folders = shards.map(|shard| {
        let folder = dir.path().join(shard.index().to_string());
        let mut meta = meta(Estimator::Samples, shard);
        let numbers = samples_of(shard);
        meta.rows = numbers.iter().map(|i| *i as u64).collect();
        if n == 1 {
            meta.rows.sort_unstable();
        }
        if !numbers.is_empty() {
            let path = folder.join(GRADIENTS_FILE);
            let mut store = GradientStore::create(&path, &layout(), numbers.len(), dtype).unwrap();
            for (row, i) in meta.rows.iter().enumerate() {
                let values: Vec<f32> = g.row(*i as usize).iter().map(|x| *x as f32).collect();
                store.write_rows(&q, &[row], &values).unwrap();
            }
            store.finish().unwrap();
        }
        write(&folder, &meta, BTreeMap::new());
        folder
    });
    folders.collect()
}
