//! The adapters' changes of one module, as strategies in delta take them.

use crate::{Error, MergeInputs};
use rayon::prelude::*;
use sst_adapter::{LowRank, ModulePath};
use std::collections::BTreeMap;

/// One adapter's change of a module.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Counted as in [`MergeInputs::adapters`].
    pub adapter: usize,
    /// Never 0.
    pub weight: f64,
    /// Of rank 0 where the adapter lacks the module.
    pub change: LowRank,
}

/// The changes of a module in the order of the adapters: T of them, as an adapter of weight 0 takes no part.
pub(super) fn parts(inputs: &MergeInputs<'_>, path: &ModulePath) -> Vec<Part> {
    let changes = inputs.module(path);
    let Some(shape) = changes.iter().flatten().next().map(LowRank::shape) else {
        return Vec::new();
    };
    let parts = changes.into_iter().enumerate().map(|(adapter, change)| Part {
        adapter,
        weight: inputs.weight(adapter, path),
        change: change.unwrap_or_else(|| LowRank::zero(shape)),
    });
    parts.filter(|part| part.weight != 0.0).collect()
}

/// U, the mean of the utility adapters' weighted changes, and S, the safety adapter's weighted change.
pub(super) fn utility_and_safety(inputs: &MergeInputs<'_>, path: &ModulePath) -> Result<[LowRank; 2], Error> {
    let shape = shape(inputs, path);
    let utilities = inputs.utilities.len();
    let (safety, utility): (Vec<Part>, Vec<Part>) = parts(inputs, path)
        .into_iter()
        .partition(|part| part.adapter == utilities);
    let sum = |parts: &[Part], share: f64| match parts {
        [] => Ok(LowRank::zero(shape)),
        _ => {
            let weighted: Vec<(f64, &LowRank)> = parts.iter().map(|p| (share * p.weight, &p.change)).collect();
            LowRank::stack(&weighted)
        }
    };
    Ok([sum(&utility, 1.0 / utilities as f64)?, sum(&safety, 1.0)?])
}

/// Shape of a module's weight, `[d_out, d_in]`; of one that no adapter has, `[0, 0]`.
pub(super) fn shape(inputs: &MergeInputs<'_>, path: &ModulePath) -> [usize; 2] {
    let module = inputs.adapters().find_map(|adapter| adapter.modules.get(path));
    module.map_or([0, 0], |module| [module.b.nrows(), module.a.ncols()])
}

/// `merge` of every module, side by side; of several errors the first in model order, with the module's name.
pub(super) fn by_module<T: Send>(
    inputs: &MergeInputs<'_>,
    merge: impl Fn(&ModulePath) -> Result<T, Error> + Sync,
) -> Result<BTreeMap<ModulePath, T>, Error> {
    let paths: Vec<ModulePath> = inputs.modules().into_iter().collect();
    let merged: Vec<Result<(ModulePath, T), Error>> = paths
        .into_par_iter()
        .map(|path| {
            let merged = merge(&path).map_err(Error::in_module(&path))?;
            Ok((path, merged))
        })
        .collect();
    merged.into_iter().collect()
}
