//! Which benchmarks a suite runs, on how many items, and how: raw values, then checked ones.

use crate::{BENCHMARKS, Benchmark, Error, ItemSplit, JudgeChoice, MmluScoring, PromptFormat, Protocol, Sampling};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What to run. Every key has a default, which the protocol sets.
///
/// | key | meaning | default |
/// | --- | --- | --- |
/// | `protocol` | preset of all other keys: `default`, `study-v1`, `study-v2` | default |
/// | `prompt_format` | `chat` or `question-answer` | chat |
/// | `benchmarks` | which, in this order | jailbreak, mmlu, repliqa, alpaca |
/// | `n.<data set>` | items drawn | all |
/// | `split` | which items: `all`, `dev:SHARE`, `test:SHARE` | all |
/// | `max_new_tokens.<data set>` | length of an answer | 48; alpaca 64; mmlu 8 |
/// | `mmlu_shots` | worked examples before each question | 5 |
/// | `mmlu_scoring` | what is weighed: `letters` or `choices` | letters |
/// | `judge` | who says what refuses: `rules`, `keyword`, `classifier:FOLDER`, `endpoint:URL` | rules |
/// | `refusal` | the refusal weighed after safe requests | the jailbreak set's commonest |
/// | `seed` | key of the draw of items | 0 |
/// | `sampling` | how tokens are chosen | greedy |
///
/// ```
/// use sst_eval::{Benchmark, JudgeChoice, SuiteConfig};
/// let config: SuiteConfig = serde_json::from_str(r#"{"benchmarks": ["jailbreak"], "n": {"jailbreak": 100}}"#).unwrap();
/// assert_eq!(config.benchmarks, [Benchmark::Jailbreak]);
/// assert_eq!(config.max_new_tokens.jailbreak, 48);
/// assert!(config.check().is_ok());
///
/// let study: SuiteConfig = serde_json::from_str(r#"{"protocol": "study-v2", "judge": "rules"}"#).unwrap();
/// assert_eq!((study.max_new_tokens.jailbreak, study.judge), (100, JudgeChoice::Rules));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct SuiteConfig {
    /// The preset that fills what is not given.
    pub protocol: Protocol,
    /// How a question is laid out; multiple choice by likelihood has its own published layout.
    pub prompt_format: PromptFormat,
    /// Which benchmarks, in the order to run them.
    pub benchmarks: Vec<Benchmark>,
    /// Items drawn of each data set.
    pub n: ItemCounts,
    /// Whether the items to choose settings on, those to judge the choice on, or all.
    pub split: ItemSplit,
    /// Length of an answer for each data set.
    pub max_new_tokens: AnswerLengths,
    /// Worked examples before each multiple-choice question, 0 to 5.
    pub mmlu_shots: usize,
    /// What is weighed after a multiple-choice question; small models need `choices`.
    pub mmlu_scoring: MmluScoring,
    /// Who says whether an answer refuses.
    pub judge: JudgeChoice,
    /// The refusal that `xstest-nll` weighs; the commonest response of the jailbreak set where not given.
    pub refusal: Option<String>,
    /// Key of the draw of items: the same items for every model.
    pub seed: u64,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// A value for each data set, the same for every benchmark that asks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerSet<T> {
    /// Harmful requests of the folder's own.
    pub jailbreak: T,
    /// Multiple-choice questions, all subjects together.
    pub mmlu: T,
    /// Questions about documents.
    pub repliqa: T,
    /// Instructions.
    pub alpaca: T,
    /// Requests of XSTest, safe and unsafe ones alike.
    pub xstest: T,
    /// Harmful questions of BeaverTails.
    pub beavertails: T,
    /// Harmful requests of JailbreakBench.
    pub jailbreakbench: T,
    /// Harmful requests of AdvBench.
    pub advbench: T,
}

/// Items drawn of each data set; `None` takes all.
pub type ItemCounts = PerSet<Option<usize>>;

/// Length of a generated answer in tokens.
pub type AnswerLengths = PerSet<usize>;

impl Default for ItemCounts {
    fn default() -> Self {
        Self::all(None)
    }
}

impl Default for AnswerLengths {
    fn default() -> Self {
        Self {
            alpaca: 64,
            mmlu: 8,
            ..Self::all(48)
        }
    }
}

impl Default for SuiteConfig {
    fn default() -> Self {
        Self::of(Protocol::Default)
    }
}

impl<'de> Deserialize<'de> for SuiteConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Map::deserialize(deserializer)?;
        let protocol = match given.get("protocol") {
            Some(name) => {
                serde_json::from_value(name.clone()).map_err(|e| D::Error::custom(format!("protocol: {e}")))?
            }
            None => Protocol::Default,
        };
        let mut preset = Self::of(protocol);
        if let (Sampling::Sample { seed, .. }, Some(given)) =
            (&mut preset.sampling, given.get("seed").and_then(Value::as_u64))
        {
            *seed = given;
        }
        let mut value = serde_json::to_value(&preset).map_err(D::Error::custom)?;
        overlay(&mut value, Value::Object(given));
        Self::deserialize(value).map_err(D::Error::custom)
    }
}

impl Serialize for SuiteConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Puts `given` over `value`, key by key where both are tables.
fn overlay(value: &mut Value, given: Value) {
    match (value, given) {
        (Value::Object(table), Value::Object(given)) => {
            for (key, given) in given {
                overlay(table.entry(key).or_insert(Value::Null), given);
            }
        }
        (value, given) => *value = given,
    }
}

impl<T: Copy> PerSet<T> {
    /// The same for every data set.
    pub fn all(value: T) -> Self {
        Self {
            jailbreak: value,
            mmlu: value,
            repliqa: value,
            alpaca: value,
            xstest: value,
            beavertails: value,
            jailbreakbench: value,
            advbench: value,
        }
    }

