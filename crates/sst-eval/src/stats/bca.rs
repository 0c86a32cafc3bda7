//! Bias-corrected and accelerated bootstrap intervals, and the p-values that belong to them.
//!
//! With G the distribution function of the resampled statistic, z0 = Phi^-1(G(estimate)) corrects its bias, and
//! a = sum d_i^3 / (6 (sum d_i^2)^(3/2)), where d_i is the mean of the leave-one-out estimates less the i-th, its skewness. An end of the interval at level alpha
//! is the quantile of G at Phi(z0 + (z0 + z_alpha) / (1 - a (z0 + z_alpha))). Solving that for the level whose end is 0 gives
//! the one-sided p-value, so that p < 0.05 and an interval without 0 say the same. Source: B. Efron (1987), "Better
//! bootstrap confidence intervals", JASA 82; B. Efron and R. Tibshirani (1993), "An Introduction to the Bootstrap",
//! chapters 14 and 15.

use super::{Interval, normal_cdf, quantile};

/// The resampled values of a statistic, sorted.
#[derive(Debug, Clone, PartialEq)]
pub struct Draws(Vec<f64>);

impl Draws {
    /// Sorts the values; what is no number (a ratio over nothing) is left out. `None` when nothing is left.
    pub fn new(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| !value.is_nan());
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then_some(Self(values))
    }

    /// The share below `value`; what equals it within `rounding` counts by half.
    fn share_below(&self, value: f64, rounding: f64) -> f64 {
        let below = self.0.partition_point(|&x| x < value - rounding);
        let up_to = self.0.partition_point(|&x| x <= value + rounding);
        (below + up_to) as f64 / (2 * self.0.len()) as f64
    }

    /// The quantile at `share`, linear between the values.
    fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len() - 1;
        let place = share.clamp(0.0, 1.0) * last as f64;
        let below = (place.floor() as usize).min(last);
        let above = (below + 1).min(last);
        let (low, high) = (self.0[below], self.0[above]);
        if low == high {
            return low;
        }
        low + (high - low) * (place - below as f64)
    }
}

/// A bootstrap distribution with its two corrections.
///
/// ```
/// use sst_eval::{Bca, Draws};
/// let draws = Draws::new((0..=100).map(f64::from).collect()).unwrap();
/// let leave_one_out = [49.0, 50.0, 51.0];
/// let interval = Bca::new(draws, 50.0, &leave_one_out).interval(0.95);
/// assert!((interval.low - 2.5).abs() < 1e-9 && (interval.high - 97.5).abs() < 1e-9);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Bca {
    draws: Draws,
    bias: f64,
    acceleration: f64,
    rounding: f64,
}

impl Bca {
    /// The statistic's value, its resampled values and its values with one item left out.
    pub fn new(draws: Draws, estimate: f64, leave_one_out: &[f64]) -> Self {
        let largest = draws.0[0].abs().max(draws.0[draws.0.len() - 1].abs());
        // Equal in theory: sums of the same items in another order.
        let rounding = 8.0 * f64::EPSILON * largest * (leave_one_out.len() as f64).sqrt();
        // An estimate outside all draws would have an infinite bias.
        let edge = 0.5 / draws.0.len() as f64;
        let bias = quantile(draws.share_below(estimate, rounding).clamp(edge, 1.0 - edge));
        Self {
            acceleration: acceleration(leave_one_out),
            draws,
            bias,
            rounding,
        }
    }

    /// The two-sided interval at `confidence`, 0.95 for 95 %.
    pub fn interval(&self, confidence: f64) -> Interval {
        let z = super::two_sided_z(confidence);
        Interval {
            low: self.end(-z),
            high: self.end(z),
        }
    }

    fn end(&self, z: f64) -> f64 {
        let shifted = self.bias + z;
        let level = normal_cdf(self.bias + shifted / (1.0 - self.acceleration * shifted));
        self.draws.quantile(level)
    }

    /// The two-sided p-value of a true value of 0; never below 1 / (B + 1), which is as much as B draws can show.
    pub fn p_value(&self) -> f64 {
        let least = 1.0 / (self.draws.0.len() + 1) as f64;
        let share = self.draws.share_below(0.0, self.rounding);
        // Where no draw lies beyond 0 no interval reaches it.
        if share == 0.0 || share == 1.0 {
            return least;
        }
        let level = quantile(share) - self.bias;
        let stretch = 1.0 + self.acceleration * level;
        // Past the pole of the correction only the plain percentile is left.
        let z = if stretch > 0.0 {
            level / stretch - self.bias
        } else {
            level + self.bias
        };
        let one_sided = normal_cdf(z);
        (2.0 * one_sided.min(1.0 - one_sided)).clamp(least, 1.0)
    }
}

/// A sixth of the skewness of the leave-one-out values; 0 where they are all alike.
fn acceleration(leave_one_out: &[f64]) -> f64 {
    let known: Vec<f64> = leave_one_out.iter().copied().filter(|x| !x.is_nan()).collect();
    let mean = super::mean(&known);
    let (mut squares, mut cubes) = (0.0, 0.0);
    for value in known {
        let d = mean - value;
        squares += d * d;
        cubes += d * d * d;
    }
    if squares > 0.0 {
        cubes / (6.0 * squares.powf(1.5))
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        bca: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        draws: Vec<f64>,
        estimate: f64,
        leave_one_out: Vec<f64>,
        confidence: f64,
        low: f64,
        high: f64,
    }

    fn cases() -> Vec<Case> {
        let golden: Golden = serde_json::from_str(include_str!("../../../../fixtures/eval/bootstrap.json")).unwrap();
        golden.bca
    }

    #[test]
    fn equals_scipy_on_the_same_draws() {
        assert!(cases().len() >= 4);
        for case in cases() {
            let draws = Draws::new(case.draws).unwrap();
            let ours = Bca::new(draws, case.estimate, &case.leave_one_out).interval(case.confidence);
            let tolerance = 1e-9 * (case.high - case.low);
            for (ours, theirs) in [(ours.low, case.low), (ours.high, case.high)] {
                assert!((ours - theirs).abs() <= tolerance, "{ours} not {theirs}");
            }
        }
    }

    #[test]
    fn the_p_value_is_the_level_at_which_the_interval_meets_zero() {
        for case in cases() {
            // Moved so that 0 lies inside the draws, somewhere in the lower tail.
            let shift = Draws::new(case.draws.clone()).unwrap().quantile(0.1);
            let moved: Vec<f64> = case.draws.iter().map(|x| x - shift).collect();
            let gaps = moved.len() as f64;
            let bca = Bca::new(Draws::new(moved).unwrap(), case.estimate - shift, &case.leave_one_out);
            let p = bca.p_value();
            assert!(p > 0.05 && p < 0.5, "{p}");
            // A count of draws moves by one where the continuous end moves within a gap between two of them.
            let slack = 4.0 / gaps;
            assert!(bca.interval(1.0 - p - slack).low >= 0.0, "{p}");
            assert!(bca.interval(1.0 - p + slack).low <= 0.0, "{p}");
        }
    }

    #[test]
    fn without_spread_there_is_a_point() {
        let constant = |value: f64| Bca::new(Draws::new(vec![value; 99]).unwrap(), value, &[value; 7]);
        assert_eq!(constant(0.0).p_value(), 1.0);
        assert_eq!(constant(0.3).interval(0.95), Interval { low: 0.3, high: 0.3 });
        assert!((constant(0.3).p_value() - 0.01).abs() < 1e-12);
        assert_eq!(Draws::new(vec![f64::NAN]), None);
    }
}
