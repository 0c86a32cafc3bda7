//! TSV-Merge: the leading singular vectors of every adapter, made orthogonal to those of the others.
//!
//! Of T changes w_t delta W_t = U_t S_t V_t^T the first k singular vectors each are put side by side, U = [U_1 ... U_T],
//! V = [V_1 ... V_T], and both are replaced by their polar factors (Gargiulo et al. 2025, "Task singular vectors: reducing
//! task interference in model merging", the method TSV-M):
//!
//! M = scale polar(U) diag(S_1, ..., S_T) polar(V)^T.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `truncate` | dimension | k: `dimension` floor(min(d_out, d_in) / T), `rank` floor(r_t / T) but at least 1 |
//! | `scale` | 1 | factor of the whole merge |
//! | `rank` | none | cuts every module to this rank; the sum of the ranks kept when absent |
//!
//! `dimension` is the published rule, which cuts full-rank changes so that all vectors fit beside each other. Of a LoRA of
//! rank r_t <= k it cuts off nothing. `rank` cuts the adapters' own ranks by the same share, so that the result has no
//! higher rank than they.

use super::matrix::numerical_rank;
use super::parts::{Part, by_module, parts, shape};
use super::singular::SingularVectors;
use super::{MergeStrategy, check_rank, check_weight};
use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};
use sst_adapter::LowRank;

const NAME: &str = "tsv-m";

/// How many singular vectors of each adapter are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Truncate {
    /// 1/T of the weight's smaller side, as published.
    #[default]
    Dimension,
    /// 1/T of the adapter's own rank.
    Rank,
}

/// Settings of [`TsvM`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TsvMConfig {
    /// How many singular vectors of each adapter are kept.
    pub truncate: Truncate,
    /// Factor of the whole merge.
    pub scale: f64,
    /// Rank of the result; that of all vectors kept when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Default for TsvMConfig {
    fn default() -> Self {
        Self {
            truncate: Truncate::default(),
            scale: 1.0,
            rank: None,
        }
    }
}

impl TsvMConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a scale that is NaN or infinite, or rank 0.
    pub fn check(self) -> Result<TsvM, Error> {
        check_weight(NAME, "scale", self.scale)?;
        check_rank(NAME, self.rank)?;
        Ok(TsvM { config: self })
    }
}

/// M = scale polar(U) S polar(V)^T.
#[derive(Debug, Clone, PartialEq)]
pub struct TsvM {
    config: TsvMConfig,
}

impl MergeStrategy for TsvM {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::TsvM(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let merged = by_module(inputs, |path| match parts(inputs, path).as_slice() {
            [] => Ok(LowRank::zero(shape(inputs, path))),
            parts => self.merge_module(parts),
        })?;
        Merged::from_low_rank(inputs, merged, self.config.rank)
    }
}

impl TsvM {
    fn merge_module(&self, parts: &[Part]) -> Result<LowRank, Error> {
        let tasks = parts.len();
        let mut vectors = SingularVectors::default();
        for Part { weight, change, .. } in parts {
            let [d_out, d_in] = change.shape();
            let svd = change.svd()?;
            let k = match self.config.truncate {
                Truncate::Dimension => d_out.min(d_in) / tasks,
                Truncate::Rank => (change.rank() / tasks).max(1),
            };
            vectors.push(&svd, k.min(numerical_rank(&svd.s)), *weight);
        }
        vectors.assemble(&(vectors.values() * self.config.scale))
    }
}
