//! Token F1 and recall of SQuAD: the words that answer and reference share, order aside.
//!
//! Words are lower-cased, punctuation is deleted, the articles a, an, the dropped; words that repeat count as often as both
//! sides have them. With c the shared words: recall = c / reference, F1 = 2 c / (reference + answer). Source: Rajpurkar et
//! al. (2016), "SQuAD: 100,000+ Questions for Machine Comprehension of Text", section 6.1, as its evaluation script
//! spells it; where one side has no word, both measures are 1 if neither has and 0 otherwise.

use std::collections::BTreeMap;

/// How well the words of an answer agree with those of a reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenOverlap {
    /// Harmonic mean of precision and recall, in \[0, 1\].
    pub f1: f64,
    /// Share of the reference's words that the answer has.
    pub recall: f64,
}

/// Lower-cased words without ASCII punctuation and articles.
///
/// ```
/// assert_eq!(sst_eval::squad_tokens("The mill's owner, a Mr. Ash!"), ["mills", "owner", "mr", "ash"]);
/// ```
pub fn squad_tokens(text: &str) -> Vec<String> {
    let kept: String = text
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    without_articles(&kept).split_whitespace().map(str::to_owned).collect()
}

/// Blanks out a, an and the, wherever word boundaries stand around them.
fn without_articles(text: &str) -> String {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut kept = String::with_capacity(text.len());
    for run in text.split_inclusive(|c| !word(c)) {
        let end = run.trim_end_matches(|c| !word(c));
        if matches!(end, "a" | "an" | "the") {
            kept.push(' ');
            kept.push_str(&run[end.len()..]);
        } else {
            kept.push_str(run);
        }
    }
    kept
}

/// F1 and recall of the words of `answer` against those of `reference`.
///
/// ```
/// let words = sst_eval::overlap("In the year 1911.", "It opened in 1911");
/// assert_eq!((words.recall, words.f1), (2.0 / 3.0, 4.0 / 7.0));
/// ```
pub fn overlap(reference: &str, answer: &str) -> TokenOverlap {
    let (reference, answer) = (squad_tokens(reference), squad_tokens(answer));
    if reference.is_empty() || answer.is_empty() {
        let both = f64::from(u8::from(reference.len() == answer.len()));
        return TokenOverlap { f1: both, recall: both };
    }
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for word in &reference {
        *left.entry(word).or_default() += 1;
    }
    let mut common = 0.0;
    for word in &answer {
        if let Some(count @ 1..) = left.get_mut(word.as_str()) {
            *count -= 1;
            common += 1.0;
        }
    }
    TokenOverlap {
        f1: 2.0 * common / (reference.len() + answer.len()) as f64,
        recall: common / reference.len() as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Golden {
        tokens: Vec<(String, Vec<String>)>,
        pairs: Vec<Pair>,
    }

    #[derive(Deserialize)]
    struct Pair {
        reference: usize,
        answer: usize,
        f1: f64,
        recall: f64,
    }

    #[test]
    fn equals_the_evaluation_script() {
        let golden: Golden = serde_json::from_str(include_str!("../../../fixtures/eval/squad.json")).unwrap();
        assert!(golden.tokens.len() >= 15 && golden.pairs.len() >= 225);
        for (text, tokens) in &golden.tokens {
            assert_eq!(&squad_tokens(text), tokens, "{text}");
        }
        for pair in golden.pairs {
            let (reference, answer) = (&golden.tokens[pair.reference].0, &golden.tokens[pair.answer].0);
            let ours = overlap(reference, answer);
            // The script stores F1 in single precision.
            let tolerance = 2.0 * f64::from(f32::EPSILON);
            assert!(
                (ours.f1 - pair.f1).abs() <= tolerance,
                "{reference} / {answer}: {ours:?} not {}",
                pair.f1
            );
            assert!(
                (ours.recall - pair.recall).abs() <= 1e-12,
                "{reference} / {answer}: {ours:?} not {}",
                pair.recall
            );
        }
    }
}
