//! A recipe: adapters to train, Fisher statistics to take, a grid of merges, a suite to evaluate them all.
//!
//! ```toml
//! seed = 0              # or seeds = [0, 1, 2]: everything once for each
//! allow_leakage = false # whether to run although an item is trained on and evaluated on alike
//! variants = ["A5+A7"]
//!
//! [adapters.A5]
//! role = "utility"
//! dataset = "repliqa"
//! train = { epochs = 3 }
//!
//! [adapters.A7]
//! role = "safety"
//! dataset = "jailbreak"
//!
//! [fisher]
//! samples = [100]
//!
//! [statistics]         # for sst and regmean
//! utility = ["repliqa", "alpaca"]
//!
//! [[merge]]            # a list stands for one merge per entry, several lists for every combination
//! strategy = "v2"
//! k = [10, 20]
//! weight = [0.7, 1.0]
//!
//! [eval]
//! mmlu_shots = 0
//!
//! [selection]          # choose each method's best point on 40 % of the items, judge it once on the others
//! dev = 0.4
//! ```

use crate::{Error, SelectionRecipe};
use serde::{Deserialize, Serialize};
use sst_data::Dataset;
use sst_eval::SuiteConfig;
use sst_fim::Protocol;
use sst_merge::StrategyConfig;
use sst_model::TrainConfig;
use sst_subspace::{Estimator, TokenWeighting};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A recipe, read and checked. Paths of model, data and run folder are not part of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipe {
    /// Seed of training, Fisher samples, merges and evaluation items; of several the first, whose items all others answer too.
    pub seed: u64,
    /// Whether to run although items are trained on and evaluated on alike.
    pub allow_leakage: bool,
    /// Adapters to train, by name.
    pub adapters: BTreeMap<String, AdapterRecipe>,
    /// Sets of adapters to merge: one or several utility adapters and one safety adapter.
    pub variants: Vec<Variant>,
    /// Fisher statistics of the adapters' own parameters, for strategies with a subspace of them.
    pub fisher: FisherRecipe,
    /// Kronecker factors of the layers, for strategies that weigh changes by them.
    pub statistics: StatisticsRecipe,
    /// Every merge of the grid.
    pub merges: Vec<StrategyConfig>,
    /// How everything is evaluated.
    pub eval: SuiteConfig,
    /// What a merge should reach.
    pub goals: Goals,
    /// How one point of every method is chosen on development items; none: every item is asked, nothing is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<SelectionRecipe>,
}

/// One adapter to train.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterRecipe {
    /// What it stands for in a merge.
    pub role: Role,
    /// The data set it is trained on.
    pub dataset: Dataset,
    /// Training settings; the recipe's seed where none was given.
    pub train: TrainConfig,
    /// The seed that it is one of several for; none where the recipe has one seed, or the adapter one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_seed: Option<u64>,
}

/// What an adapter stands for in a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Brings a skill.
    Utility,
    /// Brings refusals.
    Safety,
}

/// Names of the adapters of one merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Variant {
    /// The adapters' names in the recipe's order: `A5+A6+A7`.
    pub name: String,
    /// The seed that it is one of several for; none where the recipe has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The utility adapters.
    pub utility: Vec<String>,
    /// The safety adapter.
    pub safety: String,
}

/// Which Fisher statistics to take, for every adapter alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FisherRecipe {
    /// The estimator.
    pub estimator: Estimator,
    /// The loss behind the gradients.
    pub protocol: Protocol,
    /// Sample counts; the merges are made for each.
    pub samples: Vec<usize>,
    /// Longer examples are left out.
    pub max_tokens: usize,
    /// Added to the denominator of the ratio, on top of the estimator's ridge.
    pub eps: f64,
}

impl Default for FisherRecipe {
    fn default() -> Self {
        Self {
            estimator: Estimator::DiagVariance,
            protocol: Protocol::Response,
            samples: vec![100],
            max_tokens: 1024,
            eps: sst_subspace::RATIO_EPS,
        }
    }
}

/// Which Kronecker factors to take; as many samples as the Fisher statistics have, of each data set.
///
/// They are measured on the base model with the variant's utility adapters, near which the merge will be; for `regmean`, by
/// its definition, with each adapter alone on the data that it was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatisticsRecipe {
    /// How much each token counts.
    pub weighting: TokenWeighting,
    /// Data sets of harmless requests, whose factors are averaged: what none of them shows is not protected.
    pub utility: Vec<Dataset>,
    /// Which answers the loss is about on those data sets.
    pub utility_answers: UtilityAnswers,
    /// Longer examples are left out.
    pub max_tokens: usize,
}

/// Which answers to harmless requests the utility's factors are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UtilityAnswers {
    /// The data's own: what the skill depends on.
    Own,
    /// The usual answer of the safety data: what a refusal of these requests depends on.
    Refusal,
}

