//! The effect of one setting: systems that differ in nothing else, in the order of the setting.

use super::{Cell, Difference, Goals, difference};
use serde::Serialize;
use serde_json::Value;
use sst_eval::{Benchmark, detectable_proportion_difference, homogeneity};
use std::collections::{BTreeMap, BTreeSet};

/// Systems that differ in one setting alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    /// `k`, `weight`, `samples` or another setting.
    pub setting: String,
    /// The method.
    pub version: String,
    /// The adapters merged.
    pub variant: Option<String>,
    /// The settings that the systems share, by key.
    pub shared: BTreeMap<String, Value>,
    /// The values, ascending.
    pub values: Vec<f64>,
    /// The systems' names, one per value.
    pub cells: Vec<String>,
    /// Every system less that of the smallest value.
    pub differences: Vec<Difference>,
    /// Each benchmark over the whole series.
    pub series: Vec<Series>,
    /// The preferred system against those beside it, on the goals' benchmarks.
    pub best: Option<Best>,
}

/// The preferred system of a series: most goals met, then the largest smallest margin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Best {
    /// Its name.
    pub cell: String,
    /// The systems beside it.
    pub neighbours: Vec<String>,
    /// It less each of them.
    pub differences: Vec<Difference>,
}

/// One benchmark over a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Which benchmark.
    pub benchmark: Benchmark,
    /// Smallest score.
    pub low: f64,
    /// Largest score.
    pub high: f64,
    /// p-value of no effect at all; see [`Series::test`].
    pub p_value: f64,
    /// `chi-square` of one common rate, or `holm`: the smallest corrected p-value of the paired differences.
    pub test: String,
    /// The smallest difference of two of its systems that is seen in four trials of five.
    pub detectable: f64,
    /// How it goes: `rising`, `falling`, `flat`, or `mixed` where it turns.
    pub course: Course,
    /// How often it changes its direction.
    pub turns: usize,
    /// Number of items per system.
    pub n: usize,
}

/// The direction of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Course {
    /// Never down.
    Rising,
    /// Never up.
    Falling,
    /// All the same.
    Flat,
    /// Up and down.
    Mixed,
}

impl Effect {
    /// Every series of two systems or more in which one numeric setting varies and nothing else.
    pub(super) fn all(cells: &[Cell], goals: &Goals) -> Vec<Self> {
        let merges: Vec<&Cell> = cells.iter().filter(|c| c.is_merge()).collect();
        let mut keys: Vec<String> = ["k", "weight", "samples"].map(String::from).to_vec();
        let others: BTreeSet<&String> = merges.iter().flat_map(|c| c.settings.keys()).collect();
        keys.extend(others.into_iter().cloned());
        let mut effects = Vec::new();
        for key in keys {
            let mut groups: Vec<(String, Vec<(f64, &Cell)>)> = Vec::new();
            for cell in &merges {
                let Some(value) = cell.setting(&key).and_then(|v| v.as_f64()) else {
                    continue;
                };
                let rest = cell.without(&key);
                match groups.iter_mut().find(|(shared, _)| *shared == rest) {
                    Some((_, group)) => group.push((value, cell)),
                    None => groups.push((rest, vec![(value, cell)])),
                }
            }
            for (_, mut group) in groups {
                group.sort_by(|a, b| a.0.total_cmp(&b.0));
                if group.len() > 1 {
                    effects.push(Self::of(&key, &group, goals));
                }
            }
        }
        effects
    }

    fn of(key: &str, group: &[(f64, &Cell)], goals: &Goals) -> Self {
        let cells: Vec<&Cell> = group.iter().map(|(_, cell)| *cell).collect();
        let first = cells[0];
        let pairs: Vec<(&Cell, &Cell)> = cells[1..].iter().map(|cell| (first, *cell)).collect();
        let differences = difference::family(&pairs);
        let benchmarks: BTreeSet<Benchmark> = cells.iter().flat_map(|c| c.scores.keys().copied()).collect();
        Self {
            setting: key.to_owned(),
            version: first.version.clone().unwrap_or_default(),
            variant: first.variant.clone(),
            shared: shared(first, key),
            values: group.iter().map(|(value, _)| *value).collect(),
            series: benchmarks
                .into_iter()
                .filter_map(|benchmark| Series::of(benchmark, &cells, &differences))
                .collect(),
            best: Best::of(&cells, goals),
            cells: cells.iter().map(|c| c.name.clone()).collect(),
            differences,
        }
    }
}

