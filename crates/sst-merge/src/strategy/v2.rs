//! V2, the study's second method: M = U + w S' on phi.
//!
//! | mode | S' |
//! | --- | --- |
//! | `projected` | P S |
//! | `residual` | (1 - r) P S + r S |
//! | `layerwise` | (1 - t) S + t P S, with a strength t per module |
//! | `direct` | S, which is task arithmetic on phi |
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `k` | 20 | directions of the safety subspace; `direct` does not use it |
//! | `weight` | 1 | w |
//! | `mode` | projected | which S' |
//! | `projection` | aligned | `prefix` reproduces the study's code |

use super::projected::{ProjectedSafety, combine};
use super::{DEFAULT_K, MergeStrategy, Needs, check_k, check_share, check_weight};
use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};
use sst_adapter::{ModulePath, ParamLayout};
use sst_artefact::ParseError;
use sst_subspace::Projection;
use std::str::FromStr;

const NAME: &str = "v2";

/// The study's share of unprojected S in `residual`.
pub const DEFAULT_RESIDUAL: f64 = 0.7;

/// Which S' is added to U.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Mode {
    /// P S.
    #[default]
    Projected,
    /// (1 - r) P S + r S.
    Residual {
        /// Share of the unprojected S, in [0, 1].
        #[serde(default = "default_residual")]
        r: f64,
    },
    /// (1 - t) S + t P S, with a strength t per module.
    Layerwise {
        /// The strengths.
        #[serde(default)]
        preset: Preset,
    },
    /// S as it is.
    Direct,
}

fn default_residual() -> f64 {
    DEFAULT_RESIDUAL
}

impl FromStr for Mode {
    type Err = ParseError;

    /// The mode of that name with its default settings.
    ///
    /// # Errors
    /// A line that lists the known names.
    fn from_str(name: &str) -> Result<Self, ParseError> {
        match name {
            "projected" => Ok(Mode::Projected),
            "residual" => Ok(Mode::Residual { r: DEFAULT_RESIDUAL }),
            "layerwise" => Ok(Mode::Layerwise {
                preset: Preset::default(),
            }),
            "direct" => Ok(Mode::Direct),
            _ => Err(ParseError::new(format!(
                "unknown mode `{name}`: expected projected, residual, layerwise or direct"
            ))),
        }
    }
}

/// Named sets of per-module strengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Preset {
    /// q, k 0.2; v 0.4; o 0.3; MLP 0.6.
    #[default]
    Balanced,
    /// q, k 0.1; v 0.2; o 0.2; MLP 0.4: little projection, S stays strong.
    SafetyFirst,
    /// q, k 0.5; v 0.6; o 0.6; MLP 0.8: much projection, S is held back.
    UtilityFirst,
    /// q, k 0.05; v 0.1; o 0.1; MLP 0.1.
    Minimal,
}

impl FromStr for Preset {
    type Err = ParseError;

    /// # Errors
    /// A line that lists the known names.
    fn from_str(name: &str) -> Result<Self, ParseError> {
        match name {
            "balanced" => Ok(Preset::Balanced),
            "safety_first" => Ok(Preset::SafetyFirst),
            "utility_first" => Ok(Preset::UtilityFirst),
            "minimal" => Ok(Preset::Minimal),
            _ => Err(ParseError::new(format!(
                "unknown preset `{name}`: expected balanced, safety_first, utility_first or minimal"
            ))),
        }
    }
}

/// Projection strength t in [0, 1] by kind of module: 0 keeps S, 1 keeps P S only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strengths {
    /// Query and key projections.
    pub query_key: f64,
    /// Value projection.
    pub value: f64,
    /// Attention output projection.
    pub output: f64,
    /// Gate, up and down projections and whatever else lies in an MLP.
    pub mlp: f64,
    /// Token embeddings and the language model head.
    pub embedding: f64,
    /// Everything else.
    pub other: f64,
}

impl Preset {
    /// The strengths of the preset; embeddings and other modules have the same in all of them.
    pub fn strengths(self) -> Strengths {
        let (query_key, value, output, mlp) = match self {
            Preset::Balanced => (0.2, 0.4, 0.3, 0.6),
            Preset::SafetyFirst => (0.1, 0.2, 0.2, 0.4),
            Preset::UtilityFirst => (0.5, 0.6, 0.6, 0.8),
            Preset::Minimal => (0.05, 0.1, 0.1, 0.1),
        };
        Strengths {
            query_key,
            value,
            output,
            mlp,
            embedding: 0.1,
            other: 0.3,
        }
    }
}

impl Strengths {
    /// The strength of one module.
    pub fn of(&self, module: &ModulePath) -> f64 {
        match module.name() {
            "q_proj" | "k_proj" => self.query_key,
            "v_proj" => self.value,
            "o_proj" => self.output,
            "gate_proj" | "up_proj" | "down_proj" => self.mlp,
            "embed_tokens" | "lm_head" => self.embedding,
            _ if module.as_str().split('.').any(|part| part == "mlp") => self.mlp,
            _ => self.other,
        }
    }
}

