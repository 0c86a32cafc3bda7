//! A safety subspace of any kind, and what there is to say about it.

use crate::{Error, KroneckerBasis, PhiBasis, Selection, Spectrum, Stability, kronecker_basis};
use serde::Serialize;
use sst_artefact::{Input, MANIFEST_FILE, Manifest};
use std::collections::BTreeMap;
use std::path::Path;

/// Key of the bootstrap in a basis folder's facts.
const BOOTSTRAP_KEY: &str = "bootstrap";

/// The span of the top k, of phi or of dW.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SafetySubspace {
    /// Of phi: coordinates, or dense vectors.
    Phi(PhiBasis),
    /// Of the layers' dW.
    Kronecker(KroneckerBasis),
}

/// A subspace in a few numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubspaceSummary {
    /// Number of directions.
    pub k: usize,
    /// Of how many they are the top; none for a random subspace.
    pub available: Option<u64>,
    /// The eigenvalues of the directions, descending.
    pub eigenvalues: Vec<f64>,
    /// All eigenvalues in a few numbers, where the solver had them all.
    pub spectrum: Option<Spectrum>,
    /// The worst residual of any module, where there was something to solve.
    pub residual: Option<f64>,
    /// `ratios`, `kronecker`, `samples` or `random`.
    pub solver: &'static str,
    /// How the directions were chosen.
    pub selection: Selection,
    /// How stable they are.
    pub bootstrap: Option<Stability>,
}

impl SafetySubspace {
    /// Reads a basis folder of any kind, as its manifest says.
    ///
    /// # Errors
    /// One line that names the file and the part at fault.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        if Manifest::read(folder)?.kind == kronecker_basis::KIND {
            return Ok(SafetySubspace::Kronecker(KroneckerBasis::load(folder)?));
        }
        Ok(SafetySubspace::Phi(PhiBasis::load(folder)?))
    }

    /// Writes a basis folder; `inputs` are the Fishers, hashed by the caller, and the bootstrap is kept as a fact.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(
        &self,
        folder: &Path,
        inputs: BTreeMap<String, Input>,
        bootstrap: Option<&Stability>,
    ) -> Result<(), Error> {
        match self {
            SafetySubspace::Phi(basis) => basis.save(folder, inputs)?,
            SafetySubspace::Kronecker(basis) => basis.save(folder, inputs)?,
        }
        if let Some(stability) = bootstrap {
            let mut manifest = Manifest::read(folder)?;
            manifest.facts[BOOTSTRAP_KEY] =
                serde_json::to_value(stability).map_err(|e| Error::content(BOOTSTRAP_KEY, e.to_string()))?;
            manifest.write(folder)?;
        }
        Ok(())
    }

    /// Number of directions.
    pub fn k(&self) -> usize {
        match self {
            SafetySubspace::Phi(basis) => basis.k(),
            SafetySubspace::Kronecker(basis) => basis.k(),
        }
    }

    /// The eigenvalues, descending; none for random coordinates.
    pub fn eigenvalues(&self) -> Vec<f64> {
        match self {
            SafetySubspace::Phi(basis) => basis.eigenvalues().to_vec(),
            SafetySubspace::Kronecker(basis) => basis.eigenvalues(),
        }
    }

    /// How the directions were chosen.
    pub fn selection(&self) -> &Selection {
        match self {
            SafetySubspace::Phi(basis) => basis.selection(),
            SafetySubspace::Kronecker(basis) => basis.selection(),
        }
    }
}

impl SubspaceSummary {
    /// What a subspace says about itself.
    pub fn of(subspace: &SafetySubspace, bootstrap: Option<Stability>) -> Self {
        let selection = subspace.selection();
        let (solver, residual, available) = match selection {
            Selection::TopRatios { spectrum, .. } => ("ratios", None, Some(spectrum.count)),
            Selection::TopSamples { residual, spectrum, .. } => ("samples", Some(*residual), Some(spectrum.count)),
            Selection::TopProducts {
                residual, available, ..
            } => ("kronecker", Some(*residual), Some(*available)),
            Selection::Random { .. } => ("random", None, None),
        };
        Self {
            k: subspace.k(),
            available,
            eigenvalues: subspace.eigenvalues(),
            spectrum: selection.spectrum().cloned(),
            residual,
            solver,
            selection: selection.clone(),
            bootstrap,
        }
    }

    /// The summary of a basis folder, its bootstrap among it.
    ///
    /// # Errors
    /// As [`SafetySubspace::load`]; [`Error::Content`] for a malformed bootstrap, with the manifest's path.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let subspace = SafetySubspace::load(folder)?;
        let facts = Manifest::read(folder)?.facts;
        let bootstrap = facts.get(BOOTSTRAP_KEY).map(|value| {
            serde_json::from_value(value.clone()).map_err(|e| Error::content(BOOTSTRAP_KEY, e.to_string()))
        });
        let bootstrap = bootstrap
            .transpose()
            .map_err(Error::in_file(&folder.join(MANIFEST_FILE)))?;
        Ok(Self::of(&subspace, bootstrap))
    }
}
