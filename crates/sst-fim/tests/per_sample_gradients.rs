//! Batched per-sample gradients and the estimates made of them against one backward pass per sample in PyTorch; see
//! fixtures/model/README.md.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use serde::Deserialize;
use sst_adapter::{Adapter, LoraConfig, ModulePath};
use sst_model::{
    DeviceChoice, Encoded, LanguageModel, Objective, Precision, TokenWeight, floats, uniform, write_tiny_model,
};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

#[derive(Deserialize)]
struct Golden {
    model: String,
    r: usize,
    lora_alpha: f64,
    range: [f64; 2],
    shapes: BTreeMap<String, [usize; 2]>,
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    prompt: Vec<u32>,
    response: Vec<u32>,
    loss: f64,
    gradients: BTreeMap<String, Vec<f64>>,
}

#[derive(Deserialize)]
struct Tiny {
    ranges: BTreeMap<String, [f64; 2]>,
    models: Vec<Family>,
}

#[derive(Deserialize)]
struct Family {
    name: String,
    config: serde_json::Value,
    shapes: BTreeMap<String, Vec<usize>>,
}

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/model")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn model(golden: &Golden) -> (TempDir, LanguageModel) {
    let tiny: Tiny = read("tiny.json");
    let family = tiny.models.iter().find(|m| m.name == golden.model).unwrap();
    let dir = tempfile::tempdir().unwrap();
    write_tiny_model(dir.path(), 0).unwrap();
    std::fs::write(dir.path().join("config.json"), family.config.to_string()).unwrap();
    let data: Vec<(&String, Vec<usize>, Vec<u8>)> = family
        .shapes
        .iter()
        .map(|(name, shape)| {
            let kind = match name {
                n if n.contains("embed_tokens") => "embedding",
                n if n.contains("norm") => "norm",
                n if n.ends_with("bias") => "bias",
                _ => "linear",
            };
            let [low, high] = tiny.ranges[kind];
            let count: usize = shape.iter().product();
            (
                name,
                shape.clone(),
                (0..count)
                    .flat_map(|i| uniform(0, name, i, low, high).to_le_bytes())
                    .collect(),
            )
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (
            name,
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    std::fs::write(
        dir.path().join("model.safetensors"),
        safetensors::serialize(views, None).unwrap(),
    )
    .unwrap();
    let mut model = LanguageModel::load(dir.path(), DeviceChoice::Cpu, Precision::F32).unwrap();
    model.add_adapter("golden", &adapter(golden)).unwrap();
    (dir, model)
}

fn adapter(golden: &Golden) -> Adapter {
    let [low, high] = golden.range;
    let matrix = |name: &str, [rows, cols]: [usize; 2]| {
        ndarray::Array2::from_shape_fn((rows, cols), |(i, j)| uniform(0, name, i * cols + j, low, high))
    };
    let targets = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ];
    let pairs: Vec<_> = golden
        .shapes
        .iter()
        .filter_map(|(name, shape)| {
            let stem = name.strip_suffix(".lora_A.weight")?;
            let b = format!("{stem}.lora_B.weight");
            let path = ModulePath::new(stem.strip_prefix("base_model.model.")?);
            Some((path, matrix(name, *shape), matrix(&b, golden.shapes[&b])))
        })
        .collect();
    Adapter::from_pairs(LoraConfig::new(golden.r, golden.lora_alpha, targets), pairs).unwrap()
}

fn encoded(golden: &Golden) -> Vec<Encoded> {
    let row = |s: &Sample| Encoded {
        id: "golden".into(),
        scored_from: s.prompt.len(),
        ids: [s.prompt.clone(), s.response.clone()].concat(),
    };
    golden.samples.iter().map(row).collect()
}

#[test]
fn a_batch_gives_every_sample_its_own_gradient() {
    let golden: Golden = read("gradients.json");
    let (_dir, model) = model(&golden);
    let rows = encoded(&golden);
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
