//! The steps of a recipe, each in a folder named by what went into it.
//!
//! Each takes what it needs from the steps before it, computing that too where it is missing: any of them can be asked for
//! alone. A look ([`Cells::looking`]) takes the same way and stops where something would have to be computed.

use crate::comparison::same_judge;
use crate::failures::{Failures, file_name};
use crate::merge_cell::basis_size;
use crate::request::Request;
use crate::results::{FisherFacts, System};
use crate::step::{self, EvaluateAllStep, FisherStep, MergeStep, SubspaceStep, TrainStep};
use crate::{Answerer, Error, EvaluatedSystem, LazyModel, Measurement, MergeCell, Recipe, Reporter, Run, Variant};
use sst_data::{DataFolder, Dataset, Split};
use sst_eval::{Evaluation, SuiteConfig};
use sst_fim::{Estimate, FisherConfig};
use sst_merge::{MergeRecipe, StatisticsPaths};
use sst_subspace::{Estimator, Shard, SubspaceConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The steps of a recipe, each in a folder named by what went into it.
pub(crate) struct Cells<'a> {
    base: &'a mut LazyModel,
    recipe: &'a Recipe,
    run: &'a Run,
    pub(crate) reporter: &'a mut dyn Reporter,
    /// Of estimates, where failures are kept.
    failures: Option<Failures>,
    pub(crate) looking: bool,
    /// Of trained adapters, by name.
    folders: BTreeMap<String, PathBuf>,
    /// Of estimates, with the samples used, by key.
    estimates: BTreeMap<String, (PathBuf, u64)>,
    /// The first evaluation and its judge.
    judge: Option<(PathBuf, String)>,
    /// Evaluations that were not there.
    pub(crate) evaluated: usize,
}

impl<'a> Cells<'a> {
    pub(crate) fn new(
        base: &'a mut LazyModel,
        recipe: &'a Recipe,
        run: &'a Run,
        reporter: &'a mut dyn Reporter,
    ) -> Self {
        Self {
            base,
            recipe,
            run,
            reporter,
            failures: None,
            looking: false,
            folders: BTreeMap::new(),
            estimates: BTreeMap::new(),
            judge: None,
            evaluated: 0,
        }
    }

    /// Keeps estimates that fail, and does not try those again that are kept.
    pub(crate) fn keeping(self, failures: Failures) -> Self {
        Self {
            failures: Some(failures),
            ..self
        }
    }

    /// Computes nothing: what is not there is [`Error::NotThere`].
    pub(crate) fn looking(self) -> Self {
        Self { looking: true, ..self }
    }

    /// Folder `<kind>/<name>-<key>` of the run.
    fn folder(&self, kind: &str, name: &str, request: &Request) -> PathBuf {
        self.run.out.join(kind).join(format!("{name}-{}", request.key()))
    }

    /// Goes on where the result is there or may be computed.
    fn enter(&self, request: &Request, folder: &Path) -> Result<(), Error> {
        if self.looking && !request.is_done(folder)? {
            return Err(Error::NotThere {
                path: folder.to_path_buf(),
            });
        }
        Ok(())
    }

    fn data(&self, dataset: Dataset) -> Result<PathBuf, Error> {
        Ok(DataFolder::open(&self.run.data)?.path(dataset, Split::Train)?)
    }

    /// Trains the adapter of that name: its folder.
    pub(crate) fn train(&mut self, name: &str) -> Result<PathBuf, Error> {
        if let Some(folder) = self.folders.get(name) {
            return Ok(folder.clone());
        }
        let adapter = &self.recipe.adapters[name];
        let mut step = TrainStep {
            name: name.to_owned(),
            dataset: adapter.dataset,
            data: self.data(adapter.dataset)?,
            config: adapter.train.clone(),
            out: PathBuf::new(),
        };
        let request = step::train_request(self.base, &step)?;
        step.out = self.folder("adapters", name, &request);
        self.enter(&request, &step.out)?;
        step::train(self.base, &step, self.reporter)?;
        self.folders.insert(name.to_owned(), step.out.clone());
        Ok(step.out)
    }

