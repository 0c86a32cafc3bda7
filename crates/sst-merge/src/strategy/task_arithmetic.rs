//! Task arithmetic: the sum of the changes, each with its weight.
//!
//! M = sum_t w_t delta W_t (Ilharco et al. 2023, "Editing models with task arithmetic", section 2: a task vector is the
//! change of the weights, theta + lambda sum_t tau_t the edited model), exactly, by stacking the factors.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `weight` | 1 | weight of the safety adapter; that of a utility adapter is 1 |
//! | `rank` | none | cuts every module to this rank; the sum of the ranks when absent |
//!
//! Weights of [`MergeInputs`] multiply both. Several utility adapters are summed, as published, not averaged.

use super::stacked::stacked;
use super::{MergeStrategy, check_rank, check_weight};
use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};

const NAME: &str = "task-arithmetic";

/// Settings of [`TaskArithmetic`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskArithmeticConfig {
    /// Weight of the safety adapter.
    pub weight: f64,
    /// Rank of the result; the sum of the ranks when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Default for TaskArithmeticConfig {
    fn default() -> Self {
        Self {
            weight: 1.0,
            rank: None,
        }
    }
}

impl TaskArithmeticConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a weight that is NaN or infinite, or rank 0.
    pub fn check(self) -> Result<TaskArithmetic, Error> {
        check_weight(NAME, "weight", self.weight)?;
        check_rank(NAME, self.rank)?;
        Ok(TaskArithmetic { config: self })
    }
}

/// M = sum_t w_t delta W_t.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskArithmetic {
    config: TaskArithmeticConfig,
}

impl MergeStrategy for TaskArithmetic {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::TaskArithmetic(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let sum = stacked(inputs, |path| Ok(weights(inputs, self.config.weight, path)))?;
        let mut merged = Merged::from_low_rank(inputs, sum, self.config.rank)?;
        merged.diagnostics.norm_safety_used = Some(merged.diagnostics.norm_safety);
        Ok(merged)
    }
}

/// The adapters' weights in a module, the safety adapter's times `safety`.
pub(super) fn weights(inputs: &MergeInputs<'_>, safety: f64, path: &sst_adapter::ModulePath) -> Vec<f64> {
    let utilities = inputs.utilities.len();
    let all = 0..=utilities;
    all.map(|i| inputs.weight(i, path) * if i == utilities { safety } else { 1.0 })
        .collect()
}
