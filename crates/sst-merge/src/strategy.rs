//! The trait that every merge method implements, and the methods by name.

mod projected;
mod v1;
mod v2;

pub use v1::{V1, V1Config};
pub use v2::{DEFAULT_RESIDUAL, Mode, Preset, Strengths, V2, V2Config};

use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// Directions of the study's main comparison.
pub const DEFAULT_K: usize = 20;

/// The names that [`strategy_by_name`] knows.
pub const STRATEGIES: [&str; 2] = ["v1", "v2"];

/// A merge method with its settings checked.
///
/// A downstream crate adds a method by implementing this; [`Merged::from_phi`] measures its result.
pub trait MergeStrategy: Debug + Send + Sync {
    /// Its name in recipes and reports.
    fn name(&self) -> &'static str;

    /// Its settings, defaults filled in, as the manifest keeps them.
    fn config(&self) -> serde_json::Value;

    /// Whether [`MergeInputs::basis`] must be given.
    fn needs_basis(&self) -> bool;

    /// Merges; the same inputs give the same bits.
    ///
    /// # Errors
    /// [`Error::Adapter`] when the adapters do not fit together, naming the tensor and both shapes;
    /// [`Error::NoBasis`], [`Error::Subspace`] when the basis is missing or too small.
    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error>;
}

/// A strategy as a recipe spells it: `strategy = "v1"` and its settings, not yet checked.
///
/// ```
/// use sst_merge::{MergeStrategy, StrategyConfig};
/// let recipe = r#"{"strategy": "v2", "k": 50, "mode": {"residual": {"r": 0.8}}}"#;
/// let strategy = serde_json::from_str::<StrategyConfig>(recipe).unwrap().check().unwrap();
/// assert_eq!(strategy.name(), "v2");
/// assert_eq!(strategy.config()["weight"], 1.0);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "lowercase")]
#[non_exhaustive]
pub enum StrategyConfig {
    /// M = alpha U + alpha P S.
    V1(V1Config),
    /// M = U + w S'.
    V2(V2Config),
}

impl StrategyConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the setting.
    pub fn check(self) -> Result<Box<dyn MergeStrategy>, Error> {
        Ok(match self {
            StrategyConfig::V1(config) => Box::new(config.check()?),
            StrategyConfig::V2(config) => Box::new(config.check()?),
        })
    }
}

/// The strategy of that name with its default settings.
///
/// # Errors
/// [`Error::UnknownStrategy`] listing the known names.
pub fn strategy_by_name(name: &str) -> Result<StrategyConfig, Error> {
    match name {
        "v1" => Ok(StrategyConfig::V1(V1Config::default())),
        "v2" => Ok(StrategyConfig::V2(V2Config::default())),
        _ => Err(Error::UnknownStrategy {
            name: name.to_owned(),
            known: STRATEGIES.join(", "),
        }),
    }
}

/// Refuses a weight that is NaN or infinite.
fn check_weight(strategy: &'static str, setting: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::Setting {
        strategy,
        setting,
        value,
        reason: "must be finite",
    })
}

/// Refuses k = 0, before any artefact is read.
fn check_k(strategy: &'static str, k: usize) -> Result<(), Error> {
    if k > 0 {
        return Ok(());
    }
    Err(Error::Setting {
        strategy,
        setting: "k",
        value: 0.0,
        reason: "must be at least 1",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_is_known_and_named_so() {
        for name in STRATEGIES {
            assert_eq!(strategy_by_name(name).unwrap().check().unwrap().name(), name);
        }
        let message = strategy_by_name("v3").unwrap_err().to_string();
        assert_eq!(message, "unknown strategy `v3`: known are v1, v2");
    }

    #[test]
    fn recipes_are_toml_and_their_slips_are_named() {
        let parse = |text: &str| toml::from_str::<StrategyConfig>(text);
        let v2 = V2Config {
            k: 50,
            mode: Mode::Layerwise {
                preset: Preset::SafetyFirst,
            },
            ..V2Config::default()
        };
        let text = "strategy = \"v2\"\nk = 50\nmode = { layerwise = { preset = \"safety_first\" } }\n";
        assert_eq!(parse(text).unwrap(), StrategyConfig::V2(v2.clone()));
        let text = toml::to_string(&StrategyConfig::V2(v2.clone())).unwrap();
        assert_eq!(parse(&text).unwrap(), StrategyConfig::V2(v2));
        for (text, word) in [
            ("strategy = \"v3\"", "v3"),
            ("strategy = \"v1\"\nweight = 1.0", "weight"),
            ("strategy = \"v2\"\nmode = \"sideways\"", "sideways"),
            ("strategy = \"v2\"\nprojection = \"skewed\"", "skewed"),
            ("k = 3", "strategy"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
