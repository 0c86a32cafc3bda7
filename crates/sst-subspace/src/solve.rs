//! From Fisher folders to the safety subspace: the estimator decides the solver.
//!
//! | estimator | solver | eps | several utility Fishers |
//! | --- | --- | --- | --- |
//! | `diag`, `diag-variance` | [`gevp::diagonal`] | given | the mean of the diagonals |
//! | `kron` | [`kronecker_basis`] | `ridge` times each factor's mean eigenvalue | the means of the factors |
//! | `samples` | [`SamplePair`] | `ridge` times the mean eigenvalue of F_u over all modules | the mean of the Fishers |

mod contest;
mod kronecker;
mod kronecker_pair;
#[cfg(test)]
pub(crate) mod made_up;
mod samples;
mod subspace;

pub use kronecker::kronecker_basis;
pub use kronecker_pair::{Factors, KroneckerPair, Sides};
pub use samples::SamplePair;
pub use subspace::{SafetySubspace, SubspaceSummary};

use crate::fisher::{check_setting, read_meta};
use crate::{
    BootstrapConfig, DiagonalFisher, Error, Estimator, KroneckerFisher, RATIO_EPS, SampleFisher, Stability, gevp,
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The default of [`SubspaceConfig::ridge`].
pub const RELATIVE_RIDGE: f64 = 1e-2;

/// What is asked for; which settings apply is up to the Fishers' estimator.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SubspaceConfig {
    /// Number of directions.
    pub k: usize,
    /// Diagonals: added to the denominator on top of the estimator's ridge; [`RATIO_EPS`] if none.
    pub eps: Option<f64>,
    /// `kron`, `samples`: eps relative to the mean eigenvalue of F_u; [`RELATIVE_RIDGE`] if none.
    pub ridge: Option<f64>,
    /// `samples`: resamples of the bootstrap; none for no bootstrap.
    pub bootstrap: Option<usize>,
    /// `samples`: seed of the bootstrap.
    pub seed: u64,
}

/// A problem whose settings fit the Fishers; it serialises to the settings that count.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum SubspaceProblem {
    /// Of diagonals.
    Ratios {
        /// Number of directions.
        k: usize,
        /// Added to the denominator.
        eps: f64,
    },
    /// Of Kronecker factors.
    Products {
        /// Number of directions.
        k: usize,
        /// Relative to each utility factor's mean eigenvalue.
        ridge: f64,
    },
    /// Of per-sample gradients.
    Samples {
        /// Number of directions.
        k: usize,
        /// Relative to the mean eigenvalue of F_u.
        ridge: f64,
        /// Resamples of the bootstrap.
        #[serde(skip_serializing_if = "Option::is_none")]
        bootstrap: Option<usize>,
        /// Seed of the bootstrap.
        #[serde(skip_serializing_if = "Option::is_none")]
        seed: Option<u64>,
    },
}

impl SubspaceConfig {
    /// Reads the Fishers' manifests and keeps the settings that their solver has.
    ///
    /// # Errors
    /// [`Error::NoFisher`] for no utility folder, [`Error::Families`] for folders of different families,
    /// [`Error::Inapplicable`] for a setting of another solver, [`Error::Setting`] for one out of range.
    pub fn check(&self, safety: &Path, utility: &[PathBuf]) -> Result<SubspaceProblem, Error> {
        let estimator = one_family(safety, utility)?;
        let refuse = |given: bool, name, instead| match given {
            true => Err(Error::Inapplicable {
                name,
                estimator,
                instead,
            }),
            false => Ok(()),
        };
        let k = self.k;
        if matches!(estimator, Estimator::Diag | Estimator::DiagVariance) {
            refuse(self.ridge.is_some(), "ridge", "`eps`")?;
            refuse(
                self.bootstrap.is_some(),
                "bootstrap",
                "Fishers of the estimator samples",
            )?;
            let eps = self.eps.unwrap_or(RATIO_EPS);
            check_setting("eps", eps)?;
            return Ok(SubspaceProblem::Ratios { k, eps });
        }
        refuse(self.eps.is_some(), "eps", "`ridge`")?;
        let ridge = self.ridge.unwrap_or(RELATIVE_RIDGE);
        check_setting("ridge", ridge)?;
        if estimator == Estimator::Kron {
            refuse(
                self.bootstrap.is_some(),
                "bootstrap",
                "Fishers of the estimator samples",
            )?;
            return Ok(SubspaceProblem::Products { k, ridge });
        }
        Ok(SubspaceProblem::Samples {
            k,
            ridge,
            bootstrap: self.bootstrap,
            seed: self.bootstrap.map(|_| self.seed),
        })
    }
}

