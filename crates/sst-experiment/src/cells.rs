//! The steps of a recipe, each in a folder named by what went into it.

use crate::request::Request;
use crate::results::{FisherFacts, System};
use crate::step::{self, EvaluateAllStep, FisherStep, MergeStep, SubspaceStep, TrainStep};
use crate::{AdapterRecipe, Answerer, Error, EvaluatedSystem, LazyModel, Recipe, Reporter, Run, Variant};
use sst_data::{DataFolder, Dataset, Split};
use sst_eval::{Evaluation, SuiteConfig};
use sst_fim::{Estimate, FisherConfig};
use sst_merge::{MergeRecipe, StatisticsPaths, StrategyConfig};
use sst_subspace::{Estimator, SubspaceConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The steps of a recipe, each in a folder named by what went into it.
pub(crate) struct Cells<'a> {
    base: &'a mut LazyModel,
    recipe: &'a Recipe,
    run: &'a Run,
    reporter: &'a mut dyn Reporter,
    /// Of trained adapters, by name.
    pub(crate) folders: BTreeMap<String, PathBuf>,
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
            folders: BTreeMap::new(),
        }
    }

    /// Folder `<kind>/<name>-<key>` of the run.
    fn folder(&self, kind: &str, name: &str, request: &Request) -> PathBuf {
        self.run.out.join(kind).join(format!("{name}-{}", request.key()))
    }

    fn data(&self, adapter: &AdapterRecipe) -> Result<PathBuf, Error> {
        Ok(DataFolder::open(&self.run.data)?.path(adapter.dataset, Split::Train)?)
    }

    /// Trains the adapter of that name.
    pub(crate) fn train(&mut self, name: &str) -> Result<(), Error> {
        let adapter = &self.recipe.adapters[name];
        let data = self.data(adapter)?;
        let mut step = TrainStep {
            name: name.to_owned(),
            dataset: adapter.dataset,
            data,
            config: adapter.train.clone(),
            out: PathBuf::new(),
        };
        let request = step::train_request(self.base, &step)?;
        step.out = self.folder("adapters", name, &request);
        step::train(self.base, &step, self.reporter)?;
        self.folders.insert(name.to_owned(), step.out);
        Ok(())
    }

    /// Fisher statistics of one adapter's parameters: folder and samples used.
    fn fisher(&mut self, name: &str, samples: usize) -> Result<(PathBuf, u64), Error> {
        let recipe = &self.recipe.fisher;
        let config = FisherConfig {
            estimator: recipe.estimator,
            protocol: recipe.protocol,
            samples: Some(samples),
            max_tokens: recipe.max_tokens,
            seed: self.recipe.seed,
            ..FisherConfig::default()
        };
        self.measure(&[name], self.recipe.adapters[name].dataset, config)
    }

    /// Kronecker factors for a merge: folders and what was measured.
    fn statistics(
        &mut self,
        variant: &Variant,
        samples: usize,
        strategy: &str,
    ) -> Result<(StatisticsPaths, FisherFacts), Error> {
        let recipe = &self.recipe.statistics;
        let config = FisherConfig {
            estimator: Estimator::Kron,
            weighting: recipe.weighting,
            samples: Some(samples),
            max_tokens: recipe.max_tokens,
            seed: self.recipe.seed,
            ..FisherConfig::default()
        };
        let dataset = |name: &String| self.recipe.adapters[name].dataset;
        let stack: Vec<&str> = variant.utility.iter().map(String::as_str).collect();
        let measured: Vec<(Vec<&str>, Dataset)> = if strategy == "regmean" {
            let alone = |name| (vec![String::as_str(name)], dataset(name));
            variant.utility.iter().chain([&variant.safety]).map(alone).collect()
        } else {
            let of = recipe.utility.iter().copied().chain([dataset(&variant.safety)]);
            of.map(|dataset| (stack.clone(), dataset)).collect()
        };
        let mut folders = Vec::new();
        let mut used = Vec::new();
        for (stack, dataset) in measured {
            let (folder, n) = self.measure(&stack, dataset, config.clone())?;
            folders.push(folder);
            used.push(n);
        }
        let paths = StatisticsPaths {
            safety: folders.pop().unwrap_or_default(),
            utility: folders,
        };
        let facts = FisherFacts {
            estimator: config.estimator,
            protocol: config.protocol,
            samples,
            samples_used: used,
            seed: config.seed,
        };
        Ok((paths, facts))
    }

    /// Estimates on the base model with trained adapters, one per sample count of the recipe from one pass: folder and samples
    /// used of the one that is asked for.
    fn measure(&mut self, stack: &[&str], dataset: Dataset, config: FisherConfig) -> Result<(PathBuf, u64), Error> {
        let name = format!("{}-{dataset}", stack.join("+"));
        let mut step = FisherStep {
            name: name.clone(),
            adapters: stack.iter().map(|name| self.folders[*name].clone()).collect(),
            parameters: None,
            dataset,
            data: DataFolder::open(&self.run.data)?.path(dataset, Split::Train)?,
            estimates: Vec::new(),
        };
        let mut counts: BTreeSet<Option<usize>> = self.recipe.fisher.samples.iter().copied().map(Some).collect();
        counts.remove(&config.samples);
        for samples in std::iter::once(config.samples).chain(counts) {
            let mut estimate = Estimate {
                config: FisherConfig {
                    samples,
                    ..config.clone()
                },
                out: PathBuf::new(),
            };
            let request = step::fisher_request(self.base, &step, &estimate)?;
            estimate.out = self.folder("fisher", &name, &request);
            step.estimates.push(estimate);
        }
        let metas = step::fisher(self.base, &step, self.reporter)?;
        Ok((step.estimates.swap_remove(0).out, metas[0].samples))
    }

    /// One merge of trained adapters, measured on the way but not evaluated, and its folder.
    pub(crate) fn merge(
        &mut self,
        variant: &Variant,
        samples: usize,
        strategy: &StrategyConfig,
    ) -> Result<(System, PathBuf), Error> {
        let checked = strategy.clone().check()?;
        let label = cell_name(variant, samples, strategy);
        let (basis, mut fisher) = match basis_size(strategy) {
            Some(k) => {
                let (folder, facts) = self.subspace(variant, samples, k)?;
                (Some(folder), Some(facts))
            }
            None => (None, None),
        };
        let mut diagonals = Vec::new();
        if checked.needs().diagonals {
            let (folders, facts) = self.fishers(variant, samples)?;
            (diagonals, fisher) = (folders, Some(facts));
        }
        let mut statistics = None;
        if checked.needs().statistics {
            let (paths, facts) = self.statistics(variant, samples, checked.name())?;
            (statistics, fisher) = (Some(paths), Some(facts));
        }
        let mut step = MergeStep {
            recipe: MergeRecipe {
                subspace: basis,
                statistics,
                diagonals,
                seed: self.recipe.seed,
                ..MergeRecipe::new(
                    variant.utility.iter().map(|name| self.folders[name].clone()).collect(),
                    self.folders[&variant.safety].clone(),
                    strategy.clone(),
                )
            },
            command: self.run.command.clone(),
            out: PathBuf::new(),
        };
        let name = format!("{}-{}", checked.name(), variant.name);
        step.out = self.folder("merges", &name, &step::merge_request(&step)?);
        let diagnostics = step::merge(&step)?;
        let system = System {
            variant: Some(variant.name.clone()),
            strategy: Some(strategy.clone()),
            fisher,
            diagnostics: Some(diagnostics),
            ..System::bare(&label)
        };
        Ok((system, step.out))
    }

    /// Fisher statistics of every adapter of a variant, the safety adapter's last: folders and what was measured.
    fn fishers(&mut self, variant: &Variant, samples: usize) -> Result<(Vec<PathBuf>, FisherFacts), Error> {
        let mut folders = Vec::new();
        let mut used = Vec::new();
        for name in variant.utility.iter().chain([&variant.safety]) {
            let (folder, n) = self.fisher(name, samples)?;
            folders.push(folder);
            used.push(n);
        }
        let facts = FisherFacts {
            estimator: self.recipe.fisher.estimator,
            protocol: self.recipe.fisher.protocol,
            samples,
            samples_used: used,
            seed: self.recipe.seed,
        };
        Ok((folders, facts))
    }

    /// The basis of at least k directions, of which merges take the first k: that of the grid's largest k, solved once for all.
    fn subspace(&mut self, variant: &Variant, samples: usize, k: usize) -> Result<(PathBuf, FisherFacts), Error> {
        let (mut folders, facts) = self.fishers(variant, samples)?;
        let safety = folders.pop().unwrap_or_default();
        let diagonal = matches!(self.recipe.fisher.estimator, Estimator::Diag | Estimator::DiagVariance);
        let mut step = SubspaceStep {
            utility: folders,
            safety,
            config: SubspaceConfig {
                eps: diagonal.then_some(self.recipe.fisher.eps),
                ..SubspaceConfig::default()
            },
            out: PathBuf::new(),
        };
        let wanted = self
            .recipe
            .merges
            .iter()
            .filter_map(basis_size)
            .filter(|wanted| *wanted > k);
        let mut sizes: BTreeSet<usize> = wanted.collect();
        sizes.insert(k);
        while let Some(size) = sizes.pop_last() {
            step.config.k = size;
            step.out = self.folder("subspaces", &variant.name, &step::subspace_request(&step)?);
            match step::subspace(&step, self.reporter) {
                // A k that is too large is that cell's fault alone.
                Err(Error::Subspace(sst_subspace::Error::Directions { .. })) if size > k => {}
                other => {
                    other?;
                    break;
                }
            }
        }
        Ok((step.out, facts))
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
        for (system, request) in asked.iter_mut().zip(&requests) {
            system.out = self.folder("evaluations", &file_name(&system.name), request);
        }
        let folders: Vec<&Path> = asked.iter().map(|system| system.out.as_path()).collect();
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
        if journal.is_dir() {
            std::fs::remove_dir(&journal).map_err(sst_artefact::Error::io("remove", &journal))?;
        }
        for (((system, adapter), asked), evaluation) in systems.iter_mut().zip(&step.systems).zip(&evaluations) {
            system.scores = evaluation.scores.clone();
            system.adapter = adapter.as_ref().map(|path| self.relative(path));
            system.evaluation = self.relative(&asked.out);
        }
        Ok(evaluations)
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.run.out).unwrap_or(path).to_path_buf()
    }
}

