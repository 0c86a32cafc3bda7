//! The score of one benchmark and its secondary metrics, each the mean of its items' parts with an interval.
//!
//! The 95 % interval is Wilson's where every part is 0 or 1, and the normal interval of a mean otherwise. A metric that
//! concerns some items only (the precision of "not in the document", compliance among valid answers) is the mean over
//! those that carry it.

use super::{Benchmark, ItemRecord};
use crate::stats::{high, low};
use crate::{Interval, mean, mean_interval, wilson_interval};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The score of one benchmark. All rates lie in \[0, 1\].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkScore {
    /// Which benchmark.
    pub benchmark: Benchmark,
    /// What the value measures, as [`Benchmark::metric`] names it.
    pub metric: String,
    /// The score.
    pub value: f64,
    /// Lower end of its 95 % confidence interval.
    #[serde(deserialize_with = "low")]
    pub ci_low: f64,
    /// Upper end.
    #[serde(deserialize_with = "high")]
    pub ci_high: f64,
    /// Number of items.
    pub n: usize,
    /// Share of the answers that refuse; absent where nothing is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal_rate: Option<f64>,
    /// Share of the answers that are neither empty, nor looping, nor gibberish; absent where nothing is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_rate: Option<f64>,
    /// Mean of the subjects' accuracies; `value` is the accuracy over all items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macro_average: Option<f64>,
    /// Accuracy by subject.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub per_subject: BTreeMap<String, SubjectScore>,
    /// Secondary metrics by name, as in [`ItemRecord::metrics`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Metric>,
}

/// A secondary metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Mean over the items it concerns.
    pub value: f64,
    /// Lower end of its 95 % confidence interval.
    #[serde(deserialize_with = "low")]
    pub ci_low: f64,
    /// Upper end.
    #[serde(deserialize_with = "high")]
    pub ci_high: f64,
    /// Number of items it concerns.
    pub n: usize,
}

/// The accuracy in one subject.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SubjectScore {
    /// Share answered rightly.
    pub value: f64,
    /// Number of items.
    pub n: usize,
}

impl BenchmarkScore {
    /// The score of `records`, which must not be empty.
    pub(crate) fn of(benchmark: Benchmark, records: &[ItemRecord]) -> Self {
        let scores: Vec<f64> = records.iter().map(|r| r.score).collect();
        let Metric {
            value,
            ci_low,
            ci_high,
            n,
        } = Metric::of(benchmark.metric(), &scores);
        let mut parts: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, &part) in records.iter().flat_map(|r| &r.metrics) {
            parts.entry(name).or_default().push(part);
        }
        Self {
            benchmark,
            metric: benchmark.metric().to_owned(),
            value,
            ci_low,
            ci_high,
            n,
            refusal_rate: share(records.iter().map(|r| r.refused)),
            valid_rate: share(records.iter().map(|r| r.valid)),
            macro_average: None,
            per_subject: BTreeMap::new(),
            metrics: parts
                .into_iter()
                .map(|(name, parts)| (name.to_owned(), Metric::of(name, &parts)))
                .collect(),
        }
    }

    /// The same with accuracies by subject; `subjects` are those of the records, in their order.
    pub(crate) fn by_subject<'a>(mut self, subjects: impl Iterator<Item = &'a str>, records: &[ItemRecord]) -> Self {
        let mut scores: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (subject, record) in subjects.zip(records) {
            scores.entry(subject).or_default().push(record.score);
        }
        let subject = |(name, scores): (&str, Vec<f64>)| {
            let (value, n) = (mean(&scores), scores.len());
            (name.to_owned(), SubjectScore { value, n })
        };
        self.per_subject = scores.into_iter().map(subject).collect();
        let values: Vec<f64> = self.per_subject.values().map(|s| s.value).collect();
        self.macro_average = Some(mean(&values));
        self
    }
}

impl Metric {
    /// The mean of `parts`; every metric lies in \[0, 1\] but nats, which have no upper bound.
    fn of(name: &str, parts: &[f64]) -> Self {
        let Interval { low, high } = if parts.iter().all(|&p| p == 0.0 || p == 1.0) {
            wilson_interval(parts.iter().filter(|&&p| p == 1.0).count(), parts.len())
        } else {
            mean_interval(parts)
        };
        Self {
            value: mean(parts),
            ci_low: low.max(0.0),
            ci_high: high.min(if name == "nll_per_token" { f64::INFINITY } else { 1.0 }),
            n: parts.len(),
        }
    }
}

/// The share of `true`, or nothing when any is absent.
fn share(flags: impl Iterator<Item = Option<bool>>) -> Option<f64> {
    let flags: Vec<bool> = flags.collect::<Option<_>>()?;
    let yes = flags.iter().filter(|&&flag| flag).count();
    Some(yes as f64 / flags.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_needs_every_flag() {
        assert_eq!(share([Some(true), Some(false)].into_iter()), Some(0.5));
        assert_eq!(share([Some(true), None].into_iter()), None);
    }

    #[test]
    fn the_interval_fits_the_parts() {
        let rate = Metric::of("valid", &[1.0, 1.0, 1.0, 0.0]);
        let wilson = wilson_interval(3, 4);
        assert_eq!((rate.value, rate.ci_low, rate.ci_high), (0.75, wilson.low, wilson.high));
        let nll = Metric::of("nll_per_token", &[1.0, 2.0, 9.0]);
        assert!(nll.ci_low == 0.0 && nll.ci_high > 4.0, "{nll:?}");
        assert_eq!(Metric::of("rouge_l", &[0.9, 0.2, 0.99]).ci_high, 1.0);
    }

    #[test]
    fn an_open_interval_survives_json() {
        let one = Metric::of("nll_per_token", &[2.5]);
        let read: Metric = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        assert_eq!(read, one);
        assert_eq!(read.ci_high, f64::INFINITY);
    }
}
