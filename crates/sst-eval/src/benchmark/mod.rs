//! The benchmarks: which items, how they are asked, how an answer is scored.

mod alpaca;
pub(crate) mod answers;
mod beavertails;
pub(crate) mod likelihood;
pub(crate) mod mmlu;
mod mmlu_generated;
mod record;
mod repliqa;
mod safety;
mod score;

pub use mmlu::MmluScoring;
pub use record::ItemRecord;
pub use score::{BenchmarkScore, Metric, SubjectScore};

use crate::Error;
use answers::Asking;
use serde::{Deserialize, Serialize};
use sst_data::Example;
use std::fmt;

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Benchmark {
    /// Share of harmful requests that are refused; higher is safer.
    Jailbreak,
    /// Share of multiple-choice questions answered rightly, by likelihood.
    Mmlu,
    /// ROUGE-L of answers about documents.
    RepliQa,
    /// ROUGE-L of answers to instructions.
    Alpaca,
    /// Share of XSTest's safe requests that are refused; lower is better.
    XsTest,
    /// Share of XSTest's unsafe requests that are refused; higher is safer. Less [`Benchmark::XsTest`]'s, it says how
    /// well a model tells the two apart (Youden's J).
    #[serde(rename = "xstest-unsafe")]
    XsTestUnsafe,
    /// Share of BeaverTails' harmful requests that get a harmful answer; lower is safer.
    BeaverTails,
    /// Share of JailbreakBench's harmful requests that are refused.
    JailbreakBench,
    /// Share of AdvBench's harmful requests that are refused.
    AdvBench,
    /// Share of multiple-choice questions answered rightly, by the letter that is generated.
    #[serde(rename = "mmlu-generated")]
    MmluGenerated,
    /// Nats per token of RepliQA's reference answers; lower is better.
    #[serde(rename = "repliqa-nll")]
    RepliQaNll,
    /// Nats per token of Alpaca's reference answers; lower is better.
    #[serde(rename = "alpaca-nll")]
    AlpacaNll,
    /// Nats per token of the reference refusals of harmful requests; lower is safer.
    #[serde(rename = "jailbreak-nll")]
    JailbreakNll,
    /// Nats per token of a refusal of XSTest's safe requests; higher is better.
    #[serde(rename = "xstest-nll")]
    XsTestNll,
}

/// Every benchmark.
pub const BENCHMARKS: [Benchmark; 14] = [
    Benchmark::Jailbreak,
    Benchmark::Mmlu,
    Benchmark::RepliQa,
    Benchmark::Alpaca,
    Benchmark::XsTest,
    Benchmark::XsTestUnsafe,
    Benchmark::BeaverTails,
    Benchmark::JailbreakBench,
    Benchmark::AdvBench,
    Benchmark::MmluGenerated,
    Benchmark::RepliQaNll,
    Benchmark::AlpacaNll,
    Benchmark::JailbreakNll,
    Benchmark::XsTestNll,
];

impl Benchmark {
    /// What its score measures: `refusal_rate`, `over_refusal_rate`, `harmful_rate`, `accuracy`, `rouge_l` or
    /// `nll_per_token`.
    pub fn metric(self) -> &'static str {
        match self {
            Benchmark::Jailbreak | Benchmark::XsTestUnsafe | Benchmark::JailbreakBench | Benchmark::AdvBench => {
                "refusal_rate"
            }
            Benchmark::XsTest => "over_refusal_rate",
            Benchmark::BeaverTails => "harmful_rate",
            Benchmark::Mmlu | Benchmark::MmluGenerated => "accuracy",
            Benchmark::RepliQa | Benchmark::Alpaca => "rouge_l",
            Benchmark::RepliQaNll | Benchmark::AlpacaNll | Benchmark::JailbreakNll | Benchmark::XsTestNll => {
                "nll_per_token"
            }
        }
    }

    /// Whether a larger score is a better model.
    pub fn higher_is_better(self) -> bool {
        !matches!(
            self,
            Benchmark::XsTest
                | Benchmark::BeaverTails
                | Benchmark::RepliQaNll
                | Benchmark::AlpacaNll
                | Benchmark::JailbreakNll
        )
    }

    /// Whether its score lies in \[0, 1\]; nats per token do not.
    pub fn is_share(self) -> bool {
        self.metric() != "nll_per_token"
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
            Benchmark::BeaverTails => "beavertails",
            Benchmark::JailbreakBench => "jailbreakbench",
            Benchmark::AdvBench => "advbench",
            Benchmark::MmluGenerated => "mmlu-generated",
            Benchmark::RepliQaNll => "repliqa-nll",
            Benchmark::AlpacaNll => "alpaca-nll",
            Benchmark::JailbreakNll => "jailbreak-nll",
            Benchmark::XsTestNll => "xstest-nll",
        }
    }

    /// The name of the data set that it asks, with which its own begins.
    pub fn data_set(self) -> &'static str {
        let name = self.name();
        name.split_once('-').map_or(name, |(set, _)| set)
    }
}

impl fmt::Display for Benchmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The items of one benchmark, as it asks them.
#[derive(Debug, Clone)]
pub(crate) enum Items {
    Examples(Vec<Example>),
    Questions(Vec<mmlu::Question>),
}

impl Items {
    pub(crate) fn len(&self) -> usize {
        match self {
            Items::Examples(items) => items.len(),
            Items::Questions(questions) => questions.len(),
        }
    }
}

/// Asks every adapter everything; one list of records per adapter, in their order.
///
/// # Errors
/// [`Error::Generator`], [`Error::Judge`], and [`Error::Answers`] when either breaks its contract.
pub(crate) fn run(benchmark: Benchmark, items: &Items, asking: Asking<'_>) -> Result<Vec<Vec<ItemRecord>>, Error> {
    match (items, benchmark) {
        (Items::Questions(questions), Benchmark::MmluGenerated) => mmlu_generated::run(questions, asking),
        (Items::Questions(questions), _) => mmlu::run(questions, asking),
        (Items::Examples(items), Benchmark::RepliQa) => answers::ask(benchmark, items, asking, repliqa::score),
        (Items::Examples(items), Benchmark::Alpaca) => answers::ask(benchmark, items, asking, alpaca::score),
        (Items::Examples(items), Benchmark::BeaverTails) => answers::ask(benchmark, items, asking, beavertails::score),
        (Items::Examples(items), Benchmark::XsTest) => answers::ask(benchmark, items, asking, safety::of_safe),
        (
            Items::Examples(items),
            Benchmark::RepliQaNll | Benchmark::AlpacaNll | Benchmark::JailbreakNll | Benchmark::XsTestNll,
        ) => likelihood::run(benchmark, items, asking),
        (Items::Examples(items), _) => answers::ask(benchmark, items, asking, safety::of_harmful),
    }
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
}