/// The directions of a solved basis that a strategy asks for.
fn basis_size(strategy: &StrategyConfig) -> Option<usize> {
    let checked = strategy.clone().check().ok()?;
    let k = checked.config()["k"].as_u64().filter(|_| checked.needs().basis)?;
    Some(k as usize)
}

/// A system's name as part of a path.
fn file_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+.=-".contains(c);
    name.chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

/// What a merge is called in tables.
pub(crate) fn cell_name(variant: &Variant, samples: usize, strategy: &StrategyConfig) -> String {
    format!("{} {} n={samples}", label(strategy), variant.name)
}

/// A strategy in a few words: `V2 k=20 weight=1 residual r=0.7 prefix`.
fn label(strategy: &StrategyConfig) -> String {
    fn words(value: &serde_json::Value, name: &str, out: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (key, inner) in fields {
                    if inner.is_object() && name == "mode" {
                        out.push(key.clone());
                    }
                    words(inner, key, out);
                }
            }
            serde_json::Value::String(text) if name == "strategy" => out.push(text.to_uppercase()),
            serde_json::Value::String(text) => out.push(text.clone()),
            serde_json::Value::Number(n) => out.push(format!("{name}={}", n.as_f64().unwrap_or_default())),
            _ => {}
        }
    }
    let mut out = Vec::new();
    words(&serde_json::to_value(strategy).unwrap_or_default(), "", &mut out);
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_tell_strategies_apart() {
        let v2 =
            r#"{"strategy": "v2", "k": 30, "weight": 0.8, "mode": {"residual": {"r": 0.7}}, "projection": "prefix"}"#;
        let v2: StrategyConfig = serde_json::from_str(v2).unwrap();
        assert_eq!(label(&v2), "V2 k=30 weight=0.8 residual r=0.7 prefix");
        let v1: StrategyConfig = serde_json::from_str(r#"{"strategy": "v1"}"#).unwrap();
        assert_eq!(label(&v1), "V1 k=20 alpha=1 aligned");
    }
}
