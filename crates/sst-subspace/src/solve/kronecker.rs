//! The k largest products mu_i lambda_j over all modules of Kronecker-factored Fishers, one module at a time.
//!
//! Layers that read the same input share A in both Fishers: it is solved once for all of them.

use super::contest::Contest;
use super::{Factors, KroneckerPair, Sides};
use crate::gevp::{FactorEigen, KroneckerEigen, top_products};
use crate::{Error, KroneckerBasis, KroneckerDirections, KroneckerFisher, Selection};
use std::collections::BTreeMap;

/// Solves every module of both sides and keeps the k largest products over all of them: [`KroneckerPair::basis`].
///
/// # Errors
/// As [`KroneckerPair::new`] and [`KroneckerPair::basis`].
pub fn kronecker_basis(
    safety: &KroneckerFisher,
    utility: &[KroneckerFisher],
    k: usize,
    ridge: f64,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<KroneckerBasis, Error> {
    KroneckerPair::new(safety, utility.iter().collect())?.basis(k, ridge, Sides::Both, progress)
}

impl KroneckerPair<'_> {
    /// Solves every module and keeps the k largest products over all of them, of `Sides::Input` the k largest lambda_j;
    /// `progress` is told the modules done and their number. Memory: two modules' factors and eigenvectors, and the
    /// vectors of k directions.
    ///
    /// # Errors
    /// The errors of [`kronecker`](crate::gevp::kronecker) and of the factors; [`Error::Directions`] when k is 0 or more
    /// than there are products.
    pub fn basis(
        &self,
        k: usize,
        ridge: f64,
        sides: Sides,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<KroneckerBasis, Error> {
        let modules: Vec<_> = self.modules().collect();
        let mut counts = Vec::with_capacity(modules.len()); // products of each module
        for module in &modules {
            let [d_out, d_in] = self.shape(module)?;
            counts.push(match sides {
                Sides::Input => d_in,
                Sides::Both => d_out * d_in,
            });
        }
        let available: usize = counts.iter().sum();
        if k == 0 || k > available {
            return Err(Error::Directions { k, available });
        }
        let mut contest = Contest::new(k);
        let mut kept: BTreeMap<usize, (KroneckerDirections, f64)> = BTreeMap::new(); // by module, with the residual
        let mut clamped: f64 = 0.0;
        // The last A with its solution, and whose it is.
        let mut solved: Option<(Vec<_>, Factors, FactorEigen)> = None;
        for (m, module) in modules.iter().enumerate() {
            let owners = self.input_owners(module)?;
            let known = solved.take().filter(|(same, ..)| *same == owners);
            let solve_input = || match known {
                Some((_, factors, eigen)) => Ok((factors, eigen)),
                None => {
                    let factors = self.input(module)?;
                    let eigen = factors.solve(module, "input", ridge)?;
                    Ok::<_, Error>((factors, eigen))
                }
            };
            let output = match sides {
                Sides::Input => None,
                Sides::Both => Some(self.output(module)?),
            };
            let solve_output = || {
                output
                    .as_ref()
                    .map(|factors| factors.solve(module, "output", ridge))
                    .transpose()
            };
            let (input, output_eigen) = rayon::join(solve_input, solve_output);
            let (input, input_eigen) = input?;
            let eigen = KroneckerEigen {
                input: input_eigen,
                output: output_eigen?,
            };
            let output = output.as_ref().map(|factors| factors.pair());
            clamped = clamped.min(eigen.input.clamped);
            clamped = eigen.output.iter().fold(clamped, |least, side| least.min(side.clamped));
            let products =
                top_products(&[eigen.spectrum()], k.min(counts[m])).map_err(Error::in_module(module.as_str()))?;
            let admitted = contest.enter(m, products.iter().map(|p| p.value));
            let products = &products[..admitted];
            if admitted > 0 {
                let pairs: Vec<_> = products.iter().map(|p| (p.output, p.input)).collect();
                let residual = eigen.residual(input.pair(), output, &pairs)?;
                let directions = KroneckerDirections::new(&eigen, input.pair(), output, products)?;
                kept.insert(m, (directions, residual));
            }
            kept.retain(|earlier, (directions, _)| {
                let count = contest.count(*earlier);
                if 0 < count && count < directions.chosen.len() {
                    *directions = directions.truncate(count);
                }
                count > 0
            });
            solved = Some((owners, input, eigen.input));
            progress(m + 1, modules.len());
        }
        let selection = Selection::TopProducts {
            ridge,
            available: available as u64,
            residual: kept.values().map(|(_, residual)| *residual).fold(0.0, largest),
            clamped,
        };
        let directions = kept
            .into_iter()
            .map(|(m, (directions, _))| (modules[m].clone(), directions));
        KroneckerBasis::new(directions.collect(), selection)
    }
}

/// `max` would drop a NaN.
pub(super) fn largest(x: f64, y: f64) -> f64 {
    if y > x || y.is_nan() { y } else { x }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{DOWN, K, Q, draw, kron as made_up};
    use super::*;
    use crate::KroneckerFactors;
    use crate::gevp::{DenseEigen, dense};
    use ndarray::linalg::kron;
    use ndarray::{Array1, Array2, s};
    use sst_adapter::ModulePath;

    const RIDGE: f64 = 1e-2;

    /// The whole problem of one layer, with the factors of two utility Fishers averaged.
    fn brute_force(
        safety: &KroneckerFisher,
        utility: &[KroneckerFisher; 2],
        module: &str,
    ) -> (DenseEigen, Array2<f64>) {
        let module = module.into();
        let [x, y] = utility.each_ref().map(|fisher| fisher.factors(&module).unwrap());
        let ridged = |x: Array2<f64>, y: Array2<f64>| {
            let mean = 0.5 * (x + y);
            let eps = RIDGE * mean.diag().mean().unwrap();
            let n = mean.nrows();
            mean + eps * Array2::<f64>::eye(n)
        };
        let b = kron(&ridged(x.output, y.output), &ridged(x.input, y.input));
        let f_s = safety.factors(&module).unwrap();
        let f_s = kron(&f_s.output, &f_s.input);
        (dense(f_s.view(), b.view(), 0.0).unwrap(), b)
    }

    #[test]
    fn keeps_the_top_k_of_the_dense_problems_of_all_layers() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| dir.path().join(name);
        let safety = made_up(&folder("s"), 1, true);
        let utility = [made_up(&folder("u"), 30, true), made_up(&folder("v"), 60, true)];
        let brute = [Q, K, DOWN].map(|module| (module, brute_force(&safety, &utility, module)));
        let mut values: Vec<f64> = brute.iter().flat_map(|(_, (eigen, _))| eigen.values.to_vec()).collect();
        values.sort_by(|x, y| y.total_cmp(x));
        for k in [1, 5, 17, values.len()] {
            let mut seen = Vec::new();
            let basis = kronecker_basis(&safety, &utility, k, RIDGE, &mut |done, of| seen.push((done, of))).unwrap();
            assert_eq!(seen, [(1, 3), (2, 3), (3, 3)]);
            let got = basis.eigenvalues();
            assert_eq!(got.len(), k);
            for (got, want) in got.iter().zip(&values) {
                assert!((got - want).abs() <= 1e-12 * values[0], "{got:e} {want:e}");
            }
            for (i, (module, (eigen, b))) in brute.iter().enumerate() {
                let module = ModulePath::new(*module);
                let [d_out, d_in] = safety.shape(&module).unwrap();
                let delta = draw(d_out, d_in, 90 + i as u64);
                let count = eigen
                    .values
                    .iter()
                    .filter(|x| **x >= values[k - 1] * (1.0 - 1e-9))
                    .count();
                let x = eigen.vectors.slice(s![.., ..count]);
                let want = x.dot(&x.t().dot(&b.dot(&Array1::from_iter(delta.iter().copied()))));
                let got = basis.project(&module, delta.view()).unwrap();
                let size = want.iter().chain(&delta).fold(0.0, |max: f64, x| max.max(x.abs()));
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() <= 1e-10 * size, "{module} k = {k}: {got} {want}");
                }
            }
            let Selection::TopProducts {
                residual, available, ..
            } = basis.selection()
            else {
                panic!("{:?}", basis.selection())
            };
            assert!(*residual <= 1e-14 && *available == 51, "{residual:e} {available}");
        }
        for k in [0, 52] {
            let error = kronecker_basis(&safety, &utility, k, RIDGE, &mut |_, _| ()).unwrap_err();
            assert!(matches!(error, Error::Directions { available: 51, .. }), "{error}");
        }
    }

    #[test]
    fn a_shared_input_is_solved_as_if_every_layer_had_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let solve = |shared: [bool; 2]| {
            let safety = made_up(&dir.path().join(format!("s{}", shared[0])), 1, shared[0]);
            let utility = [made_up(&dir.path().join(format!("u{}", shared[1])), 30, shared[1])];
            kronecker_basis(&safety, &utility, 9, RIDGE, &mut |_, _| ()).unwrap()
        };
        let own = solve([false, false]);
        assert_eq!(solve([true, true]), own);
        assert_eq!(solve([true, false]), own);
    }

    #[test]
    fn the_input_side_alone_keeps_the_largest_lambdas_of_all_layers() {
        let dir = tempfile::tempdir().unwrap();
        let (safety, utility) = (
            made_up(&dir.path().join("s"), 1, true),
            made_up(&dir.path().join("u"), 30, true),
        );
        let pair = KroneckerPair::new(&safety, vec![&utility]).unwrap();
        let mut all = Vec::new();
        for module in pair.modules() {
            let (a_s, a_u) = (
                safety.factors(module).unwrap().input,
                utility.factors(module).unwrap().input,
            );
            let eps = RIDGE * a_u.diag().mean().unwrap();
            all.extend(dense(a_s.view(), a_u.view(), eps).unwrap().values);
        }
        all.sort_by(|x, y| y.total_cmp(x));
        assert_eq!(all.len(), 15); // d_in 6, 6 and 3
        for k in [1, 8, 15] {
            let basis = pair.basis(k, RIDGE, Sides::Input, &mut |_, _| ()).unwrap();
            assert!(basis.modules().values().all(|directions| directions.output.is_none()));
            for (got, want) in basis.eigenvalues().iter().zip(&all[..k]) {
                assert!((got - want).abs() <= 1e-12 * all[0], "{got:e} {want:e}");
            }
        }
        let error = pair.basis(16, RIDGE, Sides::Input, &mut |_, _| ()).unwrap_err();
        assert!(matches!(error, Error::Directions { available: 15, .. }), "{error}");
    }

    #[test]
    fn foreign_fishers_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let safety = made_up(&dir.path().join("s"), 1, true);
        let one = |input: usize| {
            let factors = KroneckerFactors {
                input: Array2::eye(input),
                output: Array2::eye(4),
            };
            let folder = dir.path().join(format!("one{input}"));
            let only = BTreeMap::from([(Q.into(), factors)]);
            KroneckerFisher::save(&folder, &safety.meta, &only, BTreeMap::new()).unwrap();
            KroneckerFisher::load(&folder).unwrap()
        };
        for (utility, expected) in [
            (one(6), "layers.0.k_proj: is no module of this Fisher"),
            (
                one(7),
                "module layers.0.q_proj: layers of the safety and the utility Fisher: [4, 6] and [4, 7]",
            ),
        ] {
            let error = kronecker_basis(&safety, &[utility], 1, RIDGE, &mut |_, _| ()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let mut other = made_up(&dir.path().join("o"), 2, true);
        other.meta.protocol = "legacy-prompt".into();
        let utility = [made_up(&dir.path().join("u"), 2, true), other];
        let error = kronecker_basis(&safety, &utility, 1, RIDGE, &mut |_, _| ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Fishers differ in protocol: response and legacy-prompt"
        );
    }
}
