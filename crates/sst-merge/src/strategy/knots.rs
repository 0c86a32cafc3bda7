//! KnOTS: the adapters merged entry by entry in a basis of outputs that they share.
//!
//! The changes side by side, [delta W_1 ... delta W_T] = U S [V_1^T ... V_T^T], have the left singular vectors U in common;
//! S V_t^T, `[R, d_in]`, is what adapter t writes into them (Stoica et al. 2024, "Model merging with SVD to tie the KnOTS").
//! These aligned changes are merged by any method on entries, and U takes the result back:
//!
//! M = scale U merge_t(S V_t^T).
//!
//! `ties` (Yadav et al. 2023, "TIES-merging", algorithm 1) keeps the share `density` of largest entries of each aligned
//! adapter, counted over all modules; elects per entry the sign of their sum; and takes the weighted sum, or that divided
//! by their number, of the entries with that sign. Where the sum is 0 no sign is elected: the signs of singular vectors are
//! arbitrary, and this is the one rule that does not depend on them. `linear` keeps every entry; summed, it is task
//! arithmetic, as U S V_t^T = delta W_t.
//!
//! The paper writes (U S) merge(V_t^T); the authors' configurations put S to the right, as here. That changes which entries
//! a density below 1 keeps, and nothing else.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `merge` | ties | `ties` or `linear` |
//! | `combine` | mean | `mean` over the entries that are kept and not 0, or `sum` |
//! | `density` | 1 | share of entries kept, in (0, 1]; `ties` only |
//! | `scale` | 1 | factor of the whole merge |
//! | `rank` | none | cuts every module to this rank; R, at most the sum of the ranks, when absent |

use super::matrix::numerical_rank;
use super::parts::{Part, by_module, parts, shape};
use super::{MergeStrategy, check_rank, check_share, check_weight};
use crate::{Error, MergeInputs, Merged};
use ndarray::{Array2, ArrayView1, Axis, concatenate, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sst_adapter::{LowRank, ModulePath};
use std::collections::BTreeMap;

const NAME: &str = "knots";

/// How aligned entries are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KnotsMerge {
    /// The large ones with the elected sign.
    #[default]
    Ties,
    /// All.
    Linear,
}

/// How the chosen entries become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Combine {
    /// The weighted sum divided by the number of entries that are not 0.
    #[default]
    Mean,
    /// The weighted sum.
    Sum,
}

/// Settings of [`Knots`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KnotsConfig {
    /// How aligned entries are chosen.
    pub merge: KnotsMerge,
    /// How the chosen entries become one.
    pub combine: Combine,
    /// Share of the largest entries kept, in (0, 1].
    pub density: f64,
    /// Factor of the whole merge.
    pub scale: f64,
    /// Rank of the result; that of the shared basis when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Default for KnotsConfig {
    fn default() -> Self {
        Self {
            merge: KnotsMerge::default(),
            combine: Combine::default(),
            density: 1.0,
            scale: 1.0,
            rank: None,
        }
    }
}

impl KnotsConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a density outside (0, 1], a scale that is NaN or infinite, or rank 0.
    pub fn check(self) -> Result<Knots, Error> {
        check_share(NAME, "density", self.density)?;
        if self.density == 0.0 {
            return Err(Error::Setting {
                strategy: NAME,
                setting: "density",
                value: 0.0,
                reason: "keeps nothing; it must be greater than 0",
            });
        }
        check_weight(NAME, "scale", self.scale)?;
        check_rank(NAME, self.rank)?;
        Ok(Knots { config: self })
    }
}

/// M = scale U merge_t(S V_t^T).
#[derive(Debug, Clone, PartialEq)]
pub struct Knots {
    config: KnotsConfig,
}

impl MergeStrategy for Knots {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::Knots(self.config.clone()))
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let aligned = by_module(inputs, |path| Aligned::new(parts(inputs, path), shape(inputs, path)))?;
        let thresholds: Vec<f32> = (0..=inputs.utilities.len())
            .into_par_iter()
            .map(|adapter| self.threshold(&aligned, adapter))
            .collect();
        let merged = by_module(inputs, |path| Ok(self.fuse(&aligned[path], &thresholds)))?;
        Merged::from_low_rank(inputs, merged, self.config.rank)
    }
}

/// One module's changes in the basis that they share.
#[derive(Debug)]
struct Aligned {
    /// U, `[d_out, R]`.
    basis: Array2<f32>,
    /// S V_t^T, `[R, d_in]`, with the adapter's number and weight.
    changes: Vec<(usize, f64, Array2<f32>)>,
    d_in: usize,
}

impl Aligned {
    fn new(parts: Vec<Part>, [d_out, d_in]: [usize; 2]) -> Result<Self, Error> {
        if parts.is_empty() {
            return Ok(Self {
                basis: Array2::zeros((d_out, 0)),
                changes: Vec::new(),
                d_in,
            });
        }
        // [b_1 a_1 ... b_T a_T] = [b_1 ... b_T] diag(a_1, ..., a_T)
        let beside: Vec<_> = parts.iter().map(|part| part.change.b.view()).collect();
        let b = concatenate(Axis(1), &beside).expect("heights are the module's");
        let mut a = Array2::zeros((b.ncols(), parts.len() * d_in));
        let mut row = 0;
        for (t, part) in parts.iter().enumerate() {
            let rows = row..row + part.change.rank();
            row = rows.end;
            a.slice_mut(s![rows, t * d_in..(t + 1) * d_in]).assign(&part.change.a);
        }
        let svd = LowRank { a, b }.svd()?;
        let rank = numerical_rank(&svd.s);
        let scaled = &svd.vt.slice(s![..rank, ..]) * &svd.s.slice(s![..rank]).insert_axis(Axis(1));
        let changes = parts.iter().enumerate().map(|(t, part)| {
            let change = scaled.slice(s![.., t * d_in..(t + 1) * d_in]).mapv(|x| x as f32);
            (part.adapter, part.weight, change)
        });
        Ok(Self {
            basis: svd.u.slice(s![.., ..rank]).mapv(|x| x as f32),
            changes: changes.collect(),
            d_in,
        })
    }
}

