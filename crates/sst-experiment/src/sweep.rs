//! Run a recipe: every part of its plan once, in a folder named by what went into it.

use crate::cells::Cells;
use crate::failures::Failures;
use crate::results::{Results, System};
use crate::selection::{self, judged, select};
use crate::time_left::TimeLeft;
use crate::{
    Candidate, Comparison, Error, FailedCell, LazyModel, MergeCell, OverSeeds, Part, PartNumber, Plan, PlanStage,
};
use crate::{Recipe, Reporter, Selection, Silent};
use sst_subspace::Shard;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where a recipe runs: data in, run folder out.
#[derive(Debug, Clone)]
pub struct Run {
    /// Folder of the data sets.
    pub data: PathBuf,
    /// The run folder.
    pub out: PathBuf,
    /// The command to show in model cards.
    pub command: String,
    /// Whether cells that failed before are tried again.
    pub retry_failed: bool,
    /// Shards of every Fisher estimate, at least 1; sums of shards differ from a single run's by rounding.
    pub fisher_shards: usize,
    /// Whether a changed grid chooses again although test scores of an earlier choice are known.
    pub choose_again: bool,
}

/// Trains, measures, merges and evaluates all that the recipe asks for; what the run folder already holds is reused.
///
/// A merge that fails is kept with its error among [`Results::failed`], and the sweep goes on. `aggregated_results.json` and
/// `comparison.md` are written as evaluations end, so that an interrupted run shows what it has. Several processes may run
/// one recipe in one folder: each part is computed by one of them.
///
/// # Errors
/// [`Error::Leakage`] when items are trained on and evaluated on alike and the recipe does not allow it; whatever keeps an
/// adapter from being trained, or the base model or an adapter from being evaluated; a model, judge, server or disk that fails.
/// What was finished before it stays.
pub fn sweep(base: &mut LazyModel, recipe: &Recipe, run: &Run, reporter: &mut dyn Reporter) -> Result<Results, Error> {
    let plan = Plan::of(recipe, run.fisher_shards)?;
    let leakage = crate::leakage::check(recipe, &run.data, reporter)?;
    let results = Results {
        leakage,
        ..Results::of(base, recipe, run)?
    };
    let failures = Failures::of(base, recipe, run)?;
    let mut silent = Silent;
    let mut look = Sweep::looking(base, recipe, run, &mut silent, results.clone(), failures.clone());
    let to_do = look.left(&plan)?;
    let is_to_do = |stage, i: usize| to_do.get(&stage).is_some_and(|numbers| numbers.contains(&(i + 1)));
    let mut time = TimeLeft::of(
        numbered(&plan)
            .filter(|&(stage, i, _)| is_to_do(stage, i))
            .map(|(s, _, p)| (s, p)),
    );
    let mut sweep = Sweep::new(base, recipe, run, reporter, results, failures);
    for (stage, i, part) in numbered(&plan) {
        let (began, evaluated) = (Instant::now(), sweep.cells.evaluated);
        sweep.part(part)?;
        let took = as_if_whole(part, sweep.cells.evaluated - evaluated, began.elapsed());
        // Of a sweep that is done already the folder keeps the whole table meanwhile.
        if stage == PlanStage::Evaluate && is_to_do(stage, i) {
            sweep.write()?;
        }
        if is_to_do(stage, i) {
            time.ended(stage, part, took);
            sweep.cells.reporter.overall(&time.overall(|_| 1, String::new()));
        }
    }
    Ok(sweep.results)
}

/// The time that a part takes where none of its systems is evaluated already; none for one of which all were.
fn as_if_whole(part: &Part, evaluated: usize, took: Duration) -> Option<Duration> {
    match part {
        Part::Evaluate(_) | Part::Test(_) => (evaluated > 0).then(|| took.mul_f64(part.weight() / evaluated as f64)),
        _ => Some(took),
    }
}