    fn trained(&mut self, names: &[String]) -> Result<Vec<PathBuf>, Error> {
        names.iter().map(|name| self.train(name)).collect()
    }

    /// One estimate, whole or from its shards: folder and samples used.
    pub(crate) fn measure(&mut self, measurement: &Measurement) -> Result<(PathBuf, u64), Error> {
        let key = measurement.key();
        if let Some(found) = self.estimates.get(&key) {
            return Ok(found.clone());
        }
        self.trained(&measurement.stack)?;
        let found = self.keeping_failure(measurement, |cells| {
            let (mut step, request) = cells.located(measurement)?;
            let (out, shards) = (step.estimates[0].out.clone(), cells.run.fisher_shards);
            cells.enter(&request, &out)?;
            if shards > 1 {
                for shard in Shard::all(shards) {
                    cells.shard(measurement, shard)?;
                }
                step::fisher_reduce(&request, &step, shards)?;
            } else if !request.is_done(&out)? {
                cells.add_other_counts(&mut step)?;
            }
            let metas = step::fisher(cells.base, &step, cells.reporter)?;
            Ok((out, metas[0].samples))
        })?;
        self.estimates.insert(key, found.clone());
        Ok(found)
    }

    /// One shard of an estimate; nothing where the estimate is there already.
    pub(crate) fn measure_shard(&mut self, measurement: &Measurement, shard: Shard) -> Result<(), Error> {
        self.trained(&measurement.stack)?;
        self.keeping_failure(measurement, |cells| cells.shard(measurement, shard))
    }

    fn shard(&mut self, measurement: &Measurement, shard: Shard) -> Result<(), Error> {
        let (step, request) = self.located(measurement)?;
        let shard = step::ShardStep::new(&request, &step, shard);
        if request.is_done(&step.estimates[0].out)? {
            return Ok(());
        }
        self.enter(&shard.request, &shard.out)?;
        match shard.run(self.base, &request, &step, self.reporter) {
            // Another process joined the shards and deleted this one while it was looked at.
            Err(_) if request.is_done(&step.estimates[0].out)? => Ok(()),
            outcome => outcome,
        }
    }

    /// An estimate's step and request, its folder set.
    fn located(&mut self, measurement: &Measurement) -> Result<(FisherStep, Request), Error> {
        let mut step = FisherStep {
            name: measurement.subject(),
            adapters: self.trained(&measurement.stack)?,
            parameters: None,
            dataset: measurement.dataset,
            data: self.data(measurement.dataset)?,
            answer: measurement.answers.map(|of| self.usual_answer(of)).transpose()?,
            estimates: Vec::new(),
        };
        let request = self.add_estimate(&mut step, measurement.config.clone())?;
        Ok((step, request))
    }

    /// Asks a step for one more estimate, in the folder of its request.
    fn add_estimate(&mut self, step: &mut FisherStep, config: FisherConfig) -> Result<Request, Error> {
        let mut estimate = Estimate {
            config,
            out: PathBuf::new(),
        };
        let request = step::fisher_request(self.base, step, &estimate)?;
        estimate.out = self.folder("fisher", &step.name, &request);
        step.estimates.push(estimate);
        Ok(request)
    }

    /// The most frequent answer of a data set's training examples; of several the first in the order of letters.
    fn usual_answer(&self, dataset: Dataset) -> Result<String, Error> {
        let path = self.data(dataset)?;
        let mut counts = BTreeMap::<String, usize>::new();
        for example in dataset.read(&path)? {
            *counts.entry(example.response).or_default() += 1;
        }
        let usual = counts.into_iter().rev().max_by_key(|(_, count)| *count);
        Ok(usual.map(|(answer, _)| answer).unwrap_or_default())
    }

