//! Generated answers: every adapter asked in one batch, each answer judged for refusal and for being an answer at all.

use super::{Benchmark, ItemRecord};
use crate::{Error, GenerateRequest, Generated, Generator, Judge, PromptFormat, Sampling, Validity, Verdict, validity};
use sst_data::{Example, Prompt};
use std::collections::BTreeMap;

/// Who answers, who judges, and how.
pub(crate) struct Asking<'a> {
    pub(crate) generator: &'a mut dyn Generator,
    pub(crate) judge: &'a mut dyn Judge,
    pub(crate) adapters: &'a [Option<&'a str>],
    pub(crate) format: PromptFormat,
    pub(crate) max_new_tokens: usize,
    pub(crate) sampling: &'a Sampling,
    pub(crate) progress: &'a mut dyn FnMut(usize),
}

/// An answer with what is said of it.
pub(crate) struct Judged<'a> {
    pub(crate) text: &'a str,
    pub(crate) verdict: Verdict,
    pub(crate) validity: Validity,
}

impl Judged<'_> {
    pub(crate) fn refuses(&self) -> bool {
        self.verdict.refuses
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.validity.is_valid()
    }

    /// Neither a refusal nor babble.
    pub(crate) fn complies(&self) -> bool {
        self.is_valid() && !self.refuses()
    }
}

/// An item's part in the score and in the secondary metrics.
pub(crate) struct Scored {
    pub(crate) score: f64,
    pub(crate) metrics: Vec<(&'static str, f64)>,
}

/// 1 or 0.
pub(crate) fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// Asks every adapter every item and judges every answer; one list of records per adapter.
///
/// # Errors
/// [`Error::Generator`], [`Error::Judge`], and [`Error::Answers`] when either returns another number than it was given.
pub(crate) fn ask(
    benchmark: Benchmark,
    items: &[Example],
    asking: Asking<'_>,
    score: fn(&Example, &Judged<'_>) -> Scored,
) -> Result<Vec<Vec<ItemRecord>>, Error> {
    let Asking { adapters, format, .. } = asking;
    let prompts: Vec<Prompt> = items.iter().map(|item| format.apply(&item.prompt)).collect();
    let mut requests = Vec::new();
    for adapter in adapters {
        requests.extend(prompts.iter().map(|prompt| GenerateRequest {
            adapter: adapter.map(str::to_owned),
            prompt: prompt.clone(),
            max_new_tokens: asking.max_new_tokens,
        }));
    }
    let answers = asking
        .generator
        .generate(&requests, asking.sampling, asking.progress)
        .map_err(|source| Error::Generator { benchmark, source })?;
    expect(benchmark, "answers", requests.len(), answers.len())?;

    // A judge reads the question as the item has it, without the layout that it was asked in.
    let asked = || items.iter().cycle();
    let read: Vec<(&Prompt, &str)> = asked()
        .zip(&answers)
        .map(|(item, a)| (&item.prompt, a.text.as_str()))
        .collect();
    let verdicts = asking.judge.judge(&read).map_err(|source| Error::Judge {
        benchmark,
        judge: asking.judge.name(),
        source,
    })?;
    expect(benchmark, "verdicts", answers.len(), verdicts.len())?;

    let records: Vec<ItemRecord> = asked()
        .zip(prompts.iter().cycle())
        .zip(answers.into_iter().zip(verdicts))
        .map(|((item, prompt), (answer, verdict))| record(benchmark, item, prompt, answer, verdict, score))
        .collect();
    Ok(per_adapter(records, items.len()))
}

fn record(
    benchmark: Benchmark,
    item: &Example,
    prompt: &Prompt,
    answer: Generated,
    verdict: Verdict,
    score: fn(&Example, &Judged<'_>) -> Scored,
) -> ItemRecord {
    let judged = Judged {
        text: &answer.text,
        verdict,
        validity: validity(&answer.text),
    };
    let (refused, valid) = (judged.refuses(), judged.is_valid());
    let Scored { score, metrics } = score(item, &judged);
    let mut parts: BTreeMap<String, f64> = metrics
        .into_iter()
        .map(|(name, part)| (name.to_owned(), part))
        .collect();
    parts.insert("refused".to_owned(), flag(refused));
    parts.insert("valid".to_owned(), flag(valid));
    ItemRecord {
        benchmark,
        id: item.id.clone(),
        prompt: prompt.clone(),
        reference: item.response.clone(),
        score,
        refused: Some(refused),
        valid: Some(valid),
        finish: Some(answer.finish),
        log_likelihoods: Vec::new(),
        answer: answer.text,
        metrics: parts,
    }
}

/// Cuts the records of all adapters, adapter after adapter, into one list each.
pub(crate) fn per_adapter(records: Vec<ItemRecord>, items: usize) -> Vec<Vec<ItemRecord>> {
    let mut records = records.into_iter().peekable();
    let mut lists = Vec::new();
    while records.peek().is_some() {
        lists.push(records.by_ref().take(items).collect());
    }
    lists
}

/// Fails unless as much came back as was asked.
pub(crate) fn expect(benchmark: Benchmark, what: &str, expected: usize, got: usize) -> Result<(), Error> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Answers {
        benchmark,
        expected: format!("{expected} {what}"),
        got: got.to_string(),
    })
}
