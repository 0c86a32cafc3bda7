//! Rates of which only the counts are known: published tables, and models asked different items.
//!
//! Two rates: the pooled z test, and Newcombe's interval from the two Wilson intervals (R. G. Newcombe 1998, "Interval
//! estimation for the difference between independent proportions", Statistics in Medicine 17, method 10). A series of
//! rates: Pearson's chi-square test of one common rate. Where both models were asked the same items the counts hide it, and
//! these tests then see less than paired ones.

use super::interval::wilson;
use super::{Interval, normal_cdf, two_sided_z};
use serde::{Deserialize, Serialize};
use statrs::distribution::{ChiSquared, ContinuousCDF};

/// Successes in n trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How often.
    pub successes: usize,
    /// Of how many.
    pub n: usize,
}

impl Count {
    /// Successes over trials; NaN without trials.
    pub fn rate(self) -> f64 {
        self.successes as f64 / self.n as f64
    }
}

/// The difference of two rates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProportionDifference {
    /// First rate minus second.
    pub difference: f64,
    /// Its 95 % interval.
    pub interval: Interval,
    /// Two-sided p-value of equal rates.
    pub p_value: f64,
}

/// Compares two rates; `None` where either has no trials.
///
/// ```
/// use sst_eval::{Count, two_proportions};
/// let found = two_proportions(Count { successes: 388, n: 500 }, Count { successes: 391, n: 500 }).unwrap();
/// assert!(found.p_value > 0.8, "77.6 % and 78.2 % of 500 are not told apart");
/// ```
pub fn two_proportions(first: Count, second: Count) -> Option<ProportionDifference> {
    if first.n == 0 || second.n == 0 {
        return None;
    }
    let (p, q) = (first.rate(), second.rate());
    let z = two_sided_z(0.95);
    let (a, b) = (
        wilson(first.successes, first.n, z),
        wilson(second.successes, second.n, z),
    );
    let difference = p - q;
    let pooled = (first.successes + second.successes) as f64 / (first.n + second.n) as f64;
    let variance = pooled * (1.0 - pooled) * (1.0 / first.n as f64 + 1.0 / second.n as f64);
    Some(ProportionDifference {
        difference,
        interval: Interval {
            low: difference - (p - a.low).hypot(b.high - q),
            high: difference + (a.high - p).hypot(q - b.low),
        },
        // No spread at all: both rates are 0, or both 1.
        p_value: if variance > 0.0 {
            2.0 * normal_cdf(-difference.abs() / variance.sqrt())
        } else {
            1.0
        },
    })
}

/// Whether a series of rates can be one and the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Homogeneity {
    /// Pearson's statistic.
    pub chi_square: f64,
    /// Rates less one.
    pub degrees_of_freedom: usize,
    /// The chance of a statistic as large where all rates are equal.
    pub p_value: f64,
}

/// Tests a series of rates for one common rate; `None` for fewer than two, or where one has no trials.
///
/// ```
/// use sst_eval::{Count, homogeneity};
/// let series = [374, 391, 391, 383, 383, 387, 387, 368].map(|successes| Count { successes, n: 500 });
/// assert!(homogeneity(&series).unwrap().p_value > 0.5);
/// ```
pub fn homogeneity(counts: &[Count]) -> Option<Homogeneity> {
    if counts.len() < 2 || counts.iter().any(|count| count.n == 0) {
        return None;
    }
    let total = counts.iter().map(|c| c.n).sum::<usize>() as f64;
    let common = counts.iter().map(|c| c.successes).sum::<usize>() as f64 / total;
    let spread = common * (1.0 - common);
    let chi_square = if spread > 0.0 {
        let part = |c: &Count| c.n as f64 * (c.rate() - common).powi(2);
        counts.iter().map(part).sum::<f64>() / spread
    } else {
        0.0
    };
    let degrees_of_freedom = counts.len() - 1;
    let distribution = ChiSquared::new(degrees_of_freedom as f64).ok()?;
    Some(Homogeneity {
        chi_square,
        degrees_of_freedom,
        p_value: distribution.sf(chi_square),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        /// Successes and trials of both, p-value, interval.
        proportions: Vec<(usize, usize, usize, usize, f64, f64, f64)>,
        /// Successes of equal numbers of trials, statistic, p-value.
        homogeneity: Vec<(Vec<usize>, usize, f64, f64)>,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../../../fixtures/eval/stats.json")).unwrap()
    }

    #[test]
    fn two_rates_equal_statsmodels() {
        let cases = golden().proportions;
        assert!(cases.len() >= 4);
        for (a, n, b, m, p_value, low, high) in cases {
            let ours = two_proportions(Count { successes: a, n }, Count { successes: b, n: m }).unwrap();
            for (ours, theirs) in [
                (ours.p_value, p_value),
                (ours.interval.low, low),
                (ours.interval.high, high),
            ] {
                assert!((ours - theirs).abs() <= 1e-10, "{a}/{n} {b}/{m}: {ours} not {theirs}");
            }
        }
    }

    #[test]
    fn a_series_equals_scipy() {
        for (successes, n, chi_square, p_value) in golden().homogeneity {
            let counts: Vec<Count> = successes.iter().map(|&successes| Count { successes, n }).collect();
            let ours = homogeneity(&counts).unwrap();
            assert!(
                (ours.chi_square - chi_square).abs() <= 1e-10 * chi_square.max(1.0),
                "{ours:?}"
            );
            assert!((ours.p_value - p_value).abs() <= 1e-10, "{ours:?} not {p_value}");
        }
    }

    #[test]
    fn the_study_s_settings_are_not_told_apart() {
        let of = |percent: f64| Count {
            successes: (5.0 * percent).round() as usize,
            n: 500,
        };
        let pair = two_proportions(of(78.2), of(77.6)).unwrap();
        assert!(
            pair.p_value > 0.8 && pair.interval.low < 0.0 && pair.interval.high > 0.0,
            "{pair:?}"
        );
        for series in [
            [74.8, 78.2, 78.2, 76.6, 76.6, 77.4, 77.4, 73.6],
            [49.6, 50.6, 49.6, 50.0, 49.0, 50.0, 50.6, 50.6],
        ] {
            assert!(homogeneity(&series.map(of)).unwrap().p_value > 0.5);
        }
    }

    #[test]
    fn what_has_no_spread_or_no_trials_shows_nothing() {
        let count = |successes, n| Count { successes, n };
        assert_eq!(two_proportions(count(3, 3), count(5, 5)).unwrap().p_value, 1.0);
        assert_eq!(two_proportions(count(0, 0), count(5, 5)), None);
        assert_eq!(homogeneity(&[count(0, 4), count(0, 9)]).unwrap().p_value, 1.0);
        assert_eq!(homogeneity(&[count(1, 4)]), None);
    }
}
