//! Orthonormal bases and spectra of dense matrices.

use crate::Error;
use faer::{Mat, MatRef};
use ndarray::{Array2, ArrayView2};
use sst_adapter::decompose;

/// Eigenvalues ascending and orthonormal eigenvectors as columns, `[n, n]`; finite, symmetric input is the caller's duty.
pub(crate) fn symmetric_eigen(m: ArrayView2<f64>) -> Result<(Vec<f64>, Array2<f64>), Error> {
    decompose::symmetric_eigen(m).ok_or_else(no_convergence)
}

/// The same of faer's matrices, without copies.
pub(crate) fn symmetric_eigen_of(m: MatRef<f64>) -> Result<(Vec<f64>, Mat<f64>), Error> {
    decompose::symmetric_eigen_of(m).ok_or_else(no_convergence)
}

/// Singular values, descending.
pub(crate) fn singular_values(m: ArrayView2<f64>) -> Result<Vec<f64>, Error> {
    decompose::singular_values(m).ok_or_else(no_convergence)
}

/// An orthonormal basis of the span of the columns, `[n, k]`; its first j columns span the first j of `x`.
///
/// Columns are brought to length 1 first: a span does not depend on the lengths, and rounding then does not either.
///
/// # Errors
/// [`Error::RankDeficient`] when the columns are dependent to rounding, a column is 0 or an entry is not finite.
pub(crate) fn orthonormal(name: &str, x: ArrayView2<f64>) -> Result<Array2<f64>, Error> {
    let (n, k) = x.dim();
    let dependent = || Error::RankDeficient {
        matrix: name.to_owned(),
        shape: [n, k],
    };
    if k == 0 || k > n {
        return Err(dependent());
    }
    let mut unit = x.to_owned();
    for mut column in unit.columns_mut() {
        let largest = column.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
        column.mapv_inplace(|x| x / largest);
        let length = column.dot(&column).sqrt();
        if !length.is_finite() {
            return Err(dependent());
        }
        column.mapv_inplace(|x| x / length);
    }
    let (q, r) = decompose::thin_qr(unit.view());
    // The columns of R have length 1, so its singular values are those of unit vectors.
    let r = singular_values(r.view())?;
    match (r.first(), r.last()) {
        (Some(largest), Some(smallest)) if *smallest > n as f64 * f64::EPSILON * largest => Ok(q),
        _ => Err(dependent()),
    }
}

fn no_convergence() -> Error {
    Error::Solver {
        solver: "faer",
        reason: "the decomposition does not converge".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gevp::{DenseSolver, FaerSolver};
    use ndarray::array;

    #[test]
    fn a_frame_is_orthonormal_nested_and_spans_its_input() {
        // The second column is 1e40 times longer than the first.
        let x = array![[1e-20, 1e20], [2e-20, 0.0], [0.0, 3e20], [-1e-20, 1e20]];
        let q = orthonormal("x", x.view()).unwrap();
        let gram = q.t().dot(&q);
        for ((i, j), g) in gram.indexed_iter() {
            assert!((g - f64::from(u8::from(i == j))).abs() <= 1e-15, "{gram}");
        }
        for (x, k) in [(x.column(0), 1), (x.column(1), 2)] {
            let q = q.slice(ndarray::s![.., ..k]);
            let gap = &x - &q.dot(&q.t().dot(&x));
            assert!(gap.dot(&gap).sqrt() <= 1e-15 * x.dot(&x).sqrt(), "{k}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        // Large enough for faer to share the work out.
        let n = 400;
        let wave = |rows: usize, cols: usize| {
            Array2::from_shape_fn((rows, cols), |(i, j)| (((i * cols + j) as f64).powf(1.3) * 0.9).sin())
        };
        let (wide, thin) = (wave(n, n), wave(5000, 20));
        let symmetric = 0.5 * (&wide + &wide.t());
        let positive = wide.dot(&wide.t()) + Array2::<f64>::eye(n);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let pencil = FaerSolver.solve(&symmetric, &positive).unwrap();
                let span = orthonormal("thin", thin.view()).unwrap();
                let values = singular_values(wide.view()).unwrap();
                (symmetric_eigen(symmetric.view()).unwrap(), pencil, span, values)
            })
        };
        assert!(run(1) == run(3));
    }

    #[test]
    fn dependent_columns_are_refused() {
        for x in [
            array![[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]],
            array![[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]],
            array![[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]],
            array![[f64::NAN, 1.0], [2.0, 1.0], [0.0, 1.0]],
            array![[f64::INFINITY, 1.0], [2.0, 1.0], [0.0, 1.0]],
        ] {
            let error = orthonormal("x", x.view()).unwrap_err();
            assert!(matches!(error, Error::RankDeficient { .. }), "{error}");
        }
    }
}
