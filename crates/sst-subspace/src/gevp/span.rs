//! The joint span of the rows of G_s `[N_s, n]` and G_u `[N_u, n]` in orthonormal coordinates, from Gram blocks alone.
//!
//! With S = diag(1 / ||g_i||), so that no sample is lost beside a longer one, S K S = Q D Q^T and the columns of
//!
//! ```text
//! E = G^T S Q D^(-1/2)    [n, m],    G E = S^-1 Q D^(1/2) = X    [N_s + N_u, m]
//! ```
//!
//! over the m entries of D above rounding are orthonormal. Every Fisher of these samples, reweighted or not, lives in
//! E: F_s = E X_s^T diag(weights) X_s E^T. What rounding adds to the rank of K is cut off here; 1 / eps would amplify it.

use super::dense::{dense, frobenius, symmetrised};
use crate::Error;
use crate::decompose::symmetric_eigen;
use ndarray::{Array1, Array2, ArrayView1, Axis, s};

/// Directions below this times (N_s + N_u) eps of the largest are rounding.
const RANK_TOLERANCE: f64 = 8.0;
/// A Gram matrix summed in f64 has no eigenvalue below this share of the largest, negated.
pub(super) const INDEFINITE: f64 = 1e-9;

/// Inner products of the per-sample gradients of one module: all that the solver needs of them.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleGrams {
    /// The module, for error messages.
    pub module: String,
    /// K_ss = G_s G_s^T, `[N_s, N_s]`, not divided by N_s.
    pub safety: Array2<f64>,
    /// K_su = G_s G_u^T, `[N_s, N_u]`.
    pub cross: Array2<f64>,
    /// K_uu = G_u G_u^T, `[N_u, N_u]`.
    pub utility: Array2<f64>,
    /// n, the number of parameters of the module.
    pub parameters: usize,
}

impl SampleGrams {
    /// N_s and N_u.
    pub fn samples(&self) -> (usize, usize) {
        self.cross.dim()
    }

    /// tr(F_u) = tr(K_uu) / N_u.
    pub fn utility_trace(&self) -> f64 {
        self.utility.diag().sum() / self.utility.nrows() as f64
    }

    /// The joint Gram matrix [[K_ss, K_su], [K_us, K_uu]], checked.
    fn joint(&self) -> Result<Array2<f64>, Error> {
        let (n_s, n_u) = self.cross.dim();
        for (gram, n) in [(&self.safety, n_s), (&self.utility, n_u)] {
            if gram.dim() != (n, n) || n == 0 {
                return Err(Error::Shapes {
                    op: "sample GEVP: a Gram block and the cross block",
                    left: gram.dim().into(),
                    right: self.cross.dim().into(),
                });
            }
        }
        let safety = symmetrised("K_ss", self.safety.view())?;
        let utility = symmetrised("K_uu", self.utility.view())?;
        if let Some(((row, col), &value)) = self.cross.indexed_iter().find(|(_, x)| !x.is_finite()) {
            return Err(Error::NotFinite {
                matrix: "K_su",
                row,
                col,
                value,
            });
        }
        let mut joint = Array2::zeros((n_s + n_u, n_s + n_u));
        joint.slice_mut(s![..n_s, ..n_s]).assign(&safety);
        joint.slice_mut(s![..n_s, n_s..]).assign(&self.cross);
        joint.slice_mut(s![n_s.., ..n_s]).assign(&self.cross.t());
        joint.slice_mut(s![n_s.., n_s..]).assign(&utility);
        Ok(joint)
    }
}

/// Eigenpairs in the coordinates of a span: only those with an eigenvalue above rounding.
pub(crate) struct SpanEigen {
    /// Descending, `[k]`.
    pub values: Array1<f64>,
    /// z with v = E z and z^T B z = 1, as columns `[m, k]`.
    pub vectors: Array2<f64>,
}

