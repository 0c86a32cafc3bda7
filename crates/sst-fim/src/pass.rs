//! One pass over the samples, from encoded examples to the shards of one or several estimates.
//!
//! The samples are cut into batches once, whatever the number of shards; shard i of n takes the batches i - 1, i - 1 + n, ... So every batch is
//! computed with the same rounding wherever it runs, and shards differ from a single run by the order of f64 sums alone.
//!
//! Batches are planned within windows of 100 drawn samples, so that the batches of N samples begin with those of the whole windows of
//! any smaller count. Estimates of several counts share them; only what a count takes of its last, broken window is computed for it
//! alone. Each estimate has the bytes of a run by itself.

use crate::estimator::{Accumulate, Batch, Measured, Subject, accumulator};
use crate::{Error, FisherConfig};
use serde_json::{Value, json};
use sst_adapter::{ModulePath, ParamLayout};
use sst_artefact::Input;
use sst_data::Example;
use sst_model::{BatchLimits, Encoded, LanguageModel, Objective, TokenWeight};
use sst_subspace::{Estimator, FisherMeta, FisherShard, Labels, Shard, ShardMeta, reduce, write_shard};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Drawn samples that are planned together: enough to find rows of similar length, and a divisor of the counts that people choose.
const WINDOW: usize = 100;

/// Folder of the unfinished sums inside an artefact's folder.
const PARTIAL: &str = "partial";

/// Where the samples come from.
#[derive(Debug, Clone, Copy)]
pub enum Samples<'a> {
    /// Examples, of which the settings draw some, encode them and leave out the long ones.
    Drawn(&'a [Example]),
    /// Tokens that are chosen and encoded already, of which the settings' samples are the first; protocol, seed and max_tokens are
    /// a record of how.
    Encoded(&'a [Encoded]),
}

/// What is measured: the model with its adapters, and the data.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// What the samples are made of.
    pub samples: Samples<'a>,
    /// Adapters on the base model, by the names under which they are loaded; none: the base alone.
    pub stack: &'a [&'a str],
    /// The adapter of the stack whose parameters the gradients are of; the last one where not given.
    pub parameters: Option<&'a str>,
    /// What else shards of one run must share, as an object of named values: hashes of model, adapters and data.
    pub request: Value,
    /// The same as the artefacts' manifests list it.
    pub inputs: BTreeMap<String, Input>,
    /// How often the sums are put on the disk.
    pub checkpoint_every: Duration,
}

/// An estimate and where its artefact or shard goes.
#[derive(Debug, Clone)]
pub struct Estimate {
    /// Its settings.
    pub config: FisherConfig,
    /// Its folder.
    pub out: PathBuf,
}

/// What a caller shows after every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FisherProgress {
    /// Samples done, of this shard.
    pub done: usize,
    /// Samples of this shard; those that several counts batch differently count more than once.
    pub total: usize,
}

/// Where the time of a pass went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassTimes {
    /// Forward passes, the loss and its gradient included.
    pub forward: Duration,
    /// Backward passes.
    pub backward: Duration,
    /// What the estimators took.
    pub statistics: Duration,
}

/// Estimates Fisher information from one pass over the samples; an interrupted run goes on from its last checkpoint.
///
/// Estimates may differ in their number of samples, each a prefix of the same order.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sst_fim::{Estimate, FisherConfig, Samples, Source, estimate};
/// use sst_model::{DeviceChoice, LanguageModel, Precision};
/// let mut model = LanguageModel::load("model".as_ref(), DeviceChoice::Auto, Precision::F32)?;
/// model.add_adapter("safety", &sst_adapter::Adapter::load("adapters/safety".as_ref())?)?;
/// let examples = sst_data::Dataset::Jailbreak.read("jailbreak.jsonl".as_ref())?;
/// let source = Source::new(Samples::Drawn(&examples), &["safety"]);
/// let kron = FisherConfig { estimator: sst_subspace::Estimator::Kron, ..FisherConfig::default() };
/// estimate(&model, &source, &[Estimate { config: kron, out: "fisher/safety".into() }], &mut |_| ())?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`shard`], and [`Error::Subspace`] when the sums are not those of a Fisher: a gradient that is not finite, named.
pub fn estimate(
    model: &LanguageModel,
    source: &Source,
    estimates: &[Estimate],
    progress: &mut dyn FnMut(FisherProgress),
) -> Result<Vec<FisherMeta>, Error> {
    let partial = |e: &Estimate| Estimate {
        config: e.config.clone(),
        out: e.out.join(PARTIAL),
    };
    let partials: Vec<Estimate> = estimates.iter().map(partial).collect();
    shard(model, source, &partials, Shard::WHOLE, progress)?;
    let mut metas = Vec::new();
    for (partial, whole) in partials.iter().zip(estimates) {
        metas.push(reduce(std::slice::from_ref(&partial.out), &whole.out)?);
    }
    // Not before all are reduced: a run that is killed in between would repeat the pass for those whose sums are gone.
    for Estimate { out, .. } in &partials {
        std::fs::remove_dir_all(out).map_err(sst_artefact::Error::io("remove", out))?;
    }
    Ok(metas)
}

