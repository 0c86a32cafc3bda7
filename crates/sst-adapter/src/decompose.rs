//! Decompositions of dense f64 matrices, through the crate `faer`, for every crate of the workspace.
//!
//! All of them run on one thread: faer's round differently with the number of threads, as a large tridiagonalisation adds up
//! one partial vector per thread. Who has many matrices can work on several at a time. Entries must be finite, or a decomposition
//! may not end.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::householder::{
    apply_block_householder_sequence_on_the_left_in_place_scratch as apply_scratch,
    apply_block_householder_sequence_on_the_left_in_place_with_conj as apply_reflections,
};
use faer::linalg::qr::no_pivoting::factor::{qr_in_place, qr_in_place_scratch, recommended_block_size};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Conj, Mat, MatRef, Par};
use ndarray::{Array2, ArrayView2};

/// m = U diag(s) V^T of m `[n, k]`, p = min(n, k).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ThinSvd {
    /// U, `[n, p]`.
    pub u: Array2<f64>,
    /// Descending.
    pub s: Vec<f64>,
    /// V, `[k, p]`.
    pub v: Array2<f64>,
}

/// Q `[n, p]` and R `[p, k]` of m `[n, k]`, p = min(n, k).
///
/// ```
/// let (q, r) = sst_adapter::decompose::thin_qr(ndarray::array![[3.0], [4.0]].view());
/// let close = |x: f64, y: f64| (x - y).abs() < 1e-14;
/// assert!(close(q[[0, 0]] * r[[0, 0]], 3.0) && close(q[[1, 0]].abs(), 0.8) && close(r[[0, 0]].abs(), 5.0));
/// ```
pub fn thin_qr(m: ArrayView2<f64>) -> (Array2<f64>, Array2<f64>) {
    let (q, r) = qr(matrix(m));
    (array(q.as_ref()), array(r.as_ref()))
}

/// The singular value decomposition; none where it does not converge.
pub fn thin_svd(m: ArrayView2<f64>) -> Option<ThinSvd> {
    let (u, s, v) = svd_of(matrix(m).as_ref())?;
    Some(ThinSvd {
        u: array(u.as_ref()),
        s,
        v: array(v.as_ref()),
    })
}

/// Singular values, descending; none where the decomposition does not converge.
pub fn singular_values(m: ArrayView2<f64>) -> Option<Vec<f64>> {
    let (n, k) = m.dim();
    let mut values = Diag::zeros(n.min(k));
    let none = ComputeSvdVectors::No;
    let mut memory = MemBuffer::new(svd_scratch::<f64>(n, k, none, none, Par::Seq, Default::default()));
    let stack = MemStack::new(&mut memory);
    let m = matrix(m);
    svd(
        m.as_ref(),
        values.as_mut(),
        None,
        None,
        Par::Seq,
        stack,
        Default::default(),
    )
    .ok()?;
    Some(values.column_vector().iter().copied().collect())
}

/// Eigenvalues ascending and orthonormal eigenvectors as columns, `[n, n]`, of a symmetric matrix, of which the lower triangle
/// is read; none where the decomposition does not converge.
pub fn symmetric_eigen(m: ArrayView2<f64>) -> Option<(Vec<f64>, Array2<f64>)> {
    let (values, vectors) = symmetric_eigen_of(matrix(m).as_ref())?;
    Some((values, array(vectors.as_ref())))
}

/// [`symmetric_eigen`] of faer's matrices, without copies.
pub fn symmetric_eigen_of(m: MatRef<f64>) -> Option<(Vec<f64>, Mat<f64>)> {
    let n = m.nrows();
    let (mut values, mut vectors) = (Diag::zeros(n), Mat::zeros(n, n));
    let wanted = ComputeEigenvectors::Yes;
    let mut memory = MemBuffer::new(self_adjoint_evd_scratch::<f64>(n, wanted, Par::Seq, Default::default()));
    let stack = MemStack::new(&mut memory);
    let into = Some(vectors.as_mut());
    self_adjoint_evd(m, values.as_mut(), into, Par::Seq, stack, Default::default()).ok()?;
    Some((values.column_vector().iter().copied().collect(), vectors))
}

/// [`thin_qr`] of faer's matrices.
pub(crate) fn qr(mut m: Mat<f64>) -> (Mat<f64>, Mat<f64>) {
    let (n, k) = m.shape();
    let p = n.min(k);
    let block = recommended_block_size::<f64>(n, k);
    let mut coefficients = Mat::zeros(block, p);
    let scratch = qr_in_place_scratch::<f64>(n, k, block, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    qr_in_place(m.as_mut(), coefficients.as_mut(), Par::Seq, stack, Default::default());

    // R is left on and above the diagonal, the reflections' vectors below it.
    let r = Mat::from_fn(p, k, |i, j| if i <= j { m[(i, j)] } else { 0.0 });
    let mut q = Mat::identity(n, p);
    let mut memory = MemBuffer::new(apply_scratch::<f64>(n, block, p));
    let stack = MemStack::new(&mut memory);
    let reflections = m.subcols(0, p);
    apply_reflections(
        reflections,
        coefficients.as_ref(),
        Conj::No,
        q.as_mut(),
        Par::Seq,
        stack,
    );
    (q, r)
}

/// [`thin_svd`] of faer's matrices.
pub(crate) fn svd_of(m: MatRef<f64>) -> Option<(Mat<f64>, Vec<f64>, Mat<f64>)> {
    let (n, k) = m.shape();
    let p = n.min(k);
    let (mut u, mut s, mut v) = (Mat::zeros(n, p), Diag::zeros(p), Mat::zeros(k, p));
    let thin = ComputeSvdVectors::Thin;
    let mut memory = MemBuffer::new(svd_scratch::<f64>(n, k, thin, thin, Par::Seq, Default::default()));
    let stack = MemStack::new(&mut memory);
    let (left, right) = (Some(u.as_mut()), Some(v.as_mut()));
    svd(m, s.as_mut(), left, right, Par::Seq, stack, Default::default()).ok()?;
    let values = s.column_vector().iter().copied().collect();
    Some((u, values, v))
}

fn matrix(m: ArrayView2<f64>) -> Mat<f64> {
    Mat::from_fn(m.nrows(), m.ncols(), |i, j| m[[i, j]])
}

pub(crate) fn array(m: MatRef<f64>) -> Array2<f64> {
    Array2::from_shape_fn((m.nrows(), m.ncols()), |(i, j)| m[(i, j)])
}
