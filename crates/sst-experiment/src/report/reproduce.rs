//! How to come to the same numbers: commands, versions, hashes.

use crate::recipe::without_seed;
use crate::{Error, Recipe, Results, quoted};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sst_artefact::{Input, Manifest};
use std::collections::BTreeMap;
use std::path::Path;

/// What a reader needs to repeat the work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reproduction {
    /// Version of the tool that wrote the results.
    pub results_version: Option<String>,
    /// Version of the tool that wrote the report.
    pub report_version: String,
    /// Commands, in order.
    pub commands: Vec<String>,
    /// Inputs by role with their SHA-256: the base model, every data set, the results themselves.
    pub inputs: BTreeMap<String, Input>,
    /// The recipe with all defaults filled in, as TOML.
    pub recipe: Option<String>,
}

impl Reproduction {
    /// Of a study's figures: the report alone can be repeated.
    pub(super) fn of_study(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            results_version: None,
            report_version: env!("CARGO_PKG_VERSION").to_owned(),
            commands: vec![format!("sst report {}", quoted(&path.display().to_string()))],
            inputs: BTreeMap::from([("figures".to_owned(), Input::hash(path)?)]),
            recipe: None,
        })
    }

    /// Of a run folder.
    pub(super) fn of_run(folder: &Path, results: &Results) -> Result<Self, Error> {
        let mut inputs = BTreeMap::from([
            (
                "results".to_owned(),
                Input::hash(&folder.join(crate::results::RESULTS_FILE))?,
            ),
            ("model".to_owned(), results.model.clone()),
        ]);
        for system in &results.systems {
            let manifest = Manifest::read(&folder.join(&system.evaluation))?;
            let data = manifest
                .inputs
                .into_iter()
                .filter(|(role, _)| role != "adapter" && role != "model");
            inputs.extend(data);
        }
        let recipe = recipe(&results.recipe);
        let word = |path: &Path| quoted(&path.display().to_string());
        let mut commands = vec![format!("sst report {}", word(folder))];
        if recipe.is_some() {
            let mut sweep = format!(
                "sst sweep recipe.toml --model {} --data {} --out {}",
                word(&results.model.path),
                word(&results.data),
                word(folder)
            );
            if let Some(precision) = results.precision {
                sweep += &format!(" --dtype {precision}");
            }
            if let Some(shards) = results.fisher_shards {
                sweep += &format!(" --fisher-shards {shards}");
            }
            commands.insert(0, sweep);
        }
        Ok(Self {
            results_version: Some(results.tool_version.clone()),
            report_version: env!("CARGO_PKG_VERSION").to_owned(),
            commands,
            inputs,
            recipe,
        })
    }
}

/// The recipe as a file that reads as the same recipe; `None` where this version would read another one.
fn recipe(resolved: &Value) -> Option<String> {
    let (mut variants, mut seeds) = (Vec::new(), Vec::new());
    for variant in resolved["variants"].as_array()? {
        let (name, seed) = (variant["name"].as_str()?, variant["seed"].as_u64());
        let name = seed.map_or_else(|| name.to_owned(), |seed| without_seed(name, seed));
        if !variants.contains(&name) {
            variants.push(name);
        }
        seeds.extend(seed.filter(|seed| !seeds.contains(seed)));
    }
    let adapters = resolved["adapters"].as_object()?;
    let adapters: Map<String, Value> = adapters.iter().map(|(name, adapter)| as_given(name, adapter)).collect();
    let file = without_nulls(json!({
        "seed": if seeds.is_empty() { &resolved["seed"] } else { &Value::Null },
        "seeds": (!seeds.is_empty()).then_some(seeds),
        "allow_leakage": resolved["allow_leakage"].as_bool().filter(|allowed| *allowed),
        "variants": variants,
        "adapters": adapters,
        "fisher": resolved["fisher"],
        "statistics": resolved["statistics"],
        "merge": resolved["merges"],
        "eval": resolved["eval"],
        "goals": resolved["goals"],
        "selection": resolved["selection"],
    }))?;
    let text = toml::to_string(&file).ok()?;
    let again = serde_json::to_value(Recipe::parse(&text).ok()?).ok()?;
    holds(&again, resolved).then_some(text)
}

/// An adapter as the file has it: what it is trained with each of several seeds stands there once, without one.
fn as_given(name: &str, resolved: &Value) -> (String, Value) {
    let mut adapter = resolved.clone();
    let seed = adapter.as_object_mut().and_then(|fields| fields.remove("of_seed"));
    let Some(seed) = seed.as_ref().and_then(Value::as_u64) else {
        return (name.to_owned(), adapter);
    };
    if let Some(train) = adapter["train"].as_object_mut() {
        train.remove("seed");
    }
    (without_seed(name, seed), adapter)
}

/// Whether every setting of `old` is in `new`, which may know more of them.
fn holds(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (_, Value::Null) => true,
        (Value::Object(new), Value::Object(old)) => old
            .iter()
            .all(|(key, value)| holds(new.get(key).unwrap_or(&Value::Null), value)),
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(new, old)| holds(new, old))
        }
        (new, old) => new == old,
    }
}

/// TOML has no null: an absent key says the same.
fn without_nulls(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(fields) => {
            let kept = fields
                .into_iter()
                .filter_map(|(key, inner)| Some((key, without_nulls(inner)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(without_nulls).collect())),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolved_recipe_reads_as_itself() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipes");
        for name in ["demo", "methods", "attribute-v2"] {
            let original = Recipe::read(&folder.join(format!("{name}.toml"))).unwrap();
            let text = recipe(&json!(original)).unwrap();
            assert_eq!(Recipe::parse(&text).unwrap(), original, "{name}");
        }
        let mut leaking = Recipe::read(&folder.join("demo.toml")).unwrap();
        leaking.allow_leakage = true;
        assert_eq!(Recipe::parse(&recipe(&json!(leaking)).unwrap()).unwrap(), leaking);
        assert_eq!(recipe(&json!({"variants": []})), None);
        let mut unknown = json!(Recipe::read(&folder.join("demo.toml")).unwrap());
        unknown["fisher"]["later"] = json!(1);
        assert_eq!(recipe(&unknown), None, "a setting that this version does not know");
    }
}
