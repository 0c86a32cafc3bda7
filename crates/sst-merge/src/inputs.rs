//! What a merge takes: utility adapters, a safety adapter, and what was measured on both.
//!
//! Two spaces: phi, the entries of A and B, where all adapters must have one layout ([`MergeInputs::check`]); and delta,
//! the changes of the weights, where ranks, alphas and target modules may differ ([`MergeInputs::check_delta`]).

use crate::{AlignmentChange, Error, ModuleWeights};
use sst_adapter::{Adapter, LowRank, ModulePath};
use sst_subspace::{DiagonalFisher, KroneckerBasis, KroneckerFisher, PhiBasis};
use std::collections::BTreeSet;

/// Covariances of inputs and output gradients per module, over utility and over safety data.
#[derive(Debug, Clone)]
pub struct Statistics<'a> {
    /// Over utility data, of which several sets count as their mean; for RegMean one per utility adapter, in their order.
    pub utility: Vec<&'a KroneckerFisher>,
    /// Over safety data.
    pub safety: &'a KroneckerFisher,
}

/// The inputs of a merge, borrowed.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct MergeInputs<'a> {
    /// One or more utility adapters; U is their mean.
    pub utilities: &'a [Adapter],
    /// The safety adapter S.
    pub safety: &'a Adapter,
    /// The safety subspace, for strategies that project.
    pub basis: Option<&'a PhiBasis>,
    /// Directions in delta, for strategies that can take them in place of covariances.
    pub kronecker_basis: Option<&'a KroneckerBasis>,
    /// Weights of the adapters; 1 each when absent. V1 and V2 take none.
    pub weights: Option<&'a ModuleWeights>,
    /// Covariances, for strategies that weigh by them.
    pub statistics: Option<&'a Statistics<'a>>,
    /// Diagonal Fishers in the order of [`MergeInputs::adapters`], for strategies that weigh entries by them.
    pub diagonals: Option<&'a [DiagonalFisher]>,
    /// What alignment changed in the base model, for strategies that project onto it.
    pub alignment: Option<&'a dyn AlignmentChange>,
    /// Seed of strategies that draw.
    pub seed: u64,
    /// Seed of the random subspace that the chosen one is compared with.
    pub control_seed: u64,
}

impl<'a> MergeInputs<'a> {
    /// Inputs without a basis, weights or statistics; both seeds 0.
    pub fn new(utilities: &'a [Adapter], safety: &'a Adapter) -> Self {
        Self {
            utilities,
            safety,
            basis: None,
            kronecker_basis: None,
            weights: None,
            statistics: None,
            diagonals: None,
            alignment: None,
            seed: 0,
            control_seed: 0,
        }
    }

    /// Adds the safety subspace.
    pub fn with_basis(self, basis: &'a PhiBasis) -> Self {
        Self {
            basis: Some(basis),
            ..self
        }
    }

    /// Adds directions in delta.
    pub fn with_kronecker_basis(self, basis: &'a KroneckerBasis) -> Self {
        Self {
            kronecker_basis: Some(basis),
            ..self
        }
    }

    /// Adds weights of the adapters.
    pub fn with_weights(self, weights: &'a ModuleWeights) -> Self {
        Self {
            weights: Some(weights),
            ..self
        }
    }

    /// Adds covariances.
    pub fn with_statistics(self, statistics: &'a Statistics<'a>) -> Self {
        Self {
            statistics: Some(statistics),
            ..self
        }
    }

    /// Adds diagonal Fishers.
    pub fn with_diagonals(self, diagonals: &'a [DiagonalFisher]) -> Self {
        Self {
            diagonals: Some(diagonals),
            ..self
        }
    }

    /// Adds what alignment changed.
    pub fn with_alignment(self, alignment: &'a dyn AlignmentChange) -> Self {
        Self {
            alignment: Some(alignment),
            ..self
        }
    }

    /// Sets the seed of strategies that draw.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets the seed of the random control.
    pub fn with_control_seed(self, control_seed: u64) -> Self {
        Self { control_seed, ..self }
    }

    /// Checks that all adapters have the same modules, shapes and scales, that base models are the same where they are named,
    /// and that the basis belongs to the adapters.
    ///
    /// # Errors
    /// [`Error::NoUtility`]; [`Error::BaseModelsDiffer`]; [`Error::Adapter`] naming the tensor and both shapes, or the target
    /// only one has; [`Error::Weights`], as weights belong to strategies in delta.
    pub fn check(&self) -> Result<(), Error> {
        if self.weights.is_some() {
            let reason = "strategies on the entries of A and B take no weights per module".to_owned();
            return Err(Error::Weights { reason });
        }
        self.check_layout()
    }

