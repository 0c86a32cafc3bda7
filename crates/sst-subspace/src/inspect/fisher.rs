//! A Fisher of any family by its eigenvalues.
//!
//! | family | eigenvalues |
//! | --- | --- |
//! | diagonal | the entries, without the ridge |
//! | `kron` | mu_i lambda_j of every module's G and A |
//! | `samples` | those of G_m G_m^T / N of every module; the other n - N of each are 0 |

use super::mass::{Mass, Share, shares};
use crate::decompose::symmetric_eigen;
use crate::gevp::gram_spectrum;
use crate::spectrum::EDGE;
use crate::{DiagonalFisher, Error, Fisher, KroneckerFisher, SampleFisher, Spectrum};
use ndarray::Array2;
use serde::Serialize;
use sst_adapter::ModulePath;
use std::collections::BTreeMap;

/// The numbers of a Fisher.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FisherSummary {
    /// Its dimension: entries of phi, or of all dW for `kron`.
    pub parameters: u64,
    /// The eigenvalues; no quantiles for `kron`, whose products are never listed.
    pub spectrum: Spectrum,
    /// exp of the entropy of the normalised spectrum; none for a Fisher of zeros.
    pub effective_rank: Option<f64>,
    /// tr(F)^2 / tr(F^2); none for a Fisher of zeros.
    pub participation_ratio: Option<f64>,
    /// Mass per kind of module, `q_proj` and so on.
    pub kinds: Vec<Share>,
    /// Mass per layer; modules outside any layer are left out.
    pub layers: Vec<Share>,
    /// Diagonals: share of the entries below the estimator's ridge, where a ratio hardly sees them.
    pub share_below_ridge: Option<f64>,
}

impl FisherSummary {
    /// Reads the whole Fisher once; `progress` is told the modules done and their number.
    ///
    /// `kron` decomposes every factor, O(d^3) each, an A that several layers share only once.
    ///
    /// # Errors
    /// A factor or Gram matrix that is not finite, or has an eigenvalue more negative than rounding explains.
    pub fn of(fisher: &Fisher, progress: &mut dyn FnMut(usize, usize)) -> Result<Self, Error> {
        match fisher {
            Fisher::Diagonal(fisher) => Ok(diagonal(fisher)),
            Fisher::Kronecker(fisher) => kronecker(fisher, progress),
            Fisher::Samples(fisher) => samples(fisher, progress),
        }
    }

    /// `modules` are paths, dimensions and traces.
    fn new(spectrum: Spectrum, mass: Mass, modules: &[(ModulePath, u64, f64)]) -> Self {
        Self {
            parameters: modules.iter().map(|(_, parameters, _)| parameters).sum(),
            spectrum,
            effective_rank: mass.effective_rank(),
            participation_ratio: mass.participation_ratio(),
            kinds: shares(modules, |module| Some(module.name().to_owned())),
            layers: shares(modules, |module| module.layer().map(|layer| layer.to_string())),
            share_below_ridge: None,
        }
    }
}

fn diagonal(fisher: &DiagonalFisher) -> FisherSummary {
    let values: Vec<f64> = fisher.values.iter().map(|x| f64::from(*x)).collect();
    let slots = fisher.layout.slots().iter();
    let modules = slots.map(|slot| (slot.module(), slot.len() as u64, values[slot.range()].iter().sum()));
    let (modules, mass): (Vec<_>, _) = (modules.collect(), Mass::of(values.iter().copied()));
    FisherSummary {
        share_below_ridge: Some(fisher.share_below(fisher.meta.ridge)),
        ..FisherSummary::new(Spectrum::of(values), mass, &modules)
    }
}

