//! `kron` (K-FAC, Martens & Grosse 2015): per linear y = W x, with d_t the gradient of the sample's loss at y,
//!
//! A = sum_t w_t x_t x_t^T / sum_t w_t and G = sum_t v_t d_t d_t^T / sum_t v_t, over the tokens of all samples.
//!
//! | weighting | w_t | v_t |
//! | --- | --- | --- |
//! | `all` | 1 | 1 |
//! | `completion` | 1 for scored tokens | the same |
//! | `completion-and-last-prompt` | 1 for scored tokens and the one before them | the same |
//! | `gradient-norm` | ||d_t||^2 | 1 |
//!
//! With `gradient-norm`, A is the trace of E[d d^T (x) x x^T] over the outputs, up to its scale: the A to use with G = I. It
//! differs between the linears that read one input; otherwise they share their A.
//!
//! A batch's products are f32, their sums f64. Both factors are symmetric: only blocks on and below the diagonal are computed.

use super::{Accumulate, Batch, Measured, Sums, doubles};
use crate::Error;
use sst_adapter::ModulePath;
use sst_subspace::{FisherShard, TokenWeighting};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Device, Kind, Tensor};

/// Matrices narrower than this are multiplied whole: a smaller product costs more than it saves.
const NARROW: i64 = 512;
/// Strips that a wide matrix is cut into: 5/8 of the whole product is computed.
const STRIPS: i64 = 4;

/// Sums of weighted outer products, and of the weights.
pub(super) struct Kronecker {
    weighting: TokenWeighting,
    modules: BTreeSet<ModulePath>,
    sums: Sums,
    inputs: BTreeMap<ModulePath, ModulePath>,
}

impl Kronecker {
    pub fn new(weighting: TokenWeighting, modules: BTreeSet<ModulePath>, device: Device) -> Self {
        Self {
            weighting,
            modules,
            sums: Sums::new(device),
            inputs: BTreeMap::new(),
        }
    }

    /// `weight` is f64 [1, 1].
    fn add_factor(&mut self, factor: &str, of: &ModulePath, rows: &Tensor, weight: &Tensor) {
        let d = rows.size()[1];
        let sum = self.sums.entry(format!("{factor}/{of}"), [d, d]);
        add_lower_products(sum, rows);
        self.sums.add(format!("{factor}.weight/{of}"), weight);
    }
}

impl Accumulate for Kronecker {
    fn add(&mut self, measured: &Measured) -> Result<(), Error> {
        let reading = measured.reading;
        let (size, device) = (reading.input.size(), reading.input.device());
        let counted = counted(measured.batch, size[1] as usize, self.weighting);
        let all = counted.len() as i64 == size[0] * size[1];
        let counted_at = (!all).then(|| Tensor::from_slice(&counted).to_device(device));
        let pick = |t: &Tensor| {
            let flat = t.flatten(0, 1).to_kind(Kind::Float);
            match &counted_at {
                Some(at) => flat.index_select(0, at),
                None => flat,
            }
        };
        let x = pick(&reading.input); // [counted, d_in]
        let count = Tensor::full([1, 1], counted.len() as f64, (Kind::Double, device));
        let mut shared: Option<ModulePath> = None;
        for linear in reading
            .linears
            .iter()
            .filter(|l| self.modules.contains(&l.path))
            .collect::<Vec<_>>()
        {
            let path = &linear.path;
            let d = pick(&linear.output); // [counted, d_out]
            if self.weighting == TokenWeighting::GradientNorm {
                let norm = d.linalg_norm(2.0, [-1i64].as_slice(), true, Kind::Float);
                // Stays on the device: to read it would be to wait for it.
                let total = norm.square().sum(Kind::Double).reshape([1, 1]);
                self.add_factor("A", path, &(&x * norm), &total);
                self.inputs.insert(path.clone(), path.clone());
            } else {
                if shared.is_none() {
                    self.add_factor("A", path, &x, &count);
                }
                let input = shared.get_or_insert_with(|| path.clone());
                self.inputs.insert(path.clone(), input.clone());
            }
            self.add_factor("G", path, &d, &count);
        }
        Ok(())
    }

    fn tensors(&self) -> Vec<(String, [usize; 2])> {
        self.sums.tensors()
    }

    fn download(&self, name: &str) -> Result<Vec<f64>, Error> {
        let sum = self.sums.get(name)?;
        Ok(doubles(&(sum.tril(0) + sum.tril(-1).tr())))
    }

    fn restore(&mut self, checkpoint: &FisherShard) -> Result<(), Error> {
        self.inputs = checkpoint.meta.inputs.clone();
        self.sums.restore(checkpoint)
    }

    fn inputs(&self) -> BTreeMap<ModulePath, ModulePath> {
        self.inputs.clone()
    }
}

/// Numbers of the tokens that count, in the flattened batch of width `seq`.
fn counted(batch: &Batch, seq: usize, weighting: TokenWeighting) -> Vec<i64> {
    let of_row = |(at, row): (usize, &&sst_model::Encoded)| {
        let from = match weighting {
            TokenWeighting::All | TokenWeighting::GradientNorm => 0,
            TokenWeighting::Completion => row.scored_from,
            TokenWeighting::CompletionAndLastPrompt => row.scored_from.saturating_sub(1),
        };
        (from..row.ids.len()).map(move |t| (at * seq + t) as i64)
    };
    batch.rows.iter().enumerate().flat_map(of_row).collect()
}

/// Adds rows^T rows to the blocks of `sum` on and below the diagonal; what stands above it has no meaning.
fn add_lower_products(sum: &Tensor, rows: &Tensor) {
    let d = rows.size()[1];
    let strips = if d < NARROW { 1 } else { STRIPS };
    for strip in 0..strips {
        let (from, to) = (d * strip / strips, d * (strip + 1) / strips);
        let product = rows.narrow(1, from, to - from).tr().matmul(&rows.narrow(1, 0, to));
        let _ = sum.narrow(0, from, to - from).narrow(1, 0, to).g_add_(&product);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_give_the_lower_triangle_of_the_whole_product() {
        for d in [3, 7, NARROW + 5] {
            let rows = Tensor::arange(4 * d, (Kind::Double, Device::Cpu)).sin().reshape([4, d]);
            let sum = Tensor::ones([d, d], (Kind::Double, Device::Cpu));
            add_lower_products(&sum, &rows);
            let whole = rows.tr().matmul(&rows) + 1.0;
            let gap = (sum.tril(0) - whole.tril(0)).abs().max().double_value(&[]);
            // Sums of four products of numbers below 1.
            assert!(gap <= 8.0 * f64::EPSILON, "d {d}: {gap}");
        }
    }
}
