//! `samples`: every sample's gradient of the LoRA parameters, streamed to a file as the batches come.
//!
//! The exact empirical Fisher is F = G^T G / N with the gradients as rows of G; the Gram matrices are computed once all rows are
//! there. Nothing stays in memory.

use super::{Accumulate, Measured};
use crate::Error;
use sst_adapter::{Dtype, ParamLayout};
use sst_model::floats;
use sst_subspace::{FisherShard, GRADIENTS_FILE, GradientStore};
use std::path::Path;
use tch::Tensor;

/// The rows of a shard.
pub(super) struct Samples {
    store: GradientStore,
    numbers: Vec<usize>,
}

impl Samples {
    /// Lays out a file for the samples `numbers` (ascending), or opens the one that is there.
    pub fn new(
        folder: &Path,
        layout: &ParamLayout,
        numbers: &[usize],
        dtype: Dtype,
        there: bool,
    ) -> Result<Self, Error> {
        let path = folder.join(GRADIENTS_FILE);
        let store = if there {
            GradientStore::open_existing(&path)?
        } else {
            GradientStore::create(&path, layout, numbers.len(), dtype)?
        };
        let numbers = numbers.to_vec();
        Ok(Self { store, numbers })
    }
}

impl Accumulate for Samples {
    fn add(&mut self, measured: &Measured) -> Result<(), Error> {
        let row_of = |number: &usize| self.numbers.binary_search(number).ok();
        let rows: Vec<usize> = measured.batch.numbers.iter().filter_map(row_of).collect();
        for module in measured.gradients() {
            let flat = |t: &Tensor| t.flatten(1, 2);
            let values = floats(&Tensor::cat(&[flat(&module.a), flat(&module.b)], 1)); // [batch, n_m]
            self.store.write_rows(&module.path, &rows, &values)?;
        }
        Ok(())
    }

    fn tensors(&self) -> Vec<(String, [usize; 2])> {
        Vec::new()
    }

    fn download(&self, name: &str) -> Result<Vec<f64>, Error> {
        Err(Error::NoSum { name: name.to_owned() })
    }

    fn restore(&mut self, _checkpoint: &FisherShard) -> Result<(), Error> {
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(self.store.sync()?)
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        Ok(self.store.finish()?)
    }
}
