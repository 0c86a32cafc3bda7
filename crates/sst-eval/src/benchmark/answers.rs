//! Generated answers: asked in one batch, each judged for refusal and for being an answer at all.

use super::{Benchmark, ItemRecord};
use crate::{Error, GenerateRequest, Generator, Sampling, is_refusal, validity};
use sst_data::Example;

/// Asks every item and judges every answer; `score` is the item's part in the benchmark's score.
///
/// # Errors
/// [`Error::Generator`], and [`Error::Answers`] when the number of answers is not that of the items.
pub(crate) fn ask(
    benchmark: Benchmark,
    items: &[Example],
    max_new_tokens: usize,
    ask: Ask<'_>,
    score: impl Fn(&Example, &str, bool) -> f64,
) -> Result<Vec<ItemRecord>, Error> {
    let requests: Vec<GenerateRequest> = items
        .iter()
        .map(|item| GenerateRequest {
            adapter: ask.adapter.map(str::to_owned),
            prompt: item.prompt.clone(),
            max_new_tokens,
        })
        .collect();
    let answers = ask
        .generator
        .generate(&requests, ask.sampling, ask.progress)
        .map_err(|source| Error::Generator { benchmark, source })?;
    if answers.len() != items.len() {
        return Err(Error::Answers {
            benchmark,
            expected: format!("{} answers", items.len()),
            got: format!("{}", answers.len()),
        });
    }
    let record = |(item, answer): (&Example, crate::Generated)| {
        let refused = is_refusal(&answer.text);
        ItemRecord {
            benchmark,
            id: item.id.clone(),
            prompt: item.prompt.clone(),
            reference: item.response.clone(),
            score: score(item, &answer.text, refused),
            refused: Some(refused),
            valid: Some(validity(&answer.text).is_valid()),
            finish: Some(answer.finish),
            log_likelihoods: Vec::new(),
            answer: answer.text,
        }
    };
    Ok(items.iter().zip(answers).map(record).collect())
}

/// Who answers, and how.
pub(crate) struct Ask<'a> {
    pub(crate) generator: &'a mut dyn Generator,
    pub(crate) adapter: Option<&'a str>,
    pub(crate) sampling: &'a Sampling,
    pub(crate) progress: &'a mut dyn FnMut(usize),
}
