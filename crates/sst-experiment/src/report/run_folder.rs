//! A run folder as cells: settings from the aggregated results, items from the evaluations.

use super::{Cell, CellKind, Rate, Score};
use crate::recipe_pair::flatten;
use crate::results::System;
use crate::{Error, Results};
use serde_json::Value;
use sst_eval::{Benchmark, BenchmarkScore, Evaluation, Interval};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a run folder holds.
pub(super) struct RunFolder {
    pub results: Results,
    pub cells: Vec<Cell>,
    pub evaluations: Vec<Evaluation>, // one per cell
    /// On the test items of a selection.
    pub test: Vec<Cell>,
}

impl RunFolder {
    /// # Errors
    /// [`Error::Artefact`] or [`Error::Eval`] naming the file that is missing or malformed.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let results = Results::read(folder)?;
        if results.systems.is_empty() {
            let message = format!(
                "{} holds no evaluated system yet; run its sweep first",
                folder.display()
            );
            return Err(Error::Compare(message));
        }
        let load = |system: &System| -> Result<_, Error> {
            let evaluation = Evaluation::load(&folder.join(&system.evaluation))?;
            Ok((cell(system, &results.recipe, &evaluation), evaluation))
        };
        let (mut cells, mut evaluations, mut test) = (Vec::new(), Vec::new(), Vec::new());
        for system in &results.systems {
            let (cell, evaluation) = load(system)?;
            cells.push(cell);
            evaluations.push(evaluation);
        }
        for system in results.selection.iter().flat_map(|selection| &selection.test) {
            test.push(load(system)?.0);
        }
        name_apart(&mut cells);
        Ok(Self {
            results,
            cells,
            evaluations,
            test,
        })
    }
}

fn cell(system: &System, recipe: &Value, evaluation: &Evaluation) -> Cell {
    let strategy = serde_json::to_value(&system.strategy).unwrap_or_default();
    let mut settings = BTreeMap::new();
    flatten("", &strategy, &mut settings);
    let version = settings
        .remove("strategy")
        .and_then(|v| v.as_str().map(str::to_uppercase));
    let kind = match (&version, recipe["adapters"][&system.name]["role"].as_str()) {
        (Some(_), _) => CellKind::Merge,
        (None, Some("safety")) => CellKind::Safety,
        (None, Some(_)) => CellKind::Utility,
        (None, None) => CellKind::Base,
    };
    let k = settings.remove("k").and_then(|v| v.as_u64());
    let weight = ["alpha", "weight", "gamma"]
        .iter()
        .find_map(|key| settings.remove(*key))
        .and_then(|v| v.as_f64());
    if let Some(fisher) = &system.fisher {
        settings.insert("fisher.estimator".to_owned(), serde_json::json!(fisher.estimator));
        settings.insert("fisher.protocol".to_owned(), serde_json::json!(fisher.protocol));
    }
    let mut items: BTreeMap<Benchmark, BTreeMap<String, f64>> = BTreeMap::new();
    for record in &evaluation.records {
        items
            .entry(record.benchmark)
            .or_default()
            .insert(record.id.clone(), record.score);
    }
    let score = |score: &BenchmarkScore| {
        let found = Score {
            value: score.value,
            interval: Interval {
                low: score.ci_low,
                high: score.ci_high,
            },
            n: score.n,
            suspicious: false,
            items: items.remove(&score.benchmark).unwrap_or_default(),
        };
        (score.benchmark, found)
    };
    Cell {
        name: system.name.clone(),
        kind,
        version,
        variant: system.variant.clone(),
        k,
        weight,
        samples: system.fisher.as_ref().map(|f| f.samples as u64),
        sampled: system.fisher.is_some(),
        settings,
        scores: system.scores.iter().map(score).collect(),
        over_refusal: over_refusal(&system.scores),
        valid: Rate::pooled(system.scores.iter().filter_map(|s| Some((s.valid_rate?, s.n)))),
    }
}

/// Of XSTest's safe prompts, made for the purpose; where it was not run, of the utility sets.
pub(crate) fn over_refusal(scores: &[BenchmarkScore]) -> Option<Rate> {
    let of = |wanted: &[Benchmark]| {
        let chosen = scores.iter().filter(|s| wanted.contains(&s.benchmark));
        Rate::pooled(chosen.filter_map(|s| Some((s.refusal_rate?, s.n))))
    };
    of(&[Benchmark::XsTest]).or_else(|| of(&[Benchmark::RepliQa, Benchmark::Alpaca]))
}

/// Sample counts and variants belong to a name only where they tell systems apart.
fn name_apart(cells: &mut [Cell]) {
    let merges: Vec<&Cell> = cells.iter().filter(|c| c.is_merge()).collect();
    let one_sample_count = merges.iter().map(|c| c.samples).collect::<BTreeSet<_>>().len() < 2;
    let one_variant = merges.iter().map(|c| &c.variant).collect::<BTreeSet<_>>().len() < 2;
    let short: Vec<String> = cells
        .iter()
        .map(|cell| {
            let drop = |word: &&str| {
                let is_samples = one_sample_count && word.starts_with("n=");
                let is_variant = one_variant && Some(*word) == cell.variant.as_deref();
                !(cell.is_merge() && (is_samples || is_variant))
            };
            cell.name.split_whitespace().filter(drop).collect::<Vec<_>>().join(" ")
        })
        .collect();
    if short.iter().collect::<BTreeSet<_>>().len() == cells.len() {
        for (cell, name) in cells.iter_mut().zip(short) {
            cell.name = name;
        }
    }
}
