//! Teacher-forced log-likelihood: what training minimises, Fisher information differentiates and MMLU compares.

use crate::Error;
use crate::batch::Side;
use crate::host::floats;
use crate::lora::Lora;
use crate::mask::Mask;
use crate::model::LanguageModel;
use sst_data::Example;
use sst_eval::{ContinuationScore, ScoreRequest};
use std::collections::BTreeMap;
use tch::{Kind, Reduction, Tensor};

/// Rows of the head's output computed at once where no gradient is kept.
const HEAD_ROWS: i64 = 512;

/// Tokens of one example and which of them are scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The example's identifier.
    pub id: String,
    /// All tokens, prompt first.
    pub ids: Vec<u32>,
    /// Tokens from this index on are scored; at least 1, for the first token has no prediction.
    pub scored_from: usize,
}

impl Encoded {
    /// Number of scored tokens.
    pub fn scored(&self) -> usize {
        self.ids.len() - self.scored_from
    }
}

/// Negative log-likelihoods of the scored tokens of a batch, row after row.
#[derive(Debug)]
pub struct TokenLosses {
    /// -log p of every scored token in nats, f32 [sum of counts].
    pub losses: Tensor,
    /// Scored tokens per row.
    pub counts: Vec<usize>,
}

impl TokenLosses {
    /// Sum of each row's losses in f64, on the CPU.
    pub fn row_sums(&self) -> Vec<f64> {
        let values = floats(&self.losses);
        let mut rest = values.as_slice();
        self.counts
            .iter()
            .map(|&n| {
                let (row, after) = rest.split_at(n);
                rest = after;
                row.iter().map(|&v| f64::from(v)).sum()
            })
            .collect()
    }
}

/// Where a batch's scored tokens are predicted, and which they are; both int64 [scored].
pub(crate) struct Scored {
    /// Row of the flattened hidden states that predicts the token.
    pub at: Tensor,
    /// The token.
    pub targets: Tensor,
}

impl LanguageModel {
    /// Tokens of `example` with its response scored, the end of turn included.
    ///
    /// # Errors
    /// [`Error::Example`] when prompt or response has no token; [`Error::Tokenizer`].
    pub fn encode_response(&self, example: &Example) -> Result<Encoded, Error> {
        let (prompt, response) = self.tokenizer.encode_example(&example.prompt, &example.response)?;
        let encoded = Encoded {
            id: example.id.clone(),
            scored_from: prompt.len(),
            ids: [prompt, response].concat(),
        };
        if encoded.scored_from == 0 || encoded.scored() == 0 {
            let reason = "prompt and response must both have at least one token".into();
            return Err(Error::Example {
                id: example.id.clone(),
                reason,
            });
        }
        Ok(encoded)
    }

    /// Tokens of `example`'s prompt alone, cut to `max_tokens`, all but the first scored.
    ///
    /// # Errors
    /// [`Error::Example`] when fewer than two tokens are left; [`Error::Tokenizer`].
    pub fn encode_prompt_only(&self, example: &Example, max_tokens: usize) -> Result<Encoded, Error> {
        let mut ids = self.tokenizer.encode_prompt(&example.prompt)?;
        ids.truncate(max_tokens);
        if ids.len() < 2 {
            return Err(Error::Example {
                id: example.id.clone(),
                reason: "the prompt has fewer than two tokens".into(),
            });
        }
        Ok(Encoded {
            id: example.id.clone(),
            ids,
            scored_from: 1,
        })
    }

    /// Losses of a batch under a stack of adapters.
    ///
    /// # Errors
    /// [`Error::UnknownAdapter`] when an adapter is not loaded.
    pub fn token_losses(&self, batch: &[&Encoded], adapters: &[&str]) -> Result<TokenLosses, Error> {
        self.losses(batch, &self.stack(adapters)?)
    }