/// Settings of [`V2`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct V2Config {
    /// Directions of the safety subspace.
    pub k: usize,
    /// w.
    pub weight: f64,
    /// Which S' is added.
    pub mode: Mode,
    /// Which rows of the basis project a tensor.
    pub projection: Projection,
}

impl Default for V2Config {
    fn default() -> Self {
        Self {
            k: DEFAULT_K,
            weight: 1.0,
            mode: Mode::default(),
            projection: Projection::default(),
        }
    }
}

impl V2Config {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for k = 0, a weight that is NaN or infinite, or an r outside [0, 1].
    pub fn check(self) -> Result<V2, Error> {
        check_k(NAME, self.k)?;
        check_weight(NAME, "weight", self.weight)?;
        if let Mode::Residual { r } = self.mode {
            check_share(NAME, "r", r)?;
        }
        Ok(V2 { config: self })
    }
}

/// M = U + w S'.
#[derive(Debug, Clone, PartialEq)]
pub struct V2 {
    config: V2Config,
}

impl MergeStrategy for V2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::V2(self.config.clone()))
    }

    fn needs(&self) -> Needs {
        Needs {
            basis: self.config.mode != Mode::Direct,
            ..Needs::default()
        }
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check()?;
        let V2Config {
            k,
            weight,
            mode,
            projection,
        } = self.config;
        let (u, s) = rayon::join(|| inputs.utility_phi(), || inputs.safety.to_flat());
        let u = u?;
        if mode == Mode::Direct {
            return Merged::from_phi(inputs, &u, &s, &s, &combine(1.0, &u, weight, &s));
        }
        let projected = ProjectedSafety::new(NAME, inputs, &s, k, projection)?;
        let mixed = match mode {
            Mode::Residual { r } => Some(combine(1.0 - r, &projected.phi, r, &s)),
            Mode::Layerwise { preset } => Some(layerwise(
                &inputs.safety.layout(),
                preset.strengths(),
                &s,
                &projected.phi,
            )),
            Mode::Projected | Mode::Direct => None,
        };
        let used = mixed.as_ref().unwrap_or(&projected.phi);
        let m = combine(1.0, &u, weight, used);
        let mut merged = Merged::from_phi(inputs, &u, &s, used, &m)?;
        projected.describe(&mut merged, &s, inputs.control_seed)?;
        Ok(merged)
    }
}

/// (1 - t) S + t P S, module by module.
fn layerwise(layout: &ParamLayout, strengths: Strengths, s: &[f32], ps: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(s.len());
    for slot in layout.slots() {
        let t = strengths.of(&slot.module());
        out.extend(combine(1.0 - t, &s[slot.range()], t, &ps[slot.range()]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        for weight in [f64::NAN, f64::INFINITY] {
            let message = V2Config {
                weight,
                ..V2Config::default()
            }
            .check()
            .unwrap_err()
            .to_string();
            assert!(message.contains("`weight`"), "{message}");
        }
        for r in [f64::NAN, -0.1, 1.1] {
            let config = V2Config {
                mode: Mode::Residual { r },
                ..V2Config::default()
            };
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains("`r`"), "{message}");
        }
    }

    #[test]
    fn every_kind_of_module_has_its_strength() {
        let strengths = Preset::Balanced.strengths();
        let of = |path: &str| strengths.of(&ModulePath::new(path));
        for (path, t) in [
            ("model.layers.0.self_attn.q_proj", 0.2),
            ("model.layers.0.self_attn.k_proj", 0.2),
            ("model.layers.0.self_attn.v_proj", 0.4),
            ("model.layers.0.self_attn.o_proj", 0.3),
            ("model.layers.0.mlp.gate_proj", 0.6),
            ("model.layers.0.mlp.up_proj", 0.6),
            ("model.layers.0.mlp.down_proj", 0.6),
            ("model.layers.0.mlp.router", 0.6),
            ("model.embed_tokens", 0.1),
            ("lm_head", 0.1),
            ("model.layers.0.something_else", 0.3),
        ] {
            assert_eq!(of(path), t, "{path}");
        }
    }

    #[test]
    fn names_parse_to_defaults() {
        assert_eq!("residual".parse(), Ok(Mode::Residual { r: 0.7 }));
        let message = "other".parse::<Mode>().unwrap_err().to_string();
        assert!(message.contains("layerwise"), "{message}");
        for preset in [
            Preset::Balanced,
            Preset::SafetyFirst,
            Preset::UtilityFirst,
            Preset::Minimal,
        ] {
            let name = serde_json::to_value(preset).unwrap();
            assert_eq!(name.as_str().unwrap().parse(), Ok(preset));
        }
    }
}
