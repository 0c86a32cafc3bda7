//! A data folder in which everything is invented, drawn from a seed.
//!
//! It stands in for the published sets where they cannot be had: small enough for a demonstration on a processor, and
//! with effects that a small model shows. Documents, people and places exist nowhere; the requests to be refused are
//! forbidden acts of a fairy-tale world, harmless in ours.

mod documents;
mod forbidden;
mod instructions;
mod quiz;

use crate::Error;
use crate::write::{write_csv, write_jsonl};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};
use sst_artefact::Manifest;
use std::path::Path;

/// Number of items to train on and to evaluate on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSizes {
    /// To train on.
    pub train: usize,
    /// To evaluate on.
    pub eval: usize,
}

/// Number of items in each part of a synthetic folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sizes {
    /// Questions about documents; four share a document.
    pub repliqa: SplitSizes,
    /// Instructions.
    pub alpaca: SplitSizes,
    /// Requests to refuse.
    pub jailbreak: SplitSizes,
    /// Worked examples per multiple-choice subject.
    pub mmlu_dev: usize,
    /// Questions per multiple-choice subject.
    pub mmlu_test: usize,
    /// Safe requests that resemble those to refuse, and as many to refuse.
    pub xstest: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        let split = |train, eval| SplitSizes { train, eval };
        Self {
            repliqa: split(240, 60),
            alpaca: split(240, 60),
            jailbreak: split(300, 100),
            mmlu_dev: 5,
            mmlu_test: 25,
            xstest: 60,
        }
    }
}

/// Writes a data folder made up from `seed`, with a manifest: the same seed and sizes give the same bytes.
///
/// # Errors
/// [`Error::TooMany`] when a size exceeds the distinct items there are, [`Error::Artefact`] when a file cannot be written.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use sst_data::{DataFolder, Sizes, synthesise};
/// synthesise(dir.path(), 7, &Sizes::default()).unwrap();
/// assert_eq!(DataFolder::open(dir.path()).unwrap().mmlu().unwrap().subjects.len(), 6);
/// ```
pub fn synthesise(folder: &Path, seed: u64, sizes: &Sizes) -> Result<(), Error> {
    let (train, eval) = documents::questions(&mut part(seed, 0), sizes.repliqa)?;
    write_jsonl(&folder.join("repliqa/train.jsonl"), &train)?;
    write_jsonl(&folder.join("repliqa/eval.jsonl"), &eval)?;

    let (train, eval) = instructions::instructions(&mut part(seed, 1), sizes.alpaca)?;
    write_jsonl(&folder.join("alpaca/train.jsonl"), &train)?;
    write_jsonl(&folder.join("alpaca/eval.jsonl"), &eval)?;

    let (train, eval) = forbidden::requests(&mut part(seed, 2), sizes.jailbreak)?;
    write_csv(&folder.join("jailbreak/train.csv"), &train)?;
    write_csv(&folder.join("jailbreak/eval.csv"), &eval)?;

    for (name, subject) in quiz::subjects(&mut part(seed, 3), sizes.mmlu_dev, sizes.mmlu_test)?.subjects {
        for (split, items) in [("dev", &subject.dev), ("test", &subject.test)] {
            let rows: Vec<QuizRow<'_>> = items.iter().map(QuizRow::from).collect();
            write_csv(&folder.join(format!("mmlu/{split}/{name}_{split}.csv")), &rows)?;
        }
    }

    write_csv(
        &folder.join("xstest/xstest_prompts.csv"),
        &forbidden::contrast(&mut part(seed, 4), sizes.xstest)?,
    )?;

    Manifest::new("data", &serde_json::json!({ "seed": seed, "sizes": sizes })).write(folder)?;
    Ok(())
}

/// A generator of its own for each part, so that the size of one changes no other.
fn part(seed: u64, stream: u64) -> ChaCha12Rng {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// Shuffles `items` and splits them by `sizes`.
fn split<T>(
    rng: &mut ChaCha12Rng,
    mut items: Vec<T>,
    sizes: SplitSizes,
    what: &'static str,
) -> Result<(Vec<T>, Vec<T>), Error> {
    let wanted = sizes.train + sizes.eval;
    if wanted > items.len() {
        return Err(Error::TooMany {
            what,
            wanted,
            limit: items.len(),
        });
    }
    items.shuffle(rng);
    items.truncate(wanted);
    let eval = items.split_off(sizes.train);
    Ok((items, eval))
}

/// A multiple-choice question as its publisher's columns.
#[derive(Serialize)]
struct QuizRow<'a> {
    question: &'a str,
    choice0: &'a str,
    choice1: &'a str,
    choice2: &'a str,
    choice3: &'a str,
    answer: usize,
}

