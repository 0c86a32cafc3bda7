//! The LAPACK backend over the system's OpenBLAS: `dsygv` through ndarray-linalg.

use super::DenseSolver;
use crate::Error;
use ndarray::Array2;
use ndarray_linalg::{Cholesky, Eigh, UPLO};

/// Below this size LAPACK is the faster of the two: `benches/dense.rs` has it ahead at 4 and behind from 16 on.
pub(super) const FASTER_BELOW: usize = 8;

/// Solves through LAPACK.
#[derive(Debug, Clone, Copy, Default)]
pub struct LapackSolver;

impl DenseSolver for LapackSolver {
    fn name(&self) -> &'static str {
        "lapack"
    }

    fn solve(&self, a: &Array2<f64>, b: &Array2<f64>) -> Result<(Vec<f64>, Array2<f64>), Error> {
        // Both triangles are filled alike, so it does not matter which of them row-major input turns `Lower` into.
        // The second matrix comes back as its Cholesky factor and is dropped.
        match (a.to_owned(), b.to_owned()).eigh(UPLO::Lower) {
            Ok((values, (vectors, _))) => Ok((values.to_vec(), vectors)),
            Err(_) if b.cholesky(UPLO::Lower).is_err() => Err(Error::NotPositiveDefinite),
            Err(e) => Err(Error::Solver {
                solver: self.name(),
                reason: e.to_string(),
            }),
        }
    }
}
