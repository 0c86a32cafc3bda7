//! Sums over a spectrum that is never listed: trace, both effective ranks, and where the mass lies.
//!
//! With T = sum x, S = sum x ln x and Q = sum x^2 over the eigenvalues x, the effective rank is exp(ln T - S / T) and the
//! participation ratio T^2 / Q. Of the products mu_i lambda_j the sums are T = M L, Q = Q_mu Q_lambda and
//! S = L S_mu + M S_lambda, so that a module of d_out d_in eigenvalues costs d_out + d_in.

use serde::Serialize;
use sst_adapter::ModulePath;

/// T, S and Q.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Mass {
    pub trace: f64,
    entropy: f64,
    squares: f64,
}

impl Mass {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut mass = Self::default();
        for x in values {
            mass.trace += x;
            mass.squares += x * x;
            mass.entropy += if x > 0.0 { x * x.ln() } else { 0.0 };
        }
        mass
    }

    /// Of all products of two spectra.
    pub fn times(&self, other: &Self) -> Self {
        Self {
            trace: self.trace * other.trace,
            entropy: other.trace * self.entropy + self.trace * other.entropy,
            squares: self.squares * other.squares,
        }
    }

    /// Of both spectra together.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            trace: self.trace + other.trace,
            entropy: self.entropy + other.entropy,
            squares: self.squares + other.squares,
        }
    }

    /// None for a spectrum of zeros.
    pub fn effective_rank(&self) -> Option<f64> {
        (self.trace > 0.0).then(|| (self.trace.ln() - self.entropy / self.trace).exp())
    }

    /// None for a spectrum of zeros.
    pub fn participation_ratio(&self) -> Option<f64> {
        (self.squares > 0.0).then(|| self.trace * self.trace / self.squares)
    }
}

/// What a group of modules holds of the whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    /// `q_proj`, or the number of the layer.
    pub name: String,
    /// Dimension of the Fisher on them.
    pub parameters: u64,
    /// Their part of the trace.
    pub trace: f64,
    /// The same over the whole trace; 0 when that is 0.
    pub share: f64,
}

/// Adds up the modules of each group; groups in the order in which they first come.
pub(super) fn shares(modules: &[(ModulePath, u64, f64)], group: impl Fn(&ModulePath) -> Option<String>) -> Vec<Share> {
    let total: f64 = modules.iter().map(|(_, _, trace)| trace).sum();
    let mut shares: Vec<Share> = Vec::new();
    for (module, parameters, trace) in modules {
        let Some(name) = group(module) else { continue };
        let at = shares.iter().position(|share| share.name == name).unwrap_or_else(|| {
            let (parameters, trace, share) = (0, 0.0, 0.0);
            shares.push(Share {
                name,
                parameters,
                trace,
                share,
            });
            shares.len() - 1
        });
        shares[at].parameters += parameters;
        shares[at].trace += trace;
    }
    for share in shares.iter_mut().filter(|_| total > 0.0) {
        share.share = share.trace / total;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{effective_rank, participation_ratio};

    #[test]
    fn sums_of_products_are_those_of_the_listed_products() {
        let (mu, lambda, more) = ([3.0, 0.5, 0.0], [1e-9, 2e-12, 7e-10], [4e-9]);
        let listed: Vec<f64> = mu.iter().flat_map(|m| lambda.map(|l| m * l)).chain(more).collect();
        let mass = Mass::of(mu).times(&Mass::of(lambda)).plus(&Mass::of(more));
        for (got, want) in [
            (mass.effective_rank(), effective_rank(&listed).unwrap()),
            (mass.participation_ratio(), participation_ratio(&listed).unwrap()),
            (Some(mass.trace), listed.iter().sum()),
        ] {
            // ln T - S / T cancels ln of 1e-9, about 20, to about 1.
            assert!((got.unwrap() - want).abs() <= 1e-13 * want, "{got:?} {want}");
        }
        assert_eq!(Mass::of([0.0]).effective_rank(), None);
    }

    #[test]
    fn groups_add_up_and_keep_their_order() {
        let module = |path: &str, n, trace| (ModulePath::new(path), n, trace);
        let modules = [
            module("layers.0.q_proj", 2, 1.0),
            module("layers.0.k_proj", 3, 3.0),
            module("layers.1.q_proj", 2, 4.0),
            module("lm_head", 5, 0.0),
        ];
        let kinds = shares(&modules, |m| Some(m.name().to_owned()));
        let kinds: Vec<_> = kinds.iter().map(|s| (s.name.as_str(), s.parameters, s.share)).collect();
        assert_eq!(kinds, [("q_proj", 4, 0.625), ("k_proj", 3, 0.375), ("lm_head", 5, 0.0)]);
        let layers = shares(&modules, |m| m.layer().map(|l| l.to_string()));
        let layers: Vec<_> = layers.iter().map(|s| (s.name.as_str(), s.trace)).collect();
        assert_eq!(layers, [("0", 4.0), ("1", 4.0)]);
    }
}
