//! Weighted sums of changes, by stacking their factors: exact, at the sum of the ranks.

use super::parts::by_module;
use crate::{Error, MergeInputs};
use sst_adapter::{LowRank, ModulePath};
use std::collections::BTreeMap;

/// sum_t w_t delta W_t of every module; `weights` gives a module's weights in the order of the adapters.
///
/// A change of weight 0 takes no part, not even in the rank.
pub(super) fn stacked(
    inputs: &MergeInputs<'_>,
    weights: impl Fn(&ModulePath) -> Result<Vec<f64>, Error> + Sync,
) -> Result<BTreeMap<ModulePath, LowRank>, Error> {
    by_module(inputs, |path| {
        let changes = inputs.module(path);
        let shape = changes.iter().flatten().next().map(LowRank::shape);
        let weighted = weights(path)?.into_iter().zip(&changes);
        let parts: Vec<(f64, &LowRank)> = weighted
            .filter_map(|(weight, change)| Some((weight, change.as_ref().filter(|_| weight != 0.0)?)))
            .collect();
        Ok(match (parts.is_empty(), shape) {
            (true, Some(shape)) => LowRank::zero(shape),
            _ => LowRank::stack(&parts)?,
        })
    })
}
