//! Singular vectors of several changes, side by side.

use super::matrix::polar;
use crate::Error;
use ndarray::{Array1, Array2, Axis, concatenate, s};
use sst_adapter::LowRankSvd;

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

    /// The polar factors of the left `[d_out, n]` and right vectors `[n, d_in]`, and the values between them.
    pub fn orthogonal(&self) -> Result<(Array2<f64>, Array1<f64>, Array2<f64>), Error> {
        let views = |arrays: &[Array2<f64>], axis| {
            let views: Vec<_> = arrays.iter().map(|array| array.view()).collect();
            concatenate(Axis(axis), &views).expect("all of one module")
        };
        let (u, vt) = (views(&self.left, 1), views(&self.right, 0));
        Ok((
            polar(u.view())?,
            self.values.iter().copied().collect(),
            polar(vt.view())?,
        ))
    }
}