/// Runs one part of a stage, or all of them, and returns the merges that failed in it; what it needs from earlier stages is
/// computed too where it is missing. Failures are kept for the report, and do not fail the part.
///
/// # Errors
/// [`Error::Plan`] for a part that the plan does not have; as [`sweep`], leakage included.
pub fn sweep_parts(
    base: &mut LazyModel,
    recipe: &Recipe,
    run: &Run,
    (stage, number): (PlanStage, Option<PartNumber>),
    reporter: &mut dyn Reporter,
) -> Result<Vec<FailedCell>, Error> {
    let plan = Plan::of(recipe, run.fisher_shards)?;
    let parts = plan.chosen(stage, number)?;
    if stage == PlanStage::Report {
        let results = sweep(base, recipe, run, reporter)?;
        caution(results.selection.as_ref());
        return Ok(results.failed);
    }
    crate::leakage::check(recipe, &run.data, &mut Silent)?;
    let results = Results::of(base, recipe, run)?;
    let failures = Failures::of(base, recipe, run)?;
    let mut sweep = Sweep::new(base, recipe, run, reporter, results, failures);
    let mut failed = Vec::new();
    if stage == PlanStage::Test && !parts.is_empty() {
        // A choice is one among all systems.
        for part in plan.parts(PlanStage::Evaluate) {
            failed.extend(sweep.part(part)?);
        }
    }
    for part in parts {
        failed.extend(sweep.part(part)?);
    }
    if stage == PlanStage::Test && recipe.selection.is_some() {
        caution(Selection::read(&run.out)?.as_ref());
    }
    Ok(failed)
}

/// A stage's caller shows no table, under which it stands.
fn caution(selection: Option<&Selection>) {
    if let Some(caution) = selection.and_then(Selection::caution) {
        tracing::warn!("{caution}");
    }
}

/// Numbers, from 1, of the parts that the run folder does not hold yet, by stage; stages that are done are left out.
///
/// Computes nothing. What depends on a part that is not done is not done either. With [`Run::retry_failed`] earlier failures
/// are forgotten.
///
/// # Errors
/// [`Error::Leakage`] as [`sweep`] has it; a model or data that cannot be read.
pub fn remaining(
    base: &mut LazyModel,
    recipe: &Recipe,
    run: &Run,
    plan: &Plan,
    reporter: &mut dyn Reporter,
) -> Result<BTreeMap<PlanStage, BTreeSet<usize>>, Error> {
    let results = Results {
        leakage: crate::leakage::check(recipe, &run.data, reporter)?,
        ..Results::of(base, recipe, run)?
    };
    let failures = Failures::of(base, recipe, run)?;
    let mut silent = Silent;
    let mut look = Sweep::looking(base, recipe, run, &mut silent, results, failures);
    let mut left = look.left(plan)?;
    if left.is_empty() && !look.is_reported()? {
        left.insert(PlanStage::Report, BTreeSet::from([1]));
    }
    Ok(left)
}

/// Every part with its stage and its place there.
fn numbered(plan: &Plan) -> impl Iterator<Item = (PlanStage, usize, &Part)> {
    crate::PLAN_STAGES.into_iter().flat_map(|stage| {
        plan.parts(stage)
            .iter()
            .enumerate()
            .map(move |(i, part)| (stage, i, part))
    })
}

/// A system to evaluate, and its adapter's folder.
type Prepared = (System, Option<PathBuf>);

/// A plan under way: what the parts share, and what they found.
struct Sweep<'a> {
    cells: Cells<'a>,
    failures: Failures,
    recipe: &'a Recipe,
    run: &'a Run,
    results: Results,
    /// Merges that were made or found, by name.
    merged: BTreeMap<String, (System, PathBuf)>,
}

impl<'a> Sweep<'a> {
    fn new(
        base: &'a mut LazyModel,
        recipe: &'a Recipe,
        run: &'a Run,
        reporter: &'a mut dyn Reporter,
        results: Results,
        failures: Failures,
    ) -> Self {
        Self {
            cells: Cells::new(base, recipe, run, reporter).keeping(failures.clone()),
            failures,
            recipe,
            run,
            results,
            merged: BTreeMap::new(),
        }
    }

