//! What a recipe asks for, as stages of parts that are independent of each other.
//!
//! A plan follows from the recipe alone: names, no hashes. So the same part has the same number on every machine and at
//! every time, and its commands can be written down before anything is computed.

use crate::selection::strategy_name;
use crate::{Error, Measurement, MergeCell, Recipe};
use serde::{Deserialize, Serialize};
use sst_subspace::Shard;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Systems evaluated in the same batches: enough that products over the base weights are wide, few enough that a table
/// comes now and then.
pub(crate) const SYSTEMS_AT_ONCE: usize = 8;

/// The stages of a sweep, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanStage {
    /// Adapters are trained.
    Train,
    /// Fisher estimates, or shards of them.
    Fisher,
    /// Shards become estimates.
    Reduce,
    /// Subspaces and merges.
    Merge,
    /// Evaluations.
    Evaluate,
    /// With a selection, evaluations of what was chosen.
    Test,
    /// The results of all.
    Report,
}

/// All stages, in their order.
pub const PLAN_STAGES: [PlanStage; 7] = [
    PlanStage::Train,
    PlanStage::Fisher,
    PlanStage::Reduce,
    PlanStage::Merge,
    PlanStage::Evaluate,
    PlanStage::Test,
    PlanStage::Report,
];

/// One part of a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// The adapter of that name.
    Train(String),
    /// An estimate, or a shard of it.
    Fisher(Measurement, Shard),
    /// An estimate from its shards.
    Reduce(Measurement),
    /// Merges that share a subspace, or one merge.
    Merge(Vec<MergeCell>),
    /// Systems evaluated in the same batches.
    Evaluate(Vec<Candidate>),
    /// Systems evaluated on the test items in the same batches.
    Test(Vec<Finalist>),
    /// The results of all.
    Report,
}

/// A system that a recipe evaluates.
#[derive(Debug, Clone, PartialEq)]
pub enum Candidate {
    /// The base model.
    Base,
    /// The base model with one adapter.
    Adapter(String),
    /// A merge.
    Merge(MergeCell),
}

/// A system that a selection judges on the test items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finalist {
    /// The base model.
    Base,
    /// The base model with one adapter.
    Adapter(String),
    /// The chosen point of a strategy on a variant; there is none where all its merges failed.
    Choice {
        /// The strategy's name.
        strategy: String,
        /// The variant's.
        variant: String,
    },
}

/// Which part of a stage of how many, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartNumber {
    /// Its number.
    pub number: usize,
    /// Parts of the stage.
    pub of: usize,
}

/// The stages of a recipe with their parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    stages: BTreeMap<PlanStage, Vec<Part>>,
}

impl Plan {
    /// What a recipe asks for, every Fisher estimate in `shards` shards, at least 1.
    ///
    /// # Errors
    /// [`Error::Merge`] for a strategy whose settings are out of range.
    pub fn of(recipe: &Recipe, shards: usize) -> Result<Self, Error> {
        let cells = MergeCell::grid(recipe);
        let mut measurements: Vec<Measurement> = Vec::new();
        let mut merges: Vec<(Option<usize>, Vec<MergeCell>)> = Vec::new();
        for cell in &cells {
            let strategy = cell.strategy.clone().check()?;
            let needs = cell.needs(recipe, strategy.as_ref());
            for measurement in needs.own.into_iter().chain(needs.factors) {
                if !measurements.contains(&measurement) {
                    measurements.push(measurement);
                }
            }
            let shares = |(k, group): &&mut (Option<usize>, Vec<MergeCell>)| {
                k.is_some() && *k == needs.k && (&group[0].variant, group[0].samples) == (&cell.variant, cell.samples)
            };
            match merges.iter_mut().find(shares) {
                Some((_, group)) => group.push(cell.clone()),
                None => merges.push((needs.k, vec![cell.clone()])),
            }
        }
        let finalists = Finalist::all(recipe);
        let adapters = recipe.adapters.keys().cloned();
        let systems: Vec<Candidate> = [Candidate::Base]
            .into_iter()
            .chain(adapters.clone().map(Candidate::Adapter))
            .chain(cells.into_iter().map(Candidate::Merge))
            .collect();
        let reduced = measurements.iter().filter(|_| shards > 1).cloned();
        let stages = [
            (PlanStage::Train, adapters.map(Part::Train).collect()),
            (PlanStage::Reduce, reduced.map(Part::Reduce).collect()),
            (
                PlanStage::Fisher,
                measurements
                    .iter()
                    .flat_map(|m| Shard::all(shards).map(|shard| Part::Fisher(m.clone(), shard)))
                    .collect(),
            ),
            (
                PlanStage::Merge,
                merges.into_iter().map(|(_, group)| Part::Merge(group)).collect(),
            ),
            (
                PlanStage::Evaluate,
                systems
                    .chunks(SYSTEMS_AT_ONCE)
                    .map(|group| Part::Evaluate(group.to_vec()))
                    .collect(),
            ),
            (
                PlanStage::Test,
                finalists
                    .chunks(SYSTEMS_AT_ONCE)
                    .map(|group| Part::Test(group.to_vec()))
                    .collect(),
            ),
            (PlanStage::Report, vec![Part::Report]),
        ];
        Ok(Self {
            stages: stages.into_iter().collect(),
        })
    }

