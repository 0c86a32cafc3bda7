//! The k largest eigenvalues over all modules of per-sample gradients, one module at a time.
//!
//! Several utility Fishers are one of more samples: with N = N_1 + ... + N_m and the rows of G_i scaled by
//! s_i = sqrt(N / (m N_i)), the stacked gradients have F_u = G^T G / N = (F_1 + ... + F_m) / m exactly.

use super::contest::Contest;
use super::kronecker::largest;
use crate::fisher::check_setting;
use crate::gevp::{SampleGrams, mean_eigenvalue, samples};
use crate::{
    BootstrapConfig, Error, SampleBasis, SampleDirections, SampleFisher, Selection, Spectrum, Stability, bootstrap,
};
use ndarray::{Array2, s};
use sst_adapter::ModulePath;
use std::collections::BTreeMap;

/// A safety Fisher against the mean of some utility Fishers.
#[derive(Debug)]
pub struct SamplePair<'a> {
    safety: &'a SampleFisher,
    utility: &'a [SampleFisher],
    /// s_i.
    scales: Vec<f64>,
}

/// What a module has in the contest.
struct Candidate {
    values: Vec<f64>,
    /// C_s, `[N_s, k_m]`.
    safety: Array2<f64>,
    /// C_u, `[N_u, k_m]`.
    utility: Array2<f64>,
}

impl<'a> SamplePair<'a> {
    /// Takes Fishers of the same parameters.
    ///
    /// # Errors
    /// [`Error::NoFisher`]; [`Error::FisherMeta`] for utility Fishers that were not estimated alike; [`Error::Layout`].
    pub fn new(safety: &'a SampleFisher, utility: &'a [SampleFisher]) -> Result<Self, Error> {
        let (first, rest) = utility.split_first().ok_or(Error::NoFisher)?;
        for other in rest {
            first.meta.check_alike(&other.meta, &["seed", "stack", "parameters"])?;
        }
        for fisher in utility {
            let names = ("the safety Fisher", "the utility Fisher");
            safety.layout().ensure_same(fisher.layout(), names)?;
        }
        let total: usize = utility.iter().map(SampleFisher::samples).sum();
        let scale = |fisher: &SampleFisher| (total as f64 / (utility.len() * fisher.samples()) as f64).sqrt();
        Ok(Self {
            safety,
            utility,
            scales: utility.iter().map(scale).collect(),
        })
    }

    /// `ridge` times the mean eigenvalue of F_u over all modules.
    ///
    /// # Errors
    /// [`Error::Setting`] for the ridge, [`Error::Trace`] when F_u is 0, a file that cannot be read.
    pub fn eps(&self, ridge: f64) -> Result<f64, Error> {
        check_setting("ridge", ridge)?;
        let mut trace = 0.0;
        for (module, _) in self.safety.modules() {
            for fisher in self.utility {
                let samples = (self.utility.len() * fisher.samples()) as f64;
                trace += fisher.gram(module)?.diag().sum() / samples;
            }
        }
        if trace > 0.0 {
            Ok(ridge * mean_eigenvalue(trace, self.safety.layout().len()))
        } else {
            Err(Error::Trace { value: trace })
        }
    }

    /// Inner products of one module's gradients; those between safety and utility are computed here.
    ///
    /// # Errors
    /// [`Error::Content`] for an unknown module or an entry that is not finite.
    pub fn grams(&self, module: &ModulePath, parameters: usize) -> Result<SampleGrams, Error> {
        let n_u = self.utility.iter().map(SampleFisher::samples).sum();
        let mut cross = Array2::zeros((self.safety.samples(), n_u));
        let mut utility = Array2::zeros((n_u, n_u));
        for (i, row) in self.blocks() {
            let block = self.scales[i] * self.safety.cross_gram(&self.utility[i], module)?;
            cross.slice_mut(s![.., row.clone()]).assign(&block);
            let block = self.scales[i].powi(2) * self.utility[i].gram(module)?;
            utility.slice_mut(s![row.clone(), row.clone()]).assign(&block);
            for (j, column) in self.blocks().take(i) {
                let block = self.scales[i] * self.scales[j] * self.utility[i].cross_gram(&self.utility[j], module)?;
                utility.slice_mut(s![row.clone(), column.clone()]).assign(&block);
                utility.slice_mut(s![column, row.clone()]).assign(&block.t());
            }
        }
        Ok(SampleGrams {
            module: module.as_str().to_owned(),
            safety: self.safety.gram(module)?,
            cross,
            utility,
            parameters,
        })
    }

