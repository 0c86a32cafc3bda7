//! How a subspace was chosen, and the random one that it is compared with.

use crate::Spectrum;
use serde::{Deserialize, Serialize};

/// How the directions of a basis were chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "selection", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Selection {
    /// The largest ratios of two Fisher diagonals.
    TopRatios {
        /// Added to the denominator on top of the estimator's ridge.
        eps: f64,
        /// The safety estimator's ridge.
        ridge_safety: f64,
        /// The utility estimator's ridge.
        ridge_utility: f64,
        /// Share of the safety Fisher's raw entries below its ridge.
        share_below_ridge_safety: f64,
        /// Share of the utility Fisher's raw entries below its ridge: there the ratio hardly sees the utility.
        share_below_ridge_utility: f64,
        /// All n eigenvalues in a few numbers.
        spectrum: Spectrum,
    },
    /// The largest eigenvalues in the span of per-sample gradients.
    TopSamples {
        /// Added to F_u's diagonal.
        eps: f64,
        /// N_s.
        samples_safety: u64,
        /// N_u.
        samples_utility: u64,
        /// Largest residual of any module's eigenproblem.
        residual: f64,
        /// All eigenvalues above rounding, of all modules, in a few numbers.
        spectrum: Spectrum,
    },
    /// The largest products of the eigenvalues of Kronecker factors.
    TopProducts {
        /// Each utility factor's eps, relative to its mean eigenvalue.
        ridge: f64,
        /// Number of products over all modules.
        available: u64,
        /// Largest residual of the kept directions, and of those of their modules that later modules displaced.
        residual: f64,
        /// The most negative eigenvalue that rounding had produced and that was set to 0.
        clamped: f64,
    },
    /// Drawn at random: the control that a chosen subspace has to beat.
    Random {
        /// Seed of the draw.
        seed: u64,
    },
}

impl Selection {
    /// The whole spectrum, where the choice knew it.
    pub fn spectrum(&self) -> Option<&Spectrum> {
        match self {
            Selection::TopRatios { spectrum, .. } | Selection::TopSamples { spectrum, .. } => Some(spectrum),
            Selection::TopProducts { .. } | Selection::Random { .. } => None,
        }
    }
}

/// What a random subspace of the same size keeps of the same vector.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RandomControl {
    /// Seed of the draw.
    pub seed: u64,
    /// Number of directions.
    pub k: usize,
    /// ||P phi||^2 / ||phi||^2 of the random subspace.
    pub retained_energy: f64,
}
