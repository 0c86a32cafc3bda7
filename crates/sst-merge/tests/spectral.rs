//! Identities of the spectral, statistics-weighted and safety baselines, and the errors of what does not fit.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_merge::{
    Adapter, Array2, DiagonalFisher, Estimator, FisherMeta, KroneckerFactors, KroneckerFisher, LoraConfig, LowRank,
    MergeInputs, Merged, ModulePath, ModuleWeights, ModuleWeightsConfig, Statistics, StrategyConfig,
};
use std::collections::BTreeMap;

const Q: &str = "model.layers.0.self_attn.q_proj";
const V: &str = "model.layers.0.self_attn.v_proj";
const DOWN: &str = "model.layers.1.mlp.down_proj";
/// Module, d_in, d_out: wide, narrow and square.
const MODULES: [(&str, usize, usize); 3] = [(Q, 20, 26), (V, 20, 9), (DOWN, 31, 20)];

/// An adapter of scale alpha / sqrt(r), of rank r but for v_proj.
fn adapter(seed: u64, r: usize, r_v: usize) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |rows, cols| Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-1.0f32..1.0));
    let mut config = LoraConfig::new(r, 3.0, ["q_proj", "v_proj", "down_proj"]);
    config.use_rslora = true;
    config.rank_pattern.insert("v_proj".into(), r_v);
    let pairs = MODULES.map(|(path, d_in, d_out)| {
        let rank = if path == V { r_v } else { r };
        (path.into(), draw(rank, d_in), draw(d_out, rank))
    });
    Adapter::from_pairs(config, pairs).unwrap()
}

fn without(mut adapter: Adapter, module: &str) -> Adapter {
    adapter.modules.remove(&module.into()).unwrap();
    adapter
}

fn strategy(json: &str) -> StrategyConfig {
    serde_json::from_str(json).unwrap()
}

fn weights(weights: &[f64]) -> ModuleWeights {
    let weights = Some(weights.to_vec());
    let config = ModuleWeightsConfig {
        weights,
        ..ModuleWeightsConfig::default()
    };
    config.check().unwrap()
}

/// Covariances of inputs, one per distinct module.
fn covariances(seed: u64, modules: &[(&str, usize, usize)]) -> KroneckerFisher {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let factors = modules.iter().map(|(path, d_in, d_out)| {
        let x = Array2::from_shape_simple_fn((d_in + 3, *d_in), || rng.random_range(-1.0..1.0));
        let input = x.t().dot(&x);
        let output = Array2::eye(*d_out);
        (ModulePath::new(*path), KroneckerFactors { input, output })
    });
    let folder = tempfile::tempdir().unwrap();
    let meta = FisherMeta::new(Estimator::Kron, "response", 0);
    KroneckerFisher::save(folder.path(), &meta, &factors.collect(), BTreeMap::new()).unwrap();
    KroneckerFisher::load(folder.path()).unwrap()
}

fn diagonals(adapters: &[&Adapter], seed: u64) -> Vec<DiagonalFisher> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let fishers = adapters.iter().map(|adapter| {
        let layout = adapter.layout();
        let values = (0..layout.len())
            .map(|_| 10f32.powf(rng.random_range(-9.0..-2.0)))
            .collect();
        let meta = FisherMeta::new(Estimator::Diag, "response", seed);
        DiagonalFisher::new(layout, values, meta).unwrap()
    });
    fishers.collect()
}

/// Merges with covariances and without Fishers or models.
fn merge(json: &str, utilities: &[Adapter], safety: &Adapter, of: &[f64]) -> Merged {
    let weights = weights(of);
    let fishers: Vec<KroneckerFisher> = (0..=utilities.len() as u64).map(|t| covariances(t, &MODULES)).collect();
    let (safety_fisher, utility_fishers) = fishers.split_last().unwrap();
    let statistics = Statistics {
        utility: utility_fishers.iter().collect(),
        safety: safety_fisher,
    };
    let inputs = MergeInputs::new(utilities, safety)
        .with_weights(&weights)
        .with_statistics(&statistics);
    strategy(json).check().unwrap().merge(&inputs).unwrap()
}