fn samples(fisher: &SampleFisher, progress: &mut dyn FnMut(usize, usize)) -> Result<FisherSummary, Error> {
    let (mut all, mut mass, mut modules) = (Vec::new(), Mass::default(), Vec::new());
    let count = fisher.modules().count();
    for (done, (module, width)) in fisher.modules().enumerate() {
        let values = gram_spectrum(fisher.gram(module)?.view()).map_err(Error::in_module(module.as_str()))?;
        let own = Mass::of(values.iter().copied());
        modules.push((module.clone(), width as u64, own.trace));
        mass = mass.plus(&own);
        all.extend(values);
        progress(done + 1, count);
    }
    Ok(FisherSummary::new(Spectrum::of(all), mass, &modules))
}

/// Every product among the k largest, or smallest, is one of the k largest, or smallest, of either side.
fn kronecker(fisher: &KroneckerFisher, progress: &mut dyn FnMut(usize, usize)) -> Result<FisherSummary, Error> {
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    let (mut mass, mut modules) = (Mass::default(), Vec::new());
    let mut inputs: BTreeMap<&ModulePath, Vec<f64>> = BTreeMap::new();
    let count = fisher.modules().count();
    for (done, module) in fisher.modules().enumerate() {
        let factors = fisher.factors(module)?;
        let input = fisher.input(module)?;
        if !inputs.contains_key(input) {
            let values = eigenvalues(&factors.input).map_err(Error::in_factor(input.as_str(), "input"))?;
            inputs.insert(input, values);
        }
        let lambda = &inputs[input];
        let mu = eigenvalues(&factors.output).map_err(Error::in_factor(module.as_str(), "output"))?;
        let products = |mu: &[f64], lambda: &[f64]| -> Vec<f64> {
            mu.iter().flat_map(|m| lambda.iter().map(move |l| m * l)).collect()
        };
        let (m, l) = (mu.len().min(EDGE), lambda.len().min(EDGE));
        head.extend(products(&mu[..m], &lambda[..l]));
        tail.extend(products(&mu[mu.len() - m..], &lambda[lambda.len() - l..]));
        for edge in [&mut head, &mut tail] {
            edge.sort_by(|x, y| y.total_cmp(x));
        }
        head.truncate(EDGE);
        tail.drain(..tail.len().saturating_sub(EDGE));
        let own = Mass::of(mu.iter().copied()).times(&Mass::of(lambda.iter().copied()));
        modules.push((module.clone(), (mu.len() * lambda.len()) as u64, own.trace));
        mass = mass.plus(&own);
        progress(done + 1, count);
    }
    let spectrum = Spectrum {
        count: modules.iter().map(|(_, parameters, _)| parameters).sum(),
        trace: mass.trace,
        head,
        tail,
        quantiles: Vec::new(),
    };
    Ok(FisherSummary::new(spectrum, mass, &modules))
}

