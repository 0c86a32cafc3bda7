//! Two recipes of one merge each, split into the stages in which they differ, and every mixture of them.
//!
//! | stage | what moves with it |
//! | --- | --- |
//! | `training` | the variant, its adapters: data sets and training settings |
//! | `fisher` | estimator, protocol, sample count, longest sample, seed of the samples; for SST and RegMean `[statistics]` |
//! | `subspace` | k, eps |
//! | `projection` | aligned or prefix |
//! | `rule` | the strategy and its other settings |
//! | `evaluation` | everything in `[eval]` but the items |
//!
//! A stage that one of the merges does not have cannot be exchanged by itself: the part moves with `rule`, and so does all
//! that feeds it where the strategies read different things. A prefix projection is defined for coordinates only, so it
//! moves with the estimator when one of the estimators has directions that are none.

use crate::{Error, Recipe};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sst_merge::{Needs, StrategyConfig};
use sst_subspace::{Estimator, Projection};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// A part of the pipeline in which two merges may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Which adapters, trained how.
    Training,
    /// Which Fisher statistics.
    Fisher,
    /// How many directions of them.
    Subspace,
    /// Which rows of the basis project a tensor.
    Projection,
    /// How projected and other parts are added up.
    Rule,
    /// How answers are asked for and scored.
    Evaluation,
}

impl Stage {
    /// All stages, in the order of the pipeline.
    pub const ALL: [Self; 6] = [
        Self::Training,
        Self::Fisher,
        Self::Subspace,
        Self::Projection,
        Self::Rule,
        Self::Evaluation,
    ];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Training => "training",
            Self::Fisher => "fisher",
            Self::Subspace => "subspace",
            Self::Projection => "projection",
            Self::Rule => "rule",
            Self::Evaluation => "evaluation",
        })
    }
}

/// A stage in which two recipes differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageDifference {
    /// The stage.
    pub stage: Stage,
    /// Stages that differ too and cannot be exchanged without it.
    pub with: Vec<Stage>,
    /// The settings that differ, by dotted key, of the first and of the second recipe.
    pub settings: [BTreeMap<String, Value>; 2],
}

/// Two recipes that can be mixed stage by stage.
#[derive(Debug, Clone, PartialEq)]
pub struct RecipePair {
    names: [String; 2],
    recipes: [Recipe; 2],
    stages: Vec<StageDifference>,
    equal: Vec<Stage>,
}

impl RecipePair {
    /// Reads two recipes and finds the stages in which they differ.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a recipe that is malformed or stands for several merges; [`Error::Compare`] when the two ask
    /// different evaluation items, so that nothing can be paired, or differ in no stage.
    pub fn read(first: &Path, second: &Path) -> Result<Self, Error> {
        Self::new([first, second], [Recipe::read(first)?, Recipe::read(second)?])
    }

    fn new(paths: [&Path; 2], recipes: [Recipe; 2]) -> Result<Self, Error> {
        for (path, recipe) in paths.iter().zip(&recipes) {
            check_single(recipe).map_err(|reason| Error::Recipe {
                path: PathBuf::from(path),
                reason,
            })?;
        }
        let names = paths.map(|path| path.display().to_string());
        let fault = |reason: String| Error::Compare(format!("{} and {}: {reason}", names[0], names[1]));
        if let Some(key) = differing_items(&recipes) {
            return Err(fault(format!(
                "`eval.{key}` differs, so that they ask different items; shares are paired by item: give both the same"
            )));
        }
        let needs = needs(&recipes)?;
        let settings = [settings(&recipes[0], needs[0]), settings(&recipes[1], needs[1])];
        let differs = |stage: &Stage| settings[0].get(stage) != settings[1].get(stage);
        let (different, equal): (Vec<Stage>, Vec<Stage>) = Stage::ALL.into_iter().partition(differs);
        if different.is_empty() {
            return Err(fault(
                "they agree in every stage, there is nothing to attribute".to_owned(),
            ));
        }
        let leader = |stage: Stage| -> Stage {
            let shared = settings.iter().all(|side| side.contains_key(&stage));
            let feeds_rule = matches!(stage, Stage::Fisher | Stage::Subspace | Stage::Projection);
            if feeds_rule && (!shared || needs[0] != needs[1]) {
                Stage::Rule
            } else if stage == Stage::Projection && different.contains(&Stage::Fisher) && prefix_excludes(&recipes) {
                Stage::Fisher
            } else {
                stage
            }
        };
        let mut stages: Vec<StageDifference> = Vec::new();
        for lead in Stage::ALL {
            let group: Vec<Stage> = different
                .iter()
                .copied()
                .filter(|&stage| leader(stage) == lead)
                .collect();
            if !group.is_empty() {
                stages.push(StageDifference {
                    stage: lead,
                    settings: difference(&group, &settings),
                    with: group.into_iter().filter(|&stage| stage != lead).collect(),
                });
            }
        }
        Ok(Self {
            names,
            recipes,
            stages,
            equal,
        })
    }

