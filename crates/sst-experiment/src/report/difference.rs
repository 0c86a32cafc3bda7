//! Two systems on one benchmark: the difference, its interval, and what it is worth.
//!
//! Where both systems' items are known, on the items that they share: McNemar's mid-p test and Newcombe's interval for
//! items of 0 or 1, the BCa bootstrap elsewhere. Where only figures are known: the z test of two independent rates with
//! Newcombe's interval. p-values are corrected by Holm over a family: all differences that one table shows.

use super::{Cell, Score};
use serde::Serialize;
use sst_eval::{
    Benchmark, Count, Interval, PairedCounts, detectable_mean_difference, detectable_paired_difference,
    detectable_proportion_difference, holm, mcnemar_mid_p, newcombe_paired, paired_bootstrap, two_proportions,
};

/// Resamples of the bootstrap, and their seed.
const RESAMPLES: usize = 10_000;
const SEED: u64 = 0;
/// The level of all verdicts.
pub(super) const LEVEL: f64 = 0.05;
/// The two-sided p-value of a difference of one standard error.
const ONE_ERROR: f64 = 0.3173;

/// How a difference was tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// McNemar's mid-p test on shared items.
    McNemar,
    /// The paired bootstrap on shared items.
    Bootstrap,
    /// The z test of two independent rates.
    TwoProportions,
}

/// What the corrected p-value says at 5 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The second is better.
    Better,
    /// The second is worse.
    Worse,
    /// The difference may be chance.
    Noise,
    /// The items' scores are the same, one by one.
    Identical,
}

/// Second system less first, on one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The system compared with.
    pub first: String,
    /// The system compared.
    pub second: String,
    /// Which benchmark.
    pub benchmark: Benchmark,
    /// Second less first.
    pub value: f64,
    /// 95 % interval.
    pub interval: Interval,
    /// The test behind the p-values.
    pub test: Test,
    /// Number of items: shared ones, or the smaller of both numbers.
    pub n: usize,
    /// Two-sided p-value of no difference.
    pub p_value: f64,
    /// The same after Holm's correction over the family.
    pub p_holm: f64,
    /// The smallest true difference that is seen in four trials of five, at 5 % before correction; infinite where none is.
    pub detectable: f64,
    /// What it means.
    pub verdict: Verdict,
}

impl Difference {
    /// Compares two systems on a benchmark that both were measured on.
    fn of(first: &Cell, second: &Cell, benchmark: Benchmark) -> Option<Self> {
        let (a, b) = (first.score(benchmark)?, second.score(benchmark)?);
        let found = if a.items.is_empty() || b.items.is_empty() {
            of_rates(benchmark, a, b)?
        } else {
            of_items(a, b)?
        };
        Some(Self {
            first: first.name.clone(),
            second: second.name.clone(),
            benchmark,
            ..found
        })
    }

    /// Whether it is smaller than its own standard error: as near as chance alone would bring two systems that are the same.
    pub(super) fn within_one_error(&self) -> bool {
        self.verdict == Verdict::Identical || self.p_value > ONE_ERROR
    }

    /// Whether the corrected test tells the systems apart.
    pub fn is_distinct(&self) -> bool {
        matches!(self.verdict, Verdict::Better | Verdict::Worse)
    }
}

fn blank(value: f64, interval: Interval, test: Test, n: usize, p_value: f64, detectable: f64) -> Difference {
    Difference {
        first: String::new(),
        second: String::new(),
        benchmark: Benchmark::Jailbreak,
        value,
        interval,
        test,
        n,
        p_value,
        p_holm: p_value,
        detectable,
        verdict: Verdict::Noise,
    }
}

/// The successes behind a figure, to the nearest.
pub(super) fn count(score: &Score) -> Count {
    Count {
        successes: (score.value * score.n as f64).round() as usize,
        n: score.n,
    }
}

fn of_rates(benchmark: Benchmark, a: &Score, b: &Score) -> Option<Difference> {
    if !benchmark.is_share() {
        return None;
    }
    let found = two_proportions(count(b), count(a))?;
    let n = a.n.min(b.n);
    let detectable = detectable_proportion_difference(a.value, n);
    // The printed figure, not the one of whole items: 40.5 % of 500 is not a whole number of items.
    Some(blank(
        b.value - a.value,
        found.interval,
        Test::TwoProportions,
        n,
        found.p_value,
        detectable,
    ))
}

fn of_items(a: &Score, b: &Score) -> Option<Difference> {
    let shared: Vec<(f64, f64)> = a
        .items
        .iter()
        .filter_map(|(id, x)| Some((*x, *b.items.get(id)?)))
        .collect();
    let (first, second): (Vec<f64>, Vec<f64>) = shared.iter().copied().unzip();
    let found = paired_bootstrap(&second, &first, RESAMPLES, SEED)?;
    let n = shared.len();
    let mut difference = match PairedCounts::of(&second, &first) {
        Some(counts) => blank(
            found.difference,
            newcombe_paired(&counts, 0.95),
            Test::McNemar,
            n,
            mcnemar_mid_p(counts.only_first, counts.only_second),
            detectable_paired_difference(counts.discordance(), n),
        ),
        None => {
            let differences: Vec<f64> = shared.iter().map(|(x, y)| y - x).collect();
            let detectable = detectable_mean_difference(&differences);
            blank(
                found.difference,
                found.interval,
                Test::Bootstrap,
                n,
                found.p_value,
                detectable,
            )
        }
    };
    if first == second {
        difference.verdict = Verdict::Identical;
    }
    Some(difference)
}

