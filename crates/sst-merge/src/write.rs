//! A merge on disk: a PEFT folder with a manifest and a model card.

use crate::card::card;
use crate::{Error, Merged};
use serde::{Deserialize, Serialize};
use sst_adapter::Dtype;
use sst_artefact::{Input, Manifest, write_atomic};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// How a merge came to be: what only the caller knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MergeRecord {
    /// The recipe, usually [`MergeStrategy::config`](crate::MergeStrategy::config).
    pub recipe: serde_json::Value,
    /// Adapters, Fishers, basis: every input by role, with its hash.
    pub inputs: BTreeMap<String, Input>,
    /// The command line, so that a reader can run it again; empty when there was none.
    pub command: String,
    /// How the weights are stored.
    pub dtype: Dtype,
}

/// Writes a PEFT folder with `manifest.json` and `README.md`; the same merge and record give the same bytes.
///
/// The manifest comes last, and an earlier one goes before anything is written, so that a folder that has one is whole. It
/// may be the folder of an adapter that was merged: that is in memory by now.
///
/// # Errors
/// [`Error::Adapter`] for an entry that the dtype cannot hold, [`Error::Artefact`] for a file that cannot be written.
pub fn write_merged(folder: &Path, merged: &Merged, record: &MergeRecord) -> Result<(), Error> {
    let weights_sha256 = merged.adapter.save(folder, record.dtype)?;
    let mut manifest = Manifest::new("adapter", &record.recipe);
    manifest.inputs = record.inputs.clone();
    manifest.facts = serde_json::json!({
        "command": record.command,
        "dtype": record.dtype,
        "diagnostics": merged.diagnostics,
        "weights_sha256": weights_sha256,
    });
    let text = card(merged, record, &manifest);
    write_atomic(&folder.join("README.md"), |w| w.write_all(text.as_bytes()))?;
    manifest.write(folder)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Adapter, LoraConfig, MergeInputs, MergeStrategy, V2Config, array, gevp};
    use crate::{DiagonalFisher, Estimator, FisherMeta};

    fn adapter(scale: f32) -> Adapter {
        let mut config = LoraConfig::new(1, 2.0, ["q_proj"]);
        config.base_model_name_or_path = Some("some/base".into());
        let (a, b) = (array![[1.0, 2.0, 3.0]], array![[4.0], [5.0]]);
        Adapter::from_pairs(config, [("layers.0.q_proj".into(), scale * a, scale * b)]).unwrap()
    }

    #[test]
    fn the_folder_holds_the_merge_and_how_it_came_to_be() {
        let (u, s) = (adapter(1.0), adapter(-0.5));
        let fisher = |values: [f32; 5]| {
            DiagonalFisher::new(
                u.layout(),
                values.to_vec(),
                FisherMeta::new(Estimator::Diag, "response", 0),
            )
            .unwrap()
        };
        let basis = gevp::diagonal(&fisher([1.0, 2.0, 3.0, 4.0, 5.0]), &fisher([1.0; 5]), 2, 1e-6)
            .unwrap()
            .into();
        let strategy = V2Config {
            k: 2,
            ..V2Config::default()
        }
        .check()
        .unwrap();
        let merged = strategy.merge(&MergeInputs::new(&[u], &s).with_basis(&basis)).unwrap();
        let input = Input {
            path: "adapters/u|v".into(),
            sha256: "ab12".into(),
        };
        let mut recipe = strategy.config();
        recipe["match"] = "q_proj|v_proj".into();
        let record = MergeRecord {
            recipe,
            inputs: BTreeMap::from([("utility".to_owned(), input)]),
            command: "sst merge --strategy v2".into(),
            dtype: Dtype::F32,
        };
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_merged(one.path(), &merged, &record).unwrap();
        write_merged(two.path(), &merged, &record).unwrap();
        for entry in std::fs::read_dir(one.path()).unwrap() {
            let name = entry.unwrap().file_name();
            let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(&name)).unwrap();
            assert_eq!(read(&one), read(&two), "{name:?}");
        }
        // Where the card cannot be written, the manifest of the merge before does not stay beside the new weights.
        let readme = two.path().join("README.md");
        std::fs::remove_file(&readme).unwrap();
        std::fs::create_dir(&readme).unwrap();
        write_merged(two.path(), &merged, &record).unwrap_err();
        assert!(!two.path().join(sst_artefact::MANIFEST_FILE).exists());
        assert_eq!(Adapter::load(one.path()).unwrap().to_flat(), [1.0, 2.0, 3.0, 2.0, 2.5]);
        let manifest = Manifest::read(one.path()).unwrap();
        assert_eq!(manifest.config["k"], 2);
        // (4 + 6.25) / (0.25 + 1 + 2.25 + 4 + 6.25)
        let retained = manifest.facts["diagnostics"]["retained_energy"].as_f64().unwrap();
        assert!((retained - 10.25 / 13.75).abs() < 1e-15);
        let readme = std::fs::read_to_string(one.path().join("README.md")).unwrap();
        for word in [
            "base_model: \"some/base\"",
            "| utility | adapters/u\\|v | `ab12` |",
            "| match | q_proj\\|v_proj |",
            "sst merge --strategy v2",
            "74.55 %",
            "eigenvalues",
        ] {
            assert!(readme.contains(word), "{word} is not in\n{readme}");
        }
    }
}
