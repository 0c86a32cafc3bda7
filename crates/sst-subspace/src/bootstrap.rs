//! How stable the top k is under another draw of the samples.
//!
//! Each of B rounds draws N_s safety and N_u utility samples with replacement (Efron 1979), solves every module again
//! and keeps the k largest eigenvalues over all modules. A resample is a reweighting, so that it is solved in the
//! orthonormal coordinates of the full data's span; no gradient is touched. With orthonormal frames Q_m of the full
//! data's choice and R_m of the resample's, per module m,
//!
//! ```text
//! overlap = sum_m ||Q_m^T R_m||_F^2 / k
//! ```

use crate::Error;
use crate::decompose::orthonormal;
use crate::draw::keyed;
use crate::gevp::{ProductSpectrum, SampleGrams, SampleSpan, SpanEigen, check_eps, top_products};
use ndarray::{Array1, Array2, s};
use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The share of the overlaps inside [`Stability::interval`].
const LEVEL: f64 = 0.95;

/// What is resampled, and how often.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BootstrapConfig {
    /// Directions over all modules.
    pub k: usize,
    /// Added to F_u's diagonal, the same in every round.
    pub eps: f64,
    /// B.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// Overlaps of resampled subspaces with that of the full data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stability {
    /// One per round, in [0, 1].
    pub overlaps: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their 2.5 % and 97.5 % percentiles, linearly interpolated.
    pub interval: [f64; 2],
    /// k / n: what a uniformly random subspace of all n parameters would overlap on average.
    pub random: f64,
    /// k / (sum of the spans' dimensions): the same within the span of the samples, which every round stays in.
    pub random_in_span: f64,
}

/// Resamples both sample sets; all modules have the same samples, and draw the same ones.
///
/// A resample with fewer than k eigenvalues above rounding keeps what it has; the overlap is still over k.
///
/// ```
/// use ndarray::array;
/// use sst_subspace::{BootstrapConfig, bootstrap, gevp::SampleGrams};
/// // Both safety samples are the same gradient, so that no resample changes the direction.
/// let grams = SampleGrams {
///     module: "layers.0.q_proj".into(),
///     safety: array![[4.0, 4.0], [4.0, 4.0]], cross: array![[0.0], [0.0]], utility: array![[1.0]], parameters: 9,
/// };
/// let stability = bootstrap(&[grams], &BootstrapConfig { k: 1, eps: 0.1, resamples: 10, seed: 7 })?;
/// assert!((stability.mean - 1.0).abs() < 1e-12);
/// # Ok::<(), sst_subspace::Error>(())
/// ```
///
/// # Errors
/// [`Error::Content`] for no module, k or B of 0, or an eps that is not positive; [`Error::Directions`] when the full data
/// has fewer than k eigenvalues above rounding; [`Error::InModule`] around the errors of
/// [`samples`](crate::gevp::samples) or [`Error::Shapes`] for another number of samples than the first module's.
pub fn bootstrap(modules: &[SampleGrams], config: &BootstrapConfig) -> Result<Stability, Error> {
    let BootstrapConfig {
        k,
        eps,
        resamples,
        seed,
    } = *config;
    check_eps(eps)?;
    let first = modules
        .first()
        .ok_or_else(|| Error::content("bootstrap", "has no module"))?;
    for (name, count) in [("k", k), ("resamples", resamples)] {
        if count == 0 {
            return Err(Error::content(name, "must be at least 1"));
        }
    }
    let samples = first.samples();
    let mut spans = Vec::with_capacity(modules.len());
    for grams in modules {
        let span = if grams.samples() == samples {
            SampleSpan::new(grams)
        } else {
            Err(Error::Shapes {
                op: "bootstrap: samples of two modules",
                left: samples.into(),
                right: grams.samples().into(),
            })
        };
        spans.push(span.map_err(Error::in_module(&grams.module))?);
    }
    let (n_s, n_u) = samples;
    let solve = |weights: [Array1<f64>; 2]| -> Result<Vec<Option<Array2<f64>>>, Error> {
        let solved = spans.par_iter().zip(modules).map(|(span, grams)| {
            let eigen = span.solve([weights[0].view(), weights[1].view()], eps);
            // No module can contribute more than k.
            eigen.map(|e| e.head(k)).map_err(Error::in_module(&grams.module))
        });
        // Of several errors the first in model order.
        let solved: Vec<Result<SpanEigen, Error>> = solved.collect();
        top_frames(&solved.into_iter().collect::<Result<Vec<_>, _>>()?, k)
    };
    let full = solve([n_s, n_u].map(|n| Array1::from_elem(n, 1.0 / n as f64)))?;
    let found: usize = full.iter().flatten().map(Array2::ncols).sum();
    if found < k {
        return Err(Error::Directions { k, available: found });
    }
    let mut overlaps = Vec::with_capacity(resamples);
    for round in 0..resamples {
        let mut rng = keyed(seed, &format!("resample {round}"));
        let frames = solve([n_s, n_u].map(|n| resample(n, &mut rng)))?;
        let kept = full
            .iter()
            .zip(&frames)
            .filter_map(|(q, r)| Some((q.as_ref()?, r.as_ref()?)));
        let kept = kept.map(|(q, r)| q.t().dot(r).mapv(|x| x * x).sum());
        overlaps.push(kept.sum::<f64>() / k as f64);
    }
    let parameters: usize = modules.iter().map(|grams| grams.parameters).sum();
    let dimensions: usize = spans.iter().map(SampleSpan::dimensions).sum();
    Ok(Stability {
        mean: overlaps.iter().sum::<f64>() / resamples as f64,
        interval: [0.5 - LEVEL / 2.0, 0.5 + LEVEL / 2.0].map(|level| percentile(&overlaps, level)),
        random: k as f64 / parameters as f64,
        random_in_span: k as f64 / dimensions as f64,
        overlaps,
    })
}

