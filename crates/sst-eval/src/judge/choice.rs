//! Which judge, as configuration files and command lines name it.

use super::{Judge, KeywordJudge, RulesJudge};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A judge by name: `rules`, `keyword`, `classifier:<folder>`, `endpoint:<URL>`; settings may follow folder and URL after a `?`.
///
/// ```
/// use sst_eval::JudgeChoice;
/// let choice: JudgeChoice = "endpoint:http://localhost:8000/v1".parse().unwrap();
/// assert_eq!(choice.to_string(), "endpoint:http://localhost:8000/v1");
/// assert!(choice.built_in().is_none() && JudgeChoice::Rules.built_in().is_some());
/// assert!("oracle".parse::<JudgeChoice>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum JudgeChoice {
    /// [`RulesJudge`].
    #[default]
    Rules,
    /// [`KeywordJudge`].
    Keyword,
    /// A sequence classifier in this folder, after which `?refuses=LABEL&harmful=LABEL&input=pair` may follow.
    Classifier(String),
    /// A chat model behind this URL, after which `?model=NAME&key=VARIABLE` may follow.
    Endpoint(String),
}

/// A name that stands for no judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown judge `{0}`, expected rules, keyword, classifier:FOLDER or endpoint:URL")]
pub struct UnknownJudge(String);

impl JudgeChoice {
    /// The judge itself, where it needs nothing but this crate.
    pub fn built_in(&self) -> Option<Box<dyn Judge>> {
        match self {
            JudgeChoice::Rules => Some(Box::new(RulesJudge)),
            JudgeChoice::Keyword => Some(Box::new(KeywordJudge)),
            JudgeChoice::Classifier(_) | JudgeChoice::Endpoint(_) => None,
        }
    }
}

impl fmt::Display for JudgeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JudgeChoice::Rules => f.write_str("rules"),
            JudgeChoice::Keyword => f.write_str("keyword"),
            JudgeChoice::Classifier(place) => write!(f, "classifier:{place}"),
            JudgeChoice::Endpoint(url) => write!(f, "endpoint:{url}"),
        }
    }
}

impl FromStr for JudgeChoice {
    type Err = UnknownJudge;

    fn from_str(name: &str) -> Result<Self, UnknownJudge> {
        match name.split_once(':') {
            None if name == "rules" => Ok(JudgeChoice::Rules),
            None if name == "keyword" => Ok(JudgeChoice::Keyword),
            Some(("classifier", place)) if !place.is_empty() => Ok(JudgeChoice::Classifier(place.to_owned())),
            Some(("endpoint", url)) if !url.is_empty() => Ok(JudgeChoice::Endpoint(url.to_owned())),
            _ => Err(UnknownJudge(name.to_owned())),
        }
    }
}

impl TryFrom<String> for JudgeChoice {
    type Error = UnknownJudge;

    fn try_from(name: String) -> Result<Self, UnknownJudge> {
        name.parse()
    }
}

impl From<JudgeChoice> for String {
    fn from(choice: JudgeChoice) -> Self {
        choice.to_string()
    }
}
