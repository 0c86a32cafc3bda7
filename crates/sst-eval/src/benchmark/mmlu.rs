//! Multiple choice by likelihood: the answer is what the model finds most likely after `Answer:`.
//!
//! Prompts follow the layout of Hendrycks et al. (2021) as lm-evaluation-harness spells it: a header that names the
//! subject, the worked examples with their answers, then the question, separated by blank lines. With
//! [`MmluScoring::Letters`], as published, the choices are listed and their letters weighed. Models of some 100 million
//! parameters answer one letter always; with [`MmluScoring::Choices`] (the harness's continuation variant) the choices
//! themselves are weighed, per byte so that a long one has no handicap. The score is the accuracy over all items
//! (micro); the mean of the subjects' accuracies (macro) stands beside it.

use super::answers::{Asking, expect, flag, per_adapter};
use super::{Benchmark, ItemRecord};
use crate::{ContinuationScore, Error, ScoreRequest};
use serde::{Deserialize, Serialize};
use sst_data::{Mmlu, MmluItem, Prompt};
use std::collections::BTreeMap;

pub(super) const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// What is weighed after a multiple-choice question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MmluScoring {
    /// The letters A to D of the choices listed in the prompt, by log-likelihood.
    #[default]
    Letters,
    /// The choices themselves, by log-likelihood per byte; the prompt lists none.
    Choices,
}

/// One question, ready to ask.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    pub(super) id: String,
    pub(crate) subject: String,
    /// Header, worked examples and question, as they are weighed.
    prompt: String,
    /// The worked examples and the question, for a model that answers in words.
    pub(super) examples: Vec<MmluItem>,
    pub(crate) item: MmluItem,
    /// What is weighed, and what each log-likelihood is divided by.
    continuations: [(String, f64); 4],
}

/// Every test question of every subject in order, after `shots` worked examples.
///
/// # Errors
/// [`Error::Shots`] when a subject has too few of them.
pub(crate) fn questions(mmlu: &Mmlu, shots: usize, scoring: MmluScoring) -> Result<Vec<Question>, Error> {
    let mut questions = Vec::new();
    for (name, subject) in &mmlu.subjects {
        let examples = subject.dev.get(..shots).ok_or_else(|| Error::Shots {
            subject: name.clone(),
            shots,
            available: subject.dev.len(),
        })?;
        let header = scoring.header(name, examples);
        questions.extend(subject.test.iter().enumerate().map(|(i, item)| Question {
            id: format!("mmlu/{name}/{}", i + 1),
            subject: name.clone(),
            prompt: format!("{header}{}", scoring.block(item)),
            continuations: std::array::from_fn(|i| scoring.continuation(item, i)),
            examples: examples.to_vec(),
            item: item.clone(),
        }));
    }
    Ok(questions)
}

impl MmluScoring {
    fn header(self, subject: &str, examples: &[MmluItem]) -> String {
        let kind = match self {
            MmluScoring::Letters => "multiple choice questions",
            MmluScoring::Choices => "questions",
        };
        let mut header = format!(
            "The following are {kind} (with answers) about {}.\n\n",
            subject.replace('_', " ")
        );
        for item in examples {
            header += &format!("{}{}\n\n", self.block(item), self.continuation(item, item.answer).0);
        }
        header
    }

    fn block(self, item: &MmluItem) -> String {
        let question = item.question.trim();
        match self {
            MmluScoring::Letters => {
                let choices = LETTERS.iter().zip(&item.choices);
                let lines: Vec<String> = choices
                    .map(|(letter, choice)| format!("{letter}. {choice}\n"))
                    .collect();
                format!("{question}\n{}Answer:", lines.concat())
            }
            MmluScoring::Choices => format!("Question: {question}\nAnswer:"),
        }
    }

    /// The continuation for choice `i`, and what its log-likelihood is divided by.
    fn continuation(self, item: &MmluItem, i: usize) -> (String, f64) {
        match self {
            MmluScoring::Letters => (format!(" {}", LETTERS[i]), 1.0),
            MmluScoring::Choices => (format!(" {}", item.choices[i]), item.choices[i].len() as f64),
        }
    }
}

/// Weighs four continuations after every question, under every adapter; one list of records per adapter.
pub(super) fn run(questions: &[Question], asking: Asking<'_>) -> Result<Vec<Vec<ItemRecord>>, Error> {
    let benchmark = Benchmark::Mmlu;
    let mut requests = Vec::new();
    for adapter in asking.adapters {
        requests.extend(questions.iter().map(|question| ScoreRequest {
            adapter: adapter.map(str::to_owned),
            prompt: Prompt::Text(question.prompt.clone()),
            continuations: question.continuations.iter().map(|(text, _)| text.clone()).collect(),
        }));
    }
    let scores = asking
        .generator
        .score(&requests, asking.progress)
        .map_err(|source| Error::Generator { benchmark, source })?;
    expect(benchmark, "lists of scores", requests.len(), scores.len())?;
    let records = questions
        .iter()
        .cycle()
        .zip(&scores)
        .map(|(question, scores)| record(question, scores))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(per_adapter(records, questions.len()))
}

