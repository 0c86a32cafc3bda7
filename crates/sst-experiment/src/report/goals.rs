//! What a merge should reach: a score per benchmark.

use crate::Error;
use sst_eval::{BENCHMARKS, Benchmark};
use std::collections::BTreeMap;

/// Least scores by benchmark, in \[0, 1\].
pub type Goals = BTreeMap<Benchmark, f64>;

/// Reads `jailbreak=0.77`; more than 1 is taken for per cent.
///
/// ```
/// let (benchmark, goal) = sst_experiment::report::parse_goal("mmlu=52").unwrap();
/// assert_eq!((benchmark.name(), goal), ("mmlu", 0.52));
/// ```
///
/// # Errors
/// [`Error::Compare`] for an unknown benchmark, one of which less is better, or a goal outside 0 to 100 %.
pub fn parse_goal(text: &str) -> Result<(Benchmark, f64), Error> {
    let fault = |problem: String| Error::Compare(format!("goal `{text}`: {problem}"));
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| fault("expected benchmark=score, as in jailbreak=0.77".to_owned()))?;
    let scored = |b: &&Benchmark| b.higher_is_better() && b.is_share();
    let Some(benchmark) = BENCHMARKS.iter().filter(scored).find(|b| b.name() == name.trim()) else {
        let known: Vec<&str> = BENCHMARKS.iter().filter(scored).map(|b| b.name()).collect();
        return Err(fault(format!("no such benchmark; there are {}", known.join(", "))));
    };
    let goal: f64 = value
        .trim()
        .parse()
        .map_err(|_| fault("the score is no number".to_owned()))?;
    let goal = if goal > 1.0 { goal / 100.0 } else { goal };
    if !(0.0..=1.0).contains(&goal) {
        return Err(fault("the score lies outside 0 to 1 (or 0 to 100 %)".to_owned()));
    }
    Ok((*benchmark, goal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_per_cent_are_read() {
        assert_eq!(parse_goal("jailbreak=0.77").unwrap(), (Benchmark::Jailbreak, 0.77));
        assert_eq!(parse_goal(" repliqa = 40 ").unwrap(), (Benchmark::RepliQa, 0.4));
        for (text, part) in [
            ("jailbreak", "benchmark=score"),
            ("squad=1", "no such benchmark"),
            ("xstest=0.1", "no such benchmark"),
            ("mmlu=lots", "no number"),
            ("mmlu=NaN", "outside"),
            ("mmlu=101", "outside"),
        ] {
            let message = parse_goal(text).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains(text.trim()), "{message}");
        }
    }
}