    /// Solves every module and keeps the k largest eigenvalues over all of them; `progress` is told the modules done and
    /// their number. Memory: one module's inner products, and k directions.
    ///
    /// # Errors
    /// [`Error::Directions`] when k is 0 or more than there are eigenvalues above rounding; the errors of
    /// [`samples`](crate::gevp::samples).
    pub fn basis(&self, k: usize, eps: f64, progress: &mut dyn FnMut(usize, usize)) -> Result<SampleBasis, Error> {
        if k == 0 {
            let available = self.safety.layout().len();
            return Err(Error::Directions { k, available });
        }
        let modules: Vec<(&ModulePath, usize)> = self.safety.modules().collect();
        let mut contest = Contest::new(k);
        let mut spectrum = Vec::new();
        let mut kept: BTreeMap<usize, Candidate> = BTreeMap::new(); // by module
        let mut residual = 0.0;
        for (m, &(module, parameters)) in modules.iter().enumerate() {
            let eigen = samples(&self.grams(module, parameters)?, eps)?;
            residual = largest(residual, eigen.residual);
            spectrum.extend(eigen.values.iter().copied());
            let admitted = contest.enter(m, eigen.values.iter().copied().take(k));
            kept.insert(
                m,
                Candidate {
                    values: eigen.values.iter().copied().take(admitted).collect(),
                    safety: eigen.safety.slice(s![.., ..admitted]).to_owned(),
                    utility: eigen.utility.slice(s![.., ..admitted]).to_owned(),
                },
            );
            kept.retain(|earlier, candidate| {
                candidate.truncate(contest.count(*earlier));
                !candidate.values.is_empty()
            });
            progress(m + 1, modules.len());
        }
        let available = spectrum.len();
        if k > available {
            return Err(Error::Directions { k, available });
        }
        let mut directions = BTreeMap::new();
        for (m, candidate) in kept {
            let module = modules[m].0;
            directions.insert(module.clone(), self.directions(module, candidate)?);
        }
        let selection = Selection::TopSamples {
            eps,
            samples_safety: self.safety.samples() as u64,
            samples_utility: self.utility.iter().map(|fisher| fisher.samples() as u64).sum(),
            residual,
            spectrum: Spectrum::of(spectrum),
        };
        SampleBasis::new(self.safety.layout().clone(), directions, selection)
    }

    /// How stable the top k is; several utility Fishers are resampled as one set. Memory: all modules' inner products.
    ///
    /// # Errors
    /// As [`bootstrap`](crate::bootstrap).
    pub fn stability(&self, config: &BootstrapConfig) -> Result<Stability, Error> {
        let modules = self.safety.modules();
        let grams = modules.map(|(module, parameters)| self.grams(module, parameters));
        bootstrap(&grams.collect::<Result<Vec<_>, _>>()?, config)
    }

    /// V = G_s^T C_s + sum_i s_i G_i^T C_i, `[n_m, k_m]`.
    fn directions(&self, module: &ModulePath, candidate: Candidate) -> Result<SampleDirections, Error> {
        let mut vectors = self.safety.combine(module, candidate.safety.view())?;
        for (i, rows) in self.blocks() {
            let part = self.utility[i].combine(module, candidate.utility.slice(s![rows, ..]))?;
            vectors.scaled_add(self.scales[i], &part);
        }
        Ok(SampleDirections {
            eigenvalues: candidate.values,
            vectors,
        })
    }

    /// Each utility Fisher with its rows among all of them.
    fn blocks(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let mut end = 0;
        self.utility.iter().enumerate().map(move |(i, fisher)| {
            let start = end;
            end += fisher.samples();
            (i, start..end)
        })
    }
}

