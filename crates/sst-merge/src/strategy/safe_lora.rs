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
use sst_adapter::ModulePath;
use std::collections::{BTreeMap, BTreeSet};

const NAME: &str = "safelora";

/// Which modules are projected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Select {
    /// Those of a cosine up to this.
    Threshold(f64),
    /// So many, those of the smallest cosines; of equal cosines the first in model order.
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
        let leaving = self.leaving(&cosines);
        let (mut merged, mut changed) = (BTreeMap::new(), 0);
        for (path, module) in aligned {
            let projected = module.projected.filter(|_| leaving.contains(&path));
            changed += usize::from(projected.is_some());
            merged.insert(path, projected.unwrap_or(module.utility));
        }
        let mut merged = Merged::from_low_rank(inputs, merged, None)?;
        merged.diagnostics.alignment = Some(AlignmentReport { changed, cosines });
        Ok(merged)
    }
}

impl SafeLora {
    /// The modules that leave the alignment subspace too far, and are projected.
    fn leaving(&self, cosines: &BTreeMap<ModulePath, f64>) -> BTreeSet<ModulePath> {
        let mut modules: Vec<(&ModulePath, f64)> = cosines.iter().map(|(path, cosine)| (path, *cosine)).collect();
        match self.config.select {
            Select::Threshold(threshold) => modules.retain(|(_, cosine)| *cosine <= threshold),
            Select::Count(count) => {
                modules.sort_by(|x, y| x.1.total_cmp(&y.1)); // stable
                modules.truncate(count);
            }
        }
        modules.into_iter().map(|(path, _)| path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_takes_the_smallest_cosines() {
        let leaving = |select, cosines: &[f64]| -> Vec<String> {
            let config = SafeLoraConfig {
                select,
                ..SafeLoraConfig::default()
            };
            let paths = (0..cosines.len()).map(|layer| ModulePath::new(format!("layers.{layer}.q_proj")));
            let cosines = paths.zip(cosines.iter().copied()).collect();
            let leaving = config.check().unwrap().leaving(&cosines);
            leaving.iter().map(|path| path.as_str()[7..8].to_owned()).collect()
        };
        let cosines = [0.3, -0.2, 0.9, 0.3];
        assert_eq!(leaving(Select::Threshold(0.4), &cosines), ["0", "1", "3"]);
        assert_eq!(leaving(Select::Count(1), &cosines), ["1"]);
        // Of two that leave it as far, no more than were asked for.
        assert_eq!(leaving(Select::Count(2), &cosines), ["0", "1"]);
        assert_eq!(leaving(Select::Count(7), &cosines).len(), 4);
        assert!(leaving(Select::Count(0), &cosines).is_empty() && leaving(Select::Count(2), &[]).is_empty());
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
