//! The spectral, statistics-weighted and safety baselines against dense matrices: see `fixtures/merge/make_spectral.py`.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use sst_merge::{
    Adapter, Array2, DiagonalFisher, Estimator, FisherMeta, KroneckerFactors, KroneckerFisher, LoraConfig, MergeInputs,
    Merged, ModulePath, ModuleWeights, ModuleWeightsConfig, Statistics, StrategyConfig,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

#[derive(Deserialize)]
struct Inputs {
    modules: Vec<(ModulePath, usize, usize)>, // path, d_in, d_out
    adapters: BTreeMap<String, GoldenAdapter>,
    covariances: BTreeMap<String, BTreeMap<ModulePath, Vec<f64>>>,
    alignment: BTreeMap<ModulePath, Vec<f32>>,
    fishers: BTreeMap<String, Vec<f32>>,
}

#[derive(Deserialize)]
struct GoldenAdapter {
    r: usize,
    alpha: f64,
    rslora: bool,
    rank_pattern: BTreeMap<String, usize>,
    modules: BTreeMap<ModulePath, Factors>,
}

#[derive(Deserialize)]
struct Factors {
    a: Vec<f32>,
    b: Vec<f32>,
}

#[derive(Deserialize)]
struct Spectral {
    fisher_cases: Vec<FisherCase>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Safety {
    seed: u64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    strategy: StrategyConfig,
    adapters: Vec<String>,
    weights: Vec<f64>,
    #[serde(default)]
    with_alignment: bool,
    cosines: Option<Vec<f64>>,
    merged: BTreeMap<ModulePath, Vec<f64>>,
}

#[derive(Deserialize)]
struct FisherCase {
    strategy: StrategyConfig,
    adapters: Vec<String>,
    weights: Vec<f64>,
    merged: Vec<f64>,
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/merge"));
    sst_artefact::read_json(&folder.join(name), "golden file").unwrap()
}

impl Inputs {
    fn adapter(&self, name: &str) -> Adapter {
        let golden = &self.adapters[name];
        let targets: BTreeSet<String> = golden.modules.keys().map(|path| path.name().to_owned()).collect();
        let mut config = LoraConfig::new(golden.r, golden.alpha, targets);
        config.use_rslora = golden.rslora;
        config.rank_pattern = golden.rank_pattern.clone().into_iter().collect();
        let pairs = golden.modules.iter().map(|(path, factors)| {
            let (_, d_in, d_out) = self.modules.iter().find(|(known, ..)| known == path).unwrap();
            let rank = factors.a.len() / d_in;
            let a = Array2::from_shape_vec((rank, *d_in), factors.a.clone()).unwrap();
            let b = Array2::from_shape_vec((*d_out, rank), factors.b.clone()).unwrap();
            (path.clone(), a, b)
        });
        Adapter::from_pairs(config, pairs).unwrap()
    }

    fn adapters(&self, names: &[String]) -> (Vec<Adapter>, Adapter) {
        let mut adapters: Vec<Adapter> = names.iter().map(|name| self.adapter(name)).collect();
        let safety = adapters.pop().unwrap();
        (adapters, safety)
    }

    /// The covariances of an adapter's modules, through a Fisher folder.
    fn covariances(&self, name: &str) -> KroneckerFisher {
        let folder = tempfile::tempdir().unwrap();
        let factors = self.covariances[name].iter().map(|(path, entries)| {
            let (_, d_in, d_out) = self.modules.iter().find(|(known, ..)| known == path).unwrap();
            let factors = KroneckerFactors {
                input: Array2::from_shape_vec((*d_in, *d_in), entries.clone()).unwrap(),
                output: Array2::eye(*d_out),
            };
            (path.clone(), factors)
        });
        let meta = FisherMeta::new(Estimator::Kron, "response", 0);
        KroneckerFisher::save(folder.path(), &meta, &factors.collect(), BTreeMap::new()).unwrap();
        // The mapping outlives the folder's name.
        KroneckerFisher::load(folder.path()).unwrap()
    }

