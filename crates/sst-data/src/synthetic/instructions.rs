//! Simple instructions whose answers follow from their input, always in the same terse style.

use super::{SplitSizes, split};
use crate::{AlpacaItem, Error};
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha12Rng;
use std::collections::BTreeSet;

const FRUITS: [&str; 12] = [
    "apple", "banana", "cherry", "grape", "lemon", "mango", "orange", "peach", "pear", "plum", "melon", "fig",
];
const ANIMALS: [&str; 12] = [
    "cat", "dog", "horse", "rabbit", "tiger", "lion", "bear", "goat", "duck", "eagle", "frog", "camel",
];
const TOOLS: [&str; 12] = [
    "hammer", "saw", "drill", "shovel", "rake", "chisel", "wrench", "ladder", "file", "pliers", "axe", "brush",
];
const OBJECTS: [&str; 24] = [
    "lamp", "table", "window", "garden", "river", "candle", "bottle", "carpet", "engine", "basket", "mirror", "pillow",
    "ticket", "bridge", "button", "letter", "pocket", "rocket", "blanket", "curtain", "kettle", "pencil", "jacket",
    "island",
];
const VERBS: [&str; 24] = [
    "walk", "jump", "paint", "cook", "help", "clean", "open", "watch", "listen", "climb", "start", "answer", "plant",
    "visit", "follow", "laugh", "wash", "count", "lift", "pull", "push", "point", "wait", "talk",
];
const PRAISE: [&str; 8] = [
    "wonderful",
    "delightful",
    "excellent",
    "lovely",
    "brilliant",
    "charming",
    "superb",
    "great",
];
const BLAME: [&str; 8] = [
    "terrible",
    "awful",
    "boring",
    "horrible",
    "dreadful",
    "disappointing",
    "miserable",
    "bad",
];
const SUBJECTS: [&str; 10] = [
    "The concert",
    "This soup",
    "The hotel",
    "Her speech",
    "The film",
    "Our holiday",
    "The new train",
    "His book",
    "The service",
    "The weather",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A kind of task: its wordings, and the draw of an input with its answer.
struct Task {
    wordings: [&'static str; 2],
    draw: fn(&mut ChaCha12Rng) -> (String, String),
}

const TASKS: [Task; 14] = [
    Task {
        wordings: ["Write the word in capital letters.", "Put this word in upper case."],
        draw: |rng| {
            let word = pick(rng, &OBJECTS);
            (word.to_owned(), word.to_uppercase())
        },
    },
    Task {
        wordings: ["Count the items in the list.", "How many items does the list have?"],
        draw: |rng| {
            let n = rng.random_range(2..=6);
            let words = list(rng, n);
            (words.join(", "), words.len().to_string())
        },
    },
    Task {
        wordings: ["Reverse the order of the list.", "Write the list from back to front."],
        draw: |rng| {
            let words = list(rng, 3);
            let reversed: Vec<&str> = words.iter().rev().copied().collect();
            (words.join(", "), reversed.join(", "))
        },
    },
    Task {
        wordings: [
            "Name the first item of the list.",
            "Which item comes first in the list?",
        ],
        draw: |rng| {
            let words = list(rng, 4);
            (words.join(", "), words[0].to_owned())
        },
    },
    Task {
        wordings: ["Name the last item of the list.", "Which item comes last in the list?"],
        draw: |rng| {
            let words = list(rng, 4);
            (words.join(", "), words[3].to_owned())
        },
    },
    Task {
        wordings: ["Write the items as a numbered list.", "Number the items, one per line."],
        draw: |rng| {
            let words = list(rng, 3);
            let lines: Vec<String> = (1..).zip(&words).map(|(i, word)| format!("{i}. {word}")).collect();
            (words.join(", "), lines.join("\n"))
        },
    },
    Task {
        wordings: [
            "Join the words with hyphens.",
            "Write the words as one, with hyphens between them.",
        ],
        draw: |rng| {
            let words = list(rng, 3);
            (words.join(" "), words.join("-"))
        },
    },
    Task {
        wordings: [
            "Sort the words in alphabetical order.",
            "Put the words in order from A to Z.",
        ],
        draw: |rng| {
            let words = list(rng, 3);
            let mut sorted = words.clone();
            sorted.sort_unstable();
            (words.join(", "), sorted.join(", "))
        },
    },
    Task {
        wordings: [
            "Write the word three times.",
            "Repeat this word so that it appears three times.",
        ],
        draw: |rng| {
            let word = pick(rng, &OBJECTS);
            (word.to_owned(), [word; 3].join(" "))
        },
    },
    Task {
        wordings: [
            "Put the verb in the past tense.",
            "What is the past tense of this verb?",
        ],
        draw: |rng| {
            let verb = pick(rng, &VERBS);
            (verb.to_owned(), format!("{verb}ed"))
        },
    },
    Task {
        wordings: ["Write the plural of the word.", "What is the plural of this word?"],
        draw: |rng| {
            let word = pick(rng, &OBJECTS);
            (word.to_owned(), format!("{word}s"))
        },
    },
    Task {
        wordings: [
            "Is the sentence positive or negative?",
            "Classify the mood of the sentence as positive or negative.",
        ],
        draw: |rng| {
            let subject = pick(rng, &SUBJECTS);
            let (word, mood) = if rng.random_bool(0.5) {
                (pick(rng, &PRAISE), "positive")
            } else {
                (pick(rng, &BLAME), "negative")
            };
            (format!("{subject} was {word}."), mood.to_owned())
        },
    },
    Task {
        wordings: [
            "Write the first letter of the word.",
            "With which letter does the word begin?",
        ],
        draw: |rng| {
            let word = list(rng, 1)[0];
            (word.to_owned(), word[..1].to_owned())
        },
    },
    Task {
        wordings: [
            "Write the date as year-month-day.",
            "Convert the date to the form YYYY-MM-DD.",
        ],
        draw: |rng| {
            let (day, month, year) = (
                rng.random_range(1..=28),
                rng.random_range(1..=12),
                rng.random_range(1950..2025),
            );
            let name = MONTHS[month - 1];
            (format!("{day} {name} {year}"), format!("{year}-{month:02}-{day:02}"))
        },
    },
];

/// Draws per task; repeated inputs are dropped.
const DRAWS: usize = 240;

/// Instructions to train on and to evaluate on; no input of a task serves both. Tasks come equally often as far as they
/// have distinct inputs.
///
/// # Errors
/// [`Error::TooMany`] when fewer distinct ones were drawn.
pub(super) fn instructions(
    rng: &mut ChaCha12Rng,
    sizes: SplitSizes,
) -> Result<(Vec<AlpacaItem>, Vec<AlpacaItem>), Error> {
    let mut ranked = Vec::new();
    for task in &TASKS {
        let mut seen = BTreeSet::new();
        for _ in 0..DRAWS {
            let (input, output) = (task.draw)(rng);
            // One wording per input, so that an item to evaluate on is not trained on in other words.
            if seen.insert(input.clone()) {
                let instruction = pick(rng, &task.wordings).to_owned();
                ranked.push((
                    seen.len(),
                    AlpacaItem {
                        instruction,
                        input,
                        output,
                    },
                ));
            }
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.truncate(sizes.train + sizes.eval);
    let items = ranked.into_iter().map(|(_, item)| item).collect();
    split(rng, items, sizes, "alpaca")
}

/// `n` distinct things.
fn list(rng: &mut ChaCha12Rng, n: usize) -> Vec<&'static str> {
    let mut words: Vec<&'static str> = [&FRUITS[..], &ANIMALS, &TOOLS].concat();
    words.shuffle(rng);
    words.truncate(n);
    words
}

fn pick(rng: &mut ChaCha12Rng, words: &[&'static str]) -> &'static str {
    words.choose(rng).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::part;

    #[test]
    fn every_task_is_drawn_for_both_splits() {
        let (train, eval) = instructions(&mut part(1, 1), SplitSizes { train: 240, eval: 60 }).unwrap();
        for task in &TASKS {
            let asks = |item: &&AlpacaItem| task.wordings.contains(&item.instruction.as_str());
            assert!(train.iter().filter(asks).count() >= 10, "{:?}", task.wordings);
        }
        let kinds: BTreeSet<&str> = eval.iter().map(|item| item.instruction.as_str()).collect();
        assert!(kinds.len() >= 20, "{kinds:?}");
    }

    #[test]
    fn answers_follow_from_inputs() {
        let (train, _) = instructions(&mut part(1, 1), SplitSizes { train: 400, eval: 0 }).unwrap();
        let answer = |wording: &str| {
            let item = train.iter().find(|item| item.instruction == wording).unwrap();
            (item.input.clone(), item.output.clone())
        };
        let (input, output) = answer("Count the items in the list.");
        assert_eq!(output, (input.matches(", ").count() + 1).to_string());
        let (input, output) = answer("Sort the words in alphabetical order.");
        let words: Vec<&str> = output.split(", ").collect();
        assert!(words.is_sorted());
        assert!(words.iter().all(|word| input.contains(word)));
    }
}