fn record(question: &Question, scores: &[ContinuationScore]) -> Result<ItemRecord, Error> {
    let log_likelihoods: Vec<f64> = scores.iter().map(|s| s.log_likelihood).collect();
    if log_likelihoods.len() != LETTERS.len() || log_likelihoods.iter().any(|l| !l.is_finite()) {
        return Err(Error::Answers {
            benchmark: Benchmark::Mmlu,
            expected: format!("4 finite log-likelihoods for {}", question.id),
            got: format!("{log_likelihoods:?}"),
        });
    }
    let weights: Vec<f64> = log_likelihoods
        .iter()
        .zip(&question.continuations)
        .map(|(l, (_, length))| l / length)
        .collect();
    // The first of equals, so that ties do not depend on the order of evaluation.
    let best = (1..weights.len()).fold(0, |best, i| if weights[i] > weights[best] { i } else { best });
    Ok(ItemRecord {
        benchmark: Benchmark::Mmlu,
        id: question.id.clone(),
        prompt: Prompt::Text(question.prompt.clone()),
        answer: LETTERS[best].to_owned(),
        reference: LETTERS[question.item.answer].to_owned(),
        score: flag(best == question.item.answer),
        refused: None,
        valid: None,
        finish: None,
        log_likelihoods,
        metrics: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sst_data::Subject;

    fn item(question: &str, answer: usize) -> MmluItem {
        MmluItem {
            question: question.to_owned(),
            choices: ["two", "four", "six", "eight"].map(str::to_owned),
            answer,
        }
    }

    fn mmlu() -> Mmlu {
        let subject = Subject {
            dev: vec![item("Legs of a cat?", 1)],
            test: vec![item(" Legs of a spider? ", 3), item("Legs of a bee?", 2)],
        };
        Mmlu {
            subjects: BTreeMap::from([("animal_legs".to_owned(), subject)]),
        }
    }

    #[derive(Deserialize)]
    struct Golden {
        subject: String,
        dev: Vec<GoldenItem>,
        test: Vec<GoldenItem>,
        cases: Vec<GoldenCase>,
    }

    #[derive(Deserialize)]
    struct GoldenItem {
        question: String,
        choices: [String; 4],
        answer: usize,
    }

    #[derive(Deserialize)]
    struct GoldenCase {
        shots: usize,
        item: usize,
        context: String,
        continuations: Vec<String>,
    }

    #[test]
    fn the_prompt_is_that_of_lm_evaluation_harness() {
        let golden: Golden = serde_json::from_str(include_str!("../../../../fixtures/eval/mmlu.json")).unwrap();
        let items = |items: Vec<GoldenItem>| -> Vec<MmluItem> {
            let item = |i: GoldenItem| MmluItem {
                question: i.question,
                choices: i.choices,
                answer: i.answer,
            };
            items.into_iter().map(item).collect()
        };
        let subject = Subject {
            dev: items(golden.dev),
            test: items(golden.test),
        };
        let mmlu = Mmlu {
            subjects: BTreeMap::from([(golden.subject, subject)]),
        };
        assert_eq!(golden.cases.len(), 6);
        for case in golden.cases {
            let question = &questions(&mmlu, case.shots, MmluScoring::Letters).unwrap()[case.item];
            assert_eq!(question.prompt, case.context);
            let continuations: Vec<&str> = question.continuations.iter().map(|(text, _)| text.as_str()).collect();
            assert_eq!(continuations, case.continuations);
        }
    }

    #[test]
    fn choices_are_weighed_per_byte() {
        let question = &questions(&mmlu(), 1, MmluScoring::Choices).unwrap()[0];
        let expected = "The following are questions (with answers) about animal legs.\n\n\
            Question: Legs of a cat?\nAnswer: four\n\nQuestion: Legs of a spider?\nAnswer:";
        assert_eq!(question.prompt, expected);
        assert_eq!(question.continuations[3], (" eight".to_owned(), 5.0));
        // -3 / 3, -4.4 / 4, -3.3 / 3, -4.5 / 5: the longest is the most likely per byte.
        let scores = [-3.0, -4.4, -3.3, -4.5].map(|log_likelihood| ContinuationScore {
            log_likelihood,
            tokens: 1,
        });
        let right = record(question, &scores).unwrap();
        assert_eq!((right.answer.as_str(), right.score), ("D", 1.0));
    }

    #[test]
    fn too_few_worked_examples_name_the_subject() {
        let message = questions(&mmlu(), 5, MmluScoring::Letters).unwrap_err().to_string();
        assert!(
            message.contains("5 shots") && message.contains("`animal_legs` has 1"),
            "{message}"
        );
    }

    #[test]
    fn a_likelihood_that_is_no_number_is_an_error() {
        let question = &questions(&mmlu(), 0, MmluScoring::Letters).unwrap()[0];
        let scores = |values: &[f64]| -> Vec<ContinuationScore> {
            let score = |&log_likelihood| ContinuationScore {
                log_likelihood,
                tokens: 1,
            };
            values.iter().map(score).collect()
        };
        assert!(record(question, &scores(&[-1.0, -2.0, -3.0, f64::NAN])).is_err());
        assert!(record(question, &scores(&[-1.0, -2.0, -3.0])).is_err());
        let right = record(question, &scores(&[-4.0, -2.0, -3.0, -1.0])).unwrap();
        assert_eq!((right.answer.as_str(), right.score), ("D", 1.0));
        let tie = record(question, &scores(&[-1.0; 4])).unwrap();
        assert_eq!((tie.answer.as_str(), tie.score), ("A", 0.0));
    }
}
