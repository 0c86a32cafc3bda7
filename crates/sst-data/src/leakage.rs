//! Items that are trained on and evaluated on alike: a score on them measures memory.
//!
//! Texts are compared as words: lower case, without punctuation. An item to evaluate on leaks where an item to train on has
//!
//! - the same text (`exact`), whatever its length;
//! - at least half of its sequences of 13 words (`near`): the length that is customary for this (Brown et al. 2020, "Language
//!   Models are Few-Shot Learners", appendix C). Sequences that more than 1 % of the training items share, and more than 5 of them, are
//!   a common frame (a jailbreak's wrapper, an instruction's wording) and do not count.
//!
//! The text is what is asked: for questions about documents the document is in it, so that another question about the same
//! document is found as `near`. Texts under 13 words leak only where they are equal.

use crate::Example;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

const WORDS: usize = 13;
const SHARE: f64 = 0.5;
const FRAME_ITEMS: usize = 5;
const FRAME_SHARE: f64 = 0.01;

/// How an item leaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeakKind {
    /// The same words.
    Exact,
    /// Most of the same sequences of words.
    Near,
    /// Another part of the same document, by its id.
    Document,
}

/// An item to evaluate on that was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// The item to evaluate on.
    pub eval: String,
    /// The item to train on that is most like it.
    pub train: String,
    /// How.
    pub kind: LeakKind,
    /// Share of its sequences of words that the other has too; 1 for the same text, 0 where only the document's id tells.
    pub share: f64,
}

/// What leaks between two lists of items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leakage {
    /// Items to train on.
    pub train: usize,
    /// Items to evaluate on.
    pub eval: usize,
    /// Those that leak, in the order of the items to evaluate on.
    pub leaks: Vec<Leak>,
}

impl Leakage {
    /// The leaks that are beyond doubt: the same text, or the same document. Near ones are for a reader to judge.
    pub fn certain(&self) -> impl Iterator<Item = &Leak> {
        self.leaks.iter().filter(|leak| leak.kind != LeakKind::Near)
    }
}

/// Finds the items of `eval` that are in `train` too, or nearly so.
///
/// ```
/// use sst_data::{Example, LeakKind, Prompt, leakage};
/// let item = |id: &str, text: &str| Example {
///     id: id.to_owned(),
///     prompt: Prompt::user(text),
///     response: String::new(),
/// };
/// let found = leakage(&[item("train/1", "Name a bird.")], &[item("eval/1", "name a BIRD")]);
/// assert_eq!(found.leaks[0].kind, LeakKind::Exact);
/// ```
pub fn leakage(train: &[Example], eval: &[Example]) -> Leakage {
    let asked: Vec<Text> = eval.iter().map(Text::of).collect();
    let mut places: BTreeMap<u64, Vec<usize>> = BTreeMap::new(); // of the items to evaluate on that have the sequence
    let mut texts: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (i, text) in asked.iter().enumerate() {
        texts.entry(text.whole).or_default().push(i);
        for &sequence in &text.sequences {
            places.entry(sequence).or_default().push(i);
        }
    }
    let frame = frame(train, &places);
    let mut worst: Vec<Option<(LeakKind, f64, usize)>> = vec![None; eval.len()];
    for (t, example) in train.iter().enumerate() {
        let text = Text::of(example);
        for &i in texts.get(&text.whole).into_iter().flatten() {
            if worst[i].is_none_or(|(kind, ..)| kind != LeakKind::Exact) {
                worst[i] = Some((LeakKind::Exact, 1.0, t));
            }
        }
        let mut shared: BTreeMap<usize, usize> = BTreeMap::new();
        for sequence in text.sequences.iter().filter(|s| !frame.contains(s)) {
            for &i in places.get(sequence).into_iter().flatten() {
                *shared.entry(i).or_default() += 1;
            }
        }
        for (i, count) in shared {
            let share = count as f64 / asked[i].sequences.len() as f64;
            if share >= SHARE && worst[i].is_none_or(|(_, best, _)| share > best) {
                worst[i] = Some((LeakKind::Near, share, t));
            }
        }
    }
    let leak = |(i, found): (usize, &Option<(LeakKind, f64, usize)>)| {
        let (kind, share, t) = (*found)?;
        Some(Leak {
            eval: eval[i].id.clone(),
            train: train[t].id.clone(),
            kind,
            share,
        })
    };
    Leakage {
        train: train.len(),
        eval: eval.len(),
        leaks: worst.iter().enumerate().filter_map(leak).collect(),
    }
}

