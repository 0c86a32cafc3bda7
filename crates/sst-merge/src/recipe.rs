//! A merge as a TOML file says it: which adapters, which strategy, what else it needs, and where weights differ.
//!
//! ```toml
//! utility = ["runs/A5"]                # folders of adapters; several are one skill each
//! safety = "runs/A7"
//! seed = 0                             # of strategies that draw, and of the random-subspace control
//! dtype = "bf16"                       # f32, bf16 or f16; f32 where not given
//!
//! [method]
//! strategy = "sst"
//! gamma = 0.3
//!
//! [statistics]                         # folders of Kronecker factors, for strategies that weigh by them
//! utility = ["runs/fisher/repliqa", "runs/fisher/alpaca"]
//! safety = "runs/fisher/jailbreak"
//!
//! [[weights.module]]                   # see `ModuleWeights`
//! match = "o_proj$"
//! weights = [1.0, 0.5]
//! ```
//!
//! | key | for | holds |
//! | --- | --- | --- |
//! | `subspace` | `v1`, `v2` (not for `mode = "direct"`), `sst` | the folder of a safety subspace; `sst` takes one from Kronecker factors in place of them |
//! | `statistics` | `sst`, `regmean` | as above; `regmean` needs one per utility adapter |
//! | `diagonals` | `fisher` | folders of diagonal Fisher information, one per adapter, the safety adapter's last |
//! | `alignment` | `safelora`, `safemerge` with `method.alignment = "weights"` | folders of two models: `aligned`, and `base` from which it was made |
//!
//! What the strategy would not read is refused, for the manifest and the model card name every folder as an input.
//! Paths are taken from the folder in which the program runs.

use crate::{
    Error, MergeInputs, MergeStrategy, Merged, ModelDifference, ModuleWeights, ModuleWeightsConfig, Statistics,
    StrategyConfig,
};
use serde::{Deserialize, Serialize};
use sst_adapter::{Adapter, Dtype};
use sst_artefact::Input;
use sst_subspace::{DiagonalFisher, KroneckerBasis, KroneckerFisher, PhiBasis};
use std::path::{Path, PathBuf};

/// One merge, as a file or flags say it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeRecipe {
    /// Folders of the utility adapters.
    pub utility: Vec<PathBuf>,
    /// Folder of the safety adapter.
    pub safety: PathBuf,
    /// The strategy and its settings, not yet checked.
    pub method: StrategyConfig,
    /// Folder of the safety subspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subspace: Option<PathBuf>,
    /// Folders of Kronecker factors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<StatisticsPaths>,
    /// Folders of diagonal Fisher information, utility adapters first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagonals: Vec<PathBuf>,
    /// Folders of an aligned model and its base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignmentPaths>,
    /// Weights of the adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<ModuleWeightsConfig>,
    /// Seed of strategies that draw and of the random-subspace control.
    #[serde(default)]
    pub seed: u64,
    /// How the weights are stored.
    #[serde(default)]
    pub dtype: Dtype,
}

/// Folders of Kronecker factors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatisticsPaths {
    /// Over utility data; the mean of several counts.
    pub utility: Vec<PathBuf>,
    /// Over safety data.
    pub safety: PathBuf,
}

/// Folders of two models that differ by alignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignmentPaths {
    /// The aligned model.
    pub aligned: PathBuf,
    /// The model that it was made from.
    pub base: PathBuf,
}

/// All that a recipe names, read.
#[derive(Debug)]
pub struct LoadedRecipe {
    utilities: Vec<Adapter>,
    safety: Adapter,
    basis: Option<PhiBasis>,
    kronecker_basis: Option<KroneckerBasis>,
    alignment: Option<ModelDifference>,
    statistics: Option<(Vec<KroneckerFisher>, KroneckerFisher)>,
    diagonals: Vec<DiagonalFisher>,
    weights: Option<ModuleWeights>,
    seed: u64,
}

impl MergeRecipe {
    /// A recipe of what every merge needs; the rest is empty, the seed 0, the weights f32.
    pub fn new(utility: Vec<PathBuf>, safety: PathBuf, method: StrategyConfig) -> Self {
        Self {
            utility,
            safety,
            method,
            subspace: None,
            statistics: None,
            diagonals: Vec::new(),
            alignment: None,
            weights: None,
            seed: 0,
            dtype: Dtype::default(),
        }
    }

