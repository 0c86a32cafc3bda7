//! One system of a report: what made it, what it scored.

use super::Goals;
use serde::Serialize;
use serde_json::Value;
use sst_eval::{Benchmark, Interval};
use std::collections::BTreeMap;

/// What a system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellKind {
    /// The model without any adapter.
    Base,
    /// A utility adapter alone.
    Utility,
    /// A safety adapter alone.
    Safety,
    /// A merge of both.
    Merge,
}

/// A system with its settings and scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// Its name, unique in the report.
    pub name: String,
    /// What it is.
    pub kind: CellKind,
    /// The method of a merge: `V1`, `V2`, `SST`.
    pub version: Option<String>,
    /// The adapters merged, `A5+A7`.
    pub variant: Option<String>,
    /// Number of directions of the safety subspace.
    pub k: Option<u64>,
    /// The strength of the safety part, whatever the method calls it: alpha, w, gamma.
    pub weight: Option<f64>,
    /// Fisher samples; absent where nobody recorded them, and for methods that take none.
    pub samples: Option<u64>,
    /// Whether the method needs samples at all.
    pub sampled: bool,
    /// All other settings, flat: `mode.residual.r`.
    pub settings: BTreeMap<String, Value>,
    /// What it scored.
    pub scores: BTreeMap<Benchmark, Score>,
    /// Refusals of harmless requests: of XSTest's safe prompts, else of the utility sets.
    pub over_refusal: Option<Rate>,
    /// Answers that are neither empty, looping nor gibberish.
    pub valid: Option<Rate>,
}

/// The score of one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// Mean over the items, in units of the benchmark: a share, or nats per token.
    pub value: f64,
    /// 95 % interval.
    pub interval: Interval,
    /// Number of items.
    pub n: usize,
    /// Whether it is a 0 that looks like missing data; it counts as not measured.
    pub suspicious: bool,
    /// The items' scores by id; empty where only the mean is known.
    #[serde(skip)]
    pub items: BTreeMap<String, f64>,
}

/// A share with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, serde::Deserialize)]
pub struct Rate {
    /// The share.
    pub value: f64,
    /// 95 % interval.
    pub interval: Interval,
    /// Of how many answers.
    pub n: usize,
}

impl Rate {
    /// Pools shares of n answers each; `None` without any.
    pub(super) fn pooled(shares: impl Iterator<Item = (f64, usize)>) -> Option<Self> {
        let (mut yes, mut n) = (0, 0);
        for (share, of) in shares {
            yes += (share * of as f64).round() as usize;
            n += of;
        }
        (n > 0).then(|| Self {
            value: yes as f64 / n as f64,
            interval: sst_eval::wilson_interval(yes, n),
            n,
        })
    }
}

impl Cell {
    /// Whether it is a merge.
    pub fn is_merge(&self) -> bool {
        self.kind == CellKind::Merge
    }

    /// Its score on a benchmark, if it was measured there.
    pub fn score(&self, benchmark: Benchmark) -> Option<&Score> {
        self.scores.get(&benchmark).filter(|score| !score.suspicious)
    }

    /// Its score less the goal, for each goal it was measured against.
    pub(super) fn margins(&self, goals: &Goals) -> BTreeMap<Benchmark, f64> {
        let margin = |(&benchmark, &goal): (&Benchmark, &f64)| Some((benchmark, self.score(benchmark)?.value - goal));
        goals.iter().filter_map(margin).collect()
    }

    /// Whether every goal was measured and met.
    pub(super) fn meets_all(&self, goals: &Goals) -> bool {
        let margins = self.margins(goals);
        !goals.is_empty() && margins.len() == goals.len() && margins.values().all(|m| *m >= 0.0)
    }

    /// Goals met, then the smallest margin: the order in which cells are preferred.
    pub(super) fn rank(&self, goals: &Goals) -> (usize, f64) {
        let margins = self.margins(goals);
        let met = margins.values().filter(|m| **m >= 0.0).count();
        (met, margins.values().copied().fold(f64::INFINITY, f64::min))
    }

    /// The setting of that key, among k, weight, samples and all others.
    pub(super) fn setting(&self, key: &str) -> Option<Value> {
        match key {
            "k" => self.k.map(Value::from),
            "weight" => self.weight.map(Value::from),
            "samples" => self.samples.map(Value::from),
            other => self.settings.get(other).cloned(),
        }
    }

    /// Everything but k and the weight that decides what the merge is, as one text.
    pub(super) fn without_strength(&self) -> String {
        Self {
            weight: None,
            ..self.clone()
        }
        .without("k")
    }

    /// Everything but `key` that decides what the merge is, as one text.
    pub(super) fn without(&self, key: &str) -> String {
        let mut all = self.settings.clone();
        all.insert("version".to_owned(), Value::from(self.version.clone()));
        all.insert("variant".to_owned(), Value::from(self.variant.clone()));
        for name in ["k", "weight", "samples"] {
            all.insert(name.to_owned(), self.setting(name).unwrap_or_default());
        }
        all.remove(key);
        serde_json::json!(all).to_string()
    }
}
