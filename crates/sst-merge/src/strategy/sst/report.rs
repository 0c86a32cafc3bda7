//! What SST reports: how much of S passed the filter, how strong the filter is, and what the quadratic model predicts.

use serde::{Deserialize, Serialize};
use sst_adapter::ModulePath;
use sst_subspace::{Quantile, Sides, Spectrum};
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// Multiples of gamma at which [`SstReport::curve`] gives the prediction.
pub(super) const MULTIPLES: [f64; 7] = [1.0 / 30.0, 0.1, 1.0 / 3.0, 1.0, 3.0, 10.0, 30.0];

/// The report of one merge. Energies are squared Frobenius norms of changes of the weight, before any compression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SstReport {
    /// Which factors weigh a change.
    pub sides: Sides,
    /// sum ||P S||^2 / sum ||S||^2; the filter is oblique, so that it may exceed 1. None for S = 0.
    pub retained_energy: Option<f64>,
    /// What a filter of the same sigma along random orthonormal directions keeps of S on average.
    pub random_energy: Option<f64>,
    /// The effective number of directions: sum of sigma over all modules; none where a module's spectrum is not known.
    pub effective_directions: Option<f64>,
    /// The prediction, summed over the modules; none when only a basis was given.
    pub tradeoff: Option<Tradeoff>,
    /// The prediction for other gammas; empty for `hard`, and where a module's spectrum is not known.
    pub curve: Vec<CurvePoint>,
    /// Each module by itself.
    pub modules: BTreeMap<ModulePath, SstModule>,
}

/// The report of one module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SstModule {
    /// gamma of this module; none for `hard`.
    pub gamma: Option<f64>,
    /// ||P S||^2 / ||S||^2; none for S = 0.
    pub retained_energy: Option<f64>,
    /// What a filter of the same sigma along random orthonormal directions keeps of S on average.
    pub random_energy: Option<f64>,
    /// The eigenvalues of P.
    pub sigma: Option<Sigma>,
    /// What the quadratic model predicts.
    pub tradeoff: Option<Tradeoff>,
}

/// The eigenvalues sigma of a filter, each in [0, 1], in a few numbers.
///
/// On the input side alone there are d_in of them, each standing for all d_out outputs; on both d_out d_in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sigma {
    /// Number of eigenvalues.
    pub count: u64,
    /// Their sum, the effective number of directions.
    pub sum: f64,
    /// The sum of their squares; over `count`, what random orthonormal directions of the same sigma keep on average.
    pub sum_of_squares: f64,
    /// Quantiles from low to high; none where only the eigenvalues that are not 0 are known.
    pub quantiles: Vec<Quantile>,
}

/// The quadratic model's two losses, in the metric that was minimised: on the utility side with the ridge, on the safety side
/// without gamma, so that merges of different gammas compare.
///
/// In the units of the statistics, so that ratios mean more than values: `utility / utility_of_target` says how much of the
/// way's cost was paid, `safety / safety_of_utility` how much of the safety loss is left.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tradeoff {
    /// tr(G_u (M - U) A_u (M - U)^T): the utility loss of the merge; 0 for M = U.
    pub utility: f64,
    /// The same for the safety target in place of M.
    pub utility_of_target: f64,
    /// tr(G_s (T - M) A_s (T - M)^T): the safety loss left, to the target T = S or U + S.
    pub safety: f64,
    /// The same for U in place of M.
    pub safety_of_utility: f64,
}

/// The prediction at one gamma.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Every module's gamma is multiplied by this.
    pub multiple: f64,
    /// Both losses, summed over the modules.
    pub tradeoff: Tradeoff,
}

impl Sigma {
    /// Of all eigenvalues.
    pub(super) fn of(values: Vec<f64>) -> Self {
        let sum_of_squares = values.iter().map(|x| x * x).sum();
        let spectrum = Spectrum::of(values);
        Self {
            count: spectrum.count,
            sum: spectrum.trace,
            sum_of_squares,
            quantiles: spectrum.quantiles,
        }
    }

