//! The tiny model and the adapters behind the golden values; see fixtures/model/README.md.
#![allow(dead_code)] // each test takes what it needs

use ndarray::Array2;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sst_adapter::{Adapter, LoraConfig, ModulePath};
use sst_model::{DeviceChoice, Encoded, LanguageModel, Precision, uniform, write_tiny_model};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

const TARGETS: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

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

/// How an adapter's entries come from their names.
#[derive(Deserialize)]
pub struct Counted {
    #[serde(default)]
    pub prefix: String,
    pub r: usize,
    pub lora_alpha: f64,
    pub range: [f64; 2],
}

#[derive(Deserialize)]
pub struct Sample {
    pub prompt: Vec<u32>,
    pub response: Vec<u32>,
}

pub fn read<T: DeserializeOwned>(name: &str) -> T {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model");
    serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

pub fn model(name: &str) -> (TempDir, LanguageModel) {
    let tiny: Tiny = read("tiny.json");
    let family = tiny.models.iter().find(|m| m.name == name).unwrap();
    let dir = tempfile::tempdir().unwrap();
    write_tiny_model(dir.path(), 0).unwrap();
    std::fs::write(dir.path().join("config.json"), family.config.to_string()).unwrap();
    let bytes = |name: &String, shape: &Vec<usize>| -> Vec<u8> {
        let kind = match name {
            n if n.contains("embed_tokens") => "embedding",
            n if n.contains("norm") => "norm",
            n if n.ends_with("bias") => "bias",
            _ => "linear",
        };
        let [low, high] = tiny.ranges[kind];
        let entries = 0..shape.iter().product();
        entries
            .flat_map(|i| uniform(0, name, i, low, high).to_le_bytes())
            .collect()
    };
    let data: Vec<_> = family
        .shapes
        .iter()
        .map(|(name, shape)| (name, shape, bytes(name, shape)))
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        let dtype = safetensors::Dtype::F32;
        let view = safetensors::tensor::TensorView::new(dtype, (*shape).clone(), bytes);
        (name, view.unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
    let model = LanguageModel::load(dir.path(), DeviceChoice::Cpu, Precision::F32).unwrap();
    (dir, model)
}

/// The adapter on all seven projections of every layer of `model`.
pub fn adapter(model: &LanguageModel, of: &Counted) -> Adapter {
    let [low, high] = of.range;
    let matrix = |path: &ModulePath, factor: &str, [rows, cols]: [usize; 2]| {
        let name = format!("{}base_model.model.{path}.{factor}.weight", of.prefix);
        Array2::from_shape_fn((rows, cols), |(i, j)| uniform(0, &name, i * cols + j, low, high))
    };
    let pairs = model.modules(&TARGETS.map(str::to_owned)).into_iter().map(|path| {
        let (d_out, d_in) = model.linear_shape(&path).unwrap();
        let (a, b) = (
            matrix(&path, "lora_A", [of.r, d_in]),
            matrix(&path, "lora_B", [d_out, of.r]),
        );
        (path, a, b)
    });
    Adapter::from_pairs(LoraConfig::new(of.r, of.lora_alpha, TARGETS), pairs.collect::<Vec<_>>()).unwrap()
}

pub fn encoded<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Vec<Encoded> {
    let row = |(i, sample): (usize, &Sample)| Encoded {
        id: format!("golden {i}"),
        scored_from: sample.prompt.len(),
        ids: [sample.prompt.clone(), sample.response.clone()].concat(),
    };
    samples.into_iter().enumerate().map(row).collect()
}
