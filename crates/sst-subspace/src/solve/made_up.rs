//! Made-up Fisher folders for the tests: three layers, two of which read the same input.

use crate::fisher::write_kronecker;
use crate::{DiagonalFisher, Estimator, FisherMeta, GRADIENTS_FILE, GradientStore, KroneckerFisher, SampleFisher};
use ndarray::Array2;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_adapter::{Dtype, ModulePath, ParamLayout};
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) const Q: &str = "layers.0.q_proj";
pub(crate) const K: &str = "layers.0.k_proj";
pub(crate) const DOWN: &str = "layers.1.down_proj";

/// Module, whose A it reads, d_out, d_in.
const LAYERS: [(&str, &str, usize, usize); 3] = [(Q, Q, 4, 6), (K, Q, 2, 6), (DOWN, DOWN, 5, 3)];

/// Rows of gradients or activations, of another scale in every column, that f32 holds exactly.
pub(crate) fn draw(rows: usize, cols: usize, seed: u64) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((rows, cols), |(_, j)| {
        f64::from((rng.random_range(-1.0..1.0) / (1.0 + j as f64)) as f32)
    })
}

fn meta(estimator: Estimator, samples: usize) -> FisherMeta {
    FisherMeta {
        samples: samples as u64,
        ..FisherMeta::new(estimator, "response", 0)
    }
}

/// `shared` or not, the factors are the same.
pub(crate) fn kron(folder: &Path, seed: u64, shared: bool) -> KroneckerFisher {
    let covariance = |d: usize, seed: u64| {
        let x = draw(3 * d, d, seed);
        x.t().dot(&x)
    };
    let (mut inputs, mut factors) = (BTreeMap::new(), BTreeMap::new());
    for (i, (module, owner, d_out, d_in)) in LAYERS.into_iter().enumerate() {
        let owner_seed = seed + if owner == Q { 10 } else { 11 };
        let owner = if shared { owner } else { module };
        inputs.insert(ModulePath::new(module), ModulePath::new(owner));
        factors.insert(format!("{owner}.A"), covariance(d_in, owner_seed));
        factors.insert(format!("{module}.G"), 1e-6 * covariance(d_out, seed + i as u64));
    }
    let sizes = factors.iter().map(|(name, m)| (name.clone(), m.nrows())).collect();
    let fill = |name: &str| Ok(factors[name].iter().copied().collect());
    write_kronecker(
        folder,
        &meta(Estimator::Kron, 3),
        &inputs,
        &sizes,
        fill,
        BTreeMap::new(),
    )
    .unwrap();
    KroneckerFisher::load(folder).unwrap()
}

pub(crate) fn layout() -> ParamLayout {
    let tensor = |name: &str, side: &str, rows, cols| (format!("{name}.lora_{side}"), rows, cols);
    ParamLayout::new([tensor(Q, "A", 2, 6), tensor(Q, "B", 4, 2), tensor(DOWN, "A", 2, 3)]).unwrap()
}

/// Gradients of one module, `[samples, n_m]`.
pub(crate) fn gradients(module: &str, samples: usize, seed: u64) -> Array2<f64> {
    match module {
        Q => draw(samples, 20, seed),
        _ => 0.5 * draw(samples, 6, seed + 1),
    }
}

pub(crate) fn samples(folder: &Path, samples: usize, seed: u64) -> SampleFisher {
    let mut store = GradientStore::create(&folder.join(GRADIENTS_FILE), &layout(), samples, Dtype::F32).unwrap();
    let rows: Vec<usize> = (0..samples).collect();
    for module in [Q, DOWN] {
        let values: Vec<f32> = gradients(module, samples, seed).iter().map(|x| *x as f32).collect();
        store.write_rows(&module.into(), &rows, &values).unwrap();
    }
    store.finish().unwrap();
    SampleFisher::seal(folder, &meta(Estimator::Samples, samples), BTreeMap::new()).unwrap();
    SampleFisher::load(folder).unwrap()
}

pub(crate) fn diagonal(folder: &Path, seed: u64) -> DiagonalFisher {
    let values = draw(layout().len(), 1, seed).iter().map(|x| (x * x) as f32).collect();
    let fisher = DiagonalFisher::new(layout(), values, meta(Estimator::DiagVariance, 3)).unwrap();
    fisher.save(folder, BTreeMap::new()).unwrap();
    fisher
}
