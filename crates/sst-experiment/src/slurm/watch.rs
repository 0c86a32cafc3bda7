//! Submit what is left of a plan, and stay with it until it is done.

use super::SlurmConfig;
use super::fate::Fate;
use super::record::{Job, Record};
use super::scheduler::{self, Queued, Task};
use super::script::{ranges, script};
use crate::time_left::TimeLeft;
use crate::{Error, Invocation, LazyModel, Plan, PlanStage, Recipe, Reporter, Results, Run};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two looks at the queue: short at first and after every change, so that small sweeps are quick.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Looks that may fail one after the other: Slurm's controller restarts now and then.
const PATIENCE: usize = 20;

/// Runs a recipe on a Slurm cluster, from where jobs are submitted, and returns its results.
///
/// The folders of model, data and run, and the program, must be where the nodes see them too. Ended at any moment, the jobs go
/// on; started again, it takes up those that live and submits what is missing.
///
/// # Errors
/// [`Error::Slurm`] when Slurm cannot be asked or refuses, and when a part fails, is cancelled, or was lost more often than
/// it may be: the line ends with how to go on. As [`crate::remaining`].
pub fn sweep_on_slurm(
    base: &mut LazyModel,
    recipe: &Recipe,
    run: &Run,
    (invocation, config): (&Invocation, &SlurmConfig),
    reporter: &mut dyn Reporter,
) -> Result<Results, Error> {
    let plan = Plan::of(recipe, run.fisher_shards)?;
    // Before anything is hashed: where there is no Slurm this says so.
    scheduler::queue()?;
    let left = crate::remaining(base, recipe, run, &plan, reporter)?;
    let identity = format!("{} {invocation:?}", serde_json::json!(recipe));
    let key = sst_artefact::sha256_bytes(identity.as_bytes());
    let out = std::path::absolute(&run.out).map_err(sst_artefact::Error::io("find", &run.out))?;
    let numbers = left
        .iter()
        .flat_map(|(stage, parts)| parts.iter().map(|&part| (*stage, part)));
    let watch = Watch {
        time: TimeLeft::of(numbers.map(|(stage, part)| (stage, &plan.parts(stage)[part - 1]))),
        record: Record::open(&out.join("slurm").join(&key[..12]))?,
        plan: &plan,
        invocation,
        config,
        left,
        ours: BTreeSet::new(),
        losses: BTreeMap::new(),
        most: 1,
    };
    watch.stay(reporter)?;
    Results::read(&run.out)
}

struct Watch<'a> {
    plan: &'a Plan,
    invocation: &'a Invocation,
    config: &'a SlurmConfig,
    record: Record,
    /// Numbers of the parts that are not done.
    left: BTreeMap<PlanStage, BTreeSet<usize>>,
    /// Jobs submitted by this process, or found in the queue by it.
    ours: BTreeSet<u64>,
    losses: BTreeMap<(PlanStage, usize), usize>,
    time: TimeLeft,
    /// Most parts seen running at once.
    most: usize,
}

/// What became of every part that is left; nothing of those that were not submitted.
type Fates = BTreeMap<PlanStage, BTreeMap<usize, Option<Fate>>>;

