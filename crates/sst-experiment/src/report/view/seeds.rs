//! The section over seeds: mean and range of every setting.

use super::tables::{Words, value};
use super::{Block, Entry, Head, Section, Table, section};
use crate::report::phrases::{bench, percent};
use crate::{Error, OverSeeds, Spread};
use sst_eval::Benchmark;

/// The section, where the run has several seeds.
pub(super) fn section_of<'a>(words: &Words<'_>) -> Result<Option<Section<'a>>, Error> {
    let report = words.report;
    let mut blocks = Vec::new();
    for (caption, rows) in [("all_seeds", &report.seeds), ("chosen_seeds", &report.seeds_chosen)] {
        if !rows.is_empty() {
            blocks.push(Block::Table(words.over_seeds(words.word(&["table", caption])?, rows)?));
        }
    }
    (!blocks.is_empty())
        .then(|| section(words, "seeds", &["seeds"], blocks))
        .transpose()
}

impl Words<'_> {
    fn over_seeds(&self, caption: String, rows: &[OverSeeds]) -> Result<Table, Error> {
        let benchmarks: Vec<Benchmark> = rows
            .first()
            .map_or(Vec::new(), |row| row.scores.iter().map(|(b, _)| *b).collect());
        let mut head = self.heads(&[("system", false), ("seeds", true)])?;
        head.extend(benchmarks.iter().map(|b| Head {
            text: bench(b.name()),
            number: true,
        }));
        head.extend(self.heads(&[("over_refusal", true), ("valid", true)])?);
        let row = |row: &OverSeeds| {
            let mut entries = vec![Entry::plain(&row.setting), Entry::plain(row.seeds.len().to_string())];
            entries.extend(benchmarks.iter().map(|b| spread(row.score(*b), |x| value(*b, x))));
            entries.extend([spread(row.over_refusal, percent), spread(row.valid, percent)]);
            entries
        };
        Ok(Table {
            caption,
            rows: rows.iter().map(row).collect(),
            head,
        })
    }
}

/// The mean, with the range in small print.
fn spread(spread: Option<Spread>, show: impl Fn(f64) -> String) -> Entry {
    spread.map_or(Entry::plain("–"), |s| Entry {
        text: show(s.mean),
        note: format!("{}–{}", show(s.low), show(s.high)),
        ..Entry::default()
    })
}
