//! Run every mixture of two recipes and divide the difference of their scores among the stages.

use crate::attribution::{Attribution, Combination, ItemScores};
use crate::cells::Cells;
use crate::results::System;
use crate::{Error, LazyModel, MergeCell, Recipe, RecipePair, Reporter, Run, Stage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How shares are resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeConfig {
    /// Resamples of the items, the same for every share of a benchmark.
    pub resamples: usize,
    /// Seed of the resamples.
    pub seed: u64,
}

impl Default for AttributeConfig {
    fn default() -> Self {
        Self {
            resamples: 10_000,
            seed: 0,
        }
    }
}

impl AttributeConfig {
    /// Fewer cannot tell a corrected p-value of 0.05 from a smaller one.
    const FEWEST: usize = 1000;

    fn check(self) -> Result<Self, Error> {
        if self.resamples < Self::FEWEST {
            return Err(Error::Compare(format!(
                "{} resamples are too few for intervals and corrected p-values: take at least {}",
                self.resamples,
                Self::FEWEST
            )));
        }
        Ok(self)
    }
}

/// Merges and evaluates all 2^m mixtures of a pair's m stages, and attributes the difference of every benchmark.
///
/// Steps that mixtures share are done once, also across runs in the same folder; mixtures whose merged adapters are the
/// same bytes share their evaluation. Writes `attribution.json` and `attribution.md` into the run folder.
///
/// # Errors
/// [`Error::Compare`] for too few resamples; [`Error::Leakage`] when items are trained on and evaluated on alike and a recipe does
/// not allow it; the first step's [`Error`] that fails; what was finished before it stays.
pub fn attribute(
    base: &mut LazyModel,
    pair: &RecipePair,
    config: AttributeConfig,
    run: &Run,
    reporter: &mut dyn Reporter,
) -> Result<Attribution, Error> {
    let config = config.check()?;
    for recipe in pair.recipes() {
        crate::leakage::check(recipe, &run.data, reporter)?;
    }
    let recipes = (0..pair.combinations())
        .map(|c| pair.mixed(c))
        .collect::<Result<Vec<_>, _>>()?;
    let (mut combinations, mut items) = (Vec::new(), Vec::new());
    for (number, recipe) in recipes.iter().enumerate() {
        let taken = pair.stages().iter().enumerate().filter(|(j, _)| number >> j & 1 == 1);
        let second: BTreeSet<Stage> = taken.map(|(_, difference)| difference.stage).collect();
        let names: Vec<String> = second.iter().map(ToString::to_string).collect();
        reporter.start(&format!("combination {} of {}", number + 1, recipes.len()), 0);
        reporter.finish(&format!(
            "stages from B: {}",
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        ));
        let (system, scores) = cell(base, recipe, run, reporter)?;
        combinations.push(Combination { second, system });
        items.push(scores);
    }
    let attribution = Attribution::of(pair, combinations, &items, config, base.input()?, &run.data)?;
    attribution.write(&run.out)?;
    Ok(attribution)
}

/// Trains, measures, merges and evaluates a recipe of one merge.
fn cell(
    base: &mut LazyModel,
    recipe: &Recipe,
    run: &Run,
    reporter: &mut dyn Reporter,
) -> Result<(System, ItemScores), Error> {
    let mut cells = Cells::new(base, recipe, run, reporter);
    let merge = MergeCell {
        variant: recipe.variants[0].clone(),
        samples: recipe.fisher.samples[0],
        strategy: recipe.merges[0].clone(),
    };
    let (mut system, folder) = cells.merge(&merge)?;
    // Named by the adapters alone, so that equal merges by different strategies are one system to evaluate.
    let name = std::mem::replace(&mut system.name, merge.variant.name);
    let mut alone = [(system, Some(folder))];
    let evaluation = cells.evaluate(&mut alone)?.remove(0);
    let [(mut system, _)] = alone;
    system.name = name;
    let mut scores = ItemScores::new();
    for record in evaluation.records {
        scores
            .entry(record.benchmark)
            .or_default()
            .insert(record.id, record.score);
    }
    Ok((system, scores))
}
