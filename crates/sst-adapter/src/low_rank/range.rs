//! The best approximation of rank r of a dense matrix M, without its decomposition.
//!
//! A range finder (Halko, Martinsson & Tropp 2011, "Finding structure with randomness", algorithm 4.4) multiplies M with
//! r + p random columns and sharpens the span by q rounds of Q <- orth(M orth(M^T Q)); the decomposition of the thin
//! Q^T M (algorithm 5.1) gives the factors. As Q is orthonormal, what is missed has two parts at right angles:
//! ||M - Q (Q^T M)_r||^2 = ||M - Q Q^T M||^2 + sum_{i > r} s_i^2, with the singular values s of Q^T M.
//!
//! M is read in blocks of rows, so f64 copies of it are never whole.

use super::LowRank;
use super::matrix::{add_product, check_finite, f64s};
use super::svd::of_product;
use crate::Error;
use crate::decompose::qr;
use faer::{Mat, MatRef};
use ndarray::{ArrayView2, s};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Random columns beyond the rank asked for (p).
const OVERSAMPLING: usize = 16;
/// Rounds of the subspace iteration (q).
const ROUNDS: usize = 3;
/// Rows of M that are converted at a time.
const ROWS: usize = 256;
/// The same matrix gives the same factors.
const SEED: u64 = 0x5EED;

impl LowRank {
    /// An approximation of `dense` `[d_out, d_in]` of at most `rank`, within a few percent of the best, and its relative
    /// Frobenius error before rounding to f32. Costs 9 products of `dense` with `rank` + 16 columns.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for NaN or infinity, [`Error::Decomposition`] when the small decomposition does not converge.
    pub fn from_dense(dense: ArrayView2<f32>, rank: usize) -> Result<(LowRank, f64), Error> {
        check_finite("dense change of weight", dense)?;
        let (d_out, d_in) = dense.dim();
        let width = rank.saturating_add(OVERSAMPLING).min(d_out).min(d_in);
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut q = orthonormal(times(dense, gaussian(d_in, width, &mut rng).as_ref()));
        for _ in 0..ROUNDS {
            let p = orthonormal(transposed_times(dense, q.as_ref()));
            q = orthonormal(times(dense, p.as_ref()));
        }
        let thin = transposed_times(dense, q.as_ref()); // [d_in, width]: (Q^T M)^T
        let svd = of_product(q.as_ref(), thin.transpose())?;
        let (total, outside) = energies(dense, q.as_ref(), thin.transpose());
        let cut: f64 = svd.s.iter().skip(rank).map(|s| s * s).sum();
        let error = match total {
            0.0 => 0.0,
            _ => ((outside + cut) / total).sqrt(),
        };
        Ok((LowRank::from_svd(&svd, rank), error))
    }
}

/// Entries from the standard normal distribution, by Box and Muller.
fn gaussian(rows: usize, cols: usize, rng: &mut ChaCha8Rng) -> Mat<f64> {
    Mat::from_fn(rows, cols, |_, _| {
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    })
}

fn orthonormal(m: Mat<f64>) -> Mat<f64> {
    qr(m).0
}

/// M in f64, a block of rows at a time with the index of its first row.
fn blocks(m: ArrayView2<f32>) -> impl Iterator<Item = (usize, Mat<f64>)> {
    let starts = (0..m.nrows()).step_by(ROWS);
    starts.map(move |start| {
        let end = (start + ROWS).min(m.nrows());
        (start, f64s(m.slice(s![start..end, ..])))
    })
}

/// M x, `[d_out, n]`.
fn times(m: ArrayView2<f32>, x: MatRef<f64>) -> Mat<f64> {
    let mut out = Mat::zeros(m.nrows(), x.ncols());
    for (start, block) in blocks(m) {
        add_product(out.subrows_mut(start, block.nrows()), block.as_ref(), x, 1.0);
    }
    out
}

/// M^T x, `[d_in, n]`.
fn transposed_times(m: ArrayView2<f32>, x: MatRef<f64>) -> Mat<f64> {
    let mut out = Mat::zeros(m.ncols(), x.ncols());
    for (start, block) in blocks(m) {
        add_product(out.as_mut(), block.transpose(), x.subrows(start, block.nrows()), 1.0);
    }
    out
}

