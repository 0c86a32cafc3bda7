//! Every sample's gradient on disk: per module one row-major matrix `[N, n_m]`, F32 or BF16, memory-mapped.
//!
//! A row is the gradient of sample i with respect to the module's entries of phi, A row-major, then B row-major, so that
//! n_m = r d_in + d_out r.

use crate::Error;
use crate::tensor_file::TensorFile;
use half::bf16;
use safetensors::Dtype;
use sst_adapter::{ModulePath, ParamLayout};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Key of the layout of phi in the file's metadata.
pub(crate) const LAYOUT_KEY: &str = "layout";

/// A finished gradient store, checked against its layout.
#[derive(Debug)]
pub(crate) struct GradientFile {
    file: TensorFile,
    layout: ParamLayout,
    widths: BTreeMap<ModulePath, usize>,
    rows: usize,
    dtype: Dtype,
}

impl GradientFile {
    /// Maps the file; checks that it holds one matrix per module of its layout, all of one number type and height.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = TensorFile::open(path)?;
        let layout: ParamLayout = file.metadata_json(LAYOUT_KEY)?;
        let widths = widths(&layout);
        let known = |name: &String| widths.contains_key(&ModulePath::new(name.as_str()));
        if let Some(name) = file.names().iter().find(|name| !known(name)) {
            return Err(file.error(name, "is not a module of the file's layout"));
        }
        let Some(first) = widths.keys().next() else {
            return Err(file.error(LAYOUT_KEY, "has no module"));
        };
        let (dtype, [rows, _]) = file.matrix(first.as_str())?;
        if ![Dtype::F32, Dtype::BF16].contains(&dtype) {
            return Err(file.error(first.as_str(), format!("is {dtype:?}, expected F32 or BF16")));
        }
        for (module, &width) in &widths {
            let found = file.matrix_of(module.as_str(), dtype)?;
            if found != [rows, width] {
                let reason = format!("is of shape {found:?}, expected {:?}", [rows, width]);
                return Err(file.error(module.as_str(), reason));
            }
        }
        Ok(Self {
            file,
            layout,
            widths,
            rows,
            dtype,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// Entries of each module, n_m.
    pub(crate) fn widths(&self) -> &BTreeMap<ModulePath, usize> {
        &self.widths
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub(crate) fn width(&self, module: &ModulePath) -> Result<usize, Error> {
        let width = self.widths.get(module).copied();
        width.ok_or_else(|| self.file.error(module.as_str(), "is missing"))
    }

    /// The byte of the file at which a module's rows begin.
    pub(crate) fn start(&self, module: &ModulePath) -> Result<u64, Error> {
        self.file.start(module.as_str())
    }

    /// One row as it lies in the file.
    pub(crate) fn row_bytes(&self, module: &ModulePath, row: usize) -> Result<&[u8], Error> {
        let length = self.width(module)? * self.dtype.bitsize() / 8;
        Ok(&self.file.bytes(module.as_str())?[row * length..(row + 1) * length])
    }

    /// Some columns of some rows, row-major, as f32 or f64: bf16 is exact in both.
    pub(crate) fn block<T: From<f32>>(
        &self,
        module: &ModulePath,
        rows: Range<usize>,
        cols: Range<usize>,
    ) -> Result<Vec<T>, Error> {
        let (height, width) = (self.rows, self.width(module)?);
        if rows.end > height || cols.end > width {
            let reason = format!("rows {rows:?} and columns {cols:?} are not within [{height}, {width}]");
            return Err(self.file.error(module.as_str(), reason));
        }
        let mut out = Vec::with_capacity(rows.len() * cols.len());
        for row in rows {
            let bytes = self.row_bytes(module, row)?;
            match self.dtype {
                Dtype::BF16 => {
                    let words = &bytes.as_chunks::<2>().0[cols.clone()];
                    out.extend(words.iter().map(|word| T::from(bf16::from_le_bytes(*word).to_f32())));
                }
                _ => {
                    let words = &bytes.as_chunks::<4>().0[cols.clone()];
                    out.extend(words.iter().map(|word| T::from(f32::from_le_bytes(*word))));
                }
            }
        }
        Ok(out)
    }
}

/// Entries of phi that belong to each module; a layout keeps them together, A before B.
pub(crate) fn widths(layout: &ParamLayout) -> BTreeMap<ModulePath, usize> {
    let mut widths = BTreeMap::new();
    for slot in layout.slots() {
        *widths.entry(slot.module()).or_default() += slot.len();
    }
    widths
}