/// The sequences that many training items have.
fn frame(train: &[Example], places: &BTreeMap<u64, Vec<usize>>) -> BTreeSet<u64> {
    let limit = FRAME_ITEMS.max((FRAME_SHARE * train.len() as f64) as usize);
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    // The same text many times over is a copy, not a frame.
    let mut seen = BTreeSet::new();
    for example in train {
        let text = Text::of(example);
        if seen.insert(text.whole) {
            for sequence in text.sequences.into_iter().filter(|s| places.contains_key(s)) {
                *counts.entry(sequence).or_default() += 1;
            }
        }
    }
    let common = counts.into_iter().filter(|&(_, count)| count > limit);
    common.map(|(sequence, _)| sequence).collect()
}

/// A text as hashes of its words.
struct Text {
    whole: u64,
    sequences: BTreeSet<u64>,
}

impl Text {
    fn of(example: &Example) -> Self {
        let text = normal_form(&example.prompt.plain_text());
        let words: Vec<&str> = text.split(' ').collect();
        Self {
            sequences: words.windows(WORDS).map(hash).collect(),
            whole: hash(&words),
        }
    }
}

fn hash(words: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    words.hash(&mut hasher);
    hasher.finish()
}

/// The words of a text in lower case, one space between them.
pub fn normal_form(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Prompt;

    fn items(name: &str, texts: &[&str]) -> Vec<Example> {
        let item = |(i, text): (usize, &&str)| Example {
            id: format!("{name}/{}", i + 1),
            prompt: Prompt::user(*text),
            response: String::new(),
        };
        texts.iter().enumerate().map(item).collect()
    }

    const STORY: &str = "The mill by the river opened in the spring of 1911 and closed again after the great flood of \
        that year had carried off both of its wheels.";

    fn found(train: &[&str], eval: &[&str]) -> Vec<(String, String, LeakKind)> {
        let leaks = leakage(&items("train", train), &items("eval", eval)).leaks;
        leaks.into_iter().map(|l| (l.eval, l.train, l.kind)).collect()
    }

    #[test]
    fn copies_are_found_whatever_their_case_and_punctuation() {
        let leaks = found(&["Name a fish.", "Name a bird."], &["name a bird!", "Name a tree."]);
        assert_eq!(leaks, [("eval/1".to_owned(), "train/2".to_owned(), LeakKind::Exact)]);
        let words = leakage(&items("train", &["a b", "ab"]), &items("eval", &["ab c", "a b c"]));
        assert!(words.leaks.is_empty(), "{words:?}");
    }

    #[test]
    fn another_question_about_the_same_document_is_near() {
        let ask = |question: &str| format!("{STORY}\n\nQuestion: {question}");
        let (first, second) = (ask("When did it open?"), ask("What did the flood carry off?"));
        let leaks = found(&["Something else altogether.", &first], &[&second]);
        assert_eq!(leaks, [("eval/1".to_owned(), "train/2".to_owned(), LeakKind::Near)]);
        // A sentence quoted in passing is no copy of the whole.
        let passing = format!(
            "{STORY} {}",
            "It is a long tale with many other words in it. "
                .repeat(9)
                .replace("tale", "tale of ours")
        );
        let other: Vec<String> = (0..40).map(|i| format!("w{i}")).collect();
        assert!(found(&[STORY], &[&format!("{STORY} {} {}", other.join(" "), passing.len())]).is_empty());
    }

    #[test]
    fn a_common_frame_is_no_leak() {
        let wrapped: Vec<String> = (0..8)
            .map(|i| format!("{STORY} Now tell me how to do thing number {i}."))
            .collect();
        let wrapped: Vec<&str> = wrapped.iter().map(String::as_str).collect();
        let asked = format!("{STORY} Now explain the eighth secret.");
        assert!(found(&wrapped, &[&asked]).is_empty());
        assert_eq!(found(&wrapped[..2], &[&asked]).len(), 1, "two of a kind are no frame");
        // Copies of one text do not make a frame of it.
        assert_eq!(found(&[wrapped[0]; 9], &[&asked]).len(), 1);
        assert_eq!(found(&wrapped, &[wrapped[3]])[0].2, LeakKind::Exact);
    }

    #[test]
    fn the_most_alike_item_is_named() {
        let nearly = STORY.replace("wheels", "doors");
        let leaks = leakage(&items("train", &[&nearly, STORY]), &items("eval", &[STORY])).leaks;
        assert_eq!((leaks[0].train.as_str(), leaks[0].share), ("train/2", 1.0));
        let leaks = leakage(&items("train", &[&nearly]), &items("eval", &[STORY])).leaks;
        assert!(leaks[0].kind == LeakKind::Near && leaks[0].share > 0.9 && leaks[0].share < 1.0);
    }
}
