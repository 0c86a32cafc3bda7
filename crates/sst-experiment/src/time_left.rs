//! How long a sweep will take still, from the parts that have ended.
//!
//! The parts of a stage differ in size and not in kind: a stage's time is the work left in it, in its parts' weights, times the
//! seconds that a unit took so far, over the parts that run side by side. A stage of which nothing has ended has no
//! estimate; then the sum over the others is what is left at least.

use crate::{Part, PlanStage};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Where a whole sweep is.
#[derive(Debug, Clone, PartialEq)]
pub struct Overall {
    /// Parts that have ended.
    pub done: usize,
    /// Parts in all.
    pub total: usize,
    /// Time left, or none where no estimate can be made yet.
    pub left: Option<Duration>,
    /// Stages that come on top of [`Overall::left`].
    pub unknown: Vec<PlanStage>,
    /// What else there is to say.
    pub note: String,
}

/// What has ended and what has not.
#[derive(Debug, Clone, Default)]
pub(crate) struct TimeLeft {
    stages: BTreeMap<PlanStage, Progress>,
}

#[derive(Debug, Clone, Default)]
struct Progress {
    parts: usize,
    ended: usize,
    /// Weight of the parts that have not ended.
    left: f64,
    /// Weight and seconds of the parts that have ended here.
    measured: (f64, f64),
}

impl TimeLeft {
    /// Of parts that are still to do.
    pub(crate) fn of<'p>(parts: impl IntoIterator<Item = (PlanStage, &'p Part)>) -> Self {
        let mut stages = BTreeMap::<PlanStage, Progress>::new();
        for (stage, part) in parts {
            let progress = stages.entry(stage).or_default();
            progress.parts += 1;
            progress.left += part.weight();
        }
        Self { stages }
    }

    /// A part has ended, after this time where it is known.
    pub(crate) fn ended(&mut self, stage: PlanStage, part: &Part, took: Option<Duration>) {
        let progress = self.stages.entry(stage).or_default();
        progress.ended += 1;
        progress.left = (progress.left - part.weight()).max(0.0);
        if let Some(took) = took {
            progress.measured.0 += part.weight();
            progress.measured.1 += took.as_secs_f64();
        }
    }

    /// Where the sweep is, with so many parts of each stage running side by side, at least 1.
    pub(crate) fn overall(&self, side_by_side: impl Fn(PlanStage) -> usize, note: String) -> Overall {
        let (mut seconds, mut known, mut unknown) = (0.0, false, Vec::new());
        for (&stage, progress) in self
            .stages
            .iter()
            .filter(|(_, progress)| progress.ended < progress.parts)
        {
            let (weight, took) = progress.measured;
            if weight > 0.0 {
                known = true;
                seconds += progress.left * took / weight / side_by_side(stage).max(1) as f64;
            } else {
                unknown.push(stage);
            }
        }
        Overall {
            done: self.stages.values().map(|progress| progress.ended).sum(),
            total: self.stages.values().map(|progress| progress.parts).sum(),
            left: known.then(|| Duration::from_secs_f64(seconds)),
            unknown,
            note,
        }
    }
}

impl fmt::Display for Overall {
    /// `12 of 31 parts, 14 min left`; `..., 14 min left and then evaluate, report`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} parts", self.done, self.total)?;
        if !self.note.is_empty() {
            write!(f, ", {}", self.note)?;
        }
        let Some(left) = self.left else { return Ok(()) };
        let minutes = left.as_secs().div_ceil(60);
        match minutes {
            0..=1 => write!(f, ", {} s left", left.as_secs())?,
            2..=119 => write!(f, ", {minutes} min left")?,
            _ => write!(f, ", {} h {} min left", minutes / 60, minutes % 60)?,
        }
        // Gathering the results takes no time to speak of.
        let then: Vec<String> = self
            .unknown
            .iter()
            .filter(|stage| **stage != PlanStage::Report)
            .map(PlanStage::to_string)
            .collect();
        if then.is_empty() {
            Ok(())
        } else {
            write!(f, ", then {}", then.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Candidate;

    fn group(systems: usize) -> Part {
        Part::Evaluate(vec![Candidate::Base; systems])
    }

    #[test]
    fn nothing_is_said_before_something_has_ended_and_then_what_follows_from_it() {
        let train = Part::Train("A5".to_owned());
        let parts = [
            (PlanStage::Train, &train),
            (PlanStage::Train, &train),
            (PlanStage::Evaluate, &group(8)),
            (PlanStage::Evaluate, &group(2)),
        ];
        let mut time = TimeLeft::of(parts);
        let text = |time: &TimeLeft, side: usize| time.overall(|_| side, String::new()).to_string();
        assert_eq!(text(&time, 1), "0 of 4 parts");
        time.ended(PlanStage::Train, &train, Some(Duration::from_secs(600)));
        assert_eq!(text(&time, 1), "1 of 4 parts, 10 min left, then evaluate");
        // Ended elsewhere: no longer to do, and no measurement.
        time.ended(PlanStage::Train, &train, None);
        assert_eq!(text(&time, 1), "2 of 4 parts");
        time.ended(PlanStage::Evaluate, &group(8), Some(Duration::from_secs(4 * 3600)));
        let overall = time.overall(|_| 1, "1 running".to_owned());
        assert_eq!(overall.left, Some(Duration::from_secs(3600)));
        assert_eq!(overall.to_string(), "3 of 4 parts, 1 running, 60 min left");
        assert_eq!(time.overall(|_| 2, String::new()).left, Some(Duration::from_secs(1800)));
    }
}
