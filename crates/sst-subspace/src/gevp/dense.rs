//! Both Fishers dense and small: Cholesky of F_u + eps I, then a symmetric eigenproblem (Golub & Van Loan, section 8.7).
//!
//! Two backends stand behind one trait and are each other's witness: [`FaerSolver`], always there, and `LapackSolver`
//! with the feature `lapack`.

mod faer;
#[cfg(feature = "lapack")]
mod lapack;

pub use self::faer::FaerSolver;
#[cfg(feature = "lapack")]
pub use self::lapack::LapackSolver;

use crate::Error;
use crate::fisher::check_setting;
use ndarray::{Array1, Array2, ArrayView2};

/// A solution whose residual is larger than this is an error. Well-conditioned pairs stay near 1e-15.
pub const RESIDUAL_LIMIT: f64 = 1e-8;

/// Entries may differ from their mirror image by this share of the largest entry.
const SYMMETRY_TOLERANCE: f64 = 1e-12;

/// All eigenpairs of a dense pair.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseEigen {
    /// Eigenvalues, descending, `[n]`.
    pub values: Array1<f64>,
    /// Eigenvectors as columns in the same order, `[n, n]`, with V^T (F_u + eps I) V = I.
    pub vectors: Array2<f64>,
    /// Largest over the pairs of ||F_s v - lambda B v|| / ((||F_s|| + |lambda| ||B||) ||v||), B = F_u + eps I.
    pub residual: f64,
    /// Largest entry of |V^T B V - I|.
    pub orthogonality: f64,
    /// The backend that solved it.
    pub solver: &'static str,
}

/// A backend: solves A v = lambda B v for symmetric A and positive definite B.
pub trait DenseSolver {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Eigenvalues ascending and B-orthonormal eigenvectors as columns, `[n, n]`; finite, symmetric input is the caller's duty.
    ///
    /// # Errors
    /// [`Error::NotPositiveDefinite`] or [`Error::Solver`].
    fn solve(&self, a: &Array2<f64>, b: &Array2<f64>) -> Result<(Vec<f64>, Array2<f64>), Error>;
}

/// Solves F_s v = lambda (F_u + eps I) v with the faster backend for the size.
///
/// ```
/// use ndarray::array;
/// let (f_s, f_u) = (array![[2.0, 1.0], [1.0, 2.0]], array![[1.0, 0.0], [0.0, 1.0]]);
/// let eigen = sst_subspace::gevp::dense(f_s.view(), f_u.view(), 0.0).unwrap();
/// assert!((eigen.values[0] - 3.0).abs() < 1e-14 && (eigen.values[1] - 1.0).abs() < 1e-14);
/// ```
///
/// # Errors
/// As [`dense_with`].
pub fn dense(f_safety: ArrayView2<f64>, f_utility: ArrayView2<f64>, eps: f64) -> Result<DenseEigen, Error> {
    dense_with(default_solver(f_safety.nrows()), f_safety, f_utility, eps)
}

/// Solves F_s v = lambda (F_u + eps I) v with the given backend and verifies the answer.
///
/// # Errors
/// [`Error::Pair`] for shapes, [`Error::NotFinite`], [`Error::NotSymmetric`] for entries, [`Error::Setting`] for eps,
/// [`Error::NotPositiveDefinite`] when F_u + eps I is singular to rounding, [`Error::Solver`] when the backend fails or
/// its residual exceeds [`RESIDUAL_LIMIT`].
pub fn dense_with(
    solver: &dyn DenseSolver,
    f_safety: ArrayView2<f64>,
    f_utility: ArrayView2<f64>,
    eps: f64,
) -> Result<DenseEigen, Error> {
    let ((rows_s, cols_s), (rows_u, cols_u)) = (f_safety.dim(), f_utility.dim());
    if rows_s == 0 || [cols_s, rows_u, cols_u] != [rows_s; 3] {
        return Err(Error::Pair {
            safety: [rows_s, cols_s],
            utility: [rows_u, cols_u],
        });
    }
    let a = symmetrised("F_s", f_safety)?;
    let mut b = symmetrised("F_u", f_utility)?;
    check_setting("eps", eps)?;
    b.diag_mut().mapv_inplace(|x| x + eps);
    let (mut values, vectors) = solver.solve(&a, &b)?;
    values.reverse();
    let mut eigen = DenseEigen {
        values: Array1::from(values),
        vectors: vectors.slice_move(ndarray::s![.., ..;-1]),
        residual: f64::NAN,
        orthogonality: f64::NAN,
        solver: solver.name(),
    };
    verify(&mut eigen, &a, &b)?;
    Ok(eigen)
}

