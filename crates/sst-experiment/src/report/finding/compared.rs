//! Rules over scores and their differences: goals, pairs, series.

use super::{Finding, Rule, Tone};
use crate::report::{Cell, Course, Difference, Effect, Goals, Report, Verdict, difference, effect};
use serde_json::{Value, json};
use sst_eval::{Benchmark, Count, holm, two_proportions};
use std::collections::BTreeSet;

/// `split`: whether the chosen points are judged on other items.
pub(super) fn goals(cells: &[Cell], goals: &Goals, split: bool) -> Vec<Finding> {
    let merges: Vec<&Cell> = cells.iter().filter(|c| c.is_merge()).collect();
    if merges.is_empty() || goals.is_empty() {
        return Vec::new();
    }
    let side = |cell: &Cell, met: bool| -> Vec<Value> {
        let margins = cell.margins(goals).into_iter().filter(|(_, m)| (*m >= 0.0) == met);
        margins
            .map(|(b, margin)| json!({ "benchmark": b, "margin": margin }))
            .collect()
    };
    let each: Vec<Value> = merges
        .iter()
        .map(|c| json!({ "cell": c.name, "met": side(c, true), "missed": side(c, false), "all": c.meets_all(goals) }))
        .collect();
    let winners: Vec<String> = merges
        .iter()
        .filter(|c| c.meets_all(goals))
        .map(|c| c.name.clone())
        .collect();
    let tone = if winners.is_empty() { Tone::Note } else { Tone::Good };
    let evidence = json!({ "goals": goals, "winners": winners, "merges": merges.len(), "each": each });
    let mut found = vec![Finding::new(Rule::Goals, tone, winners, evidence)];

    let mut unproven = Vec::new();
    for cell in merges.iter().filter(|c| c.meets_all(goals)) {
        for (benchmark, goal) in goals {
            let Some(score) = cell.score(*benchmark).filter(|s| s.interval.low < *goal) else {
                continue;
            };
            unproven.push(json!({
                "cell": cell.name, "benchmark": benchmark, "value": score.value, "low": score.interval.low, "goal": goal,
            }));
        }
    }
    if !unproven.is_empty() {
        let names: BTreeSet<String> = unproven
            .iter()
            .filter_map(|u| u["cell"].as_str().map(str::to_owned))
            .collect();
        let evidence = json!({ "scores": unproven, "candidates": merges.len(), "split": split });
        found.push(Finding::new(Rule::GoalsUnproven, Tone::Warning, names, evidence));
    }
    found
}

/// The differences of one pair after another.
fn by_pair(differences: &[Difference]) -> Vec<Vec<&Difference>> {
    let mut pairs: Vec<Vec<&Difference>> = Vec::new();
    for difference in differences {
        let same =
            |pair: &&mut Vec<&Difference>| (&pair[0].first, &pair[0].second) == (&difference.first, &difference.second);
        match pairs.iter_mut().find(same) {
            Some(pair) => pair.push(difference),
            None => pairs.push(vec![difference]),
        }
    }
    pairs
}

pub(super) fn same_setting(differences: &[Difference]) -> Vec<Finding> {
    by_pair(differences)
        .into_iter()
        .map(|pair| {
            let (first, second) = (&pair[0].first, &pair[0].second);
            let distinct = pair.iter().filter(|d| d.is_distinct()).count();
            let identical = pair.iter().all(|d| d.verdict == Verdict::Identical);
            let suggestive: Vec<&&Difference> = pair
                .iter()
                .filter(|d| !d.is_distinct() && d.p_value < difference::LEVEL)
                .collect();
            let tone = if distinct == 0 && !identical {
                Tone::Warning
            } else {
                Tone::Note
            };
            let evidence = json!({
                "first": first, "second": second, "differences": pair, "distinct": distinct, "identical": identical,
                "suggestive": suggestive, "n": pair.iter().map(|d| d.n).min(),
            });
            Finding::new(Rule::SameSetting, tone, [first.clone(), second.clone()], evidence)
        })
        .collect()
}

/// Every difference below its own standard error: nearer than two runs of the same system usually come.
pub(super) fn equals_utility(differences: &[Difference], report: &Report) -> Vec<Finding> {
    let pairs = by_pair(differences);
    let equal: Vec<&Vec<&Difference>> = pairs
        .iter()
        .filter(|pair| pair.iter().all(|d| d.within_one_error()))
        .collect();
    let mut utilities: Vec<&String> = equal.iter().map(|pair| &pair[0].first).collect();
    utilities.sort();
    utilities.dedup();
    utilities
        .into_iter()
        .map(|utility| {
            let own: Vec<&Vec<&Difference>> = equal.iter().copied().filter(|pair| pair[0].first == *utility).collect();
            let cells: Vec<String> = own.iter().map(|pair| pair[0].second.clone()).collect();
            let missed = report.cells.iter().find(|c| c.name == *utility).map(|cell| {
                let missed = cell.margins(&report.goals).into_iter().filter(|(_, margin)| *margin < 0.0);
                missed.map(|(b, margin)| json!({ "benchmark": b, "margin": margin })).collect::<Vec<_>>()
            });
            let evidence = json!({
                "utility": utility, "missed": missed,
                "identical": own.iter().all(|pair| pair.iter().all(|d| d.verdict == Verdict::Identical)),
                "pairs": own.iter().map(|pair| json!({ "cell": pair[0].second, "differences": pair })).collect::<Vec<_>>(),
            });
            Finding::new(Rule::EqualsUtility, Tone::Warning, cells, evidence)
        })
        .collect()
}

