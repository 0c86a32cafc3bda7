//! What an estimator makes of the readings of a backward pass.

mod diagonal;
mod kronecker;
mod samples;

use crate::{Error, FisherConfig};
use diagonal::Diagonal;
use kronecker::Kronecker;
use samples::Samples;
use sst_adapter::{ModulePath, ParamLayout};
use sst_model::{Encoded, FactorGradients, Reading};
use sst_subspace::{Estimator, FisherShard};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Sums over the samples of a shard, kept where the model is.
///
/// One pass over the samples may feed several of them.
pub(crate) trait Accumulate {
    /// Adds what one batch says about the linears of one input.
    fn add(&mut self, measured: &Measured) -> Result<(), Error>;

    /// Names and shapes of the sums, in a fixed order; none before the first batch.
    fn tensors(&self) -> Vec<(String, [usize; 2])>;

    /// The entries of one sum, row-major.
    fn download(&self, name: &str) -> Result<Vec<f64>, Error>;

    /// Takes up the sums of a checkpoint.
    fn restore(&mut self, checkpoint: &FisherShard) -> Result<(), Error>;

    /// From a module to the one that its A is stored under; empty where there is no A.
    fn inputs(&self) -> BTreeMap<ModulePath, ModulePath> {
        BTreeMap::new()
    }

    /// Puts what is not a sum safely on the disk, before a checkpoint says that it is there.
    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends the shard, before its last checkpoint.
    fn finish(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// What one estimator works on.
pub(crate) struct Subject {
    /// The linears that it is about.
    pub modules: BTreeSet<ModulePath>,
    /// The parameters that gradients are taken of, and their adapter's place in the stack.
    pub parameters: Option<(usize, ParamLayout)>,
    /// Where the model is.
    pub device: Device,
}

/// One batch of encoded samples.
pub(crate) struct Batch<'a> {
    /// The samples.
    pub rows: Vec<&'a Encoded>,
    /// Their numbers within the run.
    pub numbers: Vec<usize>,
}

/// A reading, the batch that it is of, and the per-sample gradients, computed once however many ask for them.
pub(crate) struct Measured<'a> {
    pub reading: &'a Reading,
    pub batch: &'a Batch<'a>,
    adapter: Option<usize>,
    gradients: OnceCell<Vec<FactorGradients>>,
}

impl<'a> Measured<'a> {
    pub fn new(reading: &'a Reading, batch: &'a Batch<'a>, adapter: Option<usize>) -> Self {
        Self {
            reading,
            batch,
            adapter,
            gradients: OnceCell::new(),
        }
    }

    pub fn gradients(&self) -> &[FactorGradients] {
        let compute = |at| self.reading.per_sample(at).collect();
        self.gradients
            .get_or_init(|| self.adapter.map(compute).unwrap_or_default())
    }
}

/// The estimator that `config` names. `numbers` are the numbers of the shard's samples, ascending; `folder` is the shard's, for
/// what is not kept in memory; with a checkpoint it goes on from there.
pub(crate) fn accumulator(
    config: &FisherConfig,
    subject: &Subject,
    numbers: &[usize],
    folder: &Path,
    checkpoint: Option<&FisherShard>,
) -> Result<Box<dyn Accumulate>, Error> {
    let device = subject.device;
    let mut accumulator: Box<dyn Accumulate> = match config.estimator {
        Estimator::Diag => Box::new(Diagonal::new(false, device)),
        Estimator::DiagVariance => Box::new(Diagonal::new(true, device)),
        Estimator::Kron => Box::new(Kronecker::new(config.weighting, subject.modules.clone(), device)),
        Estimator::Samples => {
            let missing = || Error::NoParameters {
                estimator: config.estimator,
            };
            let (_, layout) = subject.parameters.as_ref().ok_or_else(missing)?;
            let there = checkpoint.is_some();
            Box::new(Samples::new(folder, layout, numbers, config.gradient_dtype, there)?)
        }
    };
    if let Some(checkpoint) = checkpoint {
        accumulator.restore(checkpoint)?;
    }
    Ok(accumulator)
}

/// Running sums by name, f64, on one device.
#[derive(Debug)]
pub(crate) struct Sums {
    device: Device,
    tensors: BTreeMap<String, Tensor>,
}

impl Sums {
    pub fn new(device: Device) -> Self {
        let tensors = BTreeMap::new();
        Self { device, tensors }
    }

    /// The sum under `name`, begun as zeros.
    pub fn entry(&mut self, name: String, size: [i64; 2]) -> &Tensor {
        let zeros = || Tensor::zeros(size, (Kind::Double, self.device));
        self.tensors.entry(name).or_insert_with(zeros)
    }

    pub fn add(&mut self, name: String, term: &Tensor) {
        match self.tensors.get_mut(&name) {
            Some(sum) => _ = sum.g_add_(term),
            None => _ = self.tensors.insert(name, term.copy()),
        }
    }

    pub fn tensors(&self) -> Vec<(String, [usize; 2])> {
        let shape = |t: &Tensor| [t.size()[0] as usize, t.size()[1] as usize];
        let named = |(name, t): (&String, &Tensor)| (name.clone(), shape(t));
        self.tensors.iter().map(named).collect()
    }

    pub fn get(&self, name: &str) -> Result<&Tensor, Error> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::NoSum { name: name.to_owned() })
    }

    pub fn restore(&mut self, checkpoint: &FisherShard) -> Result<(), Error> {
        for name in checkpoint.names() {
            let [rows, cols] = checkpoint.shape(&name)?;
            let sum = Tensor::from_slice(&checkpoint.tensor(&name)?).reshape([rows as i64, cols as i64]);
            self.tensors.insert(name, sum.to_device(self.device));
        }
        Ok(())
    }
}

/// All entries of an f64 tensor, row-major.
pub(crate) fn doubles(tensor: &Tensor) -> Vec<f64> {
    let flat = tensor.to_device(Device::Cpu).contiguous();
    let mut values = vec![0f64; flat.numel()];
    let count = values.len();
    flat.copy_data(&mut values, count);
    values
}
