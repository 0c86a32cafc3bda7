//! McNemar's test: two models on the same items, each item right or wrong.
//!
//! Items that both get, or neither, say nothing. Under the null hypothesis an item on which they differ goes either way
//! with probability 1/2 (Q. McNemar 1947, "Note on the sampling error of the difference between correlated proportions or
//! percentages", Psychometrika 12). The exact test is conservative: its true size lies well under 5 %. The mid-p variant
//! counts the observed table by half and comes close to 5 % (M. W. Fagerland, S. Lydersen, P. Laake 2013, "The McNemar test
//! for binary matched-pairs data: mid-p and asymptotic are better than exact conditional", BMC Medical Research Methodology 13).

use statrs::distribution::{Binomial, Discrete, DiscreteCDF};

/// The exact two-sided p-value, from the number of items that only one of two models gets.
///
/// p = 2 P(X <= min(a, b)), X binomial with a + b trials, at most 1.
///
/// ```
/// assert_eq!(sst_eval::mcnemar(0, 0), 1.0);
/// assert!((sst_eval::mcnemar(0, 5) - 2.0 / 32.0).abs() < 1e-12);
/// ```
pub fn mcnemar(only_first: usize, only_second: usize) -> f64 {
    let (tail, _) = tail(only_first, only_second);
    (2.0 * tail).min(1.0)
}

/// The two-sided mid-p-value: p = 2 P(X <= m) - P(X = m) with m = min(a, b).
///
/// ```
/// assert!((sst_eval::mcnemar_mid_p(0, 5) - 1.0 / 32.0).abs() < 1e-12);
/// ```
pub fn mcnemar_mid_p(only_first: usize, only_second: usize) -> f64 {
    let (tail, observed) = tail(only_first, only_second);
    (2.0 * tail - observed).clamp(0.0, 1.0)
}

/// P(X <= min) and P(X = min).
fn tail(only_first: usize, only_second: usize) -> (f64, f64) {
    let (fewer, n) = (only_first.min(only_second) as u64, (only_first + only_second) as u64);
    // A half is always a probability, so the distribution always exists.
    Binomial::new(0.5, n).map_or((1.0, 1.0), |x| (x.cdf(fewer), x.pmf(fewer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        /// Discordant counts, statsmodels' exact p, scipy's mid-p.
        mcnemar: Vec<(usize, usize, f64, f64)>,
    }

    #[test]
    fn both_p_values_equal_the_references() {
        let golden: Golden = serde_json::from_str(include_str!("../../../../fixtures/eval/stats.json")).unwrap();
        assert!(golden.mcnemar.len() >= 7);
        for (a, b, exact, mid) in golden.mcnemar {
            for (ours, theirs) in [(mcnemar(a, b), exact), (mcnemar_mid_p(a, b), mid)] {
                // The regularised beta function behind both is good to some 1e-13 of a probability.
                assert!((ours - theirs).abs() <= 1e-11, "{a} {b}: {ours} not {theirs}");
            }
            assert_eq!(mcnemar_mid_p(a, b), mcnemar_mid_p(b, a));
        }
    }

    #[test]
    fn the_mid_p_test_has_its_size_and_the_exact_one_less() {
        // The chance to reject at 5 % when both models are equal, over all tables of so many discordant items.
        let size = |test: fn(usize, usize) -> f64, n: usize| -> f64 {
            let coin = Binomial::new(0.5, n as u64).unwrap();
            let rejected = (0..=n).filter(|&a| test(a, n - a) < 0.05);
            rejected.map(|a| coin.pmf(a as u64)).sum()
        };
        let (mut exact, mut mid) = (0.0, 0.0);
        for n in 20..60 {
            assert!(size(mcnemar, n) <= 0.05 && size(mcnemar_mid_p, n) <= 0.07, "{n}");
            exact += size(mcnemar, n) / 40.0;
            mid += size(mcnemar_mid_p, n) / 40.0;
        }
        assert!(exact < 0.036 && (0.042..=0.052).contains(&mid), "{exact} {mid}");
    }
}
