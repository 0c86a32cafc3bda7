//! `samples`: the gradient rows of all shards in the order of the sample numbers, then the Gram matrices.

use super::differ;
use crate::fisher::{GRADIENTS_FILE, GradientFile};
use crate::{Error, FisherMeta, FisherShard, GradientStore, SampleFisher};
use sst_artefact::{Input, retire, write_atomic};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

pub(super) fn reduce(
    shards: &[FisherShard],
    meta: &FisherMeta,
    inputs: BTreeMap<String, Input>,
    out: &Path,
) -> Result<(), Error> {
    let shards: Vec<&FisherShard> = shards.iter().filter(|shard| !shard.meta.rows.is_empty()).collect();
    let files = shards
        .iter()
        .map(|shard| gradients(shard))
        .collect::<Result<Vec<_>, Error>>()?;
    for (shard, file) in shards.iter().zip(&files) {
        let names = [&shards[0].folder, &shard.folder].map(|folder| folder.display().to_string());
        files[0].layout().ensure_same(file.layout(), (&names[0], &names[1]))?;
        if files[0].dtype() != file.dtype() {
            let [there, here] = [&files[0], file].map(|f| f.dtype().to_string());
            return Err(differ(
                shards[0],
                shard,
                "the number type of the gradients",
                there,
                here,
            ));
        }
    }
    // (sample, shard, row): where each gradient is now.
    let mut order = Vec::new();
    for (i, shard) in shards.iter().enumerate() {
        order.extend(
            shard
                .meta
                .rows
                .iter()
                .enumerate()
                .map(|(row, sample)| (*sample, i, row)),
        );
    }
    let in_order = order.is_sorted();
    order.sort_unstable();
    if let Some(pair) = order.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let [left, right] = [0, 1].map(|i| shards[pair[i].1].folder.display());
        let reason = format!("sample {} has two gradients: in {left} and in {right}", pair[0].0);
        return Err(Error::ShardSet { reason });
    }
    if order.len() as u64 != meta.samples {
        let reason = format!("the shards hold {} gradients of {} samples", order.len(), meta.samples);
        return Err(Error::ShardSet { reason });
    }
    retire(out, &[])?;
    let target = out.join(GRADIENTS_FILE);
    match files.as_slice() {
        [whole] if in_order => link(whole.path(), &target)?,
        _ => {
            let mut store = GradientStore::create_stored(&target, files[0].layout(), order.len(), files[0].dtype())?;
            for module in files[0].widths().keys() {
                for (row, &(_, i, from)) in order.iter().enumerate() {
                    store.write_row_bytes(module, row, files[i].row_bytes(module, from)?)?;
                }
            }
            store.finish()?;
        }
    }
    SampleFisher::seal(out, meta, inputs)
}

fn gradients(shard: &FisherShard) -> Result<GradientFile, Error> {
    let file = GradientFile::open(&shard.folder.join(GRADIENTS_FILE))?;
    let (rows, samples) = (shard.meta.rows.len(), shard.meta.fisher.samples);
    if file.rows() != rows || rows as u64 != samples {
        let reason = format!(
            "has {} rows, but the manifest lists {rows} and counts {samples} samples",
            file.rows()
        );
        return Err(Error::in_file(file.path())(Error::content("gradients", reason)));
    }
    Ok(file)
}

/// A second name for the same file; a copy where the file system has none.
fn link(from: &Path, to: &Path) -> Result<(), Error> {
    if let Some(folder) = to.parent() {
        sst_artefact::create_dir(folder)?;
    }
    if to.exists() {
        std::fs::remove_file(to).map_err(sst_artefact::Error::io("remove", to))?;
    }
    if std::fs::hard_link(from, to).is_err() {
        let mut source = File::open(from).map_err(sst_artefact::Error::io("read", from))?;
        write_atomic(to, |writer| io::copy(&mut source, writer).map(drop))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{BATCHES, Q, SAMPLES, gradients, layout, samples};
    use super::super::reduce;
    use crate::{FisherShard, SampleFisher};
    use sst_adapter::{Dtype, ModulePath};

    #[test]
    fn gradients_come_out_in_the_samples_order() {
        let (g, q) = (gradients(), ModulePath::new(Q));
        for dtype in [Dtype::F32, Dtype::Bf16] {
            for of in 1..=BATCHES + 2 {
                let dir = tempfile::tempdir().unwrap();
                let out = dir.path().join("out");
                let shards = samples(&dir, dtype, of);
                reduce(&shards, &out).unwrap();
                // A second time over the first, to no other end.
                reduce(&shards, &out).unwrap();
                let fisher = SampleFisher::load(&out).unwrap();
                assert_eq!((fisher.samples(), fisher.layout()), (SAMPLES, &layout()));
                // Multiples of 1/64 below 1 are exact in bf16 too.
                assert_eq!(fisher.rows(&q, 0..SAMPLES).unwrap().mapv(f64::from), g);
                assert_eq!(fisher.gram(&q).unwrap(), g.dot(&g.t()));
                assert!(shards.iter().all(|shard| FisherShard::load(shard).is_ok()));
            }
        }
    }
}
