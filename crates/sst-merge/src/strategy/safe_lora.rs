//! SafeLoRA: U projected onto the alignment subspace where it leaves it.
//!
//! M = C U in the modules where cos(C U, U) is small, and U in all others (Hsu et al. 2024, "Safe LoRA: the silver lining
//! of reducing safety risks when fine-tuning large language models"; C and the cosine are those of [`Alignment`]). S gives
//! directions at most: nothing of it is added.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `alignment` | adapter | where C comes from: `adapter`, S; `weights`, an aligned and an unaligned model |
//! | `projection` | approximate | `approximate`, the published V V^T / \|\|V\|\|; `exact`, for adapters only |
//! | `select` | { threshold = 0.5 } | `threshold`: modules of a cosine up to it; `count`: so many of the smallest cosines |
//!
//! A module where S has no change, or the models do not differ, says nothing about alignment and keeps U.

use super::alignment::{Alignment, AlignmentProjection, AlignmentReport, cosines};
use super::{MergeStrategy, Needs, check_weight};
use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const NAME: &str = "safelora";

/// Which modules are projected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Select {
    /// Those of a cosine up to this.
    Threshold(f64),
    /// So many, those of the smallest cosines.
    Count(usize),
}

/// Settings of [`SafeLora`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SafeLoraConfig {
    /// Where the alignment subspace comes from.
    pub alignment: Alignment,
    /// Which C projects.
    pub projection: AlignmentProjection,
    /// Which modules are projected.
    pub select: Select,
}

impl Default for SafeLoraConfig {
    fn default() -> Self {
        Self {
            alignment: Alignment::default(),
            projection: AlignmentProjection::default(),
            select: Select::Threshold(0.5),
        }
    }
}

impl SafeLoraConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a threshold that is NaN or infinite; [`Error::ExactAlignment`] for the exact projection of two
    /// models.
    pub fn check(self) -> Result<SafeLora, Error> {
        if let Select::Threshold(threshold) = self.select {
            check_weight(NAME, "threshold", threshold)?;
        }
        if self.alignment == Alignment::Weights && self.projection == AlignmentProjection::Exact {
            return Err(Error::ExactAlignment { strategy: NAME });
        }
        Ok(SafeLora { config: self })
    }
}

/// M = C U where cos(C U, U) is small, U elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct SafeLora {
    config: SafeLoraConfig,
}

impl MergeStrategy for SafeLora {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::SafeLora(self.config.clone()))
    }

    fn needs(&self) -> Needs {
        self.config.alignment.needs()
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let SafeLoraConfig {
            alignment, projection, ..
        } = self.config;
        let aligned = alignment.project(NAME, inputs, projection)?;
        let cosines = cosines(&aligned);
        let threshold = self.threshold(cosines.values().copied().collect());
        let (mut merged, mut changed) = (BTreeMap::new(), 0);
        for (path, module) in aligned {
            let leaves = module.cosine.is_some_and(|cosine| cosine <= threshold);
            let projected = module.projected.filter(|_| leaves);
            changed += usize::from(projected.is_some());
            merged.insert(path, projected.unwrap_or(module.utility));
        }
        let mut merged = Merged::from_low_rank(inputs, merged, None)?;
        merged.diagnostics.alignment = Some(AlignmentReport { changed, cosines });
        Ok(merged)
    }
}

impl SafeLora {
    /// The largest cosine that is projected.
    fn threshold(&self, mut cosines: Vec<f64>) -> f64 {
        match self.config.select {
            Select::Threshold(threshold) => threshold,
            Select::Count(count) => {
                cosines.sort_by(f64::total_cmp);
                let last = count.min(cosines.len()).checked_sub(1);
                last.map_or(f64::NEG_INFINITY, |last| cosines[last])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_takes_the_smallest_cosines() {
        let threshold = |select, cosines: &[f64]| {
            let config = SafeLoraConfig {
                select,
                ..SafeLoraConfig::default()
            };
            config.check().unwrap().threshold(cosines.to_vec())
        };
        let cosines = [0.3, -0.2, 0.9];
        assert_eq!(threshold(Select::Threshold(0.4), &cosines), 0.4);
        assert_eq!(threshold(Select::Count(2), &cosines), 0.3);
        assert_eq!(threshold(Select::Count(7), &cosines), 0.9);
        assert_eq!(threshold(Select::Count(0), &cosines), f64::NEG_INFINITY);
        assert_eq!(threshold(Select::Count(2), &[]), f64::NEG_INFINITY);
    }

    #[test]
    fn bad_settings_are_named() {
        let config = SafeLoraConfig {
            select: Select::Threshold(f64::NAN),
            ..SafeLoraConfig::default()
        };
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains("`threshold`"), "{message}");
        let config = SafeLoraConfig {
            alignment: Alignment::Weights,
            projection: AlignmentProjection::Exact,
            ..SafeLoraConfig::default()
        };
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains("safelora") && message.contains("exact"), "{message}");
    }
}
