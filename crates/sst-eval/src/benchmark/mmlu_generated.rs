//! Multiple choice by the letter that a model writes, as the study asked it.
//!
//! The first letter A to D that stands alone in the answer is taken: `B`, `(B)`, `**B.** ...`, `The answer is B`. A small letter
//! counts where it is marked as a choice (`b)`, `b.`) or is the whole answer; `A` before a word is the article. An
//! answer without one is wrong, and the metric `parsed` says how many have one. The accuracy of a model that talks is
//! not comparable with the likelihood protocol's.

use super::answers::{Asking, Scored, ask, flag};
use super::mmlu::{LETTERS, Question};
use super::{Benchmark, ItemRecord};
use crate::{Error, PromptFormat};
use regex::Regex;
use sst_data::{Example, MmluItem, Prompt};
use std::sync::LazyLock;

/// A letter that stands alone; the groups tell how.
static LETTER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:^|[^A-Za-z0-9'’])(?:(?P<capital>[B-D])|(?P<article>A)|(?P<small>[a-d]))(?P<after>[^A-Za-z0-9'’]|$)")
        .expect("the pattern is a constant")
});

/// Index of the choice that an answer names, if it names one.
fn parse(answer: &str) -> Option<usize> {
    let answer = answer.trim();
    let mut from = 0;
    while let Some(found) = LETTER.captures_at(answer, from) {
        let rest = &answer[found.get(0)?.end()..];
        let marked = matches!(&found["after"], ")" | "." | ":" | "" | "*");
        let (letter, counts) = match (found.name("capital"), found.name("article"), found.name("small")) {
            (Some(capital), ..) => (capital, true),
            (_, Some(article), _) => {
                let before_word = &found["after"] == " " && rest.starts_with(|c: char| c.is_ascii_lowercase());
                (article, !before_word)
            }
            (.., Some(small)) => (small, marked && (&found["after"] != "" || answer.len() == 1)),
            _ => return None,
        };
        if counts {
            let letter = letter.as_str().to_ascii_uppercase();
            return LETTERS.iter().position(|known| *known == letter);
        }
        from = letter.end();
    }
    None
}

/// Asks every adapter every question for a letter.
pub(super) fn run(questions: &[Question], asking: Asking<'_>) -> Result<Vec<Vec<ItemRecord>>, Error> {
    let format = asking.format;
    let items: Vec<Example> = questions
        .iter()
        .map(|question| Example {
            id: question.id.clone(),
            prompt: prompt(question, format),
            response: LETTERS[question.item.answer].to_owned(),
        })
        .collect();
    // The worked examples are part of the layout, so it is already applied.
    let asking = Asking {
        format: PromptFormat::Chat,
        ..asking
    };
    ask(Benchmark::MmluGenerated, &items, asking, |item, answer| {
        let letter = parse(answer.text).map(|i| LETTERS[i]);
        Scored {
            score: flag(letter == Some(item.response.as_str())),
            metrics: vec![("parsed", flag(letter.is_some()))],
        }
    })
}

/// The worked examples and the question in the protocol's layout.
fn prompt(question: &Question, format: PromptFormat) -> Prompt {
    let blocks = question.examples.iter().map(|item| (item, Some(LETTERS[item.answer])));
    let blocks: Vec<String> = blocks
        .chain([(&question.item, None)])
        .map(|(item, answer)| match format {
            PromptFormat::Chat => {
                let answer = answer.map_or(String::new(), |letter| format!("\nAnswer: {letter}"));
                format!("{}{answer}", listed(item))
            }
            PromptFormat::QuestionAnswer => {
                let answer = answer.map_or(String::new(), |letter| format!(" {letter}"));
                format!("### Question: {}\n\n### Answer:{answer}", listed(item))
            }
        })
        .collect();
    let text = blocks.join("\n\n");
    match format {
        PromptFormat::Chat => Prompt::user(format!("{text}\n\nReply with the letter of the right choice only.")),
        PromptFormat::QuestionAnswer => Prompt::Text(text),
    }
}

fn listed(item: &MmluItem) -> String {
    let choices = LETTERS.iter().zip(&item.choices);
    let lines: Vec<String> = choices
        .map(|(letter, choice)| format!("\n{letter}. {choice}"))
        .collect();
    format!("{}{}", item.question.trim(), lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MmluScoring;
    use crate::benchmark::mmlu::questions;
    use sst_data::{Mmlu, Subject};
    use std::collections::BTreeMap;

    #[test]
    fn a_letter_that_stands_alone_is_the_answer() {
        for (answer, expected) in [
            ("B", Some(1)),
            (" (C) because it floats.", Some(2)),
            ("**D.** Eight", Some(3)),
            ("The answer is A.", Some(0)),
            ("A. Two legs", Some(0)),
            ("A", Some(0)),
            ("Answer: C\nAnswer: D", Some(2)),
            ("A bee has six legs, so C", Some(2)),
            ("a bee has six legs: c) six", Some(2)),
            ("b", Some(1)),
            ("I'd say B", Some(1)),
            ("Six legs.", None),
            ("", None),
            ("ABCD", None),
            ("a bee", None),
        ] {
            assert_eq!(parse(answer), expected, "{answer}");
        }
    }

    #[test]
    fn worked_examples_come_in_the_layout_of_the_question() {
        let item = |question: &str, answer| MmluItem {
            question: question.to_owned(),
            choices: ["two", "four", "six", "eight"].map(str::to_owned),
            answer,
        };
        let subject = Subject {
            dev: vec![item("Legs of a cat?", 1)],
            test: vec![item(" Legs of a bee? ", 2)],
        };
        let mmlu = Mmlu {
            subjects: BTreeMap::from([("legs".to_owned(), subject)]),
        };
        let question = &questions(&mmlu, 1, MmluScoring::Letters).unwrap()[0];
        let expected = "### Question: Legs of a cat?\nA. two\nB. four\nC. six\nD. eight\n\n### Answer: B\n\n\
            ### Question: Legs of a bee?\nA. two\nB. four\nC. six\nD. eight\n\n### Answer:";
        assert_eq!(
            prompt(question, PromptFormat::QuestionAnswer),
            Prompt::Text(expected.to_owned())
        );
        let chat = prompt(question, PromptFormat::Chat).plain_text();
        assert!(chat.contains("D. eight\nAnswer: B\n\nLegs of a bee?\nA. two"), "{chat}");
        assert!(
            chat.ends_with("D. eight\n\nReply with the letter of the right choice only."),
            "{chat}"
        );
    }
}
