//! Writing per-sample gradients where they belong, as they come, so that none stay in memory.
//!
//! The file is laid out whole at the start, under another name; finished, it is renamed. Rows are written in place, so a
//! batch computed again after an interruption lands on its own bytes.

use super::gradient_file::{GradientFile, LAYOUT_KEY, widths};
use crate::Error;
use crate::tensor_writer::{TensorSpec, header};
use half::bf16;
use safetensors::Dtype as Stored;
use sst_adapter::{Dtype, ModulePath, ParamLayout, ParamSlot};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Name of the gradients inside the folder of a `samples` Fisher or shard.
pub const GRADIENTS_FILE: &str = "gradients.safetensors";

/// A gradient file that is being written.
///
/// ```
/// use sst_adapter::{Dtype, ParamLayout};
/// use sst_subspace::GradientStore;
/// # fn main() -> Result<(), sst_subspace::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("gradients.safetensors");
/// let layout = ParamLayout::new([("layers.0.q_proj.lora_A".to_owned(), 1, 2)])?;
/// let mut store = GradientStore::create(&path, &layout, 3, Dtype::F32)?;
/// store.write_rows(&"layers.0.q_proj".into(), &[2, 0], &[5.0, 6.0, 1.0, 2.0])?;
/// store.write_rows(&"layers.0.q_proj".into(), &[1], &[3.0, 4.0])?;
/// store.finish()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GradientStore {
    path: PathBuf,
    file: File,
    layout: ParamLayout,
    rows: usize,
    dtype: Stored,
    places: BTreeMap<ModulePath, Place>,
}

/// Where a module's matrix lies.
#[derive(Debug)]
struct Place {
    /// Byte at which it begins.
    start: u64,
    /// Entries of a row.
    width: usize,
}

impl GradientStore {
    /// Lays out a file of zeros for `rows` gradients of every module of `layout`, over any unfinished one.
    ///
    /// # Errors
    /// [`Error::Content`] for `f16`, in which small gradients vanish, or a module without an entry; a file that cannot be
    /// written.
    pub fn create(path: &Path, layout: &ParamLayout, rows: usize, dtype: Dtype) -> Result<Self, Error> {
        let stored = match dtype {
            Dtype::F32 => Stored::F32,
            Dtype::Bf16 => Stored::BF16,
            Dtype::F16 => {
                return Err(Error::content(
                    "dtype",
                    "is f16, in which small gradients vanish: use bf16",
                ));
            }
        };
        Self::create_stored(path, layout, rows, stored)
    }

    pub(crate) fn create_stored(path: &Path, layout: &ParamLayout, rows: usize, dtype: Stored) -> Result<Self, Error> {
        let slots: Vec<ParamSlot> = layout.clone().into();
        let json = serde_json::to_string(&slots).map_err(|e| Error::content(LAYOUT_KEY, e.to_string()))?;
        let widths = widths(layout);
        if let Some((module, _)) = widths.iter().find(|(_, width)| **width == 0) {
            return Err(Error::content(module.as_str(), "has no entry to take gradients of"));
        }
        let spec = |(module, width): (ModulePath, usize)| TensorSpec::new(module, dtype, [rows, width]);
        let specs: Vec<TensorSpec> = widths.into_iter().map(spec).collect();
        let (header, _) = header(BTreeMap::from([(LAYOUT_KEY.to_owned(), json)]), &specs)?;
        let length = header.len() + specs.iter().map(TensorSpec::bytes).sum::<usize>();
        if let Some(parent) = path.parent() {
            sst_artefact::create_dir(parent)?;
        }
        let part = part(path);
        File::create(&part)
            .and_then(|mut file| file.write_all(&header).and_then(|()| file.set_len(length as u64)))
            .map_err(sst_artefact::Error::io("write", &part))?;
        Self::open(path, &part)
    }

    /// Opens the file again after an interruption, finished or not, with what was written into it.
    ///
    /// # Errors
    /// A file that is missing, or that no store of this kind has laid out.
    pub fn open_existing(path: &Path) -> Result<Self, Error> {
        let part = part(path);
        if !part.exists() {
            std::fs::rename(path, &part).map_err(sst_artefact::Error::io("reopen", path))?;
        }
        Self::open(path, &part)
    }

