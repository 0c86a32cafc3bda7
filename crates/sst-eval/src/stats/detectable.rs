//! The smallest true difference that a sample of this size would show: in four trials of five, by a two-sided test at 5 %.
//!
//! A difference that is not significant is no proof of equality; these say how large it could be and go unseen. All are
//! the usual normal approximations: paired rates by R. J. Connor (1987), "Sample size for testing differences in proportions
//! for the paired-sample design", Biometrics 43; independent rates by J. L. Fleiss (1981), "Statistical Methods for Rates
//! and Proportions", chapter 3, without continuity correction.

use super::interval::variance;
use super::{quantile, two_sided_z};

const LEVEL: f64 = 0.05;
const POWER: f64 = 0.8;

fn z_values() -> (f64, f64) {
    (two_sided_z(1.0 - LEVEL), quantile(POWER))
}

/// For two models on the same `n` items that differ on a share `discordance` of them: a difference of rates.
///
/// Solves n d^2 = (z_a sqrt(s) + z_b sqrt(s - d^2))^2 for d, where s is the discordance, or d itself where a smaller
/// discordance could not hold such a difference. Above 1, which no rate can reach, where the sample shows nothing at all; infinite without items.
///
/// ```
/// let d = sst_eval::detectable_paired_difference(0.2, 500);
/// assert!((d - 0.056).abs() < 5e-4, "{d}");
/// ```
pub fn detectable_paired_difference(discordance: f64, n: usize) -> f64 {
    if n == 0 {
        return f64::INFINITY;
    }
    let (a, b) = z_values();
    let n = n as f64;
    let s = discordance.clamp(0.0, 1.0);
    // The larger root of (n + b^2) d^2 - 2 a sqrt(n s) d + s (a^2 - b^2) = 0.
    let root = (a * a * n * s - (n + b * b) * s * (a * a - b * b)).max(0.0).sqrt();
    let d = (a * (n * s).sqrt() + root) / (n + b * b);
    if 0.0 < d && d <= s {
        return d;
    }
    // All discordant items go one way, s = d: n d = (a + b sqrt(1 - d))^2, a fixed point of a falling function.
    let excess = |d: f64| n * d - (a + b * (1.0 - d).max(0.0).sqrt()).powi(2);
    let (mut low, mut high) = (0.0, (a + b).powi(2) / n);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if excess(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// For two models on the same items whose scores differ by `differences`: a difference of mean scores,
/// (z_a + z_b) s / sqrt(n).
///
/// Infinite with fewer than two items.
pub fn detectable_mean_difference(differences: &[f64]) -> f64 {
    if differences.len() < 2 {
        return f64::INFINITY;
    }
    let (a, b) = z_values();
    (a + b) * (variance(differences) / differences.len() as f64).sqrt()
}

/// For two models on `n` items each, of which one has the rate `rate`: the difference to a higher rate of the other, or to
/// a lower one where `rate` is above a half.
///
/// Solves sqrt(n) d = z_a sqrt(2 m (1 - m)) + z_b sqrt(p (1 - p) + q (1 - q)), with q = p + d and m their mean. Infinite
/// where even a rate of 1 (or 0) would not be told apart.
///
/// ```
/// let d = sst_eval::detectable_proportion_difference(0.776, 500);
/// assert!(d > 0.07 && d < 0.08, "{d}");
/// ```
pub fn detectable_proportion_difference(rate: f64, n: usize) -> f64 {
    let (a, b) = z_values();
    // By symmetry a rate above a half is its complement, rising.
    let p = rate.min(1.0 - rate);
    let shown = |d: f64| {
        let q = p + d;
        let m = p + 0.5 * d;
        let needed = a * (2.0 * m * (1.0 - m)).sqrt() + b * (p * (1.0 - p) + q * (1.0 - q)).max(0.0).sqrt();
        (n as f64).sqrt() * d >= needed
    };
    let (mut low, mut high) = (0.0, 1.0 - p);
    if n == 0 || !(p >= 0.0 && shown(high)) {
        return f64::INFINITY;
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if shown(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcnemar_mid_p;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    #[derive(serde::Deserialize)]
    struct Golden {
        /// Standard deviation of the differences, n, the difference at power 0.8.
        detectable_mean: Vec<(f64, usize, f64)>,
        /// Rate, n, the difference at power 0.8.
        detectable_proportion: Vec<(f64, usize, f64)>,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../../../fixtures/eval/stats.json")).unwrap()
    }

    #[test]
    fn means_equal_statsmodels() {
        for (sd, n, expected) in golden().detectable_mean {
            // n differences of that standard deviation: half of them up, half down.
            let step = sd * ((n as f64 - 1.0) / n as f64).sqrt();
            let differences: Vec<f64> = (0..n).map(|i| if i % 2 == 0 { step } else { -step }).collect();
            let ours = detectable_mean_difference(&differences);
            // statsmodels adds the far tail's chance to reject, some 1e-6, and solves to 1e-8 or so.
            assert!((ours - expected).abs() <= 1e-5 * expected, "{ours} not {expected}");
        }
    }

    #[test]
    fn proportions_equal_statsmodels() {
        let cases = golden().detectable_proportion;
        assert!(cases.len() >= 3);
        for (rate, n, expected) in cases {
            let ours = detectable_proportion_difference(rate, n);
            assert!((ours - expected).abs() <= 1e-5, "{rate} {n}: {ours} not {expected}");
        }
    }

    #[test]
    fn a_paired_difference_of_that_size_is_found_in_four_trials_of_five() {
        let (n, runs) = (400, 2000);
        for discordance in [0.05, 0.2, 0.5] {
            let d = detectable_paired_difference(discordance, n);
            let s = discordance.max(d);
            let mut rng = ChaCha12Rng::seed_from_u64(5);
            let mut found = 0;
            for _ in 0..runs {
                let (mut up, mut down) = (0, 0);
                for _ in 0..n {
                    let draw: f64 = rng.random();
                    up += usize::from(draw < 0.5 * (s + d));
                    down += usize::from(draw >= 0.5 * (s + d) && draw < s);
                }
                found += usize::from(mcnemar_mid_p(up, down) < 0.05);
            }
            // 80 % of 2000 with a standard deviation of 18; the approximation itself is off by a few points.
            let power = found as f64 / runs as f64;
            assert!(
                (0.74..=0.86).contains(&power),
                "discordance {discordance}, d {d}: {power}"
            );
        }
    }

    #[test]
    fn agreement_on_every_item_still_leaves_room() {
        // With every difference one way, 20 items show nothing under some 30 points.
        let d = detectable_paired_difference(0.0, 20);
        let (a, b) = z_values();
        assert!(
            (20.0 * d - (a + b * (1.0 - d).sqrt()).powi(2)).abs() < 1e-9 && d > 0.2 && d < 0.4,
            "{d}"
        );
        assert_eq!(detectable_paired_difference(0.2, 0), f64::INFINITY);
        assert_eq!(detectable_mean_difference(&[0.1]), f64::INFINITY);
        assert_eq!(detectable_proportion_difference(0.5, 2), f64::INFINITY);
        assert_eq!(detectable_proportion_difference(f64::NAN, 100), f64::INFINITY);
    }

    #[test]
    fn more_items_show_less() {
        for n in [10usize, 100, 1000] {
            assert!(detectable_paired_difference(0.3, 4 * n) < detectable_paired_difference(0.3, n));
            assert!(detectable_proportion_difference(0.3, 40 * n) < detectable_proportion_difference(0.3, 10 * n));
        }
    }
}
