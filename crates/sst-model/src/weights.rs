//! Weights of a model folder, taken by name *and* shape from one or several memory-mapped safetensors files.

use crate::Error;
use crate::fetch::weight_files;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// The safetensors files of a folder and which tensor lies in which.
pub(crate) struct Weights {
    folder: PathBuf,
    files: Vec<(PathBuf, Mmap)>,
    index: BTreeMap<String, usize>,
    device: Device,
    kind: Kind,
}

impl Weights {
    /// Maps `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    pub(crate) fn open(folder: &Path, device: Device, kind: Kind) -> Result<Self, Error> {
        let mut weights = Self {
            folder: folder.to_path_buf(),
            files: Vec::new(),
            index: BTreeMap::new(),
            device,
            kind,
        };
        for name in weight_files(folder)? {
            let path = folder.join(name);
            let file = File::open(&path).map_err(sst_artefact::Error::io("read", &path))?;
            #[allow(unsafe_code)]
            // SAFETY: model files are written whole and renamed into place; nobody changes them under a reader.
            let map = unsafe { Mmap::map(&file) }.map_err(sst_artefact::Error::io("read", &path))?;
            let names: Vec<String> = parse(&path, &map)?.names().iter().map(|n| (*n).to_owned()).collect();
            for name in names {
                weights.index.insert(name, weights.files.len());
            }
            weights.files.push((path, map));
        }
        Ok(weights)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The tensor `name` of exactly `shape`, on the device and in the precision chosen at opening.
    pub(crate) fn take(&self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let Some(&at) = self.index.get(name) else {
            return Err(Error::Weights {
                path: self.folder.clone(),
                reason: format!("tensor {name} is missing from its weights"),
            });
        };
        let (path, map) = &self.files[at];
        let tensors = parse(path, map)?;
        let view = tensors.tensor(name).map_err(|e| Error::Weights {
            path: path.clone(),
            reason: format!("tensor {name}: {e}"),
        })?;
        if view.shape() != shape {
            let got = view.shape();
            return Err(Error::Weights {
                path: path.clone(),
                reason: format!(
                    "tensor {name}: expected shape {shape:?}, found {got:?}; config.json is of another model"
                ),
            });
        }
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F16 => Kind::Half,
            other => {
                let reason = format!("tensor {name}: dtype {other:?} is not supported; use F32, BF16 or F16");
                return Err(Error::Weights {
                    path: path.clone(),
                    reason,
                });
            }
        };
        let size: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &size, kind)?;
        Ok(tensor.to_device(self.device).to_kind(self.kind))
    }
}

fn parse<'a>(path: &Path, map: &'a Mmap) -> Result<SafeTensors<'a>, Error> {
    SafeTensors::deserialize(map).map_err(|e| Error::Weights {
        path: path.to_path_buf(),
        reason: format!("not a whole safetensors file ({e}); fetch the model again"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, name: &str, shape: &[usize], values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
        std::fs::write(path, safetensors::serialize([(name, view)], None).unwrap()).unwrap();
    }

    fn open(folder: &Path) -> Result<Weights, Error> {
        Weights::open(folder, Device::Cpu, Kind::Float)
    }

    #[test]
    fn shards_are_found_through_the_index() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("a.safetensors"), "x", &[2], &[1.0, 2.0]);
        write(&dir.path().join("b.safetensors"), "y", &[1, 2], &[3.0, 4.0]);
        let index = r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}"#;
        std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        let weights = open(dir.path()).unwrap();
        assert_eq!(
            Vec::<f32>::try_from(weights.take("y", &[1, 2]).unwrap().flatten(0, -1)).unwrap(),
            [3.0, 4.0]
        );
        assert!(weights.has("x") && !weights.has("z"));
        // No shard is to blame for what none has, and one for what it has.
        let message = weights.take("z", &[2]).unwrap_err().to_string();
        let folder = dir.path().display();
        assert!(message.starts_with(&format!("{folder}: tensor z")), "{message}");
        let message = weights.take("y", &[2]).unwrap_err().to_string();
        assert!(message.contains("b.safetensors: tensor y"), "{message}");
    }

    #[test]
    fn errors_name_the_tensor_and_both_shapes_or_the_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            open(dir.path())
                .err()
                .unwrap()
                .to_string()
                .contains("model.safetensors")
        );
        let path = dir.path().join("model.safetensors");
        write(&path, "x", &[2], &[1.0, 2.0]);
        let weights = open(dir.path()).unwrap();
        let message = weights.take("x", &[3]).unwrap_err().to_string();
        assert!(message.contains("x: expected shape [3], found [2]"), "{message}");
        assert!(
            weights
                .take("y", &[3])
                .unwrap_err()
                .to_string()
                .contains("tensor y is missing")
        );
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let message = open(dir.path()).err().unwrap().to_string();
        assert!(
            message.contains("model.safetensors") && message.contains("whole"),
            "{message}"
        );
    }
}