    fn open(path: &Path, part: &Path) -> Result<Self, Error> {
        let laid_out = GradientFile::open(part)?;
        let place = |(module, &width): (&ModulePath, &usize)| {
            let start = laid_out.start(module)?;
            Ok((module.clone(), Place { start, width }))
        };
        Ok(Self {
            places: laid_out.widths().iter().map(place).collect::<Result<_, Error>>()?,
            path: path.to_path_buf(),
            file: OpenOptions::new()
                .write(true)
                .open(part)
                .map_err(sst_artefact::Error::io("write", part))?,
            layout: laid_out.layout().clone(),
            rows: laid_out.rows(),
            dtype: laid_out.dtype(),
        })
    }

    /// Where each tensor lies in phi.
    pub fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// Number of samples that it has room for.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Puts gradients of one module in place: `values` is `[rows.len(), n_m]`, row-major, A's entries before B's.
    ///
    /// # Errors
    /// [`Error::Content`] for a module or row that the file has no room for, or an entry that is not finite;
    /// [`Error::Length`]; a file that cannot be written.
    pub fn write_rows(&mut self, module: &ModulePath, rows: &[usize], values: &[f32]) -> Result<(), Error> {
        let width = self.place(module)?.width;
        if values.len() != rows.len() * width {
            return Err(Error::Length {
                op: "write_rows",
                expected: rows.len() * width,
                got: values.len(),
            });
        }
        if let Some(i) = values.iter().position(|x| !x.is_finite()) {
            let reason = format!(
                "gradient of row {} is {} at entry {}",
                rows[i / width],
                values[i],
                i % width
            );
            return Err(self.error(module, reason));
        }
        let dtype = self.dtype;
        let mut bytes = Vec::with_capacity(width * size_of::<f32>());
        for (&row, entries) in rows.iter().zip(values.chunks_exact(width)) {
            bytes.clear();
            match dtype {
                Stored::BF16 => bytes.extend(entries.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes())),
                _ => bytes.extend(entries.iter().flat_map(|x| x.to_le_bytes())),
            }
            self.write_row_bytes(module, row, &bytes)?;
        }
        Ok(())
    }

    /// Puts a row that already has the file's number type in place.
    pub(crate) fn write_row_bytes(&mut self, module: &ModulePath, row: usize, bytes: &[u8]) -> Result<(), Error> {
        let place = self.place(module)?;
        let length = place.width * self.dtype.bitsize() / 8;
        if row >= self.rows || bytes.len() != length {
            let reason = format!(
                "row {row} of {} bytes is none of {} rows of {length}",
                bytes.len(),
                self.rows
            );
            return Err(self.error(module, reason));
        }
        let at = place.start + (row * length) as u64;
        Ok(write_at(&mut self.file, bytes, at).map_err(sst_artefact::Error::io("write", part(&self.path)))?)
    }

    /// Waits until everything written is on the disk; call it before a checkpoint says so.
    ///
    /// # Errors
    /// [`Error::Artefact`] when the disk refuses.
    pub fn sync(&self) -> Result<(), Error> {
        Ok(self
            .file
            .sync_all()
            .map_err(sst_artefact::Error::io("write", part(&self.path)))?)
    }

    /// Gives the file its name, under which it can be read.
    ///
    /// # Errors
    /// [`Error::Artefact`] when the disk refuses.
    pub fn finish(self) -> Result<(), Error> {
        self.sync()?;
        Ok(std::fs::rename(part(&self.path), &self.path).map_err(sst_artefact::Error::io("write", &self.path))?)
    }

    fn place(&self, module: &ModulePath) -> Result<&Place, Error> {
        self.places
            .get(module)
            .ok_or_else(|| self.error(module, "has no place"))
    }

    fn error(&self, module: &ModulePath, reason: impl Into<String>) -> Error {
        Error::in_file(&self.path)(Error::content(module.as_str(), reason))
    }
}

/// The name of the file while it is being written.
fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

