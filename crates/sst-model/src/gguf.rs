//! Reads GGUF files (versions 2 and 3, little-endian): typed metadata, and tensors as f32.
//!
//! A file is a header, `kv_count` typed key-value pairs, `tensor_count` descriptions, padding, then the tensors'
//! bytes. Every length in it is checked against what is left of the file before it is believed.
//!
//! Source: the GGUF specification of ggml.

mod block;
#[cfg(test)]
pub(crate) mod build;
mod header;

pub use block::GgufType;

use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A GGUF file that cannot be read, or that does not hold what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The operating system refused to open or map the file.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The file's structure is wrong: other magic, other version, cut off, lengths that cannot be.
    #[error("{}: not a usable GGUF file: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// A metadata key is missing or has another type.
    #[error("{}: metadata key {key:?} is {found}, expected {expected}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The type that was asked for.
        expected: &'static str,
        /// The type that is there, or `missing`.
        found: &'static str,
    },
    /// No tensor of this name is in the file.
    #[error("{}: no tensor named {tensor:?}", path.display())]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// The name that was asked for.
        tensor: String,
    },
    /// The tensor is stored in a quantisation that this reader does not decode.
    #[error("{}: tensor {tensor:?} has ggml type {ggml_type}; known are 0 (F32), 1 (F16), 3 (Q4_1), 8 (Q8_0)", path.display())]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// ggml's number of the type.
        ggml_type: u32,
    },
}

/// One metadata value; integers are widened.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// `u8` to `u64`.
    Unsigned(u64),
    /// `i8` to `i64`.
    Signed(i64),
    /// An `f32`, kept as it is so that its shortest decimal survives.
    F32(f32),
    /// An `f64`.
    F64(f64),
    /// A truth value.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Elements of one type; arrays of arrays are refused.
    Array(Vec<GgufValue>),
}

impl GgufValue {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Unsigned(_) => "an unsigned integer",
            Self::Signed(_) => "a signed integer",
            Self::F32(_) | Self::F64(_) => "a float",
            Self::Bool(_) => "a bool",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
        }
    }
}

/// Where and how one tensor is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// Row-major shape, outermost dimension first (GGUF itself lists the innermost first).
    pub shape: Vec<usize>,
    /// Storage of its weights.
    pub dtype: GgufType,
    range: Range<usize>,
}

/// A mapped GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    map: Mmap,
    metadata: BTreeMap<String, GgufValue>,
    tensors: BTreeMap<String, GgufTensor>,
}

impl GgufFile {
    /// Maps the file and reads its metadata and the description of every tensor.
    ///
    /// # Errors
    /// [`GgufError::Io`] when it cannot be mapped, [`GgufError::Malformed`] when any length or offset does not fit
    /// in the file, [`GgufError::TensorType`] for a quantisation that is not decoded here.
    ///
    /// ```no_run
    /// let file = sst_model::GgufFile::open("model.gguf".as_ref())?;
    /// let embedding = file.tensor_f32("token_embd.weight")?;
    /// assert_eq!(embedding.len(), file.tensor("token_embd.weight")?.shape.iter().product::<usize>());
    /// # Ok::<(), sst_model::GgufError>(())
    /// ```
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let io = |source| GgufError::Io {
            path: path.to_path_buf(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only and private to this value. As with every mapped file, another process that
        // truncates it while it is open ends this one; all offsets are checked against the mapped length.
        #[expect(unsafe_code, reason = "memory maps have no safe constructor")]
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let (metadata, tensors) = header::read(path, &map)?;
        Ok(Self {
            path: path.to_path_buf(),
            map,
            metadata,
            tensors,
        })
    }

    /// The file's path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor by name.
    pub fn tensors(&self) -> &BTreeMap<String, GgufTensor> {
        &self.tensors
    }

    /// The description of one tensor.
    ///
    /// # Errors
    /// [`GgufError::NoTensor`] when the file has no tensor of this name.
    pub fn tensor(&self, name: &str) -> Result<&GgufTensor, GgufError> {
        self.tensors.get(name).ok_or_else(|| GgufError::NoTensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
        })
    }