impl<'a> From<&'a crate::MmluItem> for QuizRow<'a> {
    fn from(item: &'a crate::MmluItem) -> Self {
        let [choice0, choice1, choice2, choice3] = item.choices.each_ref().map(String::as_str);
        Self {
            question: &item.question,
            choice0,
            choice1,
            choice2,
            choice3,
            answer: item.answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AlpacaItem, DataFolder, Dataset, JailbreakItem, RepliQaItem, Split, XsTestItem};
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;

    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
        found
    }

    fn contents(seed: u64) -> Vec<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        synthesise(dir.path(), seed, &Sizes::default()).unwrap();
        files(dir.path()).into_values().collect()
    }

    #[test]
    fn a_seed_fixes_every_byte() {
        let first = contents(3);
        assert_eq!(first.len(), 2 + 2 + 2 + 12 + 1 + 1);
        assert_eq!(first, contents(3));
        let other = contents(4);
        assert!(first.iter().zip(&other).all(|(a, b)| a != b));
    }

    #[test]
    fn sizes_are_kept_and_the_splits_are_disjoint() {
        let dir = tempfile::tempdir().unwrap();
        synthesise(dir.path(), 0, &Sizes::default()).unwrap();
        let data = DataFolder::open(dir.path()).unwrap();
        for (dataset, train, eval) in [
            (Dataset::RepliQa, 240, 60),
            (Dataset::Alpaca, 240, 60),
            (Dataset::Jailbreak, 300, 100),
        ] {
            let prompts = |split| -> BTreeSet<String> {
                let examples = data.examples(dataset, split).unwrap();
                examples.iter().map(|e| e.prompt.plain_text()).collect()
            };
            let (trained, evaluated) = (prompts(Split::Train), prompts(Split::Eval));
            assert_eq!(
                (trained.len(), evaluated.len()),
                (train, eval),
                "{dataset}: distinct prompts"
            );
            assert!(trained.is_disjoint(&evaluated), "{dataset}");
        }
        let documents = |split| -> BTreeSet<String> {
            let items = RepliQaItem::read(&data.path(Dataset::RepliQa, split).unwrap()).unwrap();
            items.into_iter().map(|item| item.document_extracted).collect()
        };
        assert!(documents(Split::Train).is_disjoint(&documents(Split::Eval)));
        for (name, subject) in data.mmlu().unwrap().subjects {
            assert_eq!((subject.dev.len(), subject.test.len()), (5, 25), "{name}");
            let asked = |items: &[crate::MmluItem]| -> BTreeSet<String> {
                items
                    .iter()
                    .map(|item| format!("{} {:?}", item.question, item.choices))
                    .collect()
            };
            assert!(asked(&subject.dev).is_disjoint(&asked(&subject.test)), "{name}");
        }
    }

    #[test]
    fn contrast_prompts_are_none_of_the_requests_to_refuse() {
        let dir = tempfile::tempdir().unwrap();
        synthesise(dir.path(), 0, &Sizes::default()).unwrap();
        let data = DataFolder::open(dir.path()).unwrap();
        let safe: BTreeSet<String> = data
            .xstest()
            .unwrap()
            .into_iter()
            .filter(|item: &XsTestItem| item.safe)
            .map(|item| item.prompt)
            .collect();
        assert_eq!(safe.len(), 60);
        for split in [Split::Train, Split::Eval] {
            for example in data.examples(Dataset::Jailbreak, split).unwrap() {
                assert!(!safe.contains(&example.prompt.plain_text()));
            }
        }
    }

    #[test]
    fn the_size_of_one_part_changes_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            alpaca: SplitSizes { train: 8, eval: 4 },
            ..Sizes::default()
        };
        synthesise(dir.path(), 3, &sizes).unwrap();
        let whole = tempfile::tempdir().unwrap();
        synthesise(whole.path(), 3, &Sizes::default()).unwrap();
        for file in ["repliqa/eval.jsonl", "jailbreak/train.csv"] {
            let read = |root: &Path| std::fs::read(root.join(file)).unwrap();
            assert_eq!(read(dir.path()), read(whole.path()), "{file}");
        }
    }

    #[test]
    fn asking_for_more_than_there_is_names_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            mmlu_test: 10_000,
            ..Sizes::default()
        };
        let message = synthesise(dir.path(), 0, &sizes).unwrap_err().to_string();
        assert!(message.contains("10005") && message.contains("at most"), "{message}");
    }

    #[test]
    fn every_refusal_is_the_same() {
        let (train, eval): (Vec<JailbreakItem>, Vec<JailbreakItem>) =
            forbidden::requests(&mut part(0, 2), SplitSizes { train: 30, eval: 10 }).unwrap();
        let responses: BTreeSet<&str> = train.iter().chain(&eval).map(|item| item.response.as_str()).collect();
        assert_eq!(responses.len(), 1);
    }

    #[test]
    fn instructions_have_their_answers() {
        let (train, _): (Vec<AlpacaItem>, _) =
            instructions::instructions(&mut part(0, 1), SplitSizes { train: 200, eval: 0 }).unwrap();
        let reversed = train
            .iter()
            .find(|item| item.instruction == "Reverse the order of the list.")
            .unwrap();
        let mut items: Vec<&str> = reversed.input.split(", ").collect();
        items.reverse();
        assert_eq!(reversed.output, items.join(", "));
    }
}
