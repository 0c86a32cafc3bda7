//! Measure Fisher information of an adapter's parameters, on the model with that adapter.

use crate::request::Request;
use crate::{Error, Reporter, Session};
use sst_adapter::Adapter;
use sst_artefact::Input;
use sst_data::Dataset;
use sst_fim::{FisherConfig, diagonal_fisher};
use sst_subspace::DiagonalFisher;
use std::path::PathBuf;

/// What to measure, on which data, and where to.
#[derive(Debug, Clone)]
pub struct FisherStep {
    /// The adapter's folder.
    pub adapter: PathBuf,
    /// How to read the data.
    pub dataset: Dataset,
    /// The file of examples.
    pub data: PathBuf,
    /// Settings.
    pub config: FisherConfig,
    /// The artefact's folder.
    pub out: PathBuf,
}

/// Estimates and writes a Fisher artefact, or reads it where it is there.
///
/// # Errors
/// [`Error::Fisher`], [`Error::Adapter`], [`Error::Data`], [`Error::Taken`].
pub fn fisher(session: &mut Session, step: &FisherStep, reporter: &mut dyn Reporter) -> Result<DiagonalFisher, Error> {
    const NAME: &str = "measured";
    let request = request(session, step)?;
    if request.is_done(&step.out)? {
        return Ok(DiagonalFisher::load(&step.out)?);
    }
    let adapter = Adapter::load(&step.adapter)?;
    let examples = step.dataset.read(&step.data)?;
    let model = session.model()?;
    model.add_adapter(NAME, &adapter)?;
    let name = step.out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    reporter.start(&format!("fisher {name} on {}", step.dataset), 0);
    let estimate = diagonal_fisher(model, NAME, &examples, &step.config, &mut |p| {
        reporter.advance(p.done, p.total, "samples")
    });
    model.remove_adapter(NAME);
    let estimate = estimate?;
    estimate.save(&step.out, request.inputs.clone())?;
    request.seal(&step.out)?;
    reporter.finish(&format!(
        "{} samples, {} tokens, {:.1} % of entries below the ridge of {:e}",
        estimate.meta.samples,
        estimate.meta.tokens,
        100.0 * estimate.share_below(estimate.meta.ridge),
        estimate.meta.ridge,
    ));
    Ok(estimate)
}

pub(crate) fn request(session: &mut Session, step: &FisherStep) -> Result<Request, Error> {
    let inputs = [
        ("model".to_owned(), session.input()?),
        ("adapter".to_owned(), Input::hash(&step.adapter)?),
        ("data".to_owned(), Input::hash(&step.data)?),
    ];
    let config = serde_json::json!({
        "dataset": step.dataset, "fisher": step.config, "precision": session.source().precision,
    });
    Ok(Request::new("fisher", &config, inputs))
}
