//! Solve the generalised eigenproblem of two Fisher artefacts and keep the top k.

use crate::Error;
use crate::request::Request;
use sst_artefact::Input;
use sst_subspace::{Basis, DiagonalFisher, gevp};
use std::path::PathBuf;

/// Which artefacts, how many directions, and where to.
#[derive(Debug, Clone)]
pub struct SubspaceStep {
    /// Folders of the utility Fisher artefacts; several are averaged.
    pub utility: Vec<PathBuf>,
    /// Folder of the safety Fisher artefact.
    pub safety: PathBuf,
    /// Number of directions.
    pub k: usize,
    /// Added to the denominator, on top of the estimator's ridge.
    pub eps: f64,
    /// The basis' folder.
    pub out: PathBuf,
}

/// Solves and writes the safety subspace, or reads it where it is there.
///
/// # Errors
/// [`Error::Subspace`] when the artefacts do not fit together or k is out of range, [`Error::Taken`].
pub fn subspace(step: &SubspaceStep) -> Result<Basis, Error> {
    let request = request(step)?;
    if request.is_done(&step.out)? {
        return Ok(Basis::load(&step.out)?);
    }
    let utilities = step
        .utility
        .iter()
        .map(|p| DiagonalFisher::load(p))
        .collect::<Result<Vec<_>, _>>()?;
    let utility = DiagonalFisher::mean(&utilities)?;
    let safety = DiagonalFisher::load(&step.safety)?;
    let basis = gevp::diagonal(&safety, &utility, step.k, step.eps)?;
    basis.save(&step.out, request.inputs.clone())?;
    request.seal(&step.out)?;
    Ok(basis)
}

pub(crate) fn request(step: &SubspaceStep) -> Result<Request, Error> {
    let mut inputs = vec![("safety".to_owned(), Input::hash(&step.safety)?)];
    for (i, path) in step.utility.iter().enumerate() {
        inputs.push((format!("utility_{i}"), Input::hash(path)?));
    }
    Ok(Request::new(
        "subspace",
        &serde_json::json!({ "k": step.k, "eps": step.eps }),
        inputs,
    ))
}