/// Equal changes, up to `tolerance` times the norm of the second; modules that one lacks are 0 there.
fn assert_same(got: &Adapter, want: &Adapter, tolerance: f64, what: &str) {
    let (got, want) = (got.low_rank(), want.low_rank());
    let norm = want.values().map(|x| x.inner(x)).sum::<f64>().sqrt();
    assert!(norm > 1.0, "{what}: nothing to compare");
    for (path, want) in &want {
        let gap = match got.get(path) {
            Some(got) => LowRank::stack(&[(1.0, got), (-1.0, want)]).unwrap().norm(),
            None => want.norm(),
        };
        assert!(gap <= tolerance * norm, "{what} {path}: {gap} of {norm}");
    }
    for (path, got) in got.iter().filter(|(path, _)| !want.contains_key(*path)) {
        assert!(got.norm() <= tolerance * norm, "{what} {path}");
    }
}

const ROUNDING: f64 = 1e-6;

#[test]
fn one_adapter_at_weight_one_is_returned() {
    let (u, s) = (adapter(1, 4, 3), adapter(2, 5, 2));
    for json in [
        r#"{"strategy": "knots"}"#,
        r#"{"strategy": "knots", "merge": "linear"}"#,
        r#"{"strategy": "knots", "combine": "sum"}"#,
        r#"{"strategy": "tsv-m"}"#,
        r#"{"strategy": "tsv-m", "truncate": "rank"}"#,
        r#"{"strategy": "regmean"}"#,
        r#"{"strategy": "regmean", "alpha": 1.0, "ridge": 0.0}"#,
        r#"{"strategy": "lox"}"#,
        r#"{"strategy": "lox", "safety": 1.0}"#,
        r#"{"strategy": "safelora"}"#,
        r#"{"strategy": "safelora", "projection": "exact"}"#,
        r#"{"strategy": "safemerge"}"#,
        r#"{"strategy": "resta"}"#,
    ] {
        let alone = merge(json, std::slice::from_ref(&u), &s, &[1.0, 0.0]);
        assert_same(&alone.adapter, &u, ROUNDING, json);
    }
}

#[test]
fn copies_of_one_adapter_are_that_adapter() {
    let (u, s) = (adapter(1, 4, 3), adapter(2, 5, 2));
    for json in [
        r#"{"strategy": "knots"}"#,
        r#"{"strategy": "knots", "merge": "linear"}"#,
        r#"{"strategy": "tsv-m"}"#,
        r#"{"strategy": "regmean"}"#,
    ] {
        let copies = merge(json, &[u.clone(), u.clone()], &s, &[1.0, 1.0, 0.0]);
        assert_same(&copies.adapter, &u, ROUNDING, json);
    }
    // Scaled copies are parallel but for rounding, which must not be taken for directions of their own.
    for json in [r#"{"strategy": "iso-c"}"#, r#"{"strategy": "iso-cts"}"#] {
        let one = merge(json, std::slice::from_ref(&u), &s, &[1.0, 0.0]);
        let copies = merge(json, &[u.clone(), u.clone()], &s, &[0.7, 0.3, 0.0]);
        assert_same(&copies.adapter, &one.adapter, 10.0 * ROUNDING, json);
    }
}