impl Best {
    fn of(cells: &[&Cell], goals: &Goals) -> Option<Self> {
        let better = |a: (usize, f64), b: (usize, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
        let measured = cells.iter().enumerate().filter(|(_, c)| !c.margins(goals).is_empty());
        // The first of equals: `max_by` would take the last.
        let (place, cell) = measured.rev().max_by(|a, b| better(a.1.rank(goals), b.1.rank(goals)))?;
        let beside: Vec<&Cell> = [place.checked_sub(1), Some(place + 1)]
            .into_iter()
            .flatten()
            .filter_map(|i| cells.get(i).copied())
            .collect();
        let pairs: Vec<(&Cell, &Cell)> = beside.iter().map(|neighbour| (*neighbour, *cell)).collect();
        Some(Self {
            cell: cell.name.clone(),
            neighbours: beside.iter().map(|c| c.name.clone()).collect(),
            differences: difference::family_on(&pairs, |benchmark| goals.contains_key(&benchmark)),
        })
    }
}

impl Series {
    fn of(benchmark: Benchmark, cells: &[&Cell], differences: &[Difference]) -> Option<Self> {
        let scores: Vec<_> = cells.iter().map(|c| c.score(benchmark)).collect::<Option<_>>()?;
        let own: Vec<&Difference> = differences.iter().filter(|d| d.benchmark == benchmark).collect();
        let paired = scores.iter().all(|s| !s.items.is_empty());
        let values: Vec<f64> = scores.iter().map(|s| s.value).collect();
        let (low, high) = (min(&values), values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        let n = scores.iter().map(|s| s.n).min()?;
        let (p_value, detectable) = if paired {
            // Holm over this benchmark alone; valid for the hypothesis that no system differs from the first.
            let p_values: Vec<f64> = own.iter().map(|d| d.p_value).collect();
            let sensitivity = own.iter().map(|d| d.detectable).fold(0.0, f64::max);
            (min(&sst_eval::holm(&p_values)), sensitivity)
        } else {
            let counts: Vec<_> = scores.iter().map(|s| difference::count(s)).collect();
            let middle = sst_eval::mean(&values);
            (
                homogeneity(&counts)?.p_value,
                detectable_proportion_difference(middle, n),
            )
        };
        let steps: Vec<f64> = values
            .windows(2)
            .map(|w| w[1] - w[0])
            .filter(|step| *step != 0.0)
            .collect();
        let turns = steps.windows(2).filter(|w| w[0] * w[1] < 0.0).count();
        let course = match steps.first() {
            None => Course::Flat,
            Some(_) if turns > 0 => Course::Mixed,
            Some(step) if *step > 0.0 => Course::Rising,
            Some(_) => Course::Falling,
        };
        Some(Self {
            benchmark,
            low,
            high,
            p_value,
            test: if paired { "holm" } else { "chi-square" }.to_owned(),
            detectable,
            course,
            turns,
            n,
        })
    }
}

fn min(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The settings that all systems of a series have in common.
fn shared(cell: &Cell, key: &str) -> BTreeMap<String, Value> {
    let named = ["k", "weight", "samples"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), cell.setting(name)?)));
    let others = cell.settings.iter().map(|(name, value)| (name.clone(), value.clone()));
    named.chain(others).filter(|(name, _)| name != key).collect()
}

/// Versions that were run at several weights but never at two while all else stayed: name, and what else moved.
pub(super) fn confounded(cells: &[Cell], effects: &[Effect], setting: &str) -> Vec<(String, Vec<String>)> {
    let mut versions: BTreeMap<&str, Vec<&Cell>> = BTreeMap::new();
    for cell in cells.iter().filter(|c| c.is_merge()) {
        versions
            .entry(cell.version.as_deref().unwrap_or_default())
            .or_default()
            .push(cell);
    }
    let several = |cells: &[&Cell], key: &str| {
        let values: BTreeSet<String> = cells.iter().filter_map(|c| Some(c.setting(key)?.to_string())).collect();
        values.len() > 1
    };
    versions
        .into_iter()
        .filter(|(version, cells)| {
            several(cells, setting) && !effects.iter().any(|e| e.setting == setting && e.version == *version)
        })
        .map(|(version, cells)| {
            let moved = ["k", "weight", "samples"]
                .into_iter()
                .filter(|key| *key != setting && several(&cells, key));
            (version.to_owned(), moved.map(String::from).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::difference::tests::cell;
    use super::*;

    #[test]
    fn a_series_holds_everything_else_fixed() {
        let of = |k, w, x| cell("V1", k, w, 500, &[(Benchmark::Jailbreak, x)]);
        let cells = [
            of(20, 1.0, 0.776),
            of(3, 1.0, 0.758),
            of(5, 0.5, 0.574),
            of(10, 0.8, 0.706),
        ];
        let effects = Effect::all(&cells, &Goals::new());
        assert_eq!(effects.len(), 1, "only k = 3 and 20 share their weight");
        assert_eq!(
            (effects[0].setting.as_str(), effects[0].values.as_slice()),
            ("k", [3.0, 20.0].as_slice())
        );
        assert_eq!(effects[0].series[0].course, Course::Rising);
        assert_eq!(
            confounded(&cells, &effects, "weight"),
            [("V1".to_owned(), vec!["k".to_owned()])]
        );
        assert!(confounded(&cells, &effects, "k").is_empty());
    }

    #[test]
    fn the_best_point_is_corrected_over_the_goals_alone() {
        let of = |k, safety| {
            let shares = [(Benchmark::Jailbreak, safety), (Benchmark::Alpaca, 0.5)];
            cell("V1", k, 1.0, 500, &shares)
        };
        let cells = [of(3, 0.7), of(5, 0.76)];
        let effects = Effect::all(&cells, &Goals::from([(Benchmark::Jailbreak, 0.77)]));
        let best = effects[0].best.as_ref().unwrap();
        assert_eq!((best.cell.as_str(), best.differences.len()), ("V1 k=5 w=1.0", 1));
        assert_eq!(best.differences[0].p_holm, best.differences[0].p_value);
    }

    #[test]
    fn the_study_s_series_of_k_is_one_rate() {
        let jailbreak = [0.748, 0.782, 0.782, 0.766, 0.766, 0.774, 0.774, 0.736];
        let ks = [10, 20, 30, 50, 70, 100, 150, 200];
        let cells: Vec<Cell> = ks
            .iter()
            .zip(jailbreak)
            .map(|(k, x)| cell("V2", *k, 1.0, 500, &[(Benchmark::Jailbreak, x)]))
            .collect();
        let series = &Effect::all(&cells, &Goals::new())[0].series[0];
        assert!(series.p_value > 0.5 && series.test == "chi-square", "{series:?}");
        assert!((0.07..0.09).contains(&series.detectable), "{}", series.detectable);
        assert_eq!(
            (series.course, series.turns, series.low, series.high),
            (Course::Mixed, 3, 0.736, 0.782)
        );
    }
}
