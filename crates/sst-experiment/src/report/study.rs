//! A published table as a file: figures only, with the number of items behind them.
//!
//! ```toml
//! title = "..."
//! model = "Llama-3.1-8B"
//! variant = "A5+A7"
//!
//! [items]              # of each benchmark
//! jailbreak = 500
//!
//! [goals]              # in %
//! jailbreak = 77.0
//!
//! [[cell]]
//! kind = "merge"       # or base, utility, safety
//! version = "V1"
//! k = 20
//! weight = 1.0
//! samples = 500        # left out where nobody recorded it
//! scores = { jailbreak = 77.6 } # in %
//! ```
//!
//! A figure of n items is taken as a rate: that many successes, to the nearest. For a mean of scores between 0 and 1, as
//! ROUGE-L is, the variance of a rate is the largest possible, so that the intervals and tests are conservative.

use super::{Cell, CellKind, Goals, Score};
use crate::Error;
use serde::Deserialize;
use sst_eval::{Benchmark, wilson_interval};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A study read and checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Study {
    pub title: String,
    pub model: String,
    pub goals: Goals,
    pub cells: Vec<Cell>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    title: String,
    model: String,
    variant: String,
    items: BTreeMap<Benchmark, usize>,
    #[serde(default)]
    goals: BTreeMap<Benchmark, f64>,
    cell: Vec<RawCell>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCell {
    kind: CellKind,
    name: Option<String>,
    version: Option<String>,
    k: Option<u64>,
    weight: Option<f64>,
    samples: Option<u64>,
    scores: BTreeMap<Benchmark, f64>,
}

impl Study {
    /// # Errors
    /// [`Error::Recipe`] naming the file and the line or cell at fault.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(sst_artefact::Error::io("read", path))?;
        Self::parse(&text).map_err(|reason| Error::Recipe {
            path: path.to_path_buf(),
            reason,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let raw: Raw = toml::from_str(text).map_err(|e| e.to_string().trim().replace('\n', " "))?;
        let mut cells = Vec::new();
        let mut names = BTreeSet::new();
        for (i, cell) in raw.cell.into_iter().enumerate() {
            let cell = cell
                .check(&raw.variant, &raw.items)
                .map_err(|problem| format!("cell {}: {problem}", i + 1))?;
            if !names.insert(cell.name.clone()) {
                return Err(format!("cell {}: there are two of the name {}", i + 1, cell.name));
            }
            cells.push(cell);
        }
        if cells.is_empty() {
            return Err("no cell; a study has at least one `[[cell]]`".to_owned());
        }
        for (benchmark, goal) in &raw.goals {
            share(*benchmark, *goal).map_err(|problem| format!("goals: {problem}"))?;
        }
        Ok(Self {
            title: raw.title,
            model: raw.model,
            goals: raw.goals.into_iter().map(|(b, goal)| (b, goal / 100.0)).collect(),
            cells,
        })
    }
}

impl RawCell {
    fn check(self, variant: &str, items: &BTreeMap<Benchmark, usize>) -> Result<Cell, String> {
        let merge = self.kind == CellKind::Merge;
        if merge && self.version.is_none() {
            return Err("a merge needs its `version`".to_owned());
        }
        if let Some(weight) = self.weight.filter(|w| !w.is_finite()) {
            return Err(format!("weight is {weight}, expected a number"));
        }
        let name = self.name.clone().unwrap_or_else(|| self.label());
        let mut scores = BTreeMap::new();
        for (&benchmark, &figure) in &self.scores {
            let value = share(benchmark, figure)?;
            let n = match items.get(&benchmark) {
                Some(&n) if n > 0 => n,
                _ => return Err(format!("`items` has no number for {benchmark}")),
            };
            let interval = wilson_interval((value * n as f64).round() as usize, n);
            scores.insert(
                benchmark,
                Score {
                    value,
                    interval,
                    n,
                    suspicious: false,
                    items: BTreeMap::new(),
                },
            );
        }
        Ok(Cell {
            name,
            kind: self.kind,
            version: self.version,
            variant: merge.then(|| variant.to_owned()),
            k: self.k,
            weight: self.weight,
            samples: self.samples,
            sampled: merge,
            settings: BTreeMap::new(),
            scores,
            over_refusal: None,
            valid: None,
        })
    }

    fn label(&self) -> String {
        let mut words: Vec<String> = self.version.iter().cloned().collect();
        if words.is_empty() {
            words.push(format!("{:?}", self.kind).to_lowercase());
        }
        words.extend(self.k.map(|k| format!("k={k}")));
        words.extend(self.weight.map(|w| format!("w={w:?}")));
        words.join(" ")
    }
}

fn share(benchmark: Benchmark, figure: f64) -> Result<f64, String> {
    if !benchmark.is_share() {
        return Err(format!("{benchmark} is no share; a study has figures in % only"));
    }
    if (0.0..=100.0).contains(&figure) {
        Ok(figure / 100.0)
    } else {
        Err(format!("{benchmark} is {figure}, expected 0 to 100 (%)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUDY: &str = r#"
        title = "T"
        model = "M"
        variant = "A5+A7"
        items = { jailbreak = 500, mmlu = 500 }
        goals = { jailbreak = 77 }
        [[cell]]
        kind = "utility"
        name = "A5"
        scores = { jailbreak = 76.6, mmlu = 52.7 }
        [[cell]]
        kind = "merge"
        version = "V1"
        k = 20
        weight = 1.0
        scores = { jailbreak = 77.6 }
    "#;

    #[test]
    fn figures_become_rates_with_intervals() {
        let study = Study::parse(STUDY).unwrap();
        assert_eq!(study.goals[&Benchmark::Jailbreak], 0.77);
        let v1 = &study.cells[1];
        assert_eq!(
            (v1.name.as_str(), v1.variant.as_deref()),
            ("V1 k=20 w=1.0", Some("A5+A7"))
        );
        let score = &v1.scores[&Benchmark::Jailbreak];
        assert_eq!(score.interval, wilson_interval(388, 500));
        assert!(score.interval.low < 0.77, "the goal lies inside the interval");
    }

    #[test]
    fn faults_name_the_cell() {
        for (from, to, parts) in [
            ("77.6", "776", ["cell 2", "jailbreak is 776"]),
            ("version = \"V1\"", "", ["cell 2", "`version`"]),
            ("mmlu = 500", "mmlu = 0", ["cell 1", "no number for mmlu"]),
            ("weight = 1.0", "weight = nan", ["cell 2", "weight"]),
            (
                "goals = { jailbreak = 77 }",
                "goals = { jailbreak = -1 }",
                ["goals", "jailbreak"],
            ),
            ("name = \"A5\"", "nam = \"A5\"", ["nam", "unknown field"]),
            (
                "name = \"A5\"",
                "name = \"V1 k=20 w=1.0\"",
                ["cell 2", "two of the name"],
            ),
        ] {
            assert!(STUDY.contains(from), "{from}");
            let message = Study::parse(&STUDY.replacen(from, to, 1)).unwrap_err();
            for part in parts {
                assert!(message.contains(part), "{to}: no {part} in {message}");
            }
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
}
