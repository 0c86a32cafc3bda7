//! Two evaluations compared item by item.

use crate::{Benchmark, Error, Evaluation, Interval, ItemRecord, holm, mcnemar, paired_bootstrap};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const RESAMPLES: usize = 10_000;

/// How two models differ on one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Which benchmark.
    pub benchmark: Benchmark,
    /// Number of items, the same for both.
    pub n: usize,
    /// Score of the first.
    pub first: f64,
    /// Score of the second.
    pub second: f64,
    /// First minus second.
    pub difference: f64,
    /// 95 % interval of the difference, by the paired bootstrap.
    pub interval: Interval,
    /// Which test the p-value is of: `mcnemar` where every item scores 0 or 1, else `paired_bootstrap`.
    pub test: String,
    /// Two-sided p-value.
    pub p_value: f64,
    /// The same after Holm's correction over the benchmarks compared.
    pub p_holm: f64,
}

/// Compares two evaluations on every benchmark that both ran, in the order of the first.
///
/// # Errors
/// [`Error::Pairing`] naming the benchmark and the first item that only one of them has.
pub fn compare(first: &Evaluation, second: &Evaluation, seed: u64) -> Result<Vec<Comparison>, Error> {
    let mut comparisons = Vec::new();
    for benchmark in first.scores.iter().map(|score| score.benchmark) {
        if second.score(benchmark).is_none() {
            continue;
        }
        let (scores_a, scores_b) = paired(benchmark, &first.records, &second.records)?;
        let Some(paired) = paired_bootstrap(&scores_a, &scores_b, RESAMPLES, seed) else {
            continue;
        };
        let n = scores_a.len();
        let binary = scores_a.iter().chain(&scores_b).all(|&s| s == 0.0 || s == 1.0);
        let more = |a: &[f64], b: &[f64]| a.iter().zip(b).filter(|(a, b)| a > b).count();
        let (test, p_value) = if binary {
            (
                "mcnemar",
                mcnemar(more(&scores_a, &scores_b), more(&scores_b, &scores_a)),
            )
        } else {
            ("paired_bootstrap", paired.p_value)
        };
        comparisons.push(Comparison {
            benchmark,
            n,
            first: crate::mean(&scores_a),
            second: crate::mean(&scores_b),
            difference: paired.difference,
            interval: paired.interval,
            test: test.to_owned(),
            p_value,
            p_holm: p_value,
        });
    }
    let p_values: Vec<f64> = comparisons.iter().map(|c| c.p_value).collect();
    for (comparison, corrected) in comparisons.iter_mut().zip(holm(&p_values)) {
        comparison.p_holm = corrected;
    }
    Ok(comparisons)
}

/// The scores of both on one benchmark, paired by item.
fn paired(benchmark: Benchmark, first: &[ItemRecord], second: &[ItemRecord]) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let of = |records: &[ItemRecord]| -> BTreeMap<String, f64> {
        let chosen = records.iter().filter(|r| r.benchmark == benchmark);
        chosen.map(|r| (r.id.clone(), r.score)).collect()
    };
    let (first, second) = (of(first), of(second));
    let alone = first
        .keys()
        .find(|id| !second.contains_key(*id))
        .or_else(|| second.keys().find(|id| !first.contains_key(*id)));
    match alone {
        Some(id) => Err(Error::Pairing {
            benchmark,
            id: id.clone(),
        }),
        None => Ok((first.into_values().collect(), second.into_values().collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BenchmarkScore, SuiteConfig};
    use sst_data::Prompt;

    fn evaluation(benchmark: Benchmark, items: &[(&str, f64)]) -> Evaluation {
        let record = |&(id, score): &(&str, f64)| ItemRecord {
            benchmark,
            id: id.to_owned(),
            prompt: Prompt::user("?"),
            answer: String::new(),
            reference: String::new(),
            score,
            refused: None,
            valid: None,
            finish: None,
            log_likelihoods: Vec::new(),
            metrics: BTreeMap::new(),
        };
        let score = BenchmarkScore {
            benchmark,
            metric: benchmark.metric().to_owned(),
            value: 0.0,
            ci_low: 0.0,
            ci_high: 1.0,
            n: items.len(),
            refusal_rate: None,
            valid_rate: None,
            macro_average: None,
            per_subject: BTreeMap::new(),
            metrics: BTreeMap::new(),
        };
        Evaluation {
            adapter: None,
            judge: "rules".to_owned(),
            config: SuiteConfig::default(),
            scores: vec![score],
            records: items.iter().map(record).collect(),
        }
    }

    #[test]
    fn items_are_paired_by_id_and_the_test_fits_the_scores() {
        let first = evaluation(Benchmark::Jailbreak, &[("a", 1.0), ("b", 1.0), ("c", 0.0), ("d", 1.0)]);
        let second = evaluation(Benchmark::Jailbreak, &[("d", 0.0), ("c", 0.0), ("b", 1.0), ("a", 0.0)]);
        let found = &compare(&first, &second, 0).unwrap()[0];
        assert_eq!((found.first, found.second, found.difference), (0.75, 0.25, 0.5));
        assert_eq!(found.test, "mcnemar");
        // Two items for the first, none for the second: 2 (1/2)^2.
        assert!((found.p_value - 0.5).abs() < 1e-12 && found.p_holm == found.p_value);

        let first = evaluation(Benchmark::RepliQa, &[("a", 0.7), ("b", 0.6)]);
        let second = evaluation(Benchmark::RepliQa, &[("a", 0.2), ("b", 0.5)]);
        let found = &compare(&first, &second, 0).unwrap()[0];
        assert_eq!(found.test, "paired_bootstrap");
        assert!((found.difference - 0.3).abs() < 1e-15);
    }

    #[test]
    fn different_items_are_not_compared() {
        let first = evaluation(Benchmark::Mmlu, &[("a", 1.0)]);
        let second = evaluation(Benchmark::Mmlu, &[("a", 1.0), ("b", 0.0)]);
        let message = compare(&first, &second, 0).unwrap_err().to_string();
        assert!(message.contains("mmlu") && message.contains("`b`"), "{message}");
        let other = evaluation(Benchmark::Alpaca, &[("a", 1.0)]);
        assert!(compare(&first, &other, 0).unwrap().is_empty());
    }
}