/// Weights of n draws with replacement: counts / n.
fn resample(n: usize, rng: &mut ChaCha20Rng) -> Array1<f64> {
    let mut weights = Array1::zeros(n);
    for _ in 0..n {
        weights[rng.random_range(0..n)] += 1.0 / n as f64;
    }
    weights
}

/// Orthonormal frames of the k largest eigenvalues over all modules, or of all when there are fewer.
fn top_frames(solved: &[SpanEigen], k: usize) -> Result<Vec<Option<Array2<f64>>>, Error> {
    let available: usize = solved.iter().map(|eigen| eigen.values.len()).sum();
    let mut counts = vec![0; solved.len()];
    if available > 0 {
        let spectra: Vec<ProductSpectrum> = solved
            .iter()
            .map(|eigen| ProductSpectrum::of_input(eigen.values.view()))
            .collect();
        for product in top_products(&spectra, k.min(available))? {
            counts[product.module] += 1;
        }
    }
    let frame = |(eigen, count): (&SpanEigen, usize)| {
        let top = eigen.vectors.slice(s![.., ..count]);
        (count > 0).then(|| orthonormal("the top directions", top)).transpose()
    };
    solved.iter().zip(counts).map(frame).collect()
}

/// The value at that share of the sorted list, interpolated between neighbours; the list is not empty.
fn percentile(values: &[f64], level: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = level * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    low + (high - low) * rank.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gevp::dense;
    use crate::principal_angles;
    use ndarray::Axis;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn draw(rows: usize, cols: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-1.0..1.0))
    }

    fn grams(module: &str, g_s: &Array2<f64>, g_u: &Array2<f64>) -> SampleGrams {
        SampleGrams {
            module: module.into(),
            safety: g_s.dot(&g_s.t()),
            cross: g_s.dot(&g_u.t()),
            utility: g_u.dot(&g_u.t()),
            parameters: g_s.ncols(),
        }
    }

    fn config(k: usize, resamples: usize) -> BootstrapConfig {
        let (eps, seed) = (1e-2, 5);
        BootstrapConfig {
            k,
            eps,
            resamples,
            seed,
        }
    }

    /// The top k of the whole phi from resampled gradients: block-diagonal dense Fishers, no Gram matrix.
    fn brute_force(modules: &[[Array2<f64>; 2]], counts: [&[f64]; 2], k: usize) -> Array2<f64> {
        let n: usize = modules.iter().map(|[g_s, _]| g_s.ncols()).sum();
        let (mut f_s, mut f_u) = (Array2::zeros((n, n)), Array2::zeros((n, n)));
        let mut at = 0;
        for gradients in modules {
            let size = gradients[0].ncols();
            for (f, (g, counts)) in [&mut f_s, &mut f_u].into_iter().zip(gradients.iter().zip(counts)) {
                let mut block = f.slice_mut(s![at..at + size, at..at + size]);
                for (row, count) in g.rows().into_iter().zip(counts) {
                    let column = row.insert_axis(Axis(1));
                    block += &(*count * column.dot(&column.t()) / g.nrows() as f64);
                }
            }
            at += size;
        }
        let eigen = dense(f_s.view(), f_u.view(), 1e-2).unwrap();
        eigen.vectors.slice(s![.., ..k]).to_owned()
    }

    #[test]
    fn overlaps_are_those_of_the_resampled_gradients() {
        let (k, n_s, n_u) = (4, 7, 9);
        let modules = [
            [draw(n_s, 12, 1), draw(n_u, 12, 2)],
            [1.5 * draw(n_s, 20, 3), draw(n_u, 20, 4)],
        ];
        let inputs: Vec<SampleGrams> = modules.iter().map(|[g_s, g_u]| grams("m", g_s, g_u)).collect();
        let stability = bootstrap(&inputs, &config(k, 12)).unwrap();
        let full = brute_force(&modules, [&[1.0; 7], &[1.0; 9]], k);
        for (round, got) in stability.overlaps.iter().enumerate() {
            let mut rng = keyed(5, &format!("resample {round}"));
            let [s, u] = [n_s, n_u].map(|n| (n as f64 * resample(n, &mut rng)).to_vec());
            let again = brute_force(&modules, [&s, &u], k);
            let angles = principal_angles(full.view(), again.view()).unwrap();
            let want = angles.iter().map(|angle| angle.cos().powi(2)).sum::<f64>() / k as f64;
            assert!((got - want).abs() <= 1e-8, "round {round}: {got} {want}");
        }
        assert!((stability.random - 4.0 / 32.0).abs() <= 1e-15);
        assert!((stability.random_in_span - 4.0 / 28.0).abs() <= 1e-15); // min(16, 12) + min(16, 20)
        let mean = stability.overlaps.iter().sum::<f64>() / 12.0;
        assert!((stability.mean - mean).abs() <= 1e-15 && mean > stability.random && mean < 1.0);
        let [low, high] = stability.interval;
        assert!(low < stability.mean && stability.mean < high);
        assert_eq!(bootstrap(&inputs, &config(k, 12)).unwrap(), stability);
        // A longer run begins with the same rounds.
        let longer = bootstrap(&inputs, &config(k, 14)).unwrap();
        assert_eq!(longer.overlaps[..12], stability.overlaps);
    }

    #[test]
    fn a_strong_direction_in_every_sample_is_stable() {
        let (mut g_s, g_u) = (0.01 * draw(20, 30, 6), 0.1 * draw(20, 30, 7));
        g_s.column_mut(3).fill(1.0);
        let stability = bootstrap(&[grams("m", &g_s, &g_u)], &config(1, 20)).unwrap();
        assert!(stability.interval[0] > 0.9, "{stability:?}");
        let noise = bootstrap(&[grams("m", &draw(20, 30, 8), &g_u)], &config(1, 20)).unwrap();
        assert!(noise.mean < stability.mean, "{noise:?}");
    }

    #[test]
    fn resamples_are_draws_with_replacement() {
        let mut rng = keyed(1, "counts");
        let mut absent = 0;
        for _ in 0..500 {
            let counts = 50.0 * resample(50, &mut rng);
            assert!((counts.sum() - 50.0).abs() <= 1e-12);
            absent += counts.iter().filter(|x| **x < 0.5).count();
        }
        // (1 - 1/50)^50 = 0.364 of the samples are not drawn; the standard error is about 0.002.
        assert!((absent as f64 / 25_000.0 - 0.364).abs() < 0.01, "{absent}");
    }

    #[test]
    fn percentiles_interpolate() {
        let values = [4.0, 1.0, 3.0, 2.0];
        for (level, want) in [(0.0, 1.0), (1.0, 4.0), (0.5, 2.5), (0.025, 1.075)] {
            assert!((percentile(&values, level) - want).abs() <= 1e-14, "{level}");
        }
        assert_eq!(percentile(&[7.0], 0.975), 7.0);
    }

    #[test]
    fn what_cannot_be_resampled_is_named() {
        let one = grams("layers.0.q_proj", &draw(3, 9, 9), &draw(4, 9, 10));
        let other = grams("layers.1.q_proj", &draw(2, 9, 9), &draw(4, 9, 10));
        let attempt = |modules: &[SampleGrams], config| bootstrap(modules, &config).unwrap_err().to_string();
        assert!(attempt(&[], config(1, 1)).contains("no module"));
        assert!(attempt(std::slice::from_ref(&one), config(1, 0)).contains("resamples"));
        assert_eq!(
            attempt(std::slice::from_ref(&one), config(4, 1)),
            "k = 4 is not between 1 and 3"
        );
        assert_eq!(
            attempt(std::slice::from_ref(&one), config(0, 1)),
            "k: must be at least 1"
        );
        let message = attempt(&[one.clone(), other], config(1, 1));
        assert!(
            message.contains("layers.1.q_proj") && message.contains("[3, 4]"),
            "{message}"
        );
        let eps = BootstrapConfig {
            eps: 0.0,
            ..config(1, 1)
        };
        assert!(attempt(&[one], eps).contains("positive"));
    }
}
