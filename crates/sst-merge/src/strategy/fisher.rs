//! Fisher merging: the mean of the adapters' entries, each weighted by its Fisher information.
//!
//! phi = sum_t c_t F_t phi_t / sum_t c_t F_t, entry by entry (Matena & Raffel 2022, "Merging models with Fisher-weighted
//! averaging"): the mode of the product of Gaussians with means phi_t and precisions c_t F_t. The base model
//! does not change, so A and B are all that is averaged.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `normalize` | true | divides every F_t by its norm \|\|F_t\|\|, so that a loss on another scale weighs the same |
//! | `floor` | 1e-6 | least value of an entry of F |
//! | `favor_target` | true | raises only the first utility adapter's F to the floor, so that it wins where none knows |
//!
//! The settings, their order and their defaults are those of the authors' code. c_t are the weights of [`MergeInputs`]. An
//! entry without any weight (c_t F_t = 0 for all t) is the first adapter's. Needs adapters of one layout and one diagonal
//! Fisher each; their estimator's ridge is not added.
//!
//! A Gaussian per entry of A and B says nothing about their product: a LoRA is as well described by (A / c, c B), which
//! has the same change and another mean.

use super::{MergeStrategy, check_not_negative};
use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};
use sst_subspace::DiagonalFisher;

const NAME: &str = "fisher";

/// Settings of [`FisherMerging`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FisherMergingConfig {
    /// Whether every Fisher is divided by its norm.
    pub normalize: bool,
    /// Least value of an entry of a Fisher, before it is divided.
    pub floor: f64,
    /// Whether the floor is the first adapter's alone.
    pub favor_target: bool,
}

impl Default for FisherMergingConfig {
    fn default() -> Self {
        Self {
            normalize: true,
            floor: 1e-6,
            favor_target: true,
        }
    }
}

impl FisherMergingConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a floor that is NaN, infinite or negative.
    pub fn check(self) -> Result<FisherMerging, Error> {
        check_not_negative(NAME, "floor", self.floor)?;
        Ok(FisherMerging { config: self })
    }
}

/// phi = sum_t c_t F_t phi_t / sum_t c_t F_t.
#[derive(Debug, Clone, PartialEq)]
pub struct FisherMerging {
    config: FisherMergingConfig,
}

impl MergeStrategy for FisherMerging {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::FisherMerging(self.config.clone()))
    }

    fn needs(&self) -> super::Needs {
        super::Needs {
            diagonals: true,
            ..super::Needs::default()
        }
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        inputs.check_layout()?;
        let fishers = inputs.diagonals.ok_or(Error::NoDiagonals { strategy: NAME })?;
        check(inputs, fishers)?;
        let phis: Vec<Vec<f32>> = inputs.adapters().map(|adapter| adapter.to_flat()).collect();
        let shares: Vec<f64> = fishers.iter().map(|fisher| self.share(fisher)).collect();
        let layout = inputs.safety.layout();
        let mut merged = Vec::with_capacity(layout.len());
        for slot in layout.slots() {
            let module = slot.module();
            if inputs.weights.is_some_and(|weights| weights.skips(&module)) {
                merged.extend(std::iter::repeat_n(0.0, slot.len()));
                continue;
            }
            let coefficients: Vec<f64> = (0..phis.len()).map(|t| shares[t] * inputs.weight(t, &module)).collect();
            merged.extend(slot.range().map(|i| {
                let (mut numerator, mut denominator) = (0.0, 0.0);
                for (t, phi) in phis.iter().enumerate() {
                    let precision = coefficients[t] * self.entry(t, fishers[t].values[i]);
                    numerator += precision * f64::from(phi[i]);
                    denominator += precision;
                }
                if denominator == 0.0 {
                    phis[0][i]
                } else {
                    (numerator / denominator) as f32
                }
            }));
        }
        let utility = inputs.utility_phi()?;
        let safety = &phis[phis.len() - 1];
        let mut merged = Merged::from_phi(inputs, &utility, safety, safety, &merged)?;
        // S is averaged in, not added.
        merged.diagnostics.norm_safety_used = None;
        Ok(merged)
    }
}

impl FisherMerging {
    /// The factor that brings a Fisher to the others' scale; 1 for F = 0, which no factor changes.
    fn share(&self, fisher: &DiagonalFisher) -> f64 {
        let norm = fisher.values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if self.config.normalize && norm > 0.0 {
            1.0 / norm
        } else {
            1.0
        }
    }

    fn entry(&self, adapter: usize, value: f32) -> f64 {
        let floor = if adapter == 0 || !self.config.favor_target {
            self.config.floor
        } else {
            0.0
        };
        f64::from(value).max(floor)
    }
}

/// One Fisher per adapter, each of the adapters' layout, and weights that leave a mean a mean.
fn check(inputs: &MergeInputs<'_>, fishers: &[DiagonalFisher]) -> Result<(), Error> {
    let (expected, got) = (inputs.utilities.len() + 1, fishers.len());
    if expected != got {
        return Err(Error::DiagonalsCount { expected, got });
    }
    let layout = inputs.safety.layout();
    for (i, fisher) in fishers.iter().enumerate() {
        let name = format!("the diagonal Fisher of {}", inputs.name(i));
        layout.ensure_same(&fisher.layout, ("the adapters", &name))?;
        fisher.check()?;
        for module in inputs.safety.modules.keys() {
            let weight = inputs.weight(i, module);
            if weight < 0.0 {
                let reason = format!("{weight} in module {module}: a Fisher-weighted mean takes no negative weight");
                return Err(Error::Weights { reason });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        for floor in [f64::NAN, f64::INFINITY, -1e-9] {
            let config = FisherMergingConfig {
                floor,
                ..FisherMergingConfig::default()
            };
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains("`floor`"), "{message}");
        }
    }
}