impl Candidate {
    fn truncate(&mut self, count: usize) {
        if count < self.values.len() {
            self.values.truncate(count);
            self.safety = self.safety.slice(s![.., ..count]).to_owned();
            self.utility = self.utility.slice(s![.., ..count]).to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{DOWN, Q, gradients, layout, samples as made_up};
    use super::*;
    use crate::gevp::dense;
    use crate::principal_angles;

    const RIDGE: f64 = 0.1;

    /// Twenty and six parameters, 4 safety samples, 5 and 3 utility samples.
    #[test]
    fn keeps_the_top_k_of_the_dense_problems_of_all_modules() {
        let dir = tempfile::tempdir().unwrap();
        let safety = made_up(&dir.path().join("s"), 4, 1);
        let utility = [
            made_up(&dir.path().join("u"), 5, 30),
            made_up(&dir.path().join("v"), 3, 60),
        ];
        let pair = SamplePair::new(&safety, &utility).unwrap();
        let fisher = |module: &str, n: usize, seed| {
            let g = gradients(module, n, seed);
            g.t().dot(&g) / n as f64
        };
        let dense_fishers = [Q, DOWN].map(|module| {
            let f_u = 0.5 * (fisher(module, 5, 30) + fisher(module, 3, 60));
            (module, fisher(module, 4, 1), f_u)
        });
        let trace: f64 = dense_fishers.iter().map(|(_, _, f_u)| f_u.diag().sum()).sum();
        let eps = pair.eps(RIDGE).unwrap();
        assert!((eps - RIDGE * trace / 26.0).abs() <= 1e-14 * eps);
        let brute = dense_fishers.map(|(module, f_s, f_u)| (module, dense(f_s.view(), f_u.view(), eps).unwrap()));
        let mut values: Vec<f64> = brute.iter().flat_map(|(_, eigen)| eigen.values.to_vec()).collect();
        values.sort_by(|x, y| y.total_cmp(x));
        for k in 1..=8 {
            let basis = pair.basis(k, eps, &mut |_, _| ()).unwrap();
            for (got, want) in basis.eigenvalues().iter().zip(&values) {
                assert!((got - want).abs() <= 1e-10 * values[0], "{got:e} {want:e}");
            }
            assert_eq!(basis.k(), k);
            for (module, eigen) in &brute {
                let count = eigen
                    .values
                    .iter()
                    .filter(|x| **x >= values[k - 1] * (1.0 - 1e-9))
                    .count();
                let found = basis.modules().find(|(m, _)| m.as_str() == *module);
                assert_eq!(
                    found.map_or(0, |(_, own)| own.eigenvalues.len()),
                    count,
                    "{module} k = {k}"
                );
                if let Some((_, own)) = found {
                    let want = eigen.vectors.slice(s![.., ..count]);
                    let angles = principal_angles(own.vectors.view(), want).unwrap();
                    assert!(
                        angles.iter().all(|angle| *angle <= 1e-7),
                        "{module} k = {k}: {angles:?}"
                    );
                }
            }
        }
        for k in [0, 9] {
            let error = pair.basis(k, eps, &mut |_, _| ()).unwrap_err();
            assert!(matches!(error, Error::Directions { .. }), "{error}");
        }
        let config = BootstrapConfig {
            k: 3,
            eps,
            resamples: 20,
            seed: 5,
        };
        let stability = pair.stability(&config).unwrap();
        assert_eq!(stability.random, 3.0 / layout().len() as f64);
        assert!(
            stability.mean > stability.random && stability.mean <= 1.0,
            "{stability:?}"
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let fisher = made_up(&dir.path().join("s"), 4, 1);
        assert!(matches!(SamplePair::new(&fisher, &[]), Err(Error::NoFisher)));
        let mut other = made_up(&dir.path().join("o"), 4, 2);
        other.meta.labels = crate::Labels::Sampled { seed: 1 };
        let utility = [made_up(&dir.path().join("u"), 4, 3), other];
        let message = SamplePair::new(&fisher, &utility).unwrap_err().to_string();
        assert!(message.starts_with("Fishers differ in labels"), "{message}");
        let utility = [made_up(&dir.path().join("v"), 4, 3)];
        let pair = SamplePair::new(&fisher, &utility).unwrap();
        let error = pair.eps(f64::NAN).unwrap_err();
        assert!(matches!(error, Error::Setting { name: "ridge", .. }), "{error}");
        let error = pair.basis(1, 0.0, &mut |_, _| ()).unwrap_err();
        assert!(error.to_string().contains("must be finite and positive"), "{error}");
    }
}
