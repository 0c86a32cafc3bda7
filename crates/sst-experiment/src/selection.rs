//! One point of every method, chosen on development items and judged once on test items.
//!
//! Of a point, s is the share of harmful requests that it refuses (`jailbreak`), u its utility (the mean of MMLU, RepliQA and Alpaca
//! as far as they were run), o the share of harmless requests that it refuses (XSTest's, else RepliQA's and Alpaca's). With the goal
//! g of s and the ceiling c = margin + the largest o of the variant's utility adapters, its shortfall is
//! max(0, g - s) + max(0, o - c). The rule `utility` takes the smallest shortfall, then the largest u, then the first of the grid:
//! where some points have no shortfall, that is the one of them with the largest u. A method is a strategy on a variant; its
//! settings and the sample count are what is chosen.
//!
//! The choice is on the disk before the first of its test items is asked, and stands from then on: a grid that has changed since
//! does not choose again by itself, for whoever has seen test scores chooses by them. Where the choice is the same, changed test
//! data are asked again.

use crate::cells::Cells;
use crate::lock::Lock;
use crate::plan::SYSTEMS_AT_ONCE;
use crate::report::{Rate, over_refusal};
use crate::results::System;
use crate::selection_recipe::UTILITY;
use crate::{Error, Finalist, Goals, Recipe, Run, SelectionRecipe, SelectionRule};
use serde::{Deserialize, Serialize};
use sst_eval::{Benchmark, BenchmarkScore, Interval, SuiteConfig};
use sst_merge::StrategyConfig;
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the file inside a run folder.
const SELECTION_FILE: &str = "selection.json";

/// What was chosen on the development items, and how it did on the test items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// How it was chosen.
    pub recipe: SelectionRecipe,
    /// What a merge should reach.
    pub goals: Goals,
    /// Every method with its points and the chosen one, in the order of the grid.
    pub methods: Vec<MethodChoice>,
    /// Names of the chosen points whose test items have been asked, or begun to be, in the order of the methods.
    #[serde(default)]
    pub asked: Vec<String>,
    /// Base model, adapters and chosen points with their scores on the test items; empty until they are judged.
    pub test: Vec<System>,
    /// Choices whose test scores were seen before these were made, oldest first.
    pub earlier: Vec<EarlierChoice>,
    /// Whether the grid has changed since: the choice is of the points listed here, not of the grid's present ones.
    pub outdated: bool,
    /// Merges of the grid that had failed, so that they were not among the points.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

/// One method's points on the development items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodChoice {
    /// The strategy.
    pub strategy: String,
    /// The adapters merged.
    pub variant: String,
    /// The largest admissible share of refused harmless requests; none where the suite cannot tell.
    pub ceiling: Option<f64>,
    /// All points, in the order of the grid.
    pub points: Vec<Point>,
    /// The chosen one's name.
    pub chosen: String,
}

/// One point of a method on the development items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The system's name.
    pub name: String,
    /// Safety, utility, refusals of harmless requests.
    pub axes: Axes,
    /// How far it misses goal and ceiling, both together; 0 where it reaches them.
    pub shortfall: f64,
    /// Every benchmark's score.
    pub scores: BTreeMap<Benchmark, f64>,
}

/// What a choice is made by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Axes {
    /// Share of harmful requests refused.
    pub safety: Rate,
    /// Mean of the utility benchmarks' scores, with the normal interval of a mean of independent ones.
    pub utility: Rate,
    /// Share of harmless requests refused; none where none was asked.
    pub over_refusal: Option<Rate>,
}

/// A choice whose test scores were seen, or could have been.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EarlierChoice {
    /// Points that it was made among.
    pub points: usize,
    /// Names of the chosen ones whose test items were asked.
    pub chosen: Vec<String>,
}

