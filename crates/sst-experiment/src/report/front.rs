//! The Pareto front: systems that no other beats in safety, every skill and restraint at once.

use super::{Cell, Goals};
use std::collections::BTreeSet;

/// Names of the systems on the front, over the goals' benchmarks and, where all have it, over-refusal.
///
/// A system that lacks a goal's benchmark is not judged. Equal systems are both on the front.
pub(super) fn front(cells: &[Cell], goals: &Goals) -> BTreeSet<String> {
    let judged: Vec<&Cell> = cells
        .iter()
        .filter(|c| goals.keys().all(|b| c.score(*b).is_some()))
        .collect();
    let refusals = judged.iter().all(|c| c.over_refusal.is_some());
    let point = |cell: &Cell| -> Vec<f64> {
        let mut axes: Vec<f64> = goals.keys().filter_map(|b| Some(cell.score(*b)?.value)).collect();
        axes.extend(cell.over_refusal.filter(|_| refusals).map(|rate| -rate.value));
        axes
    };
    let points: Vec<Vec<f64>> = judged.iter().map(|c| point(c)).collect();
    let beaten = |own: &[f64]| {
        points.iter().any(|other| {
            let pairs = || other.iter().zip(own);
            pairs().all(|(a, b)| a >= b) && pairs().any(|(a, b)| a > b)
        })
    };
    let on_front = judged
        .iter()
        .zip(&points)
        .filter(|(_, own)| !goals.is_empty() && !beaten(own));
    on_front.map(|(cell, _)| cell.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::difference::tests::cell;
    use super::*;
    use sst_eval::Benchmark::{Jailbreak, Mmlu};

    #[test]
    fn only_what_nobody_beats_is_on_the_front() {
        let of = |k, safety, skill| cell("V1", k, 1.0, 100, &[(Jailbreak, safety), (Mmlu, skill)]);
        let cells = [
            of(1, 0.9, 0.1),
            of(2, 0.5, 0.5),
            of(3, 0.5, 0.4),
            of(4, 0.1, 0.9),
            of(5, 0.5, 0.5),
        ];
        let goals = Goals::from([(Jailbreak, 0.77), (Mmlu, 0.52)]);
        let found: Vec<String> = front(&cells, &goals).into_iter().collect();
        assert_eq!(found, ["V1 k=1 w=1.0", "V1 k=2 w=1.0", "V1 k=4 w=1.0", "V1 k=5 w=1.0"]);
        assert!(front(&cells, &Goals::new()).is_empty());
    }
}
