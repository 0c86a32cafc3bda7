//! The benchmarks: which items, how they are asked, how an answer is scored.

pub(crate) mod answers;
pub(crate) mod mmlu;
pub(crate) mod reference;
pub(crate) mod refusal;

pub use mmlu::MmluScoring;

use crate::{Finish, Interval};
use serde::{Deserialize, Serialize};
use sst_data::Prompt;
use std::collections::BTreeMap;
use std::fmt;

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Benchmark {
    /// Share of harmful requests that are refused; higher is safer.
    Jailbreak,
    /// Share of multiple-choice questions answered rightly.
    Mmlu,
    /// ROUGE-L of answers about documents.
    RepliQa,
    /// ROUGE-L of answers to instructions.
    Alpaca,
    /// Share of XSTest's safe requests that are refused; lower is better.
    XsTest,
    /// Share of XSTest's unsafe requests that are refused; higher is safer. Less [`Benchmark::XsTest`]'s, it says how well
    /// a model tells the two apart (Youden's J).
    #[serde(rename = "xstest-unsafe")]
    XsTestUnsafe,
}

/// Every benchmark.
pub const BENCHMARKS: [Benchmark; 6] = [
    Benchmark::Jailbreak,
    Benchmark::Mmlu,
    Benchmark::RepliQa,
    Benchmark::Alpaca,
    Benchmark::XsTest,
    Benchmark::XsTestUnsafe,
];

impl Benchmark {
    /// What its score measures: `refusal_rate`, `accuracy`, `rouge_l` or `over_refusal_rate`.
    pub fn metric(self) -> &'static str {
        match self {
            Benchmark::Jailbreak | Benchmark::XsTestUnsafe => "refusal_rate",
            Benchmark::Mmlu => "accuracy",
            Benchmark::RepliQa | Benchmark::Alpaca => "rouge_l",
            Benchmark::XsTest => "over_refusal_rate",
        }
    }

    /// Whether a larger score is a better model.
    pub fn higher_is_better(self) -> bool {
        self != Benchmark::XsTest
    }

    /// Its name in configuration files and results.
    pub fn name(self) -> &'static str {
        match self {
            Benchmark::Jailbreak => "jailbreak",
            Benchmark::Mmlu => "mmlu",
            Benchmark::RepliQa => "repliqa",
            Benchmark::Alpaca => "alpaca",
            Benchmark::XsTest => "xstest",
            Benchmark::XsTestUnsafe => "xstest-unsafe",
        }
    }
}

impl fmt::Display for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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
    pub ci_low: f64,
    /// Upper end.
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
}

/// The accuracy in one subject.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SubjectScore {
    /// Share answered rightly.
    pub value: f64,
    /// Number of items.
    pub n: usize,
}

/// One item of an evaluation: what was asked, what came back, how it was scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// Which benchmark.
    pub benchmark: Benchmark,
    /// The item, unique within its benchmark and the same for every model.
    pub id: String,
    /// What was asked.
    pub prompt: Prompt,
    /// The model's answer; a letter for multiple choice.
    pub answer: String,
    /// The expected answer; empty where there is none.
    pub reference: String,
    /// Its part in the score: 0 or 1, or a ROUGE-L.
    pub score: f64,
    /// Whether the answer refuses; absent where nothing is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<bool>,
    /// Whether the answer is neither empty, nor looping, nor gibberish; absent where nothing is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<bool>,
    /// Why the answer ended; absent where nothing is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// Log-likelihood of each choice, A to D; empty where something is generated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_likelihoods: Vec<f64>,
}

impl BenchmarkScore {
    /// A score over `records`, without the parts that only multiple choice has.
    fn new(benchmark: Benchmark, value: f64, interval: Interval, records: &[ItemRecord]) -> Self {
        Self {
            benchmark,
            metric: benchmark.metric().to_owned(),
            value,
            ci_low: interval.low.max(0.0),
            ci_high: interval.high.min(1.0),
            n: records.len(),
            refusal_rate: share(records.iter().map(|r| r.refused)),
            valid_rate: share(records.iter().map(|r| r.valid)),
            macro_average: None,
            per_subject: BTreeMap::new(),
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
    fn names_are_those_in_files() {
        for benchmark in BENCHMARKS {
            assert_eq!(serde_json::to_value(benchmark).unwrap(), benchmark.name());
        }
    }

    #[test]
    fn a_share_needs_every_flag() {
        assert_eq!(share([Some(true), Some(false)].into_iter()), Some(0.5));
        assert_eq!(share([Some(true), None].into_iter()), None);
    }
}
