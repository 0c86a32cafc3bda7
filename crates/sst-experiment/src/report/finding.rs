//! What the numbers say: small rules, each with its evidence; the wording is the phrases' business.

mod compared;
mod missing;

pub(super) use missing::suspicious_zeros;

use super::Report;
use serde::Serialize;
use serde_json::Value;

/// A rule that found something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Which goals each merge meets and misses.
    Goals,
    /// A goal is met by the figure, but its interval reaches below.
    GoalsUnproven,
    /// Two methods at the same setting.
    SameSetting,
    /// A merge that is its utility adapter alone, within the noise.
    EqualsUtility,
    /// A setting that changes nothing.
    NoEffect,
    /// A setting that changes something.
    Effect,
    /// A series that goes up and down.
    NoTrend,
    /// The best system of a series is not told apart from its neighbours.
    BestNotDistinct,
    /// Methods differ once a series without effect is pooled.
    Pooled,
    /// A score of exactly 0 that nothing explains.
    SuspiciousZero,
    /// A system that refuses everything.
    BlanketRefusal,
    /// Harmless requests refused.
    OverRefusal,
    /// Answers that are none.
    InvalidAnswers,
    /// A projection that keeps next to nothing, or no more than a random one.
    EmptyProjection,
    /// Sample counts that nobody recorded.
    SamplesMissing,
    /// A setting that only changed together with others.
    Confounded,
    /// A setting of which one value was tried.
    Untested,
    /// Neither over-refusal nor valid answers were measured.
    RefusalsUnmeasured,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 18] = [
        Self::Goals,
        Self::GoalsUnproven,
        Self::SameSetting,
        Self::EqualsUtility,
        Self::NoEffect,
        Self::Effect,
        Self::NoTrend,
        Self::BestNotDistinct,
        Self::Pooled,
        Self::SuspiciousZero,
        Self::BlanketRefusal,
        Self::OverRefusal,
        Self::InvalidAnswers,
        Self::EmptyProjection,
        Self::SamplesMissing,
        Self::Confounded,
        Self::Untested,
        Self::RefusalsUnmeasured,
    ];

    /// Its name in files.
    pub fn name(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

/// How a finding is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// Something works.
    Good,
    /// Something to know.
    Note,
    /// Something that forbids a conclusion.
    Warning,
}

/// What one rule found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// How it is meant.
    pub tone: Tone,
    /// The systems concerned.
    pub cells: Vec<String>,
    /// The numbers behind it.
    pub evidence: Value,
    /// One line, in the report's language.
    pub title: String,
    /// A few sentences.
    pub text: String,
}

impl Finding {
    fn new(rule: Rule, tone: Tone, cells: impl IntoIterator<Item = String>, evidence: Value) -> Self {
        Self {
            rule,
            tone,
            cells: cells.into_iter().collect(),
            evidence,
            title: String::new(),
            text: String::new(),
        }
    }
}

/// All findings about a report without any, the most important first.
pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(compared::goals(
        &report.cells,
        &report.goals,
        report.selection.is_some(),
    ));
    found.extend(compared::same_setting(&report.same_setting));
    found.extend(compared::equals_utility(&report.against_utility, report));
    found.extend(compared::pooled(report));
    found.extend(compared::effects(&report.effects));
    found.extend(missing::zeros(&report.cells));
    found.extend(missing::answers(&report.cells));
    found.extend(missing::projections(&report.subspaces));
    found.extend(missing::gaps(report));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_rule_has_its_own_name() {
        let names: BTreeSet<String> = Rule::ALL.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), Rule::ALL.len());
        assert!(names.contains("equals-utility"));
    }
}