    /// The recipe's other sample counts: prefixes of one order, so that one pass gives them all.
    fn add_other_counts(&mut self, step: &mut FisherStep) -> Result<(), Error> {
        let asked = step.estimates[0].config.clone();
        let mut counts: BTreeSet<Option<usize>> = self.recipe.fisher.samples.iter().copied().map(Some).collect();
        counts.remove(&asked.samples);
        for samples in counts {
            let config = FisherConfig {
                samples,
                ..asked.clone()
            };
            self.add_estimate(step, config)?;
        }
        Ok(())
    }

    /// `run`, unless it failed before; a failure of its own is kept.
    fn keeping_failure<T>(
        &mut self,
        measurement: &Measurement,
        run: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(failures) = self.failures.clone() else {
            return run(self);
        };
        let key = measurement.key();
        if let Some(failed) = failures.get(&key)? {
            return Err(Error::FailedBefore(failed.error));
        }
        run(self).or_else(|error| {
            if !self.looking && error.is_own() {
                failures.keep(&key, &error)?;
            }
            Err(error)
        })
    }

    /// Estimates of a merge: folders and what was measured; no facts where there is nothing to measure.
    fn measured(&mut self, measurements: &[Measurement]) -> Result<(Vec<PathBuf>, Option<FisherFacts>), Error> {
        let (mut folders, mut samples_used) = (Vec::new(), Vec::new());
        for measurement in measurements {
            let (folder, samples) = self.measure(measurement)?;
            folders.push(folder);
            samples_used.push(samples);
        }
        let facts = measurements.first().map(|Measurement { config, .. }| FisherFacts {
            estimator: config.estimator,
            protocol: config.protocol,
            samples: config.samples.unwrap_or_default(),
            samples_used,
            seed: config.seed,
        });
        Ok((folders, facts))
    }

    /// One merge of trained adapters, measured on the way but not evaluated, and its folder.
    pub(crate) fn merge(&mut self, cell: &MergeCell) -> Result<(System, PathBuf), Error> {
        let checked = cell.strategy.clone().check()?;
        let needs = cell.needs(self.recipe, checked.as_ref());
        let (variant, strategy) = (&cell.variant, &cell.strategy);
        let (utility, safety) = (self.trained(&variant.utility)?, self.train(&variant.safety)?);
        let (own, of_own) = self.measured(&needs.own)?;
        let subspace = needs.k.map(|k| self.subspace(variant, own.clone(), k)).transpose()?;
        let (mut factors, of_factors) = self.measured(&needs.factors)?;
        let statistics = factors.pop().map(|safety| StatisticsPaths {
            safety,
            utility: factors,
        });
        let mut step = MergeStep {
            recipe: MergeRecipe {
                subspace,
                statistics,
                diagonals: if needs.diagonals { own } else { Vec::new() },
                seed: self.recipe.seed_of(variant),
                ..MergeRecipe::new(utility, safety, strategy.clone())
            },
            command: self.run.command.clone(),
            out: PathBuf::new(),
        };
        let name = format!("{}-{}", checked.name(), variant.name);
        let request = step::merge_request(&step)?;
        step.out = self.folder("merges", &name, &request);
        self.enter(&request, &step.out)?;
        let diagnostics = step::merge(&step)?;
        let system = System {
            variant: Some(variant.name.clone()),
            seed: variant.seed,
            strategy: Some(strategy.clone()),
            fisher: of_factors.or(of_own),
            diagnostics: Some(diagnostics),
            ..System::bare(&cell.name())
        };
        Ok((system, step.out))
    }