#[test]
fn the_order_of_the_adapters_does_not_matter() {
    let (u, other, s) = (adapter(1, 4, 3), without(adapter(5, 3, 3), V), adapter(2, 5, 2));
    for json in [
        r#"{"strategy": "knots", "density": 0.6}"#,
        r#"{"strategy": "tsv-m"}"#,
        r#"{"strategy": "tsv-m", "truncate": "rank"}"#,
        r#"{"strategy": "iso-c"}"#,
        r#"{"strategy": "iso-cts", "common_fraction": 0.4}"#,
        r#"{"strategy": "lox"}"#,
        r#"{"strategy": "safelora", "select": {"count": 2}}"#,
        r#"{"strategy": "safemerge", "threshold": 0.7}"#,
        r#"{"strategy": "resta"}"#,
    ] {
        let forth = merge(json, &[u.clone(), other.clone()], &s, &[1.0, 0.6, 0.8]);
        let back = merge(json, &[other.clone(), u.clone()], &s, &[0.6, 1.0, 0.8]);
        assert_same(&forth.adapter, &back.adapter, 10.0 * ROUNDING, json);
    }
}

#[test]
fn scaling_every_adapter_scales_the_merge() {
    let (u, s) = (adapter(1, 4, 3), adapter(2, 5, 2));
    for json in [
        r#"{"strategy": "tsv-m", "scale": SCALE}"#,
        r#"{"strategy": "iso-c", "scale": SCALE}"#,
        r#"{"strategy": "iso-cts", "common_fraction": 0.4, "scale": SCALE}"#,
    ] {
        let once = merge(&json.replace("SCALE", "2.5"), std::slice::from_ref(&u), &s, &[1.0, 1.0]);
        let scaled = merge(&json.replace("SCALE", "1.0"), std::slice::from_ref(&u), &s, &[2.5, 2.5]);
        assert_same(&scaled.adapter, &once.adapter, 10.0 * ROUNDING, json);
    }
}

