//! Safetensors files written one tensor at a time, so that no second copy of the data is in memory.
//!
//! The layout is that of the safetensors crate's own writer (number type descending, then name; the header padded to
//! 8 bytes), except that metadata keys are sorted: the same content gives the same bytes.

use crate::Error;
use crate::tensor_file::{FORMAT, FORMAT_KEY};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use sst_artefact::write_atomic;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// A matrix to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: [usize; 2],
}

impl TensorSpec {
    pub(crate) fn new(name: impl Into<String>, dtype: Dtype, shape: [usize; 2]) -> Self {
        let name = name.into();
        Self { name, dtype, shape }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.shape[0] * self.shape[1] * self.dtype.bitsize() / 8
    }
}

/// Where the entries of one tensor go, in row-major order.
pub(crate) struct TensorSink<'w> {
    writer: &'w mut dyn Write,
    path: &'w Path,
    written: usize,
}

impl TensorSink<'_> {
    pub(crate) fn f32s(&mut self, entries: impl IntoIterator<Item = f32>) -> Result<(), Error> {
        entries.into_iter().try_for_each(|x| self.bytes(&x.to_le_bytes()))
    }

    pub(crate) fn f64s(&mut self, entries: impl IntoIterator<Item = f64>) -> Result<(), Error> {
        entries.into_iter().try_for_each(|x| self.bytes(&x.to_le_bytes()))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.written += bytes.len();
        Ok(self
            .writer
            .write_all(bytes)
            .map_err(sst_artefact::Error::io("write", self.path))?)
    }
}