pub(super) fn effects(effects: &[Effect]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut longest: Vec<&Effect> = effects.iter().collect();
    longest.sort_by_key(|effect| std::cmp::Reverse(effect.values.len()));
    for effect in longest {
        let corrected = holm(&effect.series.iter().map(|s| s.p_value).collect::<Vec<_>>());
        let series: Vec<Value> = effect
            .series
            .iter()
            .zip(&corrected)
            .map(|(series, p)| {
                let mut value = json!(series);
                value["p_holm"] = json!(p);
                value
            })
            .collect();
        let (seen, unseen): (Vec<Value>, Vec<Value>) = series
            .into_iter()
            .partition(|s| s["p_holm"].as_f64().is_some_and(|p| p < difference::LEVEL));
        let evidence = json!({
            "setting": effect.setting, "version": effect.version, "shared": effect.shared, "variant": effect.variant, "values": effect.values,
            "seen": seen, "unseen": unseen,
        });
        let rule = if seen.is_empty() { Rule::NoEffect } else { Rule::Effect };
        found.push(Finding::new(rule, Tone::Note, effect.cells.clone(), evidence));
        let mixed: Vec<&effect::Series> = effect.series.iter().filter(|s| s.course == Course::Mixed).collect();
        if effect.values.len() >= 4 && !mixed.is_empty() {
            let evidence = json!({
                "setting": effect.setting, "version": effect.version, "values": effect.values, "mixed": mixed,
                "of": effect.series.len(),
            });
            found.push(Finding::new(Rule::NoTrend, Tone::Note, effect.cells.clone(), evidence));
        }
        found.extend(best_not_distinct(effect));
    }
    found
}

fn best_not_distinct(effect: &Effect) -> Option<Finding> {
    let best = effect.best.as_ref()?;
    if best.differences.is_empty() || best.differences.iter().any(Difference::is_distinct) {
        return None;
    }
    let evidence = json!({
        "setting": effect.setting, "version": effect.version, "best": best.cell, "neighbours": best.neighbours,
        "differences": best.differences,
    });
    Some(Finding::new(
        Rule::BestNotDistinct,
        Tone::Warning,
        [best.cell.clone()],
        evidence,
    ))
}

/// Where a series without effect stands for one system measured many times, it is compared with the other method as one.
pub(super) fn pooled(report: &Report) -> Vec<Finding> {
    let mut found = Vec::new();
    let cell = |name: &String| report.cells.iter().find(|c| c.name == *name);
    let mut done = BTreeSet::new();
    for pair in by_pair(&report.same_setting)
        .into_iter()
        .chain(by_pair(&report.against_utility))
    {
        let (first, second) = (&pair[0].first, &pair[0].second);
        let effect = report
            .effects
            .iter()
            .find(|e| e.values.len() > 2 && e.cells.contains(second));
        let (Some(effect), Some(single)) = (effect, cell(first)) else {
            continue;
        };
        if !done.insert((first, &effect.cells)) {
            continue;
        }
        let mut benchmarks: Vec<(Benchmark, Count, sst_eval::ProportionDifference)> = Vec::new();
        for series in effect
            .series
            .iter()
            .filter(|s| s.test == "chi-square" && s.p_value >= difference::LEVEL)
        {
            let counts = effect
                .cells
                .iter()
                .filter_map(|name| cell(name)?.score(series.benchmark).map(difference::count));
            let all = counts.fold(Count { successes: 0, n: 0 }, |sum, c| Count {
                successes: sum.successes + c.successes,
                n: sum.n + c.n,
            });
            let one = single.score(series.benchmark).map(difference::count);
            if let Some(difference) = one.and_then(|one| two_proportions(all, one)) {
                benchmarks.push((series.benchmark, all, difference));
            }
        }
        let corrected = holm(&benchmarks.iter().map(|(_, _, d)| d.p_value).collect::<Vec<_>>());
        let distinct: Vec<Value> = benchmarks
            .iter()
            .zip(corrected)
            .filter(|(_, p)| *p < difference::LEVEL)
            .map(|((b, all, d), p)| {
                json!({ "benchmark": b, "value": d.difference, "interval": d.interval, "p_holm": p, "pooled": all.rate(), "n": all.n })
            })
            .collect();
        if !distinct.is_empty() {
            let evidence = json!({
                "first": first, "version": effect.version, "setting": effect.setting, "values": effect.values.len(),
                "differences": distinct, "tested": benchmarks.len(),
            });
            found.push(Finding::new(
                Rule::Pooled,
                Tone::Note,
                [first.clone(), second.clone()],
                evidence,
            ));
        }
    }
    found
}