/// ||M||^2 and ||M - q p||^2.
fn energies(m: ArrayView2<f32>, q: MatRef<f64>, p: MatRef<f64>) -> (f64, f64) {
    let (mut whole, mut rest) = (0.0, 0.0);
    for (start, mut block) in blocks(m) {
        whole += block.squared_norm_l2();
        let rows = q.subrows(start, block.nrows());
        add_product(block.as_mut(), rows, p, -1.0);
        rest += block.squared_norm_l2();
    }
    (whole, rest)
}

#[cfg(test)]
mod tests {
    use super::super::matrix::dot;
    use super::*;
    use ndarray::Array2;

    fn random(rows: usize, cols: usize, seed: u64) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let m = gaussian(rows, cols, &mut rng);
        Array2::from_shape_fn((rows, cols), |(i, j)| m[(i, j)] as f32)
    }

    /// Singular values from the whole decomposition.
    fn spectrum(m: &Array2<f32>) -> Vec<f64> {
        f64s(m.view()).singular_values().unwrap()
    }

    fn best(m: &Array2<f32>, rank: usize) -> f64 {
        let energy = |s: &[f64]| s.iter().map(|s| s * s).sum::<f64>();
        let s = spectrum(m);
        (energy(&s[rank.min(s.len())..]) / energy(&s)).sqrt()
    }

    fn missed(m: &Array2<f32>, found: &LowRank) -> f64 {
        let energy = |m: &Array2<f32>| m.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        (energy(&(m - &found.dense())) / energy(m)).sqrt()
    }

    #[test]
    fn is_close_to_the_best_even_where_the_spectrum_is_flat() {
        for (rows, cols) in [(300, 120), (90, 280)] {
            let flat = random(rows, cols, 1);
            let decaying = {
                let low = random(rows, 40, 2) * &Array2::from_shape_fn((1, 40), |(_, j)| 0.8f32.powi(j as i32));
                dot(low.mapv(f64::from).view(), random(40, cols, 3).mapv(f64::from).view()).mapv(|x| x as f32)
                    + 0.05 * &flat
            };
            for (m, slack) in [(flat, 1.01), (decaying, 1.005)] {
                for rank in [1, 8, 32] {
                    let (found, error) = LowRank::from_dense(m.view(), rank).unwrap();
                    assert_eq!((found.rank(), found.shape()), (rank, [rows, cols]));
                    let best = best(&m, rank);
                    assert!(
                        error >= best * (1.0 - 1e-9) && error <= slack * best,
                        "{rank}: {error} {best}"
                    );
                    // What is said is what is so, up to rounding to f32.
                    assert!((missed(&m, &found) - error).abs() <= 1e-6, "{error}");
                }
            }
        }
    }

    #[test]
    fn a_matrix_of_that_rank_comes_back() {
        // More rows than one block.
        let change = LowRank {
            a: random(6, 70, 4),
            b: random(600, 6, 5),
        };
        let dense = change.dense();
        for rank in [6, 9, 70, usize::MAX] {
            let (found, error) = LowRank::from_dense(dense.view(), rank).unwrap();
            assert!(found.rank() <= rank.min(70));
            // The dense matrix is rounded to f32, which leaves some of it outside rank 6.
            assert!(error <= f64::from(f32::EPSILON), "{error}");
            assert!(missed(&dense, &found) <= 4.0 * f64::from(f32::EPSILON));
        }
    }

    #[test]
    fn the_same_matrix_gives_the_same_bits() {
        let m = random(600, 300, 6);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| LowRank::from_dense(m.view(), 16).unwrap())
        };
        let first = run(1);
        assert!(first == run(1) && first == run(3));
    }

    #[test]
    fn zeros_and_rank_zero_are_no_trouble_and_nan_is_refused() {
        let zeros = Array2::zeros((5, 4));
        let (found, error) = LowRank::from_dense(zeros.view(), 2).unwrap();
        assert_eq!((found.dense(), error), (zeros, 0.0));
        let mut m = random(5, 4, 7);
        let (found, error) = LowRank::from_dense(m.view(), 0).unwrap();
        assert_eq!(found.rank(), 0);
        assert!((error - 1.0).abs() <= 1e-15, "{error}");
        m[[2, 1]] = f32::NAN;
        let message = LowRank::from_dense(m.view(), 1).unwrap_err().to_string();
        assert!(message.contains("holds NaN at flat index 9"), "{message}");
    }
}
