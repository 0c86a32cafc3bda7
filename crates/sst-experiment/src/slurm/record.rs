//! What was submitted for a plan, in the run folder, so that a command that starts later finds it.
//!
//! Folder `slurm/<key>` of the run, the key being that of recipe, shards and command: scripts, `jobs.json`, and `logs/` with a
//! log and an exit file per part, named by stage, job and part.

use super::fate::Exit;
use super::scheduler::Task;
use crate::{Error, PlanStage};
use serde::{Deserialize, Serialize};
use sst_artefact::Error as Artefact;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

const JOBS: &str = "jobs.json";

/// One submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    pub stage: PlanStage,
    pub id: u64,
    /// Numbers of its parts, the indices of its array.
    pub parts: BTreeSet<usize>,
}

/// Everything submitted so far.
#[derive(Debug)]
pub(crate) struct Record {
    folder: PathBuf,
    jobs: Vec<Job>,
    _lock: File,
}

impl Record {
    /// Opens the record in `folder`, for one process at a time.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        sst_artefact::create_dir(&folder.join("logs"))?;
        let path = folder.join(".lock");
        let lock = File::create(&path).map_err(Artefact::io("lock", &path))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let reason =
                    "another process submits and watches this sweep: wait for it or stop it; its jobs will go on";
                return Err(Error::Slurm(reason.to_owned()));
            }
            // Where the file system has no locks there is nothing to respect.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let jobs = folder.join(JOBS);
        Ok(Self {
            jobs: if jobs.exists() {
                sst_artefact::read_json(&jobs, "record of jobs")?
            } else {
                Vec::new()
            },
            folder: folder.to_path_buf(),
            _lock: lock,
        })
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// Keeps a stage's script: its path.
    pub(crate) fn script(&self, stage: PlanStage, text: &str) -> Result<PathBuf, Error> {
        let path = self.folder.join(format!("{stage}.sh"));
        sst_artefact::write_atomic(&path, |w| std::io::Write::write_all(w, text.as_bytes()))?;
        Ok(path)
    }

    /// Keeps a submission.
    pub(crate) fn add(&mut self, job: Job) -> Result<(), Error> {
        self.jobs.push(job);
        Ok(sst_artefact::write_json(&self.folder.join(JOBS), &self.jobs)?)
    }

    /// The last task of every part of a stage.
    pub(crate) fn tasks(&self, stage: PlanStage) -> BTreeMap<usize, Task> {
        let of_stage = self.jobs.iter().filter(|job| job.stage == stage);
        of_stage
            .flat_map(|job| job.parts.iter().map(|&part| (part, (job.id, part))))
            .collect()
    }

    fn file(&self, stage: PlanStage, (job, part): Task, extension: &str) -> PathBuf {
        self.logs().join(format!("{stage}-{job}_{part}.{extension}"))
    }

    pub(crate) fn exit(&self, stage: PlanStage, task: Task) -> Option<Exit> {
        Exit::parse(&std::fs::read_to_string(self.file(stage, task, "exit")).ok()?)
    }

    pub(crate) fn log(&self, stage: PlanStage, task: Task) -> PathBuf {
        self.file(stage, task, "log")
    }

    /// The last line of a part's log that is not empty.
    pub(crate) fn last_line(&self, stage: PlanStage, task: Task) -> String {
        let text = std::fs::read(self.log(stage, task)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.map_or("its log is empty", |line| line.strip_prefix("error: ").unwrap_or(line))
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_submission_of_a_part_counts_and_survives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let job = |id, parts: &[usize]| Job {
            stage: PlanStage::Fisher,
            id,
            parts: parts.iter().copied().collect(),
        };
        let mut record = Record::open(dir.path()).unwrap();
        record.add(job(4, &[1, 2, 3])).unwrap();
        record.add(job(9, &[2])).unwrap();
        let error = Record::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        drop(record);
        let record = Record::open(dir.path()).unwrap();
        let tasks = record.tasks(PlanStage::Fisher);
        assert_eq!(tasks, BTreeMap::from([(1, (4, 1)), (2, (9, 2)), (3, (4, 3))]));
        assert!(record.tasks(PlanStage::Merge).is_empty());
        assert_eq!(record.last_line(PlanStage::Fisher, (9, 2)), "its log is empty");
        std::fs::write(record.log(PlanStage::Fisher, (9, 2)), "working\nerror: no room\n\n").unwrap();
        assert_eq!(record.last_line(PlanStage::Fisher, (9, 2)), "no room");
        assert_eq!(record.exit(PlanStage::Fisher, (9, 2)), None);
    }
}
