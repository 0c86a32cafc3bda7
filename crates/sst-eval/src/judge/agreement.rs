//! How well a judge agrees with people.
//!
//! Over answers that people label as full compliance or full refusal: accuracy, and balanced accuracy, the mean of the
//! share of refusals found (sensitivity) and the share of compliance left alone (specificity), which a judge cannot
//! raise by always saying what most answers do. Rates have Wilson's interval. The balanced accuracy (p + q) / 2 has the
//! one that recovers variances from those two: its lower end lies sqrt((p - p_low)^2 + (q - q_low)^2) / 2 below, its
//! upper end likewise above. Source: G. Y. Zou and A. Donner (2008), "Construction of confidence limits about effect
//! measures: a general approach", Statistics in Medicine 27. Partial refusals are counted apart: people themselves
//! disagree on which side they fall.

use super::{Judge, JudgeError, Verdict};
use crate::{Interval, wilson_interval};
use serde::{Deserialize, Serialize};
use sst_data::{LabelledAnswer, Prompt, RefusalLabel};

/// How many answers of one label the judge takes for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Judgements {
    /// Judged to comply.
    pub complies: usize,
    /// Judged to refuse.
    pub refuses: usize,
}

/// The confusion table: people's label by judge's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confusion {
    /// Answers labelled as full compliance.
    pub full_compliance: Judgements,
    /// Answers labelled as full refusal.
    pub full_refusal: Judgements,
    /// Answers labelled as partial refusal.
    pub partial_refusal: Judgements,
}

/// The agreement of a judge with people; a rate without answers to measure it on is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Number of answers, partial refusals included.
    pub n: usize,
    /// Share of full compliance and full refusal judged rightly.
    pub accuracy: Option<f64>,
    /// Its 95 % interval, as for every rate below.
    pub accuracy_ci: Option<Interval>,
    /// Mean of `sensitivity` and `specificity`.
    pub balanced_accuracy: Option<f64>,
    /// Its interval.
    pub balanced_accuracy_ci: Option<Interval>,
    /// Share of the full refusals found.
    pub sensitivity: Option<f64>,
    /// Its interval.
    pub sensitivity_ci: Option<Interval>,
    /// Share of the full compliance not taken for refusal.
    pub specificity: Option<f64>,
    /// Its interval.
    pub specificity_ci: Option<Interval>,
    /// Labels by verdicts.
    pub confusion: Confusion,
}

/// Judges labelled answers; the verdicts come in their order.
///
/// # Errors
/// The judge's own.
///
/// ```
/// use sst_data::{LabelledAnswer, Prompt, RefusalLabel};
/// use sst_eval::{Agreement, RulesJudge, judge_labelled};
/// let answer = |completion: &str, label| LabelledAnswer {
///     id: String::new(), prompt: Prompt::user("How?"), completion: completion.to_owned(), label,
/// };
/// let answers = [
///     answer("I cannot help with that.", RefusalLabel::FullRefusal),
///     answer("Turn the key.", RefusalLabel::FullCompliance),
/// ];
/// let verdicts = judge_labelled(&mut RulesJudge, &answers).unwrap();
/// assert_eq!(Agreement::of(&answers, &verdicts).balanced_accuracy.unwrap(), 1.0);
/// ```
pub fn judge_labelled(judge: &mut dyn Judge, answers: &[LabelledAnswer]) -> Result<Vec<Verdict>, JudgeError> {
    let items: Vec<(&Prompt, &str)> = answers.iter().map(|a| (&a.prompt, a.completion.as_str())).collect();
    judge.judge(&items)
}

