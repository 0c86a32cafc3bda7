//! Singular value decomposition of b a without forming it, and the best approximation of lower rank.
//!
//! With b = Q_b R_b and a^T = Q_a R_a, b a = Q_b (R_b R_a^T) Q_a^T; the core is at most `[r, r]` and its decomposition
//! U S V^T gives (Q_b U) S (Q_a V)^T. Keeping the k largest singular values is the best approximation of rank k in the
//! Frobenius norm (Eckart & Young 1936), and what it misses is sqrt(sum_{i > k} s_i^2).

use super::LowRank;
use super::matrix::{f64s, product};
use crate::Error;
use crate::decompose::{array, qr, svd_of};
use faer::MatRef;
use ndarray::{Array1, Array2, s};

/// u diag(s) vt of one module's change.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRankSvd {
    /// Orthonormal columns, `[d_out, r]`.
    pub u: Array2<f64>,
    /// Singular values, descending, `[r]`.
    pub s: Array1<f64>,
    /// Orthonormal rows, `[r, d_in]`.
    pub vt: Array2<f64>,
}

impl LowRankSvd {
    /// Relative Frobenius error of keeping the `rank` largest singular values: 0 for a zero change.
    pub fn error_at(&self, rank: usize) -> f64 {
        let energy = |s: &Array1<f64>| s.iter().map(|x| x * x).sum::<f64>();
        let rest: f64 = self.s.iter().skip(rank).map(|s| s * s).sum();
        match energy(&self.s) {
            0.0 => 0.0,
            total => (rest / total).sqrt(),
        }
    }
}

impl LowRank {
    /// The singular value decomposition, with min(r, d_out, d_in) values.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::NotFinite`] for factors that do not fit or hold NaN, [`Error::Decomposition`] when
    /// the iteration does not converge.
    pub fn svd(&self) -> Result<LowRankSvd, Error> {
        self.check()?;
        of_product(f64s(self.b.view()).as_ref(), f64s(self.a.view()).as_ref())
    }

    /// The best approximation of at most `rank`; singular values are split evenly over both factors.
    pub fn from_svd(svd: &LowRankSvd, rank: usize) -> Self {
        let k = rank.min(svd.s.len());
        let roots = svd.s.slice(s![..k]).mapv(f64::sqrt);
        let b = &svd.u.slice(s![.., ..k]) * &roots;
        let a = &svd.vt.slice(s![..k, ..]) * &roots.insert_axis(ndarray::Axis(1));
        Self {
            a: a.mapv(|x| x as f32),
            b: b.mapv(|x| x as f32),
        }
    }

    /// The best approximation of at most `rank`, and its relative Frobenius error before rounding to f32.
    ///
    /// A change whose factors are that thin already is returned as it is.
    ///
    /// # Errors
    /// As [`LowRank::svd`].
    pub fn compress(&self, rank: usize) -> Result<(LowRank, f64), Error> {
        if rank >= self.rank() {
            self.check()?;
            return Ok((self.clone(), 0.0));
        }
        let svd = self.svd()?;
        Ok((LowRank::from_svd(&svd, rank), svd.error_at(rank)))
    }
}

