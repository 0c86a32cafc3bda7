//! Which charts a report has.

use super::tables::Words;
use crate::report::chart::{self, Chart, Curve, CurveWords, EffectFrame, EffectLine, ForestRow, ParetoWords};
use crate::report::phrases::{bench, energy, short_number};
use crate::report::{Cell, Difference, Effect, SubspaceFacts};
use crate::{Attribution, Error};
use serde_json::json;
use sst_eval::Benchmark;
use std::collections::BTreeSet;

/// Series that one chart can show and still be read.
const LINES: usize = 4;
/// Pairs of systems whose differences are drawn.
const PAIRS: usize = 4;

/// Safety against each other goal.
pub(super) fn pareto(
    words: &Words<'_>,
    cells: &[Cell],
    front: &BTreeSet<String>,
    name: &str,
) -> Result<Vec<Chart>, Error> {
    let report = words.report;
    let safety = Benchmark::Jailbreak;
    let mut charts = Vec::new();
    for &skill in report.goals.keys().filter(|b| **b != safety) {
        let names = [safety, skill].map(|b| bench(b.name()));
        let title = words.filled(&["chart", "pareto"], json!({ "safety": names[0], "skill": names[1] }))?;
        let harmless = words.word(&["chart", "harmless"])?;
        let axis = |name: &String| words.filled(&["chart", "percent"], json!({ "score": name }));
        let axis = [axis(&names[0])?, axis(&names[1])?];
        let labels = ParetoWords {
            title: &title,
            safety: &axis[0],
            skill: &axis[1],
            over_refusal: &harmless,
        };
        let chart = chart::pareto(cells, front, &report.goals, [safety, skill], &labels);
        charts.extend(chart.map(|chart| Chart {
            name: format!("{name}-{safety}-{skill}"),
            ..chart
        }));
    }
    Ok(charts)
}

/// The pairs of one table, one chart each.
pub(super) fn differences(words: &Words<'_>, differences: &[Difference]) -> Result<Vec<Chart>, Error> {
    let mut pairs: Vec<(&String, &String)> = Vec::new();
    for d in differences {
        if !pairs.contains(&(&d.first, &d.second)) {
            pairs.push((&d.first, &d.second));
        }
    }
    let axis = words.word(&["chart", "points"])?;
    let mut charts = Vec::new();
    for (i, (first, second)) in pairs.into_iter().take(PAIRS).enumerate() {
        let own = differences
            .iter()
            .filter(|d| (&d.first, &d.second) == (first, second) && d.benchmark.is_share());
        let mut rows = Vec::new();
        for d in own {
            rows.push(ForestRow {
                label: bench(d.benchmark.name()),
                value: d.value,
                interval: d.interval,
                verdict: words.verdict(d)?.class,
                detectable: Some(d.detectable),
            });
        }
        let title = format!("{second} − {first}");
        charts.push(chart::forest(&format!("same-setting-{}", i + 1), &title, &axis, &rows));
    }
    Ok(charts)
}

/// One chart per setting and benchmark, over all its series.
pub(super) fn effects(words: &Words<'_>, effects: &[&Effect]) -> Result<Vec<Chart>, Error> {
    let report = words.report;
    let settings: BTreeSet<&String> = effects.iter().map(|e| &e.setting).collect();
    let mut charts = Vec::new();
    for setting in settings {
        let mut own: Vec<&&Effect> = effects.iter().filter(|e| e.setting == *setting).collect();
        // The longest series say the most.
        own.sort_by_key(|e| std::cmp::Reverse(e.values.len()));
        let several = |e: &Effect| own.iter().filter(|other| other.version == e.version).count() > 1;
        let methods: BTreeSet<&String> = own.iter().map(|e| &e.version).collect();
        let one_each = methods.len() == own.len();
        for benchmark in words.benchmarks().into_iter().filter(|b| b.is_share()) {
            let mut lines = Vec::new();
            let series = own.iter().filter(|e| e.series.iter().any(|s| s.benchmark == benchmark));
            for (place, effect) in series.take(LINES).enumerate() {
                let points = effect.values.iter().zip(&effect.cells).filter_map(|(value, name)| {
                    let cell = report.cells.iter().find(|c| c.name == *name)?;
                    Some((*value, cell.score(benchmark)?))
                });
                let name = if several(effect) {
                    words.series_name(effect)?
                } else {
                    effect.version.clone()
                };
                lines.push(EffectLine {
                    name,
                    look: if one_each { words.method(&effect.version) } else { place },
                    points: points.collect(),
                });
            }
            lines.sort_by_key(|line| line.look);
            if lines.is_empty() {
                continue;
            }
            let (axis, score) = (words.setting(setting)?, bench(benchmark.name()));
            let title = words.filled(&["chart", "effect"], json!({ "setting": axis, "score": score }))?;
            let score = words.filled(&["chart", "percent"], json!({ "score": score }))?;
            let utility = words.only_utility();
            let alone = match utility {
                Some(cell) => words.filled(&["chart", "alone"], json!({ "name": cell.name }))?,
                None => String::new(),
            };
            let level = utility.and_then(|cell| cell.scores.get(&benchmark)).map(|s| s.value);
            charts.push(chart::effect(
                &lines,
                &EffectFrame {
                    name: format!("effect-{}-{benchmark}", setting.replace('.', "-")),
                    title: &title,
                    setting: &axis,
                    score: &score,
                    goal: report.goals.get(&benchmark).copied(),
                    reference: level.map(|level| (alone.as_str(), level)),
                },
            ));
        }
    }
    Ok(charts)
}

