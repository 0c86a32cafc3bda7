//! Identities that hold for every adapter, and the errors of those that do not fit together.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_merge::{
    Adapter, Array2, DiagonalFisher, Error, Estimator, FisherMeta, LoraConfig, MergeInputs, MergeStrategy, Merged,
    Mode, PhiBasis, Preset, Projection, RATIO_EPS, SampleBasis, SampleDirections, Selection, V1Config, V2Config, gevp,
};
use std::collections::BTreeMap;

/// Non-square modules of rank 3 (one of rank 2) with scale 5/3 (one of 5/2).
fn adapter(seed: u64) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |rows, cols| Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-1.0f32..1.0));
    let mut config = LoraConfig::new(3, 5.0, ["q_proj", "v_proj", "down_proj", "lm_head"]);
    config.rank_pattern.insert("v_proj".into(), 2);
    let pairs = [
        ("model.layers.0.self_attn.q_proj".into(), draw(3, 5), draw(7, 3)),
        ("model.layers.0.self_attn.v_proj".into(), draw(2, 5), draw(4, 2)),
        ("model.layers.1.mlp.down_proj".into(), draw(3, 9), draw(5, 3)),
        ("lm_head".into(), draw(3, 5), draw(11, 3)),
    ];
    Adapter::from_pairs(config, pairs).unwrap()
}

fn fisher(like: &Adapter, seed: u64) -> DiagonalFisher {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let layout = like.layout();
    let values = (0..layout.len())
        .map(|_| 10f32.powf(rng.random_range(-9.0..-2.0)))
        .collect();
    DiagonalFisher::new(
        layout,
        values,
        FisherMeta::new(Estimator::DiagVariance, "response", seed),
    )
    .unwrap()
}

struct Trial {
    u: Adapter,
    s: Adapter,
    basis: PhiBasis,
    n: usize,
}

/// As many dense directions as each module has parameters, so that every k is a truncation.
fn dense_basis(like: &Adapter, seed: u64) -> SampleBasis {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let layout = like.layout();
    let mut sizes = BTreeMap::new();
    for slot in layout.slots() {
        *sizes.entry(slot.module()).or_insert(0) += slot.len();
    }
    let modules = sizes.into_iter().map(|(module, n)| {
        let mut eigenvalues: Vec<f64> = (0..n).map(|_| 10f64.powf(rng.random_range(-3.0..3.0))).collect();
        eigenvalues.sort_by(|x, y| y.total_cmp(x));
        let vectors = Array2::from_shape_simple_fn((n, n), || rng.random_range(-1.0..1.0));
        (module, SampleDirections { eigenvalues, vectors })
    });
    let modules = modules.collect();
    SampleBasis::new(layout, modules, Selection::Random { seed }).unwrap()
}

/// Both kinds of basis in turn.
fn trials() -> impl Iterator<Item = Trial> {
    (0..12).flat_map(|seed| {
        let (u, s) = (adapter(seed), adapter(seed + 100));
        let n = u.layout().len();
        let diagonal = gevp::diagonal(&fisher(&s, seed + 200), &fisher(&u, seed + 300), n, RATIO_EPS).unwrap();
        let dense = dense_basis(&u, seed + 400);
        [diagonal.into(), dense.into()].map(|basis| Trial {
            u: u.clone(),
            s: s.clone(),
            basis,
            n,
        })
    })
}

impl Trial {
    fn projections(&self) -> &'static [Projection] {
        match self.basis {
            PhiBasis::Coordinates(_) => &[Projection::Aligned, Projection::Prefix],
            PhiBasis::Samples(_) => &[Projection::Aligned],
        }
    }

    fn run(&self, strategy: &dyn MergeStrategy) -> Merged {
        let utilities = std::slice::from_ref(&self.u);
        strategy
            .merge(&MergeInputs::new(utilities, &self.s).with_basis(&self.basis))
            .unwrap()
    }

    fn v1(&self, k: usize, alpha: f64, projection: Projection) -> Vec<f32> {
        self.run(&V1Config { k, alpha, projection }.check().unwrap())
            .adapter
            .to_flat()
    }

    fn v2(&self, k: usize, weight: f64, mode: Mode, projection: Projection) -> Vec<f32> {
        self.run(
            &V2Config {
                k,
                weight,
                mode,
                projection,
            }
            .check()
            .unwrap(),
        )
        .adapter
        .to_flat()
    }
}

/// Equal up to a few roundings of f32 at the magnitude of the entries.
fn assert_close(got: &[f32], want: impl IntoIterator<Item = f64>) {
    let mut count = 0;
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let gap = (f64::from(*got) - want).abs();
        assert!(
            gap <= 4.0 * f64::from(f32::EPSILON) * want.abs().max(1.0),
            "entry {i}: {got} {want}"
        );
        count += 1;
    }
    assert_eq!(count, got.len());
}

