//! The four ratios that the Fisher benchmark is about, and what a ratio is.
//!
//! A ratio compares two processes that ran one after the other in the same round, so that a machine that gets slower or
//! faster between rounds moves both sides; what is reported is the median over the rounds.

use anyhow::{Context, Result};
use serde::Serialize;

use super::measurement::{Matmul, Measurement, shares};

/// One pass through everything that is timed.
pub struct Round {
    pub matmul: Matmul,
    pub diag: Measurement,
    pub plain: Measurement,
    pub kron: Measurement,
    /// PyTorch and PEFT, one sample at a time.
    pub reference: Measurement,
}

/// A figure of every round, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// What a ratio should reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// One ratio as measured.
pub struct Ratio {
    /// Its key in the JSON line.
    pub name: &'static str,
    pub meaning: &'static str,
    pub goal: Goal,
    pub measured: Summary,
    /// What it hangs on, in words.
    pub limited_by: String,
}

impl Summary {
    /// Of the figures of all rounds.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = values.first().zip(values.last()).context("no round was measured")?;
        let n = values.len();
        Ok(Self {
            median: f64::midpoint(values[(n - 1) / 2], values[n / 2]),
            min: *min,
            max: *max,
        })
    }
}

impl Goal {
    /// Whether `value` reaches it; a NaN never does.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(f, ">= {goal}"),
            Self::AtMost(goal) => write!(f, "<= {goal}"),
        }
    }
}

/// The share of the machine's matrix products that `samples` of `diag`, done by `run`, come to.
///
/// The operations are those the samples need, not those a program spends: a loop that computes logits nobody scores gets
/// no credit for them.
pub fn share_of_limit(diag: &Measurement, run: &Measurement, matmul: Matmul) -> Result<f64> {
    Ok(diag.gflop()? / run.seconds / matmul.gflops)
}

/// All four, from the rounds and from one large run of each side.
pub fn ratios(rounds: &[Round], large: &Measurement, large_reference: &Measurement) -> Result<[Ratio; 4]> {
    let over_rounds = |f: &dyn Fn(&Round) -> f64| Summary::of(rounds.iter().map(f));
    let of_limit = rounds
        .iter()
        .map(|round| share_of_limit(&round.diag, &round.diag, round.matmul))
        .collect::<Result<Vec<_>>>()?;
    let diag = spent(rounds.iter().map(|round| &round.diag));
    Ok([
        Ratio {
            name: "diag_vs_loop",
            meaning: "diagonal: samples/s by those of PyTorch and PEFT",
            goal: Goal::AtLeast(1.5),
            measured: over_rounds(&|round| round.diag.rate() / round.reference.rate())?,
            limited_by: diag.clone(),
        },
        Ratio {
            name: "share_of_limit",
            meaning: "diagonal: operations/s by those of a matrix product",
            goal: Goal::AtLeast(0.70),
            measured: Summary::of(of_limit)?,
            limited_by: diag,
        },
        Ratio {
            name: "kron_vs_backward",
            meaning: "Kronecker: samples/s by those of forward and backward alone",
            goal: Goal::AtLeast(0.80),
            measured: over_rounds(&|round| round.kron.rate() / round.plain.rate())?,
            limited_by: spent(rounds.iter().map(|round| &round.kron)),
        },
        Ratio {
            name: "memory_vs_loop",
            meaning: "diagonal: memory above the model by that of PyTorch and PEFT",
            goal: Goal::AtMost(0.1),
            measured: Summary::of([large.memory() as f64 / large_reference.memory() as f64])?,
            limited_by: format!(
                "{:.2} GB by {:.2} GB at {} samples",
                large.memory() as f64 / 1e9,
                large_reference.memory() as f64 / 1e9,
                large.samples
            ),
        },
    ])
}

/// `backward 55 %, forward 40 %, statistics 5 %` of the time, largest first; what rounds to nothing is left out.
fn spent<'a>(runs: impl IntoIterator<Item = &'a Measurement>) -> String {
    let mut shares = shares(runs);
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
        .iter()
        .filter(|(_, share)| *share >= 0.005)
        .map(|(part, share)| format!("{part} {:.0} %", 100.0 * share))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: f64, memory: u64) -> Measurement {
        Measurement {
            seconds,
            samples: 60,
            tokens: 9000,
            flop: Some(6e12),
            peak_bytes: 1000 + memory,
            model_bytes: 1000,
            forward_s: 0.25 * seconds,
            backward_s: 0.625 * seconds,
            statistics_s: 0.125 * seconds,
            rest: serde_json::Map::new(),
        }
    }

    fn round(gflops: f64, diag: f64, plain: f64, kron: f64, reference: f64) -> Round {
        Round {
            matmul: Matmul { gflops },
            diag: run(diag, 1),
            plain: run(plain, 1),
            kron: run(kron, 1),
            reference: run(reference, 1),
        }
    }

    #[test]
    fn the_median_of_an_even_number_is_the_middle_of_two() {
        let summary = Summary::of([3.0, 1.0, 4.0, 2.0]).unwrap();
        assert_eq!((summary.median, summary.min, summary.max), (2.5, 1.0, 4.0));
        assert_eq!(Summary::of([7.0, 5.0, 9.0]).unwrap().median, 7.0);
        assert!(Summary::of([]).is_err());
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The second round's machine is ten times slower; only ratios within a round survive that.
        let rounds = [
            round(200.0, 40.0, 30.0, 40.0, 80.0),
            round(20.0, 400.0, 300.0, 400.0, 1000.0),
        ];
        let [speed, share, kron, memory] = ratios(&rounds, &run(1.0, 30), &run(1.0, 400)).unwrap();
        assert_eq!(
            speed.measured,
            Summary {
                median: 2.25,
                min: 2.0,
                max: 2.5
            }
        );
        // 6000 Gflop in 40 s on a machine of 200 Gflop/s.
        assert_eq!(share.measured.median, 0.75);
        assert_eq!(kron.measured.median, 0.75);
        assert_eq!(memory.measured.median, 0.075);
        assert_eq!(kron.limited_by, "backward 62 %, forward 25 %, statistics 12 %");
        assert_eq!(
            share_of_limit(&rounds[0].diag, &rounds[0].reference, rounds[0].matmul).unwrap(),
            0.375
        );
    }

    #[test]
    fn a_goal_has_a_direction_and_nothing_beats_nan() {
        assert!(Goal::AtLeast(1.5).is_met(1.5) && !Goal::AtLeast(1.5).is_met(1.49));
        assert!(Goal::AtMost(0.1).is_met(0.1) && !Goal::AtMost(0.1).is_met(0.11));
        assert!(!Goal::AtLeast(0.0).is_met(f64::NAN) && !Goal::AtMost(0.0).is_met(f64::NAN));
        assert_eq!(
            (Goal::AtLeast(0.7).to_string(), Goal::AtMost(0.1).to_string()),
            (">= 0.7".into(), "<= 0.1".into())
        );
    }
}
