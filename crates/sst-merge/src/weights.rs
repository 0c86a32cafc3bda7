//! Weights of the adapters, everywhere and module by module.
//!
//! ```toml
//! weights = [1.0, 0.5]          # utility adapters in their order, then the safety adapter
//!
//! [[module]]
//! match = "mlp"                 # an expression found anywhere in the module's path
//! layers = [0, 1]               # only in these layers
//! weights = [1.0, 0.0]
//!
//! [[module]]
//! match = "o_proj$"
//! skip = true                   # left out of the merge: the base model's weight stays as it is
//! ```
//!
//! The last entry that matches a module counts.

use crate::Error;
use fancy_regex::Regex;
use serde::{Deserialize, Serialize};
use sst_adapter::ModulePath;
use std::collections::BTreeSet;

/// Weights as a recipe spells them, not yet checked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleWeightsConfig {
    /// One weight per adapter, utility adapters first; 1 each when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<f64>>,
    /// Exceptions; the last that matches a module counts.
    #[serde(default, rename = "module", skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<ModuleOverride>,
}

/// The weights of some modules.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleOverride {
    /// A regular expression that must be found in the module's path; all modules when it is absent.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The layers meant; all when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<BTreeSet<u64>>,
    /// One weight per adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<f64>>,
    /// Whether these modules are left out of the merge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip: bool,
}

/// Weights of the adapters by module.
///
/// ```
/// use sst_merge::{ModuleWeights, ModuleWeightsConfig};
/// let text = "weights = [1.0, 0.5]\n[[module]]\nmatch = 'v_proj$'\nweights = [1.0, 2.0]";
/// let weights: ModuleWeights = toml::from_str::<ModuleWeightsConfig>(text).unwrap().check().unwrap();
/// assert_eq!(weights.weight(1, &"layers.0.self_attn.q_proj".into()), 0.5);
/// assert_eq!(weights.weight(1, &"layers.0.self_attn.v_proj".into()), 2.0);
/// ```
#[derive(Debug, Clone)]
pub struct ModuleWeights {
    config: ModuleWeightsConfig,
    /// The compiled `match` of each entry.
    patterns: Vec<Option<Regex>>,
}

impl ModuleWeightsConfig {
    /// Checks the settings and compiles the expressions.
    ///
    /// # Errors
    /// [`Error::Weights`] for a weight that is NaN or infinite, lists of different lengths, an invalid expression, or an
    /// entry that says neither which modules it means nor what to do with them.
    pub fn check(self) -> Result<ModuleWeights, Error> {
        let wrong = |reason: String| Err(Error::Weights { reason });
        let lists = || {
            self.weights
                .iter()
                .chain(self.modules.iter().filter_map(|entry| entry.weights.as_ref()))
        };
        if let Some(weight) = lists().flatten().find(|weight| !weight.is_finite()) {
            return wrong(format!("a weight is {weight}; weights must be finite"));
        }
        let lengths: BTreeSet<usize> = lists().map(Vec::len).collect();
        if lengths.len() > 1 {
            return wrong(format!(
                "lists of {lengths:?} weights; every list needs one weight per adapter"
            ));
        }
        let mut patterns = Vec::with_capacity(self.modules.len());
        for (i, entry) in self.modules.iter().enumerate() {
            let place = i + 1;
            if entry.pattern.is_none() && entry.layers.is_none() {
                return wrong(format!("module entry {place} has neither `match` nor `layers`"));
            }
            if entry.weights.is_some() == entry.skip {
                return wrong(format!("module entry {place} needs either `weights` or `skip = true`"));
            }
            let compiled = entry.pattern.as_deref().map(Regex::new).transpose();
            match compiled {
                Ok(pattern) => patterns.push(pattern),
                Err(reason) => return wrong(format!("module entry {place}: invalid `match`: {reason}")),
            }
        }
        Ok(ModuleWeights { config: self, patterns })
    }
}

impl ModuleWeights {
    /// The settings.
    pub fn config(&self) -> &ModuleWeightsConfig {
        &self.config
    }

