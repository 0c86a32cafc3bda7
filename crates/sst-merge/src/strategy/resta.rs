//! RESTA: the safety vector added to the fine-tuned model, which may be thinned out before.
//!
//! theta = theta_fine-tuned + gamma delta_safe (Bhardwaj et al. 2024, "Language models are Homer Simpson! Safety re-alignment
//! of fine-tuned language models through task arithmetic"); on adapters
//!
//! M = DARE_p(U) + gamma S.
//!
//! DARE_p (Yu et al. 2024, "Language models are super Mario") sets each entry of a change to 0 with
//! probability p and divides the others by 1 - p. It is drawn entry by entry of every utility adapter's dense change, by a
//! counter, so that threads and order change nothing.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `gamma` | 1 | weight of S; the authors choose it on validation data |
//! | `drop` | 0 | p, in [0, 1); 0 is plain RESTA, greater the variant RESTA_d |
//! | `rank` | none | cuts every module to this rank; the sum of the ranks when absent |
//!
//! The authors' safety vector is theta_aligned - theta_unaligned, with the unaligned model made by harmful fine-tuning; S
//! takes its place. Without `drop` the sum is exact. With it the change has full rank, and the cut to `rank` loses much of
//! what the drop added: `output.relative_error` says how much.

use super::parts::{Part, by_module, parts, shape, utility_and_safety};
use super::{MergeStrategy, check_rank, check_share, check_weight};
use crate::merged::Cut;
use crate::{Counter, Error, MergeInputs, Merged};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use sst_adapter::{LowRank, ModulePath};

const NAME: &str = "resta";

/// Settings of [`Resta`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestaConfig {
    /// Weight of S.
    pub gamma: f64,
    /// p: the probability that an entry of U is dropped.
    pub drop: f64,
    /// Rank of the result; the sum of the ranks when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Default for RestaConfig {
    fn default() -> Self {
        Self {
            gamma: 1.0,
            drop: 0.0,
            rank: None,
        }
    }
}

impl RestaConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a gamma that is NaN or infinite, a drop outside [0, 1), or rank 0.
    pub fn check(self) -> Result<Resta, Error> {
        check_weight(NAME, "gamma", self.gamma)?;
        check_share(NAME, "drop", self.drop)?;
        if self.drop == 1.0 {
            return Err(Error::Setting {
                strategy: NAME,
                setting: "drop",
                value: 1.0,
                reason: "drops everything; it must be less than 1",
            });
        }
        check_rank(NAME, self.rank)?;
        Ok(Resta { config: self })
    }
}

/// M = DARE_p(U) + gamma S.
#[derive(Debug, Clone, PartialEq)]
pub struct Resta {
    config: RestaConfig,
}

impl MergeStrategy for Resta {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::Resta(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let mut merged = if self.config.drop == 0.0 {
            self.exact(inputs)?
        } else {
            self.dropped(inputs)?
        };
        merged.diagnostics.norm_safety_used = Some(merged.diagnostics.norm_safety);
        Ok(merged)
    }
}

impl Resta {
    fn exact(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        let merged = by_module(inputs, |path| {
            let [utility, safety] = utility_and_safety(inputs, path)?;
            Ok(LowRank::stack(&[(1.0, &utility), (self.config.gamma, &safety)])?)
        })?;
        Merged::from_low_rank(inputs, merged, self.config.rank)
    }

    fn dropped(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        let cuts = by_module(inputs, |path| {
            let parts = parts(inputs, path);
            let rank = self
                .config
                .rank
                .unwrap_or(parts.iter().map(|part| part.change.rank()).sum());
            let dense = self.dense(inputs, path, &parts);
            let square = dense.iter().map(|x| f64::from(*x).powi(2)).sum();
            let (change, error) = LowRank::from_dense(dense.view(), rank)?;
            Ok(Cut { change, square, error })
        })?;
        Merged::from_cut(inputs, cuts)
    }

    /// DARE_p(U) + gamma S of one module, `[d_out, d_in]`.
    fn dense(&self, inputs: &MergeInputs<'_>, path: &ModulePath, parts: &[Part]) -> Array2<f32> {
        let utilities = inputs.utilities.len();
        let [d_out, d_in] = shape(inputs, path);
        let mut sum = Array2::<f32>::zeros((d_out, d_in));
        for Part {
            adapter,
            weight,
            change,
        } in parts
        {
            let mut dense = change.dense();
            let factor = if *adapter == utilities {
                self.config.gamma * weight
            } else {
                let counter = Counter::new(inputs.seed, &format!("{adapter} {path}"));
                for (i, entry) in dense.iter_mut().enumerate() {
                    if counter.uniform(i as u64) < self.config.drop {
                        *entry = 0.0;
                    }
                }
                weight / utilities as f64 / (1.0 - self.config.drop)
            };
            sum.zip_mut_with(&dense, |sum, x| {
                *sum = (f64::from(*sum) + factor * f64::from(*x)) as f32
            });
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        for drop in [f64::NAN, -0.1, 1.0, 2.0] {
            let config = RestaConfig {
                drop,
                ..RestaConfig::default()
            };
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains("`drop`"), "{message}");
        }
    }
}
