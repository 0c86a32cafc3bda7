//! Isotropic merging: the sum of the changes with all its singular values made equal.
//!
//! Marczak et al. 2025, "No task left behind: isotropic model merging with common and task-specific subspaces".
//!
//! **Iso-C**. With sum_t w_t delta W_t = U S V^T,
//!
//! M = scale mean(S) U V^T.
//!
//! **Iso-CTS**. The first c singular vectors of the sum, U_c and V_c, span the common space; of
//! every (I - U_c U_c^T) w_t delta W_t the first n singular vectors are added, with n = round((R - floor(f R)) / T) and
//! c = R - n T. Both stacks are replaced by their polar factors, and all singular values by their mean:
//!
//! M = scale mean(S) polar([U_c U_1 ... U_T]) polar([V_c V_1 ... V_T])^T.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `common_fraction` | 0.8 | f, share of the common space; `iso-cts` only |
//! | `scale` | 1 | factor of the whole merge; the authors tune it on validation data |
//! | `rank` | none | cuts every module to this rank; R when absent |
//!
//! R is the rank of the sum. The authors' R is min(d_out, d_in), which their full-rank changes have; the sum of LoRAs has a
//! lower one, its other singular vectors are arbitrary, and their zeros would only scale the mean by R / min(d_out, d_in).
//! A spectrum is not flat unless all its values are equal, so one adapter does *not* come back as it was.

use super::matrix::{assemble, rank_above, times_f64};
use super::parts::{Part, by_module, parts, shape};
use super::singular::SingularVectors;
use super::{MergeStrategy, check_rank, check_share, check_weight};
use crate::{Error, MergeInputs, Merged};
use ndarray::{Array1, s};
use serde::{Deserialize, Serialize};
use sst_adapter::{LowRank, LowRankSvd};

const ISO_C: &str = "iso-c";
const ISO_CTS: &str = "iso-cts";

/// Settings of [`IsoC`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IsoCConfig {
    /// Factor of the whole merge.
    pub scale: f64,
    /// Rank of the result; that of the sum when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Default for IsoCConfig {
    fn default() -> Self {
        Self { scale: 1.0, rank: None }
    }
}

impl IsoCConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a scale that is NaN or infinite, or rank 0.
    pub fn check(self) -> Result<IsoC, Error> {
        check_weight(ISO_C, "scale", self.scale)?;
        check_rank(ISO_C, self.rank)?;
        Ok(IsoC { config: self })
    }
}

/// M = scale mean(S) U V^T.
#[derive(Debug, Clone, PartialEq)]
pub struct IsoC {
    config: IsoCConfig,
}

impl MergeStrategy for IsoC {
    fn name(&self) -> &'static str {
        ISO_C
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::IsoC(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let merged = by_module(inputs, |path| {
            let Some((svd, rank)) = sum(&parts(inputs, path))? else {
                return Ok(LowRank::zero(shape(inputs, path)));
            };
            let mean = svd.s.slice(s![..rank]).mean().unwrap_or(0.0);
            let flat = Array1::from_elem(rank, self.config.scale * mean);
            Ok(assemble(
                svd.u.slice(s![.., ..rank]),
                &flat,
                svd.vt.slice(s![..rank, ..]),
            ))
        })?;
        Merged::from_low_rank(inputs, merged, self.config.rank)
    }
}

/// Settings of [`IsoCts`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IsoCtsConfig {
    /// f: share of the common space, in [0, 1].
    pub common_fraction: f64,
    /// Factor of the whole merge.
    pub scale: f64,
    /// Rank of the result; that of the sum when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Default for IsoCtsConfig {
    fn default() -> Self {
        Self {
            common_fraction: 0.8,
            scale: 1.0,
            rank: None,
        }
    }
}

impl IsoCtsConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a fraction outside [0, 1], a scale that is NaN or infinite, or rank 0.
    pub fn check(self) -> Result<IsoCts, Error> {
        check_share(ISO_CTS, "common_fraction", self.common_fraction)?;
        check_weight(ISO_CTS, "scale", self.scale)?;
        check_rank(ISO_CTS, self.rank)?;
        Ok(IsoCts { config: self })
    }
}