/// Computes one shard of the estimates; [`reduce`] makes the artefact of all of them.
///
/// # Errors
/// [`Error::Samples`] when fewer than an estimator needs are left, [`Error::NotFinite`] naming the example whose loss is not
/// finite, [`Error::NoParameters`], [`Error::NoModules`], [`Error::NotInStack`], [`Error::NotShared`];
/// [`Error::Subspace`] when a folder holds the checkpoint of another run; [`Error::Model`].
pub fn shard(
    model: &LanguageModel,
    source: &Source,
    estimates: &[Estimate],
    shard: Shard,
    progress: &mut dyn FnMut(FisherProgress),
) -> Result<PassTimes, Error> {
    let Some((first, others)) = estimates.split_first() else {
        return Ok(PassTimes::default());
    };
    for other in others {
        first.config.check_shared(&other.config)?;
    }
    let rows = encode(model, source.samples, estimates)?;
    let plans: Vec<Vec<Vec<usize>>> = estimates
        .iter()
        .map(|e| rows.plan(model.limits(), e.config.samples))
        .collect();
    let work = Work::of(&plans, shard);
    let total = work.iter().map(|work| work.members.len()).sum();
    let subjects = subjects(model, source, estimates)?;
    let adapter = subjects[0].parameters.as_ref().map(|(at, _)| *at);
    let shown: BTreeSet<ModulePath> = subjects.iter().flat_map(|s| &s.modules).cloned().collect();
    let mut jobs = Vec::new();
    for (i, (e, subject)) in estimates.iter().zip(subjects).enumerate() {
        let own = work.iter().filter(|work| work.estimates.contains(&i));
        let mut numbers: Vec<usize> = own.clone().flat_map(|work| work.members.iter().copied()).collect();
        numbers.sort_unstable();
        let samples = plans[i].iter().map(Vec::len).sum();
        jobs.push(Job::begin(
            model,
            source,
            e,
            subject,
            shard,
            (samples, &numbers, own.count()),
        )?);
    }

    let objective = Objective {
        adapters: source.stack,
        draw_labels: match first.config.labels {
            Labels::Given => None,
            Labels::Sampled { seed } => Some(seed),
        },
        weight: TokenWeight::RowMean,
    };
    let mut times = PassTimes::default();
    let (mut done, last) = (0, work.len());
    let mut written = Instant::now();
    for (place, work) in work.iter().enumerate() {
        let (at, members) = (work.at, work.members);
        done += members.len();
        let open = |i: &usize| jobs[*i].meta.batches_done <= at;
        let behind: Vec<usize> = work.estimates.iter().copied().filter(open).collect();
        if behind.is_empty() {
            progress(FisherProgress { done, total });
            continue;
        }
        let batch = Batch {
            rows: members.iter().map(|&i| &rows.encoded[i]).collect(),
            numbers: members.to_vec(),
        };
        let wanted = |path: &ModulePath| shown.contains(path);
        let report = model.backward(&batch.rows, &objective, &wanted, &mut |reading| {
            let measured = Measured::new(&reading, &batch, adapter);
            behind.iter().try_for_each(|&i| jobs[i].sums.add(&measured))
        })?;
        let losses = report.losses.row_sums();
        if let Some((row, _)) = batch.rows.iter().zip(&losses).find(|(_, loss)| !loss.is_finite()) {
            return Err(Error::NotFinite { id: row.id.clone() });
        }
        times.forward += report.forward;
        times.backward += report.backward;
        times.statistics += report.shown;
        for i in behind {
            jobs[i].count(&batch);
        }
        if written.elapsed() >= source.checkpoint_every && place + 1 < last {
            for job in &jobs {
                job.write(source)?;
            }
            written = Instant::now();
        }
        progress(FisherProgress { done, total });
    }
    for job in jobs {
        job.finish(source)?;
    }
    Ok(times)
}

