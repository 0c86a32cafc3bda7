//! Likelihood of continuations by what a server tells of log-probabilities.
//!
//! `echo`: the server repeats prompt and continuation with the log-probability of every token. How many tokens belong to
//! the continuation is the difference of the two token counts, of the prompt alone and of the whole: the rule by which
//! our own tokenizer splits them, and lm-evaluation-harness (white space at the prompt's end goes to the continuation).
//!
//! Servers have been seen to echo the columns one place off. Before the first score, a token's echoed log-probability is
//! therefore compared with the one that the same token has among the candidates for the next place.
//!
//! `next-token`: the log-probability of a continuation of one token, read from the list of likeliest next tokens.

use super::{Endpoint, EndpointError, EndpointScoring, pool, wire};
use crate::{ContinuationScore, ScoreRequest};
use serde_json::json;
use sst_data::Prompt;

/// Kernels for prompts and for single tokens differ by hundredths of a nat; a shifted column differs by whole nats.
const ALIKE: f64 = 0.25;
const PROBE: &str = "The quick brown fox jumps over the lazy";

impl Endpoint {
    pub(super) fn weigh(
        &mut self,
        requests: &[ScoreRequest],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<ContinuationScore>>, EndpointError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        if self.config.scoring == EndpointScoring::Echo && !self.trusted_echo {
            self.check_echo()?;
            self.trusted_echo = true;
        }
        let this = &*self;
        let weigh = |request: &ScoreRequest| this.weigh_one(request);
        pool::in_order(requests, this.config.concurrency, weigh, progress)
    }

    fn weigh_one(&self, request: &ScoreRequest) -> Result<Vec<ContinuationScore>, EndpointError> {
        let model = self.served_name(request.adapter.as_deref())?;
        let Prompt::Text(text) = &request.prompt else {
            let problem = "a chat's likelihood needs the model's chat template, which a server keeps to itself; leave out the \
                 benchmarks that weigh answers to chats";
            return Err(self.cannot(problem));
        };
        let kept = text.trim_end();
        if kept.is_empty() {
            return Err(self.cannot("a continuation of nothing cannot be weighed"));
        }
        let ends = request
            .continuations
            .iter()
            .map(|end| format!("{}{end}", &text[kept.len()..]));
        match self.config.scoring {
            EndpointScoring::Echo => {
                let alone = self.echo(model, kept)?.prompt;
                let score = |end: String| {
                    let whole = self.echo(model, &format!("{kept}{end}"))?;
                    whole.beyond(alone).ok_or_else(|| {
                        self.cannot(&format!(
                            "`{end}` adds no token to its prompt, or none with a finite log-probability"
                        ))
                    })
                };
                ends.map(score).collect()
            }
            EndpointScoring::NextToken => {
                let candidates = self.next_tokens(model, kept)?;
                let score = |end: String| {
                    let log_likelihood = *candidates.get(&end).ok_or_else(|| {
                        self.cannot(&format!(
                            "`{end}` is not among the {} likeliest next tokens; raise `top_logprobs`, or use `scoring` = \"echo\" \
                             where the server has it (vLLM, llama-cpp-python)",
                            candidates.len()
                        ))
                    })?;
                    Ok(ContinuationScore {
                        log_likelihood,
                        tokens: 1,
                    })
                };
                ends.map(score).collect()
            }
        }
    }

    /// The token counts of a text and the log-probabilities of its tokens.
    fn echo(&self, model: &str, text: &str) -> Result<Echo, EndpointError> {
        // One token more is generated than needed: 0 means "no limit" to llama-cpp-python.
        let mut body = wire::body(&self.config, model, ("prompt", json!(text)), 1);
        body["echo"] = json!(true);
        body["logprobs"] = json!(1);
        let reply = self.client.post("completions", &body)?;
        let usage = reply.usage();
        let (Some(prompt), Some(generated)) = (usage.prompt_tokens, usage.completion_tokens) else {
            return Err(
                self.cannot("the reply lacks `usage`, without which prompt and continuation cannot be told apart")
            );
        };
        let logprobs = reply.token_logprobs().unwrap_or_default();
        // A server may leave out the token at the very beginning, which nothing precedes.
        if logprobs.len() + 1 < prompt + generated || logprobs.len() <= generated {
            return Err(self.cannot(
                "the reply echoes no log-probabilities of the prompt; llama-cpp-python needs `--logits_all true`, and for \
                 llama.cpp's own server there is `scoring` = \"next-token\"",
            ));
        }
        Ok(Echo {
            prompt,
            logprobs: logprobs[..logprobs.len() - generated].to_vec(),
        })
    }

