//! Measure Fisher information on the model with any stack of adapters.

use super::folder_name;
use crate::request::Request;
use crate::{Error, LazyModel, Reporter};
use sst_adapter::Adapter;
use sst_artefact::{Input, Manifest};
use sst_data::Dataset;
use sst_fim::{Estimate, FisherProgress, Samples, Source};
use sst_subspace::{FisherMeta, Shard};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What to measure, on which data, and where to.
#[derive(Debug, Clone)]
pub struct FisherStep {
    /// What is measured, in progress lines.
    pub name: String,
    /// Folders of the adapters on the base model, in order; none: the base model alone.
    pub adapters: Vec<PathBuf>,
    /// The last part of the path of the adapter whose parameters the gradients are of; the last adapter's where not given.
    pub parameters: Option<String>,
    /// How to read the data.
    pub dataset: Dataset,
    /// The file of examples.
    pub data: PathBuf,
    /// The answer that the loss is about in place of every example's own.
    pub answer: Option<String>,
    /// Estimates to take in one pass over the samples, each with its folder.
    pub estimates: Vec<Estimate>,
}

/// Estimates and writes Fisher artefacts where they are not there yet; an interrupted run goes on.
///
/// # Errors
/// [`Error::Fisher`], [`Error::Adapter`], [`Error::Data`], [`Error::Taken`].
pub fn fisher(base: &mut LazyModel, step: &FisherStep, reporter: &mut dyn Reporter) -> Result<Vec<FisherMeta>, Error> {
    let requests = step
        .estimates
        .iter()
        .map(|estimate| request(base, step, estimate))
        .collect::<Result<Vec<_>, _>>()?;
    let (mut claims, mut missing) = (Vec::new(), Vec::new());
    // Claimed in the order of their paths: processes that wait for each other's folders never do so in a circle.
    let mut order: Vec<_> = requests.iter().zip(&step.estimates).collect();
    order.sort_by_key(|(_, estimate)| &estimate.out);
    for (request, estimate) in order {
        if let Some(claim) = request.claim(&estimate.out)? {
            claims.push(claim);
            missing.push(estimate.clone());
        }
    }
    if !missing.is_empty() {
        measure(base, step, reporter, &mut |model, source, progress| {
            Ok(sst_fim::estimate(model, source, &missing, progress).map(drop)?)
        })?;
        for claim in claims {
            claim.seal()?;
        }
    }
    let meta = |e: &Estimate| {
        let config = Manifest::read(&e.out)?.config;
        let path = e.out.join(sst_artefact::MANIFEST_FILE);
        serde_json::from_value(config).map_err(|source| {
            let what = "configuration of a Fisher artefact";
            Error::from(sst_artefact::Error::Json { what, path, source })
        })
    };
    step.estimates.iter().map(meta).collect()
}

/// Computes one shard of every estimate into its folder; `sst_subspace::reduce` joins the shards.
///
/// # Errors
/// As [`fisher`].
pub fn fisher_shard(
    base: &mut LazyModel,
    step: &FisherStep,
    shard: Shard,
    reporter: &mut dyn Reporter,
) -> Result<(), Error> {
    measure(base, step, reporter, &mut |model, source, progress| {
        Ok(sst_fim::shard(model, source, &step.estimates, shard, progress).map(drop)?)
    })
}

type Run<'a> = dyn FnMut(&sst_model::LanguageModel, &Source, &mut dyn FnMut(FisherProgress)) -> Result<(), Error> + 'a;

/// Loads what is measured, runs, and unloads it.
fn measure(base: &mut LazyModel, step: &FisherStep, reporter: &mut dyn Reporter, run: &mut Run) -> Result<(), Error> {
    let inputs: BTreeMap<String, Input> = inputs(base, step)?.into_iter().collect();
    let precision = base.source().precision;
    let names: Vec<String> = step.adapters.iter().map(|path| folder_name(path)).collect();
    if let Some(twice) = (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
        let reason = format!("two adapters are named {}: rename one of the folders", names[twice]);
        return Err(Error::Compare(reason));
    }
    let mut examples = step.dataset.read(&step.data)?;
    if let Some(answer) = &step.answer {
        examples
            .iter_mut()
            .for_each(|example| example.response.clone_from(answer));
    }
    let model = base.model()?;
    for (name, folder) in names.iter().zip(&step.adapters) {
        model.add_adapter(name, &Adapter::load(folder)?)?;
    }
    let stack: Vec<&str> = names.iter().map(String::as_str).collect();
    let hashes: BTreeMap<&String, &String> = inputs.iter().map(|(role, input)| (role, &input.sha256)).collect();
    let source = Source {
        parameters: step.parameters.as_deref(),
        request: with_answer(
            serde_json::json!({ "dataset": step.dataset, "precision": precision, "inputs": hashes }),
            step,
        ),
        inputs: inputs.clone(),
        ..Source::new(Samples::Drawn(&examples), &stack)
    };
    reporter.start(&format!("fisher {} on {}", step.name, step.dataset), 0);
    let mut done = FisherProgress { done: 0, total: 0 };
    let outcome = run(model, &source, &mut |p| {
        done = p;
        reporter.advance(p.done, p.total, "samples");
    });
    for name in &names {
        model.remove_adapter(name);
    }
    outcome?;
    reporter.finish(&format!("{} samples", done.total));
    Ok(())
}

/// What was asked for, with the answer where one was given.
fn with_answer(mut asked: serde_json::Value, step: &FisherStep) -> serde_json::Value {
    if let Some(answer) = &step.answer {
        asked["answer"] = serde_json::json!(answer);
    }
    asked
}

fn inputs(base: &mut LazyModel, step: &FisherStep) -> Result<Vec<(String, Input)>, Error> {
    let mut inputs = vec![
        ("model".to_owned(), base.input()?),
        ("data".to_owned(), Input::hash(&step.data)?),
    ];
    for (i, folder) in step.adapters.iter().enumerate() {
        inputs.push((format!("adapter_{i}"), Input::hash(folder)?));
    }
    Ok(inputs)
}

pub(crate) fn request(base: &mut LazyModel, step: &FisherStep, estimate: &Estimate) -> Result<Request, Error> {
    let config = serde_json::json!({
        "dataset": step.dataset, "fisher": estimate.config, "parameters": step.parameters, "precision": base.source().precision,
    });
    Ok(Request::new("fisher", &with_answer(config, step), inputs(base, step)?))
}
