//! Alpaca: likeness of answers to instructions with their reference answers, by ROUGE-L F1.

use super::answers::{Judged, Scored, flag};
use crate::rouge_l;
use sst_data::Example;

/// ROUGE-L; filtered, an answer that is none counts as unlike.
pub(super) fn score(item: &Example, answer: &Judged<'_>) -> Scored {
    let score = rouge_l(&item.response, answer.text);
    Scored {
        score,
        metrics: vec![("rouge_l_filtered", score * flag(answer.is_valid()))],
    }
}
