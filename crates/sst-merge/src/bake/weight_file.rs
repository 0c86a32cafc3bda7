//! One weight file, baked: read, change and write run side by side, a block each, so that a file of any size needs three
//! blocks of memory.

use super::model_folder::WeightFile;
use super::update::{Change, add_rows};
use super::{BakeError, BakedFile};
use crate::Error;
use safetensors::Dtype;
use sst_adapter::LowRank;
use sst_artefact::{StreamHash, write_atomic};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Bytes read at once, but for rows that are longer: what fits a core's cache with the change beside it.
const BLOCK: usize = 1 << 20;

/// Bytes of the file that are treated alike.
struct Block<'a> {
    bytes: usize,
    rows: Option<Rows<'a>>,
}

/// The rows of one tensor that a block holds.
#[derive(Clone, Copy)]
struct Rows<'a> {
    tensor: &'a str,
    dtype: Dtype,
    change: &'a LowRank,
    first: usize,
}

/// Writes `target`: the file at `source` with `changes` added, every other byte as it was.
///
/// `progress` is told how many bytes were written since it was last called.
///
/// # Errors
/// [`BakeError::NotFinite`]; a file that cannot be read or written. What was at `target` stays then.
pub(super) fn bake_file(
    source: &Path,
    file: &WeightFile,
    changes: &BTreeMap<String, LowRank>,
    target: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<BakedFile, Error> {
    let blocks = blocks(file, changes);
    let mut pipeline = Pipeline {
        source,
        target,
        input: File::open(source).map_err(sst_artefact::Error::io("read", source))?,
        read: StreamHash::default(),
        written: StreamHash::default(),
        change: Change::default(),
    };
    let mut result = Ok(());
    let written = write_atomic(target, |output| {
        result = pipeline.run(&blocks, output, progress);
        if result.is_err() {
            return Err(io::Error::other("not filled"));
        }
        output.flush()?;
        output.get_ref().sync_data()
    });
    result?;
    written?;
    Ok(BakedFile {
        input: pipeline.read.finish(),
        output: pipeline.written.finish(),
        changed: file
            .tensors
            .iter()
            .filter(|(name, _)| changes.contains_key(name))
            .count(),
        delta: pipeline.change.delta,
        lost: pipeline.change.lost,
    })
}

/// Both ends of the blocks' way, and what is summed on it.
struct Pipeline<'a> {
    source: &'a Path,
    target: &'a Path,
    input: File,
    read: StreamHash,
    written: StreamHash,
    change: Change,
}

impl Pipeline<'_> {
    /// Each step reads a block, changes the one before it and writes the one before that, all at once.
    fn run(
        &mut self,
        blocks: &[Block],
        output: &mut (dyn Write + Send),
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        let mut buffers = [const { Vec::new() }; 3];
        for step in 0..blocks.len() + 2 {
            let block = |behind: usize| step.checked_sub(behind).and_then(|step| blocks.get(step));
            let [to_read, to_change, to_write] = &mut buffers;
            let read = || {
                let Some(block) = block(0) else { return Ok(()) };
                to_read.resize(block.bytes, 0);
                self.input.read_exact(to_read)?;
                self.read.update(to_read);
                Ok(())
            };
            let change = || block(1).map_or(Ok(Change::default()), |block| block.add(to_change));
            let write = || {
                let Some(block) = block(2) else { return Ok(0) };
                self.written.update(to_write);
                output.write_all(to_write)?;
                Ok(block.bytes as u64)
            };
            let (read, (changed, written)) = rayon::join(read, || rayon::join(change, write));
            read.map_err(sst_artefact::Error::io("read", self.source))?;
            self.change += changed?;
            progress(written.map_err(sst_artefact::Error::io("write", self.target))?);
            buffers.rotate_right(1);
        }
        Ok(())
    }
}

impl Block<'_> {
    fn add(&self, bytes: &mut [u8]) -> Result<Change, BakeError> {
        let Some(rows) = self.rows else {
            return Ok(Change::default());
        };
        add_rows(bytes, rows.dtype, rows.change, rows.first).ok_or_else(|| BakeError::NotFinite {
            tensor: rows.tensor.to_owned(),
            dtype: format!("{:?}", rows.dtype),
        })
    }
}

/// The whole file in order: blocks of a changed tensor hold whole rows of it, the others reach over tensors.
fn blocks<'a>(file: &'a WeightFile, changes: &'a BTreeMap<String, LowRank>) -> Vec<Block<'a>> {
    let mut blocks = Vec::new();
    let plain = |blocks: &mut Vec<Block<'a>>, bytes: &mut usize| {
        while *bytes > 0 {
            let block = BLOCK.min(*bytes);
            blocks.push(Block {
                bytes: block,
                rows: None,
            });
            *bytes -= block;
        }
    };
    let mut unchanged = file.header;
    for (tensor, info) in &file.tensors {
        let (start, end) = info.data_offsets;
        let Some(change) = changes.get(tensor).filter(|_| end > start) else {
            unchanged += end - start;
            continue;
        };
        plain(&mut blocks, &mut unchanged);
        let [d_out, d_in] = change.shape();
        let row = d_in * info.dtype.bitsize() / 8;
        let count = (BLOCK / row).max(1);
        for first in (0..d_out).step_by(count) {
            let rows = Rows {
                tensor,
                dtype: info.dtype,
                change,
                first,
            };
            blocks.push(Block {
                bytes: count.min(d_out - first) * row,
                rows: Some(rows),
            });
        }
    }
    plain(&mut blocks, &mut unchanged);
    blocks
}
