//! Run a recipe: every step once, in a folder named by what went into it.

use crate::cells::{Cells, cell_name};
use crate::results::{FailedCell, Results, System};
use crate::selection::select;
use crate::{Comparison, Error, LazyModel, Recipe, Reporter};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Systems evaluated in the same batches: enough that products over the base weights are wide, few enough that a table
/// comes now and then.
pub(crate) const SYSTEMS_AT_ONCE: usize = 8;

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
    /// Whether a changed grid chooses again although test scores of an earlier choice are known.
    pub choose_again: bool,
}

/// Trains, measures, merges and evaluates all that the recipe asks for; what the run folder already holds is reused.
///
/// A merge that fails is kept with its error among [`Results::failed`], and the sweep goes on. `aggregated_results.json` and
/// `comparison.md` are written as evaluations end, so that an interrupted run shows what it has. Where the recipe has a
/// selection, all of that happens on development items, and `selection.json` holds the choice and its test scores. Several processes may run
/// one recipe in one folder: each part is computed by one of them.
///
/// # Errors
/// [`Error::Leakage`] when items are trained on and evaluated on alike and the recipe does not allow it; whatever keeps an
/// adapter from being trained, or the base model or an adapter from being evaluated. What was finished before it stays.
pub fn sweep(base: &mut LazyModel, recipe: &Recipe, run: &Run, reporter: &mut dyn Reporter) -> Result<Results, Error> {
    let leakage = crate::leakage::check(recipe, &run.data, reporter)?;
    let results = Results {
        leakage,
        ..Results::new(recipe, base.input()?, &run.data)
    };
    let failed_before = match Results::read(&run.out) {
        Ok(before) if before.recipe == results.recipe && !run.retry_failed => before.failed,
        _ => Vec::new(),
    };
    let sweep = Sweep {
        failed_before: failed_before.into_iter().map(|cell| (cell.name, cell.error)).collect(),
        cells: Cells::new(base, recipe, run, reporter),
        results,
        recipe,
        run,
    };
    sweep.all()
}

/// A system to evaluate, and its adapter's folder.
type Candidate = (System, Option<PathBuf>);

struct Sweep<'a> {
    cells: Cells<'a>,
    results: Results,
    recipe: &'a Recipe,
    run: &'a Run,
    failed_before: BTreeMap<String, String>,
}

impl Sweep<'_> {
    fn all(mut self) -> Result<Results, Error> {
        let names: Vec<&String> = self.recipe.adapters.keys().collect();
        let mut systems = vec![(System::bare("base"), None)];
        for name in names {
            self.cells.train(name)?;
            systems.push((System::bare(name), Some(self.cells.folders[name].clone())));
        }
        systems.extend(self.merges());
        for group in systems.chunks(SYSTEMS_AT_ONCE) {
            self.evaluate(group)?;
        }
        if let Some(selection) = &self.recipe.selection {
            let systems = &self.results.systems;
            self.results.selection = Some(select(&mut self.cells, self.recipe, selection, self.run, systems)?);
        }
        self.write()?;
        Ok(self.results)
    }

    /// Every merge of the grid that succeeds.
    fn merges(&mut self) -> Vec<Candidate> {
        let mut merged = Vec::new();
        for variant in &self.recipe.variants {
            for &samples in &self.recipe.fisher.samples {
                for strategy in &self.recipe.merges {
                    let name = cell_name(variant, samples, strategy);
                    if let Some(error) = self.failed_before.remove(&name) {
                        self.results.failed.push(FailedCell { name, error });
                        continue;
                    }
                    match self.cells.merge(variant, samples, strategy) {
                        Ok((system, folder)) => merged.push((system, Some(folder))),
                        Err(error) => self.fail(name, &error),
                    }
                }
            }
        }
        merged
    }

    /// Evaluates a group at once; where that fails, one by one, so that one system's fault is not the others'.
    fn evaluate(&mut self, group: &[Candidate]) -> Result<(), Error> {
        let mut together = group.to_vec();
        if self.cells.evaluate(&mut together).is_ok() {
            self.results
                .systems
                .extend(together.into_iter().map(|(system, _)| system));
            return self.write();
        }
        for (system, folder) in group {
            let mut alone = [(system.clone(), folder.clone())];
            match self.cells.evaluate(&mut alone) {
                Ok(_) => self.results.systems.extend(alone.map(|(system, _)| system)),
                Err(error) if system.strategy.is_some() => self.fail(system.name.clone(), &error),
                Err(error) => return Err(error),
            }
        }
        self.write()
    }

    fn fail(&mut self, name: String, error: &Error) {
        let error = error.to_string();
        tracing::warn!(cell = name, error, "a cell failed");
        self.results.failed.push(FailedCell { name, error });
    }

    fn write(&self) -> Result<(), Error> {
        self.results.write(&self.run.out)?;
        let selection = self.results.selection.as_ref().map(|selection| selection.markdown());
        let table = [Some(Comparison::of(&self.results).markdown()), selection];
        let table = table.into_iter().flatten().collect::<Vec<_>>().join("\n");
        Ok(sst_artefact::write_atomic(&self.run.out.join("comparison.md"), |w| {
            std::io::Write::write_all(w, table.as_bytes())
        })?)
    }
}
