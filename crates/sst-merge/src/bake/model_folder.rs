//! The files of a model folder: weights in safetensors, one file or several, and what lies beside them.

use super::BakeError;
use crate::Error;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use sst_adapter::{Adapter, LowRank};
use sst_artefact::{MANIFEST_FILE, read_json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const CONFIG: &str = "config.json";

/// Endings of weights in any format: only the safetensors are changed, so that the others would be the old model.
const WEIGHTS: [&str; 10] = [
    "safetensors",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "gguf",
    "h5",
    "msgpack",
    "onnx",
    "ot",
];

/// A model on disk; nothing but headers has been read.
#[derive(Debug)]
pub(crate) struct ModelFolder {
    pub path: PathBuf,
    /// Sorted by name.
    pub weights: Vec<WeightFile>,
    /// Names of the files to copy: configuration, tokenizer, licence.
    pub others: Vec<String>,
    tied: bool,
}

/// One safetensors file.
#[derive(Debug)]
pub(crate) struct WeightFile {
    pub name: String,
    /// Bytes before the first tensor.
    pub header: usize,
    /// In the file's order; they follow each other without gaps.
    pub tensors: Vec<(String, TensorInfo)>,
}

impl ModelFolder {
    /// Reads the configuration and every header.
    ///
    /// # Errors
    /// A file that is missing or not whole, weights that are quantised, a tensor in two files.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Config {
            quantization_config: Option<serde_json::Value>,
            tie_word_embeddings: Option<bool>,
        }
        let config: Config = read_json(&path.join(CONFIG), "model configuration")?;
        if config.quantization_config.is_some() {
            let path = path.join(CONFIG);
            return Err(BakeError::Quantised { path }.into());
        }
        let names = weight_files(path)?;
        let weights = names
            .into_iter()
            .map(|name| WeightFile::open(path, name))
            .collect::<Result<Vec<_>, _>>()?;
        let mut owners = BTreeMap::new();
        for file in &weights {
            for (tensor, _) in &file.tensors {
                if let Some(other) = owners.insert(tensor.as_str(), file.name.as_str()) {
                    let reason = format!("tensor {tensor} is in {other} as well");
                    let path = path.join(&file.name);
                    return Err(BakeError::File { path, reason }.into());
                }
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            others: others(path)?,
            tied: config.tie_word_embeddings == Some(true),
            weights,
        })
    }

    /// The change of every tensor that the adapter touches, by the tensor's name.
    ///
    /// # Errors
    /// [`BakeError`] naming the module that is missing, tied, of another shape or of a type that holds no change.
    pub(crate) fn changes(&self, adapter: &Adapter) -> Result<BTreeMap<String, LowRank>, BakeError> {
        let tensors: BTreeMap<&str, &TensorInfo> = self
            .weights
            .iter()
            .flat_map(|file| &file.tensors)
            .map(|(name, info)| (name.as_str(), info))
            .collect();
        let mut changes = BTreeMap::new();
        for (path, module) in &adapter.modules {
            let (module_name, tensor) = (path.to_string(), format!("{path}.weight"));
            if self.tied && ["lm_head", "embed_tokens"].contains(&path.name()) {
                return Err(BakeError::Tied { module: module_name });
            }
            let Some(info) = tensors.get(tensor.as_str()) else {
                return Err(BakeError::MissingTensor {
                    module: module_name,
                    tensor,
                    path: self.path.clone(),
                });
            };
            let change = LowRank::of(module);
            if info.shape != change.shape() {
                return Err(BakeError::Shape {
                    module: module_name,
                    adapter: change.shape(),
                    model: info.shape.clone(),
                });
            }
            if !matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
                let dtype = format!("{:?}", info.dtype);
                return Err(BakeError::Type { tensor, dtype });
            }
            changes.insert(tensor, change);
        }
        Ok(changes)
    }

    /// Bytes of all weight files.
    pub(crate) fn bytes(&self) -> u64 {
        self.weights.iter().map(WeightFile::bytes).sum()
    }
}

impl WeightFile {
    fn open(folder: &Path, name: String) -> Result<Self, Error> {
        let path = folder.join(&name);
        let io = |e| sst_artefact::Error::io("read", &path)(e);
        let broken = |reason: String| BakeError::File {
            path: path.clone(),
            reason: format!("not a whole safetensors file ({reason}); fetch the model again"),
        };
        let mut file = File::open(&path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let mut length = [0; size_of::<u64>()];
        let start = length.len() as u64;
        if bytes < start {
            return Err(broken(format!("{bytes} bytes")).into());
        }
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > bytes - start {
            return Err(broken(format!("a header of {length} bytes in a file of {bytes}")).into());
        }
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text).map_err(io)?;
        let header: Metadata = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
        let mut tensors: Vec<(String, TensorInfo)> = header
            .tensors()
            .into_iter()
            .map(|(name, info)| (name, info.clone()))
            .collect();
        // Tensors without entries share their offset with the next one.
        tensors.sort_by(|(l, a), (r, b)| (a.data_offsets, l).cmp(&(b.data_offsets, r)));
        let file = Self {
            name,
            header: text.len() + start as usize,
            tensors,
        };
        if file.bytes() != bytes {
            return Err(broken(format!("{bytes} bytes, its header promises {}", file.bytes())).into());
        }
        Ok(file)
    }

    /// The length of the file.
    pub(crate) fn bytes(&self) -> u64 {
        let data = self.tensors.last().map_or(0, |(_, info)| info.data_offsets.1);
        (self.header + data) as u64
    }
}

/// Names of the files that hold the weights.
fn weight_files(folder: &Path) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    if folder.join(SINGLE).exists() {
        return Ok(vec![SINGLE.to_owned()]);
    }
    let path = folder.join(INDEX);
    if !path.exists() {
        let path = folder.to_path_buf();
        return Err(BakeError::NoWeights { path }.into());
    }
    let index: Index = read_json(&path, "safetensors index")?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    // A shard is a file of this folder, never a path out of it.
    if let Some(name) = names
        .iter()
        .find(|name| Path::new(name).file_name() != Some(name.as_ref()))
    {
        let reason = format!("weight_map names `{name}`, which is not a file name");
        return Err(BakeError::File { path, reason }.into());
    }
    Ok(names)
}

/// Names of the files that a copy of the model needs beside its weights.
fn others(folder: &Path) -> Result<Vec<String>, Error> {
    let io = |e| sst_artefact::Error::io("read", folder)(e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ending = Path::new(&name).extension().unwrap_or_default().to_string_lossy();
        let index = name.ends_with(".index.json") && name != INDEX;
        // The card describes another model.
        let described = name == MANIFEST_FILE || name == "README.md";
        if path.is_file() && !name.starts_with('.') && !described && !index && !WEIGHTS.contains(&&*ending) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
