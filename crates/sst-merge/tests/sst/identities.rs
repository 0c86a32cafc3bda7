//! Identities that hold for every adapter and every statistic.

use super::trial::{MODULES, SINGLE, Trial, adapter, assert_close, configs};
use sst_merge::{
    Adapter, GammaOverride, MergeInputs, MergeStrategy, ModulePath, ModuleWeightsConfig, SafetyDelta, Sides, SstConfig,
    Statistics, Weighting,
};

#[test]
fn a_single_adapter_comes_back() {
    let u = adapter(2, 3, 1);
    let nothing = Trial::new(vec![u.clone()], u.zeros_like(), [[1.0; 2]; 2]);
    let itself = Trial::new(vec![u.clone()], u.clone(), [[1.0; 2]; 2]);
    for config in configs() {
        let added = SstConfig {
            delta: SafetyDelta::Safety,
            ..config.clone()
        };
        assert_close(&nothing.run(added).adapter, &u, 1.0, 4.0 * SINGLE);
        assert_close(&itself.run(config).adapter, &u, 1.0, 4.0 * SINGLE);
    }
    let trial = Trial::usual();
    for sides in [Sides::Input, Sides::Both] {
        let config = SstConfig {
            gamma: 0.0,
            sides,
            ..SstConfig::default()
        };
        let merged = trial.run(config);
        assert_close(&merged.adapter, &trial.utility[0], 1.0, 4.0 * SINGLE);
        assert_eq!(merged.diagnostics.retained_energy, Some(0.0));
    }
}

#[test]
fn a_large_gamma_leads_to_the_target() {
    let trial = Trial::usual();
    for sides in [Sides::Input, Sides::Both] {
        let config = SstConfig {
            gamma: 1e12,
            sides,
            rank: Some(9),
            ..SstConfig::default()
        };
        let merged = trial.run(config.clone());
        assert_close(&merged.adapter, &trial.safety, 1.0, 1e-5);
        let added = SstConfig {
            delta: SafetyDelta::Safety,
            ..config
        };
        let sum = Adapter::sum(&[(1.0, &trial.utility[0]), (1.0, &trial.safety)]).unwrap();
        assert_close(&trial.run(added).adapter, &sum, 1.0, 1e-5);
    }
}

#[test]
fn the_input_side_has_exactly_the_sum_of_the_ranks() {
    let trial = Trial::usual();
    let merged = trial.run(SstConfig::default());
    assert!(merged.adapter.modules.values().all(|module| module.rank() == 5));
    let output = merged.diagnostics.output.unwrap();
    assert_eq!((output.rank_max, output.relative_error), (5, 0.0));
    let config = SstConfig {
        rank: Some(2),
        ..SstConfig::default()
    };
    let cut = trial.run(config);
    assert!(cut.adapter.modules.values().all(|module| module.rank() == 2));
    let (whole, small) = (merged.adapter.low_rank(), cut.adapter.low_rank());
    let (mut lost, mut energy) = (0.0, 0.0);
    for (path, m) in &whole {
        let gap = m.dense() - small[path].dense();
        lost += gap.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        energy += m.norm().powi(2);
    }
    let error = cut.diagnostics.output.unwrap().relative_error;
    assert!(
        (error - (lost / energy).sqrt()).abs() <= 1e-5 * error && error > 0.01,
        "{error}"
    );
}

#[test]
fn only_ratios_of_the_statistics_matter() {
    let trial = Trial::usual();
    let scaled = |scales| Trial::new(trial.utility.clone(), trial.safety.clone(), scales);
    // The f32 of a scaled factor is not the scaled f32; powers of 2 keep them equal.
    for config in configs() {
        let want = trial.run(config.clone()).adapter;
        let got = scaled([[8.0, 0.25], [8.0, 0.25]]).run(config.clone()).adapter;
        assert_close(&got, &want, 1.0, 1e-5);
        let times_16 = match config.sides {
            Sides::Input => [16.0, 1.0],
            Sides::Both => [64.0, 0.25],
        };
        let weaker = SstConfig {
            gamma: config.gamma / 16.0,
            ..config
        };
        assert_close(&scaled([[1.0; 2], times_16]).run(weaker).adapter, &want, 1.0, 1e-5);
    }
}

