//! Settings of a Fisher estimate.

use crate::{Error, Protocol};
use serde::{Deserialize, Serialize};
use sst_adapter::Dtype;
use sst_subspace::{Estimator, FisherMeta, Labels, TokenWeighting};

/// Settings of a Fisher estimate.
///
/// | field | meaning | default |
/// | --- | --- | --- |
/// | `estimator` | `diag-variance`, `diag`, `kron` or `samples` | `diag-variance` |
/// | `protocol` | `response` or `legacy-prompt` | `response` |
/// | `labels` | `given` (empirical Fisher) or `sampled` from the model with a seed (true Fisher) | `given` |
/// | `weighting` | tokens that `kron` counts: `all`, `completion`, `completion-and-last-prompt`, `gradient-norm` | `all` |
/// | `gradient_dtype` | number type of the gradients that `samples` keeps: `f32` or `bf16` | `f32` |
/// | `targets` | linears that `kron` measures, by the last part of their path; none: those that the adapters change | none |
/// | `samples` | examples used, the first of one seeded order; all where not given | all |
/// | `max_tokens` | longer examples are left out and counted, as are those beyond the model's context | 1024 |
/// | `seed` | order of the examples | 0 |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the table above documents the fields together
pub struct FisherConfig {
    pub estimator: Estimator,
    pub protocol: Protocol,
    pub labels: Labels,
    pub weighting: TokenWeighting,
    pub gradient_dtype: Dtype,
    pub targets: Vec<String>,
    pub samples: Option<usize>,
    pub max_tokens: usize,
    pub seed: u64,
}

impl Default for FisherConfig {
    fn default() -> Self {
        Self {
            estimator: Estimator::DiagVariance,
            protocol: Protocol::Response,
            labels: Labels::Given,
            weighting: TokenWeighting::All,
            gradient_dtype: Dtype::F32,
            targets: Vec::new(),
            samples: None,
            max_tokens: 1024,
            seed: 0,
        }
    }
}

impl FisherConfig {
    /// The estimate's own configuration, with no samples yet.
    pub(crate) fn meta(&self, stack: &[&str], parameters: Option<&str>) -> FisherMeta {
        let kron = self.estimator == Estimator::Kron;
        FisherMeta {
            labels: self.labels,
            stack: stack.iter().map(|name| (*name).to_owned()).collect(),
            parameters: parameters.filter(|_| !kron).map(str::to_owned),
            weighting: kron.then_some(self.weighting),
            ..FisherMeta::new(self.estimator, self.protocol.name(), self.seed)
        }
    }

    /// Checks that estimates with these settings can share one pass over the samples; their number may differ.
    pub(crate) fn check_shared(&self, other: &Self) -> Result<(), Error> {
        let pairs = [
            ("protocol", self.protocol == other.protocol),
            ("labels", self.labels == other.labels),
            ("max_tokens", self.max_tokens == other.max_tokens),
            ("seed", self.seed == other.seed),
        ];
        match pairs.into_iter().find(|(_, same)| !same) {
            Some((setting, _)) => Err(Error::NotShared { setting }),
            None => Ok(()),
        }
    }
}
