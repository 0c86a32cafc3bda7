//! Both Fishers empirical, F = G^T G / N of per-sample gradients G `[N, n]`: exact, from inner products alone.
//!
//! lambda (F_u + eps I) v = F_s v with lambda > 0 gives v = (F_s v / lambda - F_u v) / eps, so that every such v lies in
//! the span of the rows of G_s and G_u. In an orthonormal basis E of that span the problem is dense, symmetric and at
//! most (N_s + N_u) wide, and v = G_s^T C_s + G_u^T C_u.
//!
//! Why a basis and not Woodbury's M = (K_ss - K_su (N_u eps I + K_uu)^-1 K_us) / (N_s eps): that difference cancels where
//! safety gradients lie inside the utility span, and 1 / eps amplifies what is left of the digits.

use super::RESIDUAL_LIMIT;
use super::dense::{frobenius, symmetrised};
use super::span::{INDEFINITE, SampleGrams, SampleSpan};
use crate::Error;
use crate::decompose::symmetric_eigen;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};

/// The eigenpairs with lambda > 0 of one module, in the span of the samples.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleEigen {
    /// Eigenvalues above rounding, descending, `[k]`.
    pub values: Array1<f64>,
    /// C_s, `[N_s, k]`.
    pub safety: Array2<f64>,
    /// C_u, `[N_u, k]`: v = G_s^T C_s + G_u^T C_u, with V^T (F_u + eps I) V = I.
    pub utility: Array2<f64>,
    /// Dimension of the joint span of the samples.
    pub span: usize,
    /// Largest over the pairs of ||F_s v - lambda B v|| / ((||F_s|| + lambda ||B||) ||v||), within the span, B = F_u + eps I.
    pub residual: f64,
    /// Largest entry of |V^T B V - I|.
    pub orthogonality: f64,
}

/// Solves F_s v = lambda (F_u + eps I) v for one module.
///
/// ```
/// use ndarray::array;
/// use sst_subspace::gevp::{SampleGrams, samples};
/// // Of two parameters the safety sample uses the first, the utility sample the second.
/// let grams = SampleGrams {
///     module: "layers.0.q_proj".into(),
///     safety: array![[9.0]], cross: array![[0.0]], utility: array![[4.0]], parameters: 2,
/// };
/// let eigen = samples(&grams, 0.5)?;
/// assert!((eigen.values[0] - 18.0).abs() < 1e-13); // 9 / 0.5
/// # Ok::<(), sst_subspace::Error>(())
/// ```
///
/// # Errors
/// [`Error::InModule`] around: [`Error::Setting`] when eps is not positive, [`Error::Shapes`], [`Error::NotFinite`],
/// [`Error::NotSymmetric`], [`Error::Indefinite`] for blocks that are no Gram matrix, [`Error::Solver`] when the
/// residual, recomputed from the blocks, exceeds [`RESIDUAL_LIMIT`].
pub fn samples(grams: &SampleGrams, eps: f64) -> Result<SampleEigen, Error> {
    solve(grams, eps).map_err(Error::in_module(&grams.module))
}

/// The mean eigenvalue of a Fisher of that trace over n parameters; a relative ridge times it is an eps.
///
/// Over several modules: the sum of the traces and the sum of the parameters.
pub fn mean_eigenvalue(trace: f64, parameters: usize) -> f64 {
    trace / parameters as f64
}

/// The eigenvalues of F = G^T G / N, descending, those that N samples can make nonzero: eig(K) / N.
///
/// # Errors
/// [`Error::NotFinite`], [`Error::NotSymmetric`], [`Error::Shapes`] for a matrix that is not square,
/// [`Error::Indefinite`].
pub fn gram_spectrum(gram: ArrayView2<f64>) -> Result<Vec<f64>, Error> {
    let n = gram.nrows();
    if gram.ncols() != n {
        return Err(Error::Shapes {
            op: "spectrum of a Gram matrix",
            left: gram.dim().into(),
            right: gram.t().dim().into(),
        });
    }
    let (values, _) = symmetric_eigen(symmetrised("K", gram)?.view())?;
    let largest = values.last().copied().unwrap_or(0.0);
    let allowed = -INDEFINITE * largest.abs();
    match values.first() {
        Some(&value) if value < allowed => Err(Error::Indefinite {
            matrix: "K",
            value,
            allowed,
        }),
        _ => Ok(values.into_iter().rev().map(|x| x.max(0.0) / n as f64).collect()),
    }
}