    fn losses(&self, batch: &[&Encoded], stack: &[&Lora]) -> Result<TokenLosses, Error> {
        let _guard = tch::no_grad_guard();
        let (ids, mask) = self.right_padded(batch)?;
        let hidden = self.decoder.hidden(&ids, &mask, None, stack);
        let scored = self.scored(batch, ids.size()[1]);
        let picked = hidden.index_select(0, &scored.at); // [scored, d_model]
        let losses: Vec<Tensor> = picked
            .split(HEAD_ROWS, 0)
            .iter()
            .zip(scored.targets.split(HEAD_ROWS, 0))
            .map(|(part, target)| {
                let logits = self.decoder.logits(part);
                logits.cross_entropy_loss(&target, None::<Tensor>, Reduction::None, -100, 0.0)
            })
            .collect();
        let counts = batch.iter().map(|e| e.scored()).collect();
        Ok(TokenLosses {
            losses: Tensor::cat(&losses, 0),
            counts,
        })
    }

    /// Token numbers [batch, seq], padded on the right, and their mask.
    pub(crate) fn right_padded(&self, batch: &[&Encoded]) -> Result<(Tensor, Mask), Error> {
        let rows: Vec<&[u32]> = batch.iter().map(|e| e.ids.as_slice()).collect();
        let (ids, lefts) = self.pad(&rows, Side::Right)?;
        let mask = self.mask(&lefts, 0, ids.size()[1]);
        Ok((ids, mask))
    }

    /// The scored tokens of a right-padded batch of width `seq`, row after row.
    pub(crate) fn scored(&self, batch: &[&Encoded], seq: i64) -> Scored {
        let (mut at, mut targets) = (Vec::new(), Vec::new());
        for (row, encoded) in batch.iter().enumerate() {
            for t in encoded.scored_from..encoded.ids.len() {
                at.push(row as i64 * seq + t as i64 - 1);
                targets.push(i64::from(encoded.ids[t]));
            }
        }
        Scored {
            at: self.long(&at),
            targets: self.long(&targets),
        }
    }