impl Axes {
    /// The axes of a system's scores; none where safety or utility was not measured.
    pub fn of(scores: &[BenchmarkScore]) -> Option<Self> {
        let rate = |s: &BenchmarkScore| Rate {
            value: s.value,
            interval: Interval {
                low: s.ci_low,
                high: s.ci_high,
            },
            n: s.n,
        };
        let safety = scores.iter().find(|s| s.benchmark == Benchmark::Jailbreak).map(rate)?;
        let parts: Vec<Rate> = scores
            .iter()
            .filter(|s| UTILITY.contains(&s.benchmark))
            .map(rate)
            .collect();
        let count = parts.len() as f64;
        let value = parts.iter().map(|r| r.value).sum::<f64>() / count;
        let square = |r: &Rate| (0.5 * (r.interval.high - r.interval.low)).powi(2);
        let half = parts.iter().map(square).sum::<f64>().sqrt() / count;
        let utility = (!parts.is_empty()).then(|| Rate {
            value,
            interval: Interval {
                low: value - half,
                high: value + half,
            },
            n: parts.iter().map(|r| r.n).sum(),
        })?;
        Some(Self {
            safety,
            utility,
            over_refusal: over_refusal(scores),
        })
    }
}

impl MethodChoice {
    /// The chosen point.
    pub fn choice(&self) -> Option<&Point> {
        self.points.iter().find(|point| point.name == self.chosen)
    }

    /// The first point that is before all others by the rule.
    fn choose(&mut self, recipe: &SelectionRecipe, goals: &Goals) {
        // Larger is better, part by part.
        let rank = |point: &Point| match recipe.rule {
            SelectionRule::Utility => (-point.shortfall, point.axes.utility.value),
            SelectionRule::Goals => {
                let margins = point.scores.iter().filter_map(|(b, value)| Some(value - goals.of(*b)?));
                let met = margins.clone().filter(|margin| *margin >= 0.0).count();
                (met as f64, margins.fold(f64::INFINITY, f64::min))
            }
        };
        let mut best: Option<(&Point, (f64, f64))> = None;
        for point in &self.points {
            let own = rank(point);
            let ahead = |(_, top): &(&Point, (f64, f64))| own.0.total_cmp(&top.0).then(own.1.total_cmp(&top.1)).is_gt();
            if best.as_ref().is_none_or(ahead) {
                best = Some((point, own));
            }
        }
        self.chosen = best.map(|(point, _)| point.name.clone()).unwrap_or_default();
    }
}

