//! The result of a suite on one model, and its folder: `items.jsonl`, `scores.json`, `manifest.json`.

use crate::{Benchmark, BenchmarkScore, Error, ItemRecord, SuiteConfig};
use serde::{Deserialize, Serialize};
use sst_artefact::{Input, Manifest, read_json, write_atomic, write_json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

const ITEMS_FILE: &str = "items.jsonl";
const SCORES_FILE: &str = "scores.json";

/// The scores of one model and every item behind them.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Which adapter was evaluated; `None` is the base model.
    pub adapter: Option<String>,
    /// The judge of its answers, as [`Judge::name`](crate::Judge::name) gives it.
    pub judge: String,
    /// The suite's configuration, defaults filled in.
    pub config: SuiteConfig,
    /// One score per benchmark, in the order they ran.
    pub scores: Vec<BenchmarkScore>,
    /// Every item, benchmark by benchmark.
    pub records: Vec<ItemRecord>,
}

/// What `scores.json` holds.
#[derive(Serialize, Deserialize)]
struct Scores {
    adapter: Option<String>,
    judge: String,
    config: SuiteConfig,
    scores: Vec<BenchmarkScore>,
}

impl Evaluation {
    /// The score of one benchmark, if it ran.
    pub fn score(&self, benchmark: Benchmark) -> Option<&BenchmarkScore> {
        self.scores.iter().find(|score| score.benchmark == benchmark)
    }

    /// Writes the folder; the manifest goes last, so that a folder with one is whole.
    ///
    /// # Errors
    /// [`Error::Artefact`] when a file cannot be written.
    pub fn save(&self, folder: &Path, inputs: BTreeMap<String, Input>) -> Result<(), Error> {
        write_atomic(&folder.join(ITEMS_FILE), |w| {
            for record in &self.records {
                serde_json::to_writer(&mut *w, record)?;
                w.write_all(b"\n")?;
            }
            Ok(())
        })?;
        let scores = Scores {
            adapter: self.adapter.clone(),
            judge: self.judge.clone(),
            config: self.config.clone(),
            scores: self.scores.clone(),
        };
        write_json(&folder.join(SCORES_FILE), &scores)?;
        let mut manifest = Manifest::new("evaluation", &self.config);
        manifest.inputs = inputs;
        manifest.facts =
            serde_json::json!({ "adapter": self.adapter, "judge": self.judge, "items": self.records.len() });
        manifest.write(folder)?;
        Ok(())
    }

    /// Reads a folder that [`Evaluation::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Artefact`] when a file is missing or malformed, [`Error::Record`] naming a malformed line of items.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let Scores {
            adapter,
            judge,
            config,
            scores,
        } = read_json(&folder.join(SCORES_FILE), "evaluation's scores")?;
        let path = folder.join(ITEMS_FILE);
        let text = std::fs::read_to_string(&path).map_err(sst_artefact::Error::io("read", &path))?;
        let parse = |(i, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|source| Error::Record {
                path: path.clone(),
                line: i + 1,
                source,
            })
        };
        let records = text.lines().enumerate().map(parse).collect::<Result<_, _>>()?;
        Ok(Self {
            adapter,
            judge,
            config,
            scores,
            records,
        })
    }
}
