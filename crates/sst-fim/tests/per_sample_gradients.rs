//! Batched per-sample gradients against one backward pass per sample in PyTorch; see fixtures/model/README.md.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod golden;

use golden::{Counted, Sample, adapter, encoded, model, read};
use serde::Deserialize;
use sst_model::{Encoded, Objective, TokenWeight, floats};
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Golden {
    model: String,
    #[serde(flatten)]
    adapter: Counted,
    shapes: BTreeMap<String, [usize; 2]>,
    samples: Vec<Gradients>,
}

#[derive(Deserialize)]
struct Gradients {
    #[serde(flatten)]
    tokens: Sample,
    loss: f64,
    gradients: BTreeMap<String, Vec<f64>>,
}

#[test]
fn a_batch_gives_every_sample_its_own_gradient() {
    let golden: Golden = read("gradients.json");
    let (_dir, mut model) = model(&golden.model);
    let adapter = adapter(&model, &golden.adapter);
    model.add_adapter("golden", &adapter).unwrap();
    let rows = encoded(golden.samples.iter().map(|s| &s.tokens));
    let batch: Vec<&Encoded> = rows.iter().collect();
    assert!(
        rows.iter().any(|r| r.ids.len() != rows[0].ids.len()),
        "the samples must differ in length"
    );
    let objective = Objective {
        adapters: &["golden"],
        draw_labels: None,
        weight: TokenWeight::RowMean,
    };
    let mut compared = 0;
    let report = model
        .backward(&batch, &objective, &|_| true, &mut |reading| {
            for module in reading.per_sample(0) {
                for (factor, gradients) in [("lora_A", &module.a), ("lora_B", &module.b)] {
                    let name = format!("base_model.model.{}.{factor}.weight", module.path);
                    for (i, sample) in golden.samples.iter().enumerate() {
                        let expected = &sample.gradients[&name];
                        let scale = expected.iter().fold(0.0f64, |m, g| m.max(g.abs()));
                        for (a, b) in floats(&gradients.get(i as i64)).iter().zip(expected) {
                            // f32 sums over at most 20 tokens and two layers.
                            assert!(
                                (f64::from(*a) - b).abs() <= 1e-5 * scale + 1e-9,
                                "{name}: {a} instead of {b}"
                            );
                        }
                        compared += expected.len();
                    }
                }
            }
            Ok::<(), sst_model::Error>(())
        })
        .unwrap();
    let losses = report.losses;
    for ((sum, n), sample) in losses.row_sums().iter().zip(&losses.counts).zip(&golden.samples) {
        assert!(
            (sum / *n as f64 - sample.loss).abs() < 1e-5 * sample.loss,
            "{sum} {n} {}",
            sample.loss
        );
    }
    let entries: usize = golden.shapes.values().map(|[rows, cols]| rows * cols).sum();
    assert_eq!(compared, entries * golden.samples.len());
}
