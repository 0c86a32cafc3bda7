//! The methods that work entry by entry, and SLERP, against PEFT, mergekit and the papers' definitions: see
//! `fixtures/merge/make_elementwise.py`.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use sst_merge::{
    Adapter, Array2, LoraConfig, MergeInputs, Merged, ModulePath, ModuleWeights, ModuleWeightsConfig, StrategyConfig,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

#[derive(Deserialize)]
struct Golden {
    seed: u64,
    adapters: BTreeMap<String, Given>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Given {
    rank: usize,
    alpha: f64,
    rslora: bool,
    modules: BTreeMap<String, Factors>,
}

#[derive(Deserialize)]
struct Factors {
    a: Vec<Vec<f64>>,
    b: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Case {
    adapters: Vec<String>,
    weights: Option<Vec<f64>>,
    source: String,
    strategy: StrategyConfig,
    merged: BTreeMap<ModulePath, Expected>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Delta { delta: Vec<Vec<f64>> },
    Factors(Factors),
}

fn golden() -> Golden {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/merge/elementwise.json"
    ));
    sst_artefact::read_json(&path, "golden file").unwrap()
}

fn matrix(rows: &[Vec<f64>]) -> Array2<f64> {
    Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, j)| rows[i][j])
}

fn adapter(given: &Given) -> Adapter {
    let names: BTreeSet<&str> = given.modules.keys().map(String::as_str).collect();
    let mut config = LoraConfig::new(given.rank, given.alpha, names);
    config.use_rslora = given.rslora;
    let single = |rows: &[Vec<f64>]| matrix(rows).mapv(|x| x as f32);
    let modules = given.modules.iter();
    let pairs = modules.map(|(path, factors)| (ModulePath::new(path.as_str()), single(&factors.a), single(&factors.b)));
    Adapter::from_pairs(config, pairs).unwrap()
}

fn merge(golden: &Golden, case: &Case) -> Merged {
    let adapters: Vec<Adapter> = case
        .adapters
        .iter()
        .map(|name| adapter(&golden.adapters[name]))
        .collect();
    let (safety, utilities) = adapters.split_last().unwrap();
    let weights: ModuleWeights = ModuleWeightsConfig {
        weights: case.weights.clone(),
        ..ModuleWeightsConfig::default()
    }
    .check()
    .unwrap();
    let inputs = MergeInputs::new(utilities, safety)
        .with_weights(&weights)
        .with_seed(golden.seed);
    case.strategy.clone().check().unwrap().merge(&inputs).unwrap()
}

/// Compares to a few units of f32 rounding of the largest entry; `times` counts what is rounded on the way.
fn assert_close(got: &Array2<f32>, want: &[Vec<f64>], times: f64, what: &str) {
    let want = matrix(want);
    assert_eq!(got.dim(), want.dim(), "{what}");
    let size = want.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    for ((at, got), want) in got.indexed_iter().zip(&want) {
        let gap = (f64::from(*got) - want).abs();
        assert!(
            gap <= times * f64::from(f32::EPSILON) * size,
            "{what} at {at:?}: {got} {want}"
        );
    }
}

#[test]
fn merged_values_match() {
    let golden = golden();
    let mut counts = BTreeMap::new();
    for case in &golden.cases {
        let what = format!("{} {:?} of {:?}", case.source, case.strategy, case.adapters);
        let Merged {
            adapter, diagnostics, ..
        } = merge(&golden, case);
        for (path, want) in &case.merged {
            let (module, what) = (&adapter.modules[path], format!("{what}, {path}"));
            match want {
                // The merge goes through two factors of rank 5: ten products of rounded entries, either side.
                Expected::Delta { delta } => assert_close(&module.delta(), delta, 32.0, &what),
                // PEFT works in f32: weight, sum and quotient.
                Expected::Factors(Factors { a, b }) => {
                    assert_eq!(module.scale(), 1.0, "{what}");
                    assert_close(&module.a, a, 4.0, &what);
                    assert_close(&module.b, b, 4.0, &what);
                }
            }
        }
        let output = diagnostics.output.unwrap();
        assert!(
            output.relative_error <= 4.0 * f64::from(f32::EPSILON),
            "{what}: {output:?}"
        );
        *counts.entry(case.source.as_str()).or_insert(0) += 1;
    }
    assert!(
        counts["peft"] >= 18 && counts["mergekit"] >= 20 && counts["definition"] >= 20,
        "{counts:?}"
    );
}

#[test]
fn every_module_of_any_adapter_is_merged() {
    let golden = golden();
    for case in &golden.cases {
        let union: BTreeSet<&str> = case
            .adapters
            .iter()
            .flat_map(|name| golden.adapters[name].modules.keys().map(String::as_str))
            .collect();
        let merged = merge(&golden, case).adapter;
        assert_eq!(
            merged.modules.keys().map(ModulePath::as_str).collect::<BTreeSet<_>>(),
            union
        );
    }
}