impl SubspaceProblem {
    /// Solves; `progress` is told the modules done and their number.
    ///
    /// # Errors
    /// What [`gevp::diagonal`], [`kronecker_basis`] and [`SamplePair`] return; a folder that
    /// cannot be read.
    pub fn solve(
        &self,
        safety: &Path,
        utility: &[PathBuf],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(SafetySubspace, Option<Stability>), Error> {
        fn all<T>(folders: &[PathBuf], load: impl Fn(&Path) -> Result<T, Error>) -> Result<Vec<T>, Error> {
            folders.iter().map(|folder| load(folder)).collect()
        }
        match *self {
            SubspaceProblem::Ratios { k, eps } => {
                let utility = DiagonalFisher::mean(&all(utility, DiagonalFisher::load)?)?;
                let basis = gevp::diagonal(&DiagonalFisher::load(safety)?, &utility, k, eps)?;
                Ok((SafetySubspace::Phi(basis.into()), None))
            }
            SubspaceProblem::Products { k, ridge } => {
                let utility = all(utility, KroneckerFisher::load)?;
                let basis = kronecker_basis(&KroneckerFisher::load(safety)?, &utility, k, ridge, progress)?;
                Ok((SafetySubspace::Kronecker(basis), None))
            }
            SubspaceProblem::Samples {
                k,
                ridge,
                bootstrap,
                seed,
            } => {
                let (safety, utility) = (SampleFisher::load(safety)?, all(utility, SampleFisher::load)?);
                let pair = SamplePair::new(&safety, &utility)?;
                let eps = pair.eps(ridge)?;
                let basis = pair.basis(k, eps, progress)?;
                let stability = bootstrap.map(|resamples| {
                    let seed = seed.unwrap_or_default();
                    pair.stability(&BootstrapConfig {
                        k,
                        eps,
                        resamples,
                        seed,
                    })
                });
                Ok((SafetySubspace::Phi(basis.into()), stability.transpose()?))
            }
        }
    }
}

/// The estimator of all folders; `diag` and `diag-variance` are one family, and may stand against each other.
fn one_family(safety: &Path, utility: &[PathBuf]) -> Result<Estimator, Error> {
    let family = |estimator| match estimator {
        Estimator::Diag | Estimator::DiagVariance => 0,
        Estimator::Kron => 1,
        Estimator::Samples => 2,
    };
    let left_estimator = read_meta(safety)?.estimator;
    for folder in utility {
        let right_estimator = read_meta(folder)?.estimator;
        if family(left_estimator) != family(right_estimator) {
            return Err(Error::Families {
                left: safety.to_path_buf(),
                left_estimator,
                right: folder.clone(),
                right_estimator,
            });
        }
    }
    if utility.is_empty() {
        return Err(Error::NoFisher);
    }
    Ok(left_estimator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(k: usize) -> SubspaceConfig {
        SubspaceConfig {
            k,
            ..SubspaceConfig::default()
        }
    }

    #[test]
    fn diagonals_are_solved_as_before_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let [s, u, v] = ["s", "u", "v"].map(|name| dir.path().join(name));
        let safety = made_up::diagonal(&s, 1);
        let utility = [made_up::diagonal(&u, 2), made_up::diagonal(&v, 3)];
        let problem = config(7).check(&s, &[u.clone(), v.clone()]).unwrap();
        let settings = serde_json::to_string(&problem).unwrap();
        assert_eq!(settings, r#"{"k":7,"eps":1e-6}"#);
        let (got, none) = problem.solve(&s, &[u, v], &mut |_, _| ()).unwrap();
        let want = gevp::diagonal(&safety, &DiagonalFisher::mean(&utility).unwrap(), 7, RATIO_EPS).unwrap();
        assert_eq!((got, none), (SafetySubspace::Phi(want.into()), None));
    }

    #[test]
    fn every_family_is_solved_and_its_folder_summed_up() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        made_up::diagonal(&at("diag-s"), 1);
        made_up::diagonal(&at("diag-u"), 2);
        made_up::kron(&at("kron-s"), 1, true);
        made_up::kron(&at("kron-u"), 30, true);
        made_up::samples(&at("samples-s"), 4, 1);
        made_up::samples(&at("samples-u"), 5, 30);
        for (family, solver, available) in [
            ("diag", "ratios", 26),
            ("kron", "kronecker", 4 * 6 + 2 * 6 + 5 * 3),
            ("samples", "samples", 8), // rank N_s in both modules
        ] {
            let (s, u) = (at(&format!("{family}-s")), [at(&format!("{family}-u"))]);
            let wanted = SubspaceConfig {
                bootstrap: (family == "samples").then_some(5),
                ..config(3)
            };
            let problem = wanted.check(&s, &u).unwrap();
            let (subspace, bootstrap) = problem.solve(&s, &u, &mut |_, _| ()).unwrap();
            let out = at(&format!("{family}-out"));
            subspace.save(&out, Default::default(), bootstrap.as_ref()).unwrap();
            let summary = SubspaceSummary::load(&out).unwrap();
            assert_eq!(summary, SubspaceSummary::of(&subspace, bootstrap));
            assert_eq!(
                (summary.k, summary.available, summary.solver),
                (3, Some(available), solver)
            );
            assert_eq!(summary.eigenvalues.len(), 3);
            assert_eq!(summary.bootstrap.map(|b| b.overlaps.len()), wanted.bootstrap);
            assert!(
                summary.residual.is_none_or(|r| r <= 1e-13),
                "{family}: {:?}",
                summary.residual
            );
            assert_eq!(SafetySubspace::load(&out).unwrap(), subspace);
        }
    }

    #[test]
    fn mixed_families_and_foreign_settings_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let [diag, kron, samples] = ["diag", "kron", "samples"].map(|name| dir.path().join(name));
        made_up::diagonal(&diag, 1);
        made_up::kron(&kron, 1, true);
        made_up::samples(&samples, 3, 1);
        let message = config(1)
            .check(&diag, &[diag.clone(), kron.clone()])
            .unwrap_err()
            .to_string();
        let expected = format!(
            "{} holds a `diag-variance` Fisher and {} a `kron` one",
            diag.display(),
            kron.display()
        );
        assert!(message.starts_with(&expected), "{message}");
        let (eps, ridge, bootstrap) = (Some(1e-6), Some(1e-2), Some(5));
        for (folder, config, expected) in [
            (
                &diag,
                SubspaceConfig { ridge, ..config(1) },
                "`ridge` is no setting for `diag-variance` Fishers: use `eps`",
            ),
            (
                &kron,
                SubspaceConfig { eps, ..config(1) },
                "`eps` is no setting for `kron` Fishers: use `ridge`",
            ),
            (
                &samples,
                SubspaceConfig { eps, ..config(1) },
                "`eps` is no setting for `samples` Fishers",
            ),
            (
                &diag,
                SubspaceConfig { bootstrap, ..config(1) },
                "`bootstrap` is no setting for `diag-variance`",
            ),
            (
                &kron,
                SubspaceConfig { bootstrap, ..config(1) },
                "`bootstrap` is no setting for `kron`",
            ),
            (
                &kron,
                SubspaceConfig {
                    ridge: Some(f64::NAN),
                    ..config(1)
                },
                "`ridge` = NaN",
            ),
        ] {
            let message = config
                .check(folder, std::slice::from_ref(folder))
                .unwrap_err()
                .to_string();
            assert!(message.starts_with(expected), "{message}");
        }
        assert!(matches!(config(1).check(&kron, &[]), Err(Error::NoFisher)));
    }
}
