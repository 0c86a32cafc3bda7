//! Identities of SST, what it reports, and the errors of inputs that do not fit together.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_merge::{
    Adapter, Array2, Dtype, Error, Estimator, FisherMeta, GammaOverride, KroneckerBasis, KroneckerFactors,
    KroneckerFisher, LoraConfig, Manifest, MergeInputs, MergeRecord, MergeStrategy, Merged, ModulePath,
    ModuleWeightsConfig, SafetyDelta, Sides, SstConfig, SstReport, Statistics, StrategyConfig, SubspaceError,
    Weighting, write_merged,
};
use sst_subspace::KroneckerPair;
use std::collections::BTreeMap;
use tempfile::TempDir;

/// Module, d_out, d_in.
const MODULES: [(&str, usize, usize); 3] = [
    ("model.layers.0.self_attn.q_proj", 7, 5),
    ("model.layers.0.self_attn.v_proj", 4, 5),
    ("model.layers.1.mlp.down_proj", 5, 9),
];
const SINGLE: f64 = f32::EPSILON as f64;

fn draw(rows: usize, cols: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-1.0f32..1.0))
}

/// Of the first `count` modules, with a scale that is not 1.
fn adapter(rank: usize, count: usize, seed: u64) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let modules = &MODULES[..count];
    let config = LoraConfig::new(rank, 5.0, modules.iter().map(|(name, ..)| *name));
    let pairs = modules.iter().map(|(name, d_out, d_in)| {
        let (a, b) = (draw(rank, *d_in, &mut rng), draw(*d_out, rank, &mut rng));
        (ModulePath::new(*name), a, b)
    });
    Adapter::from_pairs(config, pairs).unwrap()
}

fn fishers(dir: &TempDir, name: &str, count: usize, [scale_a, scale_g]: [f64; 2], seed: u64) -> KroneckerFisher {
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

struct Trial {
    utility: Vec<Adapter>,
    safety: Adapter,
    f_utility: Vec<KroneckerFisher>,
    f_safety: KroneckerFisher,
    _dir: TempDir,
}

impl Trial {
    fn new(utility: Vec<Adapter>, safety: Adapter, [scale_u, scale_s]: [[f64; 2]; 2]) -> Self {
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

    fn usual() -> Self {
        Self::new(vec![adapter(2, 3, 1)], adapter(3, 3, 2), [[1.0; 2]; 2])
    }

    fn statistics(&self) -> Statistics<'_> {
        Statistics {
            utility: self.f_utility.iter().collect(),
            safety: &self.f_safety,
        }
    }

    fn run(&self, config: SstConfig) -> Merged {
        let statistics = self.statistics();
        let inputs = MergeInputs::new(&self.utility, &self.safety).with_statistics(&statistics);
        config.check().unwrap().merge(&inputs).unwrap()
    }

    fn with_basis(&self, config: SstConfig, basis: &KroneckerBasis) -> Result<Merged, Error> {
        let inputs = MergeInputs::new(&self.utility, &self.safety).with_kronecker_basis(basis);
        config.check().unwrap().merge(&inputs)
    }

    fn basis(&self, k: usize, sides: Sides) -> KroneckerBasis {
        let pair = KroneckerPair::new(&self.f_safety, self.f_utility.iter().collect()).unwrap();
        pair.basis(k, SstConfig::default().ridge, sides, &mut |_, _| ())
            .unwrap()
    }
}

/// Every weighting on every number of sides; rank 9 cuts nothing off.
fn configs() -> Vec<SstConfig> {
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
fn assert_close(got: &Adapter, want: &Adapter, factor: f64, tolerance: f64) {
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
fn hard_reports_its_directions() {
    let trial = Trial::usual();
    let hard = |k| {
        trial
            .run(SstConfig {
                weighting: Weighting::Hard { k },
                ..SstConfig::default()
            })
            .diagnostics
    };
    let d = hard(7);
    let [first, last] = d.eigenvalues.unwrap();
    let values = trial.basis(7, Sides::Input).eigenvalues();
    assert_eq!((d.k, first, last), (Some(7), values[0], values[6]));
    let report = d.sst.unwrap();
    assert!((report.effective_directions.unwrap() - 7.0).abs() <= 1e-12 && report.curve.is_empty());
    // All directions of the inputs let everything pass, by chance as well.
    let all = hard(19);
    assert!((all.retained_energy.unwrap() - 1.0).abs() <= 1e-9);
    assert!((all.sst.unwrap().random_energy.unwrap() - 1.0).abs() <= 1e-9);
}

#[test]
fn the_curve_predicts_the_merges_at_other_gammas() {
    let trial = Trial::usual();
    for sides in [Sides::Input, Sides::Both] {
        let config = SstConfig {
            sides,
            ..SstConfig::default()
        };
        let report = trial.run(config.clone()).diagnostics.sst.unwrap();
        assert_eq!(report.curve.len(), 7);
        for point in &report.curve {
            let other = SstConfig {
                gamma: point.multiple * config.gamma,
                ..config.clone()
            };
            let tradeoff = trial.run(other).diagnostics.sst.unwrap().tradeoff.unwrap();
            for (x, y) in [
                (point.tradeoff.utility, tradeoff.utility),
                (point.tradeoff.safety, tradeoff.safety),
                (point.tradeoff.utility_of_target, tradeoff.utility_of_target),
                (point.tradeoff.safety_of_utility, tradeoff.safety_of_utility),
            ] {
                assert!((x - y).abs() <= 1e-9 * y, "{x:e} {y:e}");
            }
        }
        for pair in report.curve.windows(2) {
            let [one, two] = [pair[0].tradeoff, pair[1].tradeoff];
            assert!(one.utility < two.utility && one.safety > two.safety);
        }
    }
    let blind = SstConfig {
        spectrum: Some(false),
        ..SstConfig::default()
    };
    let (blind, seeing) = (trial.run(blind), trial.run(SstConfig::default()));
    assert_eq!(blind.adapter, seeing.adapter);
    let report = blind.diagnostics.sst.unwrap();
    assert!(report.curve.is_empty() && report.effective_directions.is_none() && report.random_energy.is_none());
    assert_eq!(report.tradeoff, seeing.diagnostics.sst.unwrap().tradeoff);
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

#[test]
fn the_folder_says_what_was_reported() {
    let trial = Trial::usual();
    let strategy = SstConfig::default().check().unwrap();
    let merged = trial.run(SstConfig::default());
    let record = MergeRecord {
        recipe: strategy.config(),
        inputs: BTreeMap::new(),
        command: String::new(),
        dtype: Dtype::F32,
    };
    let dir = tempfile::tempdir().unwrap();
    write_merged(dir.path(), &merged, &record).unwrap();
    let manifest = Manifest::read(dir.path()).unwrap();
    let report: SstReport = serde_json::from_value(manifest.facts["diagnostics"]["sst"].clone()).unwrap();
    assert_eq!(Some(&report), merged.diagnostics.sst.as_ref());
    let config: StrategyConfig = serde_json::from_value(manifest.config).unwrap();
    assert_eq!(config, StrategyConfig::Sst(SstConfig::default()));
    let readme = std::fs::read_to_string(dir.path().join("README.md")).unwrap();
    let tradeoff = report.tradeoff.unwrap();
    let left = format!("{:.2} %", 100.0 * tradeoff.safety / tradeoff.safety_of_utility);
    for words in [
        left.as_str(),
        "effective number of directions",
        "utility loss, predicted",
    ] {
        assert!(readme.contains(words), "{words} is not in\n{readme}");
    }
    assert_eq!(Adapter::load(dir.path()).unwrap(), merged.adapter);
}

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
