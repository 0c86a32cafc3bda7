//! The paired bootstrap: two models on the same items, whole items drawn with replacement.
//!
//! Every measure here is a ratio of two sums over items. A mean has denominators of 1; a rate among some of the answers
//! (success among the valid ones) has a denominator of 1 where the item counts for that model and 0 where it does not. The
//! statistic is the first model's ratio less the second's; its interval is [`Bca`]'s.

use super::{Bca, Draws, Interval};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

/// The difference of two models on the same items.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// First minus second.
    pub difference: f64,
    /// Its 95 % BCa interval.
    pub interval: Interval,
    /// Its 90 % BCa interval: each end alone is a one-sided bound at 95 %.
    pub interval_90: Interval,
    /// Two-sided p-value of no difference.
    pub p_value: f64,
}

/// One item's part in a ratio of sums.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// What it adds to the numerator.
    pub value: f64,
    /// What it adds to the denominator.
    pub weight: f64,
}

impl Part {
    /// A part in a plain mean.
    pub fn of_mean(value: f64) -> Self {
        Self { value, weight: 1.0 }
    }

    /// A part in a mean over the items that count; this one does not.
    pub fn absent() -> Self {
        Self {
            value: 0.0,
            weight: 0.0,
        }
    }
}

/// Bootstraps the mean of `first - second`.
///
/// `None` without items or resamples, and for lists of different length, which no pairing can have made.
///
/// ```
/// let better = sst_eval::paired_bootstrap(&[0.5, 0.6, 0.7, 0.9], &[0.3, 0.5, 0.5, 0.6], 1000, 0).unwrap();
/// assert!(better.interval.low > 0.0 && better.p_value < 0.05);
/// ```
pub fn paired_bootstrap(first: &[f64], second: &[f64], resamples: usize, seed: u64) -> Option<PairedDifference> {
    let parts = |scores: &[f64]| -> Vec<Part> { scores.iter().map(|&score| Part::of_mean(score)).collect() };
    paired_ratio_bootstrap(&parts(first), &parts(second), resamples, seed)
}

/// Bootstraps the difference of two ratios of sums over the same items.
///
/// Resamples in which a denominator is 0 say nothing and are left out. `None` without items or resamples, for lists of
/// different length, and where a denominator is 0 over all items.
///
/// ```
/// use sst_eval::{Part, paired_ratio_bootstrap};
/// // Success among valid answers: 2 of 3 against 1 of 4.
/// let first = [Part::of_mean(1.0), Part::of_mean(1.0), Part::of_mean(0.0), Part::absent()];
/// let second = [Part::of_mean(0.0), Part::of_mean(1.0), Part::of_mean(0.0), Part::of_mean(0.0)];
/// let found = paired_ratio_bootstrap(&first, &second, 1000, 0).unwrap();
/// assert!((found.difference - (2.0 / 3.0 - 1.0 / 4.0)).abs() < 1e-12);
/// ```
pub fn paired_ratio_bootstrap(
    first: &[Part],
    second: &[Part],
    resamples: usize,
    seed: u64,
) -> Option<PairedDifference> {
    let n = first.len();
    if n == 0 || resamples == 0 || n != second.len() {
        return None;
    }
    let items: Vec<Sums> = first.iter().zip(second).map(|(&a, &b)| Sums::of(a, b)).collect();
    let all = items.iter().fold(Sums::default(), |sums, &item| sums.plus(item));
    let difference = all.difference();
    if difference.is_nan() {
        return None;
    }
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let mut resample = || {
        let drawn = (0..n).map(|_| items[rng.random_range(0..n)]);
        drawn.fold(Sums::default(), Sums::plus).difference()
    };
    let draws = Draws::new((0..resamples).map(|_| resample()).collect())?;
    let leave_one_out: Vec<f64> = items.iter().map(|&item| all.less(item).difference()).collect();
    let bca = Bca::new(draws, difference, &leave_one_out);
    Some(PairedDifference {
        difference,
        interval: bca.interval(0.95),
        interval_90: bca.interval(0.9),
        p_value: bca.p_value(),
    })
}

/// Sums over items: what is common to both weights is kept once, so that a difference of means is a mean of differences.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    first: f64,
    second: f64,
    first_weight: f64,
    second_weight: f64,
    difference: f64,
}

impl Sums {
    fn of(first: Part, second: Part) -> Self {
        Self {
            first: first.value,
            second: second.value,
            first_weight: first.weight,
            second_weight: second.weight,
            difference: first.value - second.value,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            first: self.first + other.first,
            second: self.second + other.second,
            first_weight: self.first_weight + other.first_weight,
            second_weight: self.second_weight + other.second_weight,
            difference: self.difference + other.difference,
        }
    }

