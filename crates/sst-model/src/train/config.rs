//! Settings of a fine-tuning run: raw as a user gives them, then checked.

use crate::Error;
use serde::{Deserialize, Serialize};

/// Settings of `sst train`; every field has a default.
///
/// | field | meaning | default |
/// | --- | --- | --- |
/// | `r` | rank of the adapter | 16 |
/// | `alpha` | LoRA alpha; the update is scaled by alpha / r | 32 |
/// | `rslora` | scale by alpha / sqrt r instead | false |
/// | `targets` | last path component of the linears that get an adapter | q, k, v, o |
/// | `epochs` | passes over the examples | 3 |
/// | `batch_size` | examples per forward and backward pass at most; rows of very different length go in passes of their own | 8 |
/// | `gradient_accumulation` | passes per optimizer step | 1 |
/// | `learning_rate` | peak of the schedule | 5e-4 |
/// | `warmup_ratio` | share of steps of linear warm-up; cosine decay to 0 follows | 0.05 |
/// | `weight_decay` | decoupled, on both factors | 0 |
/// | `max_grad_norm` | global gradient norm is clipped to this | 1 |
/// | `max_tokens` | longer examples are left out and counted, as are those beyond the model's context | 1024 |
/// | `checkpoint_every` | optimizer steps between checkpoints; 0 writes none | 50 |
/// | `seed` | initial A and the order of examples | 0 |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the table above documents the fields together
pub struct TrainConfig {
    pub r: usize,
    pub alpha: f64,
    pub rslora: bool,
    pub targets: Vec<String>,
    pub epochs: usize,
    pub batch_size: usize,
    pub gradient_accumulation: usize,
    pub learning_rate: f64,
    pub warmup_ratio: f64,
    pub weight_decay: f64,
    pub max_grad_norm: f64,
    pub max_tokens: usize,
    pub checkpoint_every: usize,
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            r: 16,
            alpha: 32.0,
            rslora: false,
            targets: ["q_proj", "k_proj", "v_proj", "o_proj"].map(String::from).to_vec(),
            epochs: 3,
            batch_size: 8,
            gradient_accumulation: 1,
            learning_rate: 5e-4,
            warmup_ratio: 0.05,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            max_tokens: 1024,
            checkpoint_every: 50,
            seed: 0,
        }
    }
}

/// A [`TrainConfig`] whose values lie in their ranges.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedTrainConfig(TrainConfig);

impl CheckedTrainConfig {
    /// The values.
    pub fn get(&self) -> &TrainConfig {
        &self.0
    }
}

impl TrainConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the setting and its range.
    pub fn check(self) -> Result<CheckedTrainConfig, Error> {
        for (key, value) in [
            ("r", self.r),
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("gradient_accumulation", self.gradient_accumulation),
            ("max_tokens", self.max_tokens),
            ("targets", self.targets.len()),
        ] {
            if value == 0 {
                return Err(Error::Setting {
                    key,
                    value: "0".into(),
                    reason: "at least 1",
                });
            }
        }
        for (key, value) in [
            ("alpha", self.alpha),
            ("learning_rate", self.learning_rate),
            ("max_grad_norm", self.max_grad_norm),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::Setting {
                    key,
                    value: value.to_string(),
                    reason: "positive and finite",
                });
            }
        }
        if !(0.0..1.0).contains(&self.warmup_ratio) {
            let value = self.warmup_ratio.to_string();
            return Err(Error::Setting {
                key: "warmup_ratio",
                value,
                reason: "at least 0, below 1",
            });
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            let value = self.weight_decay.to_string();
            return Err(Error::Setting {
                key: "weight_decay",
                value,
                reason: "finite, at least 0",
            });
        }
        Ok(CheckedTrainConfig(self))
    }
}

impl CheckedTrainConfig {
    /// Learning rate of `step` (from 0) out of `steps`: linear warm-up, then half a cosine down to 0.
    pub(crate) fn learning_rate(&self, step: usize, steps: usize) -> f64 {
        let peak = self.0.learning_rate;
        let warmup = (self.0.warmup_ratio * steps as f64).ceil();
        let step = step as f64;
        if step < warmup {
            return peak * (step + 1.0) / warmup;
        }
        let progress = (step - warmup) / (steps as f64 - warmup).max(1.0);
        peak * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_rises_linearly_and_falls_as_a_cosine() {
        let config = TrainConfig {
            learning_rate: 1.0,
            warmup_ratio: 0.2,
            ..Default::default()
        }
        .check()
        .unwrap();
        let rates: Vec<f64> = (0..10).map(|s| config.learning_rate(s, 10)).collect();
        assert_eq!(rates[0], 0.5);
        assert_eq!(rates[1], 1.0);
        assert_eq!(rates[2], 1.0);
        assert!((rates[6] - 0.5).abs() < 1e-12, "{rates:?}");
        assert!(rates.windows(2).skip(2).all(|w| w[1] < w[0]), "{rates:?}");
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let default = TrainConfig::default;
        for (config, key) in [
            (TrainConfig { r: 0, ..default() }, "r ="),
            (
                TrainConfig {
                    learning_rate: f64::NAN,
                    ..default()
                },
                "learning_rate",
            ),
            (
                TrainConfig {
                    warmup_ratio: 1.0,
                    ..default()
                },
                "warmup_ratio",
            ),
            (
                TrainConfig {
                    weight_decay: -1.0,
                    ..default()
                },
                "weight_decay",
            ),
            (
                TrainConfig {
                    targets: vec![],
                    ..default()
                },
                "targets",
            ),
        ] {
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
