//! Batched generation with a key-value cache: every row stops on its own, finished rows leave the batch.

use crate::Error;
use crate::batch::Side;
use crate::cache::KvCache;
use crate::host::tokens;
use crate::lora::Lora;
use crate::model::LanguageModel;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sst_eval::{
    ContinuationScore, Finish, GenerateRequest, Generated, Generator, GeneratorError, Sampling, ScoreRequest,
};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// One prompt under way.
struct Row {
    request: usize,
    ids: Vec<u32>,
    max_new: usize,
    answer: Vec<u32>,
    finish: Option<Finish>,
    random: ChaCha8Rng,
}

impl Generator for LanguageModel {
    fn generate(
        &mut self,
        requests: &[GenerateRequest],
        sampling: &Sampling,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Generated>, GeneratorError> {
        self.generate_requests(requests, sampling, progress)
            .map_err(|e| GeneratorError(Box::new(e)))
    }

    fn score(
        &mut self,
        requests: &[ScoreRequest],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<ContinuationScore>>, GeneratorError> {
        self.score_requests(requests, progress)
            .map_err(|e| GeneratorError(Box::new(e)))
    }
}

impl LanguageModel {
    fn generate_requests(
        &self,
        requests: &[GenerateRequest],
        sampling: &Sampling,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Generated>, Error> {
        check_sampling(sampling)?;
        let mut groups: BTreeMap<Option<&str>, Vec<Row>> = BTreeMap::new();
        for (at, request) in requests.iter().enumerate() {
            let row = self.row(at, request, sampling)?;
            groups.entry(request.adapter.as_deref()).or_default().push(row);
        }
        let mut answers: Vec<Option<Generated>> = requests.iter().map(|_| None).collect();
        let mut done = 0;
        let _guard = tch::no_grad_guard();
        for (adapter, rows) in groups {
            let stack = self.stack(adapter.as_slice())?;
            let lengths: Vec<usize> = rows.iter().map(|r| r.ids.len() + r.max_new).collect();
            let mut rows: Vec<Option<Row>> = rows.into_iter().map(Some).collect();
            for batch in self.limits.plan(&lengths) {
                let batch = batch.iter().filter_map(|&i| rows[i].take()).collect();
                for row in self.complete(batch, &stack, sampling)? {
                    answers[row.request] = Some(Generated {
                        text: self.tokenizer.decode(&row.answer, true)?,
                        tokens: row.answer.len(),
                        finish: row.finish.unwrap_or(Finish::Length),
                    });
                    done += 1;
                }
                progress(done);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    fn row(&self, at: usize, request: &GenerateRequest, sampling: &Sampling) -> Result<Row, Error> {
        let ids = self.tokenizer.encode_prompt(&request.prompt)?;
        let id = || format!("generation request {at}");
        if ids.is_empty() {
            return Err(Error::Example {
                id: id(),
                reason: "the prompt has no tokens".into(),
            });
        }
        let (needed, limit) = (ids.len() + request.max_new_tokens, self.decoder.config().max_position);
        if needed > limit {
            let reason = format!("prompt and answer need {needed} positions, the model has {limit}");
            return Err(Error::Example { id: id(), reason });
        }
        let seed = match sampling {
            Sampling::Greedy => 0,
            Sampling::Sample { seed, .. } => *seed,
        };
        Ok(Row {
            request: at,
            random: generator(seed, &ids),
            ids,
            max_new: request.max_new_tokens,
            answer: Vec::new(),
            finish: (request.max_new_tokens == 0).then_some(Finish::Length),
        })
    }

    /// Runs one batch to its end.
    fn complete(&self, mut live: Vec<Row>, stack: &[&Lora], sampling: &Sampling) -> Result<Vec<Row>, Error> {
        let device = self.decoder.device();
        let prompts: Vec<&[u32]> = live.iter().map(|r| r.ids.as_slice()).collect();
        let (mut ids, mut lefts) = self.pad(&prompts, Side::Left)?;
        let longest = live.iter().map(|r| r.max_new).max().unwrap_or(0) as i64;
        let capacity = ids.size()[1] + longest;
        let mut cache = KvCache::new(
            self.decoder.config(),
            live.len() as i64,
            capacity,
            self.decoder.kind(),
            device,
        );
        let mut finished = Vec::new();
        loop {
            let mask = self.mask(&lefts, cache.len(), ids.size()[1]);
            let hidden = self.decoder.hidden(&ids, &mask, Some(&mut cache), stack);
            let last = hidden.unflatten(0, [ids.size()[0], ids.size()[1]]).select(1, -1);
            let logits = self.decoder.logits(&last); // [live, vocab]
            let next = choose(&logits, sampling, &mut live);
            for (row, &token) in live.iter_mut().zip(&next) {
                if row.finish.is_some() {
                    continue;
                }
                if self.tokenizer.eos_ids().contains(&token) {
                    row.finish = Some(Finish::Stop);
                } else {
                    row.answer.push(token);
                    if row.answer.len() == row.max_new {
                        row.finish = Some(Finish::Length);
                    }
                }
            }
            let open: Vec<usize> = (0..live.len()).filter(|&i| live[i].finish.is_none()).collect();
            if open.is_empty() {
                finished.append(&mut live);
                return Ok(finished);
            }
            let mut tokens: Vec<i64> = next.iter().map(|&t| i64::from(t)).collect();
            // Dropping rows copies the cache once, and every later step is cheaper for it.
            if open.len() * 4 <= live.len() * 3 {
                cache.keep(&self.long(&open.iter().map(|&i| i as i64).collect::<Vec<_>>()));
                tokens = open.iter().map(|&i| tokens[i]).collect();
                lefts = open.iter().map(|&i| lefts[i]).collect();
                let (kept, gone): (Vec<Row>, Vec<Row>) = live.into_iter().partition(|r| r.finish.is_none());
                live = kept;
                finished.extend(gone);
            }
            ids = self.long(&tokens).unsqueeze(1);
        }
    }
}

/// The next token of every row.
fn choose(logits: &Tensor, sampling: &Sampling, rows: &mut [Row]) -> Vec<u32> {
    let picked = match sampling {
        Sampling::Greedy => logits.argmax(-1, false),
        Sampling::Sample { temperature, top_p, .. } => {
            let (sorted, by_rank) = (logits / *temperature).softmax(-1, Kind::Float).sort(-1, true);
            let mass = sorted.cumsum(-1, Kind::Float); // [rows, vocab]
            // The nucleus: the fewest likeliest tokens whose mass reaches top_p.
            let kept = (&mass - &sorted).lt(*top_p);
            let total = (sorted * kept.to_kind(Kind::Float)).sum_dim_intlist([-1].as_slice(), true, Kind::Float);
            let draws: Vec<f32> = rows.iter_mut().map(|r| r.random.random::<f32>()).collect();
            let draws = Tensor::from_slice(&draws).to_device(logits.device()).unsqueeze(1) * total;
            let below = mass
                .le_tensor(&draws)
                .to_kind(Kind::Int64)
                .sum_dim_intlist([-1].as_slice(), true, Kind::Int64);
            let last = kept
                .to_kind(Kind::Int64)
                .sum_dim_intlist([-1].as_slice(), true, Kind::Int64)
                - 1;
            by_rank.gather(-1, &below.minimum(&last), false).squeeze_dim(-1)
        }
    };
    tokens(&picked)
}

/// Randomness keyed by the seed and the prompt, so that neither order nor batch changes an answer.
fn generator(seed: u64, ids: &[u32]) -> ChaCha8Rng {
    let mut key = seed.to_le_bytes().to_vec();
    key.extend(ids.iter().flat_map(|t| t.to_le_bytes()));
    let digest = sst_artefact::sha256_bytes(&key);
    ChaCha8Rng::seed_from_u64(u64::from_str_radix(&digest[..16], 16).unwrap_or(seed))
}

fn check_sampling(sampling: &Sampling) -> Result<(), Error> {
    if let Sampling::Sample { temperature, top_p, .. } = sampling {
        if !(temperature.is_finite() && *temperature > 0.0) {
            let value = temperature.to_string();
            return Err(Error::Setting {
                key: "temperature",
                value,
                reason: "positive and finite",
            });
        }
        if !(*top_p > 0.0 && *top_p <= 1.0) {
            return Err(Error::Setting {
                key: "top_p",
                value: top_p.to_string(),
                reason: "above 0, at most 1",
            });
        }
    }
    Ok(())
}
