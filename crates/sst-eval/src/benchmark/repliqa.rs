//! RepliQA: answers about documents that no model has seen, and whether a model knows when the document has none.
//!
//! The score is the ROUGE-L F1 with the reference answer. Beside it the token F1 and recall of SQuAD (`token_f1`,
//! `token_recall`). About a fifth of the published questions has no answer in the document; their reference says so.
//! `unanswerable_recall` is the share of those whose answer says so too, `unanswerable_precision` the share rightly so
//! among all answers that say so (Monteiro et al. 2024, "RepLiQA: A Question-Answering Dataset for Benchmarking LLMs on
//! Unseen Reference Content", section 4).

use super::answers::{Judged, Scored, flag};
use crate::rouge_l;
use crate::squad::overlap;
use regex::Regex;
use sst_data::Example;
use std::sync::LazyLock;

/// Says that a text holds no answer: it is not there, nothing there says it, or it cannot be told from there.
static UNANSWERABLE: LazyLock<Regex> = LazyLock::new(|| {
    let not = r"(?:not|n't|never|nowhere)";
    let said = r"(?:found|mentioned|stated|specified|provided|given|included|contained|described|discussed|addressed|listed|present|available|answered|disclosed|indicated|clear|known)";
    let says = r"(?:mention|state|specify|provide|give|include|contain|describe|discuss|address|list|say|tell|answer|disclose|indicate|offer|have)";
    let source = r"(?:document|text|passage|article|context|excerpt|paragraph|source)";
    Regex::new(&format!(
        r"^\W*(?:unanswerable|no answer|not (?:found|mentioned|specified|stated|given|provided|available))\W*$|\b(?:answer|information|detail|question|it|this|that|{source})s?\b[^.]{{0,60}}\b(?:is|are|was|were|be|been|has|have|could|can)(?: ?{not}|not)\b(?: \w+){{0,2}} {said}\b|\b{source}s?\b[^.]{{0,40}}\b(?:does|do|did) ?{not} (?:\w+ )?{says}\b|\b(?:there is|there's|has|contains|provides|gives) no (?:\w+ ){{0,2}}(?:answer|information|mention|detail|indication)\b|\b(?:can ?not|can't|could not|couldn't|unable to|not possible to) (?:\w+ )?(?:be )?(?:answer(?:ed)?|determined?|f(?:i|ou)nd|infer(?:red)?|tell|say)\b[^.]{{0,80}}\b(?:{source}|information|above|given|provided)\b|\b(?:not|never) (?:\w+ )?{said} (?:\w+ )?(?:in|by|within|from) (?:the|this|any) (?:\w+ )?{source}\b"
    ))
    .expect("the pattern is a constant")
});

/// Whether an answer says that the document holds none.
fn says_unanswerable(answer: &str) -> bool {
    UNANSWERABLE.is_match(&answer.to_lowercase().replace(['’', 'ʼ'], "'"))
}

/// ROUGE-L; SQuAD's overlap and the two halves of "not in the document" beside it.
pub(super) fn score(item: &Example, answer: &Judged<'_>) -> Scored {
    let score = rouge_l(&item.response, answer.text);
    let words = overlap(&item.response, answer.text);
    let mut metrics = vec![
        ("rouge_l_filtered", score * flag(answer.is_valid())),
        ("token_f1", words.f1),
        ("token_recall", words.recall),
    ];
    let (unanswerable, says_so) = (says_unanswerable(&item.response), says_unanswerable(answer.text));
    if unanswerable {
        metrics.push(("unanswerable_recall", flag(says_so)));
    }
    if says_so {
        metrics.push(("unanswerable_precision", flag(unanswerable)));
    }
    Scored { score, metrics }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Validity, Verdict};
    use sst_data::Prompt;
    use std::collections::BTreeMap;

    #[test]
    fn many_words_for_not_in_the_document() {
        for answer in [
            "The answer is not found in the document.",
            "UNANSWERABLE",
            "The document doesn’t mention when the mill opened.",
            "The text does not specify the year.",
            "This is not stated in the passage.",
            "That information isn't provided.",
            "There is no information about her age in the text.",
            "I cannot determine this from the given text.",
            "It is not explicitly mentioned in the document.",
            "Not mentioned.",
        ] {
            assert!(says_unanswerable(answer), "{answer}");
        }
        for answer in [
            "In 1911.",
            "The mill was not found until 1911.",
            "She could not answer the letter.",
            "The committee did not provide funds, so the fair was cancelled.",
            "He is not known for his patience.",
            "No, because the gate was closed.",
            "I'm sorry, but I cannot help with that.",
        ] {
            assert!(!says_unanswerable(answer), "{answer}");
        }
    }

    #[test]
    fn precision_and_recall_concern_their_own_items() {
        let metrics = |reference: &str, text: &str| {
            let item = Example {
                id: "r/1".to_owned(),
                prompt: Prompt::user("?"),
                response: reference.to_owned(),
            };
            let verdict = Verdict::refusal(false);
            let judged = Judged {
                text,
                verdict,
                validity: Validity::Valid,
            };
            BTreeMap::from_iter(score(&item, &judged).metrics)
        };
        let none = "The answer is not found in the document.";
        let right = metrics(none, "The document does not mention it.");
        assert_eq!(
            (right["unanswerable_recall"], right["unanswerable_precision"]),
            (1.0, 1.0)
        );
        let missed = metrics(none, "In 1911.");
        assert_eq!(missed["unanswerable_recall"], 0.0);
        assert!(!missed.contains_key("unanswerable_precision"));
        let wrong = metrics("In 1911.", none);
        assert_eq!(wrong["unanswerable_precision"], 0.0);
        assert!(!wrong.contains_key("unanswerable_recall"));
        let answered = metrics("In 1911.", "It opened in 1911");
        assert_eq!((answered["token_recall"], answered["token_f1"]), (1.0, 2.0 / 3.0));
    }
}
