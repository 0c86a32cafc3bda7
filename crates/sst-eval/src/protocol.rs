//! Evaluation protocols: named presets of how a model is asked and judged.
//!
//! | | `default` | `study-v1` | `study-v2` |
//! | --- | --- | --- | --- |
//! | prompts | the model's chat template | `### Question: ... ### Answer:` | as v1 |
//! | new tokens | 48; alpaca 64; mmlu 8 | 50 | 100 |
//! | sampling | greedy | temperature 0.6, top-p 0.9 | as v1 |
//! | judge | rules | keyword in the first 150 characters | as v1 |
//! | MMLU | likelihood of the letter, 5-shot | generated letter, 0-shot | as v1 |
//! | benchmarks | jailbreak, mmlu, repliqa, alpaca | jailbreak, mmlu-generated, repliqa | and alpaca |
//!
//! The earlier study recorded its prompt format, its lengths and where it looked for keywords. What it did not record
//! is chosen: its list of keywords (ours is the field's common one), its sampling (its model's own generation settings,
//! which apply where a script sets none; seeded here, unlike there), the number of worked examples, and the white space
//! in the prompt. How many items are drawn is no part of a protocol: the study drew 500 of each set.

use crate::{AnswerLengths, Benchmark, ItemSplit, JudgeChoice, MmluScoring, Sampling, SuiteConfig};
use serde::{Deserialize, Serialize};
use sst_data::Prompt;
use std::fmt;
use std::str::FromStr;

/// A named preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Chat prompts, greedy answers, the rules judge.
    #[default]
    Default,
    /// As the study evaluated its first implementation.
    StudyV1,
    /// As the study evaluated its second implementation.
    StudyV2,
}

/// How a question is laid out for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptFormat {
    /// By the model's own chat template.
    #[default]
    Chat,
    /// As raw text: `### Question: ...`, a blank line, `### Answer:`.
    QuestionAnswer,
}

/// A name that stands for no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown protocol `{0}`, expected default, study-v1 or study-v2")]
pub struct UnknownProtocol(String);

impl Protocol {
    /// Its name in configuration files and results.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Default => "default",
            Protocol::StudyV1 => "study-v1",
            Protocol::StudyV2 => "study-v2",
        }
    }

    /// The configuration that it stands for.
    pub(crate) fn config(self) -> SuiteConfig {
        let base = SuiteConfig {
            protocol: self,
            prompt_format: PromptFormat::Chat,
            benchmarks: vec![
                Benchmark::Jailbreak,
                Benchmark::Mmlu,
                Benchmark::RepliQa,
                Benchmark::Alpaca,
            ],
            n: crate::ItemCounts::default(),
            split: ItemSplit::All,
            max_new_tokens: AnswerLengths::default(),
            mmlu_shots: 5,
            mmlu_scoring: MmluScoring::Letters,
            judge: JudgeChoice::Rules,
            refusal: None,
            seed: 0,
            sampling: Sampling::Greedy,
        };
        let study = |tokens| SuiteConfig {
            prompt_format: PromptFormat::QuestionAnswer,
            benchmarks: vec![Benchmark::Jailbreak, Benchmark::MmluGenerated, Benchmark::RepliQa],
            max_new_tokens: AnswerLengths::all(tokens),
            mmlu_shots: 0,
            judge: JudgeChoice::Keyword,
            sampling: Sampling::Sample {
                temperature: 0.6,
                top_p: 0.9,
                seed: 0,
            },
            ..base.clone()
        };
        match self {
            Protocol::Default => base,
            Protocol::StudyV1 => study(50),
            Protocol::StudyV2 => {
                let mut config = study(100);
                config.benchmarks.push(Benchmark::Alpaca);
                config
            }
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        [Protocol::Default, Protocol::StudyV1, Protocol::StudyV2]
            .into_iter()
            .find(|protocol| protocol.name() == name)
            .ok_or_else(|| UnknownProtocol(name.to_owned()))
    }
}

impl PromptFormat {
    /// The prompt as the model gets it.
    ///
    /// ```
    /// use sst_data::Prompt;
    /// use sst_eval::PromptFormat;
    /// let text = PromptFormat::QuestionAnswer.apply(&Prompt::user("Why?"));
    /// assert_eq!(text, Prompt::Text("### Question: Why?\n\n### Answer:".to_owned()));
    /// ```
    pub fn apply(self, prompt: &Prompt) -> Prompt {
        match self {
            PromptFormat::Chat => prompt.clone(),
            PromptFormat::QuestionAnswer => {
                Prompt::Text(format!("### Question: {}\n\n### Answer:", prompt.plain_text().trim()))
            }
        }
    }

    /// A reference answer as it continues the prompt.
    pub(crate) fn continuation(self, answer: &str) -> String {
        match self {
            PromptFormat::Chat => answer.to_owned(),
            PromptFormat::QuestionAnswer => format!(" {answer}"),
        }
    }
}