    /// The files of both recipes, as they were given.
    pub fn names(&self) -> &[String; 2] {
        &self.names
    }

    /// Both recipes.
    pub fn recipes(&self) -> &[Recipe; 2] {
        &self.recipes
    }

    /// The stages in which they differ, in the order of the pipeline.
    pub fn stages(&self) -> &[StageDifference] {
        &self.stages
    }

    /// The stages in which they agree, or that neither has.
    pub fn equal(&self) -> &[Stage] {
        &self.equal
    }

    /// Number of mixtures, 2^m.
    pub fn combinations(&self) -> usize {
        1 << self.stages.len()
    }

    /// The recipe whose stage j is the second recipe's where bit j of `combination` is set, else the first's.
    ///
    /// # Errors
    /// [`Error::Merge`] when a strategy refuses the settings of the other one.
    pub fn mixed(&self, combination: usize) -> Result<Recipe, Error> {
        let position = |stage: Stage| {
            self.stages
                .iter()
                .position(|s| s.stage == stage || s.with.contains(&stage))
        };
        let from = |stage: Stage| {
            // A stage in which both agree may hold settings that neither uses: these stay with their rule.
            let moved_by = position(stage).or_else(|| position(Stage::Rule));
            &self.recipes[moved_by.map_or(0, |j| combination >> j & 1)]
        };
        let mut strategy = json!(from(Stage::Rule).merges[0]);
        for (stage, key) in STRATEGY_SETTINGS {
            let other = json!(from(stage).merges[0]);
            if let (Some(own), Some(other)) = (strategy.get_mut(key), other.get(key)) {
                own.clone_from(other);
            }
        }
        let strategy: StrategyConfig =
            serde_json::from_value(strategy).map_err(|e| Error::Compare(format!("combination {combination}: {e}")))?;
        strategy.clone().check()?;
        let (training, fisher) = (from(Stage::Training), from(Stage::Fisher));
        let mut statistics = fisher.fisher.clone();
        statistics.eps = from(Stage::Subspace).fisher.eps;
        Ok(Recipe {
            seed: fisher.seed,
            allow_leakage: self.recipes.iter().all(|recipe| recipe.allow_leakage),
            adapters: training.adapters.clone(),
            variants: training.variants.clone(),
            fisher: statistics,
            statistics: fisher.statistics.clone(),
            merges: vec![strategy],
            eval: from(Stage::Evaluation).eval.clone(),
            goals: self.recipes[0].goals,
            selection: None,
        })
    }
}

/// Settings of a strategy that are stages of their own.
const STRATEGY_SETTINGS: [(Stage, &str); 2] = [(Stage::Subspace, "k"), (Stage::Projection, "projection")];

/// Refuses a recipe that stands for more than one merge.
fn check_single(recipe: &Recipe) -> Result<(), String> {
    for (what, n) in [
        ("`variants`", recipe.variants.len()),
        ("`fisher.samples`", recipe.fisher.samples.len()),
        ("`[[merge]]`", recipe.merges.len()),
    ] {
        if n != 1 {
            return Err(format!(
                "{what} stands for {n} merges; attribution compares single merges: give exactly one"
            ));
        }
    }
    Ok(())
}

/// The first key by which two suites draw different items.
fn differing_items([first, second]: &[Recipe; 2]) -> Option<&'static str> {
    let (first, second) = (&first.eval, &second.eval);
    [
        ("benchmarks", first.benchmarks != second.benchmarks),
        ("n", first.n != second.n),
        ("seed", first.seed != second.seed),
        ("split", first.split != second.split),
    ]
    .into_iter()
    .find_map(|(key, differs)| differs.then_some(key))
}

