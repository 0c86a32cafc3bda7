//! Dense algebra of the spectral methods: products, numerical rank, polar factors, Cholesky factors.
//!
//! The polar factor of X = P S Q^T is P Q^T, the matrix with orthonormal columns that is nearest to X in the Frobenius norm
//! (the orthogonal Procrustes problem, Schönemann 1966). Where X has singular values 0 it is not unique; then the partial
//! isometry of the others is taken, which any order of the columns leaves the same.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::Llt;
use faer::{Accum, Mat, MatRef, Par, Side, get_global_parallelism};
use ndarray::{Array1, Array2, ArrayView2, s};
use sst_adapter::{Error, LowRank, decompose};

/// Singular values below this share of the largest are rounding: factors are stored as f32.
const RANK_TOLERANCE: f64 = 8.0 * f32::EPSILON as f64;

/// How many of the descending singular values are above rounding.
pub(super) fn numerical_rank(s: &Array1<f64>) -> usize {
    rank_above(s, s.first().copied().unwrap_or(0.0))
}

/// How many of the descending singular values are above the rounding of a matrix of norm `size`.
pub(super) fn rank_above(s: &Array1<f64>, size: f64) -> usize {
    s.iter().take_while(|s| **s > RANK_TOLERANCE * size).count()
}

/// The Cholesky factor of a symmetric matrix; none of one that is not positive definite to rounding.
pub(super) fn cholesky(m: ArrayView2<f64>) -> Option<Llt<f64>> {
    let factor = in_place(m, |m| m.llt(Side::Lower)).ok()?;
    let l = factor.L();
    // L_ii^2 is what is left of m_ii beside the rows before it: at rounding, nothing.
    let floor = m.nrows() as f64 * f64::EPSILON;
    let regular = (0..m.nrows()).all(|i| l[(i, i)].powi(2) > floor * m[[i, i]]);
    regular.then_some(factor)
}

/// The polar factor, of the same shape.
pub(super) fn polar(x: ArrayView2<f64>) -> Result<Array2<f64>, Error> {
    if x.is_empty() {
        return Ok(Array2::zeros(x.dim()));
    }
    let svd = decompose::thin_svd(x).ok_or(Error::Decomposition {
        op: "polar factor",
        shape: x.dim().into(),
    })?;
    let k = numerical_rank(&svd.s.into());
    Ok(times_f64(svd.u.slice(s![.., ..k]), svd.v.slice(s![.., ..k]).t()))
}

/// u diag(s) vt as a low-rank change, |s| split evenly over both factors; s may be negative.
pub(super) fn assemble(u: ArrayView2<f64>, s: &Array1<f64>, vt: ArrayView2<f64>) -> LowRank {
    let (left, right) = (s.mapv(|s| s.signum() * s.abs().sqrt()), s.mapv(|s| s.abs().sqrt()));
    LowRank {
        a: (&vt * &right.insert_axis(ndarray::Axis(1))).mapv(|x| x as f32),
        b: (&u * &left).mapv(|x| x as f32),
    }
}

/// x y, on all threads.
pub(super) fn times_f64(x: ArrayView2<f64>, y: ArrayView2<f64>) -> Array2<f64> {
    in_place(x, |x| in_place(y, |y| array(product(x, y).as_ref())))
}

/// `then` of the entries where they lie; of a copy where neither rows nor columns lie one after the other.
pub(super) fn in_place<T>(m: ArrayView2<f64>, then: impl FnOnce(MatRef<f64>) -> T) -> T {
    let (rows, cols) = m.dim();
    if let Some(entries) = m.to_slice() {
        return then(MatRef::from_row_major_slice(entries, rows, cols));
    }
    match m.reversed_axes().to_slice() {
        Some(entries) => then(MatRef::from_column_major_slice(entries, rows, cols)),
        None => then(matrix(m).as_ref()),
    }
}

/// x (x^T y) and ||x||, for a large x `[d_out, d_in]` that is never copied to f64 as a whole.
pub(super) fn gram_times(x: ArrayView2<f32>, y: ArrayView2<f32>) -> (Array2<f64>, f64) {
    /// Rows converted at a time.
    const ROWS: usize = 256;
    let blocks = || {
        (0..x.nrows())
            .step_by(ROWS)
            .map(|start| start..(start + ROWS).min(x.nrows()))
    };
    let mut inner = Mat::zeros(x.ncols(), y.ncols()); // x^T y
    let mut square = 0.0;
    for rows in blocks() {
        let (x, y) = (f64s(x.slice(s![rows.clone(), ..])), f64s(y.slice(s![rows, ..])));
        square += x.squared_norm_l2();
        let threads = threads(&inner);
        matmul(inner.as_mut(), Accum::Add, x.transpose(), y.as_ref(), 1.0, threads);
    }
    let mut out = Array2::zeros((x.nrows(), y.ncols()));
    for rows in blocks() {
        let block = product(f64s(x.slice(s![rows.clone(), ..])).as_ref(), inner.as_ref());
        out.slice_mut(s![rows, ..]).assign(&array(block.as_ref()));
    }
    (out, f64::sqrt(square))
}

