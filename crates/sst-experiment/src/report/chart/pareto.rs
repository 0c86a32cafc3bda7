//! Safety against one skill: every system with the intervals of both, the goals as lines, the front marked.

use super::Chart;
use super::canvas::{Axis, Canvas, text_width};
use crate::report::{Cell, CellKind, Goals};
use sst_eval::Benchmark;
use std::collections::BTreeSet;

const HEIGHT: f64 = 300.0;
const PLOT: [f64; 4] = [46.0, 24.0, 384.0, HEIGHT - 40.0]; // left, top, right, bottom

/// The words of the chart in the report's language.
pub(in super::super) struct ParetoWords<'a> {
    pub title: &'a str,
    pub safety: &'a str,
    pub skill: &'a str,
    pub over_refusal: &'a str,
}

/// Draws the systems that have both scores; `None` where there are none.
pub(in super::super) fn pareto(
    cells: &[Cell],
    front: &BTreeSet<String>,
    goals: &Goals,
    [safety, skill]: [Benchmark; 2],
    words: &ParetoWords<'_>,
) -> Option<Chart> {
    let shown: Vec<&Cell> = cells
        .iter()
        .filter(|c| c.score(safety).is_some() && c.score(skill).is_some())
        .collect();
    if shown.is_empty() {
        return None;
    }
    let [left, top, right, bottom] = PLOT;
    let ends = |benchmark: Benchmark| {
        let of = |wanted: &dyn Fn(&Cell) -> bool| -> Vec<f64> {
            let intervals = shown
                .iter()
                .filter(|c| wanted(c))
                .map(|c| &c.scores[&benchmark].interval);
            intervals
                .flat_map(|i| [i.low, i.high])
                .chain(goals.get(&benchmark).copied())
                .collect()
        };
        let (all, core) = (of(&|_| true), of(&|c| c.is_merge() || c.kind == CellKind::Utility));
        // One system far off would press all others into a corner: it is drawn at the edge instead.
        let width = |ends: &[f64]| {
            let (low, high) = ends
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)));
            high - low
        };
        if width(&core) < 0.5 * width(&all) { core } else { all }
    };
    let x = Axis::linear(ends(safety).into_iter(), 0.1, left, right).within(-0.02, 1.02);
    let y = Axis::linear(ends(skill).into_iter(), 0.1, bottom, top).within(-0.02, 1.02);

    let versions: Vec<&str> = {
        let mut seen = Vec::new();
        for version in shown.iter().filter_map(|c| c.version.as_deref()) {
            if !seen.contains(&version) {
                seen.push(version);
            }
        }
        seen
    };
    let look = |cell: &Cell| match (cell.kind, cell.version.as_deref()) {
        (CellKind::Merge, Some(version)) => {
            let place = versions.iter().position(|v| *v == version).unwrap_or(0);
            (place, format!("s{}", place % 6))
        }
        (CellKind::Base, _) => (5, "alone".to_owned()),
        (CellKind::Safety, _) => (4, "alone".to_owned()),
        _ => (3, "alone".to_owned()),
    };

    let mut legend: Vec<(usize, String, String)> = Vec::new();
    for (place, version) in versions.iter().enumerate() {
        legend.push((place, format!("s{}", place % 6), (*version).to_owned()));
    }
    let halo = shown.iter().any(|c| c.over_refusal.is_some());
    let mut canvas = Canvas::new(HEIGHT + if legend.is_empty() && !halo { 0.0 } else { 22.0 });
    super::effect::frame(&mut canvas, PLOT, words.safety, words.skill);
    for tick in x.ticks(5) {
        canvas.text(
            "tick",
            [x.at(tick), bottom + 15.0],
            "middle",
            &format!("{:.0}", 100.0 * tick),
        );
        canvas.line("grid", [x.at(tick), top, x.at(tick), bottom]);
    }
    for tick in y.ticks(5) {
        canvas.text(
            "tick",
            [left - 5.0, y.at(tick) + 4.0],
            "end",
            &format!("{:.0}", 100.0 * tick),
        );
        canvas.line("grid", [left, y.at(tick), right, y.at(tick)]);
    }
    if let (Some(&a), Some(&b)) = (goals.get(&safety), goals.get(&skill)) {
        canvas.rect("reached", [x.at(a), top, right - x.at(a), y.at(b) - top]);
    }
    if let Some(&goal) = goals.get(&safety) {
        canvas.line("goal", [x.at(goal), top, x.at(goal), bottom]);
    }
    if let Some(&goal) = goals.get(&skill) {
        canvas.line("goal", [left, y.at(goal), right, y.at(goal)]);
    }

    // The front goes last, on top.
    let mut order = shown.clone();
    order.sort_by_key(|c| front.contains(&c.name));
    let at = |c: &Cell| [x.at(c.scores[&safety].value), y.at(c.scores[&skill].value)];
    let mut taken: Vec<[f64; 4]> = shown
        .iter()
        .map(|c| at(c))
        .map(|[px, py]| [px - 5.0, py - 5.0, px + 5.0, py + 5.0])
        .collect();
    for cell in &order {
        let [px, py] = at(cell);
        let (a, b) = (&cell.scores[&safety], &cell.scores[&skill]);
        let (shape, class) = look(cell);
        let leading = front.contains(&cell.name);
        let whisker = format!("whisker {class}{}", if leading { "" } else { " faint" });
        if x.holds(a.value) && y.holds(b.value) {
            canvas.line(&whisker, [x.at(a.interval.low), py, x.at(a.interval.high), py]);
            canvas.line(&whisker, [px, y.at(b.interval.low), px, y.at(b.interval.high)]);
        }
        if let Some(rate) = cell.over_refusal.filter(|rate| rate.value > 0.0) {
            canvas.circle("halo", [px, py], 5.0 + 14.0 * rate.value.sqrt());
        }
        let tip = format!("{}: {:.1} / {:.1}", cell.name, 100.0 * a.value, 100.0 * b.value);
        canvas.marker(
            shape,
            &format!("mark {class}{}", if leading { " front" } else { "" }),
            [px, py],
            &tip,
        );
    }
    for cell in shown.iter().filter(|c| front.contains(&c.name) || !c.is_merge()) {
        let [px, py] = at(cell);
        let (a, b) = (cell.scores[&safety].value, cell.scores[&skill].value);
        let text = if x.holds(a) && y.holds(b) {
            short(cell, &shown)
        } else {
            format!("{} ({:.0} / {:.0})", short(cell, &shown), 100.0 * a, 100.0 * b)
        };
        let width = 1.13 * text_width(&text); // bold
        let places = [
            [px + 8.0, py - 6.0],
            [px - 8.0 - width, py - 6.0],
            [px + 8.0, py + 15.0],
            [px - 8.0 - width, py + 15.0],
            [px - 0.5 * width, py - 22.0],
            [px - 0.5 * width, py + 28.0],
        ];
        let free = places.into_iter().find(|[lx, ly]| {
            let own = [*lx, ly - 10.0, lx + width, ly + 2.0];
            let inside = own[0] > left && own[2] < right && own[1] > top && own[3] < bottom;
            inside
                && !taken
                    .iter()
                    .any(|t| own[0] < t[2] && t[0] < own[2] && own[1] < t[3] && t[1] < own[3])
        });
        if let Some([lx, ly]) = free {
            canvas.text("label strong", [lx, ly], "start", &text);
            taken.push([lx, ly - 10.0, lx + width, ly + 2.0]);
        }
    }
    if halo {
        legend.push((0, "halo".to_owned(), words.over_refusal.to_owned()));
    }
    canvas.legend(HEIGHT + 12.0, &legend);
    Some(Chart {
        name: format!("pareto-{safety}-{skill}"),
        title: words.title.to_owned(),
        svg: canvas.finish(words.title),
    })
}

/// As few words as tell the system from the others of its version.
fn short(cell: &Cell, all: &[&Cell]) -> String {
    let Some(version) = cell.version.as_deref() else {
        return cell.name.clone();
    };
    let siblings = || all.iter().filter(|c| c.version == cell.version);
    let mut words = vec![version.to_owned()];
    for key in ["k", "weight", "samples"] {
        let values: BTreeSet<String> = siblings().map(|c| format!("{:?}", c.setting(key))).collect();
        if let Some(value) = cell.setting(key).filter(|_| values.len() > 1) {
            let key = match key {
                "weight" => "w",
                "samples" => "n",
                other => other,
            };
            words.push(format!("{key}={value}"));
        }
    }
    words.join(" ")
}
