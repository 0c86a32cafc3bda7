//! Made-up factors and changes for the tests.

use super::change::Thin;
use faer::linalg::solvers::Solve;
use ndarray::{Array1, Array2, Axis};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_subspace::Factors;

pub(super) const MODULE: &str = "layers.3.self_attn.q_proj";

/// Entries in [-1, 1).
pub(super) fn draw(rows: usize, cols: usize, seed: u64) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-1.0..1.0))
}

/// Rows of activations whose columns are of different scales, and mixed.
pub(super) fn tokens(count: usize, d: usize, seed: u64) -> Array2<f64> {
    let scales = Array1::from_shape_fn(d, |j| 1.0 / (1.0 + j as f64));
    (draw(count, d, seed) * scales).dot(&(Array2::eye(d) + 0.3 * draw(d, d, seed + 1)))
}

pub(super) fn covariance(tokens: &Array2<f64>) -> Array2<f64> {
    let m = tokens.t().dot(tokens) / tokens.nrows() as f64;
    0.5 * &(&m + &m.t())
}

/// A pair of covariances of different scales.
pub(super) fn factors(d: usize, seed: u64) -> Factors {
    Factors {
        safety: 3.0 * covariance(&tokens(3 * d, d, seed)),
        utility: 0.5 * covariance(&tokens(3 * d, d, seed + 2)),
    }
}

pub(super) fn change(d_out: usize, rank: usize, d_in: usize, seed: u64) -> Thin {
    Thin {
        b: draw(d_out, rank, seed),
        a: draw(rank, d_in, seed + 1),
    }
}

/// x with m x = y, by pivoted LU.
pub(super) fn solve(m: &Array2<f64>, y: &Array1<f64>) -> Array1<f64> {
    let lu = super::super::matrix::matrix(m.view()).full_piv_lu();
    let x = lu.solve(super::super::matrix::matrix(y.view().insert_axis(Axis(1))));
    x.col(0).iter().copied().collect()
}

/// Entries agree to `tolerance` of the largest one.
pub(super) fn assert_close(got: &Array2<f64>, want: &Array2<f64>, tolerance: f64) {
    assert_eq!(got.dim(), want.dim());
    let size = want.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= tolerance * size, "{got:e} {want:e} of {size:e}");
    }
}
