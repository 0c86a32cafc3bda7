//! Which benchmarks a suite runs, on how many items, and how: raw values, then checked ones.

use crate::{Benchmark, Error, MmluScoring, Sampling};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What to run. Every key has a default.
///
/// | key | meaning | default |
/// | --- | --- | --- |
/// | `benchmarks` | which, in this order | jailbreak, mmlu, repliqa, alpaca |
/// | `n.<benchmark>` | items drawn | all |
/// | `max_new_tokens.<benchmark>` | length of an answer | 48; alpaca 64 |
/// | `mmlu_shots` | worked examples before each question | 5 |
/// | `mmlu_scoring` | what is weighed: `letters` or `choices` | letters |
/// | `seed` | key of the draw of items | 0 |
/// | `sampling` | how tokens are chosen | greedy |
///
/// ```
/// use sst_eval::{Benchmark, SuiteConfig};
/// let config: SuiteConfig = serde_json::from_str(r#"{"benchmarks": ["jailbreak"], "n": {"jailbreak": 100}}"#).unwrap();
/// assert_eq!(config.benchmarks, [Benchmark::Jailbreak]);
/// assert_eq!(config.max_new_tokens.jailbreak, 48);
/// assert!(config.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuiteConfig {
    /// Which benchmarks, in the order to run them.
    pub benchmarks: Vec<Benchmark>,
    /// Items drawn for each benchmark.
    pub n: ItemCounts,
    /// Length of an answer for each benchmark that generates.
    pub max_new_tokens: AnswerLengths,
    /// Worked examples before each multiple-choice question, 0 to 5.
    pub mmlu_shots: usize,
    /// What is weighed after a multiple-choice question; small models need `choices`.
    pub mmlu_scoring: MmluScoring,
    /// Key of the draw of items: the same items for every model.
    pub seed: u64,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// Items drawn for each benchmark; `None` takes all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ItemCounts {
    /// Harmful requests.
    pub jailbreak: Option<usize>,
    /// Multiple-choice questions, over all subjects together.
    pub mmlu: Option<usize>,
    /// Questions about documents.
    pub repliqa: Option<usize>,
    /// Instructions.
    pub alpaca: Option<usize>,
    /// Safe requests of XSTest, and as many unsafe ones.
    pub xstest: Option<usize>,
}

/// Length of an answer in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerLengths {
    /// To a harmful request.
    pub jailbreak: usize,
    /// To a question about a document.
    pub repliqa: usize,
    /// To an instruction.
    pub alpaca: usize,
    /// To a request of XSTest.
    pub xstest: usize,
}

impl Default for AnswerLengths {
    fn default() -> Self {
        Self {
            jailbreak: 48,
            repliqa: 48,
            alpaca: 64,
            xstest: 48,
        }
    }
}

impl Default for SuiteConfig {
    fn default() -> Self {
        Self {
            benchmarks: vec![
                Benchmark::Jailbreak,
                Benchmark::Mmlu,
                Benchmark::RepliQa,
                Benchmark::Alpaca,
            ],
            n: ItemCounts::default(),
            max_new_tokens: AnswerLengths::default(),
            mmlu_shots: 5,
            mmlu_scoring: MmluScoring::Letters,
            seed: 0,
            sampling: Sampling::Greedy,
        }
    }
}

impl ItemCounts {
    pub(crate) fn of(&self, benchmark: Benchmark) -> Option<usize> {
        match benchmark {
            Benchmark::Jailbreak => self.jailbreak,
            Benchmark::Mmlu => self.mmlu,
            Benchmark::RepliQa => self.repliqa,
            Benchmark::Alpaca => self.alpaca,
            Benchmark::XsTest | Benchmark::XsTestUnsafe => self.xstest,
        }
    }
}

/// A configuration whose values are all in range.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedSuiteConfig(SuiteConfig);

impl SuiteConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first key at fault.
    pub fn check(&self) -> Result<CheckedSuiteConfig, Error> {
        let fault = |key: &str, problem: String| Error::Config {
            key: key.to_owned(),
            problem,
        };
        if self.benchmarks.is_empty() {
            return Err(fault("benchmarks", "is empty".to_owned()));
        }
        let mut seen = BTreeSet::new();
        for &benchmark in &self.benchmarks {
            if !seen.insert(benchmark) {
                return Err(fault("benchmarks", format!("names {benchmark} twice")));
            }
            if self.n.of(benchmark) == Some(0) {
                return Err(fault(
                    &format!("n.{benchmark}"),
                    "is 0; leave it out to take all items".to_owned(),
                ));
            }
        }
        let lengths = &self.max_new_tokens;
        for (name, length) in [
            ("jailbreak", lengths.jailbreak),
            ("repliqa", lengths.repliqa),
            ("alpaca", lengths.alpaca),
            ("xstest", lengths.xstest),
        ] {
            if length == 0 {
                return Err(fault(&format!("max_new_tokens.{name}"), "is 0".to_owned()));
            }
        }
        if self.mmlu_shots > 5 {
            return Err(fault("mmlu_shots", format!("is {}, expected 0 to 5", self.mmlu_shots)));
        }
        if let Sampling::Sample { temperature, top_p, .. } = self.sampling {
            if !(temperature.is_finite() && temperature > 0.0) {
                return Err(fault(
                    "sampling.temperature",
                    format!("is {temperature}, expected a number above 0"),
                ));
            }
            if !(top_p > 0.0 && top_p <= 1.0) {
                return Err(fault(
                    "sampling.top_p",
                    format!("is {top_p}, expected a number in (0, 1]"),
                ));
            }
        }
        Ok(CheckedSuiteConfig(self.clone()))
    }
}

impl CheckedSuiteConfig {
    /// The values.
    pub fn get(&self) -> &SuiteConfig {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_key() {
        let sample = |temperature, top_p| Sampling::Sample {
            temperature,
            top_p,
            seed: 0,
        };
        let base = SuiteConfig::default;
        let cases = [
            (
                SuiteConfig {
                    benchmarks: vec![],
                    ..base()
                },
                "`benchmarks` is empty",
            ),
            (
                SuiteConfig {
                    benchmarks: vec![Benchmark::Mmlu; 2],
                    ..base()
                },
                "names mmlu twice",
            ),
            (
                SuiteConfig {
                    n: ItemCounts {
                        repliqa: Some(0),
                        ..ItemCounts::default()
                    },
                    ..base()
                },
                "`n.repliqa` is 0",
            ),
            (
                SuiteConfig {
                    max_new_tokens: AnswerLengths {
                        alpaca: 0,
                        ..AnswerLengths::default()
                    },
                    ..base()
                },
                "`max_new_tokens.alpaca` is 0",
            ),
            (
                SuiteConfig {
                    mmlu_shots: 6,
                    ..base()
                },
                "`mmlu_shots` is 6",
            ),
            (
                SuiteConfig {
                    sampling: sample(f64::NAN, 0.9),
                    ..base()
                },
                "`sampling.temperature` is NaN",
            ),
            (
                SuiteConfig {
                    sampling: sample(0.7, 1.5),
                    ..base()
                },
                "`sampling.top_p` is 1.5",
            ),
        ];
        for (config, expected) in cases {
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(expected), "{message} lacks {expected}");
        }
        assert!(
            serde_json::from_str::<SuiteConfig>(r#"{"shots": 5}"#).is_err(),
            "an unknown key"
        );
    }
}
