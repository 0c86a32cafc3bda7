//! Both Fishers Kronecker products F = G (x) A of a linear layer (K-FAC; Martens & Grosse 2015): two small problems.
//!
//! On dW `[d_out, d_in]`, F maps X to G X A. With A_s V = (A_u + eps_a I) V Lambda, V^T (A_u + eps_a I) V = I, and
//! G_s W = (G_u + eps_g I) W M likewise, the pair
//!
//! ```text
//! F_s = G_s (x) A_s,    B = (G_u + eps_g I) (x) (A_u + eps_a I)
//! ```
//!
//! has the eigenvalues mu_i lambda_j with the eigenvectors w_i v_j^T, and these are B-orthonormal. Each eps is `ridge`
//! times the mean eigenvalue of its factor of F_u, so that it follows the factor's scale. Without output factors G is
//! the identity, with no ridge: the eigenvalues are the lambda_j, each of them d_out times.

use super::dense::{DenseEigen, dense, frobenius};
use super::products::ProductSpectrum;
use crate::Error;
use crate::fisher::check_setting;
use ndarray::{Array1, ArrayView2};

/// The factor A, or G, of both Fishers: two symmetric matrices of the same size.
#[derive(Debug, Clone, Copy)]
pub struct FactorPair<'a> {
    /// A_s or G_s, `[d, d]`.
    pub safety: ArrayView2<'a, f64>,
    /// A_u or G_u, `[d, d]`.
    pub utility: ArrayView2<'a, f64>,
}

/// The solution for one side.
#[derive(Debug, Clone, PartialEq)]
pub struct FactorEigen {
    /// All eigenpairs; no eigenvalue is negative.
    pub eigen: DenseEigen,
    /// What was added to the utility factor's diagonal.
    pub eps: f64,
    /// The most negative eigenvalue that rounding had produced and that was set to 0; 0 when there was none.
    pub clamped: f64,
}

/// The solution of one module, as its two sides.
#[derive(Debug, Clone, PartialEq)]
pub struct KroneckerEigen {
    /// lambda_j and v_j, of A.
    pub input: FactorEigen,
    /// mu_i and w_i, of G; none for G = I.
    pub output: Option<FactorEigen>,
}

/// Solves G_s X A_s = lambda (G_u + eps_g I) X (A_u + eps_a I); `output` is none for G_s = G_u = I.
///
/// A safety factor may be indefinite as far as single-precision storage and the solver's residual explain: such
/// eigenvalues become 0 and [`FactorEigen::clamped`] reports them. Beyond that it is an error.
///
/// ```
/// use ndarray::array;
/// use sst_subspace::gevp::{FactorPair, kronecker};
/// let (a_s, a_u) = (array![[4.0, 0.0], [0.0, 1.0]], array![[1.0, 0.0], [0.0, 1.0]]);
/// let input = FactorPair { safety: a_s.view(), utility: a_u.view() };
/// let eigen = kronecker("layers.0.q_proj", input, None, 1.0)?;
/// assert!((eigen.input.eigen.values[0] - 2.0).abs() < 1e-15); // 4 / (1 + 1)
/// # Ok::<(), sst_subspace::Error>(())
/// ```
///
/// # Errors
/// [`Error::Setting`] for the ridge; [`Error::InFactor`] with the module, the side and, as its source, the errors of
/// [`dense`], [`Error::Trace`] for a utility factor of trace 0, or [`Error::Indefinite`].
pub fn kronecker(
    module: &str,
    input: FactorPair<'_>,
    output: Option<FactorPair<'_>>,
    ridge: f64,
) -> Result<KroneckerEigen, Error> {
    let output = output.map(|pair| solve_side(module, "output", pair, ridge));
    Ok(KroneckerEigen {
        input: solve_side(module, "input", input, ridge)?,
        output: output.transpose()?,
    })
}

