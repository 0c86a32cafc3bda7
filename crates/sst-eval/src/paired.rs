//! Paired tests: two models on the same items, and the correction for many tests.

use crate::{Interval, mean};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF};

/// McNemar's exact two-sided p-value, from the number of items that only one of two models gets.
///
/// Under the null hypothesis an item on which they differ goes either way with probability 1/2, so
/// p = 2 P(X <= min(a, b)), X binomial with a + b trials, at most 1. Source: Q. McNemar (1947), "Note on the sampling
/// error of the difference between correlated proportions or percentages", Psychometrika 12, in its exact form.
///
/// ```
/// assert_eq!(sst_eval::mcnemar(0, 0), 1.0);
/// assert!((sst_eval::mcnemar(0, 5) - 2.0 / 32.0).abs() < 1e-12);
/// ```
pub fn mcnemar(only_first: usize, only_second: usize) -> f64 {
    let (fewer, n) = (only_first.min(only_second) as u64, (only_first + only_second) as u64);
    // A half is always a probability, so the distribution always exists.
    Binomial::new(0.5, n).map_or(1.0, |binomial| (2.0 * binomial.cdf(fewer)).min(1.0))
}

/// The mean difference of two models on the same items.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Mean of first minus second.
    pub difference: f64,
    /// Its 95 % percentile interval.
    pub interval: Interval,
    /// Two-sided p-value of no difference.
    pub p_value: f64,
}

/// Bootstraps the mean of `first - second`, drawing whole items with replacement.
///
/// The interval is the 2.5th to 97.5th percentile of the resampled means; p = 2 min(share <= 0, share >= 0), with one
/// counted on each side so that it is never 0. Source: B. Efron and R. Tibshirani (1993), "An Introduction to the
/// Bootstrap", chapters 13 and 16.
///
/// `None` without items or resamples, and for lists of different length, which no pairing can have made.
///
/// ```
/// let better = sst_eval::paired_bootstrap(&[0.5, 0.6, 0.7, 0.9], &[0.3, 0.5, 0.5, 0.6], 1000, 0).unwrap();
/// assert!(better.interval.low > 0.0 && better.p_value < 0.05);
/// ```
pub fn paired_bootstrap(first: &[f64], second: &[f64], resamples: usize, seed: u64) -> Option<PairedDifference> {
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
    let n = differences.len();
    if n == 0 || resamples == 0 || first.len() != second.len() {
        return None;
    }
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let mut resample = || (0..n).map(|_| differences[rng.random_range(0..n)]).sum::<f64>() / n as f64;
    let mut means: Vec<f64> = (0..resamples).map(|_| resample()).collect();
    means.sort_by(f64::total_cmp);
    let rank = |share: f64| means[((resamples - 1) as f64 * share).round() as usize];
    let count = |holds: fn(f64) -> bool| means.iter().filter(|&&m| holds(m)).count();
    let rarer = count(|m| m <= 0.0).min(count(|m| m >= 0.0));
    Some(PairedDifference {
        difference: mean(&differences),
        interval: Interval {
            low: rank(0.025),
            high: rank(0.975),
        },
        p_value: (2.0 * (rarer + 1) as f64 / (resamples + 1) as f64).min(1.0),
    })
}

/// Holm's step-down correction of a family of p-values, in their order.
///
/// The i-th smallest of m becomes max over j <= i of (m - j + 1) p_j, at most 1. Source: S. Holm (1979), "A simple
/// sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.
///
/// ```
/// assert_eq!(sst_eval::holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
/// ```
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&i, &j| p_values[i].total_cmp(&p_values[j]));
    let mut corrected = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max(((order.len() - rank) as f64 * p_values[i]).min(1.0));
        corrected[i] = largest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        mcnemar: Vec<(usize, usize, f64)>,
        holm: Vec<(Vec<f64>, Vec<f64>)>,
        paired: Vec<Paired>,
    }

    /// Scores of two models, their mean difference and its interval.
    type Paired = (Vec<f64>, Vec<f64>, f64, f64, f64);

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../../fixtures/eval/stats.json")).unwrap()
    }

    #[test]
    fn mcnemar_and_holm_equal_statsmodels() {
        for (only_first, only_second, expected) in golden().mcnemar {
            let ours = mcnemar(only_first, only_second);
            assert!(
                (ours - expected).abs() <= 1e-10,
                "{only_first} {only_second}: {ours} not {expected}"
            );
        }
        for (p_values, expected) in golden().holm {
            for (ours, expected) in holm(&p_values).iter().zip(&expected) {
                assert!((ours - expected).abs() <= 1e-14, "{p_values:?}: {ours} not {expected}");
            }
        }
    }

    #[test]
    fn the_bootstrap_agrees_with_scipy_within_its_noise() {
        for (first, second, difference, low, high) in golden().paired {
            let ours = paired_bootstrap(&first, &second, 20_000, 1).unwrap();
            assert!((ours.difference - difference).abs() <= 1e-12);
            // Standard error of a 2.5 % quantile at 20 000 draws is below 2 % of the width.
            let tolerance = 0.03 * (high - low);
            assert!(
                (ours.interval.low - low).abs() <= tolerance,
                "{ours:?} not {low} {high}"
            );
            assert!(
                (ours.interval.high - high).abs() <= tolerance,
                "{ours:?} not {low} {high}"
            );
            assert_eq!(ours.p_value < 0.05, low > 0.0 || high < 0.0);
        }
    }

    #[test]
    fn equal_models_do_not_differ() {
        let scores = [0.1, 0.9, 0.4];
        let same = paired_bootstrap(&scores, &scores, 500, 0).unwrap();
        assert_eq!((same.difference, same.p_value), (0.0, 1.0));
        assert_eq!(paired_bootstrap(&[], &[], 500, 0), None);
        assert_eq!(paired_bootstrap(&scores, &scores[1..], 500, 0), None);
    }
}