/// The mean with the transpose; finite and symmetric to rounding, or an error.
pub(super) fn symmetrised(matrix: &'static str, m: ArrayView2<f64>) -> Result<Array2<f64>, Error> {
    if let Some(((row, col), &value)) = m.indexed_iter().find(|(_, x)| !x.is_finite()) {
        return Err(Error::NotFinite {
            matrix,
            row,
            col,
            value,
        });
    }
    let tolerance = SYMMETRY_TOLERANCE * m.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    let mut out = m.to_owned();
    for row in 0..m.nrows() {
        for col in row + 1..m.ncols() {
            let (upper, lower) = (m[[row, col]], m[[col, row]]);
            if (upper - lower).abs() > tolerance {
                return Err(Error::NotSymmetric {
                    matrix,
                    row,
                    col,
                    upper,
                    lower,
                });
            }
            let mean = 0.5 * upper + 0.5 * lower;
            out[[row, col]] = mean;
            out[[col, row]] = mean;
        }
    }
    Ok(out)
}

/// Fills in residual and orthogonality; a backend may return `Ok` with an answer that solves nothing.
fn verify(eigen: &mut DenseEigen, a: &Array2<f64>, b: &Array2<f64>) -> Result<(), Error> {
    let (norm_a, norm_b) = (frobenius(a.view()), frobenius(b.view()));
    let largest = eigen.values.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    // lambda = ||A|| / (smallest eigenvalue of B) at most: this large means that B is singular to rounding.
    if largest * norm_b * f64::EPSILON > norm_a {
        return Err(Error::NotPositiveDefinite);
    }
    let (av, bv) = (a.dot(&eigen.vectors), b.dot(&eigen.vectors)); // [n, n]
    let mut residual = 0.0;
    for (j, lambda) in eigen.values.iter().enumerate() {
        let (mut gap, mut length) = (0.0, 0.0);
        for i in 0..a.nrows() {
            gap += (av[[i, j]] - lambda * bv[[i, j]]).powi(2);
            length += eigen.vectors[[i, j]].powi(2);
        }
        let bound = (norm_a + lambda.abs() * norm_b) * length.sqrt();
        let relative = if gap == 0.0 { 0.0 } else { gap.sqrt() / bound };
        // `max` would drop a NaN.
        residual = if relative > residual || relative.is_nan() {
            relative
        } else {
            residual
        };
    }
    let gram = eigen.vectors.t().dot(&bv);
    let off = |((i, j), x): ((usize, usize), &f64)| (x - f64::from(u8::from(i == j))).abs();
    eigen.orthogonality = gram.indexed_iter().map(off).fold(0.0, f64::max);
    eigen.residual = residual;
    if residual <= RESIDUAL_LIMIT {
        return Ok(());
    }
    Err(Error::Solver {
        solver: eigen.solver,
        reason: format!("residual {residual:e} exceeds {RESIDUAL_LIMIT:e}"),
    })
}

/// Frobenius norm.
pub(super) fn frobenius(m: ArrayView2<f64>) -> f64 {
    m.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(not(feature = "lapack"))]
fn default_solver(_size: usize) -> &'static dyn DenseSolver {
    &FaerSolver
}

