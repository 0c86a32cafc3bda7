//! Log-likelihoods of continuations: sum over a continuation's tokens of log p(token | prompt, tokens before).
//!
//! A prompt is computed once for all its continuations, each of which is a branch that does not see the others, and what
//! prompts share is computed once for all of them. A continuation of one token needs nothing but the prompt.
//!
//! A text that is longer than the model's context loses its beginning, as lm-evaluation-harness has it; a chat, whose beginning
//! says who speaks, is refused.

use crate::Error;
use crate::host::floats;
use crate::model::LanguageModel;
use crate::pack::{Fate, Passes};
use crate::prefix::Sequence;
use crate::queue::Queue;
use sst_eval::{ContinuationScore, ScoreRequest};
use tch::Tensor;

/// Rows of the head's output computed at once.
const HEAD_ROWS: usize = 512;

/// A context of one request with the continuations that follow it.
struct Task {
    request: usize,
    context: Vec<u32>,
    /// Their numbers in the request and their tokens.
    continuations: Vec<(usize, Vec<u32>)>,
}

/// A token whose probability is asked for.
struct Target {
    /// Row of the hidden states that predict it.
    row: usize,
    token: u32,
    request: usize,
    continuation: usize,
}

impl LanguageModel {
    /// Log-likelihoods of the continuations of every request, in request order.
    pub(crate) fn score_requests(
        &self,
        requests: &[ScoreRequest],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<ContinuationScore>>, Error> {
        let _guard = tch::no_grad_guard();
        let mut cut = 0;
        let tasks: Vec<Vec<Task>> = requests
            .iter()
            .enumerate()
            .map(|(at, request)| self.tasks(at, request, &mut cut))
            .collect::<Result<_, _>>()?;
        if cut > 0 {
            tracing::warn!(
                "{cut} prompts are longer than the model's context of {} tokens and lose their beginning; ask fewer worked examples \
                 (mmlu_shots)",
                self.max_position()
            );
        }
        let mut left: Vec<usize> = tasks.iter().map(Vec::len).collect();
        let mut done = left.iter().filter(|n| **n == 0).count();
        let tasks: Vec<Task> = tasks.into_iter().flatten().collect();
        let adapters = adapters(requests.iter().map(|r| r.adapter.as_deref()));
        let sequences: Vec<Sequence> = tasks
            .iter()
            .map(|task| Sequence {
                adapter: place(&adapters, requests[task.request].adapter.as_deref()),
                tokens: &task.context,
                branches: task.continuations.iter().map(|(_, c)| &c[..c.len() - 1]).collect(),
            })
            .collect();
        let mut scores: Vec<Vec<ContinuationScore>> = requests
            .iter()
            .map(|request| {
                let none = ContinuationScore {
                    log_likelihood: 0.0,
                    tokens: 0,
                };
                vec![none; request.continuations.len()]
            })
            .collect();
        let mut passes = Passes::new(self, &adapters, 0)?;
        let mut queue = Queue::new(&sequences, Fate::Dropped);
        loop {
            let due = queue.take(self.limits.rows, passes.tokens());
            if due.segments.is_empty() {
                return Ok(scores);
            }
            let (mut picked, mut targets) = (Vec::new(), Vec::new());
            for leaf in &due.leaves {
                let fed: usize = sequences[leaf.of].branches.iter().map(|b| b.len()).sum();
                tasks[leaf.of].targets(picked.len(), &mut targets);
                picked.extend((leaf.end..=leaf.end + fed).map(|token| token as i64));
            }
            let hidden = passes.forward(&[], &due.segments, &picked)?;
            for (target, log_p) in targets.iter().zip(self.log_probabilities(&hidden, &targets)) {
                let score = &mut scores[target.request][target.continuation];
                score.log_likelihood += f64::from(log_p);
                score.tokens += 1;
            }
            due.closed.iter().for_each(|&node| passes.close(node));
            for leaf in &due.leaves {
                let request = tasks[leaf.of].request;
                left[request] -= 1;
                done += usize::from(left[request] == 0);
            }
            progress(done);
        }
    }

    /// The request's contexts: one, unless its tokens differ between continuations. `cut` counts the requests that lose tokens.
    fn tasks(&self, at: usize, request: &ScoreRequest, cut: &mut usize) -> Result<Vec<Task>, Error> {
        let mut loses = false;
        let mut tasks: Vec<Task> = Vec::new();
        let refused = |reason| {
            let id = format!("score request {at}");
            Err(Error::Example { id, reason })
        };
        for (number, continuation) in request.continuations.iter().enumerate() {
            let (mut context, continuation) = match &request.prompt {
                sst_data::Prompt::Text(text) => self.tokenizer.encode_continuation(text, continuation)?,
                chat => self.tokenizer.encode_example(chat, continuation)?,
            };
            if context.is_empty() || continuation.is_empty() {
                return refused("context and continuation must both have at least one token".into());
            }
            // The last token is predicted and never read.
            let (needed, limit) = (context.len() + continuation.len() - 1, self.max_position());
            let beyond = needed.saturating_sub(limit);
            if beyond > 0 {
                if matches!(request.prompt, sst_data::Prompt::Chat(_)) || beyond >= context.len() {
                    return refused(format!(
                        "context and continuation need {needed} positions, the model has {limit}: leave longer items out"
                    ));
                }
                context.drain(..beyond);
                loses = true;
            }
            match tasks.iter_mut().find(|task| task.context == context) {
                Some(task) => task.continuations.push((number, continuation)),
                None => tasks.push(Task {
                    request: at,
                    context,
                    continuations: vec![(number, continuation)],
                }),
            }
        }
        *cut += usize::from(loses);
        Ok(tasks)
    }

    /// log p of every target, whose rows ascend, from hidden states [rows, d_model].
    fn log_probabilities(&self, hidden: &Tensor, targets: &[Target]) -> Vec<f32> {
        let chunks = targets.chunk_by(|a, b| a.row / HEAD_ROWS == b.row / HEAD_ROWS);
        let log_p = chunks.flat_map(|targets| {
            let from = targets[0].row / HEAD_ROWS * HEAD_ROWS;
            let rows = HEAD_ROWS.min(hidden.size()[0] as usize - from);
            let logits = self.decoder.logits(&hidden.narrow(0, from as i64, rows as i64)); // [rows, vocab]
            let vocab = logits.size()[1];
            let row: Vec<i64> = targets.iter().map(|t| (t.row - from) as i64).collect();
            let at: Vec<i64> = targets
                .iter()
                .zip(&row)
                .map(|(t, r)| r * vocab + i64::from(t.token))
                .collect();
            let sums = logits
                .logsumexp([-1i64].as_slice(), false)
                .index_select(0, &self.long(&row));
            floats(&(logits.view(-1).index_select(0, &self.long(&at)) - sums))
        });
        log_p.collect()
    }
}

impl Task {
    /// Adds the tokens of all continuations; `row` is the row of the context's last token, and the branches' tokens follow.
    fn targets(&self, row: usize, targets: &mut Vec<Target>) {
        let target = |row, token, continuation| Target {
            row,
            token,
            request: self.request,
            continuation,
        };
        targets.extend(self.continuations.iter().map(|(number, c)| target(row, c[0], *number)));
        let rest = self.continuations.iter();
        let rest = rest.flat_map(|(number, c)| c[1..].iter().map(|&token| (token, *number)));
        targets.extend(
            rest.zip(row + 1..)
                .map(|((token, number), row)| target(row, token, number)),
        );
    }
}

/// The adapters asked for, each once and in order.
pub(crate) fn adapters<'a>(names: impl Iterator<Item = Option<&'a str>>) -> Vec<Option<&'a str>> {
    names.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// Where `name` is among `adapters`.
pub(crate) fn place(adapters: &[Option<&str>], name: Option<&str>) -> usize {
    adapters.partition_point(|adapter| *adapter < name)
}
