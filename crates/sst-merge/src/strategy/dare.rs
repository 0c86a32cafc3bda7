//! DARE: drop entries at random, scale the rest up, then add; DARE-TIES: then elect and fuse as TIES does.
//!
//! Yu, Yu, Yu, Huang & Li 2024, "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free
//! Lunch", equation 1, with drop rate p = 1 - `density`: m ~ Bernoulli(p), x_t' = (1 - m) x_t / (1 - p), so that
//! E[x_t'] = x_t; M = lambda sum_t w_t x_t' (`majority_sign = "none"`, DARE) or TIES's election and fusion (DARE-TIES).
//!
//! | convention | scale of what is kept | DARE-TIES elects | and divides by |
//! | --- | --- | --- | --- |
//! | `paper` | 1 / density | after weights | sum of agreeing \|weights\| |
//! | `peft` | 1 / density | before weights | count of agreeing |
//! | `mergekit` | what restores the tensor's L1 norm | after weights | 1 (`normalize`: sum of agreeing weights) |
//!
//! Draws are keyed by (seed, adapter, tensor, entry): threads and order change nothing.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `density` | 0.5 | probability of keeping an entry |
//! | `rescale` | true | whether to scale what is kept |
//! | `majority_sign` | none; for `dare-ties` total | how signs are elected |
//! | `normalize` | true with an election, but for mergekit | whether to divide |
//! | `lambda` | 1 | scale of the merge |
//! | `convention` | paper | whose definition |
//! | `space` | delta | `factors` works on A and B |
//! | `rank` | none | rank of the output |

use super::elementwise::{Consensus, Elementwise, Prune, Rescale, Rule, check_common};
use super::{Convention, EntrySpace, MajoritySign, MergeStrategy, StrategyConfig};
use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};

const NAME: &str = "dare";
const TIES_NAME: &str = "dare-ties";

/// Settings of [`Dare`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DareConfig {
    /// Probability of keeping an entry.
    pub density: f64,
    /// Whether to scale what is kept.
    pub rescale: bool,
    /// How the sign is elected; absent: not at all for DARE, by the total for DARE-TIES.
    pub majority_sign: Option<MajoritySign>,
    /// Whether to divide; none: what the convention does.
    pub normalize: Option<bool>,
    /// Scale of the merge.
    pub lambda: f64,
    /// Whose definition.
    pub convention: Convention,
    /// What the entries are.
    pub space: EntrySpace,
    /// Rank of the output.
    pub rank: Option<usize>,
}

impl Default for DareConfig {
    fn default() -> Self {
        Self {
            density: 0.5,
            rescale: true,
            majority_sign: None,
            normalize: None,
            lambda: 1.0,
            convention: Convention::default(),
            space: EntrySpace::default(),
            rank: None,
        }
    }
}

impl DareConfig {
    /// Checks the settings, for DARE.
    ///
    /// # Errors
    /// [`Error::Setting`] for a density outside (0, 1], a lambda that is not finite or a rank of 0.
    pub fn check(self) -> Result<Dare, Error> {
        self.check_as(NAME, MajoritySign::None)
    }

    /// Checks the settings, for DARE-TIES.
    ///
    /// # Errors
    /// As [`DareConfig::check`].
    pub fn check_ties(self) -> Result<Dare, Error> {
        self.check_as(TIES_NAME, MajoritySign::Total)
    }

    fn check_as(self, name: &'static str, majority_sign: MajoritySign) -> Result<Dare, Error> {
        check_common(name, self.density, self.lambda, self.rank)?;
        let majority_sign = self.majority_sign.unwrap_or(majority_sign);
        let mergekit = self.convention == Convention::Mergekit;
        let elects = majority_sign != MajoritySign::None;
        let method = Elementwise {
            prune: Prune {
                rule: Rule::Random { density: self.density },
                rescale: match self.rescale {
                    true if mergekit => Rescale::L1,
                    true => Rescale::Probability,
                    false => Rescale::None,
                },
            },
            consensus: Consensus {
                majority_sign,
                convention: self.convention,
                normalize: self.normalize.unwrap_or(elects && !mergekit),
            },
            lambda: self.lambda,
            space: self.space,
            rank: self.rank,
        };
        let config = match name {
            NAME => StrategyConfig::Dare(self),
            _ => StrategyConfig::DareTies(self),
        };
        Ok(Dare { name, config, method })
    }
}

/// Drop and rescale.
#[derive(Debug, Clone, PartialEq)]
pub struct Dare {
    name: &'static str,
    config: StrategyConfig,
    method: Elementwise,
}

impl MergeStrategy for Dare {
    fn name(&self) -> &'static str {
        self.name
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(self.config)
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        self.method.merge(inputs)
    }
}
