//! Singular vectors of several changes, side by side.

use super::matrix::{assemble, polar};
use crate::Error;
use ndarray::{Array1, Array2, Axis, concatenate, s};
use sst_adapter::{LowRank, LowRankSvd};

/// Left vectors, singular values and right vectors in one order.
#[derive(Debug, Default)]
pub(super) struct SingularVectors {
    left: Vec<Array2<f64>>,
    values: Vec<f64>,
    right: Vec<Array2<f64>>,
}

impl SingularVectors {
    /// Adds the first `k` of `weight` times a decomposed change; the sign goes to the left vectors.
    pub fn push(&mut self, svd: &LowRankSvd, k: usize, weight: f64) {
        self.left.push(&svd.u.slice(s![.., ..k]) * weight.signum());
        self.values.extend(svd.s.iter().take(k).map(|s| s * weight.abs()));
        self.right.push(svd.vt.slice(s![..k, ..]).to_owned());
    }

    /// The singular values in the order of the vectors.
    pub fn values(&self) -> Array1<f64> {
        self.values.iter().copied().collect()
    }

    /// polar(U) diag(values) polar(V)^T.
    pub fn assemble(&self, values: &Array1<f64>) -> Result<LowRank, Error> {
        let beside = |arrays: &[Array2<f64>], axis| {
            let views: Vec<_> = arrays.iter().map(|array| array.view()).collect();
            concatenate(Axis(axis), &views).expect("all of one module")
        };
        let u = polar(beside(&self.left, 1).view())?; // [d_out, n]
        let vt = polar(beside(&self.right, 0).view())?; // [n, d_in]
        Ok(assemble(u.view(), values, vt.view()))
    }
}
