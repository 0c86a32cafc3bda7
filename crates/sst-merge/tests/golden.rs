//! V1 and V2 side by side against values from an independent implementation: see `fixtures/merge`.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use serde::Deserialize;
use sst_merge::{
    Adapter, DiagonalFisher, MergeInputs, Merged, PhiBasis, Selection, StrategyConfig, gevp, strategy_by_name,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Golden {
    eps: f64,
    slots: Vec<(String, usize, usize)>,
    subspaces: BTreeMap<String, Subspace>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Subspace {
    indices: Vec<u64>,
    eigenvalues: Vec<f64>,
    share_below_ridge_utility: f64,
}

#[derive(Deserialize)]
struct Case {
    utilities: Vec<String>,
    strategy: StrategyConfig,
    retained_energy: Option<f64>,
    merged: Vec<f64>,
}

fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/merge"))
}

fn golden() -> Golden {
    sst_artefact::read_json(&fixtures().join("golden.json"), "golden file").unwrap()
}

fn adapters(names: &[String]) -> Vec<Adapter> {
    names
        .iter()
        .map(|name| Adapter::load(&fixtures().join(name)).unwrap())
        .collect()
}

fn safety() -> Adapter {
    Adapter::load(&fixtures().join("safety")).unwrap()
}

fn fisher(name: &str) -> DiagonalFisher {
    DiagonalFisher::load(&fixtures().join(format!("fisher_{name}"))).unwrap()
}

/// All directions, so that every k is a truncation.
fn basis(utilities: &[String], eps: f64) -> PhiBasis {
    let fishers: Vec<DiagonalFisher> = utilities.iter().map(|name| fisher(name)).collect();
    let f_utility = DiagonalFisher::mean(&fishers).unwrap();
    let n = f_utility.values.len();
    gevp::diagonal(&fisher("safety"), &f_utility, n, eps).unwrap().into()
}

fn merge(case: &Case, eps: f64) -> Merged {
    let (utilities, safety, basis) = (adapters(&case.utilities), safety(), basis(&case.utilities, eps));
    let strategy = case.strategy.clone().check().unwrap();
    let inputs = MergeInputs::new(&utilities, &safety);
    let inputs = if strategy.needs().basis {
        inputs.with_basis(&basis)
    } else {
        inputs
    };
    strategy.merge(&inputs).unwrap()
}

#[test]
fn phi_is_laid_out_in_model_order() {
    let layout = safety().layout();
    let slots: Vec<(String, usize, usize)> = layout
        .slots()
        .iter()
        .map(|slot| (slot.name.clone(), slot.rows, slot.cols))
        .collect();
    assert_eq!(slots, golden().slots);
}

#[test]
fn subspaces_match() {
    let golden = golden();
    assert_eq!(golden.subspaces.len(), 2);
    for (names, want) in &golden.subspaces {
        let names: Vec<String> = names.split('+').map(str::to_owned).collect();
        let got = basis(&names, golden.eps);
        let k = want.indices.len();
        let PhiBasis::Coordinates(got) = got else {
            panic!("of diagonals");
        };
        assert_eq!(got.indices()[..k], want.indices, "{names:?}");
        for (got, want) in got.eigenvalues().iter().zip(&want.eigenvalues) {
            assert!((got - want).abs() <= 1e-14 * want, "{names:?}: {got} {want}");
        }
        let Selection::TopRatios {
            share_below_ridge_utility,
            ..
        } = got.selection()
        else {
            panic!("a GEVP selects by ratio");
        };
        assert_eq!(*share_below_ridge_utility, want.share_below_ridge_utility);
    }
}

#[test]
fn merged_values_match() {
    let golden = golden();
    assert!(golden.cases.len() >= 16);
    for case in &golden.cases {
        let Merged {
            adapter, diagnostics, ..
        } = merge(case, golden.eps);
        let phi = adapter.to_flat();
        assert_eq!(phi.len(), case.merged.len());
        for (i, (got, want)) in phi.iter().zip(&case.merged).enumerate() {
            // S' and M are each rounded to f32 once; entries are at most a few units.
            let gap = (f64::from(*got) - want).abs();
            assert!(
                gap <= 4.0 * f64::from(f32::EPSILON),
                "{:?} entry {i}: {got} {want}",
                case.strategy
            );
        }
        match (diagnostics.retained_energy, case.retained_energy) {
            (Some(got), Some(want)) => assert!((got - want).abs() <= 1e-14, "{:?}: {got} {want}", case.strategy),
            (got, want) => assert_eq!(got, want, "{:?}", case.strategy),
        }
    }
}

#[test]
fn v1_and_v2_at_weight_one_are_the_same_map_and_prefix_is_another() {
    let golden = golden();
    let of = |strategy: &str, k: usize, projection: &str| {
        let is = |case: &&Case| {
            let json = serde_json::to_value(&case.strategy).unwrap();
            let weight = json.get("alpha").or(json.get("weight")).unwrap();
            json["strategy"] == strategy
                && json["k"] == k
                && json["projection"] == projection
                && weight == 1.0
                && json.get("mode").is_none_or(|mode| mode == "projected")
        };
        merge(golden.cases.iter().find(is).unwrap(), golden.eps).adapter
    };
    for (k, projection) in [(20, "aligned"), (60, "prefix")] {
        assert_eq!(of("v1", k, projection), of("v2", k, projection));
    }
    assert_ne!(of("v1", 20, "aligned"), of("v1", 60, "prefix"));
}

#[test]
fn defaults_are_the_main_comparison_of_the_study() {
    for name in ["v1", "v2"] {
        let config = serde_json::to_value(strategy_by_name(name).unwrap()).unwrap();
        assert_eq!(config["k"], 20);
        assert_eq!(config.get("alpha").or(config.get("weight")).unwrap(), 1.0);
    }
}