/// M = scale mean(S) polar(U) polar(V)^T over common and task-specific vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct IsoCts {
    config: IsoCtsConfig,
}

impl MergeStrategy for IsoCts {
    fn name(&self) -> &'static str {
        ISO_CTS
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::IsoCts(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let merged = by_module(inputs, |path| {
            let parts = parts(inputs, path);
            match sum(&parts)? {
                Some((svd, rank)) => self.merge_module(&parts, &svd, rank),
                None => Ok(LowRank::zero(shape(inputs, path))),
            }
        })?;
        Merged::from_low_rank(inputs, merged, self.config.rank)
    }
}

impl IsoCts {
    fn merge_module(&self, parts: &[Part], sum: &LowRankSvd, rank: usize) -> Result<LowRank, Error> {
        let (common, per_task) = self.sizes(rank, parts.len());
        let mut vectors = SingularVectors::default();
        vectors.push(sum, common, 1.0);
        let u_c = sum.u.slice(s![.., ..common]); // [d_out, c]
        for Part { weight, change, .. } in parts {
            let b = change.b.mapv(f64::from);
            let b = &b - &times_f64(u_c, times_f64(u_c.t(), b.view()).view());
            let specific = LowRank {
                a: change.a.clone(),
                b: b.mapv(|x| x as f32),
            };
            let svd = specific.svd()?;
            // What is left of a change inside the common space is the rounding of that change.
            let available = rank_above(&svd.s, change.norm());
            vectors.push(&svd, per_task.min(available), *weight);
        }
        let values = vectors.values();
        let mean = values.mean().unwrap_or(0.0);
        vectors.assemble(&Array1::from_elem(values.len(), self.config.scale * mean))
    }

    /// c and n: the task-specific part is rounded to what T divides, half to even as the authors' Python rounds.
    fn sizes(&self, rank: usize, tasks: usize) -> (usize, usize) {
        let common = (rank as f64 * self.config.common_fraction) as usize;
        let per_task = ((rank - common) as f64 / tasks as f64).round_ties_even() as usize;
        (rank.saturating_sub(per_task * tasks), per_task)
    }
}

/// The decomposed sum of the weighted changes and its rank; none where that is 0.
fn sum(parts: &[Part]) -> Result<Option<(LowRankSvd, usize)>, Error> {
    if parts.is_empty() {
        return Ok(None);
    }
    let weighted: Vec<(f64, &LowRank)> = parts.iter().map(|part| (part.weight, &part.change)).collect();
    let stack = LowRank::stack(&weighted)?;
    let svd = stack.svd()?;
    // Changes that cancel leave the rounding of the parts, not of the sum.
    let size = weighted.iter().map(|(weight, part)| weight.abs() * part.norm()).sum();
    let rank = rank_above(&svd.s, size);
    Ok((rank > 0).then_some((svd, rank)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_and_specific_spaces_fill_the_rank() {
        let sizes = |common_fraction, rank, tasks| {
            let config = IsoCtsConfig {
                common_fraction,
                ..IsoCtsConfig::default()
            };
            config.check().unwrap().sizes(rank, tasks)
        };
        assert_eq!(sizes(0.8, 32, 2), (24, 4)); // 32 - 25 = 7, and 7 / 2 = 3.5 is rounded to 4
        assert_eq!(sizes(0.8, 48, 3), (39, 3));
        assert_eq!(sizes(1.0, 7, 3), (7, 0));
        assert_eq!(sizes(0.0, 6, 3), (0, 2));
        assert_eq!(sizes(0.0, 3, 2), (0, 2)); // 1.5 is rounded to 2: more vectors than the sum has
        assert_eq!(sizes(0.5, 0, 2), (0, 0));
    }

    #[test]
    fn bad_settings_are_named() {
        for common_fraction in [f64::NAN, -0.1, 1.1] {
            let config = IsoCtsConfig {
                common_fraction,
                ..IsoCtsConfig::default()
            };
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains("`common_fraction`"), "{message}");
        }
        let message = IsoCConfig {
            scale: f64::INFINITY,
            rank: None,
        }
        .check()
        .unwrap_err()
        .to_string();
        assert!(message.contains("`scale`"), "{message}");
    }
}
