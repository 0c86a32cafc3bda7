//! Settings of SST as a recipe spells them.

use super::super::check_not_negative;
use super::NAME;
use super::change::Thin;
use crate::{Error, ModuleOverride, ModuleWeights, ModuleWeightsConfig};
use serde::{Deserialize, Serialize};
use sst_adapter::ModulePath;
use std::collections::BTreeSet;

/// How strongly each direction of the pencil follows S.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Weighting {
    /// sigma = gamma mu lambda / (1 + gamma mu lambda): the minimiser.
    #[default]
    Soft,
    /// sigma = 1 for the k largest mu lambda over all modules, 0 for the others.
    Hard {
        /// Number of directions; on the input side each stands for all outputs.
        k: usize,
    },
}

/// Where the safety side wants the weight to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SafetyDelta {
    /// To S: M = U + P (S - U).
    #[default]
    Difference,
    /// To U + S: M = U + P S.
    Safety,
}

impl SafetyDelta {
    /// D, the way from U to the target; the rows of S come first.
    pub(super) fn way(self, u: &Thin, s: &Thin) -> Thin {
        match self {
            SafetyDelta::Difference => s.plus(-1.0, u),
            SafetyDelta::Safety => s.clone(),
        }
    }
}

/// The gamma of some modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GammaOverride {
    /// A regular expression that must be found in the module's path; all modules when it is absent.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The layers meant; all when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<BTreeSet<u64>>,
    /// Their gamma.
    pub gamma: f64,
}

/// gamma of every module.
#[derive(Debug, Clone)]
pub(super) struct Gammas(ModuleWeights);

impl Gammas {
    /// Checks each gamma and compiles the expressions.
    pub fn new(gamma: f64, overrides: &[GammaOverride]) -> Result<Self, Error> {
        for gamma in overrides.iter().map(|entry| entry.gamma).chain([gamma]) {
            check_not_negative(NAME, "gamma", gamma)?;
        }
        let modules = overrides.iter().map(|entry| ModuleOverride {
            pattern: entry.pattern.clone(),
            layers: entry.layers.clone(),
            weights: Some(vec![entry.gamma]),
            skip: false,
        });
        let config = ModuleWeightsConfig {
            weights: Some(vec![gamma]),
            modules: modules.collect(),
        };
        match config.check() {
            Ok(weights) => Ok(Self(weights)),
            Err(Error::Weights { reason }) => Err(Error::Weights {
                reason: format!("`gammas`: {reason}"),
            }),
            Err(other) => Err(other),
        }
    }

    pub fn of(&self, path: &ModulePath) -> f64 {
        self.0.weight(0, path)
    }
}