    /// The parts of a stage; none where the recipe does not need it.
    pub fn parts(&self, stage: PlanStage) -> &[Part] {
        self.stages.get(&stage).map_or(&[], Vec::as_slice)
    }

    /// Every part in the order of the stages.
    pub fn all(&self) -> impl Iterator<Item = (PlanStage, &Part)> {
        self.stages
            .iter()
            .flat_map(|(stage, parts)| parts.iter().map(|part| (*stage, part)))
    }

    /// The parts of a stage, or the one that was asked for.
    ///
    /// # Errors
    /// [`Error::Plan`] when the stage has another number of parts, or no part of that number.
    pub fn chosen(&self, stage: PlanStage, number: Option<PartNumber>) -> Result<&[Part], Error> {
        let parts = self.parts(stage);
        match number {
            None => Ok(parts),
            Some(PartNumber { number, of }) if of == parts.len() && (1..=of).contains(&number) => {
                Ok(&parts[number - 1..number])
            }
            Some(PartNumber { number, of }) if of == parts.len() => Err(Error::Plan(format!(
                "stage {stage} has no part {number}: they are numbered 1 to {of}"
            ))),
            Some(PartNumber { of, .. }) => Err(Error::Plan(format!(
                "stage {stage} has {} parts, not {of}: the recipe or --fisher-shards changed; print the plan again",
                parts.len()
            ))),
        }
    }

    /// Names under which failures of this plan are kept.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.all().map(|(_, part)| match part {
            Part::Fisher(measurement, _) => vec![measurement.key()],
            Part::Merge(cells) => cells.iter().map(MergeCell::name).collect(),
            _ => Vec::new(),
        });
        names.flatten().collect()
    }
}

impl Part {
    /// How much there is to do, in units that are comparable within a stage alone.
    pub(crate) fn weight(&self) -> f64 {
        match self {
            Self::Train(_) | Self::Reduce(_) | Self::Report => 1.0,
            Self::Fisher(measurement, shard) => {
                measurement.config.samples.unwrap_or(1) as f64 * measurement.stack.len() as f64 / shard.of() as f64
            }
            Self::Merge(cells) => cells.len() as f64,
            Self::Evaluate(systems) => systems.len() as f64,
            Self::Test(systems) => systems.len() as f64,
        }
    }
}

impl Candidate {
    /// What it is called in tables.
    pub fn name(&self) -> String {
        match self {
            Self::Base => "base".to_owned(),
            Self::Adapter(name) => name.clone(),
            Self::Merge(cell) => cell.name(),
        }
    }
}

impl Finalist {
    /// What a recipe's selection judges, in the order of the table; nothing without one.
    pub(crate) fn all(recipe: &Recipe) -> Vec<Self> {
        if recipe.selection.is_none() {
            return Vec::new();
        }
        let adapters = recipe.adapters.keys().cloned().map(Self::Adapter);
        let mut finalists: Vec<Self> = std::iter::once(Self::Base).chain(adapters).collect();
        for cell in MergeCell::grid(recipe) {
            let choice = Self::Choice {
                strategy: strategy_name(&cell.strategy),
                variant: cell.variant.name,
            };
            if !finalists.contains(&choice) {
                finalists.push(choice);
            }
        }
        finalists
    }
}

impl fmt::Display for Finalist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("base"),
            Self::Adapter(name) => f.write_str(name),
            Self::Choice { strategy, variant } => write!(f, "chosen {} {variant}", strategy.to_uppercase()),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: Vec<String>| names.join(", ");
        match self {
            Self::Train(name) => f.write_str(name),
            Self::Fisher(measurement, Shard::WHOLE) | Self::Reduce(measurement) => f.write_str(&measurement.name()),
            Self::Fisher(measurement, shard) => write!(f, "{} shard {shard}", measurement.name()),
            Self::Merge(cells) => f.write_str(&list(cells.iter().map(MergeCell::name).collect())),
            Self::Evaluate(systems) => f.write_str(&list(systems.iter().map(Candidate::name).collect())),
            Self::Test(systems) => f.write_str(&list(systems.iter().map(Finalist::to_string).collect())),
            Self::Report => f.write_str("aggregated results"),
        }
    }
}