    fn less(self, other: Self) -> Self {
        Self {
            first: self.first - other.first,
            second: self.second - other.second,
            first_weight: self.first_weight - other.first_weight,
            second_weight: self.second_weight - other.second_weight,
            difference: self.difference - other.difference,
        }
    }

    /// NaN where a denominator is 0.
    fn difference(self) -> f64 {
        if self.first_weight == self.second_weight {
            return self.difference / self.first_weight;
        }
        self.first / self.first_weight - self.second / self.second_weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mean;

    #[derive(Deserialize)]
    struct Golden {
        paired: Vec<Case>,
        ratio: Vec<RatioCase>,
    }

    #[derive(Deserialize)]
    struct Case {
        first: Vec<f64>,
        second: Vec<f64>,
        low: f64,
        high: f64,
    }

    /// Value and weight of each item for both models.
    #[derive(Deserialize)]
    struct RatioCase {
        first: Vec<(f64, f64)>,
        second: Vec<(f64, f64)>,
        difference: f64,
        low: f64,
        high: f64,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../../../fixtures/eval/bootstrap.json")).unwrap()
    }

    const RESAMPLES: usize = 20_000;

    /// An end of an interval from B draws is a quantile near 2.5 %: its standard error, sqrt(0.025 0.975 / B) over the
    /// density there, is 0.27 sigma / sqrt(B / 100) for a normal distribution, or 0.5 % of the width at 20 000 draws. Both sides draw, so
    /// four standard errors of the difference are 4 sqrt(2) 0.5 %.
    fn within_noise(ours: Interval, low: f64, high: f64) -> bool {
        let tolerance = 4.0 * f64::sqrt(2.0) * 0.005 * (high - low);
        (ours.low - low).abs() <= tolerance && (ours.high - high).abs() <= tolerance
    }

    #[test]
    fn means_agree_with_scipy_within_the_noise_of_the_draws() {
        for case in golden().paired {
            let ours = paired_bootstrap(&case.first, &case.second, RESAMPLES, 1).unwrap();
            let expected = mean(&case.first) - mean(&case.second);
            assert!((ours.difference - expected).abs() <= 1e-12);
            assert!(
                within_noise(ours.interval, case.low, case.high),
                "{ours:?} not {} {}",
                case.low,
                case.high
            );
            assert_eq!(ours.p_value < 0.05, ours.interval.low > 0.0 || ours.interval.high < 0.0);
        }
    }

    #[test]
    fn ratios_agree_with_scipy_within_the_noise_of_the_draws() {
        let parts = |pairs: &[(f64, f64)]| -> Vec<Part> {
            pairs.iter().map(|&(value, weight)| Part { value, weight }).collect()
        };
        for case in golden().ratio {
            let ours = paired_ratio_bootstrap(&parts(&case.first), &parts(&case.second), RESAMPLES, 1).unwrap();
            assert!((ours.difference - case.difference).abs() <= 1e-12);
            assert!(
                within_noise(ours.interval, case.low, case.high),
                "{ours:?} not {} {}",
                case.low,
                case.high
            );
        }
    }

    #[test]
    fn equal_models_do_not_differ() {
        let scores = [0.1, 0.9, 0.4];
        let same = paired_bootstrap(&scores, &scores, 500, 0).unwrap();
        assert_eq!((same.difference, same.p_value), (0.0, 1.0));
        assert_eq!(paired_bootstrap(&[], &[], 500, 0), None);
        assert_eq!(paired_bootstrap(&scores, &scores[1..], 500, 0), None);
        assert_eq!(
            paired_ratio_bootstrap(&[Part::absent()], &[Part::of_mean(1.0)], 500, 0),
            None
        );
    }

    #[test]
    fn exchanging_the_models_mirrors_the_interval() {
        let case = &golden().paired[0];
        let forth = paired_bootstrap(&case.first, &case.second, 2000, 3).unwrap();
        let back = paired_bootstrap(&case.second, &case.first, 2000, 3).unwrap();
        let mirrored = back.interval.negated();
        assert!((forth.interval.low - mirrored.low).abs() <= 1e-12);
        assert!((forth.interval.high - mirrored.high).abs() <= 1e-12);
        assert!((forth.p_value - back.p_value).abs() <= 1e-3);
    }

    #[test]
    fn a_seed_fixes_the_draws() {
        let case = &golden().paired[0];
        let draw = |seed| paired_bootstrap(&case.first, &case.second, 500, seed).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1).interval, draw(2).interval);
    }
}
