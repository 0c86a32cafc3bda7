//! Identities of merges in delta, over adapters of different ranks, alphas, scalings and target modules.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_merge::{
    Adapter, Array2, Dtype, LinearConfig, LinearConvention, LoraConfig, LowRank, MergeInputs, MergeRecord,
    MergeStrategy, Merged, ModulePath, ModuleWeights, ModuleWeightsConfig, Space, TaskArithmeticConfig, V2Config,
    write_merged,
};
use std::collections::{BTreeMap, BTreeSet};

const Q0: &str = "model.layers.0.self_attn.q_proj";
const Q1: &str = "model.layers.1.self_attn.q_proj";
const UP: &str = "model.layers.1.mlp.up_proj";
const HEAD: &str = "lm_head";

/// (module, d_out, d_in); none is square.
const MODULES: [(&str, usize, usize); 4] = [(Q0, 7, 5), (Q1, 7, 5), (UP, 6, 5), (HEAD, 11, 5)];

fn adapter(config: LoraConfig, ranks: &[(&str, usize)], seed: u64) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |rows, cols| Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-1.0f32..1.0));
    let pairs = ranks.iter().map(|(path, rank)| {
        let (_, d_out, d_in) = MODULES.iter().find(|(name, _, _)| name == path).unwrap();
        (ModulePath::new(*path), draw(*rank, *d_in), draw(*d_out, *rank))
    });
    Adapter::from_pairs(config, pairs).unwrap()
}

/// Rank 2 of alpha 5, rank-stabilised.
fn first() -> Adapter {
    let mut config = LoraConfig::new(2, 5.0, ["q_proj", "lm_head"]);
    config.use_rslora = true;
    config.base_model_name_or_path = Some("some/base".to_owned());
    adapter(config, &[(Q0, 2), (Q1, 2), (HEAD, 2)], 1)
}

/// Rank 3, but 1 in the MLP, where alpha differs too.
fn second() -> Adapter {
    let mut config = LoraConfig::new(3, 4.0, ["q_proj", "up_proj"]);
    config.rank_pattern.insert("up_proj".to_owned(), 1);
    config.alpha_pattern.insert("up_proj".to_owned(), 0.5);
    adapter(config, &[(Q1, 3), (UP, 1)], 2)
}

fn safety() -> Adapter {
    let mut config = LoraConfig::new(4, 3.0, ["q_proj", "up_proj"]);
    config.base_model_name_or_path = Some("some/base".to_owned());
    adapter(config, &[(Q0, 4), (Q1, 4), (UP, 4)], 3)
}

fn weights(toml: &str) -> ModuleWeights {
    toml::from_str::<ModuleWeightsConfig>(toml).unwrap().check().unwrap()
}

fn linear(weight: f64) -> impl MergeStrategy {
    let config = LinearConfig {
        weight,
        ..LinearConfig::default()
    };
    config.check().unwrap()
}

fn task_arithmetic(weight: f64, rank: Option<usize>) -> impl MergeStrategy {
    TaskArithmeticConfig { weight, rank }.check().unwrap()
}

type Deltas = BTreeMap<&'static str, Array2<f64>>;

/// delta W of every module, zero where the adapter has none.
fn deltas(adapter: &Adapter) -> Deltas {
    let of = |path: &str, dim| {
        let module = adapter.modules.get(&ModulePath::new(path));
        module.map_or(Array2::zeros(dim), |module| module.delta().mapv(f64::from))
    };
    MODULES
        .map(|(path, d_out, d_in)| (path, of(path, (d_out, d_in))))
        .into()
}

fn combine(parts: &[(f64, &Adapter)]) -> Deltas {
    let mut sum: Deltas = MODULES
        .map(|(path, d_out, d_in)| (path, Array2::zeros((d_out, d_in))))
        .into();
    for (weight, adapter) in parts {
        for (path, delta) in deltas(adapter) {
            *sum.get_mut(path).unwrap() += &(*weight * delta);
        }
    }
    sum
}

fn inner(x: &Deltas, y: &Deltas) -> f64 {
    x.iter().map(|(path, x)| (x * &y[path]).sum()).sum()
}

fn gap(x: &Deltas, y: &Deltas) -> f64 {
    let change: Deltas = x.iter().map(|(path, x)| (*path, x - &y[path])).collect();
    inner(&change, &change).sqrt()
}

