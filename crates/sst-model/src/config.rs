//! What `config.json` says about the decoder, checked.

use crate::Error;
use serde::Deserialize;
use std::path::Path;

/// Shape and constants of a Llama-family decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `llama`, `mistral` or `qwen2`.
    pub model_type: String,
    /// Number of token embeddings.
    pub vocab_size: usize,
    /// Width of the residual stream, d_model.
    pub hidden_size: usize,
    /// Width inside the SwiGLU block.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; fewer than `heads` is grouped-query attention.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Epsilon inside RMSNorm's square root.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Change of the rotary frequencies for long contexts.
    pub rope_scaling: RopeScaling,
    /// Longest context the model was made for.
    pub max_position: usize,
    /// Attention reaches this many tokens back, if limited.
    pub sliding_window: Option<usize>,
    /// The output head is the embedding matrix.
    pub tied_head: bool,
    /// q, k and v (and o where `o_bias`) carry a bias.
    pub qkv_bias: bool,
    /// o carries a bias.
    pub o_bias: bool,
    /// gate, up and down carry a bias.
    pub mlp_bias: bool,
}

/// How rotary frequencies are rescaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f64,
        /// Wavelengths above `original / low` are long.
        low: f64,
        /// Wavelengths below `original / high` are short.
        high: f64,
        /// Context length of pre-training.
        original: f64,
    },
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    max_position_embeddings: usize,
    #[serde(default = "default_window")]
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
}

/// Where transformers finds no `sliding_window`; null means none.
fn default_window() -> Option<usize> {
    Some(4096)
}

#[derive(Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl ModelConfig {
    /// Reads and checks `folder/config.json`.
    ///
    /// # Errors
    /// [`Error::Artefact`] when the file is missing or malformed, [`Error::Config`] naming the key that this
    /// decoder does not support.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("config.json");
        let raw: Raw = sst_artefact::read_json(&path, "model configuration")?;
        raw.check().map_err(|reason| Error::Config { path, reason })
    }
}

impl Raw {
    fn check(self) -> Result<ModelConfig, String> {
        if !["llama", "mistral", "qwen2"].contains(&self.model_type.as_str()) {
            return Err(format!(
                "model_type `{}` is not supported; supported are llama (SmolLM2 too), mistral and qwen2",
                self.model_type
            ));
        }
        if let Some(act) = &self.hidden_act
            && act != "silu"
        {
            return Err(format!("hidden_act `{act}` is not supported, only silu"));
        }
        let kv_heads = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", kv_heads),
        ] {
            if value == 0 {
                return Err(format!("{key} is 0"));
            }
        }
        if !self.num_attention_heads.is_multiple_of(kv_heads) {
            return Err(format!(
                "num_attention_heads {} is not a multiple of num_key_value_heads {kv_heads}",
                self.num_attention_heads
            ));
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(format!("head_dim {head_dim} must be even and positive"));
        }
        let sliding_window = self.window()?;
        let rope = self.rope_parameters.or(self.rope_scaling);
        let rope_theta = self
            .rope_theta
            .or(rope.as_ref().and_then(|r| r.rope_theta))
            .unwrap_or(10_000.0);
        let qwen = self.model_type == "qwen2";
        let rope_scaling = rope.map_or(Ok(RopeScaling::None), RawRope::check)?;
        Ok(ModelConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads,
            head_dim,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta,
            max_position: match rope_scaling {
                // The configuration keeps the length of pre-training, which the scaling stretches.
                RopeScaling::Linear { factor } => (self.max_position_embeddings as f64 * factor) as usize,
                _ => self.max_position_embeddings,
            },
            rope_scaling,
            sliding_window,
            tied_head: self.tie_word_embeddings,
            qkv_bias: qwen || self.attention_bias,
            o_bias: !qwen && self.attention_bias,
            mlp_bias: self.mlp_bias,
            model_type: self.model_type,
        })
    }

    /// The window of all layers, as transformers has it: Mistral's always counts, Llama's never, Qwen2's where it is used, and
    /// there from layer `max_window_layers` on.
    fn window(&self) -> Result<Option<usize>, String> {
        let window = match self.model_type.as_str() {
            "mistral" => return Ok(self.sliding_window),
            "qwen2" if self.use_sliding_window == Some(true) => self.sliding_window,
            _ => None,
        };
        let layers = self.num_hidden_layers;
        let windowed = match &self.layer_types {
            Some(types) => types.iter().filter(|kind| *kind == "sliding_attention").count(),
            None => layers.saturating_sub(self.max_window_layers.unwrap_or(28)),
        };
        if window.is_some() && (1..layers).contains(&windowed) {
            return Err(format!(
                "sliding_window on {windowed} of {layers} layers (max_window_layers, layer_types) is not supported"
            ));
        }
        Ok(window.filter(|_| windowed > 0))
    }
}

