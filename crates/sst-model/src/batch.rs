//! Rows of tokens, cut into padded batches of similar length under a row and a token budget.

use crate::Error;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Rows up to this long are alike: what padding costs among them is less than another pass.
const SHORT: usize = 64;

/// How much one forward pass may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLimits {
    /// Rows at most.
    pub rows: usize,
    /// Tokens at most, padding included; a single longer row is a batch of its own.
    pub tokens: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { rows: 32, tokens: 4096 }
    }
}

impl BatchLimits {
    /// Checks that both limits are positive.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the limit that is 0.
    pub fn check(self) -> Result<Self, Error> {
        for (key, value) in [("batch rows", self.rows), ("batch tokens", self.tokens)] {
            if value == 0 {
                return Err(Error::Setting {
                    key,
                    value: "0".into(),
                    reason: "at least 1",
                });
            }
        }
        Ok(self)
    }

    /// Groups row numbers into batches, longest rows first; ties keep their order.
    ///
    /// A row less than half as long as the first of its batch begins a new one: a long row among short ones would cost as
    /// much as a batch of long ones.
    pub fn plan(&self, lengths: &[usize]) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut longest = 0;
        for i in order {
            let alike = 2 * lengths[i] >= longest || longest <= SHORT;
            match batches.last_mut() {
                Some(batch) if alike && batch.len() < self.rows && (batch.len() + 1) * longest <= self.tokens => {
                    batch.push(i);
                }
                _ => {
                    longest = lengths[i];
                    batches.push(vec![i]);
                }
            }
        }
        batches
    }
}

/// Which end of a short row is filled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Before the first token: all rows end together.
    Left,
    /// After the last token: as in training, where no mask is then needed.
    Right,
}

/// Pads rows to the longest: ids int64 [batch, seq] and the number of padding tokens on the left of each row. The filler
/// is token 0: no real token ever sees it.
///
/// # Errors
/// [`Error::Example`] when a token is not below `vocab`.
pub(crate) fn pad(rows: &[&[u32]], side: Side, vocab: usize, device: Device) -> Result<(Tensor, Vec<i64>), Error> {
    let seq = rows.iter().map(|r| r.len()).max().unwrap_or(0);
    let mut ids: Vec<i64> = Vec::with_capacity(rows.len() * seq);
    let mut lefts = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(token) = row.iter().find(|&&t| t as usize >= vocab) {
            let reason = format!("not among the model's {vocab} tokens; the tokenizer belongs to another model");
            return Err(Error::Example {
                id: format!("token {token}"),
                reason,
            });
        }
        let missing = seq - row.len();
        let left = if side == Side::Left { missing } else { 0 };
        ids.extend(std::iter::repeat_n(0, left));
        ids.extend(row.iter().map(|&t| i64::from(t)));
        ids.extend(std::iter::repeat_n(0, missing - left));
        lefts.push(left as i64);
    }
    let ids = Tensor::from_slice(&ids)
        .reshape([rows.len() as i64, seq as i64])
        .to_device(device);
    Ok((ids, lefts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_row_once_within_both_limits() {
        let lengths = [5, 90, 3, 40, 41, 8, 200, 7];
        let limits = BatchLimits { rows: 3, tokens: 100 };
        let plan = limits.plan(&lengths);
        let mut seen: Vec<usize> = plan.concat();
        seen.sort();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        for batch in &plan {
            let longest = batch.iter().map(|&i| lengths[i]).max().unwrap();
            let shortest = batch.iter().map(|&i| lengths[i]).min().unwrap();
            assert!(2 * shortest >= longest || longest <= SHORT, "{batch:?}");
            assert!(
                batch.len() <= 3 && (batch.len() == 1 || batch.len() * longest <= 100),
                "{batch:?}"
            );
        }
        assert_eq!(plan[0], [6]);
    }

    #[test]
    fn padding_lands_on_the_side_asked_for() {
        let rows: [&[u32]; 2] = [&[1, 2, 3], &[4]];
        let (ids, lefts) = pad(&rows, Side::Left, 5, Device::Cpu).unwrap();
        assert_eq!(Vec::<i64>::try_from(ids.flatten(0, -1)).unwrap(), [1, 2, 3, 0, 0, 4]);
        assert_eq!(lefts, [0, 2]);
        let (ids, lefts) = pad(&rows, Side::Right, 5, Device::Cpu).unwrap();
        assert_eq!(Vec::<i64>::try_from(ids.flatten(0, -1)).unwrap(), [1, 2, 3, 4, 0, 0]);
        assert_eq!(lefts, [0, 0]);
        let error = pad(&rows, Side::Right, 4, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("token 4"), "{error}");
    }
}
