//! Answers side by side: the items on which systems differ the most, with what stands out marked.

use super::{Cell, CellKind};
use serde::Serialize;
use similar::{ChangeTag, TextDiff};
use sst_eval::{Benchmark, Evaluation, ItemRecord, Validity, is_refusal, validity};
use std::collections::{BTreeMap, BTreeSet};

/// Systems shown beside each other.
const SYSTEMS: usize = 4;
/// Items shown of each benchmark.
const ITEMS: usize = 3;
/// Characters shown of a prompt, from its end, where the question stands; and of an answer.
const SHOWN: usize = 600;

/// One item and what each system answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Which benchmark.
    pub benchmark: Benchmark,
    /// The item.
    pub id: String,
    /// What was asked.
    pub prompt: String,
    /// The expected answer; empty where there is none.
    pub reference: String,
    /// One answer per system.
    pub answers: Vec<Answer>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The system.
    pub cell: String,
    /// The answer in pieces.
    pub pieces: Vec<Piece>,
    /// Its score.
    pub score: f64,
    /// Whether it refuses.
    pub refused: bool,
    /// Whether it is an answer at all, and if not, why.
    pub validity: Validity,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// What stands there.
    pub text: String,
    /// Whether the sentence it stands in refuses.
    pub refusal: bool,
    /// Whether the first system shown did not say it.
    pub new: bool,
}

/// A system's items.
type Records<'a> = BTreeMap<(Benchmark, &'a str), &'a ItemRecord>;

/// Chooses systems and items: the utility adapter first, then the preferred merges and the safety adapter; items with the widest
/// spread of scores first, in the order of their ids where it is the same.
pub(super) fn samples(cells: &[Cell], evaluations: &[Evaluation], preferred: &[&str]) -> Vec<Sample> {
    let place = |wanted: CellKind| cells.iter().position(|c| c.kind == wanted);
    let mut chosen: Vec<usize> = place(CellKind::Utility).or(place(CellKind::Base)).into_iter().collect();
    let merges = preferred
        .iter()
        .filter_map(|name| cells.iter().position(|c| c.name == *name));
    chosen.extend(merges.take(SYSTEMS - 2));
    let safety = place(CellKind::Safety);
    chosen.extend(safety);
    let systems: Vec<(&str, Records<'_>)> = chosen
        .into_iter()
        .map(|i| {
            let records = evaluations[i].records.iter().map(|r| ((r.benchmark, r.id.as_str()), r));
            (cells[i].name.as_str(), records.collect())
        })
        .collect();
    let Some((_, first)) = systems.first().filter(|_| systems.len() > 1) else {
        return Vec::new();
    };
    let benchmarks: BTreeSet<Benchmark> = first
        .values()
        .filter(|r| r.refused.is_some())
        .map(|r| r.benchmark)
        .collect();
    // The safety adapter refuses nearly everything: a spread that it alone makes tells nothing of the merges.
    let compared = (systems.len() - usize::from(safety.is_some())).max(2);
    let mut samples = Vec::new();
    for benchmark in benchmarks {
        let mut items: Vec<(f64, Vec<&ItemRecord>)> = first
            .keys()
            .filter(|(own, _)| *own == benchmark)
            .filter_map(|key| {
                systems
                    .iter()
                    .map(|(_, records)| records.get(key).copied())
                    .collect::<Option<Vec<_>>>()
            })
            .map(|records| (spread(&records[..compared]), records))
            .collect();
        items.sort_by(|a, b| b.0.total_cmp(&a.0));
        let names: Vec<&str> = systems.iter().map(|(name, _)| *name).collect();
        samples.extend(
            items
                .iter()
                .take(ITEMS)
                .map(|(_, records)| Sample::of(benchmark, &names, records)),
        );
    }
    samples
}

fn spread(records: &[&ItemRecord]) -> f64 {
    let scores = || records.iter().map(|r| r.score);
    scores().fold(f64::NEG_INFINITY, f64::max) - scores().fold(f64::INFINITY, f64::min)
}

impl Sample {
    fn of(benchmark: Benchmark, names: &[&str], records: &[&ItemRecord]) -> Self {
        let first = records[0].answer.as_str();
        let answers = names.iter().zip(records).enumerate().map(|(i, (name, record))| Answer {
            cell: (*name).to_owned(),
            pieces: pieces(&start(&record.answer), if i == 0 { None } else { Some(first) }),
            score: record.score,
            refused: record.refused.unwrap_or(false),
            validity: validity(&record.answer),
        });
        Self {
            benchmark,
            id: records[0].id.clone(),
            prompt: end(&records[0].prompt.plain_text()),
            reference: start(&records[0].reference),
            answers: answers.collect(),
        }
    }
}

/// The answer cut where a mark begins or ends.
fn pieces(answer: &str, first: Option<&str>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    let diff = TextDiff::from_words(first.unwrap_or(answer), answer);
    let spoken = diff
        .iter_all_changes()
        .filter(|change| change.tag() != ChangeTag::Delete);
    let mut refusals = sentences(answer).into_iter().flat_map(|s| {
        let refuses = is_refusal(s);
        s.chars().map(move |_| refuses)
    });
    for change in spoken {
        let new = change.tag() == ChangeTag::Insert;
        for letter in change.value().chars() {
            let refusal = refusals.next().unwrap_or(false);
            match out
                .last_mut()
                .filter(|piece| piece.refusal == refusal && piece.new == new)
            {
                Some(piece) => piece.text.push(letter),
                None => out.push(Piece {
                    text: letter.to_string(),
                    refusal,
                    new,
                }),
            }
        }
    }
    out
}

/// The text in sentences, each with the space after it.
fn sentences(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut begin, mut ended) = (0, false);
    for (i, letter) in text.char_indices() {
        if ended && !letter.is_whitespace() {
            parts.push(&text[begin..i]);
            begin = i;
        }
        ended = matches!(letter, '.' | '!' | '?' | '\n') || (ended && letter.is_whitespace());
    }
    parts.push(&text[begin..]);
    parts
}

