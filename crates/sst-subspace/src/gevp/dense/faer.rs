//! The pure Rust backend: B = L L^T, C = L^-1 A L^-T = Q Lambda Q^T, V = L^-T Q.

use super::DenseSolver;
use crate::Error;
use crate::decompose::symmetric_eigen_of;
use faer::{Mat, Side};
use ndarray::Array2;

/// Solves through the crate `faer`; needs no system library.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaerSolver;

impl DenseSolver for FaerSolver {
    fn name(&self) -> &'static str {
        "faer"
    }

    fn solve(&self, a: &Array2<f64>, b: &Array2<f64>) -> Result<(Vec<f64>, Array2<f64>), Error> {
        let n = a.nrows();
        let matrix = |m: &Array2<f64>| Mat::from_fn(n, n, |i, j| m[[i, j]]);
        let factor = matrix(b).llt(Side::Lower).map_err(|_| Error::NotPositiveDefinite)?;
        let l = factor.L();
        let mut half = matrix(a);
        l.solve_lower_triangular_in_place(&mut half); // L^-1 A
        let mut c = half.transpose().to_owned(); // A L^-T, as A is symmetric
        drop(half);
        l.solve_lower_triangular_in_place(&mut c); // L^-1 A L^-T
        let (values, mut vectors) = symmetric_eigen_of(c.as_ref())?;
        l.transpose().solve_upper_triangular_in_place(&mut vectors);
        Ok((values, Array2::from_shape_fn((n, n), |(i, j)| vectors[(i, j)])))
    }
}
