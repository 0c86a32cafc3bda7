//! Measure Fisher information of an adapter's parameters, on the model with that adapter.

use crate::request::Request;
use crate::{Error, LazyModel, Reporter};
use sst_adapter::Adapter;
use sst_artefact::Input;
use sst_data::Dataset;
use sst_fim::{FisherConfig, diagonal_fisher};
use sst_subspace::DiagonalFisher;
use std::path::PathBuf;

/// What to measure, on which data, and where to.
#[derive(Debug, Clone)]
pub struct FisherStep {
    /// The adapter's name in progress lines.
    pub name: String,
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
pub fn fisher(base: &mut LazyModel, step: &FisherStep, reporter: &mut dyn Reporter) -> Result<DiagonalFisher, Error> {
    const NAME: &str = "measured";
    let request = request(base, step)?;
    if request.is_done(&step.out)? {
        return Ok(DiagonalFisher::load(&step.out)?);
    }
    let adapter = Adapter::load(&step.adapter)?;
    let examples = step.dataset.read(&step.data)?;
    let model = base.model()?;
    model.add_adapter(NAME, &adapter)?;
    reporter.start(&format!("fisher {} on {}", step.name, step.dataset), 0);
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

pub(crate) fn request(base: &mut LazyModel, step: &FisherStep) -> Result<Request, Error> {
    let inputs = [
        ("model".to_owned(), base.input()?),
        ("adapter".to_owned(), Input::hash(&step.adapter)?),
        ("data".to_owned(), Input::hash(&step.data)?),
    ];
    let config = serde_json::json!({
        "dataset": step.dataset, "fisher": step.config, "precision": base.source().precision,
    });
    Ok(Request::new("fisher", &config, inputs))
}