fn needs(recipes: &[Recipe; 2]) -> Result<[Needs; 2], Error> {
    let of = |recipe: &Recipe| Ok::<_, Error>(recipe.merges[0].clone().check()?.needs());
    Ok([of(&recipes[0])?, of(&recipes[1])?])
}

/// Whether one recipe projects by prefix and the other's estimator has directions that are no coordinates.
fn prefix_excludes([first, second]: &[Recipe; 2]) -> bool {
    let diagonal = |r: &Recipe| matches!(r.fisher.estimator, Estimator::Diag | Estimator::DiagVariance);
    let prefix = |r: &Recipe| json!(r.merges[0]).get("projection") == Some(&json!(Projection::Prefix));
    (prefix(first) && !diagonal(second)) || (prefix(second) && !diagonal(first))
}

/// The settings of every stage that the recipe's merge has.
fn settings(recipe: &Recipe, needs: Needs) -> BTreeMap<Stage, Value> {
    let variant = &recipe.variants[0];
    let adapters: BTreeMap<&String, Value> = variant
        .utility
        .iter()
        .chain([&variant.safety])
        .map(|name| (name, json!(recipe.adapters[name])))
        .collect();
    let mut training = json!(adapters);
    training["variant"] = json!(variant.name);
    let mut stages = BTreeMap::from([(Stage::Training, training), (Stage::Evaluation, json!(recipe.eval))]);
    let mut rule = json!(recipe.merges[0]);
    let measured = if needs.basis || needs.diagonals {
        Some(json!(recipe.fisher))
    } else {
        needs.statistics.then(|| json!(recipe.statistics))
    };
    if let Some(mut fisher) = measured {
        if let Some(fields) = fisher.as_object_mut() {
            fields.remove("eps");
            fields.insert("samples".to_owned(), json!(recipe.fisher.samples[0]));
            fields.insert("seed".to_owned(), json!(recipe.seed));
        }
        stages.insert(Stage::Fisher, fisher);
    }
    for (stage, key) in STRATEGY_SETTINGS {
        let taken = rule.as_object_mut().and_then(|fields| fields.remove(key));
        if let Some(value) = taken.filter(|_| needs.basis) {
            stages.insert(stage, json!({ key: value }));
        }
    }
    if let Some(subspace) = stages.get_mut(&Stage::Subspace) {
        subspace["eps"] = json!(recipe.fisher.eps);
    }
    stages.insert(Stage::Rule, rule);
    stages
}