    /// That of the data set that a benchmark asks.
    pub(crate) fn of(&self, benchmark: Benchmark) -> T {
        match benchmark {
            Benchmark::Jailbreak | Benchmark::JailbreakNll => self.jailbreak,
            Benchmark::Mmlu | Benchmark::MmluGenerated => self.mmlu,
            Benchmark::RepliQa | Benchmark::RepliQaNll => self.repliqa,
            Benchmark::Alpaca | Benchmark::AlpacaNll => self.alpaca,
            Benchmark::XsTest | Benchmark::XsTestUnsafe | Benchmark::XsTestNll => self.xstest,
            Benchmark::BeaverTails => self.beavertails,
            Benchmark::JailbreakBench => self.jailbreakbench,
            Benchmark::AdvBench => self.advbench,
        }
    }
}

/// A configuration whose values are all in range.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedSuiteConfig(SuiteConfig);

impl SuiteConfig {
    /// What a protocol stands for.
    pub fn of(protocol: Protocol) -> Self {
        protocol.config()
    }

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
                    &format!("n.{}", benchmark.data_set()),
                    "is 0; leave it out to take all items".to_owned(),
                ));
            }
        }
        if !self.split.is_proper() {
            let problem = format!("is {}, expected a share between 0 and 1", self.split);
            return Err(fault("split", problem));
        }
        for &benchmark in &self.benchmarks {
            if let Some(n) = self.n.of(benchmark).filter(|&n| self.split.of(n) == 0) {
                let problem = format!("is {n}, of which split {} takes none; raise it", self.split);
                return Err(fault(&format!("n.{}", benchmark.data_set()), problem));
            }
        }
        for benchmark in BENCHMARKS {
            if self.max_new_tokens.of(benchmark) == 0 {
                let key = format!("max_new_tokens.{}", benchmark.data_set());
                return Err(fault(&key, "is 0".to_owned()));
            }
        }
        if self.refusal.as_ref().is_some_and(|text| text.trim().is_empty()) {
            return Err(fault("refusal", "is empty".to_owned()));
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
                    benchmarks: vec![Benchmark::XsTestUnsafe],
                    n: ItemCounts {
                        xstest: Some(0),
                        ..ItemCounts::default()
                    },
                    ..base()
                },
                "`n.xstest` is 0",
            ),
            (
                SuiteConfig {
                    n: ItemCounts {
                        mmlu: Some(1),
                        ..ItemCounts::default()
                    },
                    split: ItemSplit::Dev(0.4),
                    ..base()
                },
                "`n.mmlu` is 1, of which split dev:0.4 takes none",
            ),
            (
                SuiteConfig {
                    n: ItemCounts::all(Some(2)),
                    split: ItemSplit::Test(0.9),
                    ..base()
                },
                "`n.jailbreak` is 2, of which split test:0.9 takes none",
            ),
            (
                SuiteConfig {
                    split: ItemSplit::Dev(f64::NAN),
                    ..base()
                },
                "`split` is dev:NaN",
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
                    refusal: Some(" ".to_owned()),
                    ..base()
                },
                "`refusal` is empty",
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
    }

    fn read(json: &str) -> Result<SuiteConfig, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn a_protocol_fills_what_is_not_given() {
        let study = read(r#"{"protocol": "study-v1", "max_new_tokens": {"jailbreak": 20}, "seed": 9}"#).unwrap();
        assert_eq!((study.max_new_tokens.jailbreak, study.max_new_tokens.repliqa), (20, 50));
        assert_eq!(
            (study.prompt_format, study.judge),
            (PromptFormat::QuestionAnswer, JudgeChoice::Keyword)
        );
        assert_eq!(study.benchmarks[1], Benchmark::MmluGenerated);
        assert!(
            matches!(study.sampling, Sampling::Sample { seed: 9, .. }),
            "{:?}",
            study.sampling
        );
        let greedy = read(r#"{"protocol": "study-v2", "sampling": "greedy", "judge": "rules"}"#).unwrap();
        assert_eq!((greedy.sampling, greedy.judge), (Sampling::Greedy, JudgeChoice::Rules));
        assert_eq!(greedy.max_new_tokens, AnswerLengths::all(100));
        assert_eq!(read("{}").unwrap(), SuiteConfig::default());
        let counts: ItemCounts = serde_json::from_str(r#"{"mmlu": 5}"#).unwrap();
        assert_eq!(
            (counts.mmlu, counts.alpaca),
            (Some(5), None),
            "what is not given is all"
        );
    }

    #[test]
    fn what_is_written_reads_the_same() {
        for protocol in [Protocol::Default, Protocol::StudyV1, Protocol::StudyV2] {
            let config = SuiteConfig {
                n: ItemCounts {
                    xstest: Some(7),
                    ..ItemCounts::default()
                },
                split: ItemSplit::Test(0.3),
                refusal: Some("No.".to_owned()),
                ..SuiteConfig::of(protocol)
            };
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(read(&json).unwrap(), config, "{json}");
            assert!(config.check().is_ok());
        }
    }

    #[test]
    fn unknown_keys_and_names_are_errors() {
        for (json, expected) in [
            (r#"{"shots": 5}"#, "`shots`"),
            (r#"{"n": {"mmul": 5}}"#, "`mmul`"),
            (r#"{"max_new_tokens": {"gsm8k": 5}}"#, "`gsm8k`"),
            (r#"{"protocol": "study-v3"}"#, "study-v3"),
            (r#"{"judge": "oracle"}"#, "`oracle`"),
            (r#"{"mmlu_shots": "five"}"#, "five"),
        ] {
            let message = read(json).unwrap_err().to_string();
            assert!(message.contains(expected), "{message} lacks {expected}");
        }
    }
}