impl Default for StatisticsRecipe {
    fn default() -> Self {
        Self {
            weighting: TokenWeighting::GradientNorm,
            utility: vec![Dataset::RepliQa, Dataset::Alpaca],
            utility_answers: UtilityAnswers::Own,
            max_tokens: 1024,
        }
    }
}

/// Scores that a merge should reach, in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Goals {
    /// Share of jailbreak prompts refused.
    pub jailbreak: f64,
    /// MMLU accuracy.
    pub mmlu: f64,
    /// RepliQA ROUGE-L.
    pub repliqa: f64,
}

impl Default for Goals {
    fn default() -> Self {
        Self {
            jailbreak: 0.77,
            mmlu: 0.52,
            repliqa: 0.40,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    seed: Option<u64>,
    seeds: Option<Vec<u64>>,
    #[serde(default)]
    allow_leakage: bool,
    adapters: BTreeMap<String, RawAdapter>,
    variants: Vec<String>,
    #[serde(default)]
    fisher: FisherRecipe,
    #[serde(default)]
    statistics: StatisticsRecipe,
    merge: Vec<toml::Table>,
    #[serde(default)]
    eval: toml::Table,
    #[serde(default)]
    goals: Goals,
    selection: Option<SelectionRecipe>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdapter {
    role: Role,
    dataset: Dataset,
    #[serde(default)]
    train: toml::Table,
}

impl Recipe {
    /// The seed of a variant's Fisher samples and merges.
    pub(crate) fn seed_of(&self, variant: &Variant) -> u64 {
        variant.seed.unwrap_or(self.seed)
    }

    /// Reads and checks a recipe file.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the file, and the line or key at fault.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(sst_artefact::Error::io("read", path))?;
        Self::parse(&text).map_err(|reason| Error::Recipe {
            path: path.to_path_buf(),
            reason,
        })
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let raw: Raw = toml::from_str(text).map_err(|e| e.to_string().replace('\n', " "))?;
        let seeds = seeds(raw.seed, raw.seeds)?;
        let several = seeds.len() > 1;
        let mut eval: SuiteConfig = with_seed(raw.eval, seeds[0])
            .try_into()
            .map_err(|e| format!("eval: {e}"))?;
        eval.check().map_err(|e| format!("eval: {e}"))?;
        if let Some(selection) = &raw.selection {
            selection
                .check(&eval, &raw.goals)
                .map_err(|e| format!("selection: {e}"))?;
            eval.split = selection.dev();
        }
        let mut adapters = BTreeMap::new();
        let given: BTreeSet<String> = raw.adapters.keys().cloned().collect();
        for (name, adapter) in raw.adapters {
            let checked = |seed| {
                let checked = adapter.clone().check(&name, seed);
                checked.map_err(|e| format!("adapters.{name}: {e}"))
            };
            if several && !adapter.train.contains_key("seed") {
                for &seed in &seeds {
                    let own = seeded(&name, seed);
                    if given.contains(&own) {
                        return Err(format!("adapters.{own}: that is {name} with seed {seed}; rename it"));
                    }
                    let of_seed = AdapterRecipe {
                        of_seed: Some(seed),
                        ..checked(seed)?
                    };
                    adapters.insert(own, of_seed);
                }
            } else {
                let alone = checked(seeds[0])?;
                adapters.insert(name, alone);
            }
        }
        let mut variants = Vec::new();
        for text in &raw.variants {
            for &seed in &seeds {
                variants.push(Variant::parse(text, &adapters, several.then_some(seed))?);
            }
        }
        let mut merges = Vec::new();
        for (i, table) in raw.merge.iter().enumerate() {
            for point in grid(table) {
                let config: StrategyConfig = point
                    .try_into()
                    .map_err(|e: toml::de::Error| format!("merge {}: {e}", i + 1))?;
                config.clone().check().map_err(|e| format!("merge {}: {e}", i + 1))?;
                merges.push(config);
            }
        }
        if raw.fisher.samples.is_empty() || raw.fisher.samples.contains(&0) {
            return Err("fisher.samples: at least one count, each at least 1".to_owned());
        }
        if raw.statistics.utility.is_empty() {
            return Err("statistics.utility: at least one data set".to_owned());
        }
        Ok(Self {
            seed: seeds[0],
            adapters,
            variants,
            fisher: raw.fisher,
            statistics: raw.statistics,
            merges,
            eval,
            goals: raw.goals,
            selection: raw.selection,
            allow_leakage: raw.allow_leakage,
        })
    }
}

impl RawAdapter {
    fn check(self, name: &str, seed: u64) -> Result<AdapterRecipe, String> {
        // The name becomes part of a folder's.
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            return Err("a name has letters, digits, - and _".to_owned());
        }
        let train: TrainConfig = with_seed(self.train, seed)
            .try_into()
            .map_err(|e: toml::de::Error| format!("train: {e}"))?;
        train.clone().check().map_err(|e| format!("train: {e}"))?;
        Ok(AdapterRecipe {
            role: self.role,
            dataset: self.dataset,
            train,
            of_seed: None,
        })
    }
}

impl Variant {
    fn parse(text: &str, adapters: &BTreeMap<String, AdapterRecipe>, seed: Option<u64>) -> Result<Self, String> {
        let mut utility = Vec::new();
        let mut safety = Vec::new();
        let mut names = Vec::new();
        for name in text.split('+').map(str::trim) {
            let of_seed = seed.and_then(|seed| adapters.get_key_value(&seeded(name, seed)));
            match of_seed.or_else(|| adapters.get_key_value(name)) {
                Some((name, adapter)) => {
                    names.push(name.as_str());
                    match adapter.role {
                        Role::Utility => utility.push(name.clone()),
                        Role::Safety => safety.push(name.clone()),
                    }
                }
                None => {
                    let known: Vec<&str> = adapters.keys().map(String::as_str).collect();
                    return Err(format!(
                        "variant {text}: no adapter {name}; there are {}",
                        known.join(", ")
                    ));
                }
            }
        }
        let varies = |name: &str| adapters[name].of_seed.is_some();
        if seed.is_some() && !names.iter().any(|name| varies(name)) {
            return Err(format!(
                "variant {text}: `seeds` change none of its adapters, which have a train.seed each; take that from one of them"
            ));
        }
        match (utility.is_empty(), safety.as_slice()) {
            (false, [one]) => Ok(Self {
                name: names.join("+"),
                seed,
                utility,
                safety: one.clone(),
            }),
            _ => Err(format!(
                "variant {text}: needs at least one utility adapter and exactly one safety adapter"
            )),
        }
    }
}

/// The seeds asked for, at least one.
fn seeds(one: Option<u64>, several: Option<Vec<u64>>) -> Result<Vec<u64>, String> {
    match (one, several) {
        (Some(_), Some(_)) => Err("`seed` and `seeds`: give one of them".to_owned()),
        (one, None) => Ok(vec![one.unwrap_or_default()]),
        (None, Some(seeds)) => {
            let distinct: BTreeSet<&u64> = seeds.iter().collect();
            if seeds.is_empty() || distinct.len() < seeds.len() {
                return Err("seeds: at least one, each once".to_owned());
            }
            Ok(seeds)
        }
    }
}

/// The name of an adapter that is trained with each of several seeds.
fn seeded(name: &str, seed: u64) -> String {
    format!("{name}-seed{seed}")
}

/// A name of the recipe, without the seed that it was trained with.
pub(crate) fn without_seed(name: &str, seed: u64) -> String {
    let suffix = seeded("", seed);
    let parts: Vec<String> = name
        .split(' ')
        .map(|word| {
            let adapters: Vec<&str> = word
                .split('+')
                .map(|adapter| adapter.strip_suffix(&suffix).unwrap_or(adapter))
                .collect();
            adapters.join("+")
        })
        .collect();
    parts.join(" ")
}

fn with_seed(mut table: toml::Table, seed: u64) -> toml::Table {
    table.entry("seed").or_insert(toml::Value::Integer(seed as i64));
    table
}

/// Every combination of the entries of a table's lists, the last key varying fastest.
fn grid(table: &toml::Table) -> Vec<toml::Table> {
    let mut points = vec![toml::Table::new()];
    for (key, value) in table {
        let choices = match value {
            toml::Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        points = points
            .iter()
            .flat_map(|point| {
                choices.iter().map(|choice| {
                    let mut point = point.clone();
                    point.insert(key.clone(), choice.clone());
                    point
                })
            })
            .collect();
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = r#"
        seed = 3
        variants = ["A5+A7", "A5+A6+A7"]
        [adapters.A5]
        role = "utility"
        dataset = "repliqa"
        train = { epochs = 1 }
        [adapters.A6]
        role = "utility"
        dataset = "alpaca"
        train = { seed = 9 }
        [adapters.A7]
        role = "safety"
        dataset = "jailbreak"
        [[merge]]
        strategy = "v1"
        [[merge]]
        strategy = "v2"
        k = [10, 20]
        weight = [0.7, 1.0]
        [selection]
        dev = 0.3
    "#;

    #[test]
    fn lists_become_every_combination() {
        let recipe = Recipe::parse(RECIPE).unwrap();
        assert_eq!(recipe.merges.len(), 1 + 4);
        assert_eq!(recipe.variants[1].utility, ["A5", "A6"]);
        assert_eq!(recipe.adapters["A5"].train.seed, 3);
        assert_eq!(recipe.adapters["A6"].train.seed, 9);
        assert_eq!(
            (recipe.eval.seed, recipe.eval.split),
            (3, sst_eval::ItemSplit::Dev(0.3))
        );
        assert_eq!(
            recipe.goals,
            Goals {
                jailbreak: 0.77,
                mmlu: 0.52,
                repliqa: 0.40
            }
        );
    }

    #[test]
    fn several_seeds_are_several_variants_that_share_items_and_fixed_adapters() {
        let recipe = Recipe::parse(&RECIPE.replacen("seed = 3", "seeds = [3, 30]", 1)).unwrap();
        let names: Vec<&str> = recipe.variants.iter().map(|variant| variant.name.as_str()).collect();
        let both = ["A5-seed3+A7-seed3", "A5-seed30+A7-seed30"];
        assert_eq!(names[..2], both);
        assert_eq!(names[2..], ["A5-seed3+A6+A7-seed3", "A5-seed30+A6+A7-seed30"]);
        assert_eq!(recipe.adapters.len(), 2 + 1 + 2);
        assert_eq!(recipe.adapters["A5-seed30"].train.seed, 30);
        assert_eq!(recipe.adapters["A5-seed30"].of_seed, Some(30));
        assert_eq!(
            (recipe.adapters["A6"].train.seed, recipe.adapters["A6"].of_seed),
            (9, None)
        );
        assert_eq!(
            recipe.variants.iter().map(|v| recipe.seed_of(v)).collect::<Vec<_>>(),
            [3, 30, 3, 30]
        );
        assert_eq!(recipe.eval.seed, 3, "all seeds answer the same items");
        let plain = |name: &str, seed| without_seed(&format!("V1 k=20 {name} n=100"), seed);
        assert_eq!(plain(names[2], 3), "V1 k=20 A5+A6+A7 n=100");
        assert_eq!(plain(names[3], 3), format!("V1 k=20 {} n=100", names[3]));
        // One seed in a list is a seed.
        let one = Recipe::parse(&RECIPE.replacen("seed = 3", "seeds = [3]", 1)).unwrap();
        assert_eq!(one, Recipe::parse(RECIPE).unwrap());
    }

    #[test]
    fn the_recipes_of_the_documentation_are_recipes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipes");
        let mut merges = BTreeMap::new();
        for name in [
            "demo",
            "sweep",
            "samples",
            "weights",
            "reproduce-v1",
            "methods",
            "attribute-v1",
            "attribute-v2",
        ] {
            let recipe = Recipe::read(&folder.join(format!("{name}.toml"))).unwrap();
            merges.insert(name, recipe.merges.len());
        }
        assert_eq!(merges["methods"], 7 * 4);
    }

    #[test]
    fn faults_are_named() {
        for (from, to, part) in [
            ("\"A5+A7\", ", "\"A5+A9\", ", "A9"),
            ("\"A5+A7\", ", "\"A5+A6\", ", "exactly one safety"),
            ("\"v1\"", "\"v3\"", "v3"),
            ("[10, 20]", "[0]", "k"),
            ("epochs = 1", "epochs = 0", "epochs"),
            ("epochs = 1", "epoch = 1", "epoch"),
            ("dataset = \"repliqa\"", "dataset = \"squad\"", "squad"),
            ("seed = 3", "sed = 3", "sed"),
            ("seed = 3", "seed = 3\nseeds = [4]", "give one of them"),
            ("seed = 3", "seeds = []", "at least one"),
            (
                "seed = 3",
                "seeds = [1, 2]\nadapters.A7-seed2 = { role = \"safety\", dataset = \"jailbreak\" }",
                "A7 with seed 2",
            ),
            ("seed = 3", "seeds = [1, 1]", "each once"),
            (
                "seed = 3\n        variants = [\"A5+A7\", \"A5+A6+A7\"]",
                "seeds = [1, 2]\nvariants = [\"A6+A8\"]",
                "no adapter A8",
            ),
            ("dev = 0.3", "dev = 1.0", "selection: dev is 1"),
            ("dev = 0.3", "share = 0.3", "share"),
            ("dev = 0.3", "rule = \"best\"", "best"),
            ("dev = 0.3", "[eval]\nbenchmarks = [\"mmlu\"]", "lacks jailbreak"),
            ("dev = 0.3", "[eval]\nbenchmarks = [\"jailbreak\"]", "lacks utility"),
            ("dev = 0.3", "[eval]\nsplit = \"test:0.3\"", "eval.split"),
        ] {
            assert!(RECIPE.contains(from));
            let error = Recipe::parse(&RECIPE.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(part), "{to}: {error}");
        }
    }
}
