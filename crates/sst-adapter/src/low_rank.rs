//! One module's change of weight as a product of two thin factors: delta W = b a.
//!
//! The scale s of the adapter is folded into b, so that changes of adapters with different ranks, alphas and scalings
//! add up. Nothing here but [`LowRank::dense`] ever holds a `[d_out, d_in]` matrix:
//!
//! - sum_t w_t b_t a_t = [w_1 b_1 ... w_n b_n] [a_1; ...; a_n], exactly, at the sum of the ranks;
//! - <b_1 a_1, b_2 a_2> = tr(a_1^T b_1^T b_2 a_2) = sum_ij (b_1^T b_2)_ij (a_1 a_2^T)_ij.
//!
//! Entries are stored as f32; sums are taken in f64.

mod matrix;
mod range;
mod svd;

pub use svd::LowRankSvd;

use crate::{Error, LoraModule};
use matrix::{f64s, gram, product};
use ndarray::{Array2, s};
use std::fmt::Display;

/// Rows of the dense matrix that are computed at a time, in f64.
const DENSE_ROWS: usize = 256;

/// delta W = b a of one module.
///
/// ```
/// use ndarray::array;
/// use sst_adapter::LowRank;
/// # fn main() -> Result<(), sst_adapter::Error> {
/// let x = LowRank { a: array![[1.0, 2.0]], b: array![[3.0], [4.0]] };
/// let y = LowRank { a: array![[0.0, 1.0]], b: array![[1.0], [0.0]] };
/// let sum = LowRank::stack(&[(1.0, &x), (-2.0, &y)])?;
/// assert_eq!((sum.rank(), sum.dense()), (2, array![[3.0, 4.0], [4.0, 8.0]]));
/// assert_eq!(x.inner(&y), 6.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// `[r, d_in]`.
    pub a: Array2<f32>,
    /// `[d_out, r]`, the scale folded in.
    pub b: Array2<f32>,
}

impl LowRank {
    /// The change of a LoRA module: a = A, b = s B.
    pub fn of(module: &LoraModule) -> Self {
        let (a, b) = (module.a.clone(), module.b.clone());
        LowRank { a, b }.scaled(module.scale())
    }

    /// No change at all: rank 0, shape `[d_out, d_in]`.
    pub fn zero([d_out, d_in]: [usize; 2]) -> Self {
        Self {
            a: Array2::zeros((0, d_in)),
            b: Array2::zeros((d_out, 0)),
        }
    }

    /// The inner dimension r of the factors; the rank of delta W is at most that.
    pub fn rank(&self) -> usize {
        self.a.nrows()
    }