/// Writes `path` atomically and durably; `fill` is called once per tensor, in the file's order, with its index in `tensors`.
///
/// # Errors
/// [`Error::Content`] for a name given twice or a tensor filled with too much or too little; whatever `fill` returns; a
/// file that cannot be written. The earlier file stays then.
pub(crate) fn write_tensors<E: From<Error>>(
    path: &Path,
    metadata: BTreeMap<String, String>,
    tensors: &[TensorSpec],
    mut fill: impl FnMut(usize, &mut TensorSink) -> Result<(), E>,
) -> Result<(), E> {
    let (header, order) = header(metadata, tensors).map_err(Error::in_file(path))?;
    let mut failed = None;
    let written = write_atomic(path, |file| {
        file.write_all(&header)?;
        for &i in &order {
            if let Err(error) = fill_one(path, file, &tensors[i], |sink| fill(i, sink)) {
                failed = Some(error);
                return Err(io::Error::other("not filled"));
            }
        }
        file.flush()?;
        file.get_ref().sync_data()
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(written.map_err(Error::from)?),
    }
}

fn fill_one<E: From<Error>>(
    path: &Path,
    file: &mut BufWriter<&mut File>,
    tensor: &TensorSpec,
    fill: impl FnOnce(&mut TensorSink) -> Result<(), E>,
) -> Result<(), E> {
    let mut sink = TensorSink {
        writer: file,
        path,
        written: 0,
    };
    fill(&mut sink)?;
    let (expected, got) = (tensor.bytes(), sink.written);
    if expected != got {
        let reason = format!("filled with {got} bytes, expected {expected}");
        return Err(Error::in_file(path)(Error::content(&tensor.name, reason)).into());
    }
    Ok(())
}

/// The bytes before the entries, and the order of the tensors after them.
pub(crate) fn header(
    mut metadata: BTreeMap<String, String>,
    tensors: &[TensorSpec],
) -> Result<(Vec<u8>, Vec<usize>), Error> {
    metadata.insert(FORMAT_KEY.to_owned(), FORMAT.to_string());
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by(|&l, &r| (tensors[r].dtype.cmp(&tensors[l].dtype)).then(tensors[l].name.cmp(&tensors[r].name)));
    let json =
        |value: serde_json::Result<serde_json::Value>| value.map_err(|e| Error::content("header", e.to_string()));
    let mut entries = serde_json::Map::new();
    entries.insert("__metadata__".to_owned(), json(serde_json::to_value(metadata))?);
    let (mut names, mut offset) = (BTreeSet::new(), 0);
    for &i in &order {
        let TensorSpec { name, dtype, shape } = &tensors[i];
        if !names.insert(name) {
            return Err(Error::content(name, "is given twice"));
        }
        let end = offset + tensors[i].bytes();
        let info = TensorInfo {
            dtype: *dtype,
            shape: shape.to_vec(),
            data_offsets: (offset, end),
        };
        entries.insert(name.clone(), json(serde_json::to_value(info))?);
        offset = end;
    }
    let mut text = serde_json::Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(size_of::<u64>()), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    Ok((bytes, order))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor_file::TensorFile;
    use safetensors::tensor::TensorView;
    use std::collections::HashMap;

    fn specs() -> Vec<TensorSpec> {
        vec![
            TensorSpec::new("b", Dtype::F32, [1, 3]),
            TensorSpec::new("a", Dtype::F32, [2, 2]),
            TensorSpec::new("c", Dtype::F64, [1, 1]),
        ]
    }

    fn fill(i: usize, sink: &mut TensorSink) -> Result<(), Error> {
        match i {
            0 => sink.f32s([1.0, 2.0, 3.0]),
            1 => sink.f32s([4.0, 5.0, 6.0, 7.0]),
            _ => sink.f64s([8.0]),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_safetensors_crate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        write_tensors(&path, BTreeMap::new(), &specs(), fill).unwrap();
        let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|x| x.to_le_bytes()).collect() };
        let (a, b, c) = (
            bytes(&[4.0, 5.0, 6.0, 7.0]),
            bytes(&[1.0, 2.0, 3.0]),
            8f64.to_le_bytes(),
        );
        let views = [
            ("c", TensorView::new(Dtype::F64, vec![1, 1], &c).unwrap()),
            ("a", TensorView::new(Dtype::F32, vec![2, 2], &a).unwrap()),
            ("b", TensorView::new(Dtype::F32, vec![1, 3], &b).unwrap()),
        ];
        let metadata = HashMap::from([("format".to_owned(), "1".to_owned())]);
        let expected = safetensors::serialize(views, Some(metadata)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn metadata_survives_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let metadata: BTreeMap<_, _> = ["z", "b", "k"].map(|k| (k.to_owned(), format!("\"{k}\""))).into();
        write_tensors(&path, metadata, &specs(), fill).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.metadata_json::<String>("k").unwrap(), "k");
        assert_eq!(file.names(), ["c", "a", "b"]);
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let at = |key: &str| text.find(&format!("\"{key}\":")).unwrap();
        assert!(at("b") < at("format") && at("format") < at("k") && at("k") < at("z"));
    }

    #[test]
    fn a_failed_fill_keeps_the_old_file_and_its_own_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        write_tensors(&path, BTreeMap::new(), &specs(), fill).unwrap();
        let before = std::fs::read(&path).unwrap();
        let failed = write_tensors(&path, BTreeMap::new(), &specs(), |i, sink| match i {
            1 => Err(Error::NoFisher),
            _ => fill(i, sink),
        });
        assert!(matches!(failed, Err(Error::NoFisher)));
        let failed = write_tensors(&path, BTreeMap::new(), &specs(), |_, sink| sink.f32s([0.0; 3]));
        let message = failed.unwrap_err().to_string();
        assert!(message.ends_with("c: filled with 12 bytes, expected 8"), "{message}");
        let twice = [
            TensorSpec::new("a", Dtype::F32, [1, 1]),
            TensorSpec::new("a", Dtype::F32, [1, 1]),
        ];
        let message = write_tensors(&path, BTreeMap::new(), &twice, fill)
            .unwrap_err()
            .to_string();
        assert!(message.ends_with("a: is given twice"), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
