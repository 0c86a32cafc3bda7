//! What a merge takes: utility adapters, a safety adapter, and the subspace between them.

use crate::Error;
use sst_adapter::Adapter;
use sst_subspace::PhiBasis;

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
    /// Seed of the random subspace that the chosen one is compared with.
    pub control_seed: u64,
}

impl<'a> MergeInputs<'a> {
    /// Inputs without a basis, control seed 0.
    pub fn new(utilities: &'a [Adapter], safety: &'a Adapter) -> Self {
        Self {
            utilities,
            safety,
            basis: None,
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

    /// Sets the seed of the random control.
    pub fn with_control_seed(self, control_seed: u64) -> Self {
        Self { control_seed, ..self }
    }

    /// Checks that all adapters have the same modules, shapes and scales, and that the basis belongs to them.
    ///
    /// # Errors
    /// [`Error::NoUtility`]; [`Error::Adapter`] naming the tensor and both shapes, or the target only one has.
    pub fn check(&self) -> Result<(), Error> {
        if self.utilities.is_empty() {
            return Err(Error::NoUtility);
        }
        for (i, utility) in self.utilities.iter().enumerate() {
            utility.ensure_same_layout(self.safety, (&self.utility_name(i), "the safety adapter"))?;
        }
        if let Some(basis) = self.basis {
            self.safety
                .layout()
                .ensure_same(basis.layout(), ("the safety adapter", "the basis"))?;
        }
        Ok(())
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

    fn utility_name(&self, i: usize) -> String {
        match self.utilities.len() {
            1 => "the utility adapter".to_owned(),
            _ => format!("utility adapter {}", i + 1),
        }
    }
}