    /// How many adapters the lists are for; none where no list says it.
    pub fn adapters(&self) -> Option<usize> {
        let mut lists = self
            .config
            .weights
            .iter()
            .chain(self.config.modules.iter().filter_map(|entry| entry.weights.as_ref()));
        lists.next().map(Vec::len)
    }

    /// The weight of adapter `adapter` (utility adapters in their order, then the safety adapter) in a module: 1 unless
    /// told, 0 where the module is skipped.
    pub fn weight(&self, adapter: usize, path: &ModulePath) -> f64 {
        let list = match self.entry(path) {
            Some(entry) if entry.skip => return 0.0,
            Some(entry) => entry.weights.as_ref(),
            None => self.config.weights.as_ref(),
        };
        list.and_then(|list| list.get(adapter)).copied().unwrap_or(1.0)
    }

    /// Whether the module is left out of the merge.
    pub fn skips(&self, path: &ModulePath) -> bool {
        self.entry(path).is_some_and(|entry| entry.skip)
    }

    fn entry(&self, path: &ModulePath) -> Option<&ModuleOverride> {
        let entries = self.config.modules.iter().zip(&self.patterns).rev();
        let matches = |(entry, pattern): &(&ModuleOverride, &Option<Regex>)| {
            let layer = entry.layers.as_ref();
            // An expression too complex to decide does not match.
            let found = pattern
                .as_ref()
                .is_none_or(|p| p.is_match(path.as_str()).unwrap_or(false));
            found && layer.is_none_or(|layers| path.layer().is_some_and(|layer| layers.contains(&layer)))
        };
        entries.into_iter().find(matches).map(|(entry, _)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<ModuleWeights, String> {
        let config: ModuleWeightsConfig = toml::from_str(text).map_err(|e| e.to_string())?;
        config.check().map_err(|e| e.to_string())
    }

    #[test]
    fn the_last_match_counts() {
        let weights = check(
            "weights = [1.0, 0.5]\n\
             [[module]]\nmatch = 'proj'\nweights = [2.0, 3.0]\n\
             [[module]]\nlayers = [1, 4]\nweights = [4.0, 5.0]\n\
             [[module]]\nmatch = 'mlp'\nlayers = [4]\nskip = true\n",
        )
        .unwrap();
        let of = |path: &str| [0, 1].map(|i| weights.weight(i, &path.into()));
        assert_eq!(of("lm_head"), [1.0, 0.5]);
        assert_eq!(of("model.layers.0.self_attn.q_proj"), [2.0, 3.0]);
        assert_eq!(of("model.layers.1.self_attn.q_proj"), [4.0, 5.0]);
        assert_eq!(of("model.layers.4.mlp.up_proj"), [0.0, 0.0]);
        assert!(weights.skips(&"model.layers.4.mlp.up_proj".into()));
        assert!(!weights.skips(&"model.layers.1.mlp.up_proj".into()));
        assert_eq!(weights.adapters(), Some(2));
        let plain = ModuleWeightsConfig::default().check().unwrap();
        assert_eq!((plain.weight(7, &"lm_head".into()), plain.adapters()), (1.0, None));
    }

    #[test]
    fn slips_are_named() {
        for (text, words) in [
            ("weights = [1.0, nan]", "NaN"),
            (
                "weights = [1.0]\n[[module]]\nmatch = 'q'\nweights = [1.0, 2.0]",
                "{1, 2}",
            ),
            ("[[module]]\nweights = [1.0]", "neither `match` nor `layers`"),
            ("[[module]]\nmatch = 'q'", "`weights` or `skip = true`"),
            (
                "[[module]]\nmatch = 'q'\nskip = true\nweights = [1.0]",
                "`weights` or `skip = true`",
            ),
            ("[[module]]\nmatch = '('\nskip = true", "invalid `match`"),
            ("[[module]]\nmatches = 'q'", "matches"),
            ("weight = [1.0]", "weight"),
        ] {
            let message = check(text).unwrap_err();
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn survives_toml() {
        let text = "weights = [1.0, 0.5]\n\n[[module]]\nmatch = \"mlp\"\nlayers = [4]\nskip = true\n";
        let weights = check(text).unwrap();
        assert_eq!(toml::to_string(weights.config()).unwrap(), text);
    }
}
