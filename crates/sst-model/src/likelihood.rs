//! Teacher-forced log-likelihood: what training minimises and Fisher information differentiates.

use crate::Error;
use crate::batch::Side;
use crate::host::floats;
use crate::mask::Mask;
use crate::model::LanguageModel;
use sst_data::Example;
use tch::Tensor;

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

    /// Token numbers [batch, seq], padded on the right, and their mask.
    pub(crate) fn right_padded(&self, batch: &[&Encoded]) -> Result<(Tensor, Mask), Error> {
        let rows: Vec<&[u32]> = batch.iter().map(|e| e.ids.as_slice()).collect();
        let (ids, lefts) = self.pad(&rows, Side::Right)?;
        let mask = self.mask(&lefts, ids.size()[1]);
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
}