    /// Decodes one tensor to f32, row-major in [`GgufTensor::shape`].
    ///
    /// # Errors
    /// [`GgufError::NoTensor`] when the file has no tensor of this name.
    pub fn tensor_f32(&self, name: &str) -> Result<Vec<f32>, GgufError> {
        self.tensor(name).map(|tensor| self.decode(tensor))
    }

    /// Decodes a tensor of this file.
    pub(crate) fn decode(&self, tensor: &GgufTensor) -> Vec<f32> {
        tensor.dtype.decode(&self.map[tensor.range.clone()])
    }

    /// The value under `key`, if any.
    pub fn get(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// The unsigned integer under `key`.
    ///
    /// # Errors
    /// [`GgufError::Key`] when it is missing or of another type.
    pub fn unsigned(&self, key: &str) -> Result<u64, GgufError> {
        match self.get(key) {
            Some(GgufValue::Unsigned(value)) => Ok(*value),
            other => Err(self.wrong_type(key, "an unsigned integer", other)),
        }
    }

    /// The 32-bit float under `key`.
    ///
    /// # Errors
    /// [`GgufError::Key`] when it is missing or of another type.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        match self.get(key) {
            Some(GgufValue::F32(value)) => Ok(*value),
            other => Err(self.wrong_type(key, "a float", other)),
        }
    }

    /// The text under `key`.
    ///
    /// # Errors
    /// [`GgufError::Key`] when it is missing or of another type.
    pub fn string(&self, key: &str) -> Result<&str, GgufError> {
        match self.get(key) {
            Some(GgufValue::String(value)) => Ok(value),
            other => Err(self.wrong_type(key, "a string", other)),
        }
    }

    /// The texts of the array under `key`.
    ///
    /// # Errors
    /// [`GgufError::Key`] when it is missing, no array, or holds anything but strings.
    pub fn strings(&self, key: &str) -> Result<Vec<&str>, GgufError> {
        self.array(key)?
            .iter()
            .map(|value| match value {
                GgufValue::String(text) => Ok(text.as_str()),
                other => Err(self.wrong_type(key, "an array of strings", Some(other))),
            })
            .collect()
    }

    /// The signed integers of the array under `key`.
    ///
    /// # Errors
    /// [`GgufError::Key`] when it is missing, no array, or holds anything but signed integers.
    pub fn signed_integers(&self, key: &str) -> Result<Vec<i64>, GgufError> {
        self.array(key)?
            .iter()
            .map(|value| match value {
                GgufValue::Signed(number) => Ok(*number),
                other => Err(self.wrong_type(key, "an array of signed integers", Some(other))),
            })
            .collect()
    }

    fn array(&self, key: &str) -> Result<&[GgufValue], GgufError> {
        match self.get(key) {
            Some(GgufValue::Array(values)) => Ok(values),
            other => Err(self.wrong_type(key, "an array", other)),
        }
    }

    fn wrong_type(&self, key: &str, expected: &'static str, found: Option<&GgufValue>) -> GgufError {
        GgufError::Key {
            path: self.path.clone(),
            key: key.to_owned(),
            expected,
            found: found.map_or("missing", GgufValue::type_name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::build::Builder;
    use super::*;
    use serde_json::Value;

    fn open(bytes: &[u8]) -> Result<GgufFile, GgufError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        GgufFile::open(&path)
    }

    fn sample() -> Builder {
        Builder::new()
            .kv("a.count", GgufValue::Unsigned(7))
            .kv("a.eps", GgufValue::F32(1e-5))
            .kv("a.on", GgufValue::Bool(true))
            .kv(
                "a.types",
                GgufValue::Array(vec![GgufValue::Signed(-3), GgufValue::Signed(4)]),
            )
            .kv(
                "a.words",
                GgufValue::Array(vec![GgufValue::String("é".into()), GgufValue::String(String::new())]),
            )
            .f32_tensor("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
            .f32_tensor("v", &[1], &[-0.5])
    }

    #[test]
    fn reads_back_metadata_and_tensors_in_both_versions() {
        for version in [2, 3] {
            let file = open(&Builder { version, ..sample() }.bytes()).unwrap();
            assert_eq!(file.unsigned("a.count").unwrap(), 7);
            assert_eq!(file.f32("a.eps").unwrap(), 1e-5);
            assert_eq!(file.get("a.on"), Some(&GgufValue::Bool(true)));
            assert_eq!(file.signed_integers("a.types").unwrap(), [-3, 4]);
            assert_eq!(file.strings("a.words").unwrap(), ["é", ""]);
            assert_eq!(file.tensors()["w"].shape, [2, 3]);
            assert_eq!(file.tensor_f32("w").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            assert_eq!(file.tensor_f32("v").unwrap(), [-0.5]);
        }
    }

    #[test]
    fn every_truncation_is_an_error_that_names_the_file() {
        let whole = sample().bytes();
        for n in 0..whole.len() {
            let message = open(&whole[..n]).expect_err("a cut file").to_string();
            assert!(message.contains("model.gguf"), "cut at {n}: {message}");
        }
    }

    #[test]
    fn false_lengths_neither_panic_nor_allocate() {
        let whole = sample().bytes();
        // Any eight header bytes replaced by huge numbers: each is an error or an unrelated valid value.
        for at in 0..whole.len() - 8 {
            for huge in [u64::MAX, u64::MAX / 2, 1 << 40] {
                let mut bytes = whole.clone();
                bytes[at..at + 8].copy_from_slice(&huge.to_le_bytes());
                if let Ok(file) = open(&bytes) {
                    file.tensors()
                        .keys()
                        .for_each(|name| drop(file.tensor_f32(name).unwrap()));
                }
            }
        }
    }

    #[test]
    fn wrong_magic_version_and_type_are_named() {
        let mut bytes = sample().bytes();
        bytes[0] = b'X';
        assert!(open(&bytes).unwrap_err().to_string().contains("does not start with"));
        let big_endian = Builder {
            version: 3_u32.swap_bytes(),
            ..sample()
        }
        .bytes();
        assert!(open(&big_endian).unwrap_err().to_string().contains("big-endian"));
        let mut k_quant = sample();
        k_quant.tensors[0].2 = 12;
        let error = open(&k_quant.bytes()).unwrap_err();
        assert!(
            matches!(&error, GgufError::TensorType { tensor, ggml_type: 12, .. } if tensor == "w"),
            "{error}"
        );
    }

    #[test]
    fn a_row_must_hold_whole_blocks() {
        let mut builder = Builder::new();
        // 64 weights are two blocks, but a row of 16 is half of one.
        builder.tensors.push(("w".into(), vec![4, 16], 3, vec![0; 40]));
        assert!(open(&builder.bytes()).unwrap_err().to_string().contains("[4, 16]"));
    }

    #[test]
    fn a_missing_or_mistyped_key_is_named() {
        let file = open(&sample().bytes()).unwrap();
        assert!(file.unsigned("b").unwrap_err().to_string().contains("\"b\" is missing"));
        let message = file.unsigned("a.eps").unwrap_err().to_string();
        assert!(
            message.contains("\"a.eps\" is a float, expected an unsigned integer"),
            "{message}"
        );
        assert!(file.tensor_f32("x").unwrap_err().to_string().contains("\"x\""));
    }

    /// Witness: the Python package `gguf` dequantised these random blocks (fixtures/model/make_dequant.py).
    #[test]
    fn decodes_blocks_to_the_same_bits_as_the_reference() {
        let golden: Value = serde_json::from_str(include_str!("../../../fixtures/model/dequant.json")).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 4);
        for case in cases {
            let id = case["ggml_type"].as_u64().unwrap() as u32;
            let numbers = |key: &str| -> Vec<u64> {
                case[key]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|x| x.as_u64().unwrap())
                    .collect()
            };
            let data: Vec<u8> = numbers("bytes").iter().map(|&b| b as u8).collect();
            let expected: Vec<u32> = numbers("f32_bits").iter().map(|&b| b as u32).collect();
            let mut builder = Builder::new();
            builder.tensors.push(("w".into(), vec![expected.len()], id, data));
            let got = open(&builder.bytes()).unwrap().tensor_f32("w").unwrap();
            assert_eq!(
                got.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                expected,
                "ggml type {id}"
            );
        }
    }
}