    /// One that computes nothing.
    fn looking(
        base: &'a mut LazyModel,
        recipe: &'a Recipe,
        run: &'a Run,
        reporter: &'a mut dyn Reporter,
        results: Results,
        failures: Failures,
    ) -> Self {
        let mut look = Self::new(base, recipe, run, reporter, results, failures);
        look.cells = look.cells.looking();
        look
    }

    /// A look at every part: as [`remaining`], but the report is left where anything else is.
    fn left(&mut self, plan: &Plan) -> Result<BTreeMap<PlanStage, BTreeSet<usize>>, Error> {
        if self.run.retry_failed {
            self.failures.forget(&plan.names())?;
        }
        let mut left = BTreeMap::<PlanStage, BTreeSet<usize>>::new();
        for (stage, i, part) in numbered(plan) {
            // Whatever keeps it from being looked at will be said when it is computed.
            let done = match stage {
                PlanStage::Report => left.is_empty(),
                PlanStage::Test => left.range(..stage).next().is_none() && self.part(part).is_ok(),
                _ => self.part(part).is_ok(),
            };
            if !done {
                left.entry(stage).or_default().insert(i + 1);
            }
        }
        Ok(left)
    }

    /// After a look at every part, all of which are done: whether the run folder's results are theirs.
    fn is_reported(&mut self) -> Result<bool, Error> {
        self.results.failed = self.failed()?;
        if self.recipe.selection.is_some() {
            let Some(selection) = Selection::read(&self.run.out)?.filter(Selection::is_judged) else {
                return Ok(false);
            };
            let is_there = if selection.outdated {
                !self.run.choose_again
            } else {
                let systems = &self.results.systems;
                let test = judged(&mut self.cells, self.recipe, &selection, self.run, systems);
                test.is_ok_and(|test| test == selection.test)
            };
            if !is_there {
                return Ok(false);
            }
            self.results.selection = Some(selection);
        }
        Ok(Results::read(&self.run.out).is_ok_and(|there| there == self.results))
    }

    /// Runs one part; the merges that failed in it.
    fn part(&mut self, part: &Part) -> Result<Vec<FailedCell>, Error> {
        match part {
            Part::Train(name) => self.cells.train(name).map(|_| Vec::new()),
            Part::Fisher(measurement, Shard::WHOLE) | Part::Reduce(measurement) => {
                let outcome = self.cells.measure(measurement).map(drop);
                estimated(measurement.name(), outcome)
            }
            Part::Fisher(measurement, shard) => {
                let outcome = self.cells.measure_shard(measurement, *shard);
                estimated(measurement.name(), outcome)
            }
            Part::Merge(cells) => {
                let mut failed = Vec::new();
                for cell in cells {
                    failed.extend(self.merge(cell)?.err());
                }
                Ok(failed)
            }
            Part::Evaluate(group) => self.evaluate(group),
            Part::Test(group) => {
                if let Some(selection) = &self.recipe.selection {
                    let failed = self.names_of_failed()?;
                    let found = (self.results.systems.as_slice(), failed.as_slice());
                    selection::test(&mut self.cells, self.recipe, selection, self.run, (found, group))?;
                }
                Ok(Vec::new())
            }
            Part::Report => {
                if let Some(selection) = &self.recipe.selection {
                    let failed = self.names_of_failed()?;
                    let found = (self.results.systems.as_slice(), failed.as_slice());
                    self.results.selection = Some(select(&mut self.cells, self.recipe, selection, self.run, found)?);
                }
                self.write().map(|()| Vec::new())
            }
        }
    }

    /// Merges, unless that was done or failed before.
    fn merge(&mut self, cell: &MergeCell) -> Result<Result<(System, PathBuf), FailedCell>, Error> {
        let name = cell.name();
        if let Some(found) = self.merged.get(&name) {
            return Ok(Ok(found.clone()));
        }
        if let Some(failed) = self.failures.get(&name)? {
            return Ok(Err(failed));
        }
        match self.cells.merge(cell) {
            Ok(made) => {
                self.merged.insert(name, made.clone());
                Ok(Ok(made))
            }
            Err(error) => self.fail(name, error).map(Err),
        }
    }

