//! The diagonal estimators on the tiny random model against their definitions, from gradients one sample at a time.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use sst_adapter::Adapter;
use sst_data::{Example, Prompt};
use sst_fim::{Error, Estimate, FisherConfig, Protocol, Samples, Source};
use sst_model::{
    BatchLimits, DeviceChoice, LanguageModel, Objective, Precision, TokenWeight, TrainConfig, Trainer, floats,
    write_tiny_model,
};
use sst_subspace::{DiagonalFisher, Estimator};
use std::collections::BTreeMap;
use tempfile::TempDir;

fn examples() -> Vec<Example> {
    (0..9)
        .map(|i| Example {
            id: format!("e{i}"),
            prompt: Prompt::user(format!("Count to {i} {}", "now ".repeat(i % 5))),
            response: (0..=i).map(|n| n.to_string()).collect::<Vec<_>>().join(" "),
        })
        .collect()
}

fn model() -> (TempDir, LanguageModel, Adapter) {
    let dir = tempfile::tempdir().unwrap();
    write_tiny_model(dir.path(), 2).unwrap();
    let mut model = LanguageModel::load(dir.path(), DeviceChoice::Cpu, Precision::F32).unwrap();
    let config = TrainConfig {
        r: 3,
        alpha: 9.0,
        epochs: 2,
        learning_rate: 1e-2,
        ..TrainConfig::default()
    };
    let trainer = Trainer::new(&mut model, &examples(), config.check().unwrap()).unwrap();
    let (adapter, _) = trainer.run(&mut |_| ()).unwrap();
    model.add_adapter("a", &adapter).unwrap();
    (dir, model, adapter)
}

fn try_estimate(model: &LanguageModel, config: &FisherConfig) -> Result<DiagonalFisher, Error> {
    let folder = tempfile::tempdir().unwrap();
    let estimate = Estimate {
        config: config.clone(),
        out: folder.path().to_path_buf(),
    };
    let examples = examples();
    let source = Source::new(Samples::Drawn(&examples), &["a"]);
    sst_fim::estimate(model, &source, &[estimate], &mut |_| ())?;
    Ok(DiagonalFisher::load(folder.path())?)
}

fn estimate(model: &LanguageModel, config: &FisherConfig) -> DiagonalFisher {
    try_estimate(model, config).unwrap()
}

/// Every sample's gradient from a pass of its own.
fn gradients(model: &LanguageModel, protocol: Protocol) -> Vec<Vec<f64>> {
    let objective = Objective {
        adapters: &["a"],
        draw_labels: None,
        weight: TokenWeight::RowMean,
    };
    let of_example = |example: &Example| {
        let row = match protocol {
            Protocol::Response => model.encode_response(example).unwrap(),
            Protocol::LegacyPrompt => model.encode_prompt_only(example, 512).unwrap(),
        };
        let mut modules = BTreeMap::new();
        model
            .backward(&[&row], &objective, &|_| true, &mut |reading| {
                for of in reading.summed(0) {
                    modules.insert(of.path, [floats(&of.a), floats(&of.b)].concat());
                }
                Ok::<(), sst_model::Error>(())
            })
            .unwrap();
        modules.into_values().flatten().map(f64::from).collect()
    };
    examples().iter().map(of_example).collect()
}

fn close(estimate: &DiagonalFisher, expected: &[f64]) {
    assert_eq!(estimate.values.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(*v));
    assert!(largest > 0.0);
    for (a, b) in estimate.values.iter().zip(expected) {
        assert!(
            (f64::from(*a) - b).abs() <= 1e-4 * b + 1e-8 * largest,
            "{a} instead of {b}"
        );
    }
}

#[test]
fn both_estimators_follow_their_definitions() {
    let (_dir, mut model, _) = model();
    // Small batches, so that several of different shape are summed.
    model.set_limits(BatchLimits { rows: 3, tokens: 400 }).unwrap();
    for protocol in [Protocol::Response, Protocol::LegacyPrompt] {
        let all = gradients(&model, protocol);
        let n = all.len() as f64;
        let mean = |f: &dyn Fn(&Vec<f64>, usize) -> f64| -> Vec<f64> {
            (0..all[0].len())
                .map(|i| all.iter().map(|g| f(g, i)).sum::<f64>() / n)
                .collect()
        };
        let first = mean(&|g, i| g[i]);
        let second = mean(&|g, i| g[i] * g[i]);
        let variance: Vec<f64> = mean(&|g, i| (g[i] - first[i]).powi(2));
        let config = |estimator| FisherConfig {
            estimator,
            protocol,
            ..FisherConfig::default()
        };
        close(&estimate(&model, &config(Estimator::Diag)), &second);
        close(&estimate(&model, &config(Estimator::DiagVariance)), &variance);
    }
}

#[test]
fn the_artefact_says_what_it_is_and_samples_are_nested() {
    let (_dir, model, adapter) = model();
    let config = FisherConfig {
        samples: Some(4),
        seed: 3,
        ..FisherConfig::default()
    };
    let few = estimate(&model, &config);
    assert_eq!(few.meta.samples, 4);
    assert_eq!(few.meta.protocol, "response");
    assert_eq!(few.layout, adapter.layout());
    let tokens: usize = sst_data::sample(&examples(), 4, 3)
        .iter()
        .map(|e| model.encode_response(e).unwrap().scored())
        .sum();
    assert_eq!(few.meta.tokens, tokens as u64);
    assert_eq!(
        few.values,
        estimate(&model, &config).values,
        "the same twice, to the bit"
    );
}

#[test]
fn the_models_context_is_a_limit_as_max_tokens_is() {
    let (dir, whole, adapter) = model();
    let mut lengths: Vec<usize> = examples()
        .iter()
        .map(|example| whole.encode_response(example).unwrap().ids.len())
        .collect();
    lengths.sort_unstable();
    let positions = lengths[2];
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = positions.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let mut short = LanguageModel::load(dir.path(), DeviceChoice::Cpu, Precision::F32).unwrap();
    short.add_adapter("a", &adapter).unwrap();
    for protocol in [Protocol::Response, Protocol::LegacyPrompt] {
        let of = |model: &LanguageModel, max_tokens| {
            let config = FisherConfig {
                protocol,
                max_tokens,
                ..FisherConfig::default()
            };
            estimate(model, &config)
        };
        let (limited, asked) = (of(&short, 1024), of(&whole, positions));
        assert_eq!(limited.meta, asked.meta);
        assert_eq!(limited.values, asked.values);
        assert_eq!(limited.meta.samples < 9, protocol == Protocol::Response);
    }
}

#[test]
fn too_few_samples_are_refused() {
    let (_dir, model, _) = model();
    let config = FisherConfig {
        samples: Some(1),
        ..FisherConfig::default()
    };
    let error = try_estimate(&model, &config).unwrap_err();
    assert!(matches!(error, Error::Samples { needed: 2, got: 1, .. }), "{error}");
    let config = FisherConfig {
        max_tokens: 1,
        ..FisherConfig::default()
    };
    let error = try_estimate(&model, &config).unwrap_err().to_string();
    assert!(error.contains("9 were longer than 1 tokens"), "{error}");
}
