//! The same setting with several seeds: the mean of its scores, and from the lowest to the highest.
//!
//! Every seed has adapters, samples and random draws of its own and answers the same items, so that the range shows what of a
//! score is the setting's and what is the run's. Intervals of single scores do not know of it.

use crate::comparison::{as_markdown, benchmarks, figure, for_terminal, over_refusal, percent, right, title, valid};
use crate::recipe::without_seed;
use crate::results::System;
use crate::{Results, Selection};
use comfy_table::{Cell, Table};
use serde::Serialize;
use sst_eval::Benchmark;

/// A setting with several seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverSeeds {
    /// The name of its systems, without seeds.
    pub setting: String,
    /// The seeds, in the recipe's order.
    pub seeds: Vec<u64>,
    /// Each benchmark's scores, in the order of the suite.
    pub scores: Vec<(Benchmark, Spread)>,
    /// Share of harmless requests refused.
    pub over_refusal: Option<Spread>,
    /// Share of valid answers.
    pub valid: Option<Spread>,
}

/// Mean and range of one value per seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(values: &[f64]) -> Option<Self> {
        (!values.is_empty()).then(|| Self {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

impl OverSeeds {
    /// Every setting of a run with several seeds; empty where the recipe has one.
    pub fn of(systems: &[System]) -> Vec<Self> {
        let name = |system: &System| Some(without_seed(&system.name, system.seed?));
        group(systems.iter().filter_map(|system| Some((name(system)?, system))))
    }

    /// Every method's chosen points on the test items, whose settings may differ from seed to seed.
    pub fn of_choices(selection: &Selection) -> Vec<Self> {
        let chosen = selection.test.iter().filter_map(|system| {
            let seed = system.seed?;
            let of = |method: &&crate::MethodChoice| method.chosen == system.name;
            let method = selection.methods.iter().find(of).map(|method| {
                let variant = without_seed(&method.variant, seed);
                format!("{} {variant}", method.strategy.to_uppercase())
            });
            Some((method.unwrap_or_else(|| without_seed(&system.name, seed)), system))
        });
        group(chosen)
    }

    /// The tables of a run for a terminal; none where the recipe has one seed.
    pub fn text(results: &Results) -> Option<String> {
        joined(results, "\n\n", for_terminal)
    }

    /// The same as Markdown.
    pub fn markdown(results: &Results) -> Option<String> {
        joined(results, "\n", as_markdown)
    }

    /// Its scores on a benchmark, if it was measured there.
    pub fn score(&self, benchmark: Benchmark) -> Option<Spread> {
        let found = self.scores.iter().find(|(own, _)| *own == benchmark);
        found.map(|(_, spread)| *spread)
    }

    fn new(setting: String, systems: &[&System]) -> Self {
        let spread = |of: &dyn Fn(&System) -> Option<f64>| {
            let values: Vec<f64> = systems.iter().filter_map(|system| of(system)).collect();
            Spread::of(&values)
        };
        let scores = benchmarks(systems.iter().copied()).into_iter().filter_map(|benchmark| {
            let of = |system: &System| system.scores.iter().find(|s| s.benchmark == benchmark).map(|s| s.value);
            Some((benchmark, spread(&of)?))
        });
        Self {
            scores: scores.collect(),
            over_refusal: spread(&|system| over_refusal(&system.scores)),
            valid: spread(&|system| valid(&system.scores)),
            seeds: systems.iter().filter_map(|system| system.seed).collect(),
            setting,
        }
    }
}

fn group<'a>(named: impl Iterator<Item = (String, &'a System)>) -> Vec<OverSeeds> {
    let mut settings: Vec<(String, Vec<&System>)> = Vec::new();
    for (name, system) in named {
        match settings.iter_mut().find(|(known, _)| *known == name) {
            Some((_, systems)) => systems.push(system),
            None => settings.push((name, vec![system])),
        }
    }
    let all = settings
        .into_iter()
        .map(|(name, systems)| OverSeeds::new(name, &systems));
    all.collect()
}

fn joined(results: &Results, between: &str, show: impl Fn(Table, &str) -> String) -> Option<String> {
    let all = OverSeeds::of(&results.systems);
    let selection = results.selection.as_ref();
    let chosen = selection.map(OverSeeds::of_choices).unwrap_or_default();
    let legend = "Over seeds, in %: mean [lowest, highest] of one score per seed, on the same items.";
    let of_chosen = format!("{legend} What each seed chose, on the test items.");
    let both = [(all, legend), (chosen, of_chosen.as_str())].into_iter();
    let filled = both.filter(|(rows, _)| !rows.is_empty());
    let texts: Vec<String> = filled.map(|(rows, legend)| show(table(&rows), legend)).collect();
    (!texts.is_empty()).then(|| texts.join(between))
}

fn table(rows: &[OverSeeds]) -> Table {
    let benchmarks: Vec<Benchmark> = rows
        .first()
        .map_or(Vec::new(), |row| row.scores.iter().map(|(b, _)| *b).collect());
    let mut head = vec!["setting".to_owned(), "seeds".to_owned()];
    head.extend(benchmarks.iter().map(|benchmark| title(*benchmark).to_owned()));
    head.extend(["over-refusal", "valid"].map(String::from));
    let mut table = Table::new();
    table.set_header(head);
    let show = |spread: Option<Spread>, figure: &dyn Fn(f64) -> String| {
        right(spread.map_or("-".to_owned(), |s| {
            format!("{} [{}, {}]", figure(s.mean), figure(s.low), figure(s.high))
        }))
    };
    for row in rows {
        let mut cells = vec![Cell::new(&row.setting), right(row.seeds.len().to_string())];
        cells.extend(benchmarks.iter().map(|b| show(row.score(*b), &|x| figure(*b, x))));
        cells.extend([show(row.over_refusal, &percent), show(row.valid, &percent)]);
        table.add_row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(name: &str, seed: Option<u64>, value: f64) -> System {
        let score = serde_json::json!({
            "benchmark": "jailbreak", "metric": "refused", "value": value, "ci_low": 0.0, "ci_high": 1.0, "n": 10,
            "refusal_rate": value, "valid_rate": 1.0, "macro_average": null, "per_subject": {},
        });
        System {
            seed,
            scores: vec![serde_json::from_value(score).unwrap()],
            ..System::bare(name)
        }
    }

    #[test]
    fn a_setting_is_what_remains_without_its_seeds() {
        let systems = [
            system("base", None, 0.1),
            system("A7-seed1", Some(1), 1.0),
            system("A7-seed12", Some(12), 0.8),
            system("TIES A5-seed1+A7-seed1 n=8", Some(1), 0.5),
            system("TIES A5-seed12+A7-seed12 n=8", Some(12), 0.9),
        ];
        let found = OverSeeds::of(&systems);
        let names: Vec<&str> = found.iter().map(|row| row.setting.as_str()).collect();
        assert_eq!(names, ["A7", "TIES A5+A7 n=8"]);
        assert_eq!(found[1].seeds, [1, 12]);
        let (_, spread) = found[1].scores[0];
        assert!((spread.mean - 0.7).abs() < 1e-12);
        assert_eq!((spread.low, spread.high), (0.5, 0.9));
        assert_eq!(found[1].over_refusal, None, "no utility set was asked");
    }
}