pub(crate) fn check_eps(eps: f64) -> Result<(), Error> {
    if eps.is_finite() && eps > 0.0 {
        return Ok(());
    }
    Err(Error::content(
        format!("eps = {eps:e}"),
        "must be finite and positive: F_u has no inverse outside the span of its samples",
    ))
}

fn solve(grams: &SampleGrams, eps: f64) -> Result<SampleEigen, Error> {
    check_eps(eps)?;
    let (n_s, n_u) = grams.samples();
    let span = SampleSpan::new(grams)?;
    let even = |n: usize| Array1::from_elem(n, 1.0 / n as f64);
    let eigen = span.solve([even(n_s).view(), even(n_u).view()], eps)?;
    let c = span.lift.dot(&eigen.vectors); // [N_s + N_u, k]
    let mut solution = SampleEigen {
        values: eigen.values,
        safety: c.slice(s![..n_s, ..]).to_owned(),
        utility: c.slice(s![n_s.., ..]).to_owned(),
        span: span.dimensions(),
        residual: f64::NAN,
        orthogonality: f64::NAN,
    };
    verify(&mut solution, grams, &span, eps)?;
    Ok(solution)
}

/// Fills in residual and orthogonality from the blocks as they were given, not from the decomposed ones.
fn verify(solution: &mut SampleEigen, grams: &SampleGrams, span: &SampleSpan, eps: f64) -> Result<(), Error> {
    let (n_s, n_u) = grams.samples();
    let (c_s, c_u, values) = (&solution.safety, &solution.utility, &solution.values);
    // G_s V and G_u V for V = G^T C, and likewise K times any coefficients.
    let times = |s: &Array2<f64>, u: &Array2<f64>| {
        (
            grams.safety.dot(s) + grams.cross.dot(u),
            grams.cross.t().dot(s) + grams.utility.dot(u),
        )
    };
    let (gs_v, gu_v) = times(c_s, c_u); // [N_s, k], [N_u, k]
    // F_s V - (F_u + eps I) V Lambda = G_s^T a + G_u^T b
    let a = &gs_v / n_s as f64 - eps * (c_s * values);
    let b = -(&gu_v / n_u as f64 + eps * c_u) * values;
    let (gs_r, gu_r) = times(&a, &b);
    let (lift_s, lift_u) = span.lift.view().split_at(Axis(0), n_s);
    let gaps = lift_s.t().dot(&gs_r) + lift_u.t().dot(&gu_r); // E^T residual, [m, k]
    let (norm_s, norm_u) = (
        frobenius(grams.safety.view()) / n_s as f64,
        frobenius(grams.utility.view()) / n_u as f64,
    );
    let gram = c_s.t().dot(&gs_v) + c_u.t().dot(&gu_v); // V^T V
    let mut residual = 0.0;
    for (j, gap) in gaps.axis_iter(Axis(1)).enumerate() {
        let bound = (norm_s + values[j] * (norm_u + eps)) * gram[[j, j]].sqrt();
        let relative = gap.dot(&gap).sqrt() / bound;
        // `max` would drop a NaN.
        if relative > residual || relative.is_nan() {
            residual = relative;
        }
    }
    let weighted = gu_v.t().dot(&gu_v) / n_u as f64 + eps * gram; // V^T B V
    let off = |((i, j), x): ((usize, usize), &f64)| (x - f64::from(u8::from(i == j))).abs();
    solution.orthogonality = weighted.indexed_iter().map(off).fold(0.0, f64::max);
    solution.residual = residual;
    if residual <= RESIDUAL_LIMIT {
        return Ok(());
    }
    Err(Error::Solver {
        solver: "samples",
        reason: format!("residual {residual:e} exceeds {RESIDUAL_LIMIT:e}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gevp::dense;
    use ndarray::array;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn draw(rows: usize, cols: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_fn((rows, cols), |(_, j)| {
            rng.random_range(-1.0..1.0) / (1.0 + j as f64 / 8.0)
        })
    }

    fn grams(g_s: &Array2<f64>, g_u: &Array2<f64>) -> SampleGrams {
        SampleGrams {
            module: "m".into(),
            safety: g_s.dot(&g_s.t()),
            cross: g_s.dot(&g_u.t()),
            utility: g_u.dot(&g_u.t()),
            parameters: g_s.ncols(),
        }
    }

    fn fisher(g: &Array2<f64>) -> Array2<f64> {
        g.t().dot(g) / g.nrows() as f64
    }

    /// The same problem with n x n matrices; eigenvalues, projectors and residual must agree.
    fn assert_exact(name: &str, g_s: &Array2<f64>, g_u: &Array2<f64>, ridge: f64, rank: usize) {
        let n = g_s.ncols();
        let grams = grams(g_s, g_u);
        let eps = ridge * mean_eigenvalue(grams.utility_trace(), n);
        let eigen = samples(&grams, eps).unwrap();
        let (f_s, f_u) = (fisher(g_s), fisher(g_u));
        let brute = dense(f_s.view(), f_u.view(), eps).unwrap();
        assert_eq!(eigen.values.len(), rank, "{name}");
        for (got, want) in eigen.values.iter().zip(&brute.values) {
            assert!((got - want).abs() <= 1e-8 * want, "{name}: {got:e} {want:e}");
        }
        let beyond = brute.values.slice(s![rank..]);
        assert!(beyond.iter().all(|x| x.abs() <= 1e-8 * brute.values[0]), "{name}");
        assert!(
            eigen.residual <= 1e-10 && eigen.orthogonality <= 1e-8,
            "{name}: {eigen:?}"
        );

        let v = g_s.t().dot(&eigen.safety) + g_u.t().dot(&eigen.utility); // [n, k]
        let b = &f_u + eps * Array2::<f64>::eye(n);
        let gap = f_s.dot(&v) - b.dot(&(&v * &eigen.values));
        let relative = frobenius(gap.view()) / (frobenius(f_s.view()) * frobenius(v.view()));
        assert!(relative <= 1e-10, "{name}: residual {relative:e}");
        let gram = v.t().dot(&b).dot(&v) - Array2::<f64>::eye(rank);
        assert!(gram.iter().all(|x| x.abs() <= 1e-8), "{name}");
        // Split where the gap is widest among the eigenvalues kept.
        let ratio = |k: usize| brute.values[k].max(0.0) / brute.values[k - 1];
        let k = (1..=rank.min(n - 1)).min_by(|x, y| ratio(*x).total_cmp(&ratio(*y)));
        let k = k.unwrap_or(rank);
        let (got, want) = (v.slice(s![.., ..k]), brute.vectors.slice(s![.., ..k]));
        let (got, want) = (got.dot(&got.t()).dot(&b), want.dot(&want.t()).dot(&b));
        let gap = frobenius((&got - &want).view()) / frobenius(want.view());
        assert!(gap <= 1e-8, "{name}: projectors differ by {gap:e}");
    }

    #[test]
    fn equals_the_dense_solver() {
        for (n_s, n_u, n) in [
            (6, 9, 40),
            (1, 1, 7),
            (30, 40, 200),
            (12, 3, 20),
            (40, 60, 20),
            (5, 5, 5),
        ] {
            for ridge in [1e-1, 1e-4] {
                let (g_s, g_u) = (draw(n_s, n, 1), draw(n_u, n, 2));
                assert_exact(&format!("{n_s} {n_u} {n} {ridge}"), &g_s, &g_u, ridge, n_s.min(n));
                let (small, large) = (1e-7 * &g_s, 3e4 * &g_u);
                assert_exact(&format!("scaled {n_s} {n_u} {n}"), &small, &large, ridge, n_s.min(n));
            }
        }
    }

    #[test]
    fn equals_it_when_samples_repeat_or_are_dependent() {
        let (g_s, g_u) = (draw(8, 30, 3), draw(10, 30, 4));
        let mut twice = g_s.clone();
        twice.row_mut(5).assign(&g_s.row(2));
        twice.row_mut(6).fill(0.0);
        assert_exact("repeated", &twice, &g_u, 1e-2, 6);
        let thin = |rows, seed| draw(rows, 3, seed).dot(&draw(3, 30, 5));
        assert_exact("rank 3", &thin(9, 6), &g_u, 1e-2, 3);
        assert_exact("rank 3 in both, the same span", &thin(9, 6), &thin(7, 7), 1e-2, 3);
        assert_exact("utility is safety", &g_s, &g_s, 1e-2, 8);
        let inside = draw(6, 10, 8).dot(&g_u);
        assert_exact("safety inside utility", &inside, &g_u, 1e-2, 6);
    }

    #[test]
    fn equals_it_when_samples_differ_a_million_times_in_length() {
        let spread = |rows: usize, seed| {
            let scale = Array1::from_shape_fn(rows, |i| 10f64.powf(-6.0 * i as f64 / (rows - 1) as f64));
            draw(rows, 25, seed) * scale.insert_axis(Axis(1))
        };
        let (g_s, g_u) = (spread(4, 9), spread(5, 10));
        let eigen = samples(&grams(&g_s, &draw(5, 25, 11)), 1e-3).unwrap();
        let brute = dense(fisher(&g_s).view(), fisher(&draw(5, 25, 11)).view(), 1e-3).unwrap();
        for (got, want) in eigen.values.iter().zip(&brute.values) {
            assert!((got - want).abs() <= 1e-8 * brute.values[0], "{got:e} {want:e}");
        }
        assert_exact("utility spread", &draw(4, 25, 12), &g_u, 1e-2, 4);
    }

    #[test]
    fn an_orthogonal_utility_leaves_a_closed_form() {
        // F_s = diag(9, 1, 0) / 2, F_u on the third parameter: lambda = 4.5 / eps and 0.5 / eps.
        let (g_s, g_u) = (array![[3.0, 0.0, 0.0], [0.0, -1.0, 0.0]], array![[0.0, 0.0, 7.0]]);
        let eigen = samples(&grams(&g_s, &g_u), 0.25).unwrap();
        assert_eq!(eigen.span, 3);
        for (got, want) in eigen.values.iter().zip([18.0, 2.0]) {
            assert!((got - want).abs() <= 1e-14 * want, "{got}");
        }
        assert_eq!(eigen.values.len(), 2);
        let spectrum = gram_spectrum(grams(&g_s, &g_u).safety.view()).unwrap();
        assert!((spectrum[0] - 4.5).abs() <= 1e-14 && (spectrum[1] - 0.5).abs() <= 1e-14);
    }

    #[test]
    fn the_gram_spectrum_is_that_of_the_fisher() {
        for (rows, n) in [(6, 15), (20, 8)] {
            let g = draw(rows, n, 13);
            let spectrum = gram_spectrum(g.dot(&g.t()).view()).unwrap();
            let (mut brute, _) = symmetric_eigen(fisher(&g).view()).unwrap();
            brute.reverse();
            assert_eq!(spectrum.len(), rows);
            for (i, got) in spectrum.iter().enumerate() {
                let want = brute.get(i).copied().unwrap_or(0.0);
                assert!((got - want).abs() <= 1e-14 * brute[0], "{got} {want}");
            }
        }
        assert!(gram_spectrum(array![[1.0, 2.0], [2.0, 1.0]].view()).is_err());
        assert!(gram_spectrum(array![[1.0, f64::NAN], [f64::NAN, 1.0]].view()).is_err());
        assert!(gram_spectrum(array![[1.0, 2.0]].view()).is_err());
    }

    #[test]
    fn fishers_of_zeros_have_nothing_to_keep() {
        let (g, zero) = (draw(4, 10, 14), Array2::zeros((3, 10)));
        for (g_s, g_u) in [(&zero, &g), (&zero, &zero)] {
            let eigen = samples(&grams(g_s, g_u), 1e-3).unwrap();
            assert_eq!((eigen.values.len(), eigen.residual), (0, 0.0));
            assert_eq!(eigen.safety.dim(), (3, 0));
        }
        // Nothing to protect: plain eigenvalues over eps.
        let eigen = samples(&grams(&g, &zero), 0.5).unwrap();
        let spectrum = gram_spectrum(g.dot(&g.t()).view()).unwrap();
        for (got, want) in eigen.values.iter().zip(spectrum) {
            assert!((got - 2.0 * want).abs() <= 1e-13 * 2.0 * want, "{got} {want}");
        }
    }

    #[test]
    fn what_is_no_gram_matrix_is_named() {
        let good = grams(&draw(3, 9, 15), &draw(4, 9, 16));
        let attempt = |change: &dyn Fn(&mut SampleGrams), eps| {
            let mut bad = good.clone();
            change(&mut bad);
            match samples(&bad, eps).unwrap_err() {
                Error::InModule { module, source } => {
                    assert_eq!(module, "m");
                    *source
                }
                other => other,
            }
        };
        let nan = attempt(&|g| g.cross[[1, 2]] = f64::NAN, 0.1);
        assert!(matches!(
            nan,
            Error::NotFinite {
                matrix: "K_su",
                row: 1,
                col: 2,
                ..
            }
        ));
        let skew = attempt(&|g| g.utility[[0, 2]] += 1.0, 0.1);
        assert!(matches!(skew, Error::NotSymmetric { matrix: "K_uu", .. }));
        assert!(matches!(attempt(&|g| g.cross *= 3.0, 0.1), Error::Indefinite { .. }));
        assert!(matches!(
            attempt(&|g| g.safety[[0, 0]] = -1.0, 0.1),
            Error::Indefinite { .. }
        ));
        assert!(matches!(
            attempt(&|g| g.safety = Array2::eye(2), 0.1),
            Error::Shapes { .. }
        ));
        for eps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(
                attempt(&|_| {}, eps)
                    .to_string()
                    .contains("must be finite and positive")
            );
        }
    }

    #[test]
    fn sixty_decades_give_a_verified_answer_or_an_error() {
        let mut rng = ChaCha8Rng::seed_from_u64(17);
        let mut solved = 0;
        for seed in 0..40 {
            let mut scaled = |g: Array2<f64>| {
                let scale = Array1::from_shape_simple_fn(g.nrows(), || 10f64.powf(rng.random_range(-15.0..15.0)));
                g * scale.insert_axis(Axis(1))
            };
            let (g_s, g_u) = (scaled(draw(4, 12, seed)), scaled(draw(5, 12, seed + 100)));
            let grams = grams(&g_s, &g_u);
            match samples(&grams, 1e-2 * mean_eigenvalue(grams.utility_trace(), 12)) {
                Ok(eigen) => {
                    solved += 1;
                    let v = g_s.t().dot(&eigen.safety) + g_u.t().dot(&eigen.utility);
                    let b =
                        |x: &Array2<f64>| fisher(&g_u).dot(x) + 1e-2 * mean_eigenvalue(grams.utility_trace(), 12) * x;
                    let gap = fisher(&g_s).dot(&v) - b(&(&v * &eigen.values));
                    for ((gap, x), value) in gap.columns().into_iter().zip(v.columns()).zip(&eigen.values) {
                        let norms = frobenius(fisher(&g_s).view()) + value * frobenius(fisher(&g_u).view());
                        let relative = gap.dot(&gap).sqrt() / (norms * x.dot(&x).sqrt());
                        assert!(relative <= RESIDUAL_LIMIT, "{relative:e}");
                    }
                }
                Err(Error::InModule { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert!(solved > 0);
    }
}