    fn alignment(&self) -> BTreeMap<ModulePath, Array2<f32>> {
        let changes = self.modules.iter().map(|(path, d_in, d_out)| {
            let v = Array2::from_shape_vec((*d_out, *d_in), self.alignment[path].clone()).unwrap();
            (path.clone(), v)
        });
        changes.collect()
    }
}

fn weights(weights: &[f64]) -> ModuleWeights {
    let weights = Some(weights.to_vec());
    let config = ModuleWeightsConfig {
        weights,
        ..ModuleWeightsConfig::default()
    };
    config.check().unwrap()
}

fn merge(golden: &Inputs, case: &Case, seed: u64) -> Merged {
    let (utilities, safety) = golden.adapters(&case.adapters);
    let weights = weights(&case.weights);
    let strategy = case.strategy.clone().check().unwrap();
    let fishers: Vec<KroneckerFisher> = case
        .adapters
        .iter()
        .filter(|_| strategy.needs().statistics)
        .map(|name| golden.covariances(name))
        .collect();
    let statistics = fishers.split_last().map(|(safety, utility)| Statistics {
        utility: utility.iter().collect(),
        safety,
    });
    let alignment = golden.alignment();
    let mut inputs = MergeInputs::new(&utilities, &safety)
        .with_weights(&weights)
        .with_seed(seed);
    if let Some(statistics) = &statistics {
        inputs = inputs.with_statistics(statistics);
    }
    assert_eq!(strategy.needs().base, case.with_alignment);
    if case.with_alignment {
        inputs = inputs.with_alignment(&alignment);
    }
    strategy.merge(&inputs).unwrap()
}

fn check(golden: &Inputs, case: &Case, seed: u64) {
    let merged = merge(golden, case, seed);
    let changes = merged.adapter.low_rank();
    let name = serde_json::to_string(&case.strategy).unwrap();
    assert_eq!(changes.len(), case.merged.len(), "{name}");
    for (path, want) in &case.merged {
        let change = &changes[path];
        let got = change.dense();
        // Every factor entry is rounded to f32 a few times on its way, and an entry of the product is a sum over the rank.
        let sizes = change.b.mapv(f32::abs).dot(&change.a.mapv(f32::abs));
        let largest = sizes.iter().chain(&got).fold(0.0f32, |max, x| max.max(x.abs()));
        let tolerance = 16.0 * f64::from(f32::EPSILON) * f64::from(largest);
        assert_eq!(got.len(), want.len(), "{name} {path}");
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let gap = (f64::from(*got) - want).abs();
            assert!(
                gap <= tolerance,
                "{name} {path} entry {i}: {got} {want}, tolerance {tolerance}"
            );
        }
    }
    if let Some(want) = &case.cosines {
        let report = merged.diagnostics.alignment.unwrap();
        let got: Vec<f64> = golden.modules.iter().map(|(path, ..)| report.cosines[path]).collect();
        for (got, want) in got.iter().zip(want) {
            assert!(
                (got - want).abs() <= 16.0 * f64::from(f32::EPSILON),
                "{name}: {got} {want}"
            );
        }
    }
}

#[test]
fn spectral_and_weighted_changes_match() {
    let (golden, spectral): (Inputs, Spectral) = (read("spectral_inputs.json"), read("spectral.json"));
    assert!(spectral.cases.len() >= 18);
    for case in &spectral.cases {
        check(&golden, case, 0);
    }
}

#[test]
fn safety_baselines_match() {
    let (golden, safety): (Inputs, Safety) = (read("spectral_inputs.json"), read("spectral_safety.json"));
    assert!(safety.cases.len() >= 13);
    for case in &safety.cases {
        check(&golden, case, safety.seed);
    }
}

#[test]
fn fisher_weighted_entries_match() {
    let (golden, spectral): (Inputs, Spectral) = (read("spectral_inputs.json"), read("spectral.json"));
    assert_eq!(spectral.fisher_cases.len(), 3);
    for case in &spectral.fisher_cases {
        let (utilities, safety) = golden.adapters(&case.adapters);
        let weights = weights(&case.weights);
        let fishers = case.adapters.iter().map(|name| {
            let meta = FisherMeta::new(Estimator::Diag, "response", 0);
            DiagonalFisher::new(safety.layout(), golden.fishers[name].clone(), meta).unwrap()
        });
        let fishers: Vec<DiagonalFisher> = fishers.collect();
        let inputs = MergeInputs::new(&utilities, &safety)
            .with_weights(&weights)
            .with_diagonals(&fishers);
        let strategy = case.strategy.clone().check().unwrap();
        assert!(strategy.needs().diagonals);
        let got = strategy.merge(&inputs).unwrap().adapter.to_flat();
        assert_eq!(got.len(), case.merged.len());
        for (i, (got, want)) in got.iter().zip(&case.merged).enumerate() {
            // A mean of entries up to 1, rounded once.
            assert!(
                (f64::from(*got) - want).abs() <= f64::from(f32::EPSILON),
                "entry {i}: {got} {want}"
            );
        }
    }
}