    fn prepare(&mut self, candidate: &Candidate) -> Result<Result<Prepared, FailedCell>, Error> {
        Ok(match candidate {
            Candidate::Base => Ok((System::bare("base"), None)),
            Candidate::Adapter(name) => {
                let system = System {
                    seed: self.recipe.adapters[name].of_seed,
                    ..System::bare(name)
                };
                Ok((system, Some(self.cells.train(name)?)))
            }
            Candidate::Merge(cell) => self.merge(cell)?.map(|(system, folder)| (system, Some(folder))),
        })
    }

    /// Evaluates a group at once; where that fails by a fault of one of them, one by one, so that it is not the others'.
    fn evaluate(&mut self, group: &[Candidate]) -> Result<Vec<FailedCell>, Error> {
        let (mut prepared, mut failed) = (Vec::new(), Vec::new());
        for candidate in group {
            match self.prepare(candidate)? {
                Ok(system) => prepared.push(system),
                Err(cell) => failed.push(cell),
            }
        }
        let mut together = prepared.clone();
        match self.cells.evaluate(&mut together) {
            Ok(_) => self.keep(together),
            Err(error) if !error.is_own() => return Err(error),
            Err(_) => {
                for system in prepared {
                    let mut alone = [system];
                    match self.cells.evaluate(&mut alone) {
                        Ok(_) => self.keep(alone),
                        Err(error) if alone[0].0.strategy.is_some() => {
                            failed.push(self.fail(alone[0].0.name.clone(), error)?);
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(failed)
    }

    fn keep(&mut self, evaluated: impl IntoIterator<Item = Prepared>) {
        self.results
            .systems
            .extend(evaluated.into_iter().map(|(system, _)| system));
    }

    /// Keeps a merge's own failure; a look keeps none.
    fn fail(&mut self, name: String, error: Error) -> Result<FailedCell, Error> {
        if self.cells.looking || !error.is_own() {
            return Err(error);
        }
        self.failures.keep(&name, &error)
    }

    /// Every merge of the grid that failed, in its order.
    fn failed(&self) -> Result<Vec<FailedCell>, Error> {
        let grid = MergeCell::grid(self.recipe);
        let found = grid.iter().map(|cell| self.failures.get(&cell.name()));
        found.filter_map(Result::transpose).collect()
    }

    fn names_of_failed(&self) -> Result<Vec<String>, Error> {
        Ok(self.failed()?.into_iter().map(|cell| cell.name).collect())
    }

    fn write(&mut self) -> Result<(), Error> {
        self.results.failed = self.failed()?;
        self.results.write(&self.run.out)?;
        let selection = self.results.selection.as_ref().map(|selection| selection.markdown());
        let seeds = OverSeeds::markdown(&self.results);
        let table = [Some(Comparison::of(&self.results).markdown()), seeds, selection];
        let table = table.into_iter().flatten().collect::<Vec<_>>().join("\n");
        Ok(sst_artefact::write_atomic(&self.run.out.join("comparison.md"), |w| {
            std::io::Write::write_all(w, table.as_bytes())
        })?)
    }
}

/// An estimate that failed by itself fails the merges that need it, not the sweep.
fn estimated(name: String, outcome: Result<(), Error>) -> Result<Vec<FailedCell>, Error> {
    match outcome {
        Ok(()) => Ok(Vec::new()),
        Err(error) if error.is_own() => Ok(vec![FailedCell {
            name,
            error: error.to_string(),
        }]),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_already_does_not_make_a_part_look_quick() {
        let (group, took) = (Part::Evaluate(vec![Candidate::Base; 8]), Duration::from_secs(100));
        assert_eq!(as_if_whole(&group, 8, took), Some(took));
        assert_eq!(as_if_whole(&group, 2, took), Some(4 * took));
        assert_eq!(as_if_whole(&group, 0, took), None);
        assert_eq!(as_if_whole(&Part::Report, 0, took), Some(took));
    }
}
