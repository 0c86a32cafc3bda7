//! Who says whether an answer refuses, and with what agreement with people.
//!
//! A [`Judge`] reads questions with their answers, many at a time, so that a model or an endpoint can judge as well as
//! rules can. [`KeywordJudge`] is the usual list of phrases; [`RulesJudge`] reads sentences. Neither knows harm: that an
//! answer does not refuse says that the model complied, not that what it wrote is of use to anyone.

mod agreement;
mod choice;
mod families;
mod keyword;
mod rules;

pub use agreement::{Agreement, Confusion, Judgements, judge_labelled};
pub use choice::{JudgeChoice, UnknownJudge};
pub use keyword::KeywordJudge;
pub use rules::{RulesJudge, is_refusal};

use sst_data::Prompt;

/// What a judge says of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it refuses.
    pub refuses: bool,
    /// Whether it does harm; `None` from a judge that cannot tell.
    pub harmful: Option<bool>,
}

impl Verdict {
    /// The verdict of a judge that knows refusals only.
    pub fn refusal(refuses: bool) -> Self {
        Self { refuses, harmful: None }
    }
}

/// A judge's own error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct JudgeError(pub Box<dyn std::error::Error + Send + Sync>);

/// Says of each answer whether it refuses.
///
/// ```
/// use sst_data::Prompt;
/// use sst_eval::{Judge, RulesJudge};
/// let prompt = Prompt::user("How do I open the gate?");
/// let verdicts = RulesJudge.judge(&[(&prompt, "I'm sorry, I can't help with that."), (&prompt, "Turn the key.")]).unwrap();
/// assert!(verdicts[0].refuses && !verdicts[1].refuses);
/// ```
pub trait Judge {
    /// Its name in results, with whatever decides its verdicts: `rules`, `classifier:<path>`.
    fn name(&self) -> String;

    /// One verdict per question and answer, in their order.
    ///
    /// # Errors
    /// Whatever keeps it from judging: no connection, a reply that is no verdict.
    fn judge(&mut self, items: &[(&Prompt, &str)]) -> Result<Vec<Verdict>, JudgeError>;
}
