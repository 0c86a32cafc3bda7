//! The choice of a selection: each method's point on the development items, and what it scored on the test items.

use super::run_folder::RunFolder;
use super::{Cell, Goals, Rate, front};
use crate::{Axes, MethodChoice, SelectionRule};
use serde::Serialize;
use sst_eval::Interval;
use std::collections::BTreeSet;

/// What was chosen on development items and judged on test items.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Selected {
    /// Share of the items that is for development.
    pub dev: f64,
    /// Which point is chosen.
    pub rule: SelectionRule,
    /// Least share of harmful requests to refuse.
    pub goal: f64,
    /// Refusals of harmless requests allowed beyond the utility adapters'.
    pub margin: f64,
    /// Choices whose test items were asked before.
    pub seen: usize,
    /// Whether the grid has changed since.
    pub outdated: bool,
    /// Merges that had failed, so that they could not be chosen.
    pub failed: Vec<String>,
    /// One choice per method.
    pub choices: Vec<Chosen>,
    /// Base model, adapters and chosen points, with their scores on the test items.
    pub cells: Vec<Cell>,
    /// Names of those on the Pareto front of the test items.
    pub front: BTreeSet<String>,
}

/// A method's chosen point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chosen {
    /// Its name.
    pub cell: String,
    /// The method.
    pub version: String,
    /// The adapters merged.
    pub variant: String,
    /// How many points there were.
    pub points: usize,
    /// Largest admissible share of refused harmless requests.
    pub ceiling: Option<f64>,
    /// Whether it reached goal and ceiling on the development items.
    pub reached: bool,
    /// Safety, utility and refusals of harmless requests, in this order.
    pub axes: Vec<ChosenAxis>,
}

/// One axis of a chosen point on both splits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChosenAxis {
    /// `safety`, `utility` or `harmless`.
    pub axis: &'static str,
    /// On the development items.
    pub dev: Rate,
    /// On the test items; none until they were asked.
    pub test: Option<Rate>,
    /// Development less test: what the choice flattered itself by, were it not for chance.
    pub optimism: Option<Gap>,
}

/// A difference of two independent samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gap {
    /// First less second.
    pub value: f64,
    /// 95 % interval, from both samples' intervals by square-and-add (Zou and Donner 2008).
    pub interval: Interval,
}

impl Gap {
    fn of(a: &Rate, b: &Rate) -> Self {
        let value = a.value - b.value;
        let below = (a.value - a.interval.low).hypot(b.interval.high - b.value);
        let above = (a.interval.high - a.value).hypot(b.value - b.interval.low);
        Self {
            value,
            interval: Interval {
                low: value - below,
                high: value + above,
            },
        }
    }
}

impl Selected {
    /// The selection of a run folder, if it has one.
    pub(super) fn of(run: &RunFolder) -> Option<Self> {
        let selection = run.results.selection.as_ref()?;
        let named = |name: &str| -> Option<&Cell> {
            let place = run.results.systems.iter().position(|system| system.name == name)?;
            run.cells.get(place)
        };
        let choice = |method: &MethodChoice| {
            let point = method.choice()?;
            let test = selection
                .tested(&point.name)
                .and_then(|system| Axes::of(&system.scores));
            let axis = |axis, of: &dyn Fn(&Axes) -> Option<Rate>| {
                let (dev, test) = (of(&point.axes)?, test.as_ref().and_then(of));
                Some(ChosenAxis {
                    axis,
                    dev,
                    test,
                    optimism: test.map(|test| Gap::of(&dev, &test)),
                })
            };
            let axes = [
                axis("safety", &|a| Some(a.safety)),
                axis("utility", &|a| Some(a.utility)),
                axis("harmless", &|a| a.over_refusal),
            ];
            Some(Chosen {
                cell: named(&point.name).map_or(point.name.clone(), |cell| cell.name.clone()),
                version: method.strategy.to_uppercase(),
                variant: method.variant.clone(),
                points: method.points.len(),
                ceiling: method.ceiling,
                reached: point.shortfall == 0.0,
                axes: axes.into_iter().flatten().collect(),
            })
        };
        let cells = run.test.iter().map(|cell| Cell {
            name: named(&cell.name).map_or(cell.name.clone(), |same| same.name.clone()),
            ..cell.clone()
        });
        Some(Self {
            dev: selection.recipe.dev,
            rule: selection.recipe.rule,
            goal: selection.goals.jailbreak,
            margin: selection.recipe.over_refusal_margin,
            seen: selection.seen(),
            outdated: selection.outdated,
            failed: selection.failed.clone(),
            choices: selection.methods.iter().filter_map(choice).collect(),
            cells: cells.collect(),
            front: BTreeSet::new(),
        })
    }

    /// Everything that follows from cells and goals.
    pub(super) fn conclude(&mut self, goals: &Goals) {
        self.front = front::front(&self.cells, goals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sst_eval::wilson_interval;

    #[test]
    fn the_gap_of_wilson_intervals_is_newcombe_s_for_independent_rates() {
        let rate = |yes: usize, n: usize| Rate {
            value: yes as f64 / n as f64,
            interval: wilson_interval(yes, n),
            n,
        };
        // Newcombe (1998), table II, method 10, 56/70 less 48/80: 0.0524 to 0.3339.
        let gap = Gap::of(&rate(56, 70), &rate(48, 80));
        assert!((gap.value - 0.2).abs() < 1e-12);
        assert!(
            (gap.interval.low - 0.0524).abs() < 5e-5 && (gap.interval.high - 0.3339).abs() < 5e-5,
            "{gap:?}"
        );
    }
}
