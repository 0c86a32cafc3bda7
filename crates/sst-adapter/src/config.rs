//! `adapter_config.json`: which modules carry LoRA, with which rank and alpha.
//!
//! | key | meaning |
//! | --- | --- |
//! | `r`, `lora_alpha` | rank and alpha of every module that no pattern names |
//! | `target_modules` | names (a module matches by its path or by its end) or one regular expression over the path |
//! | `rank_pattern`, `alpha_pattern` | per-module values; the first key that matches the end of the path counts |
//! | `use_rslora` | scale alpha / sqrt(r) instead of alpha / r |
//!
//! Keys that change what A and B mean (DoRA, biases, token embeddings, ...) are refused by name, and so is an
//! `init_lora_weights` that changes the base model as well: B A is then no change of the model named. The rest is kept.

use crate::{Error, ModulePath};
use fancy_regex::Regex;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Keys whose mere use gives the tensors another meaning, or adds tensors that we do not read.
const UNSUPPORTED: [&str; 11] = [
    "use_dora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
];

/// How the names of those `init_lora_weights` begin that put other weights into the base model before training.
const CHANGING_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// The `target_modules` entry: a list of names, or a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum TargetModules {
    /// A module is targeted when its path equals a name or ends in `.name`.
    Names(BTreeSet<String>),
    /// A module is targeted when the expression matches its whole path; `all-linear` matches all.
    Pattern(String),
}

/// What `adapter_config.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of every module that `rank_pattern` does not name.
    pub r: usize,
    /// alpha of every module that `alpha_pattern` does not name.
    pub lora_alpha: f64,
    /// The modules that carry LoRA.
    pub target_modules: TargetModules,
    /// Whether the scale is alpha / sqrt(r).
    #[serde(default)]
    pub use_rslora: bool,
    /// Ranks by regular expression; order counts.
    #[serde(default)]
    pub rank_pattern: IndexMap<String, usize>,
    /// alphas by regular expression; order counts.
    #[serde(default)]
    pub alpha_pattern: IndexMap<String, f64>,
    /// The base model that the adapter was trained on.
    #[serde(default)]
    pub base_model_name_or_path: Option<String>,
    /// PEFT's task, `CAUSAL_LM` for language models.
    #[serde(default)]
    pub task_type: Option<String>,
    /// Every other key, kept as it was read: it matters to PEFT, not to A and B.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl LoraConfig {
    /// A plain LoRA configuration of a causal language model.
    pub fn new<S: Into<String>>(r: usize, lora_alpha: f64, targets: impl IntoIterator<Item = S>) -> Self {
        Self {
            r,
            lora_alpha,
            target_modules: TargetModules::Names(targets.into_iter().map(Into::into).collect()),
            use_rslora: false,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            base_model_name_or_path: None,
            task_type: Some("CAUSAL_LM".to_owned()),
            other: BTreeMap::new(),
        }
    }

    /// Reads the JSON object of `adapter_config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key that is missing, malformed or not supported.
    pub fn from_json(json: &Value) -> Result<Self, Error> {
        let Value::Object(object) = json else {
            return Err(Error::config("adapter_config.json", "is not a JSON object"));
        };
        refuse_unsupported(object)?;
        let mut object = object.clone();
        match object.remove("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            Some(kind) => {
                return Err(Error::config(
                    "peft_type",
                    format!("is {kind}; only \"LORA\" is supported"),
                ));
            }
            None => return Err(Error::config("peft_type", "is missing")),
        }
        for key in ["r", "lora_alpha", "target_modules"] {
            if object.get(key).is_none_or(Value::is_null) {
                return Err(Error::config(key, "is missing"));
            }
        }
        // PEFT may write null where it means "none".
        object.retain(|key, value| !(value.is_null() && key.ends_with("_pattern") && key != "layers_pattern"));
        let config: Self = serde_json::from_value(Value::Object(object))
            .map_err(|e| Error::config("adapter_config.json", e.to_string()))?;
        config.rules()?;
        Ok(config)
    }

    /// The JSON object for `adapter_config.json`, keys sorted as PEFT sorts them.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that JSON cannot hold or that reading would refuse.
    pub fn to_json(&self) -> Result<Value, Error> {
        // JSON would make null of NaN.
        self.rules()?;
        let value = serde_json::to_value(self).map_err(|e| Error::config("adapter_config.json", e.to_string()))?;
        let mut sorted: BTreeMap<String, Value> = match value {
            Value::Object(object) => object.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        sorted.insert("peft_type".to_owned(), "LORA".into());
        sorted.entry("bias".to_owned()).or_insert_with(|| "none".into());
        let object: Map<String, Value> = sorted.into_iter().collect();
        refuse_unsupported(&object)?;
        Ok(Value::Object(object))
    }

    /// Compiles the patterns and checks the numbers.
    pub(crate) fn rules(&self) -> Result<ModuleRules, Error> {
        let positive = |key: &str, r: usize| match r {
            0 => Err(Error::config(key, "is 0; a rank is at least 1")),
            _ => Ok(r),
        };
        let finite = |key: &str, alpha: f64| match alpha.is_finite() {
            true => Ok(alpha),
            false => Err(Error::config(key, format!("is {alpha}; it must be finite"))),
        };
        let targets = match &self.target_modules {
            TargetModules::Names(names) => Targets::Names(names.clone()),
            TargetModules::Pattern(pattern) if pattern == "all-linear" => Targets::All,
            TargetModules::Pattern(pattern) => {
                Targets::Pattern(compile("target_modules", pattern, &format!(r"\A(?:{pattern})\z"))?)
            }
        };
        let ranks = self
            .rank_pattern
            .iter()
            .map(|(pattern, r)| Ok((suffix("rank_pattern", pattern)?, positive("rank_pattern", *r)?)));
        let alphas = self
            .alpha_pattern
            .iter()
            .map(|(pattern, alpha)| Ok((suffix("alpha_pattern", pattern)?, finite("alpha_pattern", *alpha)?)));
        Ok(ModuleRules {
            targets,
            r: positive("r", self.r)?,
            alpha: finite("lora_alpha", self.lora_alpha)?,
            ranks: ranks.collect::<Result<_, Error>>()?,
            alphas: alphas.collect::<Result<_, Error>>()?,
        })
    }
}

