//! A safetensors file, memory-mapped: the header is read once, the entries only where they are asked for.
//!
//! Files carry their format's number under the metadata key `format`, so that an older reader says so instead of
//! misreading a newer file.

use crate::Error;
use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The format that this version writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;
/// Key of the format's number in a file's metadata.
pub(crate) const FORMAT_KEY: &str = "format";

/// A whole safetensors file of a format that this version knows.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    map: Mmap,
    /// Where the entries begin.
    data: usize,
    header: Metadata,
}

impl TensorFile {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    /// A file that cannot be read, is no whole safetensors file or was written in a newer format.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(sst_artefact::Error::io("read", path))?;
        #[allow(unsafe_code)]
        // SAFETY: artefacts are written whole and renamed into place; nobody changes them under a reader.
        let map = unsafe { Mmap::map(&file) }.map_err(sst_artefact::Error::io("read", path))?;
        let (length, header) = SafeTensors::read_metadata(&map).map_err(|e| Error::in_file(path)(e.into()))?;
        let file = Self {
            path: path.to_path_buf(),
            data: size_of::<u64>() + length,
            map,
            header,
        };
        // Files of the first version have no number; Python's writers put the name of a framework there.
        let format = file
            .metadata(FORMAT_KEY)
            .and_then(|format| format.parse().ok())
            .unwrap_or(1);
        if format > FORMAT {
            let reason = format!("written by a newer version (format {format}); this one reads up to {FORMAT}");
            return Err(file.error(FORMAT_KEY, reason));
        }
        Ok(file)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors' names in the file's order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// The JSON value under a metadata key.
    pub(crate) fn metadata_json<T: DeserializeOwned>(&self, key: &str) -> Result<T, Error> {
        let text = self
            .metadata(key)
            .ok_or_else(|| self.error(key, "is missing from the metadata"))?;
        serde_json::from_str(text).map_err(|e| self.error(key, e.to_string()))
    }

    /// Number type and shape of a matrix.
    pub(crate) fn matrix(&self, name: &str) -> Result<(Dtype, [usize; 2]), Error> {
        let info = self.info(name)?;
        let &[rows, cols] = info.shape.as_slice() else {
            return Err(self.error(name, format!("is of shape {:?}, expected a matrix", info.shape)));
        };
        Ok((info.dtype, [rows, cols]))
    }

    /// Shape of a matrix of one number type.
    pub(crate) fn matrix_of(&self, name: &str, dtype: Dtype) -> Result<[usize; 2], Error> {
        let (found, shape) = self.matrix(name)?;
        if found != dtype {
            return Err(self.error(name, format!("is {found:?} of shape {shape:?}, expected {dtype:?}")));
        }
        Ok(shape)
    }

    /// The entries as they lie in the file, row-major and little-endian.
    pub(crate) fn bytes(&self, name: &str) -> Result<&[u8], Error> {
        let (start, end) = self.info(name)?.data_offsets;
        Ok(&self.map[self.data + start..self.data + end])
    }

    /// The byte of the file at which a tensor's entries begin.
    pub(crate) fn start(&self, name: &str) -> Result<u64, Error> {
        Ok((self.data + self.info(name)?.data_offsets.0) as u64)
    }

    /// The entries of an F32 matrix, row-major.
    pub(crate) fn f32s(&self, name: &str) -> Result<impl ExactSizeIterator<Item = f32> + Clone, Error> {
        self.matrix_of(name, Dtype::F32)?;
        let (words, _) = self.bytes(name)?.as_chunks::<4>();
        Ok(words.iter().map(|word| f32::from_le_bytes(*word)))
    }

    /// The entries of an F64 matrix, row-major.
    pub(crate) fn f64s(&self, name: &str) -> Result<impl ExactSizeIterator<Item = f64> + Clone, Error> {
        self.matrix_of(name, Dtype::F64)?;
        let (words, _) = self.bytes(name)?.as_chunks::<8>();
        Ok(words.iter().map(|word| f64::from_le_bytes(*word)))
    }

    /// An error about a tensor or key of this file.
    pub(crate) fn error(&self, what: &str, reason: impl Into<String>) -> Error {
        Error::in_file(&self.path)(Error::content(what, reason))
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, Error> {
        self.header.info(name).ok_or_else(|| self.error(name, "is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;
    use std::collections::HashMap;

    /// A file by the safetensors crate's own writer: `x`, F32 of shape [2, 1].
    fn write(path: &Path, metadata: &[(&str, &str)]) -> Vec<u8> {
        let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![2, 1], &data).unwrap();
        let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let bytes = safetensors::serialize([("x", view)], Some(metadata)).unwrap();
        std::fs::write(path, &bytes).unwrap();
        bytes
    }

    fn message(path: &Path) -> String {
        TensorFile::open(path).unwrap_err().to_string()
    }

    #[test]
    fn a_newer_format_is_refused_and_older_ones_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        for metadata in [&[][..], &[("format", "1")], &[("format", "pt")]] {
            write(&path, metadata);
            let file = TensorFile::open(&path).unwrap();
            assert_eq!(file.f32s("x").unwrap().collect::<Vec<_>>(), [1.5, -2.0]);
        }
        write(&path, &[("format", "7")]);
        let message = message(&path);
        let expected = "a.safetensors: format: written by a newer version (format 7); this one reads up to 1";
        assert!(message.ends_with(expected), "{message}");
    }

    #[test]
    fn every_cut_of_a_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let whole = write(&path, &[]);
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let message = message(&path);
            assert!(
                message.contains("a.safetensors: not a whole safetensors file"),
                "{length}: {message}"
            );
        }
        std::fs::write(&path, b"# a text file, longer than any header's length").unwrap();
        assert!(message(&path).contains("not a whole safetensors file"));
        assert!(message(&dir.path().join("b")).contains("cannot read"));
    }

    #[test]
    fn errors_name_the_file_the_tensor_and_what_was_expected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        write(&path, &[("inputs", "{")]);
        let file = TensorFile::open(&path).unwrap();
        let message = |error: Error| error.to_string().replace(&format!("{}: ", path.display()), "");
        assert_eq!(message(file.bytes("y").unwrap_err()), "y: is missing");
        assert_eq!(
            message(file.f64s("x").err().unwrap()),
            "x: is F32 of shape [2, 1], expected F64"
        );
        let error = file.metadata_json::<Vec<String>>("layout").unwrap_err();
        assert_eq!(message(error), "layout: is missing from the metadata");
        let error = file.metadata_json::<Vec<String>>("inputs").unwrap_err();
        assert!(message(error).starts_with("inputs: "));
    }
}