#[cfg(feature = "lapack")]
fn default_solver(size: usize) -> &'static dyn DenseSolver {
    if size < lapack::FASTER_BELOW {
        &LapackSolver
    } else {
        &FaerSolver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DiagonalFisher, Estimator, FisherMeta, gevp};
    use ndarray::array;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;
    use sst_adapter::ParamLayout;

    fn solvers() -> Vec<&'static dyn DenseSolver> {
        vec![
            &FaerSolver,
            #[cfg(feature = "lapack")]
            &LapackSolver,
        ]
    }

    /// G^T G / N of random gradients, ill-scaled across columns as real Fishers are.
    fn fisher(n: usize, samples: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let g = Array2::from_shape_fn((samples, n), |(_, j)| rng.random_range(-1.0..1.0) / (1.0 + j as f64));
        g.t().dot(&g) / samples as f64
    }

    fn solve(solver: &dyn DenseSolver, a: &Array2<f64>, b: &Array2<f64>, eps: f64) -> DenseEigen {
        dense_with(solver, a.view(), b.view(), eps).unwrap()
    }

    #[test]
    fn diagonal_pairs_have_a_closed_form() {
        let (a, b) = (
            array![[1.0, 0.0, 0.0], [0.0, 6.0, 0.0], [0.0, 0.0, 2.0]],
            Array2::from_diag(&array![3.0, 1.0, 0.5]),
        );
        for solver in solvers() {
            let eigen = solve(solver, &a, &b, 1.0);
            for (j, (value, at)) in [(3.0, 1), (2.0 / 1.5, 2), (0.25, 0)].into_iter().enumerate() {
                assert!(
                    (eigen.values[j] - value).abs() <= 1e-14,
                    "{}: {}",
                    solver.name(),
                    eigen.values[j]
                );
                for i in 0..3 {
                    let expected = if i == at { 1.0 / (b[[at, at]] + 1.0).sqrt() } else { 0.0 };
                    assert!(
                        (eigen.vectors[[i, j]].abs() - expected).abs() <= 1e-14,
                        "{}",
                        solver.name()
                    );
                }
            }
        }
    }

    #[test]
    fn residual_and_orthogonality_are_at_rounding() {
        for n in [1, 2, 7, 40, 90] {
            let (a, b) = (fisher(n, n.div_ceil(2), 1), fisher(n, 2 * n, 2));
            for solver in solvers() {
                let eigen = solve(solver, &a, &b, 1e-3);
                assert!(eigen.residual <= 1e-12, "{} n {n}: {}", solver.name(), eigen.residual);
                assert!(
                    eigen.orthogonality <= 1e-12 * n as f64,
                    "{} n {n}: {}",
                    solver.name(),
                    eigen.orthogonality
                );
                assert!(
                    eigen
                        .values
                        .iter()
                        .zip(eigen.values.iter().skip(1))
                        .all(|(x, y)| x >= y)
                );
            }
        }
    }

    #[test]
    fn eigenvalues_sum_to_the_trace_of_the_inverse_times_f_s() {
        // 2 x 2, by hand: B^-1 = [[2, -1], [-1, 2]] / 3, tr(B^-1 A) = (2*5 - 2 + 2*3) / 3.
        let (a, b) = (array![[5.0, 1.0], [1.0, 3.0]], array![[2.0, 1.0], [1.0, 2.0]]);
        for solver in solvers() {
            let eigen = solve(solver, &a, &b, 0.0);
            assert!((eigen.values.sum() - 14.0 / 3.0).abs() <= 1e-14, "{}", solver.name());
            assert!(
                (eigen.values.product() - 14.0 / 3.0).abs() <= 1e-13,
                "{}",
                solver.name()
            ); // det A / det B
        }
    }

    #[cfg(feature = "lapack")]
    #[test]
    fn the_backends_agree_on_values_and_projectors() {
        for n in [3, 30, 80] {
            let (a, b) = (fisher(n, 2 * n, 3), fisher(n, 2 * n, 4));
            let (one, two) = (solve(&FaerSolver, &a, &b, 1e-2), solve(&LapackSolver, &a, &b, 1e-2));
            for (x, y) in one.values.iter().zip(&two.values) {
                assert!((x - y).abs() <= 1e-12 * one.values[0], "n {n}: {x} {y}");
            }
            // The B-orthogonal projector onto the top k, V V^T B, does not depend on signs.
            let mut ridged = b.clone();
            ridged.diag_mut().mapv_inplace(|x| x + 1e-2);
            let k = n.div_ceil(3);
            let projector = |eigen: &DenseEigen| {
                let v = eigen.vectors.slice(ndarray::s![.., ..k]);
                v.dot(&v.t()).dot(&ridged)
            };
            let gap = (one.values[k - 1] - one.values[k]) / one.values[0];
            assert!(gap > 1e-6, "the test needs a gap");
            for (x, y) in projector(&one).iter().zip(&projector(&two)) {
                assert!((x - y).abs() <= 1e-11 / gap, "n {n}: {x} {y}");
            }
        }
    }

    #[test]
    fn the_diagonal_solver_agrees_with_the_dense_one() {
        let n = 12;
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut draw = || -> Vec<f32> { (0..n).map(|_| rng.random_range(0.01f32..2.0)).collect() };
        let (s, u) = (draw(), draw());
        let layout = ParamLayout::new([("layers.0.q_proj.lora_A".to_owned(), 3, 4)]).unwrap();
        let fisher = |values: &[f32]| {
            let meta = FisherMeta {
                ridge: 1e-3,
                ..FisherMeta::new(Estimator::Diag, "response", 0)
            };
            DiagonalFisher::new(layout.clone(), values.to_vec(), meta).unwrap()
        };
        let basis = gevp::diagonal(&fisher(&s), &fisher(&u), n, 1e-2).unwrap();
        let matrix =
            |values: &[f32]| Array2::from_diag(&values.iter().map(|x| f64::from(*x) + 1e-3).collect::<Array1<f64>>());
        for solver in solvers() {
            let eigen = solve(solver, &matrix(&s), &matrix(&u), 1e-2);
            for (j, (&index, value)) in basis.indices().iter().zip(basis.eigenvalues()).enumerate() {
                assert!((eigen.values[j] - value).abs() <= 1e-13 * value, "{}", solver.name());
                let column = eigen.vectors.column(j);
                let support: Vec<usize> = (0..n).filter(|&i| column[i].abs() > 1e-12).collect();
                assert_eq!(support, [index as usize], "{}", solver.name());
            }
        }
    }

    #[test]
    fn bad_input_never_reaches_a_backend() {
        let good = fisher(3, 6, 6);
        for solver in solvers() {
            let attempt =
                |a: &Array2<f64>, b: &Array2<f64>, eps| dense_with(solver, a.view(), b.view(), eps).unwrap_err();
            let mut nan = good.clone();
            nan[[1, 2]] = f64::NAN;
            assert!(matches!(
                attempt(&good, &nan, 0.1),
                Error::NotFinite {
                    matrix: "F_u",
                    row: 1,
                    col: 2,
                    ..
                }
            ));
            let mut skew = good.clone();
            skew[[0, 2]] += 1.0;
            assert!(matches!(
                attempt(&skew, &good, 0.1),
                Error::NotSymmetric {
                    matrix: "F_s",
                    row: 0,
                    col: 2,
                    ..
                }
            ));
            assert!(matches!(attempt(&good, &fisher(2, 4, 6), 0.1), Error::Pair { .. }));
            assert!(matches!(
                attempt(&good, &good, f64::NAN),
                Error::Setting { name: "eps", .. }
            ));
            assert!(matches!(
                attempt(&good, &-good.clone(), 0.0),
                Error::NotPositiveDefinite
            ));
        }
    }

    #[test]
    fn a_denominator_that_is_singular_to_rounding_is_refused() {
        let a = Array2::eye(3);
        let b = Array2::from_diag(&array![1.0, 1.0, 1e-17]);
        for solver in solvers() {
            let error = dense_with(solver, a.view(), b.view(), 0.0).unwrap_err();
            assert!(
                matches!(error, Error::NotPositiveDefinite),
                "{}: {error}",
                solver.name()
            );
            assert!(solve(solver, &a, &b, 1e-6).residual <= 1e-12, "{}", solver.name());
        }
    }

    #[test]
    fn a_backend_that_lies_is_caught() {
        struct Liar(f64);
        impl DenseSolver for Liar {
            fn name(&self) -> &'static str {
                "liar"
            }
            fn solve(&self, a: &Array2<f64>, _: &Array2<f64>) -> Result<(Vec<f64>, Array2<f64>), Error> {
                Ok((vec![self.0; a.nrows()], Array2::eye(a.nrows())))
            }
        }
        let (a, b) = (fisher(3, 6, 7), Array2::eye(3));
        for value in [0.7, f64::NAN] {
            let error = dense_with(&Liar(value), a.view(), b.view(), 0.0).unwrap_err();
            assert!(matches!(error, Error::Solver { solver: "liar", .. }), "{error}");
        }
    }
}
