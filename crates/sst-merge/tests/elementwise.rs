//! Identities of the methods that work entry by entry and of SLERP, and the errors of adapters that do not fit.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_merge::{Adapter, Array2, LoraConfig, MergeInputs, Merged, ModulePath, ModuleWeightsConfig, StrategyConfig};
use std::slice::from_ref;

const EPS: f64 = f32::EPSILON as f64;

/// Non-square modules of rank `r` (one of rank 2) whose scale is not 1; the last module only with `all`.
fn adapter(seed: u64, r: usize, all: bool) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |rows, cols| Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-1.0f32..1.0));
    let mut config = LoraConfig::new(r, 5.0, ["q_proj", "v_proj", "lm_head"]);
    config.rank_pattern.insert("v_proj".into(), 2);
    config.use_rslora = seed % 2 == 1;
    let pairs = [
        ("model.layers.0.self_attn.q_proj".into(), draw(r, 8), draw(10, r)),
        ("model.layers.0.self_attn.v_proj".into(), draw(2, 8), draw(4, 2)),
        ("lm_head".into(), draw(r, 8), draw(12, r)),
    ];
    let count = if all { 3 } else { 2 };
    Adapter::from_pairs(config, pairs.into_iter().take(count)).unwrap()
}

fn merge(strategy: &str, inputs: &MergeInputs<'_>) -> Merged {
    let config: StrategyConfig = toml::from_str(strategy).unwrap();
    config.check().unwrap().merge(inputs).unwrap()
}

fn distance(left: &Adapter, right: &Adapter) -> f64 {
    assert!(left.modules.keys().eq(right.modules.keys()));
    let squares = left.modules.iter().map(|(path, left)| {
        let gap = left.delta().mapv(f64::from) - right.modules[path].delta().mapv(f64::from);
        gap.iter().map(|x| x * x).sum::<f64>()
    });
    squares.sum::<f64>().sqrt()
}

fn norm(adapter: &Adapter) -> f64 {
    distance(adapter, &adapter.zeros_like())
}

#[test]
fn one_adapter_at_weight_one_is_itself() {
    let u = adapter(1, 3, true);
    let zero = u.zeros_like();
    let inputs = MergeInputs::new(from_ref(&u), &zero);
    let families = [
        "strategy = 'ties'\ndensity = 1.0",
        "strategy = 'dare'\ndensity = 1.0",
        "strategy = 'dare-ties'\ndensity = 1.0",
        "strategy = 'della'\ndensity = 1.0",
        "strategy = 'breadcrumbs'\ndensity = 1.0",
    ];
    for family in families {
        for convention in ["paper", "peft", "mergekit"] {
            for space in ["delta", "factors"] {
                let convention = match family {
                    _ if family.contains("breadcrumbs") => String::new(),
                    _ if family.contains("della") && convention == "peft" => continue,
                    _ => format!("convention = '{convention}'"),
                };
                let strategy = format!("{family}\nspace = '{space}'\n{convention}");
                let Merged {
                    adapter, diagnostics, ..
                } = merge(&strategy, &inputs);
                let gap = distance(&adapter, &u);
                assert!(gap <= 1e-6 * norm(&u), "{strategy}: {gap}");
                assert!(diagnostics.output.unwrap().relative_error <= 1e-6, "{strategy}");
            }
        }
    }
    for strategy in ["strategy = 'slerp'\nt = 0.0", "strategy = 'slerp'\nt = 0.0\nrank = 3"] {
        assert!(
            distance(&merge(strategy, &inputs).adapter, &u) <= 1e-6 * norm(&u),
            "{strategy}"
        );
    }
    let weights = ModuleWeightsConfig {
        weights: Some(vec![1.0, 0.0]),
        ..ModuleWeightsConfig::default()
    };
    let weights = weights.check().unwrap();
    let s = adapter(2, 4, true);
    for granularity in ["tensor", "row", "column"] {
        let strategy = format!("strategy = 'nuslerp'\ngranularity = '{granularity}'");
        let itself = merge(&strategy, &MergeInputs::new(from_ref(&u), &u)).adapter;
        assert!(distance(&itself, &u) <= 1e-6 * norm(&u), "{granularity}");
        let weighted = merge(&strategy, &MergeInputs::new(from_ref(&u), &s).with_weights(&weights)).adapter;
        assert!(distance(&weighted, &u) <= 1e-6 * norm(&u), "{granularity}");
    }
}