    /// `[d_out, d_in]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.b.nrows(), self.a.ncols()]
    }

    /// Checks that delta W is of the shape `[d_out, d_in]` and that its factors fit each other.
    ///
    /// # Errors
    /// [`Error::Shape`] of the operation `op`, with `name` for the change.
    pub fn check_shape(&self, shape: [usize; 2], op: &'static str, name: impl Display) -> Result<(), Error> {
        let ((d_out, inner), (rank, d_in)) = (self.b.dim(), self.a.dim());
        let (tensor, expected, got) = if [d_out, d_in] != shape {
            (name.to_string(), shape, [d_out, d_in])
        } else if inner != rank {
            (format!("b of {name}"), [d_out, rank], [d_out, inner])
        } else {
            return Ok(());
        };
        Err(Error::Shape {
            op,
            tensor,
            expected: expected.to_vec(),
            got: got.to_vec(),
        })
    }

    /// `factor` delta W, multiplied into b.
    pub fn scaled(mut self, factor: f64) -> Self {
        if factor != 1.0 {
            self.b.mapv_inplace(|x| (factor * f64::from(x)) as f32);
        }
        self
    }

    /// The weighted sum, exactly, with the sum of the ranks; weights are multiplied into b.
    ///
    /// # Errors
    /// [`Error::Empty`] when there is no part, [`Error::Shape`] when two parts differ in shape or the factors of one do not
    /// fit each other.
    pub fn stack(parts: &[(f64, &LowRank)]) -> Result<Self, Error> {
        let Some((_, first)) = parts.first() else {
            return Err(Error::Empty);
        };
        let [d_out, d_in] = first.shape();
        let rank = parts.iter().map(|(_, part)| part.rank()).sum();
        let (mut a, mut b) = (Array2::zeros((rank, d_in)), Array2::zeros((d_out, rank)));
        let mut start = 0;
        for (i, (weight, part)) in parts.iter().enumerate() {
            part.check_shape([d_out, d_in], "sum of low-rank changes", format_args!("part {}", i + 1))?;
            let place = start..start + part.rank();
            start = place.end;
            a.slice_mut(s![place.clone(), ..]).assign(&part.a);
            b.slice_mut(s![.., place])
                .zip_mut_with(&part.b, |out, x| *out = (weight * f64::from(*x)) as f32);
        }
        Ok(Self { a, b })
    }

    /// delta W, `[d_out, d_in]`; every entry is summed in f64 and rounded once.
    ///
    /// # Panics
    /// When b does not have as many columns as a has rows.
    pub fn dense(&self) -> Array2<f32> {
        let [d_out, d_in] = self.shape();
        let mut dense = Array2::zeros((d_out, d_in));
        let a = f64s(self.a.view());
        for start in (0..d_out).step_by(DENSE_ROWS) {
            let rows = start..(start + DENSE_ROWS).min(d_out);
            let block = product(f64s(self.b.slice(s![rows.clone(), ..])).as_ref(), a.as_ref());
            for ((i, j), entry) in dense.slice_mut(s![rows, ..]).indexed_iter_mut() {
                *entry = block[(i, j)] as f32;
            }
        }
        dense
    }

    /// The Frobenius inner product of two changes of the same shape.
    ///
    /// # Panics
    /// As [`LowRank::inner_products`].
    pub fn inner(&self, other: &LowRank) -> f64 {
        Self::inner_products(&[self, other])[[0, 1]]
    }

    /// The Frobenius inner products of every two of several changes of one shape, `[n, n]`, from two Gram matrices.
    ///
    /// # Panics
    /// When the shapes differ, or a b does not have as many columns as its a has rows.
    pub fn inner_products(parts: &[&LowRank]) -> Array2<f64> {
        let shapes_agree = parts.windows(2).all(|pair| pair[0].shape() == pair[1].shape());
        let factors_fit = parts.iter().all(|part| part.b.ncols() == part.rank());
        assert!(shapes_agree && factors_fit, "inner products of low-rank changes");
        let outputs = gram(parts.iter().map(|part| part.b.t())); // [sum of r, sum of r]
        let inputs = gram(parts.iter().map(|part| part.a.view())); // [sum of r, sum of r]
        let mut end = 0;
        let places: Vec<_> = parts
            .iter()
            .map(|part| {
                let start = end;
                end += part.rank();
                start..end
            })
            .collect();
        Array2::from_shape_fn((parts.len(), parts.len()), |(i, j)| {
            // Below the diagonal, where both Gram matrices are computed.
            let (rows, cols) = (places[i.max(j)].clone(), places[i.min(j)].clone());
            let entry = |row: usize, col: usize| {
                let (row, col) = (row.max(col), row.min(col));
                outputs[(row, col)] * inputs[(row, col)]
            };
            cols.map(|col| rows.clone().map(|row| entry(row, col)).sum::<f64>())
                .sum()
        })
    }

    /// The Frobenius norm. Where parts of delta W cancel, it is right to 1e-8 of the parts, not of the rest.
    ///
    /// # Panics
    /// When b does not have as many columns as a has rows.
    pub fn norm(&self) -> f64 {
        Self::inner_products(&[self])[[0, 0]].max(0.0).sqrt()
    }

    /// Checks that the factors fit together and hold neither NaN nor infinity.
    fn check(&self) -> Result<(), Error> {
        self.check_shape(self.shape(), "low-rank change", "delta W")?;
        for (name, factor) in [("a", &self.a), ("b", &self.b)] {
            matrix::check_finite(name, factor.view())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn ramp(rows: usize, cols: usize, start: f32) -> Array2<f32> {
        Array2::from_shape_fn((rows, cols), |(i, j)| ((start + (i * cols + j) as f32) * 0.7).sin())
    }

    fn low_rank(d_out: usize, rank: usize, d_in: usize, start: f32) -> LowRank {
        LowRank {
            a: ramp(rank, d_in, start),
            b: ramp(d_out, rank, start + 50.0),
        }
    }

    #[test]
    fn the_scale_of_a_module_is_folded_in() {
        for rslora in [false, true] {
            let module = LoraModule {
                a: ramp(3, 5, 0.0),
                b: ramp(7, 3, 9.0),
                alpha: 2.5,
                rslora,
            };
            let low_rank = LowRank::of(&module);
            assert_eq!((low_rank.rank(), low_rank.shape()), (3, [7, 5]));
            for (x, y) in low_rank.dense().iter().zip(module.delta()) {
                // b is rounded once; three products of magnitude 2 at most.
                assert!((x - y).abs() <= 3.0 * 2.0 * f32::EPSILON, "{x} {y}");
            }
        }
    }

    #[test]
    fn a_stack_is_the_sum_of_the_dense_matrices() {
        let parts = [
            low_rank(6, 1, 5, 0.0),
            low_rank(6, 3, 5, 20.0),
            LowRank::zero([6, 5]),
            low_rank(6, 7, 5, 40.0),
        ];
        let weights = [1.0, -2.5, 3.0, 0.3];
        let weighted: Vec<(f64, &LowRank)> = weights.into_iter().zip(&parts).collect();
        let stack = LowRank::stack(&weighted).unwrap();
        assert_eq!(stack.rank(), 11);
        let mut sum = Array2::<f64>::zeros((6, 5));
        for (weight, part) in &weighted {
            sum.zip_mut_with(&part.dense(), |sum, x| *sum += weight * f64::from(*x));
        }
        for (got, want) in stack.dense().iter().zip(&sum) {
            assert!(
                (f64::from(*got) - want).abs() <= 16.0 * f64::from(f32::EPSILON),
                "{got} {want}"
            );
        }
    }

    #[test]
    fn inner_products_are_those_of_the_dense_matrices() {
        let (x, y) = (low_rank(300, 3, 40, 0.0), low_rank(300, 5, 40, 1000.0));
        let brute = |x: &LowRank, y: &LowRank| -> f64 {
            let products = x
                .dense()
                .iter()
                .zip(y.dense())
                .map(|(x, y)| f64::from(*x) * f64::from(y))
                .collect::<Vec<_>>();
            products.iter().sum()
        };
        let size = x.norm() * y.norm();
        assert!(size > 1.0);
        for (left, right) in [(&x, &y), (&y, &x), (&x, &x), (&y, &y)] {
            let (got, want) = (left.inner(right), brute(left, right));
            assert!(
                (got - want).abs() <= f64::from(f32::EPSILON) * size.max(want.abs()),
                "{got} {want}"
            );
        }
        assert!((x.norm() - brute(&x, &x).sqrt()).abs() <= 1e-6 * x.norm());
        assert_eq!(LowRank::zero([300, 40]).inner(&x), 0.0);
        assert_eq!(LowRank::zero([300, 40]).norm(), 0.0);
        assert_eq!(LowRank::zero([300, 40]).dense(), Array2::<f32>::zeros((300, 40)));
    }

    #[test]
    fn parts_of_another_shape_are_refused() {
        let (x, y) = (low_rank(6, 2, 5, 0.0), low_rank(6, 2, 4, 0.0));
        let message = LowRank::stack(&[(1.0, &x), (1.0, &y)]).unwrap_err().to_string();
        assert!(
            message.contains("part 2 has shape [6, 4], expected [6, 5]"),
            "{message}"
        );
        let thin = LowRank {
            a: x.a.clone(),
            b: ramp(6, 3, 0.0),
        };
        let message = LowRank::stack(&[(1.0, &x), (1.0, &thin)]).unwrap_err().to_string();
        assert!(
            message.contains("b of part 2 has shape [6, 3], expected [6, 2]"),
            "{message}"
        );
        assert!(matches!(LowRank::stack(&[]), Err(Error::Empty)));
    }

    #[test]
    fn bad_factors_are_named() {
        let mut x = low_rank(6, 2, 5, 0.0);
        x.b[[3, 1]] = f32::NAN;
        let message = x.svd().unwrap_err().to_string();
        assert_eq!(message, "tensor b holds NaN at flat index 7");
        let x = LowRank {
            a: array![[1.0, 2.0]],
            b: array![[1.0, 2.0]],
        };
        let message = x.svd().unwrap_err().to_string();
        assert!(
            message.contains("b of delta W has shape [1, 2], expected [1, 1]"),
            "{message}"
        );
    }
}
