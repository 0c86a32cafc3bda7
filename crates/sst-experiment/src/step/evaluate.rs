//! Run an evaluation suite on the base model, on adapters, or on models behind an endpoint.
//!
//! Answers go through a journal, so that an evaluation that was cut off goes on where it stopped and ends with the same
//! bytes; it is deleted once the scores are written.

use crate::answerer::{Answerer, EvaluatedSystem};
use crate::judge::{judge, judge_folder};
use crate::request::{Claim, Request};
use crate::{Error, Reporter};
use sst_artefact::Input;
use sst_data::DataFolder;
use sst_eval::{Evaluation, Journal, Suite, SuiteConfig};
use sst_model::DeviceChoice;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The answers of an evaluation under way.
const JOURNAL: &str = "journal.jsonl";

/// Several systems, asked the same items in the same batches.
#[derive(Debug, Clone)]
pub struct EvaluateAllStep {
    /// The systems, in the order of the results.
    pub systems: Vec<EvaluatedSystem>,
    /// Folder of the data sets.
    pub data: PathBuf,
    /// Benchmarks and settings, not yet checked.
    pub config: SuiteConfig,
    /// Folder of the answers so far.
    pub journal: PathBuf,
    /// Requests between two saves; a number that suits the answerer where not given.
    pub chunk: Option<usize>,
    /// Where a classifier that judges computes.
    pub device: DeviceChoice,
}

/// Evaluates several systems in one go, each into its own folder; those that are there already are read. What was cut off
/// goes on where it stopped.
///
/// # Errors
/// [`Error::Eval`], [`Error::Data`], [`Error::Adapter`], [`Error::Model`], [`Error::Endpoint`]; [`Error::Taken`] and
/// [`Error::Journal`] when a folder holds the result or the answers of another evaluation; [`Error::Compare`] when two
/// systems have one name.
pub fn evaluate_all(
    mut answerer: Answerer,
    step: &EvaluateAllStep,
    reporter: &mut dyn Reporter,
) -> Result<Vec<Evaluation>, Error> {
    let names: Vec<&str> = step.systems.iter().map(|system| system.name.as_str()).collect();
    if let Some(twice) = (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
        let reason = format!("two systems are named {}: rename one of the folders", names[twice]);
        return Err(Error::Compare(reason));
    }
    let suite = Suite::load(&DataFolder::open(&step.data)?, &step.config)?;
    let requests = requests_of(&mut answerer, &step.systems, &suite)?;
    // Claimed in the order of their paths: processes that wait for each other's folders never do so in a circle.
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| &step.systems[i].out);
    let mut claims = BTreeMap::new();
    for i in order {
        if let Some(claim) = requests[i].claim(&step.systems[i].out)? {
            claims.insert(i, (&step.systems[i], claim));
        }
    }
    let missing: Vec<_> = claims.into_values().collect();
    let asked: BTreeMap<&str, &serde_json::Value> =
        names.iter().copied().zip(requests.iter().map(Request::value)).collect();
    // The order decides which requests share a batch.
    let identity = serde_json::json!({ "order": names, "systems": asked });
    if !missing.is_empty() {
        run(&mut answerer, step, &suite, missing, &identity, reporter)?;
    }
    let journal = step.journal.join(JOURNAL);
    if Journal::is_of(&journal, &identity) {
        match std::fs::remove_file(&journal) {
            // Another process that waited for the same systems was faster.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(sst_artefact::Error::io("delete", &journal))?,
        }
    }
    let load = |system: &EvaluatedSystem| Ok(Evaluation::load(&system.out)?);
    step.systems.iter().map(load).collect()
}

/// Asks, judges and writes.
fn run(
    answerer: &mut Answerer,
    step: &EvaluateAllStep,
    suite: &Suite,
    missing: Vec<(&EvaluatedSystem, Claim<'_>)>,
    identity: &serde_json::Value,
    reporter: &mut dyn Reporter,
) -> Result<(), Error> {
    let systems: Vec<&EvaluatedSystem> = missing.iter().map(|(system, _)| *system).collect();
    let adapters: Vec<Option<String>> = systems.iter().map(|system| answerer.adapter(system)).collect();
    let adapters: Vec<Option<&str>> = adapters.iter().map(Option::as_deref).collect();
    let mut judge = judge(&suite.config().judge, step.device)?;
    let chunk = step.chunk.unwrap_or(answerer.chunk());
    let generator = answerer.load(&systems)?;
    let mut journal = Journal::open(&step.journal.join(JOURNAL), identity, chunk, generator)?;
    let total = suite.sizes().iter().map(|(_, n)| n * systems.len()).sum();
    let names: Vec<&str> = systems.iter().map(|system| system.name.as_str()).collect();
    let kept = match journal.len() {
        0 => String::new(),
        n => format!(" ({n} answers kept from before)"),
    };
    reporter.start(&format!("evaluate {}{kept}", names.join(", ")), total);
    let (mut current, mut before, mut last) = (String::new(), 0, 0);
    let evaluations = suite.run_judged(&mut journal, &mut *judge, &adapters, &mut |benchmark, done, _| {
        if benchmark != current {
            before += last;
            benchmark.clone_into(&mut current);
        }
        last = done;
        reporter.advance(before + done, total, benchmark);
    });
    drop(journal);
    answerer.unload(&systems)?;
    let mut summary = Vec::new();
    for ((system, claim), evaluation) in missing.into_iter().zip(evaluations?) {
        evaluation.save(&system.out, claim.inputs())?;
        claim.seal()?;
        let score = |s: &sst_eval::BenchmarkScore| match s.metric.as_str() {
            "nll_per_token" => format!("{} {:.3}", s.benchmark.name(), s.value),
            _ => format!("{} {:.1} %", s.benchmark.name(), 100.0 * s.value),
        };
        let scores: Vec<String> = evaluation.scores.iter().map(score).collect();
        summary.push(scores.join(", "));
    }
    reporter.finish(&summary.join("; "));
    Ok(())
}

/// The data files, and the judge's.
fn inputs(suite: &Suite) -> Result<BTreeMap<String, Input>, Error> {
    let mut inputs = suite.inputs()?;
    if let Some(folder) = judge_folder(&suite.config().judge).filter(|folder| folder.is_dir()) {
        inputs.insert("judge".to_owned(), Input::hash(&folder)?);
    }
    Ok(inputs)
}

/// The systems' requests; where their evaluations go is no part of them.
pub(crate) fn requests(
    answerer: &mut Answerer,
    systems: &[EvaluatedSystem],
    data: &Path,
    config: &SuiteConfig,
) -> Result<Vec<Request>, Error> {
    requests_of(answerer, systems, &Suite::load(&DataFolder::open(data)?, config)?)
}

fn requests_of(answerer: &mut Answerer, systems: &[EvaluatedSystem], suite: &Suite) -> Result<Vec<Request>, Error> {
    let inputs = inputs(suite)?;
    systems
        .iter()
        .map(|system| answerer.request(system, suite.config(), inputs.clone()))
        .collect()
}
