//! Linear: the weighted mean of the changes.
//!
//! M = sum_t w_t delta W_t / sum_t w_t (Wortsman et al. 2022, "Model soups", the uniform soup where all w are equal; the
//! base model's weights drop out of the mean).
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `weight` | 1 | weight of the safety adapter; that of a utility adapter is 1 |
//! | `normalize` | true | divides by the sum of the weights, as mergekit's `linear` does by default |
//! | `convention` | delta | `peft-factors` adds A and B apart, see below |
//! | `rank` | none | cuts every module to this rank; the sum of the ranks when absent |
//!
//! Weights of [`MergeInputs`] multiply both. A module that an adapter lacks is a zero change, and its weight counts.
//!
//! `peft-factors` is PEFT's combination type `linear`: A = sum_t sign(w_t s_t) sqrt|w_t s_t| A_t and
//! B = sum_t sqrt|w_t s_t| B_t, so that B A holds, beside the changes, a cross term B_t A_u for every two adapters. It keeps
//! the rank, but it is not the mean of the changes: two copies of one adapter at weight 1/2 give that adapter doubled. It
//! is here for comparison only.

use super::stacked::stacked;
use super::task_arithmetic::weights;
use super::{MergeStrategy, check_rank, check_weight};
use crate::{Error, MergeInputs, Merged};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use sst_adapter::{LoraModule, LowRank, ModulePath};

const NAME: &str = "linear";

/// What is averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LinearConvention {
    /// The changes of the weights.
    #[default]
    Delta,
    /// A and B apart, with cross terms; ranks must be equal.
    PeftFactors,
}

/// Settings of [`Linear`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearConfig {
    /// Weight of the safety adapter.
    pub weight: f64,
    /// Whether the weights are divided by their sum.
    pub normalize: bool,
    /// What is averaged.
    pub convention: LinearConvention,
    /// Rank of the result; the sum of the ranks when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Default for LinearConfig {
    fn default() -> Self {
        Self {
            weight: 1.0,
            normalize: true,
            convention: LinearConvention::default(),
            rank: None,
        }
    }
}

impl LinearConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a weight that is NaN or infinite, or rank 0.
    pub fn check(self) -> Result<Linear, Error> {
        check_weight(NAME, "weight", self.weight)?;
        check_rank(NAME, self.rank)?;
        Ok(Linear { config: self })
    }
}

/// M = sum_t w_t delta W_t / sum_t w_t.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    config: LinearConfig,
}

impl MergeStrategy for Linear {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::Linear(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let shares = |path: &ModulePath| self.shares(inputs, path);
        let mean = match self.config.convention {
            LinearConvention::Delta => stacked(inputs, shares)?,
            LinearConvention::PeftFactors => inputs
                .modules()
                .into_iter()
                .map(|path| {
                    let sum = factors(inputs, &shares(&path)?, &path)?;
                    Ok((path, sum))
                })
                .collect::<Result<_, Error>>()?,
        };
        Merged::from_low_rank(inputs, mean, self.config.rank)
    }
}

impl Linear {
    fn shares(&self, inputs: &MergeInputs<'_>, path: &ModulePath) -> Result<Vec<f64>, Error> {
        let mut weights = weights(inputs, self.config.weight, path);
        if self.config.normalize {
            let sum: f64 = weights.iter().sum();
            if sum == 0.0 {
                let reason = format!("sum to 0 in module {path} and cannot be normalised");
                return Err(Error::Weights { reason });
            }
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        Ok(weights)
    }
}

/// PEFT's sums of A and of B.
fn factors(inputs: &MergeInputs<'_>, weights: &[f64], path: &ModulePath) -> Result<LowRank, Error> {
    let present: Vec<(f64, &LoraModule)> = weights
        .iter()
        .zip(inputs.adapters())
        .filter_map(|(weight, adapter)| Some((*weight, adapter.modules.get(path)?)))
        .collect();
    let sum = |of: fn(&LoraModule) -> &Array2<f32>, side: &str, signed: bool| {
        let mut sum: Option<Array2<f64>> = None;
        for (weight, module) in &present {
            let (product, term) = (weight * module.scale(), of(module));
            let factor = product.abs().sqrt() * if signed && product < 0.0 { -1.0 } else { 1.0 };
            let sum = sum.get_or_insert_with(|| Array2::zeros(term.dim()));
            if sum.dim() != term.dim() {
                return Err(Error::Adapter(sst_adapter::Error::Shape {
                    op: "sum of factors",
                    tensor: format!("{path}.{side}"),
                    expected: sum.shape().to_vec(),
                    got: term.shape().to_vec(),
                }));
            }
            sum.zip_mut_with(term, |sum, x| *sum += factor * f64::from(*x));
        }
        Ok(sum.unwrap_or_default().mapv(|x| x as f32))
    };
    Ok(LowRank {
        a: sum(|module| &module.a, "lora_A", true)?,
        b: sum(|module| &module.b, "lora_B", false)?,
    })
}
