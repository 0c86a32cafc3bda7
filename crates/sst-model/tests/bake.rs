//! A baked model against the adapter beside its base model.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod counted;

use counted::adapter;
use sst_adapter::{Dtype, LoraConfig};
use sst_model::{DeviceChoice, LanguageModel, Precision, Side, floats, uniform, write_tiny_model};
use std::path::Path;

const TARGETS: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];
const IDS: [u32; 12] = [1, 17, 200, 5, 99, 42, 3, 250, 128, 64, 7, 31];

fn largest(values: impl IntoIterator<Item = f32>) -> f32 {
    values.into_iter().map(f32::abs).fold(0.0, f32::max)
}

/// Bakes an adapter into the f32 model in `folder` and compares logits.
fn compare(folder: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let (at, out) = (dir.path().join("adapter"), dir.path().join("out"));
    let load = |folder: &Path| LanguageModel::load(folder, DeviceChoice::Cpu, Precision::F32).unwrap();
    let mut model = load(folder);
    let config = LoraConfig::new(3, 5.0, TARGETS);
    let adapter = adapter(&model, config, |name, i| uniform(0, name, i, -0.05, 0.05));
    adapter.save(&at, Dtype::F32).unwrap();
    let baked = sst_merge::bake(folder, &at, &out, &mut |_, _| ()).unwrap();
    assert_eq!(baked.changed, adapter.modules.len());
    model.add_adapter("beside", &adapter).unwrap();
    let logits = |model: &LanguageModel, stack: &[&str]| floats(&model.logits(&[&IDS], Side::Right, stack).unwrap());
    let (base, beside, inside) = (
        logits(&model, &[]),
        logits(&model, &["beside"]),
        logits(&load(&out), &[]),
    );
    let difference = |other: &[f32]| largest(beside.iter().zip(other).map(|(x, y)| x - y));
    // Every linear adds a relative error of about one rounding to what passes through it.
    let tolerance = f32::EPSILON * adapter.modules.len() as f32 * largest(beside.iter().copied());
    let (wrong, changed) = (difference(&inside), difference(&base));
    assert_eq!(inside.len(), beside.len());
    assert!(wrong <= tolerance, "{wrong} is more than {tolerance}");
    assert!(
        changed > 100.0 * tolerance,
        "the adapter changes logits by {changed} only"
    );
}

#[test]
fn the_tiny_model_with_its_adapter_inside_answers_as_with_it_beside() {
    let dir = tempfile::tempdir().unwrap();
    write_tiny_model(dir.path(), 0).unwrap();
    compare(dir.path());
}

#[test]
#[ignore = "needs the demo model"]
fn the_demo_model_with_its_adapter_inside_answers_as_with_it_beside() {
    compare(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.models/smollm2-135m-instruct"));
}
