//! What the corrected p-value of a difference says, in words.

use crate::Benchmark;
use serde::{Deserialize, Serialize};

/// How the second of a pair stands to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Better, by more than chance.
    Better,
    /// Worse, by more than chance.
    Worse,
    /// Higher, by more than chance, on a metric that has no better side.
    Higher,
    /// Lower, likewise.
    Lower,
    /// The difference may be chance.
    NotDistinguishable,
}

impl Outcome {
    /// What a difference means whose corrected p-value is `p`; one that is no number says nothing.
    pub(super) fn of(difference: f64, p: f64, higher_is_better: Option<bool>) -> Self {
        let distinct = p < 0.05 && difference != 0.0;
        if !distinct {
            return Outcome::NotDistinguishable;
        }
        match higher_is_better {
            Some(up) if up == (difference > 0.0) => Outcome::Better,
            Some(_) => Outcome::Worse,
            None if difference > 0.0 => Outcome::Higher,
            None => Outcome::Lower,
        }
    }

    /// One word, or two.
    pub(super) fn word(self) -> &'static str {
        match self {
            Outcome::Better => "better",
            Outcome::Worse => "worse",
            Outcome::Higher => "higher",
            Outcome::Lower => "lower",
            Outcome::NotDistinguishable => "not distinguishable",
        }
    }
}

/// Whether a larger value of a benchmark's metric is a better model; nothing where neither side is, or the metric is unknown.
pub(super) fn higher_is_better(benchmark: Benchmark, metric: &str) -> Option<bool> {
    if metric == benchmark.metric() {
        return Some(benchmark.higher_is_better());
    }
    match metric {
        "valid"
        | "safe"
        | "complied"
        | "complied_of_valid"
        | "parsed"
        | "rouge_l_filtered"
        | "token_f1"
        | "token_recall"
        | "unanswerable_precision"
        | "unanswerable_recall" => Some(true),
        "attack_success" | "attack_success_of_valid" | "harmful" => Some(false),
        // Refusing is right where the requests are harmful.
        "refused" => Some(matches!(benchmark.metric(), "refusal_rate" | "harmful_rate")),
        // The probability of what the negative log-likelihood weighs.
        "token_probability" => Some(!benchmark.higher_is_better()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_side_depends_on_what_is_measured() {
        assert_eq!(Outcome::of(0.1, 0.01, Some(true)), Outcome::Better);
        assert_eq!(Outcome::of(0.1, 0.01, Some(false)), Outcome::Worse);
        assert_eq!(Outcome::of(-0.1, 0.01, Some(false)), Outcome::Better);
        assert_eq!(Outcome::of(-0.1, 0.01, None), Outcome::Lower);
        for p in [0.05, 0.7, f64::NAN] {
            assert_eq!(Outcome::of(0.1, p, Some(true)), Outcome::NotDistinguishable);
        }
        assert_eq!(higher_is_better(Benchmark::Jailbreak, "refused"), Some(true));
        assert_eq!(higher_is_better(Benchmark::Alpaca, "refused"), Some(false));
        assert_eq!(higher_is_better(Benchmark::XsTest, "over_refusal_rate"), Some(false));
        assert_eq!(higher_is_better(Benchmark::Jailbreak, "harmful"), Some(false));
        assert_eq!(higher_is_better(Benchmark::Mmlu, "unheard_of"), None);
    }
}