#[test]
fn at_weight_one_v1_is_v2_to_the_bit() {
    for trial in trials() {
        for &projection in trial.projections() {
            for k in [1, 7, 40, trial.n] {
                let (v1, v2) = (
                    trial.v1(k, 1.0, projection),
                    trial.v2(k, 1.0, Mode::Projected, projection),
                );
                assert!(v1.iter().zip(&v2).all(|(x, y)| x.to_bits() == y.to_bits()));
            }
        }
    }
}

#[test]
fn v1_is_alpha_times_v2_at_weight_one() {
    for trial in trials() {
        for alpha in [0.5, 0.8, -1.3] {
            let v2 = trial.v2(9, 1.0, Mode::Projected, Projection::Aligned);
            assert_close(
                &trial.v1(9, alpha, Projection::Aligned),
                v2.iter().map(|x| alpha * f64::from(*x)),
            );
        }
    }
}

#[test]
fn keeping_every_direction_is_plain_addition() {
    for trial in trials() {
        let (u, s) = (trial.u.to_flat(), trial.s.to_flat());
        for (&projection, weight) in trial.projections().iter().zip([0.7, 1.4]) {
            let sum = u.iter().zip(&s).map(|(u, s)| f64::from(*u) + weight * f64::from(*s));
            assert_close(&trial.v2(trial.n, weight, Mode::Projected, projection), sum);
        }
        let direct = trial.v2(1, 0.7, Mode::Direct, Projection::Aligned);
        let all = trial.v2(trial.n, 0.7, Mode::Projected, Projection::Aligned);
        match trial.basis {
            PhiBasis::Coordinates(_) => assert_eq!(all, direct),
            PhiBasis::Samples(_) => assert_close(&all, direct.iter().map(|x| f64::from(*x))),
        }
    }
}

#[test]
fn the_ends_of_every_mode_are_the_other_modes() {
    for trial in trials() {
        for &projection in trial.projections() {
            let run = |mode| trial.v2(11, 0.9, mode, projection);
            assert_eq!(run(Mode::Residual { r: 0.0 }), run(Mode::Projected));
            assert_eq!(run(Mode::Residual { r: 1.0 }), run(Mode::Direct));
            // A residual lies between its ends in the same proportion everywhere.
            let (projected, direct) = (run(Mode::Projected), run(Mode::Direct));
            let between = projected
                .iter()
                .zip(&direct)
                .map(|(p, d)| 0.3 * f64::from(*p) + 0.7 * f64::from(*d));
            assert_close(&run(Mode::Residual { r: 0.7 }), between);
        }
    }
}

#[test]
fn layerwise_mixes_each_module_by_its_own_strength() {
    for trial in trials() {
        for preset in [
            Preset::Balanced,
            Preset::SafetyFirst,
            Preset::UtilityFirst,
            Preset::Minimal,
        ] {
            let run = |mode| trial.v2(30, 1.0, mode, Projection::Aligned);
            let (projected, direct) = (run(Mode::Projected), run(Mode::Direct));
            let layout = trial.u.layout();
            let between = layout.slots().iter().flat_map(|slot| {
                let t = preset.strengths().of(&slot.module());
                slot.range().map(move |i| (i, t))
            });
            let between = between.map(|(i, t)| (1.0 - t) * f64::from(direct[i]) + t * f64::from(projected[i]));
            assert_close(&run(Mode::Layerwise { preset }), between);
        }
    }
}

#[test]
fn a_single_adapter_comes_back() {
    for trial in trials() {
        let zeros = Trial {
            s: trial.s.zeros_like(),
            ..trial
        };
        assert_eq!(zeros.v1(5, 1.0, Projection::Aligned), zeros.u.to_flat());
        assert_eq!(
            zeros.v2(5, 0.4, Mode::Residual { r: 0.7 }, *zeros.projections().last().unwrap()),
            zeros.u.to_flat()
        );
        assert_eq!(zeros.v2(5, 0.0, Mode::Direct, Projection::Aligned), zeros.u.to_flat());
    }
}

#[test]
fn several_utility_adapters_count_as_their_mean() {
    let trial = trials().next().unwrap();
    let utilities = [trial.u.clone(), adapter(77), adapter(78)];
    let phis: Vec<Vec<f32>> = utilities.iter().map(Adapter::to_flat).collect();
    let mean: Vec<f32> = (0..trial.n)
        .map(|i| (phis.iter().map(|phi| f64::from(phi[i])).sum::<f64>() / 3.0) as f32)
        .collect();
    let strategy = V2Config {
        k: 8,
        ..V2Config::default()
    }
    .check()
    .unwrap();
    let together = strategy
        .merge(&MergeInputs::new(&utilities, &trial.s).with_basis(&trial.basis))
        .unwrap();
    let single = Trial {
        u: trial.u.with_flat(&mean).unwrap(),
        ..trial
    };
    assert_eq!(together.adapter, single.run(&strategy).adapter);
}

