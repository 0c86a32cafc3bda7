//! SST, the safety subspace task merge: the minimiser of two quadratic losses in the space of the weights.
//!
//! To second order around its own optimum dW_t, the loss of task t grows with a change of a layer's weight as
//! tr(G_t (dW - dW_t) A_t (dW - dW_t)^T), with A the covariance of the layer's inputs and G that of the gradients at its
//! outputs (K-FAC; Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature",
//! equation 1). SST minimises, layer by layer, the sum over the utility u and the safety s,
//!
//! ```text
//! tr(B_g (X - U) B_a (X - U)^T) + gamma tr(G_s (X - T) A_s (X - T)^T),    B_a = A_u + eps_a I, B_g = G_u + eps_g I.
//! ```
//!
//! The gradient vanishes where B_g (X - U) B_a = gamma G_s (T - X) A_s. The pencils A_s V = B_a V Lambda, V^T B_a V = I and
//! G_s W = B_g W M, W^T B_g W = I diagonalise both terms at once: with D = T - U, the coordinates W^T B_g . B_a V of X - U
//! are
//!
//! ```text
//! sigma_ij (W^T B_g D B_a V)_ij,    sigma_ij = gamma mu_i lambda_j / (1 + gamma mu_i lambda_j)
//! ```
//!
//! so that M = U + P D with a filter P that lets pass what matters for safety more than for utility. gamma -> 0 gives U;
//! gamma -> infinity gives T along every direction in which the safety statistics have mass, and U along the others.
//! `hard` sets sigma to 1 for the k largest mu_i lambda_j over all modules and to 0 for the others.
//!
//! On the input side alone (G_u = G_s = I) P D = D Q with Q = gamma A_s (B_a + gamma A_s)^-1, and M is exactly of the rank
//! r_u + r_s: B_u (A_u' - A_u' Q) + B_s A_s' Q. With gamma = 1, no ridge and covariances that are plain means over tokens
//! this is RegMean (Jin et al. 2023, "Dataless Knowledge Fusion by Merging Weights of Language Models"). On
//! both sides M has full rank and is cut to `rank` by the best approximation in the Frobenius norm.
//!
//! | setting | default | meaning |
//! | --- | --- | --- |
//! | `gamma` | 0.3 | weight of the safety loss (`soft`) |
//! | `gammas` | none | exceptions: `match`, `layers`, `gamma`; the last that matches a module counts (`soft`) |
//! | `weighting` | soft | or `{ hard = { k = 20 } }` |
//! | `sides` | input | `both` weighs outputs as well |
//! | `delta` | difference | T = S; `safety`: T = U + S |
//! | `ridge` | 1e-2 | eps relative to the mean eigenvalue of A_u, and of G_u |
//! | `rank` | r_u + r_s | cut every module to this rank |
//! | `spectrum` | d_in <= 1024 | report sigma where the merge needs no eigenproblem; by default where it can be had |
//!
//! Only the utility side has a ridge: where neither task has evidence M stays U, and the pencil is that of the safety
//! subspace. Several utility adapters count as their mean, and so do their factors. Weights of the adapters are those of
//! their losses: the mean is the weighted one, and gamma is multiplied by the safety adapter's weight over the mean weight
//! of the utility adapters.

mod both_sides;
mod change;
mod directions;
mod filter;
mod input_side;
#[cfg(test)]
mod made_up;
mod report;
mod settings;
mod solver;

pub use report::{CurvePoint, Sigma, SstModule, SstReport, Tradeoff};
pub use settings::{GammaOverride, SafetyDelta, Weighting};

use super::{MergeStrategy, Needs, check_k, check_not_negative, check_rank};
use crate::merged::Cut;
use crate::{Error, MergeInputs, Merged};
use change::Thin;
use report::{MULTIPLES, ReportBuilder};
use serde::{Deserialize, Serialize};
use settings::Gammas;
use solver::Solver;
use sst_adapter::{LowRank, ModulePath};
use sst_subspace::Sides;
use std::collections::BTreeMap;

const NAME: &str = "sst";