impl<'a> Source<'a> {
    /// Samples and adapters alone: the last adapter's parameters, a checkpoint every two minutes, nothing recorded.
    pub fn new(samples: Samples<'a>, stack: &'a [&'a str]) -> Self {
        Self {
            samples,
            stack,
            parameters: None,
            request: json!({}),
            inputs: BTreeMap::new(),
            checkpoint_every: Duration::from_secs(120),
        }
    }
}

/// One batch of a shard, and the estimates that it is for.
struct Work<'a> {
    /// How many batches each of them has before it.
    at: usize,
    members: &'a [usize],
    estimates: Vec<usize>,
}

impl<'a> Work<'a> {
    /// The batches of a shard in their order, those that several plans have at the same place once.
    fn of(plans: &'a [Vec<Vec<usize>>], shard: Shard) -> Vec<Self> {
        let longest = plans.iter().map(Vec::len).max().unwrap_or_default();
        let mut all: Vec<Self> = Vec::new();
        for (at, place) in (0..longest).filter(|&b| shard.owns(b)).enumerate() {
            let first = all.len();
            for (i, members) in plans
                .iter()
                .enumerate()
                .filter_map(|(i, plan)| Some((i, plan.get(place)?)))
            {
                match all[first..].iter_mut().find(|work| work.members == members) {
                    Some(work) => work.estimates.push(i),
                    None => all.push(Self {
                        at,
                        members,
                        estimates: vec![i],
                    }),
                }
            }
        }
        all
    }
}

/// Encoded samples, and the place of each among those drawn, ascending.
struct Rows<'a> {
    encoded: Cow<'a, [Encoded]>,
    places: Vec<usize>,
}

impl Rows<'_> {
    /// How many of the first `samples` drawn there are.
    fn count(&self, samples: Option<usize>) -> usize {
        samples.map_or(self.places.len(), |n| self.places.partition_point(|place| *place < n))
    }

    /// Batches of the first `samples` drawn, window by window.
    fn plan(&self, limits: BatchLimits, samples: Option<usize>) -> Vec<Vec<usize>> {
        let rows: Vec<usize> = (0..self.count(samples)).collect();
        let windows = rows.chunk_by(|a, b| self.places[*a] / WINDOW == self.places[*b] / WINDOW);
        let batches = windows.flat_map(|window| {
            let lengths: Vec<usize> = window.iter().map(|&i| self.encoded[i].ids.len()).collect();
            let plan = limits.plan(&lengths).into_iter();
            plan.map(|batch| batch.into_iter().map(|i| window[i]).collect())
        });
        batches.collect()
    }
}

/// One estimate under way.
struct Job {
    folder: PathBuf,
    meta: ShardMeta,
    sums: Box<dyn Accumulate>,
}

impl Job {
    fn begin(
        model: &LanguageModel,
        source: &Source,
        estimate: &Estimate,
        subject: Subject,
        shard: Shard,
        (total_samples, numbers, batches): (usize, &[usize], usize),
    ) -> Result<Self, Error> {
        let config = &estimate.config;
        let parameters = subject.parameters.as_ref().map(|(at, _)| source.stack[*at]);
        let samples = config.estimator == Estimator::Samples;
        let mut meta = ShardMeta {
            fisher: config.meta(source.stack, parameters),
            shard,
            batches_done: 0,
            batches,
            total_samples,
            request: request(model, source, config),
            inputs: BTreeMap::new(),
            rows: numbers.iter().filter(|_| samples).map(|&n| n as u64).collect(),
        };
        let checkpoint = open(&estimate.out)?;
        if let Some(found) = &checkpoint {
            found.check_resume(&meta)?;
            meta = found.meta.clone();
            tracing::info!(batches = meta.batches_done, "resumed from a checkpoint");
        }
        let sums = accumulator(config, &subject, numbers, &estimate.out, checkpoint.as_ref())?;
        Ok(Self {
            folder: estimate.out.clone(),
            meta,
            sums,
        })
    }

    fn count(&mut self, batch: &Batch) {
        self.meta.batches_done += 1;
        self.meta.fisher.samples += batch.rows.len() as u64;
        self.meta.fisher.tokens += batch.rows.iter().map(|row| row.scored() as u64).sum::<u64>();
        self.meta.inputs = self.sums.inputs();
    }

    fn write(&self, source: &Source) -> Result<(), Error> {
        self.sums.sync()?;
        let tensors = self.sums.tensors();
        write_shard(&self.folder, &self.meta, source.inputs.clone(), &tensors, |name| {
            self.sums.download(name)
        })
    }