/// The settings of a group of stages that differ, of both sides.
fn difference(group: &[Stage], settings: &[BTreeMap<Stage, Value>; 2]) -> [BTreeMap<String, Value>; 2] {
    let flat = |side: &BTreeMap<Stage, Value>| {
        let mut leaves = BTreeMap::new();
        for stage in group {
            flatten("", side.get(stage).unwrap_or(&Value::Null), &mut leaves);
        }
        leaves
    };
    let [first, second] = [flat(&settings[0]), flat(&settings[1])];
    let only = |own: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>| {
        let differing = own.iter().filter(|(key, value)| other.get(*key) != Some(value));
        differing.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    [only(&first, &second), only(&second, &first)]
}

/// The leaves of a JSON value by dotted key; absent settings leave none.
pub(crate) fn flatten(key: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let longer = if key.is_empty() {
                    name.clone()
                } else {
                    format!("{key}.{name}")
                };
                flatten(&longer, inner, leaves);
            }
        }
        Value::Null => {}
        leaf => {
            leaves.insert(key.to_owned(), leaf.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = r#"
        seed = 3
        variants = ["A5+A7"]
        [adapters.A5]
        role = "utility"
        dataset = "repliqa"
        [adapters.A7]
        role = "safety"
        dataset = "jailbreak"
        [fisher]
        estimator = "diag-variance"
        protocol = "legacy-prompt"
        samples = [50]
        [[merge]]
        strategy = "v1"
        k = 20
        alpha = 0.9
        projection = "prefix"
        [eval]
        n = { jailbreak = 10 }
    "#;

    fn edited(edits: &[(&str, &str)]) -> Recipe {
        let mut text = FIRST.to_owned();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        Recipe::parse(&text).unwrap()
    }

    fn pair(edits: &[(&str, &str)]) -> Result<RecipePair, Error> {
        RecipePair::new([Path::new("a.toml"), Path::new("b.toml")], [edited(&[]), edited(edits)])
    }

    fn names(pair: &RecipePair) -> Vec<Stage> {
        pair.stages().iter().map(|s| s.stage).collect()
    }

    const RESIDUAL: (&str, &str) = (
        "strategy = \"v1\"\n        k = 20\n        alpha = 0.9\n        projection = \"prefix\"",
        "strategy = \"v2\"\n        k = 30\n        weight = 0.8\n        mode = { residual = { r = 0.7 } }",
    );

    #[test]
    fn all_stages_mix_independently() {
        let second = [
            (
                "role = \"utility\"",
                "role = \"utility\"\n        train = { epochs = 1 }",
            ),
            ("legacy-prompt", "response"),
            RESIDUAL,
            (
                "n = { jailbreak = 10 }",
                "n = { jailbreak = 10 }\n        mmlu_shots = 0",
            ),
        ];
        let pair = pair(&second).unwrap();
        assert_eq!(names(&pair), Stage::ALL);
        assert!(pair.equal().is_empty() && pair.stages().iter().all(|s| s.with.is_empty()));
        assert_eq!(pair.combinations(), 64);
        assert_eq!(pair.mixed(0).unwrap(), pair.recipes()[0]);
        assert_eq!(pair.mixed(63).unwrap(), pair.recipes()[1]);

        // V1's rule with the k and projection of V2, and the reverse.
        let mixed = pair.mixed(0b001100).unwrap();
        assert_eq!(
            json!(mixed.merges),
            json!([{"strategy": "v1", "k": 30, "alpha": 0.9, "projection": "aligned"}])
        );
        assert_eq!(mixed.fisher, pair.recipes()[0].fisher);
        let mixed = pair.mixed(0b010010).unwrap();
        assert_eq!(
            json!(mixed.merges),
            json!([{"strategy": "v2", "k": 20, "weight": 0.8, "mode": {"residual": {"r": 0.7}}, "projection": "prefix"}])
        );
        assert_eq!(mixed.fisher.protocol, pair.recipes()[1].fisher.protocol);
        assert_eq!(mixed.adapters, pair.recipes()[0].adapters);
        assert_eq!(mixed.eval, pair.recipes()[0].eval);

        // Every combination is another recipe.
        let all: Vec<Recipe> = (0..64).map(|c| pair.mixed(c).unwrap()).collect();
        for (i, recipe) in all.iter().enumerate() {
            assert!(!all[..i].contains(recipe), "combination {i}");
        }
    }

    #[test]
    fn only_what_differs_is_a_stage_and_is_shown() {
        let pair = pair(&[("legacy-prompt", "response"), ("samples = [50]", "samples = [60]")]).unwrap();
        assert_eq!(names(&pair), [Stage::Fisher]);
        assert_eq!(pair.equal().len(), 5);
        let shown = json!(pair.stages()[0].settings);
        assert_eq!(
            shown,
            json!([{"protocol": "legacy-prompt", "samples": 50}, {"protocol": "response", "samples": 60}])
        );
        let rules = super::tests::pair(&[RESIDUAL]).unwrap();
        assert_eq!(names(&rules), [Stage::Subspace, Stage::Projection, Stage::Rule]);
        assert_eq!(
            json!(rules.stages()[2].settings),
            json!([{"strategy": "v1", "alpha": 0.9}, {"strategy": "v2", "weight": 0.8, "mode.residual.r": 0.7}])
        );
    }

    #[test]
    fn the_seed_of_the_samples_belongs_to_the_statistics() {
        // Training and items keep the seed that they were given by themselves.
        let seeds = [
            ("seed = 3", "seed = 4"),
            ("role = \"utility\"", "role = \"utility\"\n        train = { seed = 3 }"),
            ("role = \"safety\"", "role = \"safety\"\n        train = { seed = 3 }"),
            ("[eval]", "[eval]\n        seed = 3"),
        ];
        let pair = pair(&seeds).unwrap();
        assert_eq!(names(&pair), [Stage::Fisher]);
        assert_eq!(pair.mixed(1).unwrap().seed, 4);
    }

    #[test]
    fn merges_by_diagonals_differ_by_their_statistics() {
        let by_diagonals = (RESIDUAL.0, "strategy = \"fisher\"");
        let of = |edits: &[(&str, &str)]| edited(&[&[by_diagonals], edits].concat());
        let second = [
            (
                "role = \"utility\"",
                "role = \"utility\"\n        train = { epochs = 1 }",
            ),
            ("legacy-prompt", "response"),
        ];
        let pair = RecipePair::new([Path::new("a"), Path::new("b")], [of(&[]), of(&second)]).unwrap();
        assert_eq!(names(&pair), [Stage::Training, Stage::Fisher]);
        assert_eq!(pair.mixed(0).unwrap(), pair.recipes()[0]);
        assert_eq!(pair.mixed(3).unwrap(), pair.recipes()[1]);
        assert_eq!(pair.mixed(2).unwrap().fisher, pair.recipes()[1].fisher);
        assert_eq!(pair.mixed(1).unwrap().fisher, pair.recipes()[0].fisher);
    }

    #[test]
    fn what_only_one_merge_has_moves_with_its_rule() {
        let whole = RESIDUAL.0;
        for (other, with) in [
            (
                "strategy = \"task-arithmetic\"",
                [Stage::Fisher, Stage::Subspace, Stage::Projection],
            ),
            (
                "strategy = \"v2\"\n        mode = \"direct\"",
                [Stage::Fisher, Stage::Subspace, Stage::Projection],
            ),
        ] {
            let pair = pair(&[(whole, other)]).unwrap();
            assert_eq!(names(&pair), [Stage::Rule]);
            assert_eq!(pair.stages()[0].with, with);
            assert_eq!(pair.mixed(1).unwrap(), pair.recipes()[1]);
            assert_eq!(pair.stages()[0].settings[0]["estimator"], "diag-variance");
        }
        // Two merges without statistics do not differ by the statistics that a recipe spells out.
        let direct = edited(&[(whole, "strategy = \"v2\"\n        mode = \"direct\"")]);
        let sum = edited(&[
            (
                whole,
                "strategy = \"v2\"\n        k = 3\n        weight = 0.5\n        mode = \"direct\"",
            ),
            ("samples = [50]", "samples = [60]"),
        ]);
        let pair = RecipePair::new([Path::new("a"), Path::new("b")], [direct, sum]).unwrap();
        assert_eq!(names(&pair), [Stage::Rule]);
        assert!(pair.stages()[0].with.is_empty());
        assert_eq!(pair.mixed(1).unwrap(), pair.recipes()[1]);
    }

    #[test]
    fn a_prefix_projection_moves_with_an_estimator_that_excludes_it() {
        let pair = pair(&[("diag-variance", "samples"), ("projection = \"prefix\"", "")]).unwrap();
        assert_eq!(names(&pair), [Stage::Fisher]);
        assert_eq!(pair.stages()[0].with, [Stage::Projection]);
        assert_eq!(pair.mixed(1).unwrap(), pair.recipes()[1]);
    }

    #[test]
    fn what_cannot_be_attributed_is_refused_by_name() {
        for (edits, parts) in [
            (vec![], vec!["a.toml and b.toml", "agree in every stage"]),
            (
                vec![("k = 20", "k = [20, 30]")],
                vec!["b.toml", "`[[merge]]` stands for 2"],
            ),
            (
                vec![("samples = [50]", "samples = [50, 60]")],
                vec!["b.toml", "`fisher.samples`"],
            ),
            (
                vec![("[\"A5+A7\"]", "[\"A5+A7\", \"A7+A5\"]")],
                vec!["b.toml", "`variants` stands for 2"],
            ),
            (
                vec![("{ jailbreak = 10 }", "{ jailbreak = 11 }")],
                vec!["a.toml and b.toml", "`eval.n` differs"],
            ),
            (
                vec![("[eval]", "[eval]\n        seed = 4")],
                vec!["`eval.seed` differs"],
            ),
            (
                vec![("[eval]", "[eval]\n        benchmarks = [\"jailbreak\"]")],
                vec!["`eval.benchmarks` differs"],
            ),
            (
                vec![("[eval]", "[eval]\n        split = \"dev:0.4\"")],
                vec!["`eval.split` differs"],
            ),
        ] {
            let message = pair(&edits).unwrap_err().to_string();
            for part in parts {
                assert!(message.contains(part), "no {part} in: {message}");
            }
            assert_eq!(message.lines().count(), 1);
        }
    }
}
