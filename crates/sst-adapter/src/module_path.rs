//! The name of a LoRA'd module inside its model, ordered as the model runs.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Projections of a decoder layer in the order in which phi lists them.
const PROJECTIONS: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

/// A module's path inside the base model, such as `model.layers.3.self_attn.q_proj`.
///
/// The order is the model's: by layer number, then q, k, v, o, gate, up, down, then any other name, then the path;
/// modules outside any layer come last.
///
/// ```
/// use sst_adapter::ModulePath;
/// let path = |s: &str| ModulePath::new(s);
/// assert!(path("model.layers.2.mlp.up_proj") < path("model.layers.10.self_attn.q_proj"));
/// assert!(path("model.layers.2.self_attn.q_proj") < path("model.layers.2.self_attn.k_proj"));
/// assert!(path("model.layers.99.mlp.down_proj") < path("lm_head"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ModulePath {
    // The derived order compares these fields from top to bottom.
    layer: u64,
    projection: usize,
    path: String,
}

impl ModulePath {
    /// Takes the path as the model spells it, without PEFT's `base_model.model.` prefix.
    pub fn new(path: impl Into<String>) -> Self {
        let path = path.into();
        let layer = path.split('.').find_map(|part| part.parse().ok()).unwrap_or(u64::MAX);
        let name = path.rsplit('.').next().unwrap_or_default();
        let projection = PROJECTIONS.iter().position(|p| *p == name).unwrap_or(PROJECTIONS.len());
        Self {
            layer,
            projection,
            path,
        }
    }

    /// The whole path.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// The last part of the path, such as `q_proj`.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// The number of the layer it lies in: the first number in its path.
    pub fn layer(&self) -> Option<u64> {
        (self.layer != u64::MAX).then_some(self.layer)
    }
}

impl fmt::Display for ModulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl From<String> for ModulePath {
    fn from(path: String) -> Self {
        Self::new(path)
    }
}

impl From<&str> for ModulePath {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

impl From<ModulePath> for String {
    fn from(path: ModulePath) -> Self {
        path.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_as_the_model_runs() {
        let ordered = [
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.self_attn.k_proj",
            "model.layers.0.self_attn.v_proj",
            "model.layers.0.self_attn.o_proj",
            "model.layers.0.mlp.gate_proj",
            "model.layers.0.mlp.up_proj",
            "model.layers.0.mlp.down_proj",
            "model.layers.0.mlp.router",
            "model.layers.2.self_attn.q_proj",
            "model.layers.10.self_attn.q_proj",
            "lm_head",
            "model.embed_tokens",
        ];
        let mut paths: Vec<ModulePath> = ordered.iter().rev().map(|p| ModulePath::new(*p)).collect();
        paths.sort();
        let sorted: Vec<&str> = paths.iter().map(ModulePath::as_str).collect();
        assert_eq!(sorted, ordered);
        assert_eq!(paths[9].layer(), Some(10));
        assert_eq!(paths[10].layer(), None);
    }

    #[test]
    fn is_a_plain_string_in_json() {
        let json = "\"model.layers.1.mlp.up_proj\"";
        let path: ModulePath = serde_json::from_str(json).unwrap();
        assert_eq!(path, ModulePath::new("model.layers.1.mlp.up_proj"));
        assert_eq!(serde_json::to_string(&path).unwrap(), json);
    }
}
