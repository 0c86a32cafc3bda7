//! The tables of a report, in the words of its language.

use super::{Entry, Head, Table};
use crate::report::phrases::{Phrases, bench, p_value, percent, points, short_number};
use crate::report::{Cell, CellKind, Course, Difference, Effect, Rate, Report, Score, Verdict};
use crate::{Error, Share, Stage};
use serde_json::json;
use sst_eval::{Benchmark, Interval};
use std::collections::BTreeSet;

/// A report and its language's phrases.
pub(super) struct Words<'a> {
    pub report: &'a Report,
    pub phrases: &'a Phrases,
}

impl Words<'_> {
    pub(super) fn word(&self, path: &[&str]) -> Result<String, Error> {
        self.filled(path, json!({}))
    }

    pub(super) fn filled(&self, path: &[&str], values: serde_json::Value) -> Result<String, Error> {
        self.phrases.text(path, &values)
    }

    /// Every benchmark that a system was measured on.
    pub(super) fn benchmarks(&self) -> Vec<Benchmark> {
        let all: BTreeSet<Benchmark> = self
            .report
            .cells
            .iter()
            .flat_map(|c| c.scores.keys().copied())
            .collect();
        all.into_iter().collect()
    }

    /// The place of a method among those of the report: its colour in all charts.
    pub(super) fn method(&self, version: &str) -> usize {
        self.versions().iter().position(|v| *v == version).unwrap_or(0)
    }

    fn versions(&self) -> Vec<&str> {
        let mut versions: Vec<&str> = Vec::new();
        for version in self.report.cells.iter().filter_map(|c| c.version.as_deref()) {
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        versions
    }

    pub(super) fn heads(&self, columns: &[(&str, bool)]) -> Result<Vec<Head>, Error> {
        let head = |(key, number): &(&str, bool)| {
            Ok(Head {
                text: self.word(&["table", key])?,
                number: *number,
            })
        };
        columns.iter().map(head).collect()
    }

    /// One table for what is not merged, and one per method.
    pub(super) fn results(&self) -> Result<Vec<Table>, Error> {
        let merges = || self.report.cells.iter().filter(|c| c.is_merge());
        let alone: Vec<&Cell> = self.report.cells.iter().filter(|c| !c.is_merge()).collect();
        let mut groups = vec![(self.word(&["table", "reference"])?, alone)];
        for version in self.versions() {
            groups.push((
                version.to_owned(),
                merges().filter(|c| c.version.as_deref() == Some(version)).collect(),
            ));
        }
        groups
            .into_iter()
            .filter(|(_, cells)| !cells.is_empty())
            .map(|(caption, cells)| self.group(caption, &cells, &self.report.front))
            .collect()
    }

    pub(super) fn group(&self, caption: String, cells: &[&Cell], front: &BTreeSet<String>) -> Result<Table, Error> {
        let merged = cells.iter().any(|c| c.is_merge());
        let benchmarks = self.benchmarks();
        let rates = self
            .report
            .cells
            .iter()
            .any(|c| c.over_refusal.is_some() || c.valid.is_some());
        let mut head = self.heads(&[("system", false)])?;
        if merged {
            head.extend(self.heads(&[("k", true), ("weight", true), ("samples", true)])?);
        }
        head.extend(benchmarks.iter().map(|b| Head {
            text: bench(b.name()),
            number: true,
        }));
        if rates {
            head.extend(self.heads(&[("over_refusal", true), ("valid", true)])?);
        }
        head.extend(self.heads(&[("goals", true)])?);
        let unknown = self.word(&["table", "unknown"])?;
        let rows = cells.iter().map(|cell| {
            let on_front = front.contains(&cell.name);
            let mut row = vec![Entry {
                text: cell.name.clone(),
                mark: if on_front { "●" } else { "" },
                class: if on_front { "front" } else { "" },
                ..Entry::default()
            }];
            if merged {
                let samples = match cell.samples {
                    None if cell.sampled => unknown.clone(),
                    samples => samples.map_or("–".to_owned(), |n| n.to_string()),
                };
                row.push(Entry::plain(cell.k.map_or("–".to_owned(), |k| k.to_string())));
                row.push(Entry::plain(cell.weight.map_or("–".to_owned(), short_number)));
                row.push(Entry::plain(samples));
            }
            row.extend(benchmarks.iter().map(|b| self.score(*b, cell.scores.get(b))));
            if rates {
                row.extend([rate(cell.over_refusal), rate(cell.valid)]);
            }
            let margins = cell.margins(&self.report.goals);
            let met = margins.values().filter(|m| **m >= 0.0).count();
            let all = cell.meets_all(&self.report.goals);
            row.push(Entry::classed(
                format!("{met}/{}", self.report.goals.len()),
                if all { "met" } else { "" },
            ));
            row
        });
        Ok(Table {
            caption,
            rows: rows.collect(),
            head,
        })
    }

    fn score(&self, benchmark: Benchmark, score: Option<&Score>) -> Entry {
        let Some(score) = score else {
            return Entry::plain("–");
        };
        let (mark, class) = match self.report.goals.get(&benchmark) {
            _ if score.suspicious => ("?", "missed"),
            Some(goal) if score.value >= *goal => ("✓", "met"),
            Some(_) => ("✗", "missed"),
            None => ("", ""),
        };
        Entry {
            text: value(benchmark, score.value),
            note: interval(score.interval, |x| value(benchmark, x)),
            mark,
            class,
        }
    }

    /// What a verdict says, and its colour.
    pub(super) fn verdict(&self, difference: &Difference) -> Result<Entry, Error> {
        let (key, class) = match difference.verdict {
            Verdict::Better => ("better", "better"),
            Verdict::Worse => ("worse", "worse"),
            Verdict::Noise => ("noise", "noise"),
            Verdict::Identical => ("identical", "noise"),
        };
        Ok(Entry::classed(
            self.filled(&["verdict", key], json!({ "n": difference.n }))?,
            class,
        ))
    }

    pub(super) fn differences(&self, differences: &[Difference]) -> Result<Table, Error> {
        let head = self.heads(&[
            ("pair", false),
            ("benchmark", false),
            ("first", true),
            ("second", true),
            ("difference", true),
            ("p", true),
            ("p_holm", true),
            ("visible", true),
            ("verdict", false),
        ])?;
        let of = |name: &String, benchmark| {
            let cell = self.report.cells.iter().find(|c| c.name == *name);
            let score = cell.and_then(|c| c.scores.get(&benchmark));
            Entry::plain(score.map_or("–".to_owned(), |s| value(benchmark, s.value)))
        };
        let row = |(i, d): (usize, &Difference)| {
            // A pair is named once.
            let named = i > 0 && (&d.first, &d.second) == (&differences[i - 1].first, &differences[i - 1].second);
            let pair = if named {
                String::new()
            } else {
                format!("{} − {}", d.second, d.first)
            };
            let reading = self.verdict(d)?;
            Ok(vec![
                Entry::plain(pair),
                Entry::plain(bench(d.benchmark.name())),
                of(&d.first, d.benchmark),
                of(&d.second, d.benchmark),
                change(d, reading.class),
                Entry::plain(p_value(d.p_value)),
                Entry::plain(p_value(d.p_holm)),
                Entry::plain(size(d.benchmark, d.detectable)),
                reading,
            ])
        };
        Ok(Table {
            caption: String::new(),
            rows: differences.iter().enumerate().map(row).collect::<Result<_, Error>>()?,
            head,
        })
    }

    /// One row per pair: what changes on each benchmark.
    pub(super) fn changes(&self, differences: &[Difference]) -> Result<Table, Error> {
        let benchmarks: BTreeSet<Benchmark> = differences.iter().map(|d| d.benchmark).collect();
        let mut head = self.heads(&[("pair", false)])?;
        for benchmark in &benchmarks {
            head.push(Head {
                text: bench(benchmark.name()),
                number: true,
            });
            head.extend(self.heads(&[("p", true), ("p_holm", true)])?);
        }
        let mut pairs: Vec<(&String, &String)> = differences.iter().map(|d| (&d.first, &d.second)).collect();
        pairs.dedup();
        let mut rows = Vec::new();
        for (first, second) in pairs {
            let mut row = vec![Entry::plain(format!("{second} − {first}"))];
            for benchmark in &benchmarks {
                let found = differences
                    .iter()
                    .find(|d| (&d.first, &d.second, d.benchmark) == (first, second, *benchmark));
                match found {
                    Some(d) if d.verdict == Verdict::Identical => {
                        row.extend([Entry::classed("=", "noise"), Entry::plain("–"), Entry::plain("–")]);
                    }
                    Some(d) => row.extend([
                        change(d, self.verdict(d)?.class),
                        Entry::plain(p_value(d.p_value)),
                        Entry::plain(p_value(d.p_holm)),
                    ]),
                    None => row.extend([Entry::plain("–"), Entry::plain("–"), Entry::plain("–")]),
                }
            }
            rows.push(row);
        }
        Ok(Table {
            caption: String::new(),
            head,
            rows,
        })
    }

    /// The scores of a series, each with its difference from the first.
    pub(super) fn effect(&self, effect: &Effect) -> Result<Table, Error> {
        let mut head = vec![Head {
            text: self.setting(&effect.setting)?,
            number: true,
        }];
        let benchmarks: Vec<Benchmark> = effect.series.iter().map(|s| s.benchmark).collect();
        for benchmark in &benchmarks {
            head.push(Head {
                text: bench(benchmark.name()),
                number: true,
            });
            head.extend(self.heads(&[("difference", true), ("p_holm", true)])?);
        }
        let row = |(x, name): (&f64, &String)| {
            let cell = self.report.cells.iter().find(|c| c.name == *name);
            let mut row = vec![Entry::plain(short_number(*x))];
            for benchmark in &benchmarks {
                row.push(self.score(*benchmark, cell.and_then(|c| c.scores.get(benchmark))));
                let difference = effect
                    .differences
                    .iter()
                    .find(|d| d.second == *name && d.benchmark == *benchmark);
                match difference {
                    Some(d) => row.extend([change(d, self.verdict(d)?.class), Entry::plain(p_value(d.p_holm))]),
                    None => row.extend([Entry::plain("–"), Entry::plain("–")]),
                }
            }
            Ok(row)
        };
        Ok(Table {
            caption: self.series_name(effect)?,
            rows: effect
                .values
                .iter()
                .zip(&effect.cells)
                .map(row)
                .collect::<Result<_, Error>>()?,
            head,
        })
    }

    /// What the tests over a whole series say.
    pub(super) fn series(&self, effect: &Effect) -> Result<Table, Error> {
        let columns = [
            ("benchmark", false),
            ("range", true),
            ("no_effect", true),
            ("visible", true),
            ("course", false),
        ];
        let row = |s: &crate::report::Series| {
            let course = match s.course {
                Course::Rising => "rising",
                Course::Falling => "falling",
                Course::Flat => "flat",
                Course::Mixed => "mixed",
            };
            Ok(vec![
                Entry::plain(bench(s.benchmark.name())),
                Entry::plain(format!("{}–{}", value(s.benchmark, s.low), value(s.benchmark, s.high))),
                Entry::plain(p_value(s.p_value)),
                Entry::plain(size(s.benchmark, s.detectable)),
                Entry::plain(self.filled(&["course", course], json!({ "turns": s.turns }))?),
            ])
        };
        Ok(Table {
            caption: String::new(),
            head: self.heads(&columns)?,
            rows: effect.series.iter().map(row).collect::<Result<_, Error>>()?,
        })
    }

    /// The method of a series and what its systems share: `V2 (A5+A7, weight = 1)`.
    pub(super) fn series_name(&self, effect: &Effect) -> Result<String, Error> {
        let shared = self.shared(effect)?;
        let values = json!({ "version": effect.version, "shared": shared });
        self.filled(&["note", "series"], values)
    }

    /// What the systems of a series share: `A5+A7, weight = 1`.
    fn shared(&self, effect: &Effect) -> Result<String, Error> {
        let mut parts: Vec<String> = effect.variant.iter().cloned().collect();
        for (key, value) in &effect.shared {
            let value = match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.as_f64().map_or(other.to_string(), short_number),
            };
            parts.push(format!("{} = {value}", self.setting(key)?));
        }
        Ok(parts.join(self.phrases.comma()))
    }

    /// A setting's name; those without a phrase are named by their key.
    pub(super) fn setting(&self, key: &str) -> Result<String, Error> {
        match self.phrases.table()["setting"].get(key) {
            Some(_) => self.word(&["setting", key]),
            None => Ok(key.to_owned()),
        }
    }

    /// The stages of a share: `fisher + projection`.
    pub(super) fn stages(&self, share: &Share) -> String {
        let names = &self.phrases.table()["stage"];
        let name = |stage: &Stage| {
            let key = stage.to_string();
            names[&key].as_str().unwrap_or(&key).to_owned()
        };
        share.stages.iter().map(name).collect::<Vec<_>>().join(" + ")
    }

    /// The utility adapter that charts show for reference: the only one.
    pub(super) fn only_utility(&self) -> Option<&Cell> {
        let mut all = self.report.cells.iter().filter(|c| c.kind == CellKind::Utility);
        all.next().filter(|_| all.next().is_none())
    }
}

/// A score in its unit: % or nats.
pub(super) fn value(benchmark: Benchmark, x: f64) -> String {
    if benchmark.is_share() {
        percent(x)
    } else {
        format!("{x:.3}")
    }
}

fn signed(benchmark: Benchmark, x: f64) -> String {
    if benchmark.is_share() {
        points(x)
    } else {
        format!("{x:+.3}")
    }
}

fn size(benchmark: Benchmark, x: f64) -> String {
    if x.is_finite() {
        value(benchmark, x)
    } else {
        "∞".to_owned()
    }
}

pub(super) fn interval(interval: Interval, write: impl Fn(f64) -> String) -> String {
    format!("[{}, {}]", write(interval.low), write(interval.high))
}

fn change(difference: &Difference, class: &'static str) -> Entry {
    let write = |x| signed(difference.benchmark, x);
    Entry {
        text: write(difference.value),
        note: interval(difference.interval, write),
        mark: "",
        class,
    }
}

fn rate(rate: Option<Rate>) -> Entry {
    rate.map_or(Entry::plain("–"), |rate| Entry {
        text: percent(rate.value),
        note: interval(rate.interval, percent),
        ..Entry::default()
    })
}