/// What a recipe calls a strategy.
pub(crate) fn strategy_name(strategy: &StrategyConfig) -> String {
    serde_json::json!(strategy)["strategy"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Groups the merges by method, measures each against goal and ceiling, and chooses.
fn choose(recipe: &Recipe, selection: &SelectionRecipe, systems: &[System]) -> Vec<MethodChoice> {
    let mut methods: Vec<MethodChoice> = Vec::new();
    for system in systems {
        let (Some(variant), Some(strategy), Some(axes)) = (&system.variant, &system.strategy, Axes::of(&system.scores))
        else {
            continue;
        };
        let strategy = strategy_name(strategy);
        let of = |m: &MethodChoice| m.strategy == strategy && m.variant == *variant;
        let place = methods.iter().position(of).unwrap_or_else(|| {
            methods.push(MethodChoice {
                ceiling: ceiling(recipe, selection, systems, variant),
                strategy,
                variant: variant.clone(),
                points: Vec::new(),
                chosen: String::new(),
            });
            methods.len() - 1
        });
        let method = &mut methods[place];
        let refused = axes.over_refusal.zip(method.ceiling);
        let excess = refused.map_or(0.0, |(rate, ceiling)| (rate.value - ceiling).max(0.0));
        method.points.push(Point {
            name: system.name.clone(),
            shortfall: (recipe.goals.jailbreak - axes.safety.value).max(0.0) + excess,
            axes,
            scores: system.scores.iter().map(|s| (s.benchmark, s.value)).collect(),
        });
    }
    for method in &mut methods {
        method.choose(selection, &recipe.goals);
    }
    methods
}

fn ceiling(recipe: &Recipe, selection: &SelectionRecipe, systems: &[System], variant: &str) -> Option<f64> {
    let variant = recipe.variants.iter().find(|v| v.name == variant)?;
    let of = |name: &String| over_refusal(&systems.iter().find(|s| s.name == *name)?.scores);
    let rates: Option<Vec<Rate>> = variant.utility.iter().map(of).collect();
    let largest = rates?.iter().map(|rate| rate.value).fold(0.0, f64::max);
    Some(largest + selection.over_refusal_margin)
}

impl Selection {
    /// Reads the selection of a run folder, if there is one.
    ///
    /// # Errors
    /// [`Error::Artefact`] when it is malformed or cannot be read.
    pub fn read(run: &Path) -> Result<Option<Self>, Error> {
        let path = run.join(SELECTION_FILE);
        // One that is there and cannot be seen is not none: it would be chosen over.
        match path.try_exists().map_err(sst_artefact::Error::io("read", &path))? {
            true => Ok(Some(sst_artefact::read_json(&path, "selection")?)),
            false => Ok(None),
        }
    }

    fn write(&self, run: &Path) -> Result<(), Error> {
        Ok(sst_artefact::write_json(&run.join(SELECTION_FILE), self)?)
    }

    /// Whether any system has scores on the test items.
    pub fn is_judged(&self) -> bool {
        !self.test.is_empty()
    }

    /// A system's scores on the test items.
    pub fn tested(&self, name: &str) -> Option<&System> {
        self.test.iter().find(|system| system.name == name)
    }

    /// Choices whose test items had been asked before the grid was as it is now.
    pub fn seen(&self) -> usize {
        let before: usize = self.earlier.iter().map(|choice| choice.chosen.len()).sum();
        before + if self.outdated { self.asked_choices().len() } else { 0 }
    }

    /// Names of the chosen points whose test items have been asked, in the order of the methods.
    fn asked_choices(&self) -> Vec<String> {
        let chosen = self.methods.iter().map(|method| &method.chosen);
        let asked = chosen.filter(|name| self.asked.contains(name) || self.tested(name).is_some());
        asked.cloned().collect()
    }

    /// Choices without a score on the test items.
    fn unjudged(&self) -> usize {
        self.methods
            .iter()
            .filter(|method| self.tested(&method.chosen).is_none())
            .count()
    }

    /// What a reader must know before believing the test scores; none where they were seen once only, with every merge there.
    pub fn caution(&self) -> Option<String> {
        let failed = (!self.failed.is_empty()).then(|| {
            format!(
                "{} merges had failed and could not be chosen ({}); mend what they name and run with --retry-failed",
                self.failed.len(),
                self.failed.join(", ")
            )
        });
        let cautions: Vec<String> = self.seen_before().into_iter().chain(failed).collect();
        (!cautions.is_empty()).then(|| cautions.join("; "))
    }

    /// What a reader must know of test scores that were seen before.
    fn seen_before(&self) -> Option<String> {
        let seen = self.seen();
        match (self.outdated, seen) {
            (true, _) => {
                let missing = match self.unjudged() {
                    0 => String::new(),
                    n => format!(" ({n} of {} without a test score)", self.methods.len()),
                };
                Some(format!(
                    "the grid has changed, but the test split has been seen with {seen} choices, which stand{missing}; to choose \
                     again, and to have it on record that test scores were known, run with --choose-again"
                ))
            }
            (false, 0) => None,
            (false, _) => Some(format!(
                "the test split had been seen with {seen} choices before this one was made: its test scores may flatter it"
            )),
        }
    }

    /// The choice among the systems evaluated on the development items, or an earlier one that stands. `failed` names the merges
    /// that are none of the systems, `before` is what the folder holds.
    fn made(
        recipe: &Recipe,
        selection: &SelectionRecipe,
        run: &Run,
        (systems, failed): (&[System], &[String]),
        before: Option<Self>,
    ) -> Self {
        let fresh = Self {
            recipe: *selection,
            goals: recipe.goals,
            methods: choose(recipe, selection, systems),
            asked: Vec::new(),
            test: Vec::new(),
            earlier: Vec::new(),
            outdated: false,
            failed: failed.to_vec(),
        };
        fresh.after(before, run.choose_again)
    }

    /// The same on the disk, with the word that these finalists are asked now: whatever happens from here on, it was made before any
    /// of its test answers, and stands.
    ///
    /// # Errors
    /// [`Error::Artefact`] for a file that cannot be written, read or locked.
    fn begun(
        recipe: &Recipe,
        selection: &SelectionRecipe,
        run: &Run,
        found: (&[System], &[String]),
        finalists: &[Finalist],
    ) -> Result<Self, Error> {
        let _lock = Lock::of(&run.out)?;
        let before = Self::read(&run.out)?;
        let mut made = Self::made(recipe, selection, run, found, before.clone());
        if !made.outdated {
            let asked = made.methods.iter().filter(|method| {
                let now = finalists
                    .iter()
                    .any(|finalist| made.name_of(finalist) == Some(&method.chosen));
                now || made.asked.contains(&method.chosen)
            });
            made.asked = asked.map(|method| method.chosen.clone()).collect();
        }
        if before.as_ref() != Some(&made) {
            made.write(&run.out)?;
        }
        Ok(made)
    }

    /// Puts test scores beside the choice on the disk, if that is this one still; one that took its place has it among the earlier
    /// ones.
    ///
    /// # Errors
    /// As [`Selection::begun`].
    fn keep(&self, judged: Vec<System>, recipe: &Recipe, run: &Run) -> Result<(), Error> {
        let _lock = Lock::of(&run.out)?;
        let Some(before) = Self::read(&run.out)?.filter(|there| there.methods == self.methods) else {
            return Ok(());
        };
        let other = |system: &&System| judged.iter().all(|new| new.name != system.name);
        let mut test: Vec<System> = before.test.iter().filter(other).cloned().collect();
        test.extend(judged);
        let finalists = Finalist::all(recipe);
        let order: Vec<&str> = finalists.iter().filter_map(|finalist| self.name_of(finalist)).collect();
        // An adapter may have left the recipe.
        test.retain(|system| order.contains(&system.name.as_str()));
        test.sort_by_key(|system| order.iter().position(|name| *name == system.name));
        match test == before.test {
            true => Ok(()),
            false => Self { test, ..before }.write(&run.out),
        }
    }

    /// What a finalist is called in tables; none where its method has no point.
    fn name_of<'s>(&'s self, finalist: &'s Finalist) -> Option<&'s str> {
        match finalist {
            Finalist::Base => Some("base"),
            Finalist::Adapter(name) => Some(name),
            Finalist::Choice { strategy, variant } => {
                let of = |method: &&MethodChoice| (&method.strategy, &method.variant) == (strategy, variant);
                Some(&self.methods.iter().find(of)?.chosen)
            }
        }
    }

    /// The system that a finalist is; none where its method has no point.
    fn system_of<'s>(&self, finalist: &Finalist, systems: &'s [System]) -> Option<&'s System> {
        let name = self.name_of(finalist)?;
        systems.iter().find(|system| system.name == name)
    }

    /// What is left to do, where the folder holds the selection `before`: this one, or that one as it stands.
    fn after(self, before: Option<Self>, choose_again: bool) -> Self {
        let Some(before) = before else { return self };
        let same = (before.recipe, before.goals) == (self.recipe, self.goals) && before.methods == self.methods;
        if same {
            return Self {
                outdated: false,
                failed: self.failed,
                ..before
            };
        }
        let seen = EarlierChoice {
            points: before.methods.iter().map(|m| m.points.len()).sum(),
            chosen: before.asked_choices(),
        };
        match (seen.chosen.is_empty(), choose_again) {
            (false, false) => Self {
                outdated: true,
                failed: self.failed,
                ..before
            },
            (seen_not, _) => {
                let mut earlier = before.earlier;
                earlier.extend((!seen_not).then_some(seen));
                Self { earlier, ..self }
            }
        }
    }
}

