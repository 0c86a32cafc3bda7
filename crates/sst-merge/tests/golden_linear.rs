//! Sums of adapters against PEFT's `add_weighted_adapter` and numpy's decomposition: see `fixtures/merge`.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use sst_merge::{
    Adapter, Array2, LinearConfig, LinearConvention, LoraConfig, MergeInputs, MergeStrategy, Merged, ModulePath,
    ModuleWeights, ModuleWeightsConfig, TaskArithmeticConfig,
};
use std::collections::BTreeMap;
use std::path::Path;

type Rows = Vec<Vec<f64>>;

#[derive(Deserialize)]
struct Golden {
    adapters: BTreeMap<String, Saved>,
    peft: Vec<PeftCase>,
    svd: Vec<SvdCase>,
}

#[derive(Deserialize)]
struct Saved {
    r: usize,
    lora_alpha: f64,
    target_modules: Vec<String>,
    modules: BTreeMap<ModulePath, [Rows; 2]>,
}

#[derive(Deserialize)]
struct PeftCase {
    kind: String,
    adapters: Vec<String>,
    weights: Vec<f64>,
    rank: Option<usize>,
    changes: BTreeMap<ModulePath, Rows>,
}

#[derive(Deserialize)]
struct SvdCase {
    adapters: Vec<String>,
    weights: Vec<f64>,
    rank: usize,
    changes: BTreeMap<ModulePath, Rows>,
    singular_values: BTreeMap<ModulePath, Vec<f64>>,
    relative_error: f64,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/merge/linear.json");
    sst_artefact::read_json(&path, "golden file").unwrap()
}

fn matrix(rows: &Rows) -> Array2<f32> {
    Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, j)| rows[i][j] as f32)
}

impl Golden {
    /// The adapters of these names; the last is the safety adapter.
    fn adapters(&self, names: &[String]) -> (Vec<Adapter>, Adapter) {
        let mut adapters: Vec<Adapter> = names
            .iter()
            .map(|name| {
                let saved = &self.adapters[name];
                let pairs = saved.modules.iter();
                let pairs = pairs.map(|(path, [a, b])| (path.clone(), matrix(a), matrix(b)));
                let config = LoraConfig::new(saved.r, saved.lora_alpha, saved.target_modules.clone());
                Adapter::from_pairs(config, pairs).unwrap()
            })
            .collect();
        let safety = adapters.pop().unwrap();
        (adapters, safety)
    }

    fn merge(&self, names: &[String], weights: &[f64], strategy: &dyn MergeStrategy) -> Merged {
        let (utilities, safety) = self.adapters(names);
        let weights: ModuleWeights = ModuleWeightsConfig {
            weights: Some(weights.to_vec()),
            modules: Vec::new(),
        }
        .check()
        .unwrap();
        strategy
            .merge(&MergeInputs::new(&utilities, &safety).with_weights(&weights))
            .unwrap()
    }
}

fn task_arithmetic(rank: Option<usize>) -> impl MergeStrategy {
    let config = TaskArithmeticConfig {
        rank,
        ..TaskArithmeticConfig::default()
    };
    config.check().unwrap()
}

/// Compares delta W of every module; entries are of magnitude 20 at most, sums of at most seven products.
fn assert_same(merged: &Merged, want: &BTreeMap<ModulePath, Rows>, what: &str) {
    assert!(merged.adapter.modules.keys().eq(want.keys()), "{what}");
    for (path, want) in want {
        let delta = merged.adapter.modules[path].delta();
        assert_eq!(delta.dim(), (want.len(), want[0].len()));
        for ((i, j), got) in delta.indexed_iter() {
            let gap = (f64::from(*got) - want[i][j]).abs();
            assert!(
                gap <= 7.0 * 20.0 * f64::from(f32::EPSILON),
                "{what} {path} [{i}, {j}]: {got} {}",
                want[i][j]
            );
        }
    }
}

#[test]
fn peft_gives_the_same_changes() {
    let golden = golden();
    let mut kinds = BTreeMap::new();
    for case in &golden.peft {
        *kinds.entry(case.kind.as_str()).or_insert(0) += 1;
        let what = format!("{} {:?} {:?}", case.kind, case.adapters, case.weights);
        let merged = match case.kind.as_str() {
            "linear" => {
                let config = LinearConfig {
                    normalize: false,
                    convention: LinearConvention::PeftFactors,
                    ..LinearConfig::default()
                };
                golden.merge(&case.adapters, &case.weights, &config.check().unwrap())
            }
            "cat" => golden.merge(&case.adapters, &case.weights, &task_arithmetic(None)),
            "svd" => golden.merge(&case.adapters, &case.weights, &task_arithmetic(case.rank)),
            other => panic!("unknown kind {other}"),
        };
        assert_same(&merged, &case.changes, &what);
    }
    assert_eq!(kinds, BTreeMap::from([("linear", 2), ("cat", 2), ("svd", 2)]));
}

#[test]
fn factors_added_apart_are_not_the_sum() {
    let golden = golden();
    let case = golden.peft.iter().find(|case| case.kind == "linear").unwrap();
    let exact = golden.merge(&case.adapters, &case.weights, &task_arithmetic(None));
    let gap: f64 = case
        .changes
        .iter()
        .flat_map(|(path, rows)| {
            let delta = exact.adapter.modules[path].delta();
            delta
                .indexed_iter()
                .map(|((i, j), x)| (f64::from(*x) - rows[i][j]).powi(2))
                .collect::<Vec<_>>()
        })
        .sum();
    assert!(gap.sqrt() > 0.1 * exact.diagnostics.norm_merged);
}

#[test]
fn compression_is_the_best_there_is() {
    let golden = golden();
    assert_eq!(golden.svd.len(), 3);
    for case in &golden.svd {
        let exact = golden.merge(&case.adapters, &case.weights, &task_arithmetic(None));
        for (path, want) in &case.singular_values {
            let got = exact.adapter.low_rank()[path].svd().unwrap().s;
            // numpy lists min(d_out, d_in) values, of which those beyond the rank are 0.
            for (i, want) in want.iter().enumerate() {
                let got = got.get(i).copied().unwrap_or(0.0);
                // The scale, the weight and b are rounded to f32.
                assert!(
                    (got - want).abs() <= 8.0 * f64::from(f32::EPSILON) * case_norm(case, path),
                    "{path}: {got} {want}"
                );
            }
        }
        let cut = golden.merge(&case.adapters, &case.weights, &task_arithmetic(Some(case.rank)));
        assert_same(&cut, &case.changes, &format!("rank {}", case.rank));
        let output = cut.diagnostics.output.unwrap();
        assert_eq!(output.rank_max, case.rank);
        assert!(
            (output.relative_error - case.relative_error).abs() <= 1e-6,
            "{output:?}"
        );
    }
}

fn case_norm(case: &SvdCase, path: &ModulePath) -> f64 {
    case.singular_values[path].iter().map(|s| s * s).sum::<f64>().sqrt()
}