impl SpanEigen {
    /// The first k eigenpairs, or all when there are fewer.
    pub fn head(&self, k: usize) -> Self {
        let k = k.min(self.values.len());
        Self {
            values: self.values.slice(s![..k]).to_owned(),
            vectors: self.vectors.slice(s![.., ..k]).to_owned(),
        }
    }
}

/// Both sample sets in the coordinates of E.
pub(crate) struct SampleSpan {
    /// X_s, `[N_s, m]`.
    safety: Array2<f64>,
    /// X_u, `[N_u, m]`.
    utility: Array2<f64>,
    /// S Q D^(-1/2), `[N_s + N_u, m]`: E = G^T lift.
    pub lift: Array2<f64>,
}

impl SampleSpan {
    /// Eigendecomposition of the joint Gram matrix, O((N_s + N_u)^3).
    pub fn new(grams: &SampleGrams) -> Result<Self, Error> {
        let (n_s, _) = grams.samples();
        let mut k = grams.joint()?;
        if let Some(value) = k.diag().iter().copied().find(|x| *x < 0.0) {
            let (matrix, allowed) = ("K", 0.0);
            return Err(Error::Indefinite { matrix, value, allowed });
        }
        let scale = k.diag().mapv(|x| if x > 0.0 { x.sqrt().recip() } else { 0.0 }); // S
        k *= &scale;
        k *= &scale.view().insert_axis(Axis(1));
        let (d, q) = symmetric_eigen(k.view())?;
        let (smallest, largest) = (d.first().copied().unwrap_or(0.0), d.last().copied().unwrap_or(0.0));
        if smallest < -INDEFINITE * largest {
            return Err(Error::Indefinite {
                matrix: "K, rows scaled to length 1,",
                value: smallest,
                allowed: -INDEFINITE * largest,
            });
        }
        let cut = RANK_TOLERANCE * d.len() as f64 * f64::EPSILON * largest;
        let first = d.partition_point(|x| *x <= cut);
        let root = Array1::from_iter(d[first..].iter().map(|x| x.sqrt()));
        let q = q.slice(s![.., first..]);
        let length = scale.mapv(|x| if x > 0.0 { x.recip() } else { 0.0 });
        let x = &q * &root * length.insert_axis(Axis(1)); // [N_s + N_u, m]
        Ok(Self {
            safety: x.slice(s![..n_s, ..]).to_owned(),
            utility: x.slice(s![n_s.., ..]).to_owned(),
            lift: &q / &root * scale.insert_axis(Axis(1)),
        })
    }

    /// m.
    pub fn dimensions(&self) -> usize {
        self.lift.ncols()
    }

    /// The eigenpairs with lambda > 0 of the pair in which sample i counts with its weight; weights sum to 1 per set.
    pub fn solve(&self, weights: [ArrayView1<f64>; 2], eps: f64) -> Result<SpanEigen, Error> {
        let m = self.dimensions();
        if m == 0 {
            return Ok(SpanEigen {
                values: Array1::zeros(0),
                vectors: Array2::zeros((0, 0)),
            });
        }
        let [a, b] = [(&self.safety, weights[0]), (&self.utility, weights[1])]
            .map(|(x, weights)| x.t().dot(&(x * &weights.insert_axis(Axis(1)))));
        let eigen = dense(symmetric(&a).view(), symmetric(&b).view(), eps)?;
        // A has rank N_s at most; rounding shifts an eigenvalue by the norm of A times that of z, which B weighs.
        let rounding = eigen.residual.max(m as f64 * f64::EPSILON) * frobenius(a.view());
        let kept: Vec<usize> = (0..m)
            .filter(|&j| {
                let z = eigen.vectors.column(j);
                eigen.values[j] > rounding * z.dot(&z)
            })
            .collect();
        Ok(SpanEigen {
            values: eigen.values.select(Axis(0), &kept),
            vectors: eigen.vectors.select(Axis(1), &kept),
        })
    }
}

/// X^T W X is symmetric up to the order of its sums.
fn symmetric(m: &Array2<f64>) -> Array2<f64> {
    0.5 * (m + &m.t())
}