/// Descending; those that single-precision storage made negative are 0.
fn eigenvalues(factor: &Array2<f64>) -> Result<Vec<f64>, Error> {
    let (values, _) = symmetric_eigen(factor.view())?; // ascending
    let norm = factor.iter().map(|x| x * x).sum::<f64>().sqrt();
    let allowed = -f64::from(f32::EPSILON) * norm;
    match values.first() {
        Some(&value) if value < allowed => Err(Error::Indefinite {
            matrix: "F",
            value,
            allowed,
        }),
        _ => Ok(values.into_iter().rev().map(|x| x.max(0.0)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::made_up::{self, DOWN, K, Q, gradients};
    use crate::{effective_rank, participation_ratio};
    use ndarray::linalg::kron;

    /// Against eigenvalues of whole matrices, in any order; `blocks` are the modules'.
    fn assert_spectrum(summary: &FisherSummary, blocks: &[(&str, Vec<f64>)]) {
        let mut all: Vec<f64> = blocks.iter().flat_map(|(_, values)| values.clone()).collect();
        all.sort_by(|x, y| y.total_cmp(x));
        let tolerance = 1e-12 * all[0];
        let close = |got: f64, want: f64| (got - want).abs() <= tolerance * all.len() as f64;
        assert_eq!(
            (summary.spectrum.head.len(), summary.spectrum.tail.len()),
            (EDGE.min(all.len()), EDGE.min(all.len()))
        );
        for (got, want) in summary.spectrum.head.iter().zip(&all) {
            assert!(close(*got, *want), "{got:e} {want:e}");
        }
        for (got, want) in summary.spectrum.tail.iter().rev().zip(all.iter().rev()) {
            assert!(close(*got, *want), "{got:e} {want:e}");
        }
        assert_eq!(summary.spectrum.count, all.len() as u64);
        let trace: f64 = all.iter().sum();
        assert!(close(summary.spectrum.trace, trace));
        let positive: Vec<f64> = all.iter().map(|x| x.max(0.0)).collect();
        for (got, want) in [
            (summary.effective_rank, effective_rank(&positive)),
            (summary.participation_ratio, participation_ratio(&positive)),
        ] {
            let want = want.unwrap();
            assert!((got.unwrap() - want).abs() <= 1e-9 * want, "{got:?} {want}");
        }
        for (name, values) in blocks {
            let (kind, own) = (name.rsplit('.').next().unwrap(), values.iter().sum::<f64>() / trace);
            let share = summary.kinds.iter().find(|share| share.name == kind).unwrap();
            assert!((share.share - own).abs() <= 1e-12, "{kind}: {} {own}", share.share);
        }
        let total: f64 = summary.layers.iter().map(|share| share.share).sum();
        assert!((total - 1.0).abs() <= 1e-12);
    }

    fn eigen(m: &Array2<f64>) -> Vec<f64> {
        symmetric_eigen(m.view()).unwrap().0
    }

    #[test]
    fn kronecker_factors_sum_up_as_their_product_does() {
        let dir = tempfile::tempdir().unwrap();
        let fisher = made_up::kron(dir.path(), 1, true);
        let blocks = [Q, K, DOWN].map(|module| {
            let factors = fisher.factors(&module.into()).unwrap();
            (module, eigen(&kron(&factors.output, &factors.input)))
        });
        let summary = FisherSummary::of(&Fisher::Kronecker(fisher), &mut |_, of| assert_eq!(of, 3)).unwrap();
        assert_spectrum(&summary, &blocks);
        assert_eq!(summary.parameters, 51);
    }

    #[test]
    fn gradients_sum_up_as_their_fisher_does() {
        let dir = tempfile::tempdir().unwrap();
        let fisher = made_up::samples(dir.path(), 4, 1);
        let blocks = [Q, DOWN].map(|module| {
            let g = gradients(module, 4, 1);
            let values = eigen(&(g.t().dot(&g) / 4.0));
            (module, values[values.len() - 4..].to_vec())
        });
        let summary = FisherSummary::of(&Fisher::Samples(fisher), &mut |_, _| ()).unwrap();
        assert_spectrum(&summary, &blocks);
        assert_eq!((summary.parameters, summary.share_below_ridge), (26, None));
    }

    #[test]
    fn a_diagonal_is_its_own_spectrum() {
        let dir = tempfile::tempdir().unwrap();
        let fisher = made_up::diagonal(dir.path(), 1);
        let values: Vec<f64> = fisher.values.iter().map(|x| f64::from(*x)).collect();
        let below = values.iter().filter(|x| **x < 1e-2).count() as f64 / 26.0;
        let fisher = DiagonalFisher {
            meta: crate::FisherMeta {
                ridge: 1e-2,
                ..fisher.meta
            },
            ..fisher
        };
        let summary = FisherSummary::of(&Fisher::Diagonal(fisher), &mut |_, _| ()).unwrap();
        assert_spectrum(&summary, &[(Q, values[..20].to_vec()), (DOWN, values[20..].to_vec())]);
        assert_eq!(summary.share_below_ridge, Some(below));
        assert!(
            below > 0.0 && below < 1.0,
            "the test needs entries on both sides: {below}"
        );
    }
}