    /// Of those that are not 0, among `count`.
    pub(super) fn sparse(values: &[f64], count: u64) -> Self {
        Self {
            count,
            sum: values.iter().sum(),
            sum_of_squares: values.iter().map(|x| x * x).sum(),
            quantiles: Vec::new(),
        }
    }

    /// The mean of ||P S||^2 / ||S||^2 over uniform orthonormal directions: E (w^T S v)^2 = ||S||^2 / count each.
    pub(super) fn random_energy(&self) -> f64 {
        self.sum_of_squares / self.count as f64
    }
}

impl Tradeoff {
    /// Adds one direction of the pencil, of eigenvalue `l`, along which the way D has the square `e` in the utility metric.
    pub(super) fn add_direction(&mut self, l: f64, e: f64, sigma: f64) {
        *self += Tradeoff {
            utility: sigma * sigma * e,
            utility_of_target: e,
            safety: l * (1.0 - sigma).powi(2) * e,
            safety_of_utility: l * e,
        };
    }
}

impl AddAssign for Tradeoff {
    fn add_assign(&mut self, other: Self) {
        self.utility += other.utility;
        self.utility_of_target += other.utility_of_target;
        self.safety += other.safety;
        self.safety_of_utility += other.safety_of_utility;
    }
}

/// Sums modules up; one whose part is not known makes the whole unknown.
#[derive(Debug)]
pub(super) struct ReportBuilder {
    report: SstReport,
    kept: f64,
    by_chance: Option<f64>,
    total: f64,
    curve: Option<Vec<Tradeoff>>,
}

impl ReportBuilder {
    pub fn new(sides: Sides) -> Self {
        Self {
            report: SstReport {
                sides,
                retained_energy: None,
                random_energy: None,
                effective_directions: Some(0.0),
                tradeoff: Some(Tradeoff::default()),
                curve: Vec::new(),
                modules: BTreeMap::new(),
            },
            kept: 0.0,
            by_chance: Some(0.0),
            total: 0.0,
            curve: Some(vec![Tradeoff::default(); MULTIPLES.len()]),
        }
    }

    /// Adds a module: ||P S||^2, ||S||^2 and what its filter says.
    pub fn add(
        &mut self,
        path: ModulePath,
        gamma: Option<f64>,
        (kept, total): (f64, f64),
        sigma: Option<Sigma>,
        tradeoff: Option<Tradeoff>,
        curve: Vec<Tradeoff>,
    ) {
        let by_chance = sigma.as_ref().map(Sigma::random_energy);
        self.kept += kept;
        self.total += total;
        self.by_chance = self.by_chance.zip(by_chance).map(|(sum, x)| sum + x * total);
        let directions = &mut self.report.effective_directions;
        *directions = directions.zip(sigma.as_ref()).map(|(sum, sigma)| sum + sigma.sum);
        self.report.tradeoff = self.report.tradeoff.zip(tradeoff).map(|(mut sum, x)| {
            sum += x;
            sum
        });
        self.curve = self.curve.take().filter(|sums| sums.len() == curve.len());
        self.curve
            .iter_mut()
            .flatten()
            .zip(curve)
            .for_each(|(sum, x)| *sum += x);
        let module = SstModule {
            gamma,
            retained_energy: (total > 0.0).then(|| kept / total),
            random_energy: by_chance,
            sigma,
            tradeoff,
        };
        self.report.modules.insert(path, module);
    }

    pub fn finish(self) -> SstReport {
        let share = |x: f64| (self.total > 0.0).then(|| x / self.total);
        let points = MULTIPLES.iter().zip(self.curve.into_iter().flatten());
        SstReport {
            retained_energy: share(self.kept),
            random_energy: self.by_chance.and_then(share),
            curve: points
                .map(|(&multiple, tradeoff)| CurvePoint { multiple, tradeoff })
                .collect(),
            ..self.report
        }
    }
}