    /// [`MergeInputs::check`] for strategies on the entries of A and B that do take weights.
    pub(crate) fn check_layout(&self) -> Result<(), Error> {
        self.check_bases()?;
        for (i, utility) in self.utilities.iter().enumerate() {
            utility.ensure_same_layout(self.safety, (&self.name(i), "the safety adapter"))?;
        }
        if let Some(basis) = self.basis {
            self.safety
                .layout()
                .ensure_same(basis.layout(), ("the safety adapter", "the basis"))?;
        }
        Ok(())
    }

    /// Checks what adding changes of weights needs: modules that several adapters have are of one shape `[d_out, d_in]`,
    /// base models are the same where they are named, weights are one per adapter.
    ///
    /// # Errors
    /// [`Error::NoUtility`], [`Error::Adapter`] naming the module and both shapes, [`Error::BaseModelsDiffer`],
    /// [`Error::Weights`].
    pub fn check_delta(&self) -> Result<(), Error> {
        self.check_bases()?;
        let adapters: Vec<&Adapter> = self.adapters().collect();
        for (i, left) in adapters.iter().enumerate() {
            for (j, right) in adapters.iter().enumerate().skip(i + 1) {
                left.ensure_same_shapes(right, (&self.name(i), &self.name(j)))?;
            }
        }
        if let Some(given) = self.weights.and_then(ModuleWeights::adapters)
            && given != adapters.len()
        {
            let reason = format!("{given} weights for {} adapters", adapters.len());
            return Err(Error::Weights { reason });
        }
        Ok(())
    }

    /// Checks that there is a utility adapter, and that the adapters which name their base model name the same one: paths may
    /// differ before their last part, as they do where adapters come from two machines.
    fn check_bases(&self) -> Result<(), Error> {
        fn last(base: &str) -> Option<&str> {
            base.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next()
        }
        if self.utilities.is_empty() {
            return Err(Error::NoUtility);
        }
        let named = self.adapters().enumerate().filter_map(|(i, adapter)| {
            let base = adapter.config.base_model_name_or_path.as_ref()?;
            Some((i, base))
        });
        let named: Vec<(usize, &String)> = named.collect();
        match named.windows(2).find(|pair| last(pair[0].1) != last(pair[1].1)) {
            None => Ok(()),
            Some(pair) => Err(Error::BaseModelsDiffer {
                left: self.name(pair[0].0),
                left_base: pair[0].1.clone(),
                right: self.name(pair[1].0),
                right_base: pair[1].1.clone(),
            }),
        }
    }

    /// The utility adapters, then the safety adapter.
    pub fn adapters(&self) -> impl Iterator<Item = &'a Adapter> + use<'a> {
        self.utilities.iter().chain([self.safety])
    }

    /// The modules that any adapter has, in model order, without those that the weights skip.
    pub fn modules(&self) -> BTreeSet<ModulePath> {
        let skipped = |path: &&ModulePath| !self.weights.is_some_and(|weights| weights.skips(path));
        let paths = self.adapters().flat_map(|adapter| adapter.modules.keys());
        paths.filter(skipped).cloned().collect()
    }

    /// Every adapter's change of one module, in the order of [`MergeInputs::adapters`]; none where it lacks the module.
    pub fn module(&self, path: &ModulePath) -> Vec<Option<LowRank>> {
        self.adapters()
            .map(|adapter| adapter.modules.get(path).map(LowRank::of))
            .collect()
    }

    /// The weight of an adapter, counted as in [`MergeInputs::adapters`], in a module: 1 unless told.
    pub fn weight(&self, adapter: usize, path: &ModulePath) -> f64 {
        self.weights.map_or(1.0, |weights| weights.weight(adapter, path))
    }

    /// U as phi: the mean over the utility adapters, summed in f64; one adapter is returned as it is.
    ///
    /// # Errors
    /// [`Error::NoUtility`]; [`Error::Adapter`] when the adapters' lengths differ.
    pub fn utility_phi(&self) -> Result<Vec<f32>, Error> {
        let (first, rest) = self.utilities.split_first().ok_or(Error::NoUtility)?;
        if rest.is_empty() {
            return Ok(first.to_flat());
        }
        let mut sum: Vec<f64> = first.to_flat().into_iter().map(f64::from).collect();
        for other in rest {
            let phi = other.to_flat();
            if phi.len() != sum.len() {
                let (expected, got) = (sum.len(), phi.len());
                return Err(sst_adapter::Error::Length {
                    op: "mean of the utility adapters",
                    expected,
                    got,
                }
                .into());
            }
            sum.iter_mut().zip(phi).for_each(|(s, x)| *s += f64::from(x));
        }
        let count = self.utilities.len() as f64;
        Ok(sum.into_iter().map(|s| (s / count) as f32).collect())
    }

    /// What errors call an adapter, counted as in [`MergeInputs::adapters`].
    pub(crate) fn name(&self, adapter: usize) -> String {
        match self.utilities.len() {
            count if adapter == count => "the safety adapter".to_owned(),
            1 => "the utility adapter".to_owned(),
            _ => format!("utility adapter {}", adapter + 1),
        }
    }
}
