//! What `config.json` says about an encoder, checked.

use crate::Error;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Which attention, and under which name the tensors lie.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Architecture {
    /// Every token sees every token: RoBERTa, DistilRoBERTa, XLM-RoBERTa.
    Roberta,
    /// A token sees this many on each side, by layer, and `<s>`, which sees all.
    Longformer(Vec<i64>),
}

impl Architecture {
    pub fn prefix(&self) -> &'static str {
        match self {
            Self::Roberta => "roberta",
            Self::Longformer(_) => "longformer",
        }
    }
}

/// Shape and constants of an encoder with a classification head.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EncoderConfig {
    pub architecture: Architecture,
    pub vocab: usize,
    pub hidden: usize,
    pub inner: usize,
    pub layers: usize,
    pub heads: usize,
    pub positions: usize,
    pub types: usize,
    pub pad: i64,
    pub eps: f64,
    pub labels: Vec<String>,
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    #[serde(default)]
    architectures: Vec<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    pad_token_id: usize,
    layer_norm_eps: f64,
    hidden_act: String,
    position_embedding_type: Option<String>,
    problem_type: Option<String>,
    attention_window: Option<Windows>,
    id2label: Option<BTreeMap<usize, String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Windows {
    One(i64),
    Each(Vec<i64>),
}

impl EncoderConfig {
    /// Reads and checks `folder/config.json`.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("config.json");
        let raw: Raw = sst_artefact::read_json(&path, "classifier's configuration")?;
        raw.check().map_err(|reason| Error::Config { path, reason })
    }

    /// Tokens of the longest text, special ones included.
    pub fn longest(&self) -> usize {
        self.positions - self.pad as usize - 1
    }
}

impl Raw {
    fn check(self) -> Result<EncoderConfig, String> {
        let windows = |given: Option<Windows>| match given {
            Some(Windows::One(window)) => Ok(vec![window / 2; self.num_hidden_layers]),
            Some(Windows::Each(windows)) if windows.len() == self.num_hidden_layers => {
                Ok(windows.into_iter().map(|window| window / 2).collect())
            }
            _ => Err("attention_window is missing, or is not one for every layer".to_owned()),
        };
        let architecture = match self.model_type.as_str() {
            "roberta" | "xlm-roberta" => Architecture::Roberta,
            "longformer" => Architecture::Longformer(windows(self.attention_window)?),
            other => {
                return Err(format!(
                    "model_type `{other}` is not supported; classifiers are roberta (DistilRoBERTa too), xlm-roberta, longformer"
                ));
            }
        };
        if !self
            .architectures
            .iter()
            .any(|name| name.ends_with("ForSequenceClassification"))
        {
            return Err(format!(
                "architectures is {:?}, which is no sequence classifier",
                self.architectures
            ));
        }
        if self.hidden_act != "gelu" {
            return Err(format!("hidden_act `{}` is not supported, only gelu", self.hidden_act));
        }
        if let Some(kind) = self.position_embedding_type.filter(|kind| kind != "absolute") {
            return Err(format!(
                "position_embedding_type `{kind}` is not supported, only absolute"
            ));
        }
        if let Some(kind) = self.problem_type.filter(|kind| kind != "single_label_classification") {
            return Err(format!(
                "problem_type `{kind}` is not supported, only single_label_classification"
            ));
        }
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if self.pad_token_id >= self.vocab_size || self.pad_token_id + 3 > self.max_position_embeddings {
            return Err(format!(
                "pad_token_id {} leaves no room among vocab_size {} and max_position_embeddings {}",
                self.pad_token_id, self.vocab_size, self.max_position_embeddings
            ));
        }
        if self.type_vocab_size == 0 {
            return Err("type_vocab_size is 0".to_owned());
        }
        // What transformers writes nothing of, it takes for two labels.
        let named = self
            .id2label
            .unwrap_or_else(|| (0..2).map(|i| (i, format!("LABEL_{i}"))).collect());
        if named.len() < 2 || !named.keys().copied().eq(0..named.len()) {
            return Err("id2label must name two or more labels, numbered from 0".to_owned());
        }
        Ok(EncoderConfig {
            architecture,
            vocab: self.vocab_size,
            hidden: self.hidden_size,
            inner: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            positions: self.max_position_embeddings,
            types: self.type_vocab_size,
            pad: self.pad_token_id as i64,
            eps: self.layer_norm_eps,
            labels: named.into_values().collect(),
        })
    }
}