/// One side of [`kronecker`], `input` or `output`: layers that share an input share its solution.
pub(crate) fn solve_side(
    module: &str,
    side: &'static str,
    pair: FactorPair<'_>,
    ridge: f64,
) -> Result<FactorEigen, Error> {
    check_setting("ridge", ridge)?;
    solve_factor(pair, ridge).map_err(Error::in_factor(module, side))
}

/// eps of a utility factor: `ridge` times its mean eigenvalue.
pub(crate) fn relative_eps(utility: ArrayView2<f64>, ridge: f64) -> Result<f64, Error> {
    check_setting("ridge", ridge)?;
    let d = utility.nrows();
    let trace = utility.diag().sum();
    if trace <= 0.0 && d > 0 {
        return Err(Error::Trace { value: trace });
    }
    Ok(ridge * trace / d as f64)
}

fn solve_factor(pair: FactorPair<'_>, ridge: f64) -> Result<FactorEigen, Error> {
    let eps = relative_eps(pair.utility, ridge)?;
    let mut eigen = dense(pair.safety, pair.utility, eps)?;
    let clamped = clamp(&mut eigen, pair, eps)?;
    Ok(FactorEigen { eigen, eps, clamped })
}

/// Sets eigenvalues that are negative by rounding to 0 and returns the most negative one.
///
/// With v^T B v = 1, lambda = v^T F_s v up to the residual; F_s, rounded to single precision, may dip below 0 by half
/// an ulp of its norm.
fn clamp(eigen: &mut DenseEigen, pair: FactorPair<'_>, eps: f64) -> Result<f64, Error> {
    let norm_s = frobenius(pair.safety);
    let norm_b = frobenius(pair.utility) + eps * (pair.utility.nrows() as f64).sqrt();
    let mut clamped = 0.0;
    for (value, vector) in eigen.values.iter_mut().zip(eigen.vectors.columns()) {
        if *value < 0.0 {
            let rounding = f64::from(f32::EPSILON) * norm_s + eigen.residual * (norm_s + value.abs() * norm_b);
            let allowed = -rounding * vector.dot(&vector);
            if *value < allowed {
                let (matrix, value) = ("F_s", *value);
                return Err(Error::Indefinite { matrix, value, allowed });
            }
            clamped = value.min(clamped);
            *value = 0.0;
        }
    }
    Ok(clamped)
}

impl KroneckerEigen {
    /// The eigenvalues of both sides, for [`top_products`](super::top_products).
    pub fn spectrum(&self) -> ProductSpectrum<'_> {
        let input = self.input.eigen.values.view();
        match &self.output {
            Some(output) => ProductSpectrum {
                output: output.eigen.values.view(),
                input,
            },
            None => ProductSpectrum::of_input(input),
        }
    }

    /// Largest relative residual of the Kronecker problem itself over the pairs (i, j) of an output and an input index:
    /// ||F_s X - l B X||_F / ((||F_s|| + l ||B||) ||X||_F) for X = w_i v_j^T, l = mu_i lambda_j, in Frobenius norms.
    ///
    /// No product is formed. With dp = G_s w - mu B_g w and dq = A_s v - lambda B_a v the numerator is
    /// ||mu (B_g w) dq^T + dp (A_s v)^T||, which loses no digits to cancellation. Without output factors i is 0 and
    /// G is left out.
    ///
    /// # Errors
    /// [`Error::Shapes`] for matrices that are not the solved ones, [`Error::Directions`] for an index out of range.
    pub fn residual(
        &self,
        input: FactorPair<'_>,
        output: Option<FactorPair<'_>>,
        pairs: &[(usize, usize)],
    ) -> Result<f64, Error> {
        let input = SideResidual::new(&self.input, input)?;
        let output = match (&self.output, output) {
            (Some(eigen), Some(pair)) => Some(SideResidual::new(eigen, pair)?),
            (None, None) => None,
            (eigen, _) => {
                let size = |present: bool| [usize::from(present); 2];
                return Err(Error::Shapes {
                    op: "kronecker residual: number of output factors",
                    left: size(eigen.is_some()),
                    right: size(eigen.is_none()),
                });
            }
        };
        let mut largest = 0.0;
        for &(i, j) in pairs {
            let v = input.terms(j)?;
            let (gap, scale) = match &output {
                None => (v.gap.dot(&v.gap), (input.norm_s + v.value * input.norm_b) * v.length),
                Some(output) => {
                    let w = output.terms(i)?;
                    let square = w.value.powi(2) * w.denominator.dot(&w.denominator) * v.gap.dot(&v.gap)
                        + w.gap.dot(&w.gap) * v.numerator.dot(&v.numerator)
                        + 2.0 * w.value * w.denominator.dot(&w.gap) * v.gap.dot(&v.numerator);
                    let scale = output.norm_s * input.norm_s + w.value * v.value * output.norm_b * input.norm_b;
                    (square, scale * w.length * v.length)
                }
            };
            // A negative square is a rounded 0; `max` would drop a NaN, and 0 / 0 is a safety factor of zeros.
            let relative = if gap <= 0.0 { 0.0 } else { gap.sqrt() / scale };
            if relative > largest || relative.is_nan() {
                largest = relative;
            }
        }
        Ok(largest)
    }
}