#[test]
fn the_merge_is_linear_in_the_adapters() {
    let trial = Trial::usual();
    let scale = |adapter: &Adapter| Adapter::sum(&[(-3.0, adapter)]).unwrap();
    let scaled = Trial::new(vec![scale(&trial.utility[0])], scale(&trial.safety), [[1.0; 2]; 2]);
    for config in configs() {
        let (got, want) = (scaled.run(config.clone()), trial.run(config));
        assert_close(&got.adapter, &want.adapter, -3.0, 1e-5);
        let energies = [got, want].map(|merged| merged.diagnostics.retained_energy.unwrap());
        assert!((energies[0] - energies[1]).abs() <= 1e-5 * energies[1]);
    }
}

#[test]
fn utility_adapters_count_as_their_mean_in_any_order() {
    let (u, v, s) = (adapter(2, 3, 1), adapter(1, 3, 7), adapter(3, 3, 2));
    let one = Trial::usual();
    let f = &one.f_utility[0];
    let run = |utilities: &[Adapter], config: &SstConfig, weights: Option<Vec<f64>>| {
        let statistics = Statistics {
            utility: vec![f; utilities.len()],
            safety: &one.f_safety,
        };
        let weights = weights.map(|weights| ModuleWeightsConfig {
            weights: Some(weights),
            modules: Vec::new(),
        });
        let weights = weights.map(|config| config.check().unwrap());
        let inputs = MergeInputs::new(utilities, &s).with_statistics(&statistics);
        let inputs = weights.as_ref().map_or(inputs, |weights| inputs.with_weights(weights));
        config.clone().check().unwrap().merge(&inputs).unwrap().adapter
    };
    for config in configs() {
        let single = run(std::slice::from_ref(&u), &config, None);
        assert_close(&run(&[u.clone(), u.clone()], &config, None), &single, 1.0, 1e-5);
        let pair = run(&[u.clone(), v.clone()], &config, None);
        assert_close(&run(&[v.clone(), u.clone()], &config, None), &pair, 1.0, 1e-5);
        let mean = Adapter::sum(&[(0.25, &u), (0.75, &v)]).unwrap();
        let weighted = run(&[u.clone(), v.clone()], &config, Some(vec![0.5, 1.5, 1.0]));
        assert_close(&weighted, &run(&[mean], &config, None), 1.0, 1e-5);
    }
    // The weight of the safety loss over that of the utility losses is a factor of gamma.
    let double = SstConfig {
        gamma: 0.6,
        ..SstConfig::default()
    };
    let u = std::slice::from_ref(&u);
    let want = run(u, &double, None);
    assert_close(&run(u, &SstConfig::default(), Some(vec![1.0, 2.0])), &want, 1.0, 1e-6);
    assert_close(&run(u, &SstConfig::default(), Some(vec![0.5, 1.0])), &want, 1.0, 1e-6);
}

#[test]
fn a_basis_stands_in_for_the_statistics() {
    let trial = Trial::usual();
    for (sides, all, k) in [(Sides::Input, 19, 7), (Sides::Both, 100, 23)] {
        let hard = SstConfig {
            weighting: Weighting::Hard { k },
            sides,
            rank: Some(9),
            ..SstConfig::default()
        };
        let soft = SstConfig {
            weighting: Weighting::Soft,
            ..hard.clone()
        };
        let basis = trial.basis(all, sides);
        for config in [hard, soft] {
            let (got, want) = (trial.with_basis(config.clone(), &basis).unwrap(), trial.run(config));
            assert_close(&got.adapter, &want.adapter, 1.0, 1e-5);
            let [got, want] = [got, want].map(|merged| merged.diagnostics);
            let energies = got.retained_energy.zip(want.retained_energy).unwrap();
            assert!((energies.0 - energies.1).abs() <= 1e-9 * energies.1, "{energies:?}");
            let (got, want) = (got.sst.unwrap(), want.sst.unwrap());
            let directions = got.effective_directions.zip(want.effective_directions).unwrap();
            assert!(
                (directions.0 - directions.1).abs() <= 1e-9 * directions.1,
                "{directions:?}"
            );
            assert!(got.tradeoff.is_none() && want.tradeoff.is_some());
        }
    }
}