/// The same to 1e-6 of the norm.
fn assert_same(got: &Merged, want: &Deltas) {
    let gap = gap(&deltas(&got.adapter), want);
    assert!(gap <= 1e-6 * inner(want, want).sqrt(), "{gap}");
}

#[test]
fn one_adapter_at_weight_one_is_itself() {
    let (u, s) = (first(), safety());
    let inputs = MergeInputs::new(std::slice::from_ref(&u), &s);
    for strategy in [&linear(0.0) as &dyn MergeStrategy, &task_arithmetic(0.0, None)] {
        assert_same(&strategy.merge(&inputs).unwrap(), &deltas(&u));
    }
    let only_safety = weights("weights = [0.0, 1.0]");
    for strategy in [&linear(1.0) as &dyn MergeStrategy, &task_arithmetic(1.0, None)] {
        assert_same(
            &strategy.merge(&inputs.with_weights(&only_safety)).unwrap(),
            &deltas(&s),
        );
    }
}

#[test]
fn sums_and_means_are_those_of_the_dense_changes() {
    let (utilities, s) = ([first(), second()], safety());
    let inputs = MergeInputs::new(&utilities, &s);
    let sum = task_arithmetic(0.7, None).merge(&inputs).unwrap();
    assert_same(&sum, &combine(&[(1.0, &utilities[0]), (1.0, &utilities[1]), (0.7, &s)]));
    let mean = linear(2.0).merge(&inputs).unwrap();
    assert_same(
        &mean,
        &combine(&[(0.25, &utilities[0]), (0.25, &utilities[1]), (0.5, &s)]),
    );
    let ranks: Vec<usize> = sum.adapter.modules.values().map(|module| module.rank()).collect();
    assert_eq!(ranks, [6, 9, 5, 2]); // model order: layer 0, layer 1, head
}

#[test]
fn order_copies_and_common_factors_do_not_matter() {
    let (u, v, s) = (first(), second(), safety());
    let (one, other) = ([u.clone(), v.clone()], [v.clone(), u.clone()]);
    for strategy in [&linear(0.4) as &dyn MergeStrategy, &task_arithmetic(0.4, None)] {
        let swapped = strategy.merge(&MergeInputs::new(&other, &s)).unwrap();
        assert_same(
            &swapped,
            &deltas(&strategy.merge(&MergeInputs::new(&one, &s)).unwrap().adapter),
        );
    }
    let copies = [u.clone(), u.clone()];
    assert_same(&linear(1.0).merge(&MergeInputs::new(&copies, &u)).unwrap(), &deltas(&u));
    assert_same(
        &task_arithmetic(1.0, None)
            .merge(&MergeInputs::new(&copies, &u))
            .unwrap(),
        &combine(&[(3.0, &u)]),
    );
    let inputs = MergeInputs::new(&one, &s);
    let (small, large) = (
        weights("weights = [1.0, 2.0, -0.5]"),
        weights("weights = [4.0, 8.0, -2.0]"),
    );
    let scaled = linear(1.0).merge(&inputs.with_weights(&large)).unwrap();
    assert_same(
        &scaled,
        &deltas(&linear(1.0).merge(&inputs.with_weights(&small)).unwrap().adapter),
    );
}

#[test]
fn modules_have_their_weights_and_may_be_skipped() {
    let (u, s) = (first(), safety());
    let weights = weights(
        "weights = [1.0, 0.5]\n[[module]]\nlayers = [1]\nweights = [0.0, 2.0]\n[[module]]\nmatch = 'lm_head'\nskip = true",
    );
    let inputs = MergeInputs::new(std::slice::from_ref(&u), &s).with_weights(&weights);
    let merged = task_arithmetic(3.0, None).merge(&inputs).unwrap();
    let (u, s) = (deltas(&u), deltas(&s));
    let mut want = u.clone();
    for (path, from_u, from_s) in [(Q0, 1.0, 1.5), (Q1, 0.0, 6.0), (UP, 0.0, 6.0), (HEAD, 0.0, 0.0)] {
        want.insert(path, from_u * &u[path] + from_s * &s[path]);
    }
    assert_same(&merged, &want);
    assert!(!merged.adapter.modules.contains_key(&ModulePath::new(HEAD)));
    // Norms count the module that was left out: M is zero there, U is not.
    assert!((merged.diagnostics.norm_utility - inner(&u, &u).sqrt()).abs() <= 1e-6 * inner(&u, &u).sqrt());
}