/// The configuration with its patterns compiled: rank and alpha of any module.
pub(crate) struct ModuleRules {
    targets: Targets,
    r: usize,
    alpha: f64,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

enum Targets {
    All,
    Names(BTreeSet<String>),
    Pattern(Regex),
}

impl ModuleRules {
    pub(crate) fn targets(&self, module: &ModulePath) -> Result<bool, Error> {
        let path = module.as_str();
        match &self.targets {
            Targets::All => Ok(true),
            Targets::Names(names) => {
                let ends = |name: &String| path.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                Ok(names.contains(path) || names.iter().any(ends))
            }
            Targets::Pattern(regex) => is_match("target_modules", regex, path),
        }
    }

    pub(crate) fn rank(&self, module: &ModulePath) -> Result<usize, Error> {
        first_match("rank_pattern", &self.ranks, module).map(|found| found.unwrap_or(self.r))
    }

    pub(crate) fn alpha(&self, module: &ModulePath) -> Result<f64, Error> {
        first_match("alpha_pattern", &self.alphas, module).map(|found| found.unwrap_or(self.alpha))
    }
}

/// What `r` says of modules of these ranks: the most common, of two as common the larger; 1 of none.
pub(crate) fn common_rank(ranks: impl IntoIterator<Item = usize>) -> usize {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for rank in ranks {
        *counts.entry(rank).or_default() += 1;
    }
    let common = counts.iter().max_by_key(|(rank, count)| (**count, **rank));
    common.map_or(1, |(rank, _)| *rank)
}

fn first_match<T: Copy>(key: &str, patterns: &[(Regex, T)], module: &ModulePath) -> Result<Option<T>, Error> {
    for (regex, value) in patterns {
        if is_match(key, regex, module.as_str())? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

fn is_match(key: &str, regex: &Regex, path: &str) -> Result<bool, Error> {
    regex
        .is_match(path)
        .map_err(|e| Error::config(key, format!("cannot be matched against {path}: {e}")))
}

/// PEFT's rule for the pattern dictionaries: the expression matches the end of the path after a dot, or all of it.
fn suffix(key: &str, pattern: &str) -> Result<Regex, Error> {
    compile(key, pattern, &format!(r"\A(?:.*\.)?(?:{pattern})\z"))
}

fn compile(key: &str, pattern: &str, anchored: &str) -> Result<Regex, Error> {
    Regex::new(anchored).map_err(|e| Error::config(key, format!("holds the invalid expression `{pattern}`: {e}")))
}

fn refuse_unsupported(object: &Map<String, Value>) -> Result<(), Error> {
    let used = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    for key in UNSUPPORTED {
        if let Some(value) = object.get(key).filter(|value| used(value)) {
            return Err(Error::config(key, format!("= {value} is not supported")));
        }
    }
    let init = object
        .get("init_lora_weights")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if CHANGING_BASE.iter().any(|name| init.to_lowercase().starts_with(name)) {
        let reason = format!(
            "= \"{init}\" changes the base model too, so that B A is no change of it: save the adapter again with PEFT's \
             `path_initial_model_for_weight_conversion`, which makes a plain LoRA of all but LoftQ"
        );
        return Err(Error::config("init_lora_weights", reason));
    }
    match object.get("bias") {
        Some(bias) if bias != "none" => Err(Error::config(
            "bias",
            format!("= {bias} is not supported; only \"none\" is"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain() -> Value {
        json!({"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj"], "bias": "none"})
    }

    fn with(key: &str, value: Value) -> Result<LoraConfig, Error> {
        let mut json = plain();
        json[key] = value;
        LoraConfig::from_json(&json)
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (key, value) in [
            ("use_dora", json!(true)),
            ("lora_bias", json!(true)),
            ("fan_in_fan_out", json!(true)),
            ("bias", json!("all")),
            ("modules_to_save", json!(["lm_head"])),
            ("peft_type", json!("IA3")),
            ("layer_replication", json!([[0, 4]])),
            ("init_lora_weights", json!("pissa_niter_16")),
            ("init_lora_weights", json!("OLoRA")),
            ("init_lora_weights", json!("loftq")),
        ] {
            let message = with(key, value).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{key}`")), "{message}");
        }
        for (key, value) in [
            ("use_dora", json!(false)),
            ("modules_to_save", json!(null)),
            ("modules_to_save", json!([])),
            ("init_lora_weights", json!(true)),
            ("init_lora_weights", json!("gaussian")),
        ] {
            assert!(with(key, value).is_ok(), "{key}");
        }
        for key in ["r", "lora_alpha", "target_modules", "peft_type"] {
            let mut json = plain();
            json.as_object_mut().unwrap().remove(key);
            let message = LoraConfig::from_json(&json).unwrap_err().to_string();
            assert_eq!(message, format!("`{key}` is missing"));
        }
    }

    #[test]
    fn patterns_match_the_end_of_the_path_and_the_first_counts() {
        let config = with(
            "rank_pattern",
            json!({"layers.1.q_proj": 8, r"layers\.\d+\.q_proj": 2, "proj": 9}),
        )
        .unwrap();
        let rules = config.rules().unwrap();
        let rank = |path: &str| rules.rank(&ModulePath::new(path)).unwrap();
        assert_eq!(rank("model.layers.1.q_proj"), 8);
        assert_eq!(rank("model.layers.7.q_proj"), 2);
        assert_eq!(rank("layers.7.q_proj"), 2);
        assert_eq!(rank("model.layers.11.q_proj"), 2); // "1.q_proj" is no whole part of "11.q_proj"
        assert_eq!(rank("model.layers.1.k_proj"), 4); // "proj" must follow a dot
    }

    #[test]
    fn an_alternation_is_anchored_as_a_whole() {
        let config = with("target_modules", json!(r".*\.layers\.0\.q_proj|.*v_proj")).unwrap();
        let rules = config.rules().unwrap();
        let hit = |path: &str| rules.targets(&ModulePath::new(path)).unwrap();
        assert!(hit("model.layers.0.q_proj") && hit("model.layers.3.v_proj"));
        assert!(!hit("model.layers.0.q_proj.inner") && !hit("model.layers.1.q_proj"));
    }

    #[test]
    fn names_match_whole_parts_only() {
        let rules = plain_rules();
        let hit = |path: &str| rules.targets(&ModulePath::new(path)).unwrap();
        assert!(hit("model.layers.0.self_attn.q_proj") && hit("q_proj"));
        assert!(!hit("model.layers.0.self_attn.my_q_proj"));
    }

    fn plain_rules() -> ModuleRules {
        LoraConfig::from_json(&plain()).unwrap().rules().unwrap()
    }

    #[test]
    fn nonsense_numbers_and_patterns_are_refused() {
        let broken = |change: fn(&mut LoraConfig)| {
            let mut config = LoraConfig::from_json(&plain()).unwrap();
            change(&mut config);
            config.rules().err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(broken(|c| c.r = 0).contains("`r`"));
        assert!(broken(|c| c.lora_alpha = f64::NAN).contains("`lora_alpha`"));
        assert!(
            broken(|c| {
                c.rank_pattern.insert("(".into(), 2);
            })
            .contains("`rank_pattern`")
        );
        assert!(
            broken(|c| {
                c.rank_pattern.insert("q".into(), 0);
            })
            .contains("`rank_pattern`")
        );
        // Nor are they written, as the null that JSON has for NaN.
        let mut config = LoraConfig::from_json(&plain()).unwrap();
        config.alpha_pattern.insert("q_proj".into(), f64::NAN);
        let message = config.to_json().unwrap_err().to_string();
        assert!(message.starts_with("`alpha_pattern` is NaN"), "{message}");
    }

    #[test]
    fn unknown_keys_survive_a_round_trip() {
        let config = with("layers_to_transform", json!([0, 3])).unwrap();
        let again = LoraConfig::from_json(&config.to_json().unwrap()).unwrap();
        assert_eq!(again.other["layers_to_transform"], json!([0, 3]));
        assert_eq!(
            again,
            LoraConfig {
                other: again.other.clone(),
                ..config
            }
        );
    }
}