/// Retained energy, merge by merge.
pub(super) fn retained(words: &Words<'_>) -> Result<Vec<Chart>, Error> {
    if !words
        .report
        .subspaces
        .iter()
        .any(|facts| facts.retained.is_some_and(|share| share > 0.0))
    {
        return Ok(Vec::new());
    }
    let of = |key| words.word(&["chart", key]);
    Ok(vec![chart::retained(
        &of("retained")?,
        &of("kept")?,
        &of("random")?,
        &words.report.subspaces,
    )])
}

/// The spectra, with the smallest eigenvalue that each k keeps, and the retained energy over k.
pub(super) fn subspace_curves(words: &Words<'_>) -> Result<Vec<Chart>, Error> {
    let facts = &words.report.subspaces;
    let word = |key| words.word(&["chart", key]);
    let mut spectra: Vec<Curve> = Vec::new();
    for fact in facts.iter().filter(|fact| !fact.spectrum.is_empty()) {
        let same = |curve: &Curve| curve.points == fact.spectrum;
        let place = spectra.iter().position(same).unwrap_or(spectra.len());
        if place == spectra.len() {
            spectra.push(curve(behind(words, fact), place, fact.spectrum.clone()));
        }
        if let (Some(k), Some([_, smallest])) = (fact.k, fact.eigenvalues) {
            let tip = format!("{}: {}", fact.cell, short_number(smallest));
            spectra[place].marks.push((k as f64, smallest, tip));
        }
    }
    let mut families: Vec<(&String, Vec<&SubspaceFacts>)> = Vec::new();
    for fact in facts {
        match families.iter_mut().find(|(family, _)| **family == fact.family) {
            Some((_, own)) => own.push(fact),
            None => families.push((&fact.family, vec![fact])),
        }
    }
    let mut energies = Vec::new();
    for (place, (_, own)) in families.iter().enumerate() {
        let mut own: Vec<(f64, &SubspaceFacts)> = own.iter().filter_map(|f| Some((f.k? as f64, *f))).collect();
        own.sort_by(|a, b| a.0.total_cmp(&b.0));
        own.dedup_by_key(|(k, _)| *k);
        if own.len() < 2 {
            continue;
        }
        let mut kept = curve(without_strength(&own[0].1.cell), place, Vec::new());
        let mut random = Curve {
            reference: true,
            ..curve(word("random")?, 0, Vec::new())
        };
        for (k, fact) in own {
            kept.points.extend(fact.retained.map(|share| (k, share)));
            random.points.extend(fact.random.map(|share| (k, share)));
            let tip = |share| format!("{}: {}", fact.cell, energy(share));
            kept.marks.extend(fact.retained.map(|share| (k, share, tip(share))));
        }
        energies.extend([kept, random]);
    }
    let (spectrum, rank, eigenvalue) = (word("spectrum")?, word("rank")?, word("eigenvalue")?);
    let (kept_over_k, kept) = (word("kept_over_k")?, word("kept")?);
    let charts = [
        chart::curves(
            &spectra,
            &CurveWords {
                name: "spectrum",
                title: &spectrum,
                x: &rank,
                y: &eigenvalue,
            },
        ),
        chart::curves(
            &energies,
            &CurveWords {
                name: "retained-over-k",
                title: &kept_over_k,
                x: "k",
                y: &kept,
            },
        ),
    ];
    Ok(charts.into_iter().flatten().collect())
}

/// What a spectrum is of: the adapters and the number of samples.
fn behind(words: &Words<'_>, fact: &SubspaceFacts) -> String {
    let cell = words.report.cells.iter().find(|cell| cell.name == fact.cell);
    let variant = cell.and_then(|cell| cell.variant.clone()).unwrap_or_default();
    let samples = cell
        .and_then(|cell| cell.samples)
        .map_or(String::new(), |n| format!(" n={n}"));
    format!("{variant}{samples}")
}

/// A merge's name without its k and its weight.
fn without_strength(name: &str) -> String {
    let strength = |word: &&str| {
        ["k=", "alpha=", "weight=", "gamma="]
            .iter()
            .any(|key| word.starts_with(key))
    };
    name.split_whitespace()
        .filter(|word| !strength(word))
        .collect::<Vec<_>>()
        .join(" ")
}

fn curve(name: String, look: usize, points: Vec<(f64, f64)>) -> Curve {
    Curve {
        name,
        look,
        reference: false,
        points,
        marks: Vec::new(),
    }
}

/// The stages' shares, one chart per benchmark.
pub(super) fn attribution(words: &Words<'_>, attribution: &Attribution) -> Result<Vec<Chart>, Error> {
    let axis = words.word(&["chart", "points"])?;
    let shares = attribution.benchmarks.iter().filter(|s| s.benchmark.is_share());
    let chart = |shares: &crate::BenchmarkShares| {
        let row = |share: &crate::Share| ForestRow {
            label: if share == &shares.total {
                "B − A".to_owned()
            } else {
                words.stages(share)
            },
            value: share.value,
            interval: share.interval,
            verdict: match (
                share.is_distinct(),
                (share.value > 0.0) == shares.benchmark.higher_is_better(),
            ) {
                (true, true) => "better",
                (true, false) => "worse",
                (false, _) => "noise",
            },
            detectable: None,
        };
        let rows: Vec<ForestRow> = shares.stages.iter().chain([&shares.total]).map(row).collect();
        let name = bench(shares.benchmark.name());
        chart::forest(&format!("attribution-{}", shares.benchmark), &name, &axis, &rows)
    };
    Ok(shares.map(chart).collect())
}