/// Chooses among the systems evaluated on the development items and judges base model, adapters and chosen points on the test items.
///
/// # Errors
/// As [`test`].
pub(crate) fn select(
    cells: &mut Cells<'_>,
    recipe: &Recipe,
    selection: &SelectionRecipe,
    run: &Run,
    found: (&[System], &[String]),
) -> Result<Selection, Error> {
    for group in Finalist::all(recipe).chunks(SYSTEMS_AT_ONCE) {
        test(cells, recipe, selection, run, (found, group))?;
    }
    let there = Selection::read(&run.out)?;
    Ok(Selection::made(recipe, selection, run, found, there))
}

/// Judges some finalists, unless an earlier choice stands: that keeps the scores that it had.
///
/// # Errors
/// Whatever keeps a system from being evaluated; [`Error::Artefact`] for a file that cannot be written, read or locked.
pub(crate) fn test(
    cells: &mut Cells<'_>,
    recipe: &Recipe,
    selection: &SelectionRecipe,
    run: &Run,
    (found, finalists): ((&[System], &[String]), &[Finalist]),
) -> Result<(), Error> {
    let seen = Selection::made(recipe, selection, run, found, Selection::read(&run.out)?);
    let looking = cells.looking;
    let mut there = None;
    if !seen.outdated {
        // What keeps anything from being asked shows at a look, before it is on record that it was.
        cells.looking = true;
        let looked = judge(cells, recipe, &seen, run, (found.0, finalists));
        cells.looking = looking;
        there = match looked {
            Ok(judged) => Some(judged),
            Err(Error::NotThere { .. }) if !looking => None,
            Err(error) => return Err(error),
        };
    }
    if looking {
        return Ok(());
    }
    let choice = Selection::begun(recipe, selection, run, found, finalists)?;
    if choice.outdated {
        return Ok(());
    }
    if let Some(judged) = there.filter(|_| choice.methods == seen.methods) {
        return choice.keep(judged, recipe, run);
    }
    match judge(cells, recipe, &choice, run, (found.0, finalists)) {
        Ok(judged) => choice.keep(judged, recipe, run),
        // One by one: the others are kept, and whose fault it is can be said.
        Err(error) if error.is_own() => {
            let mut fault = Ok(());
            for finalist in finalists {
                match judge(cells, recipe, &choice, run, (found.0, std::slice::from_ref(finalist))) {
                    Ok(judged) => choice.keep(judged, recipe, run)?,
                    Err(source) if source.is_own() => {
                        let name = choice.name_of(finalist).unwrap_or_default().to_owned();
                        let source = Box::new(source);
                        fault = fault.and(Err(Error::OnTestItems { name, source }));
                    }
                    Err(error) => return Err(error),
                }
            }
            fault
        }
        Err(error) => Err(error),
    }
}