impl RawRope {
    fn check(self) -> Result<RopeScaling, String> {
        let need = |value: Option<f64>, key: &str| {
            value
                .filter(|v| v.is_finite() && *v > 0.0)
                .ok_or(format!("rope_scaling.{key} must be positive"))
        };
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear {
                factor: need(self.factor, "factor")?,
            }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: need(self.factor, "factor")?,
                low: need(self.low_freq_factor, "low_freq_factor")?,
                high: need(self.high_freq_factor, "high_freq_factor")?,
                original: need(
                    self.original_max_position_embeddings,
                    "original_max_position_embeddings",
                )?,
            }),
            Some(other) => Err(format!(
                "rope_scaling type `{other}` is not supported; supported are default, linear and llama3"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> serde_json::Value {
        serde_json::json!({
            "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5, "max_position_embeddings": 128
        })
    }

    fn check(value: serde_json::Value) -> Result<ModelConfig, String> {
        serde_json::from_value::<Raw>(value).unwrap().check()
    }

    #[test]
    fn defaults_follow_transformers() {
        let config = check(base()).unwrap();
        assert_eq!((config.head_dim, config.rope_theta), (8, 10_000.0));
        assert!(!config.qkv_bias && !config.tied_head);
    }

    #[test]
    fn qwen_has_biases_on_qkv_alone() {
        let mut value = base();
        value["model_type"] = "qwen2".into();
        let config = check(value).unwrap();
        assert!(config.qkv_bias && !config.o_bias);
    }

    #[test]
    fn windows_follow_transformers() {
        let window = |family: &str, keys: &serde_json::Value| {
            let mut value = base();
            value["model_type"] = family.into();
            value["sliding_window"] = 16.into();
            for (key, given) in keys.as_object().unwrap() {
                value[key] = given.clone();
            }
            check(value).map(|config| config.sliding_window)
        };
        let used = |key: &str, given: serde_json::Value| {
            let mut keys = serde_json::json!({"use_sliding_window": true});
            keys[key] = given;
            keys
        };
        let none = serde_json::json!({});
        let types = |first: &str| used("layer_types", serde_json::json!([first, "sliding_attention"]));
        for (family, keys, expected) in [
            ("llama", none.clone(), None),
            ("mistral", none.clone(), Some(16)),
            ("mistral", serde_json::json!({"sliding_window": null}), None),
            ("qwen2", none, None),
            // From layer 28 on where nothing else is said, and the model has two.
            ("qwen2", serde_json::json!({"use_sliding_window": true}), None),
            ("qwen2", used("max_window_layers", 0.into()), Some(16)),
            ("qwen2", used("max_window_layers", 2.into()), None),
            ("qwen2", types("sliding_attention"), Some(16)),
        ] {
            assert_eq!(window(family, &keys), Ok(expected), "{family} {keys}");
        }
        for keys in [used("max_window_layers", 1.into()), types("full_attention")] {
            let error = window("qwen2", &keys).unwrap_err();
            assert!(error.contains("sliding_window on 1 of 2 layers"), "{error}");
        }
        let mut silent = base();
        silent["model_type"] = "mistral".into();
        assert_eq!(check(silent).unwrap().sliding_window, Some(4096));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (key, bad, part) in [
            ("model_type", serde_json::json!("gpt2"), "gpt2"),
            ("hidden_act", serde_json::json!("gelu"), "gelu"),
            (
                "rope_scaling",
                serde_json::json!({"rope_type": "yarn", "factor": 2.0}),
                "yarn",
            ),
            ("num_key_value_heads", serde_json::json!(3), "num_key_value_heads"),
            ("hidden_size", serde_json::json!(33), "hidden_size"),
        ] {
            let mut value = base();
            value[key] = bad;
            let error = check(value).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