#[test]
fn order_and_copies_do_not_matter_to_an_election() {
    let [x, y, s] = [(1, 3), (2, 4), (3, 2)].map(|(seed, r)| adapter(seed, r, true));
    for convention in ["paper", "mergekit", "peft"] {
        for sign in ["total", "frequency"] {
            let strategy = format!(
                "strategy = 'ties'\ndensity = 0.4\nmajority_sign = '{sign}'\nconvention = '{convention}'\nrank = 8"
            );
            let of = |utilities: &[Adapter], safety: &Adapter| {
                merge(&strategy, &MergeInputs::new(utilities, safety)).adapter
            };
            let forth = of(&[x.clone(), y.clone()], &s);
            let back = of(&[s.clone(), y.clone()], &x);
            assert!(distance(&forth, &back) <= 32.0 * EPS * norm(&forth), "{strategy}");
            // A mean over copies is the mean; a trimmed copy agrees with itself.
            let twice = of(&[x.clone(), x.clone(), s.clone()], &s);
            let once = of(from_ref(&x), &s);
            assert!(distance(&twice, &once) <= 32.0 * EPS * norm(&once), "{strategy}");
        }
    }
}

#[test]
fn masks_depend_on_the_seed_and_on_nothing_else() {
    let (u, s) = (adapter(1, 3, true), adapter(2, 4, true));
    for strategy in ["strategy = 'dare'", "strategy = 'dare-ties'", "strategy = 'della'"] {
        let with = |seed| merge(strategy, &MergeInputs::new(from_ref(&u), &s).with_seed(seed));
        let (first, again, other) = (with(1), with(1), with(2));
        assert_eq!(first, again);
        assert!(distance(&first.adapter, &other.adapter) > 0.1 * norm(&u), "{strategy}");
        // A module that is left out changes no other module's mask.
        let config: ModuleWeightsConfig = toml::from_str("[[module]]\nmatch = 'q_proj'\nskip = true").unwrap();
        let weights = config.check().unwrap();
        let fewer = merge(
            strategy,
            &MergeInputs::new(from_ref(&u), &s).with_seed(1).with_weights(&weights),
        )
        .adapter;
        assert_eq!(fewer.modules.len(), 2);
        for (path, module) in &fewer.modules {
            assert_eq!(module.delta(), first.adapter.modules[path].delta(), "{strategy} {path}");
        }
    }
}

#[test]
fn dare_keeps_the_expectation() {
    // The mean over seeds tends to the sum; each entry's standard error is |x| sqrt((1 - d) / d / seeds).
    let (u, s) = (adapter(1, 3, false), adapter(2, 3, false).zeros_like());
    let (seeds, density) = (400, 0.5f64);
    for strategy in [
        "strategy = 'dare'",
        "strategy = 'della'\nmajority_sign = 'none'\nepsilon = 0.0",
    ] {
        let strategy = format!("{strategy}\ndensity = {density}\nrank = 8");
        let path = ModulePath::new("model.layers.0.self_attn.v_proj");
        let mut mean = Array2::<f64>::zeros((4, 8));
        for seed in 0..seeds {
            let merged = merge(&strategy, &MergeInputs::new(from_ref(&u), &s).with_seed(seed)).adapter;
            mean = mean + merged.modules[&path].delta().mapv(f64::from) / seeds as f64;
        }
        for (mean, x) in mean.iter().zip(u.modules[&path].delta()) {
            let error = f64::from(x.abs()) * ((1.0 - density) / density / seeds as f64).sqrt();
            assert!((mean - f64::from(x)).abs() <= 5.0 * error, "{strategy}: {mean} {x}");
        }
    }
}

#[test]
fn the_cut_off_rank_is_reported() {
    let (u, s) = (adapter(1, 2, true), adapter(2, 2, true));
    let inputs = MergeInputs::new(from_ref(&u), &s);
    let full = merge("strategy = 'ties'\nrank = 8", &inputs);
    let mut last = 0.0;
    for rank in (1..=7).rev() {
        let cut = merge(&format!("strategy = 'ties'\nrank = {rank}"), &inputs);
        let output = cut.diagnostics.output.unwrap();
        assert_eq!(output.rank_max, rank);
        let want = distance(&cut.adapter, &full.adapter) / norm(&full.adapter);
        assert!(
            (output.relative_error - want).abs() <= 32.0 * EPS,
            "{rank}: {output:?} {want}"
        );
        assert!(output.relative_error > last, "{rank}: {output:?}");
        last = output.relative_error;
    }
    let default = merge("strategy = 'ties'", &inputs).diagnostics.output.unwrap();
    assert_eq!(default.rank_max, 4);
}

