//! The k largest products mu_i lambda_j over all modules of Kronecker-factored Fishers, one module at a time.
//!
//! Of several utility Fishers the factors are averaged, A_u = mean A and G_u = mean G. The mean of the Fishers themselves,
//! mean (G (x) A), is no Kronecker product; both agree where the factors do.
//!
//! Layers that read the same input share A in both Fishers: it is solved once for all of them.

use super::contest::Contest;
use crate::gevp::{FactorPair, KroneckerEigen, solve_side, top_products};
use crate::{Error, KroneckerBasis, KroneckerDirections, KroneckerFactors, KroneckerFisher, Selection};
use sst_adapter::ModulePath;
use std::collections::BTreeMap;

/// Solves every module and keeps the k largest products over all of them; `progress` is told the modules done and their
/// number. Memory: two modules' factors and eigenvectors, and the vectors of k directions.
///
/// # Errors
/// [`Error::NoFisher`]; [`Error::FisherMeta`] for utility Fishers that were not estimated alike; [`Error::InModule`] for a
/// module that one Fisher lacks, or whose shapes differ; the errors of [`kronecker`](crate::gevp::kronecker);
/// [`Error::Directions`] when k is 0 or more than there are products.
pub fn kronecker_basis(
    safety: &KroneckerFisher,
    utility: &[KroneckerFisher],
    k: usize,
    ridge: f64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<KroneckerBasis, Error> {
    check_alike(safety, utility)?;
    let modules: Vec<&ModulePath> = safety.modules().collect();
    let mut available = 0;
    for module in &modules {
        let [d_out, d_in] = safety.shape(module)?;
        available += d_out * d_in;
    }
    if k == 0 || k > available {
        return Err(Error::Directions { k, available });
    }
    let mut contest = Contest::new(k);
    let mut kept: BTreeMap<usize, (KroneckerDirections, f64)> = BTreeMap::new(); // by module, with the residual
    let mut clamped: f64 = 0.0;
    let mut solved = None; // the last A's solution, and whose it is
    for (m, module) in modules.iter().enumerate() {
        let (f_s, f_u) = (safety.factors(module)?, mean_factors(utility, module)?);
        let (input, output) = (pair(&f_s, &f_u, |f| &f.input), pair(&f_s, &f_u, |f| &f.output));
        let shared = std::iter::once(safety).chain(utility).map(|fisher| fisher.input(module));
        let shared: Vec<&ModulePath> = shared.collect::<Result<_, _>>()?;
        let eigen = KroneckerEigen {
            input: match solved.take() {
                Some((owner, eigen)) if owner == shared => eigen,
                _ => solve_side(module.as_str(), "input", input, ridge)?,
            },
            output: Some(solve_side(module.as_str(), "output", output, ridge)?),
        };
        clamped = clamped.min(eigen.input.clamped);
        clamped = eigen.output.iter().fold(clamped, |least, side| least.min(side.clamped));
        let [d_out, d_in] = safety.shape(module)?;
        let products = top_products(&[eigen.spectrum()], k.min(d_out * d_in)).map_err(Error::in_module(module.as_str()))?;
        let admitted = contest.enter(m, products.iter().map(|p| p.value));
        let products = &products[..admitted];
        if admitted > 0 {
            let pairs: Vec<_> = products.iter().map(|p| (p.output, p.input)).collect();
            let residual = eigen.residual(input, Some(output), &pairs)?;
            kept.insert(m, (KroneckerDirections::new(&eigen, input, Some(output), products)?, residual));
        }
        kept.retain(|earlier, (directions, _)| {
            let count = contest.count(*earlier);
            if 0 < count && count < directions.chosen.len() {
                *directions = directions.truncate(count);
            }
            count > 0
        });
        solved = Some((shared, eigen.input));
        progress(m + 1, modules.len());
    }
    let selection = Selection::TopProducts {
        ridge,
        available: available as u64,
        residual: kept.values().map(|(_, residual)| *residual).fold(0.0, largest),
        clamped,
    };
    let directions = kept.into_iter().map(|(m, (directions, _))| (modules[m].clone(), directions));
    KroneckerBasis::new(directions.collect(), selection)
}

/// `max` would drop a NaN.
pub(super) fn largest(x: f64, y: f64) -> f64 {
    if y > x || y.is_nan() { y } else { x }
}

fn pair<'a>(
    safety: &'a KroneckerFactors,
    utility: &'a KroneckerFactors,
    side: impl Fn(&'a KroneckerFactors) -> &'a ndarray::Array2<f64>,
) -> FactorPair<'a> {
    FactorPair {
        safety: side(safety).view(),
        utility: side(utility).view(),
    }
}

/// One estimate on the utility side, and one set of modules and shapes on both.
fn check_alike(safety: &KroneckerFisher, utility: &[KroneckerFisher]) -> Result<(), Error> {
    let (first, rest) = utility.split_first().ok_or(Error::NoFisher)?;
    for other in rest {
        first.meta.check_alike(&other.meta, &["seed", "stack", "parameters"])?;
    }
    for fisher in utility {
        for module in safety.modules().chain(fisher.modules()) {
            let (left, right) = (safety.shape(module)?, fisher.shape(module)?);
            if left != right {
                let op = "layers of the safety and the utility Fisher";
                return Err(Error::in_module(module.as_str())(Error::Shapes { op, left, right }));
            }
        }
    }
    Ok(())
}

fn mean_factors(fishers: &[KroneckerFisher], module: &ModulePath) -> Result<KroneckerFactors, Error> {
    let (first, rest) = fishers.split_first().ok_or(Error::NoFisher)?;
    let mut mean = first.factors(module)?;
    for fisher in rest {
        let other = fisher.factors(module)?;
        mean.input += &other.input;
        mean.output += &other.output;
    }
    if !rest.is_empty() {
        mean.input /= fishers.len() as f64;
        mean.output /= fishers.len() as f64;
    }
    Ok(mean)
}
