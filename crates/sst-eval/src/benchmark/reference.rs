//! Likeness of generated answers to reference answers: RepliQA and Alpaca.

use super::answers::{Ask, ask};
use super::{Benchmark, BenchmarkScore, ItemRecord};
use crate::{Error, mean, mean_interval, rouge_l};
use sst_data::Example;

/// Asks every item; the score is the mean ROUGE-L F1, with the normal interval of a mean.
pub(crate) fn run(
    benchmark: Benchmark,
    items: &[Example],
    max_new_tokens: usize,
    how: Ask<'_>,
) -> Result<(BenchmarkScore, Vec<ItemRecord>), Error> {
    let rouge = |item: &Example, answer: &str, _| rouge_l(&item.response, answer);
    let records = ask(benchmark, items, max_new_tokens, how, rouge)?;
    let scores: Vec<f64> = records.iter().map(|r| r.score).collect();
    let score = BenchmarkScore::new(benchmark, mean(&scores), mean_interval(&scores), &records);
    Ok((score, records))
}
