//! `bake` against torch, bit for bit: see `fixtures/merge/make_bake.py`.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use safetensors::SafeTensors;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Golden {
    bits: BTreeMap<String, Vec<u32>>,
}

#[test]
fn every_bit_is_torchs() {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/merge"));
    let golden: Golden = sst_artefact::read_json(&fixtures.join("bake.json"), "golden file").unwrap();
    let out = tempfile::tempdir().unwrap();
    let (model, adapter) = (fixtures.join("bake/model"), fixtures.join("bake/adapter"));
    let baked = sst_merge::bake(&model, &adapter, out.path(), &mut |_, _| ()).unwrap();
    assert_eq!((baked.changed, golden.bits.len()), (3, 3));
    let mut seen = 0;
    for file in ["one.safetensors", "two.safetensors"] {
        let bytes = std::fs::read(out.path().join(file)).unwrap();
        for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            let Some(expected) = golden.bits.get(name) else {
                continue;
            };
            let size = tensor.dtype().bitsize() / 8;
            let bits = |entry: &[u8]| entry.iter().rev().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
            let got: Vec<u32> = tensor.data().chunks(size).map(bits).collect();
            assert_eq!(&got, expected, "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, golden.bits.len());
}