impl fmt::Display for PlanStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Fisher => "fisher",
            Self::Reduce => "reduce",
            Self::Merge => "merge",
            Self::Evaluate => "evaluate",
            Self::Test => "test",
            Self::Report => "report",
        })
    }
}

impl FromStr for PlanStage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || PLAN_STAGES.map(|stage| stage.to_string()).join(", ");
        let found = PLAN_STAGES.into_iter().find(|stage| stage.to_string() == text);
        found.ok_or_else(|| format!("unknown stage `{text}`: there are {}", known()))
    }
}

impl FromStr for PartNumber {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(format!(
                "`{text}` is not a part: expected its number, from 1, and their count, such as 2/8"
            )),
        }
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = r#"
        variants = ["A5+A7", "A5+A6+A7"]
        [adapters.A5]
        role = "utility"
        dataset = "repliqa"
        [adapters.A6]
        role = "utility"
        dataset = "alpaca"
        [adapters.A7]
        role = "safety"
        dataset = "jailbreak"
        [fisher]
        samples = [10, 20]
        [[merge]]
        strategy = "v1"
        k = [5, 20]
        alpha = [0.7, 1.0]
        [[merge]]
        strategy = "regmean"
        [[merge]]
        strategy = "sst"
        [[merge]]
        strategy = "ties"
    "#;

    #[test]
    fn a_plan_has_every_estimate_once_and_every_system_in_the_order_of_the_table() {
        let recipe = Recipe::parse(RECIPE).unwrap();
        let plan = Plan::of(&recipe, 1).unwrap();
        let count = |plan: &Plan| PLAN_STAGES.map(|stage| plan.parts(stage).len());
        // Per sample count: three diagonals, three of regmean's, and sst's on A5 and on A5+A6, each on three data sets, one of
        // which, A5 on its own data, is regmean's too.
        let estimates = 2 * (3 + 3 + 2 * 3 - 1);
        // Per variant and sample count: two subspaces, three merges without.
        let merges = 2 * 2 * (2 + 3);
        // 1 + 3 + 2 x 2 x 7 systems, eight at a time.
        assert_eq!(count(&plan), [3, estimates, 0, merges, 4, 0, 1]);
        assert_eq!(
            count(&Plan::of(&recipe, 4).unwrap()),
            [3, 4 * estimates, estimates, merges, 4, 0, 1]
        );
        let systems: Vec<String> = plan
            .parts(PlanStage::Evaluate)
            .iter()
            .flat_map(|part| match part {
                Part::Evaluate(group) => group.iter().map(Candidate::name).collect(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(systems[..4], ["base", "A5", "A6", "A7"]);
        let grid: Vec<String> = MergeCell::grid(&recipe).iter().map(MergeCell::name).collect();
        assert_eq!(systems[4..], grid);
        let merged: usize = plan
            .parts(PlanStage::Merge)
            .iter()
            .map(|part| part.weight() as usize)
            .sum();
        assert_eq!(merged, grid.len());
    }

    #[test]
    fn a_selection_judges_one_point_of_every_strategy_on_every_variant() {
        let recipe = Recipe::parse(&format!("{RECIPE}\n[selection]")).unwrap();
        let plan = Plan::of(&recipe, 1).unwrap();
        let parts: Vec<String> = plan.parts(PlanStage::Test).iter().map(Part::to_string).collect();
        assert_eq!(
            parts,
            [
                "base, A5, A6, A7, chosen V1 A5+A7, chosen REGMEAN A5+A7, chosen SST A5+A7, chosen TIES A5+A7",
                "chosen V1 A5+A6+A7, chosen REGMEAN A5+A6+A7, chosen SST A5+A6+A7, chosen TIES A5+A6+A7",
            ]
        );
    }

    #[test]
    fn a_part_is_one_of_as_many_as_there_are() {
        let plan = Plan::of(&Recipe::parse(RECIPE).unwrap(), 1).unwrap();
        let second = plan.chosen(PlanStage::Train, Some("2/3".parse().unwrap())).unwrap();
        assert_eq!(second, [Part::Train("A6".to_owned())]);
        let error = plan.chosen(PlanStage::Train, Some("2/4".parse().unwrap())).unwrap_err();
        assert!(error.to_string().contains("train has 3 parts, not 4"), "{error}");
        for number in [0, 4] {
            let error = plan
                .chosen(PlanStage::Train, Some(PartNumber { number, of: 3 }))
                .unwrap_err();
            assert!(error.to_string().contains("numbered 1 to 3"), "{error}");
        }
        for wrong in ["0/3", "4/3", "1", "a/3", ""] {
            assert!(wrong.parse::<PartNumber>().unwrap_err().contains("such as 2/8"));
        }
        for stage in PLAN_STAGES {
            assert_eq!(stage.to_string().parse(), Ok(stage));
        }
        assert!("trian".parse::<PlanStage>().unwrap_err().contains("train, fisher"));
    }
}