#[test]
fn isotropic_merges_have_one_singular_value_and_keep_the_sum_of_them() {
    let (u, s) = (adapter(1, 4, 3), adapter(2, 5, 2));
    let sum = Adapter::sum(&[(1.0, &u), (1.0, &s)]).unwrap().low_rank();
    for (json, nuclear) in [
        (r#"{"strategy": "iso-c"}"#, true),
        (r#"{"strategy": "iso-cts", "common_fraction": 0.4}"#, false),
    ] {
        let merged = merge(json, std::slice::from_ref(&u), &s, &[1.0, 1.0]);
        for (path, change) in merged.adapter.low_rank() {
            let values = change.svd().unwrap().s;
            let want = sum[&path].svd().unwrap().s;
            let spread = values[0] - values[values.len() - 1];
            if nuclear {
                assert_eq!(values.len(), want.len(), "{path}");
                assert!((values.sum() - want.sum()).abs() <= ROUNDING * want.sum(), "{path}");
                assert!(spread <= ROUNDING * values[0], "{path}: {values}");
            } else {
                // Left and right vectors are orthonormal there as well: two polar factors of full rank.
                assert!(spread <= ROUNDING * values[0], "{json} {path}: {values}");
            }
        }
    }
}

#[test]
fn summed_linear_knots_is_task_arithmetic_whatever_the_basis() {
    let (u, other, s) = (adapter(1, 4, 3), without(adapter(5, 3, 3), V), adapter(2, 5, 2));
    let json = r#"{"strategy": "knots", "merge": "linear", "combine": "sum"}"#;
    let merged = merge(json, &[u.clone(), other.clone()], &s, &[1.0, -0.6, 0.8]);
    let sum = Adapter::sum(&[(1.0, &u), (-0.6, &other), (0.8, &s)]).unwrap();
    assert_same(&merged.adapter, &sum, ROUNDING, json);
    assert_eq!(merged.diagnostics.output.unwrap().rank_max, 12);
}

#[test]
fn safemerge_is_all_or_nothing_at_the_ends_of_its_threshold() {
    let (u, s) = (adapter(1, 4, 3), adapter(2, 5, 2));
    let of = |threshold: &str| {
        let json = r#"{"strategy": "safemerge", "threshold": TAU, "weights": [0.7, 0.4]}"#.replace("TAU", threshold);
        merge(&json, std::slice::from_ref(&u), &s, &[1.0, 1.0])
    };
    assert_same(&of("-1.1").adapter, &u, ROUNDING, "nothing");
    let all = of("1.1");
    let sum = Adapter::sum(&[(0.7, &u), (0.4, &s)]).unwrap();
    assert_same(&all.adapter, &sum, ROUNDING, "all");
    assert_eq!(all.diagnostics.alignment.unwrap().changed, 3);
}

#[test]
fn safelora_keeps_what_lies_in_the_alignment_subspace_and_drops_what_is_orthogonal_to_it() {
    let u = adapter(1, 4, 3);
    let json = r#"{"strategy": "safelora", "projection": "exact", "select": {"count": 3}}"#;
    let own = merge(json, std::slice::from_ref(&u), &u, &[1.0, 1.0]);
    assert_same(&own.adapter, &u, ROUNDING, "S = U");
    for cosine in own.diagnostics.alignment.unwrap().cosines.values() {
        assert!((cosine - 1.0).abs() <= ROUNDING, "{cosine}");
    }
    // U writes to the first outputs, S to the last.
    let (mut first, mut last) = (u.clone(), adapter(2, 5, 2));
    for module in first.modules.values_mut() {
        module.b.slice_mut(ndarray::s![5.., ..]).fill(0.0);
    }
    for module in last.modules.values_mut() {
        module.b.slice_mut(ndarray::s![..5, ..]).fill(0.0);
    }
    for projection in ["exact", "approximate"] {
        let json = json.replace("exact", projection);
        let merged = merge(&json, std::slice::from_ref(&first), &last, &[1.0, 1.0]);
        assert!(
            merged.diagnostics.norm_merged <= ROUNDING * merged.diagnostics.norm_utility,
            "{projection}"
        );
        assert_eq!(merged.diagnostics.alignment.unwrap().changed, 3, "{projection}");
    }
}

#[test]
fn regmean_of_equal_covariances_is_the_weighted_mean() {
    let (u, s) = (adapter(1, 4, 3), adapter(2, 5, 2));
    let fisher = covariances(3, &MODULES);
    let statistics = Statistics {
        utility: vec![&fisher],
        safety: &fisher,
    };
    let (utilities, weights) = (std::slice::from_ref(&u), weights(&[1.0, 3.0]));
    let inputs = MergeInputs::new(utilities, &s)
        .with_weights(&weights)
        .with_statistics(&statistics);
    let merged = strategy(r#"{"strategy": "regmean"}"#)
        .check()
        .unwrap()
        .merge(&inputs)
        .unwrap();
    let mean = Adapter::sum(&[(0.25, &u), (0.75, &s)]).unwrap();
    assert_same(&merged.adapter, &mean, ROUNDING, "regmean");
}

#[test]
fn resta_drops_by_the_seed_and_says_what_the_rank_cuts_off() {
    let (u, s) = (adapter(1, 4, 3), adapter(2, 5, 2));
    let utilities = std::slice::from_ref(&u);
    let of = |json: &str, seed: u64| {
        let inputs = MergeInputs::new(utilities, &s).with_seed(seed);
        strategy(json).check().unwrap().merge(&inputs).unwrap()
    };
    let json = r#"{"strategy": "resta", "drop": 0.5}"#;
    let merged = of(json, 1);
    assert_eq!(merged.adapter, of(json, 1).adapter);
    assert_ne!(merged.adapter, of(json, 2).adapter);
    let output = merged.diagnostics.output.unwrap();
    assert_eq!(output.rank_max, 9);
    // Half of ||DARE(U)||^2 = 2 ||U||^2 is noise of full rank; a third of the directions keeps less than all of it.
    assert!((0.1..0.9).contains(&output.relative_error), "{}", output.relative_error);
    let whole = of(r#"{"strategy": "resta", "drop": 0.5, "rank": 31}"#, 1);
    assert!(whole.diagnostics.output.unwrap().relative_error <= ROUNDING);
}

#[test]
fn fisher_merging_follows_the_surer_adapter() {
    let (u, s) = (adapter(1, 4, 3), adapter(2, 4, 3));
    let utilities = std::slice::from_ref(&u);
    let mut fishers = diagonals(&[&u, &s], 3);
    let merge = |fishers: &[DiagonalFisher], json: &str, of: &[f64]| {
        let weights = weights(of);
        let inputs = MergeInputs::new(utilities, &s)
            .with_weights(&weights)
            .with_diagonals(fishers);
        strategy(json).check().unwrap().merge(&inputs).unwrap().adapter
    };
    let json = r#"{"strategy": "fisher", "floor": 0.0}"#;
    assert_eq!(merge(&fishers, json, &[1.0, 0.0]), u);
    assert_eq!(merge(&fishers, json, &[0.0, 1.0]).to_flat(), s.to_flat());
    // Where only S has information the entry is S's; where nobody has, U's.
    fishers[0].values[..9].fill(0.0);
    fishers[1].values[5..9].fill(0.0);
    let merged = merge(&fishers, json, &[1.0, 1.0]).to_flat();
    assert_eq!(merged[..5], s.to_flat()[..5]);
    assert_eq!(merged[5..9], u.to_flat()[5..9]);
    assert!(merged[9..].iter().zip(&u.to_flat()[9..]).any(|(m, u)| m != u));
}

#[test]
fn zero_adapters_and_missing_modules_merge() {
    let (u, s) = (adapter(1, 4, 3), adapter(2, 5, 2));
    for json in [
        r#"{"strategy": "knots", "density": 0.3}"#,
        r#"{"strategy": "knots", "merge": "linear"}"#,
        r#"{"strategy": "tsv-m"}"#,
        r#"{"strategy": "tsv-m", "truncate": "rank"}"#,
        r#"{"strategy": "iso-c"}"#,
        r#"{"strategy": "iso-cts"}"#,
        r#"{"strategy": "regmean"}"#,
        r#"{"strategy": "lox"}"#,
        r#"{"strategy": "safelora"}"#,
        r#"{"strategy": "safelora", "projection": "exact"}"#,
        r#"{"strategy": "safemerge"}"#,
        r#"{"strategy": "resta"}"#,
        r#"{"strategy": "resta", "drop": 0.2}"#,
    ] {
        let zero = merge(json, &[u.zeros_like()], &s.zeros_like(), &[1.0, 1.0]);
        assert_eq!(zero.diagnostics.norm_merged, 0.0, "{json}");
        let nothing = merge(json, std::slice::from_ref(&u), &s, &[0.0, 0.0]);
        assert_eq!(nothing.diagnostics.norm_merged, 0.0, "{json}");
        // No module in common.
        let (left, right) = (without(without(u.clone(), V), DOWN), without(s.clone(), Q));
        let apart = merge(json, &[left], &right, &[1.0, 1.0]);
        assert!(apart.diagnostics.norm_merged.is_finite(), "{json}");
        assert!(apart.adapter.modules.contains_key(&Q.into()), "{json}");
    }
}

#[test]
fn skipped_modules_stay_as_the_base_model_has_them() {
    let (u, s) = (adapter(1, 4, 3), adapter(2, 4, 3));
    let config: ModuleWeightsConfig =
        serde_json::from_str(r#"{"module": [{"match": "v_proj", "skip": true}]}"#).unwrap();
    let weights = config.check().unwrap();
    let fishers = diagonals(&[&u, &s], 3);
    let utilities = std::slice::from_ref(&u);
    let inputs = MergeInputs::new(utilities, &s)
        .with_weights(&weights)
        .with_diagonals(&fishers);
    for name in [
        "knots",
        "tsv-m",
        "iso-c",
        "iso-cts",
        "lox",
        "safelora",
        "safemerge",
        "resta",
        "fisher",
    ] {
        let json = format!(r#"{{"strategy": "{name}"}}"#);
        let merged = strategy(&json)
            .check()
            .unwrap()
            .merge(&inputs)
            .unwrap()
            .adapter
            .low_rank();
        assert_eq!(merged.get(&V.into()).map_or(0.0, LowRank::norm), 0.0, "{name}");
        assert!(merged[&Q.into()].norm() > 1.0, "{name}");
    }
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let (u, s) = (adapter(1, 4, 3), adapter(2, 4, 3));
    let utilities = std::slice::from_ref(&u);
    let plain = MergeInputs::new(utilities, &s);
    let error =
        |json: &str, inputs: MergeInputs<'_>| strategy(json).check().unwrap().merge(&inputs).unwrap_err().to_string();

    let message = error(r#"{"strategy": "regmean"}"#, plain);
    assert!(
        message.contains("regmean") && message.contains("statistics"),
        "{message}"
    );
    let (good, few) = (covariances(1, &MODULES), covariances(2, &MODULES[..2]));
    let with = |safety| Statistics {
        utility: vec![&good],
        safety,
    };
    let message = error(r#"{"strategy": "regmean"}"#, plain.with_statistics(&with(&few)));
    assert!(message.contains(DOWN), "{message}");
    let narrow = covariances(3, &[(Q, 20, 26), (V, 20, 9), (DOWN, 30, 20)]);
    let message = error(r#"{"strategy": "regmean"}"#, plain.with_statistics(&with(&narrow)));
    assert!(
        message.contains(DOWN) && message.contains("31") && message.contains("30"),
        "{message}"
    );
    let statistics = with(&good);
    let negative = weights(&[1.0, -0.5]);
    let message = error(
        r#"{"strategy": "regmean"}"#,
        plain.with_statistics(&statistics).with_weights(&negative),
    );
    assert!(message.contains("-0.5"), "{message}");

    let message = error(r#"{"strategy": "fisher"}"#, plain);
    assert!(message.contains("fisher") && message.contains("diagonal"), "{message}");
    let fishers = diagonals(&[&u, &s, &u], 1);
    let message = error(r#"{"strategy": "fisher"}"#, plain.with_diagonals(&fishers));
    assert!(message.contains("3 diagonal Fishers for 2 adapters"), "{message}");
    let other = adapter(3, 5, 3);
    let fishers = diagonals(&[&u, &other], 1);
    let message = error(r#"{"strategy": "fisher"}"#, plain.with_diagonals(&fishers));
    assert!(
        message.contains("the diagonal Fisher of the safety adapter"),
        "{message}"
    );
    let message = error(
        r#"{"strategy": "fisher"}"#,
        plain.with_diagonals(&fishers[..1]).with_weights(&negative),
    );
    assert!(message.contains("1 diagonal Fishers for 2 adapters"), "{message}");

    for name in ["safelora", "safemerge"] {
        let json = format!(r#"{{"strategy": "{name}", "alignment": "weights"}}"#);
        let message = error(&json, plain);
        assert!(message.contains(name) && message.contains("model"), "{message}");
        let mut change = BTreeMap::from([(ModulePath::new(Q), Array2::<f32>::eye(26))]);
        let message = error(&json, plain.with_alignment(&change));
        assert!(
            message.contains("[26, 20]") && message.contains("[26, 26]"),
            "{message}"
        );
        for bad in [f32::NAN, f32::INFINITY] {
            let mut v = Array2::<f32>::ones((26, 20));
            v[[3, 4]] = bad;
            change.insert(ModulePath::new(Q), v);
            let message = error(&json, plain.with_alignment(&change));
            assert!(
                message.contains(&format!("module {Q} holds NaN or infinity")),
                "{message}"
            );
        }
        change.clear();
        let message = error(&json, plain.with_alignment(&change));
        assert!(message.contains("is not in the models"), "{message}");
    }
}