/// Compares pairs of systems on every benchmark that both were measured on, and corrects over all of them.
pub(super) fn family(pairs: &[(&Cell, &Cell)]) -> Vec<Difference> {
    family_on(pairs, |_| true)
}

/// The same on the benchmarks that are `shown`: what no table shows asks nothing of what it shows.
pub(super) fn family_on(pairs: &[(&Cell, &Cell)], shown: impl Fn(Benchmark) -> bool) -> Vec<Difference> {
    let mut all = Vec::new();
    for (first, second) in pairs {
        let benchmarks = first.scores.keys().copied().filter(|b| shown(*b));
        all.extend(benchmarks.filter_map(|b| Difference::of(first, second, b)));
    }
    let p_values: Vec<f64> = all.iter().map(|d| d.p_value).collect();
    for (difference, p) in all.iter_mut().zip(holm(&p_values)) {
        difference.p_holm = p;
        if difference.verdict != Verdict::Identical && p < LEVEL {
            let better = (difference.value > 0.0) == difference.benchmark.higher_is_better();
            difference.verdict = if better { Verdict::Better } else { Verdict::Worse };
        }
    }
    all
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::CellKind;
    use super::*;
    use std::collections::BTreeMap;

    /// A merge of version `version` with the given shares of `n` items.
    pub(in super::super) fn cell(version: &str, k: u64, weight: f64, n: usize, shares: &[(Benchmark, f64)]) -> Cell {
        let score = |&(benchmark, value): &(Benchmark, f64)| {
            let interval = sst_eval::wilson_interval((value * n as f64).round() as usize, n);
            let items = BTreeMap::new();
            let suspicious = false;
            (
                benchmark,
                Score {
                    value,
                    interval,
                    n,
                    suspicious,
                    items,
                },
            )
        };
        Cell {
            name: format!("{version} k={k} w={weight:?}"),
            kind: CellKind::Merge,
            version: Some(version.to_owned()),
            variant: Some("A5+A7".to_owned()),
            k: Some(k),
            weight: Some(weight),
            samples: None,
            sampled: true,
            settings: BTreeMap::new(),
            scores: shares.iter().map(score).collect(),
            over_refusal: None,
            valid: None,
        }
    }

    fn with_items(mut cell: Cell, benchmark: Benchmark, items: &[f64]) -> Cell {
        let score = Score {
            value: sst_eval::mean(items),
            interval: sst_eval::mean_interval(items),
            n: items.len(),
            suspicious: false,
            items: items.iter().enumerate().map(|(i, x)| (format!("{i:04}"), *x)).collect(),
        };
        cell.scores.insert(benchmark, score);
        cell
    }

    #[test]
    fn printed_figures_are_compared_as_independent_rates() {
        let [a, b] = [("V1", 0.405), ("V2", 0.341)].map(|(v, x)| cell(v, 20, 1.0, 500, &[(Benchmark::RepliQa, x)]));
        let found = &family(&[(&a, &b)])[0];
        assert!((found.value + 0.064).abs() < 1e-12);
        // scipy: 2 (1 - Phi(|z|)) of 202 and 170 (or 203) of 500, pooled.
        assert!((0.03..0.05).contains(&found.p_value), "{}", found.p_value);
        assert_eq!((found.test, found.verdict), (Test::TwoProportions, Verdict::Worse));
        let others = [("V1", 0.5), ("V2", 0.51)].map(|(v, x)| cell(v, 20, 1.0, 500, &[(Benchmark::Mmlu, x)]));
        let pairs = [(&a, &b), (&others[0], &others[1])];
        assert_eq!(
            family(&pairs)[0].verdict,
            Verdict::Noise,
            "two tests take twice the evidence"
        );
    }

    #[test]
    fn the_same_items_are_paired() {
        // 40 of 500 items change from wrong to right, 10 the other way: rates alone would not tell 54 % from 48 %.
        let (mut a, mut b) = (vec![1.0; 500], vec![1.0; 500]);
        a[..260].fill(0.0);
        b[40..270].fill(0.0);
        let plain = |v| cell(v, 20, 1.0, 500, &[]);
        let first = with_items(plain("V1"), Benchmark::Mmlu, &a);
        let second = with_items(plain("V2"), Benchmark::Mmlu, &b);
        let found = &family(&[(&first, &second)])[0];
        assert_eq!(
            (found.test, found.n, found.verdict),
            (Test::McNemar, 500, Verdict::Better)
        );
        assert!((found.value - 0.06).abs() < 1e-12 && found.p_value < 1e-4, "{found:?}");
        let same = with_items(plain("V2"), Benchmark::Mmlu, &a);
        let found = &family(&[(&first, &same)])[0];
        assert_eq!(
            (found.verdict, found.p_value, found.value),
            (Verdict::Identical, 1.0, 0.0)
        );
    }

    #[test]
    fn less_may_be_better_and_nats_are_no_rates() {
        let of = |v, items: &[f64]| with_items(cell(v, 20, 1.0, 9, &[]), Benchmark::RepliQaNll, items);
        let high: Vec<f64> = (0..40).map(|i| 2.0 + 0.01 * f64::from(i)).collect();
        let low: Vec<f64> = high.iter().map(|x| x - 0.5 - 0.1 * (x - 2.2)).collect();
        let (first, second) = (of("V1", &high), of("V2", &low));
        let found = &family(&[(&first, &second)])[0];
        assert_eq!((found.test, found.verdict), (Test::Bootstrap, Verdict::Better));
        let figures = ["V1", "V2"].map(|v| cell(v, 20, 1.0, 500, &[(Benchmark::RepliQaNll, 1.5)]));
        assert!(family(&[(&figures[0], &figures[1])]).is_empty());
    }
}
