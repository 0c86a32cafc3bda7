//! Random draws keyed by (seed, name): neither the order of the draws nor the number of threads matters.

use crate::Error;
use crate::decompose::orthonormal;
use ndarray::Array2;
use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_artefact::sha256_bytes;

/// A generator of its own for every (seed, name).
pub(crate) fn keyed(seed: u64, name: &str) -> ChaCha20Rng {
    let mut key = [0; 32];
    // 32 hexadecimal digits: 128 bits of the hash.
    key.iter_mut()
        .zip(sha256_bytes(format!("{seed} {name}").as_bytes()).bytes())
        .for_each(|(k, digit)| *k = digit);
    ChaCha20Rng::from_seed(key)
}

/// k orthonormal columns of length n, uniform over all k-dimensional subspaces: the Q of a Gaussian matrix.
pub(crate) fn random_frame(n: usize, k: usize, rng: &mut ChaCha20Rng) -> Result<Array2<f64>, Error> {
    let gaussian = Array2::from_shape_simple_fn((n, k), || normal(rng));
    orthonormal("a random matrix", gaussian.view())
}

/// Standard normal, by Box and Muller.
fn normal(rng: &mut ChaCha20Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_seed_and_name() {
        let first = |seed, name| keyed(seed, name).random::<u64>();
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
    }

    #[test]
    fn frames_are_uniform() {
        // Each entry of x = e_1 keeps k / n of its length on average; the standard error is about 0.005.
        let (n, k) = (6, 2);
        let mut rng = keyed(3, "frames");
        let mut kept = [0.0; 6];
        for _ in 0..2000 {
            let q = random_frame(n, k, &mut rng).unwrap();
            for (i, kept) in kept.iter_mut().enumerate() {
                *kept += q.row(i).dot(&q.row(i)) / 2000.0;
            }
        }
        for kept in kept {
            assert!((kept - 1.0 / 3.0).abs() < 0.025, "{kept}");
        }
    }
}
