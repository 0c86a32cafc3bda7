//! The commands that run a plan, part by part.

use crate::{Plan, PlanStage};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

/// How a sweep was started: what every command that runs a part of it begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The folder that relative paths are relative to.
    pub folder: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// `sweep`, the recipe, and every option that decides results.
    pub arguments: Vec<String>,
}

/// What is left of a plan, as commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrittenPlan {
    /// Where the commands run.
    pub folder: PathBuf,
    /// The stages that are left, each to begin when the one before it has ended.
    pub stages: Vec<PlannedStage>,
}

/// One stage of a written plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedStage {
    /// Which.
    pub stage: PlanStage,
    /// The stage that must have ended before.
    pub after: Option<PlanStage>,
    /// Its parts, in any order or at once.
    pub parts: Vec<PlannedPart>,
}

/// One part of a written plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedPart {
    /// Its number in the stage, from 1.
    pub part: usize,
    /// Parts of the stage, those that are done included.
    pub of: usize,
    /// What it computes.
    pub what: String,
    /// The program and its arguments.
    pub command: Vec<String>,
}

impl Invocation {
    /// Program and arguments for part `part`, which may be a shell's word, of a stage of `of`.
    pub(crate) fn part(&self, stage: PlanStage, part: &str, of: usize) -> Vec<String> {
        let program = self.program.display().to_string();
        let own = ["--stage", &stage.to_string(), "--part", &format!("{part}/{of}")].map(str::to_owned);
        [program]
            .into_iter()
            .chain(self.arguments.iter().cloned())
            .chain(own)
            .collect()
    }
}

impl WrittenPlan {
    /// The commands for the parts that are left of a plan, as [`crate::remaining`] numbers them.
    pub fn of(plan: &Plan, left: &BTreeMap<PlanStage, BTreeSet<usize>>, invocation: &Invocation) -> Self {
        let mut after = None;
        let stages = left.iter().map(|(&stage, numbers)| PlannedStage {
            stage,
            after: after.replace(stage),
            parts: numbers
                .iter()
                .map(|&part| PlannedPart {
                    part,
                    of: plan.parts(stage).len(),
                    what: plan.parts(stage)[part - 1].to_string(),
                    command: invocation.part(stage, &part.to_string(), plan.parts(stage).len()),
                })
                .collect(),
        });
        Self {
            folder: invocation.folder.clone(),
            stages: stages.collect(),
        }
    }
}

impl fmt::Display for WrittenPlan {
    /// Lines for a shell; comments say what must have ended before.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stages.is_empty() {
            return f.write_str("# Everything is done.");
        }
        write!(f, "cd {}", quoted(&self.folder.display().to_string()))?;
        for PlannedStage { stage, after, parts } in &self.stages {
            write!(f, "\n\n# Stage {stage}")?;
            if let Some(after) = after {
                write!(f, ", when all of {after} has ended")?;
            }
            if parts.len() > 1 {
                f.write_str("; in any order, or at once")?;
            }
            for part in parts {
                let words: Vec<String> = part.command.iter().map(|word| quoted(word)).collect();
                write!(f, "\n# {}\n{}", part.what, words.join(" "))?;
            }
        }
        Ok(())
    }
}

/// A word as a POSIX shell reads it: bare where that is safe, else in single quotes.
///
/// ```
/// use sst_experiment::quoted;
/// assert_eq!(quoted("runs/v1"), "runs/v1");
/// assert_eq!(quoted(r#"mode="residual""#), r#"'mode="residual"'"#);
/// ```
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_every_word_as_it_is() {
        let words = ["plain", "two words", "it's", "", "$HOME", "a\nb", "*"];
        let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("printf '%s|' {}", line.join(" "))])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), words.join("|") + "|");
    }

    #[test]
    fn only_what_is_left_is_written() {
        let recipe = r#"
            variants = ["A5+A7"]
            merge = [{ strategy = "ties" }]
            [adapters.A5]
            role = "utility"
            dataset = "repliqa"
            [adapters.A7]
            role = "safety"
            dataset = "jailbreak"
        "#;
        let plan = Plan::of(&crate::Recipe::parse(recipe).unwrap(), 1).unwrap();
        let invocation = Invocation {
            folder: "/some where".into(),
            program: "/bin/sst".into(),
            arguments: ["sweep", "a b.toml"].map(str::to_owned).to_vec(),
        };
        let left = BTreeMap::from([
            (PlanStage::Train, BTreeSet::from([2])),
            (PlanStage::Merge, BTreeSet::from([1])),
        ]);
        let written = WrittenPlan::of(&plan, &left, &invocation);
        assert_eq!(
            written.to_string(),
            "cd '/some where'\n\n# Stage train\n# A7\n/bin/sst sweep 'a b.toml' --stage train --part 2/2\n\n\
             # Stage merge, when all of train has ended\n# TIES density=0.2 total lambda=1 paper delta A5+A7 n=100\n\
             /bin/sst sweep 'a b.toml' --stage merge --part 1/1"
        );
        assert_eq!(
            WrittenPlan::of(&plan, &BTreeMap::new(), &invocation).to_string(),
            "# Everything is done."
        );
    }
}