/// Settings of [`Sst`], not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SstConfig {
    /// Weight of the safety loss.
    pub gamma: f64,
    /// Exceptions by module; the last that matches counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gammas: Vec<GammaOverride>,
    /// `soft` or `hard`.
    pub weighting: Weighting,
    /// Which factors weigh a change.
    pub sides: Sides,
    /// Where the safety side wants the weight to go.
    pub delta: SafetyDelta,
    /// eps relative to the mean eigenvalue of each utility factor.
    pub ridge: f64,
    /// Rank of every module of the merge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Whether to solve eigenproblems for the report alone; where d_in is at most [`SPECTRUM_UP_TO`] when absent. A pencil
    /// without a solution, as without a ridge where A_u is singular, is then left out of the report; asked for, it is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spectrum: Option<bool>,
}

/// Inputs up to this width have their spectrum reported, where it can be solved for, unless told otherwise.
pub const SPECTRUM_UP_TO: usize = 1024;

impl Default for SstConfig {
    fn default() -> Self {
        Self {
            gamma: 0.3,
            gammas: Vec::new(),
            weighting: Weighting::default(),
            sides: Sides::default(),
            delta: SafetyDelta::default(),
            ridge: 1e-2,
            rank: None,
            spectrum: None,
        }
    }
}

impl SstConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a gamma or ridge that is NaN, infinite or negative, k = 0 or rank = 0, or `gammas` beside
    /// `hard`, which has none; [`Error::Weights`] for an entry of `gammas` that names no module.
    pub fn check(self) -> Result<Sst, Error> {
        check_not_negative(NAME, "ridge", self.ridge)?;
        check_rank(NAME, self.rank)?;
        if let Weighting::Hard { k } = self.weighting {
            check_k(NAME, k)?;
            if let Some(entry) = self.gammas.first() {
                return Err(Error::Setting {
                    strategy: NAME,
                    setting: "gammas",
                    value: entry.gamma,
                    reason: "is a setting of the weighting `soft`",
                });
            }
        }
        let gammas = Gammas::new(self.gamma, &self.gammas)?;
        Ok(Sst { config: self, gammas })
    }
}

/// The minimiser of the utility's and the safety's quadratic loss.
///
/// ```
/// use sst_merge::{Adapter, KroneckerFactors, KroneckerFisher, LoraConfig, MergeInputs, MergeStrategy, Statistics};
/// use sst_merge::{Estimator, FisherMeta, SstConfig, array};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let adapter = |a, b| Adapter::from_pairs(LoraConfig::new(1, 1.0, ["q_proj"]), [("layers.0.q_proj".into(), a, b)]);
/// let utility = adapter(array![[4.0, 4.0]], array![[1.0]])?;
/// let safety = adapter(array![[0.0, 8.0]], array![[1.0]])?;
/// let fisher = |name: &str, input| {
///     let factors = KroneckerFactors { input, output: array![[1.0]] };
///     let meta = FisherMeta::new(Estimator::Kron, "response", 0);
///     let folder = dir.path().join(name);
///     KroneckerFisher::save(&folder, &meta, &[("layers.0.q_proj".into(), factors)].into(), Default::default())?;
///     KroneckerFisher::load(&folder)
/// };
/// // Both inputs matter to the utility; to safety the first does not, and the second three times as much.
/// let (f_utility, f_safety) = (
///     fisher("utility", array![[1.0, 0.0], [0.0, 1.0]])?,
///     fisher("safety", array![[0.0, 0.0], [0.0, 3.0]])?,
/// );
/// let statistics = Statistics { utility: vec![&f_utility], safety: &f_safety };
/// let inputs = MergeInputs::new(std::slice::from_ref(&utility), &safety).with_statistics(&statistics);
/// let sst = SstConfig { gamma: 1.0, ridge: 0.0, ..SstConfig::default() }.check()?;
/// let merged = sst.merge(&inputs)?;
/// // sigma = 0 and 3 / 4: the first entry stays U's, the second goes three quarters of the way to S's.
/// assert_eq!(merged.adapter.modules[&"layers.0.q_proj".into()].delta(), array![[4.0, 7.0]]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Sst {
    config: SstConfig,
    gammas: Gammas,
}