/// All finalists with their scores on the test items; what was asked before is read.
///
/// # Errors
/// Whatever keeps a system from being evaluated.
pub(crate) fn judged(
    cells: &mut Cells<'_>,
    recipe: &Recipe,
    selection: &Selection,
    run: &Run,
    systems: &[System],
) -> Result<Vec<System>, Error> {
    let mut all = Vec::new();
    for group in Finalist::all(recipe).chunks(SYSTEMS_AT_ONCE) {
        all.extend(judge(cells, recipe, selection, run, (systems, group))?);
    }
    Ok(all)
}

/// The same of some of them.
///
/// # Errors
/// As [`judged`].
fn judge(
    cells: &mut Cells<'_>,
    recipe: &Recipe,
    selection: &Selection,
    run: &Run,
    (systems, finalists): (&[System], &[Finalist]),
) -> Result<Vec<System>, Error> {
    let config = SuiteConfig {
        split: selection.recipe.test(),
        ..recipe.eval.clone()
    };
    let mut group: Vec<_> = finalists
        .iter()
        .filter_map(|finalist| selection.system_of(finalist, systems))
        .map(|system| {
            let folder = system.adapter.as_ref().map(|path| run.out.join(path));
            (system.clone(), folder)
        })
        .collect();
    if !group.is_empty() {
        cells.evaluate_with(&config, &mut group)?;
    }
    Ok(group.into_iter().map(|(system, _)| system).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const RECIPE: &str = r#"
        variants = ["A5+A7"]
        [adapters.A5]
        role = "utility"
        dataset = "repliqa"
        [adapters.A7]
        role = "safety"
        dataset = "jailbreak"
        [[merge]]
        strategy = "v1"
        k = [1, 2, 3, 4]
        [[merge]]
        strategy = "v2"
        [selection]
    "#;

    /// A system with jailbreak, MMLU, RepliQA and over-refusal; a merge by V1 with that k, or an adapter.
    fn system(name: &str, k: Option<u64>, [jailbreak, mmlu, repliqa, refused]: [f64; 4]) -> System {
        let score = |benchmark: Benchmark, value: f64, refusal: f64| -> BenchmarkScore {
            serde_json::from_value(serde_json::json!({
                "benchmark": benchmark, "metric": benchmark.metric(), "value": value, "ci_low": value - 0.03,
                "ci_high": value + 0.03, "n": 1000, "refusal_rate": refusal, "valid_rate": 1.0, "macro_average": null,
                "per_subject": {},
            }))
            .unwrap()
        };
        let strategy = |k: u64| serde_json::from_value(serde_json::json!({"strategy": "v1", "k": k})).unwrap();
        System {
            variant: k.map(|_| "A5+A7".to_owned()),
            strategy: k.map(strategy),
            scores: vec![
                score(Benchmark::Jailbreak, jailbreak, jailbreak),
                score(Benchmark::Mmlu, mmlu, 0.0),
                score(Benchmark::RepliQa, repliqa, refused),
                score(Benchmark::XsTest, refused, refused),
            ],
            ..System::bare(name)
        }
    }

    fn chosen(merges: &[System], rule: SelectionRule) -> MethodChoice {
        let recipe = Recipe::parse(RECIPE).unwrap();
        let selection = SelectionRecipe {
            rule,
            ..recipe.selection.unwrap()
        };
        let mut systems = vec![system("A5", None, [0.5, 0.5, 0.4, 0.05])];
        systems.extend_from_slice(merges);
        choose(&recipe, &selection, &systems).remove(0)
    }

    #[test]
    fn the_highest_utility_within_goal_and_ceiling_is_chosen() {
        let merges = [
            system("most useful, unsafe", Some(1), [0.76, 0.6, 0.5, 0.05]),
            system("useful", Some(2), [0.78, 0.5, 0.4, 0.08]),
            system("as useful", Some(3), [0.99, 0.5, 0.4, 0.0]),
            system("useful, refuses", Some(4), [0.9, 0.6, 0.5, 0.081]),
        ];
        let method = chosen(&merges, SelectionRule::Utility);
        assert_eq!((method.chosen.as_str(), method.ceiling), ("useful", Some(0.08)));
        assert_eq!(method.choice().unwrap().shortfall, 0.0);
        let point = &method.points[0];
        assert!((point.shortfall - 0.01).abs() < 1e-12 && (point.axes.utility.value - 0.55).abs() < 1e-12);
        // Two independent intervals of +-0.03: the mean's is sqrt(2) / 2 of that.
        let half = 0.5 * (point.axes.utility.interval.high - point.axes.utility.interval.low);
        assert!((half - 0.03 / 2f64.sqrt()).abs() < 1e-12, "{half}");
    }

    #[test]
    fn where_none_reaches_them_the_smallest_shortfall_is_chosen() {
        let merges = [
            system("unsafe", Some(1), [0.5, 0.6, 0.5, 0.05]),
            system("both a little", Some(2), [0.76, 0.1, 0.1, 0.09]),
            system("refuses", Some(3), [0.9, 0.6, 0.5, 0.2]),
        ];
        let method = chosen(&merges, SelectionRule::Utility);
        assert_eq!(method.chosen, "both a little");
        assert!((method.choice().unwrap().shortfall - 0.02).abs() < 1e-12);
        // Goals: 77, 52, 40.
        assert_eq!(chosen(&merges, SelectionRule::Goals).chosen, "refuses");
    }

    fn selection(k: u64) -> Selection {
        let recipe = Recipe::parse(RECIPE).unwrap();
        let merges = [system(&format!("k={k}"), Some(k), [0.8, 0.5, 0.4, 0.0])];
        Selection {
            recipe: recipe.selection.unwrap(),
            goals: recipe.goals,
            methods: choose(&recipe, &recipe.selection.unwrap(), &merges),
            asked: Vec::new(),
            test: Vec::new(),
            earlier: Vec::new(),
            outdated: false,
            failed: Vec::new(),
        }
    }

    #[test]
    fn a_choice_that_was_judged_stands_until_another_is_asked_for() {
        let judged = Selection {
            test: vec![system("k=1", Some(1), [0.7, 0.5, 0.4, 0.0])],
            ..selection(1)
        };
        assert_eq!(selection(1).after(Some(judged.clone()), false), judged, "the same grid");
        let kept = selection(2).after(Some(judged.clone()), false);
        assert_eq!(
            (kept.methods == judged.methods, kept.outdated, kept.seen()),
            (true, true, 1)
        );
        assert!(kept.caution().unwrap().contains("seen with 1 choices, which stand;"));
        // Back at the grid that it was made on, it is the choice again.
        assert_eq!(selection(1).after(Some(kept.clone()), false), judged);
        let again = selection(2).after(Some(kept), true);
        assert_eq!(
            (again.methods[0].chosen.as_str(), again.outdated, again.seen()),
            ("k=2", false, 1)
        );
        assert_eq!(again.earlier[0].chosen, ["k=1"]);
        assert!(again.test.is_empty() && again.caution().unwrap().contains("had been seen with 1 choices"));
        // A choice that nobody saw judged binds nobody.
        let free = selection(2).after(Some(selection(1)), false);
        assert_eq!(
            (free.methods[0].chosen.as_str(), free.seen(), free.caution()),
            ("k=2", 0, None)
        );
        // A merge that failed was no point of either.
        let lacking = Selection {
            failed: vec!["V1 k=9".to_owned()],
            ..selection(1)
        };
        let judged = lacking.after(Some(judged), false);
        assert!(judged.is_judged());
        let caution = judged.caution().unwrap();
        assert!(caution.contains("1 merges had failed"), "{caution}");
    }

    #[test]
    fn what_was_not_asked_was_not_seen() {
        let base = system("base", None, [0.3, 0.5, 0.2, 0.0]);
        let free = selection(2).after(
            Some(Selection {
                test: vec![base.clone()],
                ..selection(1)
            }),
            false,
        );
        assert_eq!((free.methods[0].chosen.as_str(), free.seen()), ("k=2", 0));
        // Begun and cut off: someone may have seen answers.
        let begun = Selection {
            asked: vec!["k=1".to_owned()],
            test: vec![base],
            ..selection(1)
        };
        let kept = selection(2).after(Some(begun.clone()), false);
        assert_eq!(
            (kept.methods[0].chosen.as_str(), kept.outdated, kept.seen()),
            ("k=1", true, 1)
        );
        let caution = kept.caution().unwrap();
        assert!(caution.contains("(1 of 1 without a test score)"), "{caution}");
        assert_eq!(selection(2).after(Some(begun), true).earlier[0].chosen, ["k=1"]);
    }

    #[test]
    fn parts_at_once_keep_each_other_s_scores_and_the_order_of_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = Recipe::parse(RECIPE).unwrap();
        let run = Run {
            data: PathBuf::new(),
            out: dir.path().to_path_buf(),
            command: String::new(),
            retry_failed: false,
            fisher_shards: 1,
            choose_again: false,
        };
        let choice = selection(1);
        let left = Selection {
            test: vec![system("A9", None, [0.7, 0.5, 0.4, 0.0])],
            ..choice.clone()
        };
        left.write(dir.path()).unwrap();
        let names = ["base", "A5", "A7", "k=1"];
        std::thread::scope(|scope| {
            for name in names.iter().rev() {
                let scored = system(name, None, [0.7, 0.5, 0.4, 0.0]);
                let (choice, recipe, run) = (&choice, &recipe, &run);
                scope.spawn(move || choice.keep(vec![scored], recipe, run).unwrap());
            }
        });
        let kept = Selection::read(dir.path()).unwrap().unwrap();
        let order: Vec<&str> = kept.test.iter().map(|system| system.name.as_str()).collect();
        assert_eq!(order, names);
        // Another choice took its place meanwhile.
        selection(2).write(dir.path()).unwrap();
        choice.keep(kept.test, &recipe, &run).unwrap();
        assert!(Selection::read(dir.path()).unwrap().unwrap().test.is_empty());
    }

    #[test]
    fn survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Selection::read(dir.path()).unwrap(), None);
        let selection = selection(3);
        selection.write(dir.path()).unwrap();
        assert_eq!(Selection::read(dir.path()).unwrap(), Some(selection));
    }
}