/// The decomposition of b a, for b `[d_out, r]` and a `[r, d_in]` with finite entries.
pub(super) fn of_product(b: MatRef<f64>, a: MatRef<f64>) -> Result<LowRankSvd, Error> {
    let (d_out, d_in) = (b.nrows(), a.ncols());
    if b.ncols().min(d_out).min(d_in) == 0 {
        return Ok(LowRankSvd {
            u: Array2::zeros((d_out, 0)),
            s: Array1::zeros(0),
            vt: Array2::zeros((0, d_in)),
        });
    }
    let ((q_b, r_b), (q_a, r_a)) = (qr(b.to_owned()), qr(a.transpose().to_owned()));
    let core = product(r_b.as_ref(), r_a.transpose()); // [min(d_out, r), min(d_in, r)]
    let (u, s, v) = svd_of(core.as_ref()).ok_or(Error::Decomposition {
        op: "singular value decomposition of a low-rank change",
        shape: [d_out, d_in],
    })?;
    Ok(LowRankSvd {
        u: array(product(q_b.as_ref(), u.as_ref()).as_ref()),
        s: s.into(),
        vt: array(product(q_a.as_ref(), v.as_ref()).transpose()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::matrix::dot;
    use super::*;
    use ndarray::Axis;

    fn wave(rows: usize, cols: usize, start: f64) -> Array2<f32> {
        Array2::from_shape_fn((rows, cols), |(i, j)| {
            ((start + (i * cols + j) as f64).powf(1.3) * 0.9).sin() as f32
        })
    }

    fn change(d_out: usize, rank: usize, d_in: usize) -> LowRank {
        LowRank {
            a: wave(rank, d_in, 1.0),
            b: wave(d_out, rank, 500.0),
        }
    }

    /// (d_out, r, d_in): thin, wider than the matrix on either side, and wider than both.
    const SHAPES: [(usize, usize, usize); 5] = [(40, 4, 30), (7, 5, 9), (4, 6, 9), (9, 6, 4), (4, 9, 3)];

    fn exact(change: &LowRank) -> Array2<f64> {
        dot(change.b.mapv(f64::from).view(), change.a.mapv(f64::from).view())
    }

    fn norm(m: &Array2<f64>) -> f64 {
        m.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    #[test]
    fn factors_are_orthonormal_and_multiply_to_the_change() {
        for (d_out, rank, d_in) in SHAPES {
            let change = change(d_out, rank, d_in);
            let LowRankSvd { u, s, vt } = change.svd().unwrap();
            assert_eq!(s.len(), rank.min(d_out).min(d_in));
            assert!(s.iter().zip(s.iter().skip(1)).all(|(x, y)| x >= y && *y >= 0.0), "{s}");
            for gram in [dot(u.t(), u.view()), dot(vt.view(), vt.t())] {
                for ((i, j), x) in gram.indexed_iter() {
                    assert!((x - f64::from(u8::from(i == j))).abs() <= 1e-14, "{gram}");
                }
            }
            let product = dot((&u * &s).view(), vt.view());
            let want = exact(&change);
            assert!(norm(&(&product - &want)) <= 1e-14 * norm(&want));
        }
    }

    #[test]
    fn the_error_is_that_of_the_values_cut_off() {
        for (d_out, rank, d_in) in SHAPES {
            let change = change(d_out, rank, d_in);
            let want = exact(&change);
            let svd = change.svd().unwrap();
            for k in 0..=rank + 1 {
                let (small, error) = change.compress(k).unwrap();
                assert!(small.rank() <= k);
                let rest = svd.s.iter().skip(k).map(|s| s * s).sum::<f64>().sqrt();
                assert!((error - rest / norm(&want)).abs() <= 1e-14, "{error}");
                let missed = norm(&(exact(&small) - &want)) / norm(&want);
                // Both factors are rounded to f32.
                assert!(
                    (missed - error).abs() <= 2.0 * f64::from(f32::EPSILON),
                    "{k}: {missed} {error}"
                );
            }
        }
    }

    #[test]
    fn a_thin_change_is_returned_as_it_is() {
        let change = change(9, 3, 8);
        assert_eq!(change.compress(3).unwrap(), (change.clone(), 0.0));
        assert_eq!(change.compress(7).unwrap(), (change, 0.0));
    }

    #[test]
    fn no_change_and_rank_zero_are_no_trouble() {
        for change in [LowRank::zero([5, 4]), change(5, 2, 4).scaled(0.0)] {
            let svd = change.svd().unwrap();
            assert!(svd.s.iter().all(|s| *s == 0.0));
            let (small, error) = change.compress(1).unwrap();
            assert_eq!((small.dense(), error), (Array2::zeros((5, 4)), 0.0));
        }
        let (none, error) = change(5, 2, 4).compress(0).unwrap();
        assert_eq!((none.rank(), none.shape(), error), (0, [5, 4], 1.0));
    }

    #[test]
    fn factors_of_very_different_size_keep_their_digits() {
        let plain = change(20, 3, 10);
        let skewed = LowRank {
            a: plain.a.mapv(|x| x * 2f32.powi(60)),
            b: plain.b.mapv(|x| x * 2f32.powi(-60)),
        };
        let (one, other) = (plain.svd().unwrap().s, skewed.svd().unwrap().s);
        assert!(one.iter().zip(&other).all(|(x, y)| (x - y).abs() <= 1e-14 * one[0]));
        let dependent = LowRank {
            a: ndarray::concatenate(Axis(0), &[plain.a.view(), plain.a.view()]).unwrap(),
            b: ndarray::concatenate(Axis(1), &[plain.b.view(), plain.b.view()]).unwrap(),
        };
        let (small, error) = dependent.compress(3).unwrap();
        assert!(error <= 1e-14, "{error}");
        let want = exact(&dependent);
        assert!(norm(&(exact(&small) - &want)) <= 2.0 * f64::from(f32::EPSILON) * norm(&want));
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let change = change(700, 24, 500);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| change.compress(16).unwrap())
        };
        assert_eq!(run(1), run(3));
    }
}
