//! Merges a utility and a safety adapter, end to end, from Rust.
//!
//! ```sh
//! cargo run -- UTILITY SAFETY FISHER_UTILITY FISHER_SAFETY OUT
//! ```
//!
//! Without arguments it makes two small adapters and Fishers of its own and merges them in a temporary folder.

use sst_merge::{
    Adapter, Array2, DiagonalFisher, Dtype, Estimator, FisherMeta, Input, LoraConfig, MergeInputs, MergeRecord,
    MergeStrategy, RATIO_EPS, V2Config, gevp, write_merged,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    match paths.as_slice() {
        [] => {
            let folder = std::env::temp_dir().join(format!("merge-two-adapters-{}", std::process::id()));
            let [utility, safety, f_utility, f_safety] =
                ["utility", "safety", "fisher_utility", "fisher_safety"].map(|name| folder.join(name));
            make_adapter(&utility, &f_utility, 1.0)?;
            make_adapter(&safety, &f_safety, -2.0)?;
            merge(&utility, &safety, &f_utility, &f_safety, &folder.join("merged"))?;
            std::fs::remove_dir_all(&folder)?;
            Ok(())
        }
        [utility, safety, f_utility, f_safety, out] => merge(utility, safety, f_utility, f_safety, out),
        _ => Err("give no argument or five: UTILITY SAFETY FISHER_UTILITY FISHER_SAFETY OUT".into()),
    }
}

/// The whole library in five steps: read, find the safety subspace, merge, look, write.
fn merge(
    utility_path: &Path,
    safety_path: &Path,
    f_utility_path: &Path,
    f_safety_path: &Path,
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    let utility = Adapter::load(utility_path)?;
    let safety = Adapter::load(safety_path)?;

    let f_utility = DiagonalFisher::load(f_utility_path)?;
    let f_safety = DiagonalFisher::load(f_safety_path)?;
    let k = 20.min(f_safety.values.len());
    let basis = gevp::diagonal(&f_safety, &f_utility, k, RATIO_EPS)?.into();

    let strategy = V2Config {
        k,
        weight: 0.8,
        ..V2Config::default()
    }
    .check()?;
    let merged = strategy.merge(&MergeInputs::new(&[utility], &safety).with_basis(&basis))?;

    let d = &merged.diagnostics;
    println!("merged {} parameters with {}, k = {k}", d.parameters, strategy.name());
    println!(
        "norms: U {:.4}, S {:.4}, M {:.4}",
        d.norm_utility, d.norm_safety, d.norm_merged
    );
    if let (Some(kept), Some(control)) = (d.retained_energy, d.random_control) {
        println!(
            "kept {:.1} % of S; a random subspace keeps {:.1} %",
            100.0 * kept,
            100.0 * control.retained_energy
        );
    }

    let mut inputs = BTreeMap::new();
    for (role, path) in [
        ("utility", utility_path),
        ("safety", safety_path),
        ("fisher-utility", f_utility_path),
        ("fisher-safety", f_safety_path),
    ] {
        inputs.insert(role.to_owned(), Input::hash(path)?);
    }
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    write_merged(
        out,
        &merged,
        &MergeRecord {
            recipe: strategy.config(),
            inputs,
            command,
            dtype: Dtype::F32,
        },
    )?;

    // What was written is an adapter again, ready for PEFT or for another merge.
    let again = Adapter::load(out)?;
    if again.to_flat() != merged.adapter.to_flat() {
        return Err("the adapter read back is not the one written".into());
    }
    println!("wrote {}", out.display());
    Ok(())
}

/// A small adapter whose entries follow a wave, and a Fisher that grows along phi.
fn make_adapter(folder: &Path, fisher_folder: &Path, phase: f32) -> Result<(), Box<dyn Error>> {
    let config = LoraConfig::new(2, 4.0, ["q_proj", "v_proj"]);
    let wave = |rows: usize, cols: usize| {
        Array2::from_shape_fn((rows, cols), |(i, j)| (phase + i as f32 + 0.3 * j as f32).sin())
    };
    let pairs = (0..2).flat_map(|layer| {
        ["q_proj", "v_proj"].map(|name| {
            (
                format!("model.layers.{layer}.self_attn.{name}").into(),
                wave(2, 8),
                wave(6, 2),
            )
        })
    });
    let adapter = Adapter::from_pairs(config, pairs)?;
    adapter.save(folder, Dtype::F32)?;
    let values = (0..adapter.layout().len())
        .map(|i| 1e-4 * (1.0 + (phase * i as f32).cos()))
        .collect();
    let meta = FisherMeta::new(Estimator::Diag, "made up", 0);
    DiagonalFisher::new(adapter.layout(), values, meta)?.save(fisher_folder, BTreeMap::new())?;
    Ok(())
}
