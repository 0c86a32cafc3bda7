//! A change of one module's weight in f64: as two thin factors while its rank is small, dense when it is not.

use super::super::matrix::times_f64;
use crate::Error;
use ndarray::{Array2, ArrayView2, Axis, concatenate};
use sst_adapter::{LowRank, decompose};

/// X = b a.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Thin {
    /// `[d_out, r]`.
    pub b: Array2<f64>,
    /// `[r, d_in]`.
    pub a: Array2<f64>,
}

/// A filtered change.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// Of small rank.
    Thin(Thin),
    /// `[d_out, d_in]`.
    Dense(Array2<f64>),
}

impl Thin {
    /// The change of an adapter.
    pub fn of(change: &LowRank) -> Self {
        Self {
            b: change.b.mapv(f64::from),
            a: change.a.mapv(f64::from),
        }
    }

    /// X + scale Y, at the sum of the ranks; both are of one module.
    pub fn plus(&self, scale: f64, other: &Thin) -> Self {
        let scaled = scale * &other.b;
        Self {
            b: concatenate(Axis(1), &[self.b.view(), scaled.view()]).expect("of one module"),
            a: concatenate(Axis(0), &[self.a.view(), other.a.view()]).expect("of one module"),
        }
    }

    /// tr(G X A X^T) = sum of (b^T G b) * (a A a^T), entry by entry; a side that is not given is the identity.
    pub fn square(&self, output: Option<ArrayView2<f64>>, input: Option<ArrayView2<f64>>) -> f64 {
        let of = |x: ArrayView2<f64>, metric: Option<ArrayView2<f64>>| match metric {
            Some(metric) => times_f64(x, metric).dot(&x.t()),
            None => x.dot(&x.t()),
        };
        (of(self.b.t(), output) * of(self.a.view(), input)).sum()
    }

    /// X, `[d_out, d_in]`.
    pub fn dense(&self) -> Array2<f64> {
        times_f64(self.b.view(), self.a.view())
    }
}

impl Change {
    /// X + Y.
    pub fn plus(self, other: Change) -> Change {
        match (self, other) {
            (Change::Thin(x), Change::Thin(y)) => Change::Thin(x.plus(1.0, &y)),
            (Change::Thin(x), Change::Dense(y)) | (Change::Dense(y), Change::Thin(x)) => Change::Dense(y + x.dense()),
            (Change::Dense(x), Change::Dense(y)) => Change::Dense(x + y),
        }
    }

    /// ||X||_F^2.
    pub fn square(&self) -> f64 {
        match self {
            Change::Thin(x) => x.square(None, None),
            Change::Dense(x) => x.iter().map(|x| x * x).sum(),
        }
    }

    /// The change at a rank of at most `rank`, and the relative error of what is cut off.
    ///
    /// # Errors
    /// As [`LowRank::compress`] and [`LowRank::from_dense`].
    pub fn cut(self, rank: usize) -> Result<(LowRank, f64), Error> {
        let single = |x: Array2<f64>| x.mapv(|x| x as f32);
        let thin = |b, a| LowRank {
            a: single(a),
            b: single(b),
        };
        Ok(match self {
            Change::Thin(Thin { b, a }) if a.nrows() <= rank => (thin(b, a), 0.0),
            Change::Thin(Thin { b, a }) => {
                // Terms of an oblique filter cancel: before anything is rounded, b is made orthonormal.
                let (q, r) = decompose::thin_qr(b.view());
                thin(q, times_f64(r.view(), a.view())).compress(rank)?
            }
            Change::Dense(x) => LowRank::from_dense(single(x).view(), rank)?,
        })
    }
}
