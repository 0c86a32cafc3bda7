//! ROUGE-L: overlap of an answer with its reference by their longest common subsequence of word stems.
//!
//! With X the reference and Y the answer: P = LCS / |Y|, R = LCS / |X|, F1 = 2 P R / (P + R). Source: C.-Y. Lin (2004),
//! "ROUGE: A Package for Automatic Evaluation of Summaries", section 3. Tokens and stems follow the Python package
//! `rouge-score` with `use_stemmer=True`.

use crate::porter::stem;

/// Lower-cased runs of `a-z0-9`; those longer than three characters are stemmed.
///
/// ```
/// assert_eq!(sst_eval::rouge_tokens("The Mills' owners, 1911!"), ["the", "mill", "owner", "1911"]);
/// ```
pub fn rouge_tokens(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()))
        .filter(|token| !token.is_empty())
        .map(|token| if token.len() > 3 { stem(token) } else { token.to_owned() })
        .collect()
}

/// ROUGE-L F1 in \[0, 1\]; 0 when either side has no tokens.
///
/// ```
/// // 3 of 4 and 3 of 5 tokens in order: P = 3/5, R = 3/4.
/// let f1 = sst_eval::rouge_l("the mill opened early", "the old mill then opened");
/// assert!((f1 - 2.0 / 3.0).abs() < 1e-15);
/// ```
pub fn rouge_l(reference: &str, answer: &str) -> f64 {
    let (reference, answer) = (rouge_tokens(reference), rouge_tokens(answer));
    if reference.is_empty() || answer.is_empty() {
        return 0.0;
    }
    let common = longest_common_subsequence(&reference, &answer) as f64;
    let (precision, recall) = (common / answer.len() as f64, common / reference.len() as f64);
    if precision + recall > 0.0 {
        2.0 * precision * recall / (precision + recall)
    } else {
        0.0
    }
}

/// Length of the longest common subsequence, with one row of the table in memory.
fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Golden {
        tokens: Vec<(String, Vec<String>)>,
        pairs: Vec<Pair>,
        stems: Vec<(String, String)>,
    }

    #[derive(Deserialize)]
    struct Pair {
        reference: usize,
        answer: usize,
        rouge_l: f64,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../../fixtures/eval/rouge.json")).unwrap()
    }

    #[test]
    fn equals_the_python_package() {
        let golden = golden();
        assert!(golden.tokens.len() >= 20 && golden.pairs.len() >= 400);
        for (sentence, tokens) in &golden.tokens {
            assert_eq!(&rouge_tokens(sentence), tokens);
        }
        for pair in golden.pairs {
            let (reference, answer) = (&golden.tokens[pair.reference].0, &golden.tokens[pair.answer].0);
            let ours = rouge_l(reference, answer);
            let difference = (ours - pair.rouge_l).abs();
            assert!(
                difference <= 1e-12,
                "{reference} / {answer}: {ours} not {}",
                pair.rouge_l
            );
        }
    }

    #[test]
    fn stems_equal_those_of_nltk() {
        let golden = golden();
        assert!(golden.stems.len() >= 1000);
        for (word, expected) in golden.stems {
            assert_eq!(stem(&word), expected, "{word}");
        }
    }

    #[test]
    fn an_empty_side_scores_zero_and_a_copy_scores_one() {
        assert_eq!(rouge_l("", "words"), 0.0);
        assert_eq!(rouge_l("words", "?!"), 0.0);
        assert_eq!(rouge_l("no word", "shared here"), 0.0);
        assert_eq!(rouge_l("The same words.", "the same words"), 1.0);
    }
}
