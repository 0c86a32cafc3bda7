//! One merge of a recipe's grid, and what must be measured for it.

use crate::{Measurement, Recipe, UtilityAnswers, Variant};
use serde::Serialize;
use serde_json::{Value, json};
use sst_data::Dataset;
use sst_merge::{MergeStrategy, StrategyConfig};

/// A merge of one variant by one strategy, with statistics of so many samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MergeCell {
    /// The adapters merged.
    pub variant: Variant,
    /// Samples of the Fisher statistics.
    pub samples: usize,
    /// The strategy and its settings.
    pub strategy: StrategyConfig,
}

/// What a merge needs beside the adapters; in every list the safety adapter's is last.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct CellNeeds {
    /// Directions of the safety subspace, found from `own`.
    pub k: Option<usize>,
    /// Whether the strategy takes `own` itself.
    pub diagonals: bool,
    /// Fisher information of every adapter's own parameters.
    pub own: Vec<Measurement>,
    /// Kronecker factors.
    pub factors: Vec<Measurement>,
}

impl MergeCell {
    /// Every merge of a recipe, in the order of the table.
    pub(crate) fn grid(recipe: &Recipe) -> Vec<Self> {
        let mut cells = Vec::new();
        for variant in &recipe.variants {
            for &samples in &recipe.fisher.samples {
                cells.extend(recipe.merges.iter().map(|strategy| Self {
                    variant: variant.clone(),
                    samples,
                    strategy: strategy.clone(),
                }));
            }
        }
        cells
    }

    /// What it is called in tables.
    pub fn name(&self) -> String {
        format!("{} {} n={}", label(&self.strategy), self.variant.name, self.samples)
    }

    pub(crate) fn needs(&self, recipe: &Recipe, strategy: &dyn MergeStrategy) -> CellNeeds {
        let needs = strategy.needs();
        let mut found = CellNeeds {
            k: basis_size(strategy),
            diagonals: needs.diagonals,
            ..CellNeeds::default()
        };
        let seed = recipe.seed_of(&self.variant);
        let adapters = || self.variant.utility.iter().chain([&self.variant.safety]);
        if found.k.is_some() || needs.diagonals {
            let own = |name: &String| Measurement::own(recipe, name, self.samples, seed);
            found.own = adapters().map(own).collect();
        }
        if needs.statistics {
            let dataset = |name: &String| recipe.adapters[name].dataset;
            let factors = |stack: &[String], on| Measurement::factors(recipe, stack, on, self.samples, seed);
            found.factors = if strategy.name() == "regmean" {
                let alone = |name: &String| factors(std::slice::from_ref(name), dataset(name));
                adapters().map(alone).collect()
            } else {
                let safety = dataset(&self.variant.safety);
                let answers = match recipe.statistics.utility_answers {
                    UtilityAnswers::Own => None,
                    UtilityAnswers::Refusal => Some(safety),
                };
                let stack = &self.variant.utility;
                let of_utility = |&on: &Dataset| Measurement {
                    answers,
                    ..factors(stack, on)
                };
                let utility = recipe.statistics.utility.iter().map(of_utility);
                utility.chain([factors(stack, safety)]).collect()
            };
        }
        found
    }
}

/// The directions of a solved basis that a strategy asks for.
pub(crate) fn basis_size(strategy: &dyn MergeStrategy) -> Option<usize> {
    let k = strategy.config()["k"].as_u64().filter(|_| strategy.needs().basis);
    k.map(|k| k as usize)
}

/// A strategy in a few words: `V2 k=20 weight=1 residual r=0.7 prefix`. Switches and lists are named where they are not the default's.
pub(crate) fn label(strategy: &StrategyConfig) -> String {
    fn words(value: &Value, default: &Value, name: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, inner) in fields {
                    if inner.is_object() && name == "mode" {
                        out.push(key.clone());
                    }
                    words(inner, &default[key], key, out);
                }
            }
            Value::String(text) if name == "strategy" => out.push(text.to_uppercase()),
            Value::String(text) => out.push(text.clone()),
            Value::Number(n) => out.push(format!("{name}={}", n.as_f64().unwrap_or_default())),
            Value::Bool(true) if value != default => out.push(name.to_owned()),
            Value::Bool(_) | Value::Array(_) if value != default => out.push(format!("{name}={value}")),
            Value::Null | Value::Bool(_) | Value::Array(_) => {}
        }
    }
    let value = json!(strategy);
    // A strategy that has no defaults shows all that it has.
    let default = serde_json::from_value::<StrategyConfig>(json!({ "strategy": value["strategy"] }));
    let default = default.map_or(Value::Null, |default| json!(default));
    let mut out = Vec::new();
    words(&value, &default, "", &mut out);
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_tell_strategies_apart() {
        let v2 =
            r#"{"strategy": "v2", "k": 30, "weight": 0.8, "mode": {"residual": {"r": 0.7}}, "projection": "prefix"}"#;
        let v2: StrategyConfig = serde_json::from_str(v2).unwrap();
        assert_eq!(label(&v2), "V2 k=30 weight=0.8 residual r=0.7 prefix");
        let v1: StrategyConfig = serde_json::from_str(r#"{"strategy": "v1"}"#).unwrap();
        assert_eq!(label(&v1), "V1 k=20 alpha=1 aligned");

        let of = |settings: &str| label(&serde_json::from_str(settings).unwrap());
        let plain = of(r#"{"strategy": "ties"}"#);
        assert_eq!(
            of(r#"{"strategy": "ties", "rescale": true}"#),
            plain.replace("total", "total rescale")
        );
        let counted = of(r#"{"strategy": "ties", "normalize": false}"#);
        assert!(
            counted.contains("normalize=false") && !plain.contains("normalize"),
            "{counted}"
        );
        let gammas = of(r#"{"strategy": "sst", "gammas": [{"layers": [0], "gamma": 0.0}]}"#);
        assert!(gammas.contains(r#"gammas=[{"layers":[0],"gamma":0.0}]"#), "{gammas}");
    }
}
