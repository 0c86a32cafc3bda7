//! Recipes, and the errors of settings and inputs.

use super::trial::{MODULES, Trial, adapter, fishers};
use sst_merge::{
    Array2, Error, Estimator, FisherMeta, GammaOverride, KroneckerFactors, KroneckerFisher, MergeInputs, MergeStrategy,
    ModulePath, ModuleWeightsConfig, SafetyDelta, Sides, SstConfig, Statistics, StrategyConfig, SubspaceError,
    Weighting,
};
use std::collections::BTreeMap;

#[test]
fn recipes_are_toml() {
    let text = "strategy = \"sst\"\nweighting = { hard = { k = 9 } }\nsides = \"both\"\ndelta = \"safety\"\n";
    let config = SstConfig {
        weighting: Weighting::Hard { k: 9 },
        sides: Sides::Both,
        delta: SafetyDelta::Safety,
        ..SstConfig::default()
    };
    assert_eq!(
        toml::from_str::<StrategyConfig>(text).unwrap(),
        StrategyConfig::Sst(config)
    );
    let text = "strategy = \"sst\"\ngamma = 0.5\n[[gammas]]\nmatch = \"mlp\"\nlayers = [0, 1]\ngamma = 0.1\n";
    let config = toml::from_str::<StrategyConfig>(text).unwrap();
    let again = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<StrategyConfig>(&again).unwrap(), config);
    for (text, word) in [
        ("strategy = \"sst\"\ngama = 1.0", "gama"),
        (
            "strategy = \"sst\"\nweighting = { hard = { k = 1, gamma = 1.0 } }",
            "gamma",
        ),
        ("strategy = \"sst\"\nsides = \"output\"", "output"),
        ("strategy = \"sst\"\n[[gammas]]\ngamma = 1.0\nlayer = 3", "layer"),
    ] {
        let message = toml::from_str::<StrategyConfig>(text).unwrap_err().to_string();
        assert!(message.contains(word), "{text}: {message}");
    }
}

#[test]
fn bad_settings_are_named() {
    let message = |config: SstConfig| config.check().unwrap_err().to_string();
    let usual = SstConfig::default;
    for gamma in [f64::NAN, f64::INFINITY, -0.1] {
        assert!(message(SstConfig { gamma, ..usual() }).contains("`gamma`"));
        let ridge = gamma;
        assert!(message(SstConfig { ridge, ..usual() }).contains("`ridge`"));
        let gammas = vec![GammaOverride {
            pattern: Some("q".into()),
            layers: None,
            gamma,
        }];
        assert!(message(SstConfig { gammas, ..usual() }).contains("`gamma`"));
    }
    let gammas = |pattern: Option<&str>| {
        vec![GammaOverride {
            pattern: pattern.map(str::to_owned),
            layers: None,
            gamma: 1.0,
        }]
    };
    let of = |pattern| SstConfig {
        gammas: gammas(pattern),
        ..usual()
    };
    assert!(message(of(Some("("))).contains("`gammas`: module entry 1: invalid `match`"));
    assert!(message(of(None)).contains("`gammas`"));
    let hard = |k| SstConfig {
        weighting: Weighting::Hard { k },
        ..usual()
    };
    assert!(message(hard(0)).contains("`k`"));
    let both = SstConfig {
        gammas: gammas(Some("q")),
        ..hard(3)
    };
    assert!(message(both).contains("`soft`"));
    let rank = Some(0);
    assert!(message(SstConfig { rank, ..usual() }).contains("`rank`"));
}

#[test]
fn what_does_not_fit_together_is_named() {
    let trial = Trial::usual();
    let basis = trial.basis(5, Sides::Both);
    let strategy = SstConfig::default().check().unwrap();
    let inputs = MergeInputs::new(&trial.utility, &trial.safety);
    assert!(matches!(
        strategy.merge(&inputs).unwrap_err(),
        Error::NoStatistics { strategy: "sst" }
    ));
    let statistics = trial.statistics();
    let two = inputs.with_statistics(&statistics).with_kronecker_basis(&basis);
    assert!(matches!(strategy.merge(&two).unwrap_err(), Error::TwoSources { .. }));
    let error = trial.with_basis(SstConfig::default(), &basis).unwrap_err();
    assert_eq!(
        error.to_string(),
        "strategy sst: `sides` is input, but the basis was solved for both"
    );
    let more = SstConfig {
        weighting: Weighting::Hard { k: 6 },
        sides: Sides::Both,
        ..SstConfig::default()
    };
    let error = trial.with_basis(more, &basis).unwrap_err();
    assert_eq!(error.to_string(), "k = 6 is not between 1 and 5");

    let dir = tempfile::tempdir().unwrap();
    let fewer = [fishers(&dir, "u", 2, [1.0; 2], 1), fishers(&dir, "s", 2, [1.0; 2], 2)];
    let statistics = Statistics {
        utility: vec![&fewer[0]],
        safety: &fewer[1],
    };
    let error = strategy
        .merge(&inputs.with_statistics(&statistics))
        .unwrap_err()
        .to_string();
    assert!(error.contains("down_proj"), "{error}");

    let wide = KroneckerFactors {
        input: Array2::eye(6),
        output: Array2::eye(7),
    };
    let meta = FisherMeta::new(Estimator::Kron, "response", 0);
    let q = ModulePath::new(MODULES[0].0);
    KroneckerFisher::save(dir.path(), &meta, &[(q.clone(), wide)].into(), BTreeMap::new()).unwrap();
    let wide = KroneckerFisher::load(dir.path()).unwrap();
    let statistics = Statistics {
        utility: vec![&wide],
        safety: &wide,
    };
    let (u, s) = ([adapter(2, 1, 1)], adapter(2, 1, 2));
    let inputs = MergeInputs::new(&u, &s).with_statistics(&statistics);
    let error = strategy.merge(&inputs).unwrap_err();
    assert!(matches!(&error, Error::Subspace(SubspaceError::InModule { module, .. }) if *module == q.to_string()));
    assert!(error.to_string().contains("[7, 6] and [7, 5]"), "{error}");

    let weights = |list: Vec<f64>| {
        let config = ModuleWeightsConfig {
            weights: Some(list),
            modules: Vec::new(),
        };
        let (weights, statistics) = (config.check().unwrap(), trial.statistics());
        let inputs = MergeInputs::new(&trial.utility, &trial.safety).with_statistics(&statistics);
        strategy.merge(&inputs.with_weights(&weights)).unwrap_err().to_string()
    };
    assert!(weights(vec![1.0, -1.0]).contains("must not be negative"));
    assert!(weights(vec![0.0, 1.0]).contains("weight 0"));
}
