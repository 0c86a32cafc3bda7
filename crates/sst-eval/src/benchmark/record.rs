//! One item of an evaluation.

use super::Benchmark;
use crate::Finish;
use serde::{Deserialize, Serialize};
use sst_data::Prompt;
use std::collections::BTreeMap;

/// One item of an evaluation: what was asked, what came back, how it was scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// Which benchmark.
    pub benchmark: Benchmark,
    /// The item, unique within its benchmark and the same for every model.
    pub id: String,
    /// What was asked.
    pub prompt: Prompt,
    /// The model's answer; a letter for multiple choice by likelihood, empty where a reference answer is weighed.
    pub answer: String,
    /// The expected answer; empty where there is none.
    pub reference: String,
    /// Its part in the score: 0 or 1, a ROUGE-L, or nats per token.
    pub score: f64,
    /// Whether the answer refuses; absent where nothing is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<bool>,
    /// Whether the answer is neither empty, nor looping, nor gibberish; absent where nothing is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<bool>,
    /// Why the answer ended; absent where nothing is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// Log-likelihood of each choice, A to D, or of the reference answer; empty where something is generated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_likelihoods: Vec<f64>,
    /// Its parts in the secondary metrics, by name; a metric that does not concern the item is absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}