impl MergeStrategy for Sst {
    fn name(&self) -> &'static str {
        NAME
    }

    fn config(&self) -> serde_json::Value {
        serde_json::json!(super::StrategyConfig::Sst(self.config.clone()))
    }

    /// Statistics; a [`MergeInputs::kronecker_basis`] may stand in for them.
    fn needs(&self) -> Needs {
        Needs {
            statistics: true,
            ..Needs::default()
        }
    }

    fn merge(&self, inputs: &MergeInputs<'_>) -> Result<Merged, Error> {
        inputs.check_delta()?;
        let modules = inputs.modules();
        let mut solver = Solver::new(&self.config, inputs, &modules)?;
        let mut report = ReportBuilder::new(self.config.sides);
        let mut cuts = BTreeMap::new();
        for path in modules {
            let ends = self.ends(inputs, &path).map_err(Error::in_module(&path))?;
            let Ends { utility, safety, gamma } = ends;
            let filter = solver.filter(&path, utility.shape(), gamma)?;
            let rank = self.config.rank.unwrap_or(utility.rank() + safety.rank());
            let (u, s) = (Thin::of(&utility), Thin::of(&safety));
            let filtered = filter.merge(&u, &s, self.config.delta)?;
            let curve = filter.curve(&self.config.delta.way(&u, &s), &MULTIPLES);
            let squares = (filtered.kept, s.square(None, None));
            report.add(path.clone(), gamma, squares, filter.sigma(), filtered.tradeoff, curve);
            let change = filtered.merged;
            let square = change.square();
            let (change, error) = change.cut(rank).map_err(Error::in_module(&path))?;
            cuts.insert(path, Cut { change, square, error });
        }
        let mut merged = Merged::from_cut(inputs, cuts)?;
        let diagnostics = &mut merged.diagnostics;
        solver.describe(diagnostics);
        let report = report.finish();
        diagnostics.retained_energy = report.retained_energy;
        diagnostics.sst = Some(report);
        Ok(merged)
    }
}

/// What one module is merged from.
struct Ends {
    /// U: the weighted mean of the utility adapters.
    utility: LowRank,
    /// S.
    safety: LowRank,
    /// gamma times the safety adapter's weight over the mean weight of the utility adapters; none for `hard`.
    gamma: Option<f64>,
}

impl Sst {
    /// An adapter that lacks the module is a zero change.
    fn ends(&self, inputs: &MergeInputs<'_>, path: &ModulePath) -> Result<Ends, Error> {
        let mut changes = inputs.module(path);
        let weights: Vec<f64> = (0..changes.len()).map(|i| inputs.weight(i, path)).collect();
        let refuse = |reason: String| {
            let reason = format!("module {path}: {reason}");
            Err(Error::Weights { reason })
        };
        if let Some(weight) = weights.iter().find(|weight| **weight < 0.0) {
            return refuse(format!("the weight of a loss is {weight}, and must not be negative"));
        }
        let (of_safety, of_utility) = (weights[inputs.utilities.len()], &weights[..inputs.utilities.len()]);
        let total: f64 = of_utility.iter().sum();
        if total == 0.0 {
            return refuse("every utility adapter has weight 0".to_owned());
        }
        let safety = changes.pop().flatten();
        let shape = changes.iter().flatten().chain(&safety).next().map(LowRank::shape);
        let zero = LowRank::zero(shape.unwrap_or_default());
        let shares = of_utility.iter().map(|weight| weight / total);
        let mut parts = vec![(1.0, &zero)];
        parts.extend(
            shares
                .zip(&changes)
                .filter_map(|(share, change)| Some((share, change.as_ref()?))),
        );
        let mean = total / of_utility.len() as f64;
        Ok(Ends {
            utility: LowRank::stack(&parts)?,
            safety: safety.unwrap_or(zero),
            gamma: match self.config.weighting {
                Weighting::Soft => Some(self.gammas.of(path) * of_safety / mean),
                Weighting::Hard { .. } => None,
            },
        })
    }
}