/// One side's matrices with their norms.
struct SideResidual<'e, 'a> {
    eigen: &'e FactorEigen,
    pair: FactorPair<'a>,
    norm_s: f64,
    norm_b: f64,
}

/// What one eigenvector contributes: F_s x, B x, F_s x - value B x and ||x||.
struct Terms {
    value: f64,
    numerator: Array1<f64>,
    denominator: Array1<f64>,
    gap: Array1<f64>,
    length: f64,
}

impl<'e, 'a> SideResidual<'e, 'a> {
    fn new(eigen: &'e FactorEigen, pair: FactorPair<'a>) -> Result<Self, Error> {
        let shape = eigen.eigen.vectors.dim();
        for matrix in [pair.safety, pair.utility] {
            if matrix.dim() != shape {
                return Err(Error::Shapes {
                    op: "kronecker residual",
                    left: shape.into(),
                    right: matrix.dim().into(),
                });
            }
        }
        let mut ridged = pair.utility.to_owned();
        ridged.diag_mut().mapv_inplace(|x| x + eigen.eps);
        Ok(Self {
            eigen,
            pair,
            norm_s: frobenius(pair.safety),
            norm_b: frobenius(ridged.view()),
        })
    }

    fn terms(&self, index: usize) -> Result<Terms, Error> {
        let eigen = &self.eigen.eigen;
        let value = *eigen.values.get(index).ok_or(Error::Directions {
            k: index + 1,
            available: eigen.values.len(),
        })?;
        let x = eigen.vectors.column(index);
        let numerator = self.pair.safety.dot(&x);
        let denominator = self.pair.utility.dot(&x) + self.eigen.eps * &x;
        Ok(Terms {
            value,
            gap: &numerator - &(value * &denominator),
            numerator,
            denominator,
            length: x.dot(&x).sqrt(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gevp::top_products;
    use ndarray::linalg::kron;
    use ndarray::{Array2, array, s};
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    /// X^T X / rows of random rows, ill-scaled across columns, times a scale.
    fn factor(d: usize, rows: usize, scale: f64, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let x = Array2::from_shape_fn((rows, d), |(_, j)| rng.random_range(-1.0..1.0) / (1.0 + j as f64));
        scale * x.t().dot(&x) / rows as f64
    }

    fn pair<'a>(safety: &'a Array2<f64>, utility: &'a Array2<f64>) -> FactorPair<'a> {
        let (safety, utility) = (safety.view(), utility.view());
        FactorPair { safety, utility }
    }

    fn ridged(utility: &Array2<f64>, eps: f64) -> Array2<f64> {
        utility + eps * Array2::<f64>::eye(utility.nrows())
    }

    #[test]
    fn agrees_with_the_dense_product() {
        for (d_out, d_in, rows, scale, ridge) in [
            (4, 7, 30, 1.0, 1e-2),
            (9, 5, 30, 1e-12, 1e-3), // gradients are small
            (6, 11, 4, 3e5, 1e-1),   // rank-deficient on both sides
        ] {
            let [a_s, a_u] = [1, 2].map(|seed| factor(d_in, rows, 2.5, seed));
            let [g_s, g_u] = [3, 4].map(|seed| factor(d_out, rows, scale, seed));
            let (input, output) = (pair(&a_s, &a_u), pair(&g_s, &g_u));
            let eigen = kronecker("m", input, Some(output), ridge).unwrap();
            let solved = eigen.output.as_ref().unwrap();
            let f_s = kron(&g_s, &a_s); // on the rows of dW, one after the other
            let b = kron(&ridged(&g_u, solved.eps), &ridged(&a_u, eigen.input.eps));
            let brute = dense(f_s.view(), b.view(), 0.0).unwrap();
            let products = top_products(&[eigen.spectrum()], d_out * d_in).unwrap();
            for (product, want) in products.iter().zip(&brute.values) {
                let gap = (product.value - want).abs();
                assert!(gap <= 1e-12 * brute.values[0], "{} {want}", product.value);
            }
            let k = 1 + rows.min(6);
            let apart = (brute.values[k - 1] - brute.values[k]) / brute.values[0];
            assert!(apart > 1e-4, "the test needs a gap: {apart}");
            let mut v = Array2::zeros((d_out * d_in, k));
            for (product, mut column) in products.iter().zip(v.columns_mut()) {
                let (w, x) = (
                    solved.eigen.vectors.slice(s![.., product.output..=product.output]),
                    eigen.input.eigen.vectors.slice(s![.., product.input..=product.input]),
                );
                column.assign(&kron(&w, &x).column(0));
            }
            let top = brute.vectors.slice(s![.., ..k]);
            let (got, want) = (v.dot(&v.t()).dot(&b), top.dot(&top.t()).dot(&b));
            let size = frobenius(want.view());
            assert!(
                frobenius((&got - &want).view()) <= 1e-11 / apart * size,
                "{d_out} x {d_in}"
            );
            // The residual, against its definition on the whole product.
            let pairs: Vec<(usize, usize)> = products[..k].iter().map(|p| (p.output, p.input)).collect();
            let got = eigen.residual(input, Some(output), &pairs).unwrap();
            assert!(got <= 1e-14, "{got:e}");
            for (column, product) in v.columns().into_iter().zip(&products) {
                let gap = f_s.dot(&column) - product.value * b.dot(&column);
                let norms = frobenius(f_s.view()) + product.value * frobenius(b.view());
                let relative = gap.dot(&gap).sqrt() / (norms * column.dot(&column).sqrt());
                assert!(relative <= 1e-14, "{relative:e}");
            }
        }
    }

    #[test]
    fn the_residual_is_that_of_the_product_when_the_answer_is_wrong() {
        let [a_s, a_u] = [1, 2].map(|seed| factor(5, 20, 2.0, seed));
        let [g_s, g_u] = [3, 4].map(|seed| factor(3, 20, 0.5, seed));
        let (input, output) = (pair(&a_s, &a_u), pair(&g_s, &g_u));
        let mut eigen = kronecker("m", input, Some(output), 1e-2).unwrap();
        eigen.input.eigen.vectors[[1, 2]] += 3.0;
        eigen.output.as_mut().unwrap().eigen.values[1] *= 2.0;
        let solved = eigen.output.as_ref().unwrap();
        let (f_s, b) = (
            kron(&g_s, &a_s),
            kron(&ridged(&g_u, solved.eps), &ridged(&a_u, eigen.input.eps)),
        );
        let mut worst = 0.0f64;
        for (i, j) in [(1, 2), (0, 2), (1, 0), (2, 4)] {
            let x = kron(
                &solved.eigen.vectors.slice(s![.., i..=i]),
                &eigen.input.eigen.vectors.slice(s![.., j..=j]),
            );
            let value = solved.eigen.values[i] * eigen.input.eigen.values[j];
            let want = frobenius((f_s.dot(&x) - value * b.dot(&x)).view())
                / ((frobenius(f_s.view()) + value * frobenius(b.view())) * frobenius(x.view()));
            let got = eigen.residual(input, Some(output), &[(i, j)]).unwrap();
            assert!((got - want).abs() <= 1e-13, "{got} {want}");
            worst = worst.max(want);
        }
        assert!(worst > 0.01, "{worst}");
        let all = eigen.residual(input, Some(output), &[(2, 4), (1, 2), (0, 2), (1, 0)]);
        assert!((all.unwrap() - worst).abs() <= 1e-13);
        assert!(eigen.residual(input, None, &[(0, 0)]).is_err());
        assert!(matches!(
            eigen.residual(input, Some(output), &[(3, 0)]),
            Err(Error::Directions { k: 4, available: 3 })
        ));
        assert!(matches!(
            eigen.residual(output, Some(output), &[(0, 0)]),
            Err(Error::Shapes { .. })
        ));
    }

    #[test]
    fn without_output_factors_the_inputs_decide() {
        let [a_s, a_u] = [5, 6].map(|seed| factor(6, 30, 0.1, seed));
        let input = pair(&a_s, &a_u);
        let alone = kronecker("m", input, None, 1e-2).unwrap();
        assert_eq!(alone.input.eps, 1e-2 * a_u.diag().sum() / 6.0);
        let products = top_products(&[alone.spectrum()], 6).unwrap();
        assert!(products.iter().all(|p| p.output == 0));
        // With G = I of any size and no ridge the same values come out, d_out times each.
        let eye = Array2::eye(3);
        let mut whole = alone.clone();
        whole.output = Some(FactorEigen {
            eigen: dense(eye.view(), eye.view(), 0.0).unwrap(),
            eps: 0.0,
            clamped: 0.0,
        });
        for (i, product) in top_products(&[whole.spectrum()], 18).unwrap().iter().enumerate() {
            assert_eq!(product.value, products[i / 3].value);
        }
        assert!(alone.residual(input, None, &[(0, 0), (0, 5)]).unwrap() <= 1e-14);
    }

    #[test]
    fn rounding_is_clamped_and_an_indefinite_factor_is_refused() {
        // Rank 3 of 8, stored in single precision.
        let single = |m: Array2<f64>| m.mapv(|x| f64::from(x as f32));
        let (a_s, a_u) = (single(factor(8, 3, 1.0, 7)), factor(8, 30, 1.0, 8));
        let eigen = kronecker("m", pair(&a_s, &a_u), None, 1e-3).unwrap();
        let values = &eigen.input.eigen.values;
        assert!(eigen.input.clamped < 0.0 && eigen.input.clamped > -1e-4 * values[0]);
        assert!(values.iter().all(|x| *x >= 0.0) && values[2] > 1e-3 * values[0]);
        let mut dipped = a_s.clone();
        dipped.diag_mut().mapv_inplace(|x| x - 1e-4 * a_s[[0, 0]]);
        let message = kronecker("layers.3.q_proj", pair(&a_s, &a_u), Some(pair(&dipped, &a_u)), 1e-3)
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("module layers.3.q_proj, output factor: gevp: F_s is indefinite"),
            "{message}"
        );
    }

    #[test]
    fn bad_factors_are_named() {
        let good = factor(4, 20, 1.0, 9);
        let source = |a_s: &Array2<f64>, a_u: &Array2<f64>, ridge| match kronecker("m", pair(a_s, a_u), None, ridge)
            .unwrap_err()
        {
            Error::InFactor {
                side: "input", source, ..
            } => *source,
            other => other,
        };
        let zero = Array2::zeros((4, 4));
        assert!(matches!(source(&good, &zero, 1e-2), Error::Trace { value: 0.0 }));
        let mut nan = good.clone();
        nan[[2, 2]] = f64::NAN;
        let found = |e| matches!(e, Error::NotFinite { row: 2, col: 2, .. });
        assert!(found(source(&nan, &good, 1e-2)) && found(source(&good, &nan, 1e-2)));
        assert!(matches!(
            source(&good, &good, f64::NAN),
            Error::Setting { name: "ridge", .. }
        ));
        assert!(matches!(source(&good, &array![[1.0]], 1e-2), Error::Pair { .. }));
        let mut dipped = good.clone();
        dipped[[3, 3]] = -0.1;
        assert!(matches!(source(&good, &dipped, 1e-3), Error::NotPositiveDefinite));
        dipped[[3, 3]] = -10.0;
        assert!(matches!(source(&good, &dipped, 1e-3), Error::Trace { .. }));
        // A safety Fisher of zeros is a Fisher: nothing matters.
        let eigen = kronecker("m", pair(&zero, &good), Some(pair(&zero, &good)), 1e-2).unwrap();
        let pairs = [(0, 0), (3, 3)];
        assert_eq!(eigen.input.eigen.values, ndarray::Array1::<f64>::zeros(4));
        let residual = eigen.residual(pair(&zero, &good), Some(pair(&zero, &good)), &pairs);
        assert_eq!(residual.unwrap(), 0.0);
    }

    #[test]
    fn the_scale_of_a_factor_does_not_matter() {
        let (a_s, a_u) = (factor(6, 20, 1.0, 10), factor(6, 20, 1.0, 11));
        let one = kronecker("m", pair(&a_s, &a_u), None, 1e-2).unwrap();
        for (s, u) in [(1e-30, 1e-30), (1e30, 1e30), (1e-30, 1e30), (1e30, 1e-30)] {
            let (a_s, a_u) = (s * &a_s, u * &a_u);
            let other = kronecker("m", pair(&a_s, &a_u), None, 1e-2).unwrap();
            for (x, y) in one.input.eigen.values.iter().zip(&other.input.eigen.values) {
                let want = x * (s / u);
                assert!(
                    (y - want).abs() <= 1e-12 * one.input.eigen.values[0] * (s / u),
                    "{y} {want}"
                );
            }
            assert!(other.residual(pair(&a_s, &a_u), None, &[(0, 0), (0, 5)]).unwrap() <= 1e-14);
        }
    }

    #[test]
    fn entries_of_sixty_decades_give_a_verified_answer_or_an_error() {
        let mut rng = ChaCha8Rng::seed_from_u64(12);
        let mut solved = 0;
        for _ in 0..40 {
            let mut draw = || {
                let scale: Vec<f64> = (0..5).map(|_| 10f64.powf(rng.random_range(-15.0..15.0))).collect();
                let x = factor(5, 20, 1.0, rng.random());
                Array2::from_shape_fn((5, 5), |(i, j)| x[[i, j]] * scale[i] * scale[j])
            };
            let (a_s, a_u) = (draw(), draw());
            match kronecker("m", pair(&a_s, &a_u), None, 1e-2) {
                Ok(eigen) => {
                    solved += 1;
                    let pairs: Vec<(usize, usize)> = (0..5).map(|j| (0, j)).collect();
                    let residual = eigen.residual(pair(&a_s, &a_u), None, &pairs).unwrap();
                    assert!(residual <= 1e-8, "{residual:e}");
                }
                Err(Error::InFactor { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert!(solved > 0);
    }
}
