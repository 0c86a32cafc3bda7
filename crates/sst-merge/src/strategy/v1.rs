//! V1, the study's original method: M = alpha U + alpha P S on phi.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `k` | 20 | directions of the safety subspace |
//! | `alpha` | 1 | scales the whole merge, U as well as P S |
//! | `projection` | aligned | `prefix` reproduces the study's code |

use super::projected::{ProjectedSafety, combine};
use super::{DEFAULT_K, MergeStrategy, Needs, check_k, check_weight};
use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};
use sst_subspace::Projection;

const NAME: &str = "v1";

/// Settings of [`V1`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct V1Config {
    /// Directions of the safety subspace.
    pub k: usize,
    /// Scale of the whole merge.
    pub alpha: f64,
    /// Which rows of the basis project a tensor.
    pub projection: Projection,
}

impl Default for V1Config {
    fn default() -> Self {
        Self {
            k: DEFAULT_K,
            alpha: 1.0,
            projection: Projection::default(),
        }
    }
}

impl V1Config {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for k = 0 or an alpha that is NaN or infinite.
    pub fn check(self) -> Result<V1, Error> {
        check_k(NAME, self.k)?;
        check_weight(NAME, "alpha", self.alpha)?;
        Ok(V1 { config: self })
    }
}

/// M = alpha U + alpha P S.
#[derive(Debug, Clone, PartialEq)]
pub struct V1 {
    config: V1Config,
}

impl MergeStrategy for V1 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::V1(self.config.clone()))
    }

    fn needs(&self) -> Needs {
        Needs {
            basis: true,
            ..Needs::default()
        }
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check()?;
        let V1Config { k, alpha, projection } = self.config;
        let (u, s) = rayon::join(|| inputs.utility_phi(), || inputs.safety.to_flat());
        let u = u?;
        let projected = ProjectedSafety::new(NAME, inputs, &s, k, projection)?;
        let m = combine(alpha, &u, alpha, &projected.phi);
        let mut merged = Merged::from_phi(inputs, &u, &s, &projected.phi, &m)?;
        projected.describe(&mut merged, &s, inputs.control_seed)?;
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        for alpha in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let message = V1Config {
                alpha,
                ..V1Config::default()
            }
            .check()
            .unwrap_err()
            .to_string();
            assert!(message.contains("`alpha`"), "{message}");
        }
        let message = V1Config {
            k: 0,
            ..V1Config::default()
        }
        .check()
        .unwrap_err()
        .to_string();
        assert!(message.contains("`k`"), "{message}");
    }
}
