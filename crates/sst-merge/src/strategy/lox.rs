//! LoX: U plus an extrapolation of the leading directions of S.
//!
//! Perin et al. 2025, "LoX: low-rank extrapolation robustifies LLM safety against fine-tuning": of the change
//! delta W = U S V^T that alignment made to a base model, W_LoX = W_base + delta W + alpha U_k U_k^T delta W. On adapters,
//! with S the safety adapter's change and S_k = U_k U_k^T S its best approximation of rank k,
//!
//! M = U + safety S + alpha S_k.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `k` | 6 | singular directions of S that are extrapolated, in every module |
//! | `alpha` | 1.25 | how far |
//! | `safety` | 0 | weight of S itself; 1 where the base model is not aligned, as in the paper |
//! | `rank` | none | cuts every module to this rank; r_u + k, or r_u + r_s with `safety`, when absent |
//!
//! In the paper a base model is aligned, extrapolated, and *then* fine-tuned; the claim is that fine-tuning undoes less.
//! Here U was trained without S, so only the sum of the changes carries over, not that claim. With `safety` = 0 the
//! alignment is taken to be in the base model already, and S serves for its direction alone.

use super::matrix::assemble;
use super::parts::{by_module, utility_and_safety};
use super::{MergeStrategy, check_k, check_rank, check_weight};
use crate::{Error, MergeInputs, Merged};
use ndarray::{Array1, s};
use serde::{Deserialize, Serialize};
use sst_adapter::LowRank;

const NAME: &str = "lox";

/// Settings of [`Lox`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoxConfig {
    /// Singular directions of S that are extrapolated.
    pub k: usize,
    /// How far they are.
    pub alpha: f64,
    /// Weight of S itself.
    pub safety: f64,
    /// Rank of the result; the sum of the ranks when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Default for LoxConfig {
    fn default() -> Self {
        Self {
            k: 6,
            alpha: 1.25,
            safety: 0.0,
            rank: None,
        }
    }
}

impl LoxConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for k = 0, an alpha or weight that is NaN or infinite, or rank 0.
    pub fn check(self) -> Result<Lox, Error> {
        check_k(NAME, self.k)?;
        check_weight(NAME, "alpha", self.alpha)?;
        check_weight(NAME, "safety", self.safety)?;
        check_rank(NAME, self.rank)?;
        Ok(Lox { config: self })
    }
}

/// M = U + safety S + alpha S_k.
#[derive(Debug, Clone, PartialEq)]
pub struct Lox {
    config: LoxConfig,
}

impl MergeStrategy for Lox {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::Lox(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let parts = by_module(inputs, |path| {
            let [utility, safety] = utility_and_safety(inputs, path)?;
            let added = self.extrapolate(&safety)?;
            let norm = added.norm();
            Ok((LowRank::stack(&[(1.0, &utility), (1.0, &added)])?, norm))
        })?;
        let used = parts.values().map(|(_, norm)| norm * norm).sum::<f64>().sqrt();
        let merged = parts.into_iter().map(|(path, (change, _))| (path, change)).collect();
        let mut merged = Merged::from_low_rank(inputs, merged, self.config.rank)?;
        merged.diagnostics.norm_safety_used = Some(used);
        merged.diagnostics.k = Some(self.config.k);
        Ok(merged)
    }
}

impl Lox {
    /// safety S + alpha S_k.
    fn extrapolate(&self, safety: &LowRank) -> Result<LowRank, Error> {
        let LoxConfig {
            k,
            alpha,
            safety: weight,
            ..
        } = self.config;
        let svd = safety.svd()?;
        let rank = if weight == 0.0 { k.min(svd.s.len()) } else { svd.s.len() };
        let scale = |i: usize| weight + if i < k { alpha } else { 0.0 };
        let values: Array1<f64> = svd.s.iter().take(rank).enumerate().map(|(i, s)| scale(i) * s).collect();
        Ok(assemble(
            svd.u.slice(s![.., ..rank]),
            &values,
            svd.vt.slice(s![..rank, ..]),
        ))
    }
}
