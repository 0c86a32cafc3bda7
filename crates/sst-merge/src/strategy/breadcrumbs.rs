//! Model Breadcrumbs: drop the outliers and the small changes of every layer, then add.
//!
//! Davari & Belilovsky 2024, "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks": in every tensor
//! the mask is 0 below the beta-th and above the gamma-th percentile of magnitudes, and M = alpha sum_t m_t x_t. Here
//! as mergekit spells it: `gamma` is the share dropped at the top and `density` the share kept, so that the paper's
//! percentiles are gamma_paper = 1 - `gamma` and beta_paper = 1 - `gamma` - `density`; where both together exceed 1,
//! `gamma` yields. `lambda` is the paper's alpha.
//!
//! The paper adds; an election after the mask is mergekit's `breadcrumbs_ties`.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `density` | 0.15 | share of entries kept |
//! | `gamma` | 0.006 | share of entries dropped at the top |
//! | `majority_sign` | none | `total` or `frequency`: mergekit's `breadcrumbs_ties` |
//! | `normalize` | false | whether to divide by the sum of the (agreeing) weights |
//! | `rescale` | false | whether to restore each tensor's L1 norm (mergekit) |
//! | `lambda` | 1 | scale of the merge; the paper tunes it |
//! | `space` | delta | `factors` works on A and B |
//! | `rank` | none | rank of the output |

use super::elementwise::{Consensus, Elementwise, Prune, Rescale, Rule, check_common};
use super::{Convention, EntrySpace, MajoritySign, MergeStrategy};
use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};

const NAME: &str = "breadcrumbs";

/// Settings of [`Breadcrumbs`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreadcrumbsConfig {
    /// Share of entries kept.
    pub density: f64,
    /// Share of entries dropped at the top.
    pub gamma: f64,
    /// How the sign is elected; none: Breadcrumbs proper.
    pub majority_sign: MajoritySign,
    /// Whether to divide by the sum of weights.
    pub normalize: bool,
    /// Whether to restore each masked tensor's L1 norm.
    pub rescale: bool,
    /// Scale of the merge.
    pub lambda: f64,
    /// What the entries are.
    pub space: EntrySpace,
    /// Rank of the output.
    pub rank: Option<usize>,
}

impl Default for BreadcrumbsConfig {
    fn default() -> Self {
        Self {
            density: 0.15,
            gamma: 0.006,
            majority_sign: MajoritySign::None,
            normalize: false,
            rescale: false,
            lambda: 1.0,
            space: EntrySpace::default(),
            rank: None,
        }
    }
}

impl BreadcrumbsConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a density outside (0, 1], a gamma outside [0, 1), a lambda that is not finite or a rank
    /// of 0.
    pub fn check(self) -> Result<Breadcrumbs, Error> {
        check_common(NAME, self.density, self.lambda, self.rank)?;
        if !(0.0..1.0).contains(&self.gamma) {
            return Err(Error::Setting {
                strategy: NAME,
                setting: "gamma",
                value: self.gamma,
                reason: "must lie in [0, 1)",
            });
        }
        let method = Elementwise {
            prune: Prune {
                rule: Rule::Band {
                    density: self.density,
                    gamma: self.gamma,
                },
                rescale: if self.rescale { Rescale::L1 } else { Rescale::None },
            },
            consensus: Consensus {
                majority_sign: self.majority_sign,
                convention: Convention::Mergekit,
                normalize: self.normalize,
            },
            lambda: self.lambda,
            space: self.space,
            rank: self.rank,
        };
        Ok(Breadcrumbs { config: self, method })
    }
}

/// Mask both tails, add.
#[derive(Debug, Clone, PartialEq)]
pub struct Breadcrumbs {
    config: BreadcrumbsConfig,
    method: Elementwise,
}

impl MergeStrategy for Breadcrumbs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::Breadcrumbs(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        self.method.merge(inputs)
    }
}