    /// Reads a recipe file.
    ///
    /// # Errors
    /// [`Error::Artefact`] for a file that cannot be read; [`Error::Recipe`] naming the file, and the line and key at fault.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fault = |reason: String| Error::Recipe {
            path: path.to_path_buf(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(sst_artefact::Error::io("read", path))?;
        let recipe: Self = toml::from_str(&text).map_err(|e| fault(e.to_string().replace('\n', " ")))?;
        recipe.check().map_err(|e| fault(e.to_string()))?;
        Ok(recipe)
    }

    /// The strategy, its settings checked.
    ///
    /// # Errors
    /// [`Error::NotRead`] for a folder named that the strategy does not read; those of [`StrategyConfig::check`].
    pub fn check(&self) -> Result<Box<dyn MergeStrategy>, Error> {
        let strategy = self.method.clone().check()?;
        let needs = strategy.needs();
        let takes_basis = needs.basis || strategy.name() == "sst";
        for (key, given, read) in [
            ("subspace", self.subspace.is_some(), takes_basis),
            ("statistics", self.statistics.is_some(), needs.statistics),
            ("diagonals", !self.diagonals.is_empty(), needs.diagonals),
            ("alignment", self.alignment.is_some(), needs.base),
        ] {
            if given && !read {
                return Err(Error::NotRead {
                    strategy: strategy.name(),
                    key,
                });
            }
        }
        Ok(strategy)
    }

    /// Every folder that the recipe names, by role, with its hash.
    ///
    /// # Errors
    /// [`Error::Artefact`] for a folder that cannot be read.
    pub fn inputs(&self) -> Result<Vec<(String, Input)>, Error> {
        let one = |role: &str, path: &Path| (role.to_owned(), path.to_path_buf());
        let many = |role: &str, paths: &[PathBuf]| {
            let numbered = paths.iter().enumerate();
            numbered
                .map(|(i, path)| (format!("{role}_{i}"), path.clone()))
                .collect::<Vec<_>>()
        };
        let mut named = many("utility", &self.utility);
        named.push(one("safety", &self.safety));
        named.extend(self.subspace.iter().map(|path| one("basis", path)));
        if let Some(statistics) = &self.statistics {
            named.extend(many("statistics_utility", &statistics.utility));
            named.push(one("statistics_safety", &statistics.safety));
        }
        named.extend(many("diagonal", &self.diagonals));
        if let Some(alignment) = &self.alignment {
            named.push(one("aligned", &alignment.aligned));
            named.push(one("base", &alignment.base));
        }
        let hashed = named.into_iter().map(|(role, path)| Ok((role, Input::hash(&path)?)));
        hashed.collect()
    }

    /// The strategy's settings with weights and seed, for manifests and model cards.
    pub fn settings(&self, strategy: &dyn MergeStrategy) -> serde_json::Value {
        let mut settings = strategy.config();
        settings["seed"] = self.seed.into();
        if let Some(weights) = &self.weights {
            settings["weights"] = serde_json::json!(weights);
        }
        settings
    }

    /// Reads every folder that is named.
    ///
    /// # Errors
    /// Those of [`MergeRecipe::check`]; [`Error::Adapter`], [`Error::Subspace`], [`Error::Bake`] naming the file; [`Error::Weights`].
    pub fn load(&self) -> Result<LoadedRecipe, Error> {
        let needs = self.check()?.needs();
        let kronecker = |path: &PathBuf| KroneckerFisher::load(path);
        let statistics = match &self.statistics {
            None => None,
            Some(paths) => {
                let utility = paths.utility.iter().map(kronecker).collect::<Result<_, _>>()?;
                Some((utility, kronecker(&paths.safety)?))
            }
        };
        let subspace = self.subspace.as_deref();
        let models = self.alignment.as_ref();
        Ok(LoadedRecipe {
            utilities: self
                .utility
                .iter()
                .map(|path| Adapter::load(path))
                .collect::<Result<_, _>>()?,
            safety: Adapter::load(&self.safety)?,
            basis: subspace.filter(|_| needs.basis).map(PhiBasis::load).transpose()?,
            kronecker_basis: subspace
                .filter(|_| !needs.basis)
                .map(KroneckerBasis::load)
                .transpose()?,
            alignment: models.map(|m| ModelDifference::open(&m.aligned, &m.base)).transpose()?,
            statistics,
            diagonals: self
                .diagonals
                .iter()
                .map(|path| DiagonalFisher::load(path))
                .collect::<Result<_, _>>()?,
            weights: self.weights.clone().map(ModuleWeightsConfig::check).transpose()?,
            seed: self.seed,
        })
    }
}

