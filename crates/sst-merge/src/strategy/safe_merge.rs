//! SafeMERGE: U merged with S where it leaves the alignment subspace.
//!
//! M = w_u U + w_s S in the modules where SafeLoRA's cos(C U, U) is below tau, and U in all others (Djuhera et al. 2025,
//! "SafeMERGE: preserving safety alignment in fine-tuned large language models via selective layer-wise model merging";
//! C and the cosine are those of [`Alignment`]).
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `threshold` | 0.35 | tau |
//! | `weights` | [0.8, 0.2] | w_u and w_s |
//! | `alignment` | adapter | where C comes from: `adapter`, S; `weights`, an aligned and an unaligned model |
//! | `projection` | approximate | as SafeLoRA's |
//! | `rank` | none | cuts every module to this rank; r_u + r_s when absent |
//!
//! The changes are added exactly. The authors' code adds A and B apart, with cross terms. A module where the cosine is
//! unknown, as S has no change there or the models do not differ, keeps U.

use super::alignment::{Alignment, AlignmentProjection, AlignmentReport, cosines};
use super::{MergeStrategy, Needs, check_rank, check_weight};
use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};
use sst_adapter::LowRank;
use std::collections::BTreeMap;

const NAME: &str = "safemerge";

/// Settings of [`SafeMerge`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SafeMergeConfig {
    /// tau: modules of a smaller cosine are merged.
    pub threshold: f64,
    /// Weights of U and S in the modules that are merged.
    pub weights: [f64; 2],
    /// Where the alignment subspace comes from.
    pub alignment: Alignment,
    /// Which C projects.
    pub projection: AlignmentProjection,
    /// Rank of the result; the sum of the ranks when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Default for SafeMergeConfig {
    fn default() -> Self {
        Self {
            threshold: 0.35,
            weights: [0.8, 0.2],
            alignment: Alignment::default(),
            projection: AlignmentProjection::default(),
            rank: None,
        }
    }
}

impl SafeMergeConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a threshold or weight that is NaN or infinite, or rank 0; [`Error::ExactAlignment`] for the
    /// exact projection of two models.
    pub fn check(self) -> Result<SafeMerge, Error> {
        check_weight(NAME, "threshold", self.threshold)?;
        for weight in self.weights {
            check_weight(NAME, "weights", weight)?;
        }
        check_rank(NAME, self.rank)?;
        if self.alignment == Alignment::Weights && self.projection == AlignmentProjection::Exact {
            return Err(Error::ExactAlignment { strategy: NAME });
        }
        Ok(SafeMerge { config: self })
    }
}

/// M = w_u U + w_s S where cos(C U, U) is below tau, U elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct SafeMerge {
    config: SafeMergeConfig,
}

impl MergeStrategy for SafeMerge {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::SafeMerge(self.config.clone()))
    }

    fn needs(&self) -> Needs {
        self.config.alignment.needs()
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let SafeMergeConfig {
            threshold,
            weights: [w_u, w_s],
            alignment,
            projection,
            rank,
        } = self.config;
        let aligned = alignment.project(NAME, inputs, projection)?;
        let cosines = cosines(&aligned);
        let (mut merged, mut changed, mut used) = (BTreeMap::new(), 0, 0.0);
        for (path, module) in aligned {
            let change = if module.cosine.is_some_and(|cosine| cosine < threshold) {
                changed += 1;
                used += module.safety.inner(&module.safety);
                LowRank::stack(&[(w_u, &module.utility), (w_s, &module.safety)])?
            } else {
                module.utility
            };
            merged.insert(path, change);
        }
        let mut merged = Merged::from_low_rank(inputs, merged, rank)?;
        merged.diagnostics.norm_safety_used = Some(f64::sqrt(used));
        merged.diagnostics.alignment = Some(AlignmentReport { changed, cosines });
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        let of = |config: SafeMergeConfig| config.check().unwrap_err().to_string();
        let message = of(SafeMergeConfig {
            threshold: f64::NAN,
            ..SafeMergeConfig::default()
        });
        assert!(message.contains("`threshold`"), "{message}");
        let message = of(SafeMergeConfig {
            weights: [1.0, f64::INFINITY],
            ..SafeMergeConfig::default()
        });
        assert!(message.contains("`weights`"), "{message}");
    }
}
