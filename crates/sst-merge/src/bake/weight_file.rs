//! One weight file, baked: one thread reads and hashes, the others change and write, so that a file of any size needs a
//! few blocks of memory.

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
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes read at once, but for rows that are longer: all blocks on the way and the change of one fit a core's second-level
/// cache, which makes reading and writing twice as fast as with blocks of 1 MB.
const BLOCK: usize = 1 << 18;
/// Blocks on the way.
const BUFFERS: usize = 4;

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

/// Takes every block from the file `source` to `output`, the file `target`; the hash of what was read, and the change.
fn run(
    blocks: &[Block],
    [source, target]: [&Path; 2],
    output: &mut File,
    progress: &mut dyn FnMut(u64),
) -> Result<(String, Change), Error> {
    let (give, full) = sync_channel(BUFFERS);
    let (give_back, empty) = sync_channel(BUFFERS);
    (0..BUFFERS).for_each(|_| _ = give_back.send(Vec::new()));
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || read(blocks, source, &empty, &give));
        // Takes the channels with it when it fails, which ends the reader.
        let change = move || {
            let mut change = Change::default();
            for (block, mut bytes) in blocks.iter().zip(full) {
                change += block.add(&mut bytes)?;
                output
                    .write_all(&bytes)
                    .map_err(sst_artefact::Error::io("write", target))?;
                progress(bytes.len() as u64);
                // The reader may have read its last block.
                _ = give_back.send(bytes);
            }
            Ok::<_, Error>(change)
        };
        let change = change();
        let hash = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((hash, change?))
    })
}

/// Reads and hashes block after block until nobody takes them any more.
fn read(
    blocks: &[Block],
    source: &Path,
    empty: &Receiver<Vec<u8>>,
    give: &SyncSender<Vec<u8>>,
) -> Result<String, Error> {
    let mut input = File::open(source).map_err(sst_artefact::Error::io("read", source))?;
    let mut hash = StreamHash::default();
    for (block, mut bytes) in blocks.iter().zip(empty) {
        bytes.resize(block.bytes, 0);
        input
            .read_exact(&mut bytes)
            .map_err(sst_artefact::Error::io("read", source))?;
        hash.update(&bytes);
        if give.send(bytes).is_err() {
            break;
        }
    }
    Ok(hash.finish())
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
