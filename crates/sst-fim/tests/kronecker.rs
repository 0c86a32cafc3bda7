//! Kronecker factors against PyTorch, one backward pass per sample, for every weighting and stack; see fixtures/model/README.md.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod golden;

use golden::{Counted, Sample, adapter, encoded, model, read};
use ndarray::{Array1, Array2};
use serde::Deserialize;
use sst_adapter::ModulePath;
use sst_fim::{Estimate, FisherConfig, Samples, Source, estimate};
use sst_model::{BatchLimits, LanguageModel, uniform};
use sst_subspace::{Estimator, KroneckerFisher, TokenWeighting};
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Golden {
    model: String,
    adapters: BTreeMap<String, Counted>,
    samples: Vec<Sample>,
    weightings: BTreeMap<String, BTreeMap<String, Factors<Summary>>>,
    matrices: BTreeMap<String, BTreeMap<String, Factors<Vec<f64>>>>,
    stacks: BTreeMap<String, BTreeMap<String, Factors<Summary>>>,
}

#[derive(Deserialize)]
struct Factors<T> {
    input: T,
    output: T,
}

#[derive(Deserialize)]
struct Summary {
    trace: f64,
    norm: f64,
    form: f64,
}

/// f32 products of at most 20 tokens in a model of two layers; entries are compared with the largest of their matrix.
const TOLERANCE: f64 = 2e-5;

fn setup() -> (tempfile::TempDir, LanguageModel, Golden) {
    let golden: Golden = read("kronecker.json");
    let (dir, mut model) = model(&golden.model);
    for (name, counted) in &golden.adapters {
        let adapter = adapter(&model, counted);
        model.add_adapter(name, &adapter).unwrap();
    }
    // Two batches, the first of them padded.
    model.set_limits(BatchLimits { rows: 2, tokens: 400 }).unwrap();
    (dir, model, golden)
}

fn measure(model: &LanguageModel, golden: &Golden, stack: &[&str], weighting: TokenWeighting) -> KroneckerFisher {
    let folder = tempfile::tempdir().unwrap();
    let rows = encoded(&golden.samples);
    let targets = golden.weightings["all"]
        .keys()
        .filter_map(|path| path.rsplit('.').next());
    let config = FisherConfig {
        estimator: Estimator::Kron,
        weighting,
        targets: targets.map(str::to_owned).collect(),
        ..FisherConfig::default()
    };
    let out = folder.path().to_path_buf();
    let estimates = [Estimate { config, out }];
    estimate(
        model,
        &Source::new(Samples::Encoded(&rows), stack),
        &estimates,
        &mut |_| (),
    )
    .unwrap();
    KroneckerFisher::load(folder.path()).unwrap()
}

fn close(got: &Array2<f64>, expected: &Summary, what: &str) {
    let n = got.nrows();
    let counter = |name: &str| Array1::from_shape_fn(n, |i| f64::from(uniform(0, name, i, -1.0, 1.0)));
    let form = counter("kronecker.u").dot(&got.dot(&counter("kronecker.v")));
    let norm = got.iter().map(|x| x * x).sum::<f64>().sqrt();
    for (name, got, expected, scale) in [
        ("trace", got.diag().sum(), expected.trace, expected.trace),
        ("norm", norm, expected.norm, expected.norm),
        // |u^T M v| <= n |M|
        ("form", form, expected.form, n as f64 * expected.norm),
    ] {
        assert!(
            scale > 0.0 && (got - expected).abs() <= TOLERANCE * scale,
            "{what} {name}: {got} instead of {expected}"
        );
    }
}

#[test]
fn factors_equal_pytorchs_under_every_weighting() {
    let (_dir, model, golden) = setup();
    for (name, modules) in &golden.weightings {
        let fisher = measure(&model, &golden, &["first"], name.parse().unwrap());
        assert_eq!(fisher.modules().count(), modules.len());
        for (path, expected) in modules {
            let got = fisher.factors(&ModulePath::new(path.clone())).unwrap();
            close(&got.input, &expected.input, &format!("{name} {path} A"));
            close(&got.output, &expected.output, &format!("{name} {path} G"));
        }
        for (path, expected) in golden.matrices.get(name).into_iter().flatten() {
            let got = fisher.factors(&ModulePath::new(path.clone())).unwrap();
            for (got, expected) in [(&got.input, &expected.input), (&got.output, &expected.output)] {
                let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
                assert_eq!(got.len(), expected.len());
                for (a, b) in got.iter().zip(expected) {
                    assert!(
                        (a - b).abs() <= TOLERANCE * largest,
                        "{name} {path}: {a} instead of {b}"
                    );
                }
            }
        }
    }
}

#[test]
fn factors_are_of_the_model_with_its_whole_stack() {
    let (_dir, model, golden) = setup();
    for (name, modules) in &golden.stacks {
        let stack: Vec<&str> = name.split('+').skip(1).collect();
        let fisher = measure(&model, &golden, &stack, TokenWeighting::All);
        assert_eq!(fisher.meta.stack, stack);
        for (path, expected) in modules {
            let got = fisher.factors(&ModulePath::new(path.clone())).unwrap();
            close(&got.input, &expected.input, &format!("{name} {path} A"));
            close(&got.output, &expected.output, &format!("{name} {path} G"));
        }
    }
}

#[test]
fn linears_that_read_the_same_input_share_their_a() {
    let (_dir, model, golden) = setup();
    let module = |name: &str| ModulePath::new(format!("model.layers.0.self_attn.{name}_proj"));
    let fisher = measure(&model, &golden, &[], TokenWeighting::All);
    assert_eq!(fisher.input(&module("v")).unwrap(), &module("q"));
    assert_eq!(fisher.input(&module("o")).unwrap(), &module("o"));
    let weighted = measure(&model, &golden, &[], TokenWeighting::GradientNorm);
    assert_eq!(weighted.input(&module("v")).unwrap(), &module("v"));
}
