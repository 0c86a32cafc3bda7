//! Everything a run found, with every setting behind it, in one JSON file.

use crate::{Error, FailedCell, Goals, LazyModel, Recipe, Run, Selection};
use serde::{Deserialize, Serialize};
use sst_artefact::Input;
use sst_data::SetLeakage;
use sst_eval::{BenchmarkScore, SuiteConfig};
use sst_fim::Protocol;
use sst_merge::{Diagnostics, StrategyConfig};
use sst_model::Precision;
use sst_subspace::Estimator;
use std::path::{Path, PathBuf};

/// Name of the file inside a run folder.
pub(crate) const RESULTS_FILE: &str = "aggregated_results.json";

/// The results of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Version of the tool.
    pub tool_version: String,
    /// The recipe, lists expanded and defaults filled in.
    pub recipe: serde_json::Value,
    /// The base model and its hash.
    pub model: Input,
    /// The folder of data sets.
    pub data: PathBuf,
    /// Precision of the base weights, where it was not the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Shards of every Fisher estimate, where there were several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fisher_shards: Option<usize>,
    /// What a merge should reach.
    pub goals: Goals,
    /// How everything was evaluated.
    pub suite: SuiteConfig,
    /// Sets of which items are trained on and evaluated on alike, or nearly.
    #[serde(default)]
    pub leakage: Vec<SetLeakage>,
    /// Base model, adapters and merges, in the order of the table.
    pub systems: Vec<System>,
    /// Merges that could not be made or evaluated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedCell>,
    /// What was chosen among the systems above, which were evaluated on development items, and how it did on test items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
}

/// One system that was evaluated, with every setting that made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct System {
    /// Its name in tables.
    pub name: String,
    /// The adapters merged, `A5+A7`; none for the base model and single adapters.
    pub variant: Option<String>,
    /// The seed that it is one of several for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The merge strategy and its settings.
    pub strategy: Option<StrategyConfig>,
    /// The Fisher statistics behind the subspace.
    pub fisher: Option<FisherFacts>,
    /// What the merge measured: retained energy, norms, random-subspace control.
    pub diagnostics: Option<Diagnostics>,
    /// Scores with intervals.
    pub scores: Vec<BenchmarkScore>,
    /// The adapter's folder, relative to the run folder.
    pub adapter: Option<PathBuf>,
    /// The evaluation's folder, relative to the run folder, with every answer.
    pub evaluation: PathBuf,
}

/// Settings of the Fisher statistics of a merge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FisherFacts {
    /// The estimator.
    pub estimator: Estimator,
    /// The loss behind the gradients.
    pub protocol: Protocol,
    /// Samples asked for.
    pub samples: usize,
    /// Samples used per adapter, in the order of the variant; fewer where the data has fewer.
    pub samples_used: Vec<u64>,
    /// Seed of the samples.
    pub seed: u64,
}

impl System {
    /// A system that is no merge.
    pub(crate) fn bare(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            variant: None,
            seed: None,
            strategy: None,
            fisher: None,
            diagnostics: None,
            scores: Vec::new(),
            adapter: None,
            evaluation: PathBuf::new(),
        }
    }
}

impl Results {
    /// Of a recipe that runs on this model, without any system yet.
    pub(crate) fn of(base: &mut LazyModel, recipe: &Recipe, run: &Run) -> Result<Self, Error> {
        let precision = base.source().precision;
        Ok(Self {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            recipe: serde_json::to_value(recipe).unwrap_or_default(),
            model: base.input()?,
            data: run.data.clone(),
            precision: Some(precision).filter(|precision| *precision != Precision::default()),
            fisher_shards: Some(run.fisher_shards).filter(|shards| *shards > 1),
            goals: recipe.goals,
            suite: recipe.eval.clone(),
            leakage: Vec::new(),
            systems: Vec::new(),
            failed: Vec::new(),
            selection: None,
        })
    }

    pub(crate) fn write(&self, run: &Path) -> Result<(), Error> {
        Ok(sst_artefact::write_json(&run.join(RESULTS_FILE), self)?)
    }

    /// Reads the results in a run folder.
    ///
    /// # Errors
    /// [`Error::Artefact`] when there are none, or they are malformed.
    pub fn read(run: &Path) -> Result<Self, Error> {
        Ok(sst_artefact::read_json(&run.join(RESULTS_FILE), "file of results")?)
    }
}
