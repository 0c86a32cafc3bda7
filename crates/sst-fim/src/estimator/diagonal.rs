//! Diagonal estimators: with g_i the gradient of sample i's loss with respect to all entries of A and B,
//!
//! - `diag-variance`: Var_i[g_i] = E_i[g_i^2] - E_i[g_i]^2, elementwise, population variance;
//! - `diag`: E_i[g_i^2], the diagonal of the empirical Fisher information (Kunstner et al. 2019, equation 3).
//!
//! 8 bytes per parameter for `diag` and 16 for `diag-variance`, whatever the number of samples.

use super::{Accumulate, Measured, Sums};
use crate::Error;
use sst_subspace::FisherShard;
use tch::{Device, Kind, Tensor};

/// Sums of the per-sample gradients' squares, and of the gradients themselves where the variance is wanted.
pub(super) struct Diagonal {
    sums: Sums,
    variance: bool,
}

impl Diagonal {
    pub fn new(variance: bool, device: Device) -> Self {
        Self {
            sums: Sums::new(device),
            variance,
        }
    }
}

impl Accumulate for Diagonal {
    fn add(&mut self, measured: &Measured) -> Result<(), Error> {
        let over_batch = |t: &Tensor| t.sum_dim_intlist([0].as_slice(), false, Kind::Double);
        for module in measured.gradients() {
            for (factor, gradients) in [("lora_A", &module.a), ("lora_B", &module.b)] {
                let gradients = gradients.to_kind(Kind::Double);
                if self.variance {
                    self.sums
                        .add(format!("first/{}.{factor}", module.path), &over_batch(&gradients));
                }
                self.sums.add(
                    format!("second/{}.{factor}", module.path),
                    &over_batch(&gradients.square()),
                );
            }
        }
        Ok(())
    }

    fn tensors(&self) -> Vec<(String, [usize; 2])> {
        self.sums.tensors()
    }

    fn download(&self, name: &str) -> Result<Vec<f64>, Error> {
        Ok(super::doubles(self.sums.get(name)?))
    }

    fn restore(&mut self, checkpoint: &FisherShard) -> Result<(), Error> {
        self.sums.restore(checkpoint)
    }
}