fn start(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{} ...", &text[..cut]),
        None => text.to_owned(),
    }
}

fn end(text: &str) -> String {
    let surplus = text.chars().count().saturating_sub(SHOWN);
    match text.char_indices().nth(surplus) {
        Some((cut, _)) if surplus > 0 => format!("... {}", &text[cut..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::difference::tests::cell;
    use super::*;
    use sst_data::Prompt;
    use sst_eval::SuiteConfig;

    #[test]
    fn items_on_which_the_safety_adapter_alone_differs_are_not_preferred() {
        let record = |(i, score): (usize, &f64)| ItemRecord {
            benchmark: Benchmark::RepliQa,
            id: i.to_string(),
            prompt: Prompt::Text("Why?".to_owned()),
            answer: "Because.".to_owned(),
            reference: String::new(),
            score: *score,
            refused: Some(false),
            valid: None,
            finish: None,
            log_likelihoods: Vec::new(),
            metrics: BTreeMap::new(),
        };
        let system = |kind: CellKind, scores: [f64; 4]| {
            let cell = Cell {
                name: format!("{kind:?}"),
                kind,
                ..cell("V1", 1, 1.0, 4, &[])
            };
            let evaluation = Evaluation {
                adapter: None,
                judge: "rules".to_owned(),
                config: SuiteConfig::default(),
                scores: Vec::new(),
                records: scores.iter().enumerate().map(record).collect(),
            };
            (cell, evaluation)
        };
        let (cells, evaluations): (Vec<Cell>, Vec<Evaluation>) = [
            system(CellKind::Utility, [1.0; 4]),
            system(CellKind::Merge, [1.0, 1.0, 1.0, 0.0]),
            system(CellKind::Safety, [0.0; 4]),
        ]
        .into_iter()
        .unzip();
        assert_eq!(samples(&cells, &evaluations, &["Merge"])[0].id, "3");
        let alone = samples(&cells[..2], &evaluations[..2], &["Merge"]);
        assert_eq!((alone[0].id.as_str(), alone[0].answers.len()), ("3", 2));
    }

    fn joined(pieces: &[Piece], wanted: impl Fn(&Piece) -> bool) -> String {
        pieces.iter().filter(|p| wanted(p)).map(|p| p.text.as_str()).collect()
    }

    #[test]
    fn marks_cover_refusing_sentences_and_new_words_and_lose_nothing() {
        let answer = "The door is red. I'm sorry, but I can't help with that! Ask the guard.";
        let found = pieces(answer, Some("The door is blue. Ask the guard."));
        assert_eq!(joined(&found, |_| true), answer);
        assert_eq!(
            joined(&found, |p| p.refusal).trim(),
            "I'm sorry, but I can't help with that!"
        );
        assert!(joined(&found, |p| p.new).contains("red."));
        assert!(!joined(&found, |p| p.new).contains("guard"));
        assert!(pieces("Yes.", None).iter().all(|p| !p.new && !p.refusal));
        assert!(pieces("", None).is_empty());
        let japanese = pieces("扉は赤い。はい。", Some("扉は青い。"));
        assert_eq!(joined(&japanese, |_| true), "扉は赤い。はい。");
    }

    #[test]
    fn long_texts_keep_the_question_and_the_beginning_of_the_answer() {
        let text = "é".repeat(SHOWN) + "?";
        assert!(end(&text).starts_with("... é") && end(&text).ends_with('?'));
        assert!(start(&text).ends_with(" ...") && start("short") == "short");
        assert_eq!(end("short"), "short");
    }
}