    /// Log-likelihoods of the continuations of every request, in request order.
    pub(crate) fn score_requests(
        &self,
        requests: &[ScoreRequest],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<ContinuationScore>>, Error> {
        let mut groups: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
        for (i, request) in requests.iter().enumerate() {
            groups.entry(request.adapter.as_deref()).or_default().push(i);
        }
        let mut answers = vec![Vec::new(); requests.len()];
        let mut done = 0;
        let _guard = tch::no_grad_guard();
        for (adapter, members) in groups {
            let stack = self.stack(adapter.as_slice())?;
            let tasks: Vec<ScoreTask> = members
                .iter()
                .map(|&i| ScoreTask::new(i, &requests[i], &self.tokenizer))
                .collect::<Result<_, _>>()?;
            let lengths: Vec<usize> = tasks.iter().map(ScoreTask::longest).collect();
            for batch in self.limits.plan(&lengths) {
                let batch: Vec<&ScoreTask> = batch.iter().map(|&i| &tasks[i]).collect();
                let (choices, texts): (Vec<&ScoreTask>, Vec<&ScoreTask>) =
                    batch.iter().partition(|t| t.choices.is_some());
                if !choices.is_empty() {
                    self.score_choices(&choices, &stack, &mut answers)?;
                }
                if !texts.is_empty() {
                    self.score_texts(&texts, &stack, &mut answers)?;
                }
                done += batch.len();
                progress(done);
            }
        }
        Ok(answers)
    }

    /// Requests whose continuations are single tokens after one context: one row each.
    fn score_choices(
        &self,
        tasks: &[&ScoreTask],
        stack: &[&Lora],
        answers: &mut [Vec<ContinuationScore>],
    ) -> Result<(), Error> {
        let rows: Vec<&[u32]> = tasks.iter().map(|t| t.rows[0].ids.as_slice()).collect();
        let (ids, lefts) = self.pad(&rows, Side::Right)?;
        let seq = ids.size()[1];
        let hidden = self.decoder.hidden(&ids, &self.mask(&lefts, 0, seq), None, stack);
        let ends: Vec<i64> = rows
            .iter()
            .enumerate()
            .map(|(i, r)| i as i64 * seq + r.len() as i64 - 1)
            .collect();
        let last = hidden.index_select(0, &self.long(&ends));
        let logp = self.decoder.logits(&last).log_softmax(-1, Kind::Float); // [rows, vocab]
        for (row, task) in tasks.iter().enumerate() {
            let choices: Vec<i64> = task.choices.iter().flatten().map(|&t| i64::from(t)).collect();
            let picked = logp.get(row as i64).index_select(0, &self.long(&choices));
            answers[task.request] = floats(&picked)
                .into_iter()
                .map(|v| ContinuationScore {
                    log_likelihood: f64::from(v),
                    tokens: 1,
                })
                .collect();
        }
        Ok(())
    }

    /// Requests of longer continuations: a row each, all requests of the batch together.
    fn score_texts(
        &self,
        tasks: &[&ScoreTask],
        stack: &[&Lora],
        answers: &mut [Vec<ContinuationScore>],
    ) -> Result<(), Error> {
        let rows: Vec<(usize, usize, &Encoded)> = tasks
            .iter()
            .flat_map(|t| t.rows.iter().enumerate().map(|(i, row)| (t.request, i, row)))
            .collect();
        for task in tasks {
            answers[task.request] = vec![
                ContinuationScore {
                    log_likelihood: f64::NAN,
                    tokens: 0
                };
                task.rows.len()
            ];
        }
        let lengths: Vec<usize> = rows.iter().map(|(_, _, row)| row.ids.len()).collect();
        for batch in self.limits.plan(&lengths) {
            let members: Vec<&Encoded> = batch.iter().map(|&i| rows[i].2).collect();
            let losses = self.losses(&members, stack)?;
            for ((&i, sum), &tokens) in batch.iter().zip(losses.row_sums()).zip(&losses.counts) {
                let (request, continuation, _) = rows[i];
                answers[request][continuation] = ContinuationScore {
                    log_likelihood: -sum,
                    tokens,
                };
            }
        }
        Ok(())
    }
}

/// One request, tokenised: either one context with single-token choices, or a row per continuation.
struct ScoreTask {
    request: usize,
    rows: Vec<Encoded>,
    choices: Option<Vec<u32>>,
}

impl ScoreTask {
    fn new(at: usize, request: &ScoreRequest, tokenizer: &crate::tokenizer::Tokenizer) -> Result<Self, Error> {
        let mut rows = Vec::new();
        for continuation in &request.continuations {
            let (context, continuation) = match &request.prompt {
                sst_data::Prompt::Text(text) => tokenizer.encode_continuation(text, continuation)?,
                chat => tokenizer.encode_example(chat, continuation)?,
            };
            let id = format!("score request {at}");
            if context.is_empty() || continuation.is_empty() {
                let reason = "context and continuation must both have at least one token".into();
                return Err(Error::Example { id, reason });
            }
            rows.push(Encoded {
                id,
                scored_from: context.len(),
                ids: [context, continuation].concat(),
            });
        }
        let shared = rows.windows(2).all(|w| {
            w[0].scored_from == w[1].scored_from && w[0].ids[..w[0].scored_from] == w[1].ids[..w[1].scored_from]
        });
        if !rows.is_empty() && shared && rows.iter().all(|r| r.scored() == 1) {
            let choices = rows.iter().map(|r| r.ids[r.scored_from]).collect();
            rows.truncate(1);
            rows[0].ids.pop();
            return Ok(Self {
                request: at,
                rows,
                choices: Some(choices),
            });
        }
        Ok(Self {
            request: at,
            rows,
            choices: None,
        })
    }

    fn longest(&self) -> usize {
        self.rows.iter().map(|r| r.ids.len()).max().unwrap_or(0)
    }
}
