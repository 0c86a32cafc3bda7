//! Run an evaluation suite on the base model or on one adapter.

use crate::comparison::figure;
use crate::request::Request;
use crate::{Error, LazyModel, Reporter};
use sst_adapter::Adapter;
use sst_artefact::Input;
use sst_data::DataFolder;
use sst_eval::{Evaluation, Suite, SuiteConfig};
use std::path::PathBuf;

/// What to evaluate, on which data, and where to.
#[derive(Debug, Clone)]
pub struct EvaluateStep {
    /// The system's name in tables.
    pub name: String,
    /// The adapter's folder; the base model alone where not given.
    pub adapter: Option<PathBuf>,
    /// Folder of the data sets.
    pub data: PathBuf,
    /// Benchmarks and settings, not yet checked.
    pub config: SuiteConfig,
    /// The evaluation's folder.
    pub out: PathBuf,
}

/// Evaluates and writes scores and every answer, or reads them where they are there.
///
/// # Errors
/// [`Error::Eval`], [`Error::Data`], [`Error::Adapter`], [`Error::Model`], [`Error::Taken`].
pub fn evaluate(base: &mut LazyModel, step: &EvaluateStep, reporter: &mut dyn Reporter) -> Result<Evaluation, Error> {
    let request = request(base, step)?;
    if request.is_done(&step.out)? {
        return Ok(Evaluation::load(&step.out)?);
    }
    let suite = suite(step)?;
    let adapter = step.adapter.as_ref().map(|path| Adapter::load(path)).transpose()?;
    let model = base.model()?;
    if let Some(adapter) = &adapter {
        model.add_adapter(&step.name, adapter)?;
    }
    let total = suite.sizes().iter().map(|(_, n)| n).sum();
    reporter.start(&format!("evaluate {}", step.name), total);
    let (mut current, mut before, mut last) = (String::new(), 0, 0);
    let evaluation = suite.run(
        model,
        adapter.as_ref().map(|_| step.name.as_str()),
        &mut |benchmark, done, _| {
            if benchmark != current {
                before += last;
                benchmark.clone_into(&mut current);
            }
            last = done;
            reporter.advance(before + done, total, benchmark);
        },
    );
    model.remove_adapter(&step.name);
    let evaluation = evaluation?;
    evaluation.save(&step.out, request.inputs.clone())?;
    request.seal(&step.out)?;
    let scores: Vec<String> = evaluation
        .scores
        .iter()
        .map(|s| {
            let unit = if s.benchmark.is_share() { " %" } else { "" };
            format!("{} {}{unit}", s.benchmark.name(), figure(s.benchmark, s.value))
        })
        .collect();
    reporter.finish(&scores.join(", "));
    Ok(evaluation)
}

fn suite(step: &EvaluateStep) -> Result<Suite, Error> {
    Ok(Suite::load(&DataFolder::open(&step.data)?, &step.config)?)
}

pub(crate) fn request(base: &mut LazyModel, step: &EvaluateStep) -> Result<Request, Error> {
    let mut inputs = suite(step)?.inputs()?;
    inputs.insert("model".to_owned(), base.input()?);
    if let Some(adapter) = &step.adapter {
        inputs.insert("adapter".to_owned(), Input::hash(adapter)?);
    }
    let config = serde_json::json!({
        "name": step.name, "suite": step.config, "precision": base.source().precision,
    });
    Ok(Request::new("evaluate", &config, inputs))
}
