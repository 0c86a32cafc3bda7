//! Newcombe's interval for the difference of two rates on the same items.
//!
//! With l_i, u_i the ends of Wilson's interval of rate p_i and phi the correlation of the 2 x 2 table, the lower end is
//! d - sqrt((p1 - l1)^2 - 2 phi (p1 - l1)(u2 - p2) + (u2 - p2)^2), the upper end alike with the ends exchanged. phi's
//! numerator ad - bc, where positive, is lessened by n/2, not below 0. Unlike the bootstrap's the interval has a width when
//! both models agree on every item. Source: R. G. Newcombe (1998), "Improved confidence intervals for the difference
//! between binomial proportions based on paired data", Statistics in Medicine 17, method 10.

use super::interval::wilson;
use super::{Interval, two_sided_z};
use serde::{Deserialize, Serialize};

/// How two models did on the same items, each right or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedCounts {
    /// Items that both get.
    pub both: usize,
    /// Items that only the first gets.
    pub only_first: usize,
    /// Items that only the second gets.
    pub only_second: usize,
    /// Items that neither gets.
    pub neither: usize,
}

impl PairedCounts {
    /// Counts scores of 0 and 1; `None` where any is something else, or where the lists differ in length.
    pub fn of(first: &[f64], second: &[f64]) -> Option<Self> {
        if first.len() != second.len() {
            return None;
        }
        let mut counts = [0; 4];
        for (&a, &b) in first.iter().zip(second) {
            if ![a, b].iter().all(|&x| x == 0.0 || x == 1.0) {
                return None;
            }
            counts[2 * usize::from(a == 1.0) + usize::from(b == 1.0)] += 1;
        }
        let [neither, only_second, only_first, both] = counts;
        Some(Self {
            both,
            only_first,
            only_second,
            neither,
        })
    }

    /// Number of items.
    pub fn n(&self) -> usize {
        self.both + self.only_first + self.only_second + self.neither
    }

    /// Share of items on which the models differ.
    pub fn discordance(&self) -> f64 {
        (self.only_first + self.only_second) as f64 / self.n() as f64
    }
}

/// The interval of first rate minus second at `confidence`; \[-1, 1\] without items.
///
/// ```
/// use sst_eval::{PairedCounts, newcombe_paired};
/// let agree = PairedCounts { both: 20, only_first: 0, only_second: 0, neither: 0 };
/// let interval = newcombe_paired(&agree, 0.95);
/// assert!(interval.low < -0.1 && interval.high > 0.1);
/// ```
pub fn newcombe_paired(counts: &PairedCounts, confidence: f64) -> Interval {
    let n = counts.n();
    if n == 0 {
        return Interval { low: -1.0, high: 1.0 };
    }
    let (x, y) = (counts.both + counts.only_first, counts.both + counts.only_second);
    let (p, q) = (x as f64 / n as f64, y as f64 / n as f64);
    let z = two_sided_z(confidence);
    let (first, second) = (wilson(x, n, z), wilson(y, n, z));
    let phi = correlation(counts);
    let reach = |one: f64, other: f64| {
        // A perfect correlation leaves (one - other)^2, which rounding may put below 0.
        (one * one - 2.0 * phi * one * other + other * other).max(0.0).sqrt()
    };
    let difference = p - q;
    Interval {
        low: difference - reach(p - first.low, second.high - q),
        high: difference + reach(first.high - p, q - second.low),
    }
}

fn correlation(counts: &PairedCounts) -> f64 {
    let [a, b, c, d] = [counts.both, counts.only_first, counts.only_second, counts.neither].map(|x| x as f64);
    let margins = (a + b) * (c + d) * (a + c) * (b + d);
    if margins == 0.0 {
        return 0.0;
    }
    let cross = a * d - b * c;
    let corrected = if cross > 0.0 {
        (cross - 0.5 * (a + b + c + d)).max(0.0)
    } else {
        cross
    };
    corrected / margins.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use statrs::function::factorial::multinomial;

    #[derive(Deserialize)]
    struct Golden {
        /// Both, only first, only second, neither; the interval.
        newcombe_paired: Vec<(usize, usize, usize, usize, f64, f64)>,
    }

    #[test]
    fn equals_the_reference() {
        let golden: Golden = serde_json::from_str(include_str!("../../../../fixtures/eval/stats.json")).unwrap();
        assert!(golden.newcombe_paired.len() >= 6);
        for (both, only_first, only_second, neither, low, high) in golden.newcombe_paired {
            let counts = PairedCounts {
                both,
                only_first,
                only_second,
                neither,
            };
            let ours = newcombe_paired(&counts, 0.95);
            assert!((ours.low - low).abs() <= 1e-10, "{counts:?}: {ours:?} not {low} {high}");
            assert!(
                (ours.high - high).abs() <= 1e-10,
                "{counts:?}: {ours:?} not {low} {high}"
            );
        }
    }

    #[test]
    fn covers_the_true_difference_over_all_tables_of_thirty_items() {
        let n = 30;
        for [both, only_first, only_second] in [[0.6, 0.1, 0.1], [0.8, 0.15, 0.03], [0.3, 0.05, 0.25]] {
            let neither = 1.0 - both - only_first - only_second;
            let rates: [f64; 4] = [both, only_first, only_second, neither];
            let truth = only_first - only_second;
            let mut covered = 0.0;
            for a in 0..=n {
                for b in 0..=n - a {
                    for c in 0..=n - a - b {
                        let d = n - a - b - c;
                        let [both, only_first, only_second, neither] = [a, b, c, d].map(|x| x as usize);
                        let counts = PairedCounts {
                            both,
                            only_first,
                            only_second,
                            neither,
                        };
                        let found = newcombe_paired(&counts, 0.95);
                        if found.low <= truth && truth <= found.high {
                            let chances = rates.iter().zip([a, b, c, d]).map(|(rate, k)| rate.powi(k as i32));
                            covered += multinomial(n, &[a, b, c, d]) * chances.product::<f64>();
                        }
                    }
                }
            }
            assert!((0.93..=0.98).contains(&covered), "{covered}");
        }
    }

    #[test]
    fn only_zeros_and_ones_are_counted() {
        let counts = PairedCounts::of(&[1.0, 1.0, 0.0, 0.0, 1.0], &[1.0, 0.0, 1.0, 0.0, 0.0]).unwrap();
        assert_eq!(
            (counts.both, counts.only_first, counts.only_second, counts.neither),
            (1, 2, 1, 1)
        );
        assert_eq!(counts.discordance(), 0.6);
        assert_eq!(PairedCounts::of(&[0.5], &[1.0]), None);
        assert_eq!(PairedCounts::of(&[f64::NAN], &[1.0]), None);
    }
}