impl Knots {
    /// The magnitude that an entry of this adapter must reach to be kept.
    fn threshold(&self, aligned: &BTreeMap<ModulePath, Aligned>, adapter: usize) -> f32 {
        if self.config.merge == KnotsMerge::Linear || self.config.density == 1.0 {
            return 0.0;
        }
        let changes = aligned.values().flat_map(|module| &module.changes);
        let mut magnitudes: Vec<f32> = changes
            .filter(|(owner, ..)| *owner == adapter)
            .flat_map(|(_, _, change)| change.iter().map(|x| x.abs()))
            .collect();
        let kept = (self.config.density * magnitudes.len() as f64) as usize;
        if kept == 0 {
            return f32::INFINITY;
        }
        let smallest_kept = magnitudes.len() - kept;
        *magnitudes.select_nth_unstable_by(smallest_kept, f32::total_cmp).1
    }

    /// Chooses and combines the entries; `thresholds` are the adapters'.
    fn fuse(&self, aligned: &Aligned, thresholds: &[f32]) -> LowRank {
        let mut merged = Array2::zeros((aligned.basis.ncols(), aligned.d_in));
        let mut entries = Vec::with_capacity(aligned.changes.len());
        for ((i, j), merged) in merged.indexed_iter_mut() {
            entries.clear();
            entries.extend(aligned.changes.iter().map(|(adapter, weight, change)| {
                let entry = change[[i, j]];
                let kept = entry.abs() >= thresholds[*adapter];
                (*weight, if kept { f64::from(entry) } else { 0.0 })
            }));
            *merged = (self.config.scale * self.combine(&entries)) as f32;
        }
        balanced(aligned.basis.clone(), merged)
    }

    /// One entry of the merge from the adapters' weights and kept entries.
    fn combine(&self, entries: &[(f64, f64)]) -> f64 {
        let elected: f64 = entries.iter().map(|(_, x)| x).sum();
        let (mut sum, mut count) = (0.0, 0);
        for (weight, x) in entries {
            let chosen = match self.config.merge {
                KnotsMerge::Ties => x * elected > 0.0,
                KnotsMerge::Linear => *x != 0.0,
            };
            if chosen {
                sum += weight * x;
                count += 1;
            }
        }
        match self.config.combine {
            Combine::Mean => sum / f64::from(count.max(1)),
            Combine::Sum => sum,
        }
    }
}

/// b a with rows of a and columns of b of the same lengths: b comes with columns of length 1.
fn balanced(mut b: Array2<f32>, mut a: Array2<f32>) -> LowRank {
    let length = |row: ArrayView1<f32>| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    for (mut row, mut column) in a.rows_mut().into_iter().zip(b.columns_mut()) {
        let root = length(row.view()).sqrt();
        if root > 0.0 {
            row.mapv_inplace(|x| (f64::from(x) / root) as f32);
            column.mapv_inplace(|x| (f64::from(x) * root) as f32);
        }
    }
    LowRank { a, b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combine(merge: KnotsMerge, combine: Combine, entries: &[(f64, f64)]) -> f64 {
        let config = KnotsConfig {
            merge,
            combine,
            ..KnotsConfig::default()
        };
        config.check().unwrap().combine(entries)
    }

    #[test]
    fn entries_of_the_elected_sign_are_averaged() {
        let entries = [(1.0, 3.0), (2.0, 1.0), (1.0, -2.0), (5.0, 0.0)];
        assert_eq!(combine(KnotsMerge::Ties, Combine::Sum, &entries), 5.0);
        assert_eq!(combine(KnotsMerge::Ties, Combine::Mean, &entries), 2.5);
        assert_eq!(combine(KnotsMerge::Linear, Combine::Sum, &entries), 3.0);
        assert_eq!(combine(KnotsMerge::Linear, Combine::Mean, &entries), 1.0);
        // The weights do not vote.
        assert_eq!(combine(KnotsMerge::Ties, Combine::Sum, &[(1.0, 3.0), (9.0, -2.0)]), 3.0);
        // A tie elects nothing, whichever sign the singular vectors have.
        assert_eq!(combine(KnotsMerge::Ties, Combine::Sum, &[(1.0, 3.0), (2.0, -3.0)]), 0.0);
        assert_eq!(combine(KnotsMerge::Ties, Combine::Mean, &[]), 0.0);
    }

    #[test]
    fn bad_settings_are_named() {
        for density in [f64::NAN, 0.0, -0.1, 1.1] {
            let config = KnotsConfig {
                density,
                ..KnotsConfig::default()
            };
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains("`density`"), "{message}");
        }
    }
}