    /// The likeliest next tokens with their log-probabilities.
    fn next_tokens(&self, model: &str, text: &str) -> Result<std::collections::BTreeMap<String, f64>, EndpointError> {
        let mut body = wire::body(&self.config, model, ("prompt", json!(text)), 1);
        body["logprobs"] = json!(self.config.top_logprobs);
        let candidates = self.client.post("completions", &body)?.candidates();
        let total: f64 = candidates.values().map(|l| l.exp()).sum();
        // Rounded to a few digits by some servers.
        if candidates.is_empty() || !(total > 0.0 && total < 1.001) {
            return Err(self.cannot(&format!(
                "the reply lists {} likeliest next tokens with a total probability of {total:.3}; it offers no log-probabilities \
                 that can be used",
                candidates.len()
            )));
        }
        Ok(candidates)
    }

    /// Compares the two ways to the same number.
    fn check_echo(&self) -> Result<(), EndpointError> {
        let model = self.model();
        let alone = self.echo(model, PROBE)?.prompt;
        let mut candidates: Vec<(String, f64)> = self.next_tokens(model, PROBE)?.into_iter().collect();
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
        let plain =
            |text: &str| text.starts_with(' ') && text[1..].chars().all(|c| c.is_ascii_alphabetic()) && text.len() > 1;
        for (token, direct) in candidates.iter().filter(|(token, _)| plain(token)) {
            let echoed = self.echo(model, &format!("{PROBE}{token}"))?.beyond(alone);
            let Some(ContinuationScore {
                log_likelihood,
                tokens: 1,
            }) = echoed
            else {
                continue;
            };
            if (log_likelihood - direct).abs() <= ALIKE {
                return Ok(());
            }
            return Err(self.cannot(&format!(
                "after `{PROBE}` the next token `{token}` has log-probability {direct:.2}, but echoed it has {log_likelihood:.2}: \
                 this server's echo cannot be trusted; use another server, or `scoring` = \"next-token\""
            )));
        }
        Err(self.cannot(
            "no next token was found by which to check its echoed log-probabilities; use `scoring` = \"next-token\"",
        ))
    }

    fn cannot(&self, problem: &str) -> EndpointError {
        EndpointError::Scoring {
            url: self.config.url.clone(),
            problem: problem.to_owned(),
        }
    }
}

struct Echo {
    /// Tokens of the text, one at the beginning that the server adds included.
    prompt: usize,
    logprobs: Vec<Option<f64>>,
}

impl Echo {
    /// The likelihood of what lies beyond the first `alone` tokens.
    fn beyond(&self, alone: usize) -> Option<ContinuationScore> {
        let tokens = self.prompt.checked_sub(alone).filter(|&n| n > 0)?;
        let from = self.logprobs.len().checked_sub(tokens)?;
        let log_likelihood: f64 = self.logprobs[from..].iter().copied().sum::<Option<f64>>()?;
        log_likelihood
            .is_finite()
            .then_some(ContinuationScore { log_likelihood, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_is_what_lies_beyond_whether_or_not_the_first_token_is_echoed() {
        let with_first = Echo {
            prompt: 4,
            logprobs: vec![None, Some(-1.0), Some(-2.0), Some(-4.0)],
        };
        let without = Echo {
            prompt: 4,
            logprobs: vec![Some(-1.0), Some(-2.0), Some(-4.0)],
        };
        for echo in [with_first, without] {
            let score = echo.beyond(2).unwrap();
            assert_eq!((score.log_likelihood, score.tokens), (-6.0, 2));
            assert_eq!(echo.beyond(4), None);
            assert_eq!(echo.beyond(5), None);
        }
        assert_eq!(
            Echo {
                prompt: 2,
                logprobs: vec![None, Some(-1.0)]
            }
            .beyond(0),
            None
        );
    }
}