#[test]
fn diagnostics_are_what_they_say() {
    for trial in trials() {
        let merged = trial.run(
            &V2Config {
                k: 20,
                weight: 0.5,
                ..V2Config::default()
            }
            .check()
            .unwrap(),
        );
        let d = merged.diagnostics;
        let norm = |phi: &[f32]| phi.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let (u, s, m) = (trial.u.to_flat(), trial.s.to_flat(), merged.adapter.to_flat());
        let close = |x: f64, y: f64| assert!((x - y).abs() <= 1e-6 * y.abs(), "{x} {y}");
        close(d.norm_utility, norm(&u));
        close(d.norm_safety, norm(&s));
        close(d.norm_merged, norm(&m));
        // P is an orthogonal projection: ||P S||^2 is the retained share of ||S||^2, and M - U = w P S.
        close(
            d.norm_safety_used.unwrap().powi(2),
            d.retained_energy.unwrap() * norm(&s).powi(2),
        );
        close(d.relative_change.unwrap(), 0.5 * d.norm_safety_used.unwrap() / norm(&u));
        let control = d.random_control.unwrap();
        assert!(control.k == 20 && control.retained_energy > 0.0 && control.retained_energy < 1.0);
        assert_eq!(
            d.eigenvalues,
            Some([trial.basis.eigenvalues()[0], trial.basis.eigenvalues()[19]])
        );
        let json = serde_json::to_string(&trial.run(&V1Config::default().check().unwrap()).diagnostics).unwrap();
        assert!(json.contains("\"projection\":\"aligned\""), "{json}");
    }
}

#[test]
fn what_does_not_fit_together_is_named() {
    let trial = trials().next().unwrap();
    let strategy = V2Config::default().check().unwrap();
    let utilities = [trial.u.clone()];
    let attempt = |utilities: &[Adapter], safety: &Adapter, basis: Option<&PhiBasis>| {
        let inputs = MergeInputs::new(utilities, safety);
        let inputs = basis.map_or(inputs, |basis| inputs.with_basis(basis));
        strategy.merge(&inputs).unwrap_err()
    };
    assert!(matches!(attempt(&[], &trial.s, Some(&trial.basis)), Error::NoUtility));
    assert!(matches!(
        attempt(&utilities, &trial.s, None),
        Error::NoBasis { strategy: "v2" }
    ));

    let mut wide = LoraConfig::new(4, 5.0, ["q_proj"]);
    let pair = |r| {
        (
            "model.layers.0.self_attn.q_proj".into(),
            Array2::ones((r, 5)),
            Array2::ones((7, r)),
        )
    };
    let rank_4 = Adapter::from_pairs(wide.clone(), [pair(4)]).unwrap();
    wide.r = 3;
    let rank_3 = Adapter::from_pairs(wide.clone(), [pair(3)]).unwrap();
    let message = attempt(std::slice::from_ref(&rank_3), &rank_4, None).to_string();
    let tensor = "tensor model.layers.0.self_attn.q_proj.lora_A";
    assert_eq!(
        message,
        format!("{tensor} is [3, 5] in the utility adapter but [4, 5] in the safety adapter")
    );

    let of_base = |base: &str, adapter: &Adapter| {
        let mut adapter = adapter.clone();
        adapter.config.base_model_name_or_path = Some(base.to_owned());
        adapter
    };
    let one = [of_base("some/base", &rank_3)];
    let message = attempt(&one, &of_base("some/other", &rank_3), None).to_string();
    let bases = "the utility adapter is of base model `some/base`, the safety adapter of `some/other`";
    assert!(
        message.starts_with(bases) && message.contains("name it alike"),
        "{message}"
    );
    // The same model at another place.
    let message = attempt(&one, &of_base("/models/base/", &rank_3), None).to_string();
    assert!(message.contains("give a basis"), "{message}");

    wide.lora_alpha = 6.0;
    let louder = Adapter::from_pairs(wide, [pair(3)]).unwrap();
    let message = attempt(std::slice::from_ref(&rank_3), &louder, None).to_string();
    assert!(message.contains("alpha 5") && message.contains("alpha 6"), "{message}");

    let message = attempt(&[trial.u.clone(), rank_3], &trial.s, None).to_string();
    assert!(
        message.contains("is in the safety adapter but not in utility adapter 2"),
        "{message}"
    );

    let small = trial.basis.truncate(5).unwrap();
    assert_eq!(
        attempt(&utilities, &trial.s, Some(&small)).to_string(),
        "k = 20 is not between 1 and 5"
    );

    let other = fisher(&rank_4, 1);
    let foreign = gevp::diagonal(&other, &other, 20, RATIO_EPS).unwrap().into();
    let message = attempt(&utilities, &trial.s, Some(&foreign)).to_string();
    assert!(message.contains("the basis"), "{message}");
}

#[test]
fn prefix_projection_of_dense_vectors_is_refused() {
    let trial = trials().nth(1).unwrap();
    let strategy = V1Config {
        projection: Projection::Prefix,
        ..V1Config::default()
    };
    let utilities = [trial.u.clone()];
    let inputs = MergeInputs::new(&utilities, &trial.s).with_basis(&trial.basis);
    let message = strategy.check().unwrap().merge(&inputs).unwrap_err().to_string();
    assert!(
        message.contains("prefix projection is defined for coordinates only"),
        "{message}"
    );
}
