//! What TIES, DARE, DELLA and Model Breadcrumbs share: prune every adapter's change entry by entry, then fuse the rest.
//!
//! They differ in the mask alone. With x_t the entries of adapter t, m_t its mask and w_t its weight,
//!
//! ```text
//! merged = lambda fuse_t(w_t, m_t x_t)
//! ```
//!
//! | [`EntrySpace`] | x_t | result |
//! | --- | --- | --- |
//! | `delta` | dW_t = s_t B_t A_t, dense, one module at a time | best approximation of rank `rank`, error reported |
//! | `factors` | sqrt(s_t) A_t, and sqrt(s_t) B_t, each on its own | a pair of the inputs' rank |
//!
//! On factors a weight w stands as sqrt(|w|) on each side, its sign on A, and so does lambda. [`Convention::Peft`]
//! prunes and elects on the raw A_t and B_t and moves s_t into the weight, as PEFT's `add_weighted_adapter` does.
//! Fusing factors is *not* fusing changes: B A of fused factors has cross terms of one adapter's B and another's A.

mod consensus;
mod prune;
mod threshold;

pub(super) use consensus::Consensus;
pub(super) use prune::{Keep, Prune, Rescale, Rule};

use super::parts::by_module;
use crate::merged::Cut;
use crate::{Counter, Error, MergeInputs, Merged};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use sst_adapter::{Adapter, LoraModule, LowRank, ModulePath};
use std::collections::{BTreeMap, BTreeSet};

/// What the entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EntrySpace {
    /// The change of a weight, dW = s B A.
    #[default]
    Delta,
    /// The factors A and B, each on its own.
    Factors,
}

/// Whose definition is followed where they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Convention {
    /// The paper that introduced the method.
    #[default]
    Paper,
    /// PEFT's `add_weighted_adapter`.
    Peft,
    /// mergekit's method of that name.
    Mergekit,
}

/// How the sign that an entry of the merge may have is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MajoritySign {
    /// No election: every adapter counts.
    None,
    /// The sign of the sum.
    Total,
    /// The sign that most adapters have.
    Frequency,
}

/// A method of this family with its settings checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Elementwise {
    /// The mask.
    pub prune: Prune,
    /// Election and fusion.
    pub consensus: Consensus,
    /// Scale of the fused change.
    pub lambda: f64,
    /// What the entries are.
    pub space: EntrySpace,
    /// Rank of the output; none: the sum of the inputs' ranks on the change, the inputs' rank on factors.
    pub rank: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Delta,
    A,
    B,
}