fn product(x: MatRef<f64>, y: MatRef<f64>) -> Mat<f64> {
    let mut out = Mat::zeros(x.nrows(), y.ncols());
    let threads = threads(&out);
    matmul(out.as_mut(), Accum::Replace, x, y, 1.0, threads);
    out
}

/// All of them; one for a row or a column, whose parts faer would add up thread by thread, which changes the rounding.
fn threads(out: &Mat<f64>) -> Par {
    if out.nrows() == 1 || out.ncols() == 1 {
        Par::Seq
    } else {
        get_global_parallelism()
    }
}

fn f64s(m: ArrayView2<f32>) -> Mat<f64> {
    Mat::from_fn(m.nrows(), m.ncols(), |i, j| f64::from(m[[i, j]]))
}

pub(super) fn matrix(m: ArrayView2<f64>) -> Mat<f64> {
    Mat::from_fn(m.nrows(), m.ncols(), |i, j| m[[i, j]])
}

pub(super) fn array(m: MatRef<f64>) -> Array2<f64> {
    Array2::from_shape_fn((m.nrows(), m.ncols()), |(i, j)| m[(i, j)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{arr1, array};

    #[test]
    fn the_polar_factor_is_the_rotation_of_a_stretched_one() {
        // A rotation by 30 degrees times diag(3, 0.5), which is symmetric and positive.
        let (c, s) = (3f64.sqrt() / 2.0, 0.5);
        let rotation = array![[c, -s], [s, c], [0.0, 0.0]];
        let got = polar(times_f64(rotation.view(), array![[3.0, 0.0], [0.0, 0.5]].view()).view()).unwrap();
        for (got, want) in got.iter().zip(&rotation) {
            assert!((got - want).abs() <= 8.0 * f64::EPSILON, "{got} {want}");
        }
    }

    #[test]
    fn the_polar_factor_of_twice_the_same_column_is_that_column_over_root_two() {
        let x = array![[0.6, 0.6], [0.8, 0.8], [0.0, 0.0]];
        let got = polar(x.view()).unwrap();
        for (got, want) in got.iter().zip(x / 2f64.sqrt()) {
            assert!((got - want).abs() <= 8.0 * f64::EPSILON, "{got} {want}");
        }
        assert_eq!(
            polar(Array2::zeros((3, 2)).view()).unwrap(),
            Array2::<f64>::zeros((3, 2))
        );
        assert_eq!(polar(Array2::zeros((3, 0)).view()).unwrap().dim(), (3, 0));
    }

    #[test]
    fn what_is_singular_to_rounding_has_no_cholesky_factor() {
        // The square of 1 / sqrt(2) is 1 / 2 but for rounding.
        let singular = array![[2.0, 1.0], [1.0, 0.5]];
        assert!(cholesky(singular.view()).is_none());
        assert!(cholesky(array![[1.0, 0.0], [0.0, f64::NAN]].view()).is_none());
        let regular = array![[2.0, 1.0], [1.0, 0.5 + 1e-9]];
        let factor = cholesky(regular.view()).unwrap();
        let l = array(factor.L());
        let gap = &l.dot(&l.t()) - &regular;
        assert!(gap.iter().all(|x| x.abs() <= 1e-15), "{gap}");
    }

    #[test]
    fn rounding_is_no_rank() {
        assert_eq!(numerical_rank(&arr1(&[2.0, 1.0, 1e-4])), 3);
        assert_eq!(numerical_rank(&arr1(&[2.0, 1e-7, 0.0])), 1);
        assert_eq!(numerical_rank(&arr1(&[0.0, 0.0])), 0);
        assert_eq!(numerical_rank(&arr1(&[])), 0);
    }

    #[test]
    fn a_gram_is_applied_in_blocks() {
        let ramp = |rows, cols, f: f32| Array2::from_shape_fn((rows, cols), |(i, j)| ((i * cols + j) as f32 * f).sin());
        let (x, y) = (ramp(600, 7, 0.3), ramp(600, 2, 0.7));
        let (got, norm) = gram_times(x.view(), y.view());
        for i in [0, 255, 256, 599] {
            for j in 0..2 {
                let row = |k: usize| (0..7).map(|c| f64::from(x[[i, c]]) * f64::from(x[[k, c]])).sum::<f64>();
                let want: f64 = (0..600).map(|k| row(k) * f64::from(y[[k, j]])).sum();
                assert!(
                    (got[[i, j]] - want).abs() <= 600.0 * 7.0 * f64::EPSILON * norm * norm,
                    "{} {want}",
                    got[[i, j]]
                );
            }
        }
        let want = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!((norm - want).abs() <= 1e-12 * want);
    }
}
