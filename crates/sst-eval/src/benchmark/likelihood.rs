//! Teacher-forced likelihood of reference answers and of refusals: cheap, and without the noise of generated answers.
//!
//! For a reference y of T tokens after a prompt x the score is -log p(y | x) / T, in nats per token, the mean over items; the
//! metric `token_probability` is exp of minus that, the geometric mean of the tokens' probabilities. For answers (RepliQA,
//! Alpaca) less is better. For a refusal after a harmful request less is safer; after a safe one (XSTest) more is better.
//! The end of turn is not weighed, so that a text prompt and a chat are measured alike.

use super::answers::{Asking, expect, per_adapter};
use super::{Benchmark, ItemRecord};
use crate::{ContinuationScore, Error, ScoreRequest};
use sst_data::{Example, Prompt};
use std::collections::BTreeMap;

/// Weighs every item's reference under every adapter; one list of records per adapter.
pub(super) fn run(benchmark: Benchmark, items: &[Example], asking: Asking<'_>) -> Result<Vec<Vec<ItemRecord>>, Error> {
    let format = asking.format;
    let asked: Vec<(Prompt, String)> = items
        .iter()
        .map(|item| (format.apply(&item.prompt), format.continuation(&item.response)))
        .collect();
    let mut requests = Vec::new();
    for adapter in asking.adapters {
        requests.extend(asked.iter().map(|(prompt, continuation)| ScoreRequest {
            adapter: adapter.map(str::to_owned),
            prompt: prompt.clone(),
            continuations: vec![continuation.clone()],
        }));
    }
    let scores = asking
        .generator
        .score(&requests, asking.progress)
        .map_err(|source| Error::Generator { benchmark, source })?;
    expect(benchmark, "lists of scores", requests.len(), scores.len())?;
    let records = items
        .iter()
        .zip(&asked)
        .cycle()
        .zip(&scores)
        .map(|((item, (prompt, _)), scores)| record(benchmark, item, prompt, scores))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(per_adapter(records, items.len()))
}

fn record(
    benchmark: Benchmark,
    item: &Example,
    prompt: &Prompt,
    scores: &[ContinuationScore],
) -> Result<ItemRecord, Error> {
    let &[
        ContinuationScore {
            log_likelihood,
            tokens: tokens @ 1..,
        },
    ] = scores
    else {
        return Err(Error::Answers {
            benchmark,
            expected: format!("one score of at least one token for {}", item.id),
            got: format!("{scores:?}"),
        });
    };
    let nll = -log_likelihood / tokens as f64;
    if !nll.is_finite() {
        return Err(Error::Answers {
            benchmark,
            expected: format!("a finite log-likelihood for {}", item.id),
            got: log_likelihood.to_string(),
        });
    }
    Ok(ItemRecord {
        benchmark,
        id: item.id.clone(),
        prompt: prompt.clone(),
        answer: String::new(),
        reference: item.response.clone(),
        score: nll,
        refused: None,
        valid: None,
        finish: None,
        log_likelihoods: vec![log_likelihood],
        metrics: BTreeMap::from([("token_probability".to_owned(), (-nll).exp())]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nats_are_per_token_and_must_be_finite() {
        let item = Example {
            id: "a/1".to_owned(),
            prompt: Prompt::user("?"),
            response: "Yes.".to_owned(),
        };
        let of = |log_likelihood, tokens| {
            let score = ContinuationScore { log_likelihood, tokens };
            record(Benchmark::AlpacaNll, &item, &item.prompt, &[score])
        };
        let found = of(-3.0, 2).unwrap();
        assert_eq!(found.score, 1.5);
        assert!((found.metrics["token_probability"] - (-1.5f64).exp()).abs() <= f64::EPSILON);
        assert!(of(f64::NAN, 2).is_err() && of(f64::NEG_INFINITY, 2).is_err() && of(-3.0, 0).is_err());
        assert!(record(Benchmark::AlpacaNll, &item, &item.prompt, &[]).is_err());
    }
}
