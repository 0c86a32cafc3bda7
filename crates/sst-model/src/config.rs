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
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
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
        let rope = self.rope_parameters.or(self.rope_scaling);
        let rope_theta = self
            .rope_theta
            .or(rope.as_ref().and_then(|r| r.rope_theta))
            .unwrap_or(10_000.0);
        let qwen = self.model_type == "qwen2";
        let windowed = self.use_sliding_window.unwrap_or(!qwen);
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
            rope_scaling: rope.map_or(Ok(RopeScaling::None), RawRope::check)?,
            max_position: self.max_position_embeddings,
            sliding_window: self.sliding_window.filter(|_| windowed),
            tied_head: self.tie_word_embeddings,
            qkv_bias: qwen || self.attention_bias,
            o_bias: !qwen && self.attention_bias,
            mlp_bias: self.mlp_bias,
            model_type: self.model_type,
        })
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
    fn qwen_has_biases_on_qkv_alone_and_no_window_unless_told() {
        let mut value = base();
        value["model_type"] = "qwen2".into();
        value["sliding_window"] = 16.into();
        let config = check(value.clone()).unwrap();
        assert!(config.qkv_bias && !config.o_bias);
        assert_eq!(config.sliding_window, None);
        value["use_sliding_window"] = true.into();
        assert_eq!(check(value).unwrap().sliding_window, Some(16));
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