#[cfg(unix)]
fn write_at(file: &mut File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn write_at(file: &mut File, bytes: &[u8], offset: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: &str = "model.layers.2.self_attn.q_proj";
    const DOWN: &str = "model.layers.10.mlp.down_proj";

    fn layout() -> ParamLayout {
        let tensor = |name: &str, side: &str, rows, cols| (format!("{name}.lora_{side}"), rows, cols);
        ParamLayout::new([
            tensor(DOWN, "A", 1, 2),
            tensor(DOWN, "B", 3, 1),
            tensor(Q, "A", 1, 3),
            tensor(Q, "B", 1, 1),
        ])
        .unwrap()
    }

    /// A value that names its row and column.
    fn row(width: usize, row: usize) -> Vec<f32> {
        (0..width).map(|col| row as f32 + col as f32 / 64.0).collect()
    }

    #[test]
    fn rows_land_where_they_belong_in_both_number_types() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("new/gradients.safetensors");
            let mut store = GradientStore::create(&path, &layout(), 4, dtype).unwrap();
            assert_eq!((store.rows(), store.layout()), (4, &layout()));
            for (name, width) in [(Q, 4), (DOWN, 5)] {
                let two = [row(width, 3), row(width, 1)].concat();
                store.write_rows(&name.into(), &[3, 1], &two).unwrap();
                store.write_rows(&name.into(), &[0], &row(width, 0)).unwrap();
            }
            assert!(!path.exists());
            store.finish().unwrap();
            let file = GradientFile::open(&path).unwrap();
            assert_eq!((file.rows(), file.layout()), (4, &layout()));
            for (name, width) in [(Q, 4), (DOWN, 5)] {
                let mut expected = [row(width, 0), row(width, 1), vec![0.0; width], row(width, 3)].concat();
                assert_eq!(
                    file.block::<f32>(&name.into(), 0..4, 0..width).unwrap(),
                    expected,
                    "{dtype} {name}"
                );
                expected.truncate(2 * width);
                let last: Vec<f32> = expected.chunks(width).map(|r| r[width - 1]).collect();
                assert_eq!(file.block::<f32>(&name.into(), 0..2, width - 1..width).unwrap(), last);
            }
            assert!(
                file.block::<f32>(&Q.into(), 3..5, 0..4).is_err() && file.block::<f32>(&Q.into(), 0..1, 0..5).is_err()
            );
        }
    }

    #[test]
    fn an_interrupted_store_goes_on_and_so_does_a_finished_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(GRADIENTS_FILE);
        assert!(
            GradientStore::open_existing(&path)
                .unwrap_err()
                .to_string()
                .contains("cannot reopen")
        );
        let mut store = GradientStore::create(&path, &layout(), 2, Dtype::F32).unwrap();
        store.write_rows(&Q.into(), &[0], &row(4, 0)).unwrap();
        drop(store);
        let mut store = GradientStore::open_existing(&path).unwrap();
        store.write_rows(&Q.into(), &[1], &row(4, 1)).unwrap();
        store.finish().unwrap();
        let mut store = GradientStore::open_existing(&path).unwrap();
        store.write_rows(&Q.into(), &[0], &row(4, 0)).unwrap();
        store.finish().unwrap();
        let file = GradientFile::open(&path).unwrap();
        assert_eq!(
            file.block::<f32>(&Q.into(), 0..2, 0..4).unwrap(),
            [row(4, 0), row(4, 1)].concat()
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_has_no_place_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(GRADIENTS_FILE);
        let error = GradientStore::create(&path, &layout(), 2, Dtype::F16).unwrap_err();
        assert!(error.to_string().contains("f16"));
        let empty = ParamLayout::new([(format!("{Q}.lora_A"), 0, 3), (format!("{Q}.lora_B"), 1, 0)]).unwrap();
        let error = GradientStore::create(&path, &empty, 2, Dtype::F32).unwrap_err();
        assert_eq!(error.to_string(), format!("{Q}: has no entry to take gradients of"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut store = GradientStore::create(&path, &layout(), 2, Dtype::Bf16).unwrap();
        let mut message = |name: &str, rows: &[usize], values: &[f32]| {
            store.write_rows(&name.into(), rows, values).unwrap_err().to_string()
        };
        assert!(message("lm_head", &[0], &[1.0]).contains("lm_head: has no place"));
        assert!(message(Q, &[2], &[1.0; 4]).contains("row 2"));
        assert!(message(Q, &[0, 1], &[1.0; 7]).contains("got 7 values, expected 8"));
        let nan = message(Q, &[1, 0], &[0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0]);
        assert!(nan.contains(Q) && nan.contains("row 0 is NaN at entry 1"), "{nan}");
    }
}