impl LoadedRecipe {
    /// Merges what was read, by a strategy.
    ///
    /// # Errors
    /// Those of [`MergeStrategy::merge`].
    pub fn merge(&self, strategy: &dyn MergeStrategy) -> Result<Merged, Error> {
        let mut inputs = MergeInputs::new(&self.utilities, &self.safety)
            .with_seed(self.seed)
            .with_control_seed(self.seed);
        if let Some(basis) = &self.basis {
            inputs = inputs.with_basis(basis);
        }
        if let Some(basis) = &self.kronecker_basis {
            inputs = inputs.with_kronecker_basis(basis);
        }
        if let Some(difference) = &self.alignment {
            inputs = inputs.with_alignment(difference);
        }
        if let Some(weights) = &self.weights {
            inputs = inputs.with_weights(weights);
        }
        if !self.diagonals.is_empty() {
            inputs = inputs.with_diagonals(&self.diagonals);
        }
        match &self.statistics {
            None => strategy.merge(&inputs),
            Some((utility, safety)) => {
                let statistics = Statistics {
                    utility: utility.iter().collect(),
                    safety,
                };
                strategy.merge(&inputs.with_statistics(&statistics))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "utility = ['A5']\nsafety = 'A7'\n[method]\nstrategy = 'ties'\ndensity = 0.4\n";

    fn read(text: &str) -> Result<MergeRecipe, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("merge.toml");
        std::fs::write(&path, text).unwrap();
        MergeRecipe::read(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_not_said_has_a_default_and_a_recipe_survives_toml() {
        let recipe = read(RECIPE).unwrap();
        assert_eq!((recipe.seed, recipe.dtype), (0, Dtype::F32));
        assert_eq!(recipe.method.clone().check().unwrap().name(), "ties");
        assert_eq!(read(&toml::to_string(&recipe).unwrap()).unwrap(), recipe);
    }

    #[test]
    fn slips_are_named_with_the_file() {
        for (from, to, part) in [
            ("safety = 'A7'\n", "", "safety"),
            ("utility", "utilities", "utilities"),
            ("'ties'", "'tie'", "tie"),
            ("density", "densities", "densities"),
            ("0.4", "1.4", "`density` = 1.4"),
        ] {
            let message = read(&RECIPE.replacen(from, to, 1)).unwrap_err();
            assert!(
                message.contains("merge.toml") && message.contains(part),
                "{to}: {message}"
            );
        }
    }

    #[test]
    fn what_a_strategy_would_not_read_is_refused_by_key() {
        for (strategy, given, key) in [
            (
                "strategy = 'safelora'",
                "[alignment]\naligned = 'X'\nbase = 'Y'\n",
                "alignment",
            ),
            (
                "strategy = 'ties'",
                "[statistics]\nutility = ['F']\nsafety = 'G'\n",
                "statistics",
            ),
            ("strategy = 'v1'", "diagonals = ['F', 'G']\n", "diagonals"),
            ("strategy = 'regmean'", "subspace = 'B'\n", "subspace"),
        ] {
            let text = format!("utility = ['A5']\nsafety = 'A7'\n{given}[method]\n{strategy}\n");
            let message = read(&text).unwrap_err();
            assert!(
                message.contains("merge.toml") && message.contains(&format!("`{key}`")),
                "{strategy}: {message}"
            );
        }
        for (strategy, keys) in [
            ("strategy = 'sst'", "subspace = 'B'\n"),
            (
                "strategy = 'safelora'\nalignment = 'weights'",
                "[alignment]\naligned = 'X'\nbase = 'Y'\n",
            ),
        ] {
            read(&format!(
                "utility = ['A5']\nsafety = 'A7'\n{keys}[method]\n{strategy}\n"
            ))
            .unwrap();
        }
    }

    #[test]
    fn the_recipe_of_the_documentation_is_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipes/merge-sst.toml");
        let recipe = MergeRecipe::read(&path).unwrap();
        let strategy = recipe.method.clone().check().unwrap();
        assert!(strategy.needs().statistics && recipe.statistics.is_some());
        assert_eq!(recipe.settings(strategy.as_ref())["gamma"], 0.3);
    }
}
