//! The file of a journal: its lines, and what of them is whole.
//!
//! One JSON object a line. First what the answers are of; then `key` (SHA-256 of request and sampling) with an answer or
//! with scores; after each chunk `end`, the number of its answers.

use crate::{ContinuationScore, Finish, Generated};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Format of the file; another number is another format.
const VERSION: u32 = 1;

/// The first line.
#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    journal: u32,
    pub chunk: usize,
    pub of: Value,
}

impl Header {
    pub fn new(chunk: usize, identity: &Value) -> Self {
        Self {
            journal: VERSION,
            chunk: chunk.max(1),
            of: identity.clone(),
        }
    }
}

/// A line behind the header.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Answer {
        key: String,
        text: String,
        tokens: usize,
        finish: Finish,
    },
    Scores {
        key: String,
        scores: Vec<(f64, usize)>,
    },
    End {
        end: usize,
    },
}

/// What is kept of a request.
pub(super) trait Kept: Sized {
    fn line(&self, key: &str) -> Line;
    fn of(line: &Line) -> Option<Self>;
}

impl Kept for Generated {
    fn line(&self, key: &str) -> Line {
        Line::Answer {
            key: key.to_owned(),
            text: self.text.clone(),
            tokens: self.tokens,
            finish: self.finish,
        }
    }

    fn of(line: &Line) -> Option<Self> {
        match line {
            Line::Answer {
                text, tokens, finish, ..
            } => Some(Self {
                text: text.clone(),
                tokens: *tokens,
                finish: *finish,
            }),
            _ => None,
        }
    }
}

impl Kept for Vec<ContinuationScore> {
    fn line(&self, key: &str) -> Line {
        Line::Scores {
            key: key.to_owned(),
            scores: self.iter().map(|s| (s.log_likelihood, s.tokens)).collect(),
        }
    }

    fn of(line: &Line) -> Option<Self> {
        let score = |&(log_likelihood, tokens): &(f64, usize)| ContinuationScore { log_likelihood, tokens };
        match line {
            Line::Scores { scores, .. } => Some(scores.iter().map(score).collect()),
            _ => None,
        }
    }
}

/// The first line, if it is whole, and where the next begins.
pub(super) fn first_line(bytes: &[u8]) -> Option<(serde_json::Result<Header>, usize)> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((serde_json::from_slice(&bytes[..end]), end + 1))
}

/// The answers of every chunk that is whole, from byte `begin` on, and where the last of them ends.
pub(super) fn closed_chunks(bytes: &[u8], begin: usize) -> (BTreeMap<String, Line>, usize) {
    let (mut answers, mut whole) = (BTreeMap::new(), begin);
    let (mut open, mut at) = (Vec::new(), begin);
    for line in bytes[begin..].split_inclusive(|&byte| byte == b'\n') {
        at += line.len();
        match serde_json::from_slice(line) {
            Ok(Line::End { end }) if end == open.len() && line.ends_with(b"\n") => {
                answers.extend(open.drain(..));
                whole = at;
            }
            Ok(answer @ (Line::Answer { .. } | Line::Scores { .. })) => {
                let (Line::Answer { key, .. } | Line::Scores { key, .. }) = &answer else {
                    break;
                };
                open.push((key.clone(), answer));
            }
            _ => break,
        }
    }
    (answers, whole)
}

/// The first place where two values differ, with both.
pub(super) fn difference(place: &str, now: &Value, then: &Value) -> Option<String> {
    if now == then {
        return None;
    }
    let (Some(a), Some(b)) = (now.as_object(), then.as_object()) else {
        return Some(format!("{place}: {then} there, {now} now"));
    };
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    keys.into_iter().find_map(|key| {
        let at = |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or_default();
        let place = if place.is_empty() {
            key.clone()
        } else {
            format!("{place}.{key}")
        };
        difference(&place, &at(a), &at(b))
    })
}
