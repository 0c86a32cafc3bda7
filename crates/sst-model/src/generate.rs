//! Batched generation with a key-value cache: a sequence that ends makes room for the next one that waits.

use crate::Error;
use crate::host::tokens;
use crate::model::LanguageModel;
use crate::pack::{Fate, Passes};
use crate::prefix::Sequence;
use crate::queue::Queue;
use crate::score::{adapters, place};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sst_eval::{
    ContinuationScore, Finish, GenerateRequest, Generated, Generator, GeneratorError, Sampling, ScoreRequest,
};
use tch::{Kind, Tensor};

/// One answer under way.
struct Row {
    request: usize,
    adapter: usize,
    answer: Vec<u32>,
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
        let _guard = tch::no_grad_guard();
        let prompts: Vec<Vec<u32>> = requests
            .iter()
            .enumerate()
            .map(|(at, request)| self.prompt(at, request))
            .collect::<Result<_, _>>()?;
        let adapters = adapters(requests.iter().map(|r| r.adapter.as_deref()));
        let asked: Vec<usize> = (0..requests.len())
            .filter(|&i| requests[i].max_new_tokens > 0)
            .collect();
        let sequences: Vec<Sequence> = asked
            .iter()
            .map(|&i| Sequence {
                adapter: place(&adapters, requests[i].adapter.as_deref()),
                tokens: &prompts[i],
                branches: Vec::new(),
            })
            .collect();
        let empty = Generated {
            text: String::new(),
            tokens: 0,
            finish: Finish::Length,
        };
        let mut answers = vec![empty; requests.len()];
        let mut done = requests.len() - asked.len();
        let mut passes = Passes::new(self, &adapters, self.limits.rows.min(sequences.len()))?;
        let mut queue = Queue::new(&sequences, Fate::Slot);
        let mut live: Vec<Row> = Vec::new(); // in the order of their slots
        loop {
            let room = self.limits.rows - live.len();
            let due = queue.take(room, passes.tokens().saturating_sub(live.len()));
            if live.is_empty() && due.segments.is_empty() {
                return Ok(answers);
            }
            let last: Vec<(u32, usize)> = live
                .iter()
                .filter_map(|row| Some((*row.answer.last()?, row.adapter)))
                .collect();
            let ends = due.leaves.iter().map(|leaf| live.len() + leaf.end);
            let picked: Vec<i64> = (0..live.len()).chain(ends).map(|token| token as i64).collect();
            let hidden = passes.forward(&last, &due.segments, &picked)?;
            due.closed.iter().for_each(|&node| passes.close(node));
            live.extend(due.leaves.iter().map(|leaf| Row {
                request: asked[leaf.of],
                adapter: sequences[leaf.of].adapter,
                answer: Vec::new(),
                random: generator(sampling, &prompts[asked[leaf.of]]),
            }));
            if live.is_empty() {
                continue; // Nothing but a prefix fitted.
            }
            let next = choose(&self.decoder.logits(&hidden), sampling, &mut live);
            let before = done;
            // From the last slot to the first, for the sequence of the last one moves to where one has ended.
            for slot in (0..live.len()).rev() {
                let row = &mut live[slot];
                let finish = if self.tokenizer.eos_ids().contains(&next[slot]) {
                    Finish::Stop
                } else {
                    row.answer.push(next[slot]);
                    if row.answer.len() < requests[row.request].max_new_tokens {
                        continue;
                    }
                    Finish::Length
                };
                answers[row.request] = Generated {
                    text: self.tokenizer.decode(&row.answer, true)?,
                    tokens: row.answer.len(),
                    finish,
                };
                live.swap_remove(slot);
                passes.release(slot);
                done += 1;
            }
            if done > before {
                progress(done);
            }
        }
    }

    /// The tokens of a request's prompt.
    fn prompt(&self, at: usize, request: &GenerateRequest) -> Result<Vec<u32>, Error> {
        let ids = self.tokenizer.encode_prompt(&request.prompt)?;
        let refused = |reason| {
            let id = format!("generation request {at}");
            Err(Error::Example { id, reason })
        };
        if ids.is_empty() {
            return refused("the prompt has no tokens".into());
        }
        let (needed, limit) = (ids.len() + request.max_new_tokens, self.max_position());
        if needed > limit {
            return refused(format!(
                "prompt and answer need {needed} positions, the model has {limit}"
            ));
        }
        Ok(ids)
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
fn generator(sampling: &Sampling, ids: &[u32]) -> ChaCha8Rng {
    let seed = match sampling {
        Sampling::Greedy => 0,
        Sampling::Sample { seed, .. } => *seed,
    };
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