impl Watch<'_> {
    fn stay(mut self, reporter: &mut dyn Reporter) -> Result<(), Error> {
        let (mut pause, mut failures, mut before) = (FIRST_PAUSE, 0, None);
        while !self.left.is_empty() {
            match scheduler::queue() {
                Ok(queue) => {
                    failures = 0;
                    let fates = self.look(&queue);
                    self.act(&fates)?;
                    let overall = self.overall(&fates);
                    pause = if before.as_ref() == Some(&overall) {
                        LONGEST_PAUSE.min(pause * 5 / 4)
                    } else {
                        reporter.overall(&overall);
                        FIRST_PAUSE
                    };
                    before = Some(overall);
                }
                Err(error) if failures == PATIENCE => {
                    return Err(Error::Slurm(format!(
                        "{error}; the jobs go on: run the same command again later"
                    )));
                }
                Err(error) => {
                    tracing::warn!(%error, "the queue could not be read");
                    failures += 1;
                    pause = LONGEST_PAUSE;
                }
            }
            if !self.left.is_empty() {
                std::thread::sleep(pause);
            }
        }
        Ok(())
    }

    /// What became of the parts that are left; those that are done leave.
    fn look(&mut self, queue: &BTreeMap<Task, Queued>) -> Fates {
        let mut fates = Fates::new();
        for (&stage, parts) in &mut self.left {
            let tasks = self.record.tasks(stage);
            let of_stage = fates.entry(stage).or_default();
            parts.retain(|part| {
                let fate = tasks.get(part).and_then(|&task| {
                    let fate = Fate::of(queue.get(&task), self.record.exit(stage, task));
                    if fate.is_queued() {
                        self.ours.insert(task.0);
                    }
                    // What ended before this process began is submitted again, however it ended.
                    self.ours.contains(&task.0).then_some(fate)
                });
                if let Some(Fate::Done(took)) = fate {
                    self.time.ended(stage, &self.plan.parts(stage)[part - 1], took);
                    return false;
                }
                of_stage.insert(*part, fate);
                true
            });
        }
        self.left.retain(|_, parts| !parts.is_empty());
        fates.retain(|stage, _| self.left.contains_key(stage));
        fates
    }

    /// Submits what must be, or says which part keeps the sweep from going on.
    fn act(&mut self, fates: &Fates) -> Result<(), Error> {
        for (&stage, parts) in fates {
            let mut again = BTreeSet::new();
            for (&part, fate) in parts {
                match fate {
                    Some(Fate::Waiting | Fate::Running | Fate::Done(_)) => {}
                    None | Some(Fate::Stuck) => {
                        again.insert(part);
                    }
                    Some(Fate::Lost(how)) => {
                        let losses = self.losses.entry((stage, part)).or_default();
                        *losses += 1;
                        if *losses > self.config.retries {
                            let times = *losses;
                            return Err(self.give_up(fates, stage, part, &format!("was lost {times} times ({how})")));
                        }
                        tracing::warn!(%stage, part, how, "lost; submitted again");
                        again.insert(part);
                    }
                    Some(Fate::Cancelled) => return Err(self.give_up(fates, stage, part, "was cancelled")),
                    Some(Fate::Failed) => return Err(self.give_up(fates, stage, part, "failed")),
                }
            }
            if !again.is_empty() {
                return self.submit_from(stage, again, fates);
            }
        }
        Ok(())
    }

    /// Submits parts of a stage, and everything after it anew: that depends on the new jobs.
    fn submit_from(&mut self, first: PlanStage, again: BTreeSet<usize>, fates: &Fates) -> Result<(), Error> {
        self.cancel_after(first, fates);
        let live = |stage: PlanStage| {
            let parts = fates[&stage].iter();
            parts
                .filter(|(_, fate)| fate.as_ref().is_some_and(Fate::is_live))
                .map(|(&part, _)| part)
        };
        let before = fates.keys().copied().rfind(|&stage| stage < first);
        let mut dependencies: Vec<String> = before.map_or(Vec::new(), |stage| self.tasks(stage, live(stage)));
        for (stage, parts) in self.left.clone() {
            if stage < first {
                continue;
            }
            let (parts, kept) = if stage == first {
                (again.clone(), self.tasks(stage, live(stage)))
            } else {
                (parts, Vec::new())
            };
            let id = self.submit(stage, parts, &dependencies)?;
            dependencies = kept;
            dependencies.push(id.to_string());
        }
        Ok(())
    }

    fn submit(&mut self, stage: PlanStage, parts: BTreeSet<usize>, dependencies: &[String]) -> Result<u64, Error> {
        let logs = self.record.logs();
        let text = script(self.invocation, stage, self.plan.parts(stage).len(), &logs);
        let script = self.record.script(stage, &text)?;
        let mut arguments = vec![
            "--parsable".to_owned(),
            format!("--job-name=sst-{stage}"),
            format!("--array={}", ranges(&parts)),
            // Patterns are for file names alone: a `%` in the folder's is no pattern.
            format!("--chdir={}", logs.display()),
            format!("--output={stage}-%A_%a.log"),
        ];
        arguments.extend(self.config.arguments(stage).map(str::to_owned));
        if !dependencies.is_empty() {
            arguments.push(format!("--dependency=afterok:{}", dependencies.join(":")));
        }
        arguments.push(script.display().to_string());
        let id = scheduler::submit(&arguments)?;
        tracing::info!(%stage, id, parts = ranges(&parts), "submitted");
        self.ours.insert(id);
        self.record.add(Job { stage, id, parts })?;
        Ok(id)
    }

    /// The tasks of parts as a dependency names them.
    fn tasks(&self, stage: PlanStage, parts: impl Iterator<Item = usize>) -> Vec<String> {
        let tasks = self.record.tasks(stage);
        parts
            .filter_map(|part| tasks.get(&part))
            .map(|(job, part)| format!("{job}_{part}"))
            .collect()
    }

    /// Cancels what waits for a stage, and of the stage itself what waits in vain.
    fn cancel_after(&self, stage: PlanStage, fates: &Fates) {
        let mut jobs = BTreeSet::new();
        for (&later, parts) in fates.range(stage..) {
            let tasks = self.record.tasks(later);
            let ends = |fate: &Fate| *fate == Fate::Stuck || later > stage && fate.is_queued();
            let waiting = parts.iter().filter(|(_, fate)| fate.as_ref().is_some_and(ends));
            jobs.extend(waiting.filter_map(|(part, _)| tasks.get(part)).map(|(job, _)| *job));
        }
        if jobs.is_empty() {
            return;
        }
        // Some clusters do it themselves; a job that stays waits for nothing and computes nothing.
        if let Err(error) = scheduler::cancel(&jobs.into_iter().collect::<Vec<_>>()) {
            tracing::warn!(%error, "what waits for the part could not be cancelled");
        }
    }

    /// The error of a part that keeps the sweep from going on; what waits for it is cancelled.
    fn give_up(&self, fates: &Fates, stage: PlanStage, part: usize, what: &str) -> Error {
        self.cancel_after(stage, fates);
        let parts = self.plan.parts(stage);
        let task = self.record.tasks(stage)[&part];
        Error::Slurm(format!(
            "{stage} part {part}/{} ({}) {what}: {}; its log is {}; mend it and run the same command again",
            parts.len(),
            parts[part - 1],
            self.record.last_line(stage, task),
            self.record.log(stage, task).display()
        ))
    }

    fn overall(&mut self, fates: &Fates) -> crate::Overall {
        let running = |stage: PlanStage| {
            let parts = fates.get(&stage).into_iter().flat_map(BTreeMap::values);
            parts.filter(|fate| **fate == Some(Fate::Running)).count()
        };
        let now: usize = fates.keys().map(|&stage| running(stage)).sum();
        self.most = self.most.max(now);
        let side_by_side = |stage: PlanStage| match running(stage) {
            0 => self.most.min(self.left.get(&stage).map_or(1, BTreeSet::len)),
            n => n,
        };
        let stage = self.left.keys().next();
        let note = stage.map_or(String::new(), |stage| format!("{now} running ({stage})"));
        self.time.overall(side_by_side, note)
    }
}