    /// The safety subspace of estimates, the safety adapter's last: of at least k directions, of which merges take the first k. It
    /// is that of the grid's largest k, solved once for all.
    fn subspace(&mut self, variant: &Variant, mut utility: Vec<PathBuf>, k: usize) -> Result<PathBuf, Error> {
        let diagonal = matches!(self.recipe.fisher.estimator, Estimator::Diag | Estimator::DiagVariance);
        let mut step = SubspaceStep {
            safety: utility.pop().unwrap_or_default(),
            utility,
            config: SubspaceConfig {
                eps: diagonal.then_some(self.recipe.fisher.eps),
                ..SubspaceConfig::default()
            },
            out: PathBuf::new(),
        };
        let checked = self.recipe.merges.iter().filter_map(|merge| merge.clone().check().ok());
        let wanted = checked.filter_map(|strategy| basis_size(strategy.as_ref()));
        let mut sizes: BTreeSet<usize> = wanted.filter(|wanted| *wanted > k).collect();
        sizes.insert(k);
        while let Some(size) = sizes.pop_last() {
            step.config.k = size;
            let request = step::subspace_request(&step)?;
            step.out = self.folder("subspaces", &variant.name, &request);
            let solved = match self.enter(&request, &step.out) {
                Ok(()) => step::subspace(&step, self.reporter).map(drop),
                absent => absent,
            };
            match solved {
                // A k that is too large is that cell's fault alone.
                Err(Error::Subspace(sst_subspace::Error::Directions { .. }) | Error::NotThere { .. }) if size > k => {}
                other => {
                    other?;
                    break;
                }
            }
        }
        Ok(step.out)
    }

    /// Evaluates systems in the same batches, each the base model or with its adapter, and notes scores and folders.
    pub(crate) fn evaluate(&mut self, systems: &mut [(System, Option<PathBuf>)]) -> Result<Vec<Evaluation>, Error> {
        self.evaluate_with(&self.recipe.eval, systems)
    }

    /// The same with another suite than the recipe's.
    pub(crate) fn evaluate_with(
        &mut self,
        config: &SuiteConfig,
        systems: &mut [(System, Option<PathBuf>)],
    ) -> Result<Vec<Evaluation>, Error> {
        let mut asked: Vec<EvaluatedSystem> = systems
            .iter()
            .map(|(system, adapter)| EvaluatedSystem {
                name: system.name.clone(),
                adapter: adapter.clone(),
                out: PathBuf::new(),
            })
            .collect();
        let data = &self.run.data;
        let requests = step::evaluate_requests(&mut Answerer::Model(self.base), &asked, data, config)?;
        let mut missing = 0;
        for (system, request) in asked.iter_mut().zip(&requests) {
            system.out = self.folder("evaluations", &file_name(&system.name), request);
            self.enter(request, &system.out)?;
            missing += usize::from(!request.is_done(&system.out)?);
        }
        let folders: Vec<&Path> = asked.iter().map(|system| self.relative(&system.out)).collect();
        let key = sst_artefact::sha256_bytes(format!("{folders:?}").as_bytes());
        let journal = self
            .run
            .out
            .join("evaluations")
            .join(format!(".journal-{}", &key[..12]));
        let step = EvaluateAllStep {
            systems: asked,
            data: data.clone(),
            config: config.clone(),
            journal: journal.clone(),
            chunk: None,
            device: self.base.source().device,
        };
        let evaluations = step::evaluate_all(Answerer::Model(self.base), &step, self.reporter)?;
        self.evaluated += missing;
        match std::fs::remove_dir(&journal) {
            // There was none, or another process that waited for the same systems was faster.
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(sst_artefact::Error::io("remove", &journal)(e).into());
            }
            _ => {}
        }
        for (system, evaluation) in step.systems.iter().zip(&evaluations) {
            let now = (self.relative(&system.out).to_path_buf(), evaluation.judge.clone());
            let first = self.judge.get_or_insert_with(|| now.clone());
            same_judge((&first.0, &first.1), (&now.0, &now.1))?;
        }
        for (((system, adapter), asked), evaluation) in systems.iter_mut().zip(&step.systems).zip(&evaluations) {
            system.scores = evaluation.scores.clone();
            system.adapter = adapter.as_ref().map(|path| self.relative(path).to_path_buf());
            system.evaluation = self.relative(&asked.out).to_path_buf();
        }
        Ok(evaluations)
    }

    fn relative<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.run.out).unwrap_or(path)
    }
}
