//! Train an adapter on the training split of a data set.

use crate::request::{Request, fact};
use crate::{Error, LazyModel, Reporter};
use sst_adapter::Dtype;
use sst_artefact::{Input, Manifest};
use sst_data::Dataset;
use sst_model::{TrainConfig, TrainReport, Trainer};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Hidden, so that it is no part of the adapter while it is there.
const CHECKPOINT: &str = ".checkpoint.safetensors";

/// What to train on, how, and where to.
#[derive(Debug, Clone)]
pub struct TrainStep {
    /// The adapter's name in progress lines.
    pub name: String,
    /// How to read the data.
    pub dataset: Dataset,
    /// The file of examples.
    pub data: PathBuf,
    /// Settings, not yet checked.
    pub config: TrainConfig,
    /// The adapter's folder.
    pub out: PathBuf,
}

/// Trains an adapter and writes it as a PEFT folder with a manifest. An interrupted run goes on from its checkpoint and
/// ends with the same bytes.
///
/// # Errors
/// [`Error::Model`] for settings out of range or a loss that is not finite, [`Error::Data`], [`Error::Taken`].
pub fn train(base: &mut LazyModel, step: &TrainStep, reporter: &mut dyn Reporter) -> Result<TrainReport, Error> {
    let config = step.config.clone().check()?;
    let request = request(base, step)?;
    let checkpoint = step.out.join(CHECKPOINT);
    let Some(claim) = request.claim(&step.out)? else {
        remove(&checkpoint)?;
        return fact(&step.out, "report", "manifest of a trained adapter");
    };
    let examples = step.dataset.read_answered(&step.data)?;
    let folder = base.source().folder.clone();
    let trainer = Trainer::new(base.model()?, &examples, config)?.checkpoint(&checkpoint, &request.fingerprint());
    reporter.start(&format!("train {} on {}", step.name, step.dataset), 0);
    let (mut since, mut tokens) = (Instant::now(), 0);
    let (mut adapter, report) = trainer.run(&mut |p| {
        tokens += p.tokens;
        let speed = tokens as f64 / since.elapsed().as_secs_f64();
        reporter.advance(p.step, p.steps, &format!("loss {:.3}, {speed:.0} tokens/s", p.loss));
        if since.elapsed().as_secs() > 30 {
            (since, tokens) = (Instant::now(), 0);
        }
    })?;
    adapter.config.base_model_name_or_path = Some(folder.display().to_string());
    adapter.save(&step.out, Dtype::F32)?;
    let mut manifest = Manifest::new("adapter", &step.config);
    manifest.inputs = request.inputs.clone();
    manifest.facts = serde_json::json!({ "dataset": step.dataset, "report": report });
    manifest.write(&step.out)?;
    claim.seal()?;
    remove(&checkpoint)?;
    let left_out = match report.too_long {
        0 => String::new(),
        n => format!(" ({n} left out as too long)"),
    };
    reporter.finish(&format!(
        "{} examples{left_out}, {} steps, loss {:.3} -> {:.3}",
        report.examples, report.steps, report.first_loss, report.last_loss
    ));
    Ok(report)
}

/// Removes the checkpoint of a training that is done.
fn remove(checkpoint: &Path) -> Result<(), Error> {
    match std::fs::remove_file(checkpoint) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(sst_artefact::Error::io("delete", checkpoint)(e).into())
        }
        _ => Ok(()),
    }
}

pub(crate) fn request(base: &mut LazyModel, step: &TrainStep) -> Result<Request, Error> {
    let inputs = [
        ("model".to_owned(), base.input()?),
        ("data".to_owned(), Input::hash(&step.data)?),
    ];
    let config = serde_json::json!({
        "dataset": step.dataset, "train": step.config, "precision": base.source().precision,
    });
    Ok(Request::new("train", &config, inputs))
}
