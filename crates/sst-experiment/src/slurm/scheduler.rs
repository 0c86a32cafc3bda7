//! Slurm's own commands.

use crate::Error;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::process::Command;

/// One index of a job array.
pub(crate) type Task = (u64, usize);

/// What the queue says of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queued {
    /// Slurm's word, such as `RUNNING`.
    pub state: String,
    /// Why it waits.
    pub reason: String,
}

/// Submits a job with these arguments: its number.
///
/// # Errors
/// [`Error::Slurm`] with the first line of what `sbatch` says.
pub(crate) fn submit(arguments: &[String]) -> Result<u64, Error> {
    let answer = run("sbatch", arguments)?;
    let id = answer.trim().split(';').next().unwrap_or_default();
    id.parse()
        .map_err(|_| Error::Slurm(format!("sbatch answered `{}`, which is no job's number", answer.trim())))
}

/// Every task of this user that Slurm knows of; it forgets those that ended some minutes ago.
///
/// # Errors
/// [`Error::Slurm`] when the queue cannot be read.
pub(crate) fn queue() -> Result<BTreeMap<Task, Queued>, Error> {
    let arguments = ["--me", "--noheader", "--array", "--states=all", "--format=%F|%K|%T|%r"];
    Ok(parse(&run("squeue", &arguments.map(str::to_owned))?))
}

/// Ends tasks that wait or run.
///
/// # Errors
/// [`Error::Slurm`] when Slurm cannot be asked.
pub(crate) fn cancel(jobs: &[u64]) -> Result<(), Error> {
    let jobs: Vec<String> = jobs.iter().map(u64::to_string).collect();
    run("scancel", &jobs).map(drop)
}

fn run(program: &str, arguments: &[String]) -> Result<String, Error> {
    let output = Command::new(program).args(arguments).output().map_err(|e| {
        Error::Slurm(match e.kind() {
            ErrorKind::NotFound => format!(
                "there is no `{program}` on this machine: start the sweep where jobs are submitted, or print the commands for \
                 another scheduler with --plan"
            ),
            _ => format!("`{program}` could not be started: {e}"),
        })
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("it failed and says nothing");
    Err(Error::Slurm(if first.starts_with(program) {
        first.to_owned()
    } else {
        format!("{program}: {first}")
    }))
}

fn parse(lines: &str) -> BTreeMap<Task, Queued> {
    let task = |line: &str| {
        let mut fields = line.trim().splitn(4, '|');
        let mut next = || fields.next();
        let (job, index) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (state, reason) = (next()?.to_owned(), next()?.to_owned());
        Some(((job, index), Queued { state, reason }))
    };
    // What is no array is none of ours.
    lines.lines().filter_map(task).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_and_other_jobs_are_not() {
        let queue = parse("7|2|RUNNING|None\n8|N/A|PENDING|Priority\n 9|1|PENDING|Dependency\n");
        let keys: Vec<Task> = queue.keys().copied().collect();
        assert_eq!(keys, [(7, 2), (9, 1)]);
        assert_eq!(queue[&(9, 1)].reason, "Dependency");
    }

    #[test]
    fn a_command_that_is_not_there_says_what_to_do() {
        let error = run("no-such-sbatch", &[]).unwrap_err().to_string();
        assert!(error.contains("no-such-sbatch") && error.contains("--plan"), "{error}");
        let error = run("sh", &["-c", "echo refused >&2; exit 1"].map(str::to_owned)).unwrap_err();
        assert_eq!(error.to_string(), "sh: refused");
    }
}