#[test]
fn diagnostics_are_those_of_the_dense_changes() {
    let (utilities, s) = ([first(), second()], safety());
    for rank in [None, Some(2)] {
        let merged = task_arithmetic(0.7, rank)
            .merge(&MergeInputs::new(&utilities, &s))
            .unwrap();
        let exact = combine(&[(1.0, &utilities[0]), (1.0, &utilities[1]), (0.7, &s)]);
        let u = combine(&[(0.5, &utilities[0]), (0.5, &utilities[1])]);
        let (m, s) = (deltas(&merged.adapter), deltas(&s));
        let norm = |x: &Deltas| inner(x, x).sqrt();
        let d = &merged.diagnostics;
        let output = d.output.unwrap();
        for (what, got, want) in [
            ("U", d.norm_utility, norm(&u)),
            ("S", d.norm_safety, norm(&s)),
            ("S'", d.norm_safety_used.unwrap(), norm(&s)),
            ("M", d.norm_merged, norm(&m)),
            ("change", d.relative_change.unwrap(), gap(&m, &u) / norm(&u)),
            ("cosine", d.cosine.unwrap(), inner(&u, &s) / norm(&u) / norm(&s)),
            ("error", output.relative_error, gap(&m, &exact) / norm(&exact)),
        ] {
            assert!(
                (got - want).abs() <= 2e-6 * want.abs().max(1.0),
                "{rank:?} {what}: {got} {want}"
            );
        }
        assert_eq!((d.space, output.rank_max), (Space::Delta, rank.unwrap_or(9)));
        assert_eq!(output.relative_error > 0.01, rank.is_some());
        assert_eq!(d.parameters, merged.adapter.to_flat().len());
    }
}

#[test]
fn a_merge_of_nothing_is_nothing() {
    let (u, s) = (first().zeros_like(), safety().zeros_like());
    let merged = task_arithmetic(1.0, Some(1))
        .merge(&MergeInputs::new(&[u], &s))
        .unwrap();
    let d = &merged.diagnostics;
    assert_eq!((d.norm_merged, d.relative_change, d.cosine), (0.0, None, None));
    assert_eq!(d.output.unwrap().relative_error, 0.0);
    // All weights 0: changes of rank 0, which the adapter stores as zeros.
    let (u, s) = (first(), safety());
    let none = weights("weights = [0.0, 0.0]");
    let merged = task_arithmetic(1.0, None)
        .merge(&MergeInputs::new(&[u], &s).with_weights(&none))
        .unwrap();
    assert_eq!(
        (
            merged.diagnostics.norm_merged,
            merged.diagnostics.output.unwrap().rank_max
        ),
        (0.0, 0)
    );
    assert!(merged.adapter.to_flat().iter().all(|x| *x == 0.0));
}

