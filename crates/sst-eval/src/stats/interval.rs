//! Confidence intervals of a rate and of a mean.

use super::two_sided_z;
use serde::{Deserialize, Deserializer, Serialize};

/// A confidence interval; 95 % where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    #[serde(deserialize_with = "low")]
    pub low: f64,
    /// Upper end.
    #[serde(deserialize_with = "high")]
    pub high: f64,
}

/// JSON has no infinity: an end that is open is written as null.
pub(crate) fn low<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NEG_INFINITY))
}

/// As [`low`], of the upper end.
pub(crate) fn high<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

impl Interval {
    /// That of the negated quantity.
    #[must_use]
    pub fn negated(self) -> Self {
        Self {
            low: -self.high,
            high: -self.low,
        }
    }
}

/// Wilson's score interval of a rate of `successes` in `n` trials; \[0, 1\] without trials.
///
/// Centre (p + z^2/2n) / (1 + z^2/n), half-width z / (1 + z^2/n) sqrt(p(1-p)/n + z^2/4n^2). Unlike the normal interval
/// it keeps its coverage at rates of 0 and 1, where safety scores live. Source: E. B. Wilson (1927), "Probable inference,
/// the law of succession, and statistical inference", JASA 22.
///
/// ```
/// let all = sst_eval::wilson_interval(100, 100);
/// assert!(all.low < 0.97 && all.high == 1.0);
/// ```
pub fn wilson_interval(successes: usize, n: usize) -> Interval {
    wilson(successes, n, two_sided_z(0.95))
}

/// [`wilson_interval`] at the confidence of `z`.
pub(super) fn wilson(successes: usize, n: usize, z: f64) -> Interval {
    if n == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = n as f64;
    let p = successes as f64 / n;
    let shrink = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / shrink;
    let half = z / shrink * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Interval {
        // Exact in theory at both ends, where rounding would leave a trace.
        low: if p == 0.0 { 0.0 } else { centre - half },
        high: if p == 1.0 { 1.0 } else { centre + half },
    }
}

/// The arithmetic mean; NaN without values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The normal interval of a mean: mean plus and minus z s / sqrt(n), with s^2 the unbiased variance.
///
/// Unbounded with fewer than two values: one value says nothing about the spread.
///
/// ```
/// let interval = sst_eval::mean_interval(&[0.2, 0.4, 0.6]);
/// assert!((interval.low - 0.1737).abs() < 1e-4 && (interval.high - 0.6263).abs() < 1e-4);
/// ```
pub fn mean_interval(values: &[f64]) -> Interval {
    let n = values.len();
    if n < 2 {
        return Interval {
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
        };
    }
    let mean = mean(values);
    let half = two_sided_z(0.95) * (variance(values) / n as f64).sqrt();
    Interval {
        low: mean - half,
        high: mean + half,
    }
}

/// The unbiased variance; NaN with fewer than two values.
pub(super) fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        wilson: Vec<(usize, usize, f64, f64)>,
        mean: Vec<(Vec<f64>, f64, f64, f64)>,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../../../fixtures/eval/stats.json")).unwrap()
    }

    fn close(ours: f64, theirs: f64) -> bool {
        (ours - theirs).abs() <= 1e-10
    }

    #[test]
    fn wilson_equals_statsmodels() {
        let cases = golden().wilson;
        assert!(cases.len() >= 8);
        for (successes, n, low, high) in cases {
            let ours = wilson_interval(successes, n);
            assert!(
                close(ours.low, low) && close(ours.high, high),
                "{successes}/{n}: {ours:?} not {low} {high}"
            );
        }
    }

    #[test]
    fn mean_equals_statsmodels() {
        for (values, centre, low, high) in golden().mean {
            let ours = mean_interval(&values);
            assert!(close(mean(&values), centre), "{values:?}");
            assert!(
                close(ours.low, low) && close(ours.high, high),
                "{values:?}: {ours:?} not {low} {high}"
            );
        }
    }

    #[test]
    fn too_few_values_bound_nothing() {
        assert_eq!(wilson_interval(0, 0), Interval { low: 0.0, high: 1.0 });
        let open = mean_interval(&[0.5]);
        assert_eq!(open.low, f64::NEG_INFINITY);
        let read: Interval = serde_json::from_str(&serde_json::to_string(&open).unwrap()).unwrap();
        assert_eq!(read, open);
    }
}
