//! One weight file, baked: what stays is copied by the system, what changes goes through a block of memory, so that a file
//! of any size needs little of it. Hashing the input and waiting for the disk, which take as long, run beside that.

use super::model_folder::WeightFile;
use super::update::{Change, add_rows};
use super::{BakeError, BakedFile};
use crate::Error;
use safetensors::Dtype;
use sst_adapter::LowRank;
use sst_artefact::{sha256_file, write_atomic};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

/// Bytes of a changed tensor that are in memory at once, but for rows that are longer: with their change they fit a core's
/// second-level cache.
const BLOCK: usize = 1 << 18;
/// Bytes copied between two reports of progress.
const COPY: usize = 1 << 24;
/// Bytes written before the disk is asked to take them: at the end of a file little is left to wait for.
const SYNC: usize = 1 << 26;

/// Bytes of the file that are treated alike.
struct Block<'a> {
    bytes: usize,
    rows: Option<Rows<'a>>,
}

/// The rows of one tensor that a block holds.
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
    let mut result = Ok((String::new(), Change::default()));
    let written = write_atomic(target, |output| {
        // Past the buffer, into which every block would be copied once more.
        result = run(&blocks, [source, target], output.get_mut(), progress);
        match &result {
            Ok(_) => output.get_ref().sync_data(),
            Err(_) => Err(io::Error::other("not filled")),
        }
    });
    let (input, Change { delta, lost }) = result?;
    written?;
    Ok(BakedFile {
        input,
        bytes: file.bytes(),
        changed: file
            .tensors
            .iter()
            .filter(|(name, _)| changes.contains_key(name))
            .count(),
        delta,
        lost,
    })
}

/// Takes every block from the file `source` to `output`, the file `target`; the hash of `source`, and the change.
fn run(
    blocks: &[Block],
    [source, target]: [&Path; 2],
    output: &mut File,
    progress: &mut dyn FnMut(u64),
) -> Result<(String, Change), Error> {
    let writing = |error| sst_artefact::Error::io("write", target)(error);
    let synced = output.try_clone().map_err(writing)?;
    let (sync, syncs) = sync_channel(1);
    std::thread::scope(|scope| {
        let hasher = scope.spawn(|| sha256_file(source));
        let syncer = scope.spawn(move || syncs.into_iter().try_for_each(|()| synced.sync_data()));
        // The channel goes with it, which ends the syncer.
        let change = write(blocks, [source, target], output, sync, progress);
        joined(syncer).map_err(writing)?;
        let change = change?;
        Ok((joined(hasher)?, change))
    })
}

/// Copies and changes block after block; asks for a `sync` now and then, unless one is under way.
fn write(
    blocks: &[Block],
    [source, target]: [&Path; 2],
    output: &mut File,
    sync: SyncSender<()>,
    progress: &mut dyn FnMut(u64),
) -> Result<Change, Error> {
    let reading = |error| sst_artefact::Error::io("read", source)(error);
    let writing = |error| sst_artefact::Error::io("write", target)(error);
    let mut input = File::open(source).map_err(reading)?;
    let (mut change, mut unsynced) = (Change::default(), 0);
    let mut bytes = Vec::new();
    for block in blocks {
        if let Some(rows) = &block.rows {
            bytes.resize(block.bytes, 0);
            input.read_exact(&mut bytes).map_err(reading)?;
            change += rows.add(&mut bytes)?;
            output.write_all(&bytes).map_err(writing)?;
        } else {
            let length = block.bytes as u64;
            if io::copy(&mut (&mut input).take(length), output).map_err(writing)? < length {
                return Err(reading(io::ErrorKind::UnexpectedEof.into()).into());
            }
        }
        progress(block.bytes as u64);
        unsynced += block.bytes;
        if unsynced >= SYNC && sync.try_send(()).is_ok() {
            unsynced = 0;
        }
    }
    Ok(change)
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Rows<'_> {
    fn add(&self, bytes: &mut [u8]) -> Result<Change, BakeError> {
        add_rows(bytes, self.dtype, self.change, self.first).ok_or_else(|| BakeError::NotFinite {
            tensor: self.tensor.to_owned(),
            dtype: format!("{:?}", self.dtype),
        })
    }
}

/// The whole file in order: blocks of a changed tensor hold whole rows of it, the others reach over tensors.
fn blocks<'a>(file: &'a WeightFile, changes: &'a BTreeMap<String, LowRank>) -> Vec<Block<'a>> {
    let mut blocks = Vec::new();
    let plain = |blocks: &mut Vec<Block<'a>>, bytes: &mut usize| {
        while *bytes > 0 {
            let block = COPY.min(*bytes);
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
