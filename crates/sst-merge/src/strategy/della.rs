//! DELLA: drop entries at random, the smaller the likelier, scale the rest up, elect and fuse.
//!
//! Deep, Bhardwaj & Poria 2024, "DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based
//! Sampling". MagPrune ranks the n entries of each row (the inputs of one output node) by magnitude and keeps them with
//! probabilities that grow evenly with the rank; a kept entry is divided by its probability. Then TIES's election and
//! fusion; M = lambda times that. The paper writes it by drop rates p_min + r epsilon / n with r = 0 for the largest
//! entry, p_min = p - epsilon / 2 and p = 1 - `density`.
//!
//! | convention | keep probabilities, smallest to largest entry | scale of what is kept |
//! | --- | --- | --- |
//! | `paper` | density - epsilon/2 + epsilon/n to density + epsilon/2 | 1 / its probability |
//! | `mergekit` | density - epsilon to density + epsilon | what restores the tensor's L1 norm |
//!
//! PEFT has no DELLA. Draws are keyed by (seed, adapter, tensor, entry).
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `density` | 0.5 | mean probability of keeping an entry; 1 keeps all |
//! | `epsilon` | 0.15 | width of the probabilities' window (mergekit: half of it) |
//! | `rescale` | true | whether to scale what is kept |
//! | `majority_sign` | total | `none`: mergekit's `della_linear` |
//! | `normalize` | true with an election | whether to divide by the agreeing weights |
//! | `lambda` | 1 | scale of the merge |
//! | `convention` | paper | whose definition |
//! | `space` | delta | `factors` works on A and B |
//! | `rank` | none | rank of the output |

use super::elementwise::{Consensus, Elementwise, Keep, Prune, Rescale, Rule, check_common};
use super::{Convention, EntrySpace, MajoritySign, MergeStrategy};
use crate::{Error, MergeInputs, Merged};
use serde::{Deserialize, Serialize};

const NAME: &str = "della";

/// Settings of [`Della`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DellaConfig {
    /// Mean probability of keeping an entry.
    pub density: f64,
    /// Width of the window of probabilities; for mergekit half of it.
    pub epsilon: f64,
    /// Whether to scale what is kept.
    pub rescale: bool,
    /// How the sign is elected.
    pub majority_sign: MajoritySign,
    /// Whether to divide; none: where there is an election.
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

impl Default for DellaConfig {
    fn default() -> Self {
        Self {
            density: 0.5,
            epsilon: 0.15,
            rescale: true,
            majority_sign: MajoritySign::Total,
            normalize: None,
            lambda: 1.0,
            convention: Convention::default(),
            space: EntrySpace::default(),
            rank: None,
        }
    }
}

impl DellaConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a density outside (0, 1], an epsilon that takes a probability out of (0, 1), a lambda
    /// that is not finite or a rank of 0; [`Error::NotDefined`] for PEFT's convention.
    pub fn check(self) -> Result<Della, Error> {
        check_common(NAME, self.density, self.lambda, self.rank)?;
        let (density, epsilon) = (self.density, self.epsilon);
        let (half, per_entry, mergekit) = match self.convention {
            Convention::Paper => (epsilon / 2.0, epsilon, false),
            Convention::Mergekit => (epsilon, 0.0, true),
            Convention::Peft => {
                return Err(Error::NotDefined {
                    strategy: NAME,
                    setting: "convention",
                    value: "peft",
                });
            }
        };
        let fits = density - half > 0.0 && density + half < 1.0;
        if !(epsilon.is_finite() && epsilon >= 0.0 && (fits || density == 1.0)) {
            return Err(Error::Setting {
                strategy: NAME,
                setting: "epsilon",
                value: epsilon,
                reason: "must not be negative and must leave all probabilities around `density` in (0, 1)",
            });
        }
        let method = Elementwise {
            prune: Prune {
                rule: Rule::MagPrune {
                    density,
                    lowest: Keep {
                        base: density - half,
                        per_entry,
                    },
                    highest: Keep {
                        base: density + half,
                        per_entry: 0.0,
                    },
                },
                rescale: match self.rescale {
                    true if mergekit => Rescale::L1,
                    true => Rescale::Probability,
                    false => Rescale::None,
                },
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
        Ok(Della { config: self, method })
    }
}

/// Drop by rank, elect, fuse.
#[derive(Debug, Clone, PartialEq)]
pub struct Della {
    config: DellaConfig,
    method: Elementwise,
}

impl MergeStrategy for Della {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::Della(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        self.method.merge(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_leave_the_unit_interval_are_refused() {
        let check = |density, epsilon, convention| {
            DellaConfig {
                density,
                epsilon,
                convention,
                ..DellaConfig::default()
            }
            .check()
        };
        use Convention::{Mergekit, Paper, Peft};
        for (density, epsilon, convention) in [
            (0.1, 0.1, Mergekit),
            (0.9, 0.3, Paper),
            (0.5, f64::NAN, Paper),
            (0.5, -0.1, Paper),
        ] {
            let message = check(density, epsilon, convention).unwrap_err().to_string();
            assert!(message.contains("della: `epsilon`"), "{message}");
        }
        assert!(check(0.1, 0.1, Paper).is_ok() && check(1.0, 0.15, Mergekit).is_ok());
        let message = check(0.5, 0.1, Peft).unwrap_err().to_string();
        assert_eq!(message, "strategy della: `convention` = \"peft\" is not defined");
    }
}