#[test]
fn every_module_may_have_its_gamma() {
    let trial = Trial::usual();
    let entry = |pattern: &str, gamma| GammaOverride {
        pattern: Some(pattern.to_owned()),
        layers: None,
        gamma,
    };
    let mixed = trial.run(SstConfig {
        gammas: vec![entry("self_attn", 2.0), entry("v_proj", 5.0)],
        ..SstConfig::default()
    });
    let modules = &mixed.diagnostics.sst.as_ref().unwrap().modules;
    for ((path, module), gamma) in modules.iter().zip([2.0, 5.0, 0.3]) {
        assert_eq!(module.gamma, Some(gamma));
        let plain = SstConfig {
            gamma,
            ..SstConfig::default()
        };
        assert_eq!(
            mixed.adapter.modules[path].delta(),
            trial.run(plain).adapter.modules[path].delta()
        );
    }
}

#[test]
fn a_module_that_one_adapter_lacks_is_a_zero_change_there() {
    let [q, v, down] = MODULES.map(|(name, ..)| ModulePath::new(name));
    let (fewer, more) = (adapter(2, 2, 1), adapter(3, 3, 2));
    for config in configs() {
        let config = SstConfig { rank: None, ..config };
        let trial = Trial::new(vec![fewer.clone()], more.clone(), [[1.0; 2]; 2]);
        let merged = trial.run(config.clone());
        assert_eq!(merged.adapter.modules.keys().collect::<Vec<_>>(), [&q, &v, &down]);
        let report = merged.diagnostics.sst.unwrap();
        // M = P S there: of the norm that is reported as kept.
        let kept = report.modules[&down].retained_energy.unwrap() * more.low_rank()[&down].norm().powi(2);
        let norm = merged.adapter.low_rank()[&down].norm().powi(2);
        let whole = config.sides == Sides::Input;
        assert!(
            norm <= kept * (1.0 + 1e-5) && (!whole || norm >= kept * (1.0 - 1e-5)),
            "{norm} {kept}"
        );

        let trial = Trial::new(vec![more.clone()], fewer.clone(), [[1.0; 2]; 2]);
        let added = SstConfig {
            delta: SafetyDelta::Safety,
            ..config
        };
        let merged = trial.run(added).adapter;
        let (got, want) = (merged.modules[&down].delta(), more.modules[&down].delta());
        assert!(got.iter().zip(&want).all(|(x, y)| (x - y).abs() <= 1e-5), "U alone");
    }
}

#[test]
fn skipped_modules_are_left_out() {
    let trial = Trial::usual();
    let text = "[[module]]\nmatch = 'v_proj'\nskip = true";
    let weights = toml::from_str::<ModuleWeightsConfig>(text).unwrap().check().unwrap();
    let statistics = trial.statistics();
    let inputs = MergeInputs::new(&trial.utility, &trial.safety).with_statistics(&statistics);
    let strategy = SstConfig {
        weighting: Weighting::Hard { k: 14 }, // of the 5 + 9 inputs that are left
        ..SstConfig::default()
    };
    let strategy = strategy.check().unwrap();
    let merged = strategy.merge(&inputs.with_weights(&weights)).unwrap();
    assert_eq!(merged.adapter.modules.len(), 2);
    assert_eq!(merged.diagnostics.k, Some(14));
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let trial = Trial::usual();
    for config in configs() {
        assert_eq!(trial.run(config.clone()), trial.run(config));
    }
}
