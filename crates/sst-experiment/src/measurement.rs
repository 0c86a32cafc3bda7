//! One Fisher estimate of a recipe, named by what the recipe says: no path, no hash.

use crate::Recipe;
use serde::Serialize;
use sst_data::Dataset;
use sst_fim::FisherConfig;
use sst_subspace::Estimator;

/// One estimate on the base model with trained adapters.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Names of the adapters on the base model, in order.
    pub stack: Vec<String>,
    /// The data it is taken on.
    pub dataset: Dataset,
    /// The data set whose usual answer stands in place of every example's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<Dataset>,
    /// Estimator, protocol, samples.
    pub config: FisherConfig,
}

impl Measurement {
    /// Fisher information of one adapter's parameters, on the data that it was trained on.
    pub(crate) fn own(recipe: &Recipe, adapter: &str, samples: usize, seed: u64) -> Self {
        let fisher = &recipe.fisher;
        Self {
            stack: vec![adapter.to_owned()],
            dataset: recipe.adapters[adapter].dataset,
            answers: None,
            config: FisherConfig {
                estimator: fisher.estimator,
                protocol: fisher.protocol,
                samples: Some(samples),
                max_tokens: fisher.max_tokens,
                seed,
                ..FisherConfig::default()
            },
        }
    }

    /// Kronecker factors of the layers under a stack of adapters.
    pub(crate) fn factors(recipe: &Recipe, stack: &[String], dataset: Dataset, samples: usize, seed: u64) -> Self {
        Self {
            stack: stack.to_vec(),
            dataset,
            answers: None,
            config: FisherConfig {
                estimator: Estimator::Kron,
                weighting: recipe.statistics.weighting,
                samples: Some(samples),
                max_tokens: recipe.statistics.max_tokens,
                seed,
                ..FisherConfig::default()
            },
        }
    }

    /// Stack and data, the beginning of its folder's name.
    pub(crate) fn subject(&self) -> String {
        let answered = if self.answers.is_some() { "-refused" } else { "" };
        format!("{}-{}{answered}", self.stack.join("+"), self.dataset)
    }

    /// What it is called in plans and messages.
    pub fn name(&self) -> String {
        let samples = self.config.samples.unwrap_or_default();
        let FisherConfig { estimator, seed, .. } = &self.config;
        format!("{} {estimator} n={samples} seed={seed}", self.subject())
    }

    /// What it is kept under: estimates of one name may differ in weighting, protocol or longest sample.
    pub(crate) fn key(&self) -> String {
        let hash = sst_artefact::sha256_bytes(serde_json::json!(self).to_string().as_bytes());
        format!("{} {}", self.name(), &hash[..12])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_of_one_name_are_kept_apart() {
        let recipe = r#"
            variants = ["A5+A7"]
            merge = [{ strategy = "regmean" }]
            fisher = { estimator = "kron", protocol = "legacy-prompt" }
            [adapters.A5]
            role = "utility"
            dataset = "repliqa"
            [adapters.A7]
            role = "safety"
            dataset = "jailbreak"
        "#;
        let recipe = Recipe::parse(recipe).unwrap();
        let own = Measurement::own(&recipe, "A5", 100, 0);
        let factors = Measurement::factors(&recipe, &own.stack, own.dataset, 100, 0);
        assert_eq!(own.name(), factors.name());
        assert_ne!(own.key(), factors.key());
        assert_eq!(own.key(), own.clone().key());
    }
}