    fn finish(self, source: &Source) -> Result<(), Error> {
        self.write(source)?;
        self.sums.finish()
    }
}

/// The checkpoint in a folder, if there is one.
fn open(folder: &Path) -> Result<Option<FisherShard>, Error> {
    if folder.join(sst_artefact::MANIFEST_FILE).exists() {
        Ok(Some(FisherShard::load(folder)?))
    } else {
        Ok(None)
    }
}

/// What decides the samples, their batches and their gradients, beside the estimate's own settings.
fn request(model: &LanguageModel, source: &Source, config: &FisherConfig) -> Value {
    let limits = model.limits();
    let mut request = json!({
        "targets": config.targets,
        "samples": config.samples,
        "max_tokens": config.max_tokens,
        "batch_window": WINDOW,
        "batch_rows": limits.rows,
        "batch_tokens": limits.tokens,
    });
    if config.estimator == Estimator::Samples {
        request["gradient_dtype"] = json!(config.gradient_dtype);
    }
    if let (Some(ours), Some(theirs)) = (request.as_object_mut(), source.request.as_object()) {
        ours.extend(theirs.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    request
}

/// What each estimate is about.
fn subjects(model: &LanguageModel, source: &Source, estimates: &[Estimate]) -> Result<Vec<Subject>, Error> {
    let adapters = source
        .stack
        .iter()
        .map(|name| model.adapter(name)?.layout())
        .collect::<Result<Vec<_>, sst_model::Error>>()?;
    let at = match source.parameters {
        None => source.stack.len().checked_sub(1),
        Some(name) => {
            let place = source.stack.iter().position(|n| *n == name);
            let missing = || Error::NotInStack {
                parameters: name.to_owned(),
                stack: source.stack.join(" + "),
            };
            Some(place.ok_or_else(missing)?)
        }
    };
    let of_layouts = |layouts: &[ParamLayout]| -> BTreeSet<ModulePath> {
        let slots = layouts.iter().flat_map(|layout| layout.slots());
        slots.map(|slot| slot.module()).collect()
    };
    let mut subjects = Vec::new();
    for Estimate { config, .. } in estimates {
        let modules = match (config.estimator, at) {
            (Estimator::Kron, _) if !config.targets.is_empty() => model.modules(&config.targets).into_iter().collect(),
            (Estimator::Kron, _) => of_layouts(&adapters),
            (_, Some(at)) => of_layouts(&adapters[at..=at]),
            (estimator, None) => return Err(Error::NoParameters { estimator }),
        };
        if modules.is_empty() {
            let targets = config.targets.join(", ");
            return Err(Error::NoModules { targets });
        }
        subjects.push(Subject {
            modules,
            parameters: at.map(|at| (at, adapters[at].clone())),
            device: model.device(),
        });
    }
    Ok(subjects)
}

fn encode<'a>(model: &LanguageModel, samples: Samples<'a>, estimates: &[Estimate]) -> Result<Rows<'a>, Error> {
    let config = &estimates[0].config;
    let limit = config.max_tokens.min(model.max_position());
    let rows = match samples {
        Samples::Encoded(rows) => Rows {
            encoded: Cow::Borrowed(rows),
            places: (0..rows.len()).collect(),
        },
        Samples::Drawn(examples) => {
            let counts = estimates.iter().map(|e| e.config.samples.unwrap_or(examples.len()));
            let chosen = sst_data::sample(examples, counts.max().unwrap_or_default(), config.seed);
            let (mut encoded, mut places) = (Vec::with_capacity(chosen.len()), Vec::new());
            for (place, example) in chosen.iter().enumerate() {
                if let Some(row) = config.protocol.encode(model, example, limit)? {
                    encoded.push(row);
                    places.push(place);
                }
            }
            let too_long = chosen.len() - encoded.len();
            if too_long > 0 {
                tracing::warn!(
                    too_long,
                    limit,
                    "samples left out: longer than max_tokens or the model's context"
                );
            }
            Rows {
                encoded: Cow::Owned(encoded),
                places,
            }
        }
    };
    for Estimate { config, .. } in estimates {
        let (needed, got) = (config.estimator.needed_samples() as usize, rows.count(config.samples));
        if got < needed {
            let drawn = match samples {
                Samples::Encoded(_) => got,
                Samples::Drawn(examples) => config.samples.unwrap_or(examples.len()).min(examples.len()),
            };
            return Err(Error::Samples {
                estimator: config.estimator,
                needed,
                got,
                too_long: drawn - got,
                max_tokens: limit,
            });
        }
    }
    Ok(rows)
}
