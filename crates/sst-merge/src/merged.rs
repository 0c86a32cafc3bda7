//! What a merge gives: an adapter, and numbers that say what happened to U and S.

use crate::MergeInputs;
use serde::{Deserialize, Serialize};
use sst_adapter::Adapter;
use sst_subspace::{Projection, RandomControl, Selection};

/// A merged adapter and its diagnostics.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Merged {
    /// The merge M, with U's configuration.
    pub adapter: Adapter,
    /// What was measured on the way.
    pub diagnostics: Diagnostics,
}

/// Norms over phi in f64, and what the projection kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Diagnostics {
    /// Number of entries of phi.
    pub parameters: usize,
    /// ||U||.
    pub norm_utility: f64,
    /// ||S||.
    pub norm_safety: f64,
    /// ||S'||: the safety part that was added, before its weight.
    pub norm_safety_used: f64,
    /// ||M||.
    pub norm_merged: f64,
    /// ||M - U|| / ||U||; none for U = 0.
    pub relative_change: Option<f64>,
    /// Cosine of the angle between U and S; none when one is 0.
    pub cosine: Option<f64>,
    /// ||P S||^2 / ||S||^2; none for a strategy that does not project.
    pub retained_energy: Option<f64>,
    /// What a random subspace of the same k keeps of S.
    pub random_control: Option<RandomControl>,
    /// Number of directions.
    pub k: Option<usize>,
    /// Which rows of the basis projected a tensor.
    pub projection: Option<Projection>,
    /// Largest and smallest of the k eigenvalues; none for a random basis.
    pub eigenvalues: Option<[f64; 2]>,
    /// How the subspace was chosen, with the whole spectrum.
    pub selection: Option<Selection>,
}

impl Merged {
    /// Pairs an adapter with its diagnostics.
    pub fn new(adapter: Adapter, diagnostics: Diagnostics) -> Self {
        Self { adapter, diagnostics }
    }

    /// Builds the adapter of `merged` from the first utility adapter's configuration, and measures it.
    ///
    /// All slices are phi: `utility` U, `safety` S, `used` S', `merged` M.
    ///
    /// # Errors
    /// [`Error::NoUtility`](crate::Error::NoUtility); a length that differs; an overflow to infinity, naming the tensor.
    pub fn from_phi(
        inputs: &MergeInputs<'_>,
        utility: &[f32],
        safety: &[f32],
        used: &[f32],
        merged: &[f32],
    ) -> Result<Self, crate::Error> {
        let template = inputs.utilities.first().ok_or(crate::Error::NoUtility)?;
        let adapter = template.with_flat(merged)?;
        let expected = merged.len();
        for got in [utility.len(), safety.len(), used.len()] {
            if got != expected {
                return Err(sst_adapter::Error::Length {
                    op: "merge diagnostics",
                    expected,
                    got,
                }
                .into());
            }
        }
        let change = merged
            .iter()
            .zip(utility)
            .map(|(m, u)| (f64::from(*m) - f64::from(*u)).powi(2))
            .sum::<f64>()
            .sqrt();
        let dot: f64 = utility
            .iter()
            .zip(safety)
            .map(|(u, s)| f64::from(*u) * f64::from(*s))
            .sum();
        let (norm_utility, norm_safety) = (norm(utility), norm(safety));
        let ratio = |x: f64, y: f64| (y > 0.0).then(|| x / y);
        let diagnostics = Diagnostics {
            parameters: expected,
            norm_utility,
            norm_safety,
            norm_safety_used: norm(used),
            norm_merged: norm(merged),
            relative_change: ratio(change, norm_utility),
            cosine: ratio(dot, norm_utility * norm_safety),
            retained_energy: None,
            random_control: None,
            k: None,
            projection: None,
            eigenvalues: None,
            selection: None,
        };
        Ok(Self { adapter, diagnostics })
    }
}

/// Euclidean norm, summed in f64.
fn norm(phi: &[f32]) -> f64 {
    phi.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}
