//! One forward and one backward pass of a batch: what training, Fisher information and their benchmarks share.
//!
//! The base weights are frozen, so the backward pass is written out by hand: it computes the gradients at inputs and outputs of
//! the linears and nothing else, and keeps one layer's at a time.

use crate::Error;
use crate::counter::uniform;
use crate::decoder::{Reading, Targets};
use crate::likelihood::{Encoded, TokenLosses};
use crate::model::LanguageModel;
use sst_adapter::ModulePath;
use std::time::{Duration, Instant};
use tch::{Kind, Tensor};

/// What a scored token weighs in the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TokenWeight {
    /// One over the number of scored tokens of its row: the loss is the sum of the rows' means.
    RowMean,
    /// The same for all.
    Each(f64),
}

/// A loss and the model that it is taken on.
#[derive(Debug, Clone, Copy)]
pub struct Objective<'a> {
    /// Adapters on top of the base weights, by name.
    pub adapters: &'a [&'a str],
    /// Score tokens drawn from the model's own prediction at each scored position, given the data before it, instead of the
    /// tokens that are there. The draw depends on this seed, the example's identifier and the position alone.
    pub draw_labels: Option<u64>,
    /// What each of them weighs.
    pub weight: TokenWeight,
}

/// What a backward pass measured on its way.
#[derive(Debug)]
pub struct BackwardReport {
    /// Losses of the scored tokens, not weighted.
    pub losses: TokenLosses,
    /// Time in the forward pass, the loss and its gradient included. Work queued on a GPU may be counted later.
    pub forward: Duration,
    /// Time in the backward pass, what was spent in the callback excluded.
    pub backward: Duration,
    /// Time in the callback.
    pub shown: Duration,
}

impl LanguageModel {
    /// Differentiates the objective on a batch and shows every input whose linears are among `wanted`, from the last layer
    /// to the first; only that one reading is in memory.
    ///
    /// # Errors
    /// [`Error::Setting`] for a model in f16, [`Error::UnknownAdapter`] when an adapter is not loaded, [`Error::Torch`] most often
    /// for want of memory, or what `show` returns.
    pub fn backward<E: From<Error>>(
        &self,
        batch: &[&Encoded],
        objective: &Objective,
        wanted: &dyn Fn(&ModulePath) -> bool,
        show: &mut dyn FnMut(Reading) -> Result<(), E>,
    ) -> Result<BackwardReport, E> {
        if self.decoder.kind() == Kind::Half {
            let refused = Error::Setting {
                key: "dtype",
                value: "f16".into(),
                reason: "small gradients vanish in f16; use bf16 or f32",
            };
            return Err(refused.into());
        }
        let started = Instant::now();
        let stack = self.stack(objective.adapters)?;
        let (ids, mask) = self.right_padded(batch)?;
        let scored = self.scored(batch, ids.size()[1]);
        let (hidden, tape) = self.decoder.traced(&ids, &mask, &stack, scored.at, wanted); // [scored, d_model]
        let targets = match objective.draw_labels {
            None => Targets::Given(scored.targets),
            Some(seed) => Targets::Drawn(draws(batch, seed, &hidden)),
        };
        let weights: Vec<f32> = batch
            .iter()
            .flat_map(|row| {
                let weight = match objective.weight {
                    TokenWeight::RowMean => 1.0 / row.scored() as f64,
                    TokenWeight::Each(weight) => weight,
                };
                std::iter::repeat_n(weight as f32, row.scored())
            })
            .collect();
        let weights = Tensor::from_slice(&weights).to_device(hidden.device());
        let (losses, gradient) = self.decoder.loss_gradient(&hidden, &targets, &weights);
        drop(hidden);
        let forward = started.elapsed();

        let started = Instant::now();
        let mut shown = Duration::ZERO;
        let mut timed = |reading| {
            let started = Instant::now();
            let outcome = show(reading);
            shown += started.elapsed();
            outcome
        };
        self.decoder.backward(tape, gradient, &stack, wanted, &mut timed)?;
        let counts = batch.iter().map(|row| row.scored()).collect();
        Ok(BackwardReport {
            losses: TokenLosses { losses, counts },
            forward,
            backward: started.elapsed().saturating_sub(shown),
            shown,
        })
    }
}

/// A number from U(0, 1) for every scored token: f32 [scored, 1] on the device of `like`.
fn draws(batch: &[&Encoded], seed: u64, like: &Tensor) -> Tensor {
    let draws: Vec<f32> = batch
        .iter()
        .flat_map(|row| (row.scored_from..row.ids.len()).map(|t| uniform(seed, &row.id, t, 0.0, 1.0)))
        .collect();
    Tensor::from_slice(&draws).unsqueeze(1).to_device(like.device())
}
