//! The folder of a basis: `basis.safetensors` with JSON metadata, beside a manifest whose configuration is the
//! [`Selection`].

use crate::fisher::config_of;
use crate::{Error, Selection};
use ndarray::{Array2, ArrayView2};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sst_artefact::{Input, MANIFEST_FILE, Manifest, retire, write_atomic};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Name of the tensors inside a basis folder.
pub const BASIS_FILE: &str = "basis.safetensors";

/// Key of the layout in the file's metadata.
pub(crate) const LAYOUT_KEY: &str = "layout";

/// A basis folder that was read, not yet understood.
pub(crate) struct BasisFile {
    path: PathBuf,
    selection: Selection,
    bytes: Vec<u8>,
}

/// The tensors of a basis file.
pub(crate) struct Tensors<'a> {
    file: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl BasisFile {
    /// Reads manifest and tensors; the manifest must be of that kind.
    pub fn read(folder: &Path, kind: &str) -> Result<Self, Error> {
        let manifest = Manifest::read(folder)?;
        let selection = config_of(&manifest, kind).map_err(Error::in_file(&folder.join(MANIFEST_FILE)))?;
        let path = folder.join(BASIS_FILE);
        let bytes = std::fs::read(&path).map_err(sst_artefact::Error::io("read", &path))?;
        Ok(Self { path, selection, bytes })
    }

    /// How the directions were chosen.
    pub fn selection(&self) -> Selection {
        self.selection.clone()
    }

    /// Builds a basis of the tensors; an error names the file.
    pub fn parse<T>(&self, build: impl FnOnce(&Tensors) -> Result<T, Error>) -> Result<T, Error> {
        Tensors::new(&self.bytes)
            .and_then(|tensors| build(&tensors))
            .map_err(Error::in_file(&self.path))
    }
}

impl<'a> Tensors<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let file = SafeTensors::deserialize(bytes)?;
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self { file, metadata })
    }

    /// A JSON value of the file's metadata.
    pub fn metadata<T: DeserializeOwned>(&self, key: &str) -> Result<T, Error> {
        let text = self
            .metadata
            .get(key)
            .ok_or_else(|| Error::content(key, "is missing from the metadata"))?;
        serde_json::from_str(text).map_err(|e| Error::content(key, e.to_string()))
    }

    /// Whether the file has a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_ok()
    }

    /// A U64 tensor, row-major.
    pub fn u64s(&self, name: &str) -> Result<Vec<u64>, Error> {
        let words = self.words(name, Dtype::U64)?;
        Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// An F64 tensor, row-major.
    pub fn f64s(&self, name: &str) -> Result<Vec<f64>, Error> {
        let words = self.words(name, Dtype::F64)?;
        Ok(words.iter().map(|word| f64::from_le_bytes(*word)).collect())
    }

    /// An F64 matrix.
    pub fn matrix(&self, name: &str) -> Result<Array2<f64>, Error> {
        let view = self.file.tensor(name)?;
        let &[rows, cols] = view.shape() else {
            return Err(Error::content(
                name,
                format!("is of shape {:?}, expected a matrix", view.shape()),
            ));
        };
        let values = self.f64s(name)?;
        Array2::from_shape_vec((rows, cols), values).map_err(|e| Error::content(name, e.to_string()))
    }

    fn words(&self, name: &str, dtype: Dtype) -> Result<&'a [[u8; 8]], Error> {
        let view = self.file.tensor(name)?;
        if view.dtype() != dtype {
            let reason = format!("is {:?}, expected {dtype:?}", view.dtype());
            return Err(Error::content(name, reason));
        }
        Ok(view.data().as_chunks::<8>().0)
    }
}

/// Gathers the tensors of a basis and writes the folder.
pub(crate) struct BasisWriter {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    metadata: HashMap<String, String>,
}

impl BasisWriter {
    /// With one metadata value as JSON. One only: the format keeps several in a random order.
    pub fn new<T: Serialize>(key: &str, value: &T) -> Result<Self, Error> {
        let text = serde_json::to_string(value).map_err(|e| Error::content(key, e.to_string()))?;
        Ok(Self {
            tensors: Vec::new(),
            metadata: HashMap::from([(key.to_owned(), text)]),
        })
    }

    pub fn f64s(&mut self, name: impl Into<String>, shape: Vec<usize>, values: &[f64]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push((name.into(), Dtype::F64, shape, bytes));
    }

    pub fn u64s(&mut self, name: impl Into<String>, shape: Vec<usize>, values: &[u64]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push((name.into(), Dtype::U64, shape, bytes));
    }

    pub fn matrix(&mut self, name: impl Into<String>, m: ArrayView2<f64>) {
        let bytes = m.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors
            .push((name.into(), Dtype::F64, vec![m.nrows(), m.ncols()], bytes));
    }

    /// Writes the tensors, then the manifest; that of an earlier basis goes before.
    pub fn write(
        self,
        folder: &Path,
        kind: &str,
        selection: &Selection,
        inputs: BTreeMap<String, Input>,
        facts: serde_json::Value,
    ) -> Result<(), Error> {
        let views = self
            .tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let file = safetensors::serialize(views, Some(self.metadata))?;
        write_atomic(&folder.join(BASIS_FILE), |w| {
            w.write_all(&file)?;
            w.flush()?;
            retire(folder, &[]).map_err(io::Error::other)
        })?;
        let mut manifest = Manifest::new(kind, selection);
        manifest.inputs = inputs;
        manifest.facts = facts;
        manifest.write(folder)?;
        Ok(())
    }
}