#[test]
fn zeros_and_missing_modules_merge() {
    let (u, part) = (adapter(1, 3, true), adapter(2, 3, false));
    let zero = u.zeros_like();
    let missing = ModulePath::new("lm_head");
    for name in ["ties", "dare", "dare-ties", "della", "breadcrumbs", "slerp", "nuslerp"] {
        // Of a rank that holds all: the default counts the ranks of the adapters that have the module.
        let strategy = format!("strategy = '{name}'\nrank = 8");
        let nothing = merge(&strategy, &MergeInputs::new(from_ref(&zero), &zero));
        assert_eq!(norm(&nothing.adapter), 0.0, "{name}");
        assert_eq!(nothing.diagnostics.output.unwrap().relative_error, 0.0, "{name}");
        // A module that S lacks is one where S is zero.
        let mut filled = part.clone();
        let module = zero.modules[&missing].clone();
        filled.config.use_rslora = part.config.use_rslora;
        filled.modules.insert(
            missing.clone(),
            sst_merge::LoraModule {
                rslora: part.config.use_rslora,
                ..module
            },
        );
        filled.check().unwrap();
        let lacking = merge(&strategy, &MergeInputs::new(from_ref(&u), &part)).adapter;
        let with_zeros = merge(&strategy, &MergeInputs::new(from_ref(&u), &filled)).adapter;
        assert!(lacking.modules.contains_key(&missing), "{name}");
        assert!(distance(&lacking, &with_zeros) <= 32.0 * EPS * norm(&lacking), "{name}");
    }
}

#[test]
fn the_arc_keeps_the_norm_that_the_chord_loses() {
    // Two changes of one norm: every point of the arc has that norm too.
    let u = adapter(1, 3, false);
    let mut s = adapter(2, 3, false);
    let s_modules: Vec<ModulePath> = s.modules.keys().cloned().collect();
    for path in s_modules {
        let size = |adapter: &Adapter| {
            adapter.modules[&path]
                .delta()
                .iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let ratio = (size(&u) / size(&s)) as f32;
        s.modules.get_mut(&path).unwrap().b.mapv_inplace(|x| x * ratio);
    }
    for t in [0.2, 0.5, 0.9] {
        let merged = merge(
            &format!("strategy = 'slerp'\nt = {t}"),
            &MergeInputs::new(from_ref(&u), &s),
        )
        .adapter;
        assert!((norm(&merged) - norm(&u)).abs() <= 32.0 * EPS * norm(&u), "{t}");
    }
    // With itself turned around, where no arc is defined, the chord.
    let mut opposite = u.clone();
    opposite
        .modules
        .values_mut()
        .for_each(|module| module.b.mapv_inplace(|x| -0.3 * x));
    for name in ["slerp", "nuslerp"] {
        let merged = merge(
            &format!("strategy = '{name}'"),
            &MergeInputs::new(from_ref(&u), &opposite),
        )
        .adapter;
        assert!((norm(&merged) - 0.35 * norm(&u)).abs() <= 1e-6 * norm(&u), "{name}");
    }
}

#[test]
fn factors_of_other_ranks_are_refused_by_name() {
    let (u, s) = (adapter(1, 3, true), adapter(2, 4, true));
    let config: StrategyConfig = toml::from_str("strategy = 'ties'\nspace = 'factors'").unwrap();
    let error = config
        .check()
        .unwrap()
        .merge(&MergeInputs::new(from_ref(&u), &s))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor model.layers.0.self_attn.q_proj.lora_A is [3, 8] in the utility adapter but [4, 8] in the safety adapter"
    );
}

#[test]
fn settings_out_of_range_are_named() {
    for (strategy, word) in [
        ("strategy = 'ties'\ndensity = 0.0", "ties: `density` = 0"),
        ("strategy = 'dare'\ndensity = 1.5", "dare: `density` = 1.5"),
        ("strategy = 'dare-ties'\nlambda = inf", "dare-ties: `lambda` = inf"),
        ("strategy = 'breadcrumbs'\ngamma = nan", "breadcrumbs: `gamma` = NaN"),
        ("strategy = 'della'\nrank = 0", "della: `rank` = 0"),
    ] {
        let config: StrategyConfig = toml::from_str(strategy).unwrap();
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
    let message = toml::from_str::<StrategyConfig>("strategy = 'slerp'\ndensity = 1.0")
        .unwrap_err()
        .to_string();
    assert!(message.contains("density"), "{message}");
}
