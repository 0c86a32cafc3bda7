//! Fisher information as an artefact on disk, in three families.
//!
//! | type | estimators | what is kept |
//! | --- | --- | --- |
//! | [`DiagonalFisher`] | `diag-variance`, `diag` | one value per entry of phi |
//! | [`KroneckerFisher`] | `kron` | two covariances per LoRA'd linear layer |
//! | [`SampleFisher`] | `samples` | every sample's gradient: F = G^T G / N exactly |
//!
//! Each is a folder of safetensors files and a manifest whose configuration is a [`FisherMeta`]. The manifest is written
//! last: a folder without one is not finished.

pub(crate) mod diagonal;
mod gradient_file;
mod gradient_store;
mod gram;
pub(crate) mod kronecker;
mod meta;
mod samples;

pub use diagonal::{DiagonalFisher, MEAN_FILE};
pub use gradient_store::{GRADIENTS_FILE, GradientStore};
pub use kronecker::{KroneckerFactors, KroneckerFisher};
pub use meta::{ESTIMATOR_RIDGE, Estimator, FisherMeta, Labels, TokenWeighting};
pub use samples::{GRAM_FILE, SampleFisher};

pub(crate) use gradient_file::GradientFile;
pub(crate) use kronecker::write_kronecker;
pub(crate) use meta::{Difference, check_setting, difference};

use crate::Error;
use sst_artefact::{MANIFEST_FILE, Manifest};
use std::path::Path;

/// Name of the tensors inside the folder of a diagonal or Kronecker-factored Fisher.
pub const FISHER_FILE: &str = "fisher.safetensors";

pub(crate) const KIND: &str = "fisher";

/// A Fisher of any family.
#[derive(Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // a run holds a handful, and none in a collection
pub enum Fisher {
    /// One value per entry of phi.
    Diagonal(DiagonalFisher),
    /// Two covariances per linear layer.
    Kronecker(KroneckerFisher),
    /// Every sample's gradient.
    Samples(SampleFisher),
}

impl Fisher {
    /// Reads a Fisher folder as the family that its manifest names.
    ///
    /// # Errors
    /// One line that names the file and the tensor or key at fault.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        Ok(match read_meta(folder)?.estimator {
            Estimator::DiagVariance | Estimator::Diag => Self::Diagonal(DiagonalFisher::load(folder)?),
            Estimator::Kron => Self::Kronecker(KroneckerFisher::load(folder)?),
            Estimator::Samples => Self::Samples(SampleFisher::load(folder)?),
        })
    }

    /// How it was estimated.
    pub fn meta(&self) -> &FisherMeta {
        match self {
            Self::Diagonal(fisher) => &fisher.meta,
            Self::Kronecker(fisher) => &fisher.meta,
            Self::Samples(fisher) => &fisher.meta,
        }
    }
}

/// The configuration in a Fisher folder's manifest.
pub(crate) fn read_meta(folder: &Path) -> Result<FisherMeta, Error> {
    let manifest = Manifest::read(folder)?;
    config_of(&manifest, KIND).map_err(Error::in_file(&folder.join(MANIFEST_FILE)))
}

/// As [`read_meta`], of one of the given estimators.
fn read_meta_of(folder: &Path, estimators: &[Estimator]) -> Result<FisherMeta, Error> {
    let meta = read_meta(folder)?;
    meta.check_estimator(estimators)
        .map_err(Error::in_file(&folder.join(MANIFEST_FILE)))?;
    Ok(meta)
}

/// The configuration of a manifest of the given kind.
pub(crate) fn config_of<T: serde::de::DeserializeOwned>(manifest: &Manifest, kind: &str) -> Result<T, Error> {
    if manifest.kind != kind {
        let reason = format!("is `{}`, expected `{kind}`", manifest.kind);
        return Err(Error::content("kind", reason));
    }
    serde_json::from_value(manifest.config.clone()).map_err(|e| Error::content("config", e.to_string()))
}
