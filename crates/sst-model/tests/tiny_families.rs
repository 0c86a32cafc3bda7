//! Logits of small random models of three families against Hugging Face transformers; see fixtures/model/README.md.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use serde::Deserialize;
use sst_model::{DeviceChoice, LanguageModel, Precision, Side, floats, uniform, write_tiny_model};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Golden {
    ranges: BTreeMap<String, [f64; 2]>,
    sequences: Vec<Vec<u32>>,
    models: Vec<Family>,
}

#[derive(Deserialize)]
struct Family {
    name: String,
    config: serde_json::Value,
    shapes: BTreeMap<String, Vec<usize>>,
    logits: Vec<Vec<f32>>,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model/tiny.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A model folder with the golden weights; the tokenizer of the tiny model stands in, for only ids are used.
fn write(folder: &Path, family: &Family, ranges: &BTreeMap<String, [f64; 2]>) {
    write_tiny_model(folder, 0).unwrap();
    std::fs::write(folder.join("config.json"), family.config.to_string()).unwrap();
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = family
        .shapes
        .iter()
        .map(|(name, shape)| {
            let kind = match name {
                n if n.contains("embed_tokens") => "embedding",
                n if n.contains("norm") => "norm",
                n if n.ends_with("bias") => "bias",
                _ => "linear",
            };
            let [low, high] = ranges[kind];
            let count: usize = shape.iter().product();
            let bytes = (0..count)
                .flat_map(|i| uniform(0, name, i, low, high).to_le_bytes())
                .collect();
            (name.clone(), shape.clone(), bytes)
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (
            name,
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    std::fs::write(
        folder.join("model.safetensors"),
        safetensors::serialize(views, None).unwrap(),
    )
    .unwrap();
}

fn close(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}, entry {i}: {a} instead of {b}");
    }
}

#[test]
fn logits_equal_transformers_for_every_family() {
    let golden = golden();
    assert_eq!(golden.models.len(), 3);
    for family in &golden.models {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), family, &golden.ranges);
        let model = LanguageModel::load(dir.path(), DeviceChoice::Cpu, Precision::F32).unwrap();
        let vocab = family.config["vocab_size"].as_u64().unwrap() as usize;
        for (ids, expected) in golden.sequences.iter().zip(&family.logits) {
            let logits = model.logits(&[ids], Side::Right, &[]).unwrap();
            close(&floats(&logits), expected, 1e-5, &family.name);
        }
        // Both in one batch, padded on either side: the shorter row's real positions must not move.
        let [long, short] = [&golden.sequences[0], &golden.sequences[1]];
        for (side, from) in [(Side::Right, 0), (Side::Left, long.len() - short.len())] {
            let logits = model.logits(&[long, short], side, &[]).unwrap();
            let row = floats(&logits.get(1));
            let real = &row[from * vocab..(from + short.len()) * vocab];
            close(
                real,
                &family.logits[1],
                1e-5,
                &format!("{} padded {side:?}", family.name),
            );
        }
    }
}

/// bf16 keeps 8 bits of mantissa: logits of magnitude about 1 through two layers stay within a few units of 2^-8.
#[test]
fn half_precision_follows_single_precision() {
    let golden = golden();
    let family = &golden.models[0];
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), family, &golden.ranges);
    let model = LanguageModel::load(dir.path(), DeviceChoice::Cpu, Precision::Bf16).unwrap();
    let logits = model.logits(&[&golden.sequences[0]], Side::Right, &[]).unwrap();
    close(&floats(&logits), &family.logits[0], 0.06, "bf16");
}