impl Elementwise {
    /// Merges all adapters.
    ///
    /// # Errors
    /// [`Error::Adapter`] when shapes differ; on factors, when ranks differ.
    pub fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let adapters: Vec<&Adapter> = inputs.adapters().collect();
        if self.space == EntrySpace::Factors {
            ensure_same_factors(inputs)?;
        }
        let modules = inputs.modules();
        let cuts = self.cuts(&adapters, &modules);
        let tensor = |path: &ModulePath, side| self.tensor(inputs, &adapters, &cuts, path, side);
        if self.space == EntrySpace::Factors {
            let pairs = by_module(inputs, |path| {
                let (a, b) = (tensor(path, Side::A), tensor(path, Side::B));
                Ok(LowRank { a, b })
            })?;
            return Merged::from_low_rank(inputs, pairs, self.rank);
        }
        let cuts = by_module(inputs, |path| {
            let dense = tensor(path, Side::Delta);
            let square = dense.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            let ranks = adapters
                .iter()
                .filter_map(|a| a.modules.get(path))
                .map(LoraModule::rank);
            let rank = self.rank.unwrap_or_else(|| ranks.sum());
            let rank = rank.min(dense.nrows()).min(dense.ncols());
            let (change, error) = LowRank::from_dense(dense.view(), rank)?;
            Ok(Cut { change, square, error })
        })?;
        Merged::from_cut(inputs, cuts)
    }

    /// One merged tensor of one module.
    fn tensor(
        &self,
        inputs: &MergeInputs<'_>,
        adapters: &[&Adapter],
        cuts: &[Option<u32>],
        path: &ModulePath,
        side: Side,
    ) -> Array2<f32> {
        let parts: Vec<(f64, Option<Array2<f32>>)> = adapters
            .iter()
            .enumerate()
            .map(|(t, adapter)| {
                let weight = inputs.weight(t, path);
                let Some(module) = adapter.modules.get(path) else {
                    return (self.side_weight(weight, None, side), None);
                };
                let mut entries = self.entries(module, side);
                let name = match side {
                    Side::Delta => format!("{t} {path}"),
                    Side::A => format!("{t} {path}.lora_A"),
                    Side::B => format!("{t} {path}.lora_B"),
                };
                let draws = Counter::new(inputs.seed, &name);
                self.prune.apply(&mut entries, cuts[t], |index| draws.uniform(index));
                (self.side_weight(weight, Some(module), side), Some(entries))
            })
            .collect();
        let lambda = split_root(self.lambda, side);
        self.consensus.fuse(&parts, lambda)
    }

    /// What is pruned: row-major.
    fn entries(&self, module: &LoraModule, side: Side) -> Array2<f32> {
        let root = if self.consensus.convention == Convention::Peft {
            1.0
        } else {
            split_root(module.scale(), side)
        };
        let factor = |factor: &Array2<f32>| {
            let mut entries = factor.as_standard_layout().into_owned();
            if root != 1.0 {
                entries.mapv_inplace(|x| (root * f64::from(x)) as f32);
            }
            entries
        };
        match side {
            Side::Delta => module.delta(),
            Side::A => factor(&module.a),
            Side::B => factor(&module.b),
        }
    }

    fn side_weight(&self, weight: f64, module: Option<&LoraModule>, side: Side) -> f64 {
        match (self.consensus.convention, side, module) {
            (Convention::Peft, Side::A | Side::B, Some(module)) => split_root(weight * module.scale(), side),
            _ => split_root(weight, side),
        }
    }

    /// The bits of the smallest magnitude kept, per adapter, for a rule that ranks all merged modules together.
    fn cuts(&self, adapters: &[&Adapter], merged: &BTreeSet<ModulePath>) -> Vec<Option<u32>> {
        let Rule::TopOfAdapter { density } = self.prune.rule else {
            return vec![None; adapters.len()];
        };
        let sides: &[Side] = match self.space {
            EntrySpace::Delta => &[Side::Delta],
            EntrySpace::Factors => &[Side::A, Side::B],
        };
        let size = |module: &LoraModule| match self.space {
            EntrySpace::Delta => module.b.nrows() * module.a.ncols(),
            EntrySpace::Factors => module.a.len() + module.b.len(),
        };
        // Zeros of modules that an adapter lacks count as entries.
        let any = |path| adapters.iter().find_map(|adapter| adapter.modules.get(path));
        let kept = prune::count(density, merged.iter().filter_map(any).map(size).sum());
        adapters
            .iter()
            .map(|adapter| {
                let tensors: Vec<(&LoraModule, Side)> = merged
                    .iter()
                    .filter_map(|path| adapter.modules.get(path))
                    .flat_map(|module| sides.iter().map(move |side| (module, *side)))
                    .collect();
                let entries = |(module, side): &(&LoraModule, Side)| self.entries(module, *side);
                Some(threshold::kth_largest(kept, &tensors, entries))
            })
            .collect()
    }
}

/// Refuses a density outside (0, 1], a lambda that is not finite and an output of rank 0.
pub(super) fn check_common(
    strategy: &'static str,
    density: f64,
    lambda: f64,
    rank: Option<usize>,
) -> Result<(), Error> {
    if !(density > 0.0 && density <= 1.0) {
        return Err(Error::Setting {
            strategy,
            setting: "density",
            value: density,
            reason: "must lie in (0, 1]",
        });
    }
    super::check_weight(strategy, "lambda", lambda)?;
    super::check_rank(strategy, rank)
}

/// On a factor sqrt(|x|), with the sign on A; on the change x itself.
fn split_root(x: f64, side: Side) -> f64 {
    match side {
        Side::Delta => x,
        Side::A => x.abs().sqrt().copysign(x),
        Side::B => x.abs().sqrt(),
    }
}

/// Checks that every module has one rank in all adapters that have it; outer shapes are checked already.
fn ensure_same_factors(inputs: &MergeInputs<'_>) -> Result<(), Error> {
    let mut first: BTreeMap<&ModulePath, (usize, [usize; 2])> = BTreeMap::new();
    for (t, adapter) in inputs.adapters().enumerate() {
        for (path, module) in &adapter.modules {
            let (rows, cols) = module.a.dim();
            let (left, left_shape) = *first.entry(path).or_insert((t, [rows, cols]));
            if left_shape != [rows, cols] {
                return Err(sst_adapter::Error::ShapesDiffer {
                    tensor: format!("{path}.lora_A"),
                    left: inputs.name(left),
                    left_shape,
                    right: inputs.name(t),
                    right_shape: [rows, cols],
                }
                .into());
            }
        }
    }
    Ok(())
}
