//! Solve the generalised eigenproblem of two Fisher artefacts and keep the top k.

use crate::request::Request;
use crate::{Error, Reporter};
use sst_artefact::Input;
use sst_subspace::{SubspaceConfig, SubspaceProblem, SubspaceSummary};
use std::path::PathBuf;

/// Which artefacts, how many directions, and where to.
#[derive(Debug, Clone)]
pub struct SubspaceStep {
    /// Folders of the utility Fisher artefacts; several are averaged.
    pub utility: Vec<PathBuf>,
    /// Folder of the safety Fisher artefact.
    pub safety: PathBuf,
    /// Number of directions and the settings of the solver.
    pub config: SubspaceConfig,
    /// The basis' folder.
    pub out: PathBuf,
}

/// Solves and writes the safety subspace, or reads it where it is there.
///
/// # Errors
/// [`Error::Subspace`] when the artefacts do not fit together, a setting is not one of their solver's or k is out of
/// range, [`Error::Taken`].
pub fn subspace(step: &SubspaceStep, reporter: &mut dyn Reporter) -> Result<SubspaceSummary, Error> {
    let problem = step.config.check(&step.safety, &step.utility)?;
    let request = request_of(step, &problem)?;
    let Some(claim) = request.claim(&step.out)? else {
        return Ok(SubspaceSummary::load(&step.out)?);
    };
    let mut started = false;
    let (subspace, bootstrap) = problem.solve(&step.safety, &step.utility, &mut |done, total| {
        if !std::mem::replace(&mut started, true) {
            reporter.start("subspace", total);
        }
        reporter.advance(done, total, "modules");
    })?;
    subspace.save(&step.out, request.inputs.clone(), bootstrap.as_ref())?;
    claim.seal()?;
    let summary = SubspaceSummary::of(&subspace, bootstrap);
    if started {
        reporter.finish(&format!("{} directions", summary.k));
    }
    Ok(summary)
}

pub(crate) fn request(step: &SubspaceStep) -> Result<Request, Error> {
    request_of(step, &step.config.check(&step.safety, &step.utility)?)
}

fn request_of(step: &SubspaceStep, problem: &SubspaceProblem) -> Result<Request, Error> {
    let mut inputs = vec![("safety".to_owned(), Input::hash(&step.safety)?)];
    for (i, path) in step.utility.iter().enumerate() {
        inputs.push((format!("utility_{i}"), Input::hash(path)?));
    }
    Ok(Request::new("subspace", problem, inputs))
}
