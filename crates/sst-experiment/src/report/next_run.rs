//! What to run next: each open question with its command and how much it needs.

use super::{Finding, Report, Rule, Test, Verdict};
use serde::Serialize;
use serde_json::{Value, json};
use sst_eval::detectable_paired_difference;

/// A recommended run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NextRun {
    /// Which question, the key of its phrases.
    pub question: String,
    /// The numbers behind it.
    pub evidence: Value,
    /// Commands to type.
    pub commands: Vec<String>,
    /// One line, in the report's language.
    pub title: String,
    /// Why.
    pub text: String,
}

impl NextRun {
    fn new(question: &str, evidence: Value, commands: &[&str]) -> Self {
        Self {
            question: question.to_owned(),
            evidence,
            commands: commands.iter().map(|c| (*c).to_owned()).collect(),
            title: String::new(),
            text: String::new(),
        }
    }
}

/// The questions, as the phrases know them.
#[cfg(test)]
pub(super) const QUESTIONS: [&str; 6] = ["stages", "reproduce", "samples", "weight", "items", "refusals"];

const ATTRIBUTE: &str =
    "sst attribute docs/recipes/attribute-v1.toml docs/recipes/attribute-v2.toml --data DATA --out runs/attribution";
const REPRODUCE: &str = "sst sweep docs/recipes/reproduce-v1.toml --data DATA --out runs/reproduce-v1";
const WEIGHTS: &str = "sst sweep docs/recipes/weights.toml --data DATA --out runs/weights";
const SAMPLES: &str = "sst sweep docs/recipes/samples.toml --data DATA --out runs/samples";
/// The difference that the next evaluation should be able to see.
const TARGET: f64 = 0.03;
/// Share of items on which two near systems differ, for the paired estimate where none was measured.
const DISCORDANCE: f64 = 0.15;

/// Recommendations from the findings, in the order of the study's questions.
pub(super) fn next_runs(report: &Report, findings: &[Finding]) -> Vec<NextRun> {
    let found = |rule: Rule| findings.iter().filter(move |f| f.rule == rule);
    let mut runs = Vec::new();
    if found(Rule::SameSetting).next().is_some() && report.attribution.is_none() {
        let evidence = json!({ "pairs": found(Rule::SameSetting).map(|f| &f.cells).collect::<Vec<_>>() });
        runs.push(NextRun::new("stages", evidence, &[ATTRIBUTE]));
    }
    if found(Rule::EqualsUtility).next().is_some() {
        let cells: Vec<&String> = found(Rule::EqualsUtility).flat_map(|f| &f.cells).collect();
        runs.push(NextRun::new("reproduce", json!({ "cells": cells }), &[REPRODUCE]));
    }
    let open = |setting: &str| {
        found(Rule::Untested)
            .chain(found(Rule::Confounded))
            .any(|f| f.evidence["setting"] == setting)
    };
    let lost = found(Rule::SamplesMissing).next();
    if lost.is_some() || open("samples") {
        let evidence = json!({ "lost": lost.map_or(0, |f| f.cells.len()) });
        runs.push(NextRun::new("samples", evidence, &[SAMPLES]));
    }
    if open("weight") {
        runs.push(NextRun::new("weight", json!({}), &[WEIGHTS]));
    }
    runs.extend(items(report));
    if found(Rule::RefusalsUnmeasured).next().is_some() {
        runs.push(NextRun::new("refusals", json!({}), &[]));
    }
    runs
}

/// How many items a difference of [`TARGET`] needs on the goal whose differences drown the most in noise.
fn items(report: &Report) -> Option<NextRun> {
    let compared = report.same_setting.iter().chain(&report.against_utility);
    let blind = compared
        .filter(|d| d.verdict == Verdict::Noise && report.goals.contains_key(&d.benchmark) && d.detectable.is_finite())
        .max_by(|a, b| a.detectable.total_cmp(&b.detectable))?;
    if blind.detectable <= TARGET {
        return None;
    }
    // The detectable difference falls with the root of n.
    let needed = 100 * (blind.n as f64 * (blind.detectable / TARGET).powi(2) / 100.0).ceil() as usize;
    let paired = match blind.test {
        Test::TwoProportions => Some(fewest(|n| detectable_paired_difference(DISCORDANCE, n))),
        _ => None,
    };
    let evidence = json!({
        "target": TARGET, "n": blind.n, "detectable": blind.detectable, "benchmark": blind.benchmark,
        "needed": needed, "paired": paired, "discordance": DISCORDANCE,
    });
    Some(NextRun::new("items", evidence, &[]))
}

/// The least number of items, to the next hundred, at which the difference becomes visible.
fn fewest(detectable: impl Fn(usize) -> f64) -> usize {
    let (mut low, mut high) = (0, 1);
    while detectable(100 * high) > TARGET {
        (low, high) = (high, 2 * high);
    }
    while high - low > 1 {
        let middle = (low + high) / 2;
        if detectable(100 * middle) > TARGET {
            low = middle;
        } else {
            high = middle;
        }
    }
    100 * high
}

#[cfg(test)]
mod tests {
    use super::*;
    use sst_eval::detectable_proportion_difference;

    #[test]
    fn the_needed_items_are_the_fewest() {
        let detectable = |n| detectable_proportion_difference(0.5, n);
        let n = fewest(detectable);
        assert!(detectable(n) <= TARGET && detectable(n - 100) > TARGET, "{n}");
        // (1.96 + 0.84)^2 * 2 * 0.25 / 0.03^2 = 4361 items.
        assert!((4300..=4500).contains(&n), "{n}");
        assert!(fewest(|n| detectable_paired_difference(DISCORDANCE, n)) < n);
    }
}