impl Agreement {
    /// The agreement of `verdicts` with the labels of `answers`, in the same order.
    pub fn of(answers: &[LabelledAnswer], verdicts: &[Verdict]) -> Self {
        let mut confusion = Confusion::default();
        for (answer, verdict) in answers.iter().zip(verdicts) {
            let judgements = match answer.label {
                RefusalLabel::FullCompliance => &mut confusion.full_compliance,
                RefusalLabel::FullRefusal => &mut confusion.full_refusal,
                RefusalLabel::PartialRefusal => &mut confusion.partial_refusal,
            };
            if verdict.refuses {
                judgements.refuses += 1;
            } else {
                judgements.complies += 1;
            }
        }
        let (complied, refused) = (confusion.full_compliance, confusion.full_refusal);
        let sensitivity = rate(refused.refuses, refused.n());
        let specificity = rate(complied.complies, complied.n());
        let accuracy = rate(refused.refuses + complied.complies, refused.n() + complied.n());
        let balanced = sensitivity.zip(specificity).map(|(p, q)| mean(p, q));
        Self {
            n: answers.len(),
            accuracy: accuracy.map(|r| r.0),
            accuracy_ci: accuracy.map(|r| r.1),
            balanced_accuracy: balanced.map(|r| r.0),
            balanced_accuracy_ci: balanced.map(|r| r.1),
            sensitivity: sensitivity.map(|r| r.0),
            sensitivity_ci: sensitivity.map(|r| r.1),
            specificity: specificity.map(|r| r.0),
            specificity_ci: specificity.map(|r| r.1),
            confusion,
        }
    }
}

impl Judgements {
    fn n(self) -> usize {
        self.complies + self.refuses
    }
}

/// A rate and its interval, where there is anything to measure it on.
fn rate(count: usize, n: usize) -> Option<(f64, Interval)> {
    (n > 0).then(|| (count as f64 / n as f64, wilson_interval(count, n)))
}

/// The mean of two independent rates.
fn mean((p, of_p): (f64, Interval), (q, of_q): (f64, Interval)) -> (f64, Interval) {
    let value = (p + q) / 2.0;
    let interval = Interval {
        low: value - (p - of_p.low).hypot(q - of_q.low) / 2.0,
        high: value + (of_p.high - p).hypot(of_q.high - q) / 2.0,
    };
    (value, interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    /// Labels and verdicts by count: compliance right and wrong, refusals right and wrong, partial either way.
    fn agreement(counts: [usize; 6]) -> Agreement {
        let kinds = [
            (RefusalLabel::FullCompliance, false),
            (RefusalLabel::FullCompliance, true),
            (RefusalLabel::FullRefusal, true),
            (RefusalLabel::FullRefusal, false),
            (RefusalLabel::PartialRefusal, false),
            (RefusalLabel::PartialRefusal, true),
        ];
        let (mut answers, mut verdicts) = (Vec::new(), Vec::new());
        for ((label, refuses), count) in kinds.into_iter().zip(counts) {
            for _ in 0..count {
                verdicts.push(Verdict::refusal(refuses));
                answers.push(LabelledAnswer {
                    id: "1".to_owned(),
                    prompt: Prompt::user("?"),
                    completion: String::new(),
                    label,
                });
            }
        }
        Agreement::of(&answers, &verdicts)
    }

    #[test]
    fn rates_follow_from_the_table() {
        let found = agreement([90, 10, 15, 5, 3, 4]);
        assert_eq!(found.n, 127);
        assert_eq!(found.accuracy.unwrap(), 105.0 / 120.0);
        assert_eq!(found.sensitivity.unwrap(), 0.75);
        assert_eq!(found.specificity.unwrap(), 0.9);
        assert!((found.balanced_accuracy.unwrap() - 0.825).abs() <= f64::EPSILON);
        assert_eq!(
            found.confusion.partial_refusal,
            Judgements {
                complies: 3,
                refuses: 4
            }
        );
    }

    #[test]
    fn a_label_nobody_gave_leaves_its_rates_open() {
        let found = agreement([4, 1, 0, 0, 0, 0]);
        assert!(found.sensitivity.is_none() && found.balanced_accuracy.is_none());
        assert_eq!(found.accuracy.unwrap(), 0.8);
    }

    /// The interval must cover a known balanced accuracy at its nominal rate.
    #[test]
    fn the_interval_of_the_balanced_accuracy_covers() {
        let (sensitivity, specificity, trials) = (0.92, 0.97, 1000);
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        let mut covered = 0;
        for _ in 0..trials {
            let mut draw = |n: usize, p: f64| (0..n).filter(|_| rng.random::<f64>() < p).count();
            let (found, left) = (draw(50, sensitivity), draw(200, specificity));
            let drawn = agreement([left, 200 - left, found, 50 - found, 0, 0]);
            let interval = drawn.balanced_accuracy_ci.unwrap();
            covered += usize::from(interval.low <= 0.945 && 0.945 <= interval.high);
        }
        // 95 % with a standard error of 0.7 points over 1000 trials, and the small skew of such intervals.
        assert!((925..=980).contains(&covered), "{covered} of {trials}");
    }
}
