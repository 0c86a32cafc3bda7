//! Three made-up modules with adapters and statistics, and every way to merge them.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_merge::{
    Adapter, Array2, Error, Estimator, FisherMeta, KroneckerBasis, KroneckerFactors, KroneckerFisher, LoraConfig,
    MergeInputs, MergeStrategy, Merged, ModulePath, Sides, SstConfig, Statistics, Weighting,
};
use sst_subspace::KroneckerPair;
use std::collections::BTreeMap;
use tempfile::TempDir;

/// Module, d_out, d_in.
pub const MODULES: [(&str, usize, usize); 3] = [
    ("model.layers.0.self_attn.q_proj", 7, 5),
    ("model.layers.0.self_attn.v_proj", 4, 5),
    ("model.layers.1.mlp.down_proj", 5, 9),
];
pub const SINGLE: f64 = f32::EPSILON as f64;

fn draw(rows: usize, cols: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-1.0f32..1.0))
}

/// Of the first `count` modules, with a scale that is not 1.
pub fn adapter(rank: usize, count: usize, seed: u64) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let modules = &MODULES[..count];
    let config = LoraConfig::new(rank, 5.0, modules.iter().map(|(name, ..)| *name));
    let pairs = modules.iter().map(|(name, d_out, d_in)| {
        let (a, b) = (draw(rank, *d_in, &mut rng), draw(*d_out, rank, &mut rng));
        (ModulePath::new(*name), a, b)
    });
    Adapter::from_pairs(config, pairs).unwrap()
}

pub fn fishers(dir: &TempDir, name: &str, count: usize, [scale_a, scale_g]: [f64; 2], seed: u64) -> KroneckerFisher {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut covariance = |d: usize, scale: f64| {
        let x = draw(2 * d, d, &mut rng).mapv(f64::from);
        let x = &x / &ndarray::Array1::from_shape_fn(d, |j| 1.0 + j as f64);
        scale * x.t().dot(&x)
    };
    let factors: BTreeMap<_, _> = MODULES[..count]
        .iter()
        .map(|(name, d_out, d_in)| {
            let (input, output) = (covariance(*d_in, scale_a), covariance(*d_out, scale_g));
            (ModulePath::new(*name), KroneckerFactors { input, output })
        })
        .collect();
    let folder = dir.path().join(name);
    let meta = FisherMeta::new(Estimator::Kron, "response", 0);
    KroneckerFisher::save(&folder, &meta, &factors, BTreeMap::new()).unwrap();
    KroneckerFisher::load(&folder).unwrap()
}

pub struct Trial {
    pub utility: Vec<Adapter>,
    pub safety: Adapter,
    pub f_utility: Vec<KroneckerFisher>,
    pub f_safety: KroneckerFisher,
    _dir: TempDir,
}

impl Trial {
    pub fn new(utility: Vec<Adapter>, safety: Adapter, [scale_u, scale_s]: [[f64; 2]; 2]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let f_utility = (0..utility.len() as u64).map(|i| fishers(&dir, &format!("u{i}"), 3, scale_u, 50 + i));
        Self {
            f_utility: f_utility.collect(),
            f_safety: fishers(&dir, "s", 3, scale_s, 90),
            utility,
            safety,
            _dir: dir,
        }
    }

    pub fn usual() -> Self {
        Self::new(vec![adapter(2, 3, 1)], adapter(3, 3, 2), [[1.0; 2]; 2])
    }

    pub fn statistics(&self) -> Statistics<'_> {
        Statistics {
            utility: self.f_utility.iter().collect(),
            safety: &self.f_safety,
        }
    }

    pub fn run(&self, config: SstConfig) -> Merged {
        let statistics = self.statistics();
        let inputs = MergeInputs::new(&self.utility, &self.safety).with_statistics(&statistics);
        config.check().unwrap().merge(&inputs).unwrap()
    }

    pub fn with_basis(&self, config: SstConfig, basis: &KroneckerBasis) -> Result<Merged, Error> {
        let inputs = MergeInputs::new(&self.utility, &self.safety).with_kronecker_basis(basis);
        config.check().unwrap().merge(&inputs)
    }

    pub fn basis(&self, k: usize, sides: Sides) -> KroneckerBasis {
        let pair = KroneckerPair::new(&self.f_safety, self.f_utility.iter().collect()).unwrap();
        pair.basis(k, SstConfig::default().ridge, sides, &mut |_, _| ())
            .unwrap()
    }
}

/// Every weighting on every number of sides; rank 9 cuts nothing off.
pub fn configs() -> Vec<SstConfig> {
    let soft = SstConfig {
        rank: Some(9),
        ..SstConfig::default()
    };
    let hard = SstConfig {
        weighting: Weighting::Hard { k: 6 },
        ..soft.clone()
    };
    let both = |config: &SstConfig| SstConfig {
        sides: Sides::Both,
        ..config.clone()
    };
    vec![both(&soft), both(&hard), soft, hard]
}

/// The changes agree to `tolerance` of each module's largest entry of `want`.
pub fn assert_close(got: &Adapter, want: &Adapter, factor: f64, tolerance: f64) {
    assert!(got.modules.keys().eq(want.modules.keys()));
    for (path, want) in &want.modules {
        let (got, want) = (got.modules[path].delta(), want.delta());
        let size = want.iter().fold(0.0, |max: f64, x| max.max(f64::from(x.abs())));
        for (got, want) in got.iter().zip(&want) {
            let gap = (f64::from(*got) - factor * f64::from(*want)).abs();
            assert!(gap <= tolerance * factor.abs() * size, "{path}: {got} {want}");
        }
    }
}