#[test]
fn the_result_is_a_peft_folder() {
    let (utilities, s) = ([first(), second()], safety());
    let strategy = task_arithmetic(1.0, Some(3));
    let merged = strategy.merge(&MergeInputs::new(&utilities, &s)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let record = MergeRecord {
        recipe: strategy.config(),
        inputs: BTreeMap::new(),
        command: String::new(),
        dtype: Dtype::F32,
    };
    write_merged(dir.path(), &merged, &record).unwrap();
    let loaded = Adapter::load(dir.path()).unwrap();
    assert_eq!(loaded.modules, merged.adapter.modules);
    assert_eq!(loaded.config.base_model_name_or_path.as_deref(), Some("some/base"));
    let readme = std::fs::read_to_string(dir.path().join("README.md")).unwrap();
    for line in [
        "| strategy | task-arithmetic |",
        "| norms are over | changes of the weights |",
        "| largest rank | 3 |",
    ] {
        assert!(readme.contains(line), "{line} is not in\n{readme}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let (utilities, s) = ([first(), second()], safety());
    let message = |inputs: &MergeInputs<'_>| task_arithmetic(1.0, None).merge(inputs).unwrap_err().to_string();
    assert_eq!(
        message(&MergeInputs::new(&[], &s)),
        "a merge needs at least one utility adapter"
    );

    let mut other = s.clone();
    other.config.base_model_name_or_path = Some("some/other".to_owned());
    let text = message(&MergeInputs::new(&utilities, &other));
    let bases = "utility adapter 1 is of base model `some/base`, the safety adapter of `some/other`";
    assert!(text.starts_with(bases), "{text}");

    let mut wide = s.clone();
    wide.modules.get_mut(&ModulePath::new(Q1)).unwrap().a = Array2::zeros((4, 6));
    let text = message(&MergeInputs::new(&utilities, &wide));
    assert_eq!(
        text,
        format!("tensor {Q1} is [7, 5] in utility adapter 1 but [7, 6] in the safety adapter")
    );

    let two = weights("weights = [1.0, 1.0]");
    let text = message(&MergeInputs::new(&utilities, &s).with_weights(&two));
    assert_eq!(text, "weights: 2 weights for 3 adapters");

    let opposite = weights("weights = [1.0, 1.0, -2.0]");
    let inputs = MergeInputs::new(&utilities, &s).with_weights(&opposite);
    let text = linear(1.0).merge(&inputs).unwrap_err().to_string();
    assert_eq!(
        text,
        format!("weights: sum to 0 in module {Q0} and cannot be normalised")
    );
    let text = V2Config::default()
        .check()
        .unwrap()
        .merge(&inputs)
        .unwrap_err()
        .to_string();
    assert!(text.contains("take no weights per module"), "{text}");

    let factors = LinearConfig {
        convention: LinearConvention::PeftFactors,
        ..LinearConfig::default()
    };
    let text = factors
        .check()
        .unwrap()
        .merge(&MergeInputs::new(&utilities, &s))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains(&format!("{Q0}.lora_A has shape [4, 5], expected [2, 5]")),
        "{text}"
    );

    let merged = BTreeMap::from([(ModulePath::new(Q0), LowRank::zero([5, 7]))]);
    let text = Merged::from_low_rank(&MergeInputs::new(&utilities, &s), merged, None)
        .unwrap_err()
        .to_string();
    assert!(text.contains("has shape [5, 7], expected [7, 5]"), "{text}");

    // A strategy defined elsewhere may not have looked at the inputs.
    let text = Merged::from_low_rank(&MergeInputs::new(&utilities, &wide), BTreeMap::new(), None)
        .unwrap_err()
        .to_string();
    assert_eq!(text, format!("merge: tensor {Q1} has shape [7, 6], expected [7, 5]"));
    let thin = LowRank {
        a: Array2::ones((2, 5)),
        b: Array2::ones((7, 3)),
    };
    let merged = BTreeMap::from([(ModulePath::new(Q0), thin)]);
    let text = Merged::from_low_rank(&MergeInputs::new(&utilities, &s), merged, None)
        .unwrap_err()
        .to_string();
    assert!(text.contains("has shape [7, 3], expected [7, 2]"), "{text}");
    let huge = LowRank {
        a: Array2::from_elem((2, 5), f32::INFINITY),
        b: Array2::ones((7, 2)),
    };
    let merged = BTreeMap::from([(ModulePath::new(Q0), huge)]);
    let text = Merged::from_low_rank(&MergeInputs::new(&utilities, &s), merged, Some(1))
        .unwrap_err()
        .to_string();
    assert_eq!(text, format!("module {Q0}: tensor a holds inf at flat index 0"));
}

#[test]
fn bad_settings_are_named() {
    for text in [
        "strategy = \"linear\"\nweight = nan",
        "strategy = \"task-arithmetic\"\nrank = 0",
    ] {
        let config: sst_merge::StrategyConfig = toml::from_str(text).unwrap();
        let message = config.check().unwrap_err().to_string();
        let setting = text.lines().nth(1).unwrap().split(' ').next().unwrap();
        assert!(message.contains(&format!("`{setting}`")), "{message}");
    }
}

#[test]
fn modules_are_the_union_in_model_order() {
    let (utilities, s) = ([first(), second()], safety());
    let inputs = MergeInputs::new(&utilities, &s);
    let paths: BTreeSet<ModulePath> = [HEAD, UP, Q1, Q0].map(ModulePath::new).into();
    assert_eq!(inputs.modules(), paths);
    let present: Vec<bool> = inputs.module(&HEAD.into()).iter().map(Option::is_some).collect();
    assert_eq!(present, [true, false, false]);
}
