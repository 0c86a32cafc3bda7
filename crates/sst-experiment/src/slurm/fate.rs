//! What became of a part that was submitted.

use super::scheduler::Queued;
use std::time::Duration;

/// What a part's script leaves when the part has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    pub code: i32,
    pub took: Duration,
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It waits for its turn.
    Waiting,
    /// It waits for a part that will never succeed.
    Stuck,
    Running,
    /// It succeeded.
    Done(Option<Duration>),
    /// It ended by itself with an error.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// It was ended from outside: what Slurm calls it.
    Lost(String),
}

impl Exit {
    /// Reads `<code> <seconds>`; none while it is not written whole.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (code, seconds) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Self {
            code: code.parse().ok()?,
            took: Duration::from_secs(seconds.parse().ok()?),
        })
    }
}

impl Fate {
    /// From what the queue says, if it knows the task, and the exit file, if there is one.
    ///
    /// A job that was put back into the queue has the exit file of its earlier run: the queue is asked first.
    pub(crate) fn of(queued: Option<&Queued>, exit: Option<Exit>) -> Self {
        let state = queued.map(|queued| queued.state.as_str());
        match (state, exit) {
            (Some("PENDING"), _) if queued.is_some_and(|q| q.reason == "DependencyNeverSatisfied") => Self::Stuck,
            (Some("PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "CONFIGURING"), _) => Self::Waiting,
            (Some("RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "RESIZING" | "SIGNALING" | "STAGE_OUT"), _) => {
                Self::Running
            }
            (_, Some(Exit { code: 0, took })) => Self::Done(Some(took)),
            // From 128 on a shell counts the signals that end a program.
            (_, Some(Exit { code: ..128, .. })) => Self::Failed,
            (Some("COMPLETED"), _) => Self::Done(None),
            (Some("CANCELLED"), _) => Self::Cancelled,
            (Some(state), _) => Self::Lost(state.to_lowercase()),
            (None, _) => Self::Lost("gone from the queue".to_owned()),
        }
    }

    /// Whether Slurm will still do something about it.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }

    /// Whether Slurm still has it, be it in vain.
    pub(crate) fn is_queued(&self) -> bool {
        self.is_live() || *self == Self::Stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stop_and_losses_do_not() {
        let fate = |state: &str, reason: &str, exit: &str| {
            let queued = Queued {
                state: state.to_owned(),
                reason: reason.to_owned(),
            };
            Fate::of(Some(&queued).filter(|_| !state.is_empty()), Exit::parse(exit))
        };
        let lost = |what: &str| Fate::Lost(what.to_owned());
        for (state, reason, exit, expected) in [
            ("RUNNING", "None", "", Fate::Running),
            ("PENDING", "Dependency", "", Fate::Waiting),
            ("PENDING", "DependencyNeverSatisfied", "", Fate::Stuck),
            // Put back into the queue after its node was lost.
            ("PENDING", "BeginTime", "143 5\n", Fate::Waiting),
            ("COMPLETED", "None", "0 5\n", Fate::Done(Some(Duration::from_secs(5)))),
            ("COMPLETED", "None", "", Fate::Done(None)),
            ("", "", "0 5\n", Fate::Done(Some(Duration::from_secs(5)))),
            ("FAILED", "NonZeroExitCode", "1 5\n", Fate::Failed),
            ("FAILED", "NonZeroExitCode", "137 5\n", lost("failed")),
            // Its script could not even write the exit file.
            ("FAILED", "NonZeroExitCode", "", lost("failed")),
            ("CANCELLED", "None", "143 5\n", Fate::Cancelled),
            ("TIMEOUT", "TimeLimit", "143 5\n", lost("timeout")),
            ("NODE_FAIL", "None", "", lost("node_fail")),
            ("", "", "", lost("gone from the queue")),
            ("", "", "1", lost("gone from the queue")),
        ] {
            assert_eq!(fate(state, reason, exit), expected, "{state} {reason} {exit}");
        }
    }
}
