//! TIES: trim small changes, elect a sign per entry, average what agrees.
//!
//! Yadav, Tam, Choshen, Raffel & Bansal 2023, "TIES-Merging: Resolving Interference When Merging Models", algorithm 1:
//!
//! 1. trim: x_t keeps its `density` largest magnitudes, the rest is 0;
//! 2. elect: gamma = sgn(sum_t w_t x_t);
//! 3. merge: M = lambda mean of the x_t whose sign is gamma.
//!
//! | convention | trims over | at the cut | election and mean |
//! | --- | --- | --- | --- |
//! | `paper` | all merged modules together | keeps all equal to it | after weights; weighted mean |
//! | `peft` | each tensor | keeps exactly k | before weights; weighted sum / count |
//! | `mergekit` | each tensor, at least one entry | keeps exactly k | after weights; weighted sum / sum of weights |
//!
//! Without an election (`majority_sign = "none"`) this is magnitude pruning: PEFT's `magnitude_prune`.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `density` | 0.2 | share of entries kept; the paper's k |
//! | `majority_sign` | total | `frequency` counts signs; `none` does not elect |
//! | `normalize` | true with an election | whether to divide |
//! | `rescale` | false | whether to restore each trimmed tensor's L1 norm (mergekit) |
//! | `lambda` | 1 | scale of the merge |
//! | `convention` | paper | whose definition |
//! | `space` | delta | `factors` works on A and B |
//! | `rank` | none | rank of the output |

use super::elementwise::{Consensus, Elementwise, Prune, Rescale, Rule, check_common};
use super::{Convention, EntrySpace, MajoritySign, MergeStrategy};
use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};

const NAME: &str = "ties";

/// Settings of [`Ties`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TiesConfig {
    /// Share of entries kept.
    pub density: f64,
    /// How the sign is elected.
    pub majority_sign: MajoritySign,
    /// Whether to divide; none: where there is an election.
    pub normalize: Option<bool>,
    /// Whether to restore each trimmed tensor's L1 norm.
    pub rescale: bool,
    /// Scale of the merge.
    pub lambda: f64,
    /// Whose definition.
    pub convention: Convention,
    /// What the entries are.
    pub space: EntrySpace,
    /// Rank of the output.
    pub rank: Option<usize>,
}

impl Default for TiesConfig {
    fn default() -> Self {
        Self {
            density: 0.2,
            majority_sign: MajoritySign::Total,
            normalize: None,
            rescale: false,
            lambda: 1.0,
            convention: Convention::default(),
            space: EntrySpace::default(),
            rank: None,
        }
    }
}

impl TiesConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a density outside (0, 1], a lambda that is not finite or a rank of 0.
    pub fn check(self) -> Result<Ties, Error> {
        check_common(NAME, self.density, self.lambda, self.rank)?;
        let density = self.density;
        let method = Elementwise {
            prune: Prune {
                rule: match self.convention {
                    Convention::Paper => Rule::TopOfAdapter { density },
                    Convention::Peft => Rule::Top { density, at_least: 0 },
                    Convention::Mergekit => Rule::Top { density, at_least: 1 },
                },
                rescale: if self.rescale { Rescale::L1 } else { Rescale::None },
            },
            consensus: Consensus {
                majority_sign: self.majority_sign,
                convention: self.convention,
                normalize: self.normalize.unwrap_or(self.majority_sign != MajoritySign::None),
            },
            lambda: self.lambda,
            space: self.space,
            rank: self.rank,
        };
        Ok(Ties { config: self, method })
    }
}

/// Trim, elect, merge.
#[derive(Debug, Clone, PartialEq)]
pub struct Ties {
    config: TiesConfig,
    method: Elementwise,
}

impl MergeStrategy for Ties {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::Ties(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        self.method.merge(inputs)
    }
}
