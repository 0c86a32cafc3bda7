//! Differences with their intervals around 0, one row each.

use super::Chart;
use super::canvas::{Axis, Canvas, WIDTH};
use sst_eval::Interval;

const ROW: f64 = 34.0;
const TOP: f64 = 8.0;

/// One difference.
pub(in super::super) struct ForestRow {
    pub label: String,
    pub value: f64,
    pub interval: Interval,
    /// `better`, `worse` or `noise`.
    pub verdict: &'static str,
    /// The smallest difference that could be seen, shaded around 0.
    pub detectable: Option<f64>,
}

/// Draws the rows in their order.
pub(in super::super) fn forest(name: &str, title: &str, axis: &str, rows: &[ForestRow]) -> Chart {
    let (left, right) = (16.0, WIDTH - 16.0);
    let bottom = TOP + ROW * rows.len() as f64;
    let ends = rows
        .iter()
        .flat_map(|r| [r.interval.low, r.interval.high, -r.interval.low, -r.interval.high]);
    let shown = rows
        .iter()
        .filter_map(|r| r.detectable)
        .filter(|d| d.is_finite())
        .flat_map(|d| [-d, d]);
    let x = Axis::linear(ends.chain(shown), 0.04, left, right);
    let mut canvas = Canvas::new(bottom + 38.0);
    for tick in x.ticks(6) {
        let points = 100.0 * tick;
        let text = if points.abs() < 1e-9 {
            "0".to_owned()
        } else {
            format!("{points:+.0}")
        };
        canvas.text("tick", [x.at(tick), bottom + 15.0], "middle", &text);
        canvas.line("grid", [x.at(tick), TOP, x.at(tick), bottom]);
    }
    for (i, row) in rows.iter().enumerate() {
        let y = TOP + ROW * (i as f64 + 0.72);
        if let Some(detectable) = row.detectable.filter(|d| d.is_finite()) {
            canvas.rect(
                "blind",
                [x.at(-detectable), y - 7.0, x.at(detectable) - x.at(-detectable), 14.0],
            );
        }
        let class = row.verdict;
        canvas.line(
            &format!("span {class}"),
            [x.at(row.interval.low), y, x.at(row.interval.high), y],
        );
        let tip = format!("{}: {:+.1}", row.label, 100.0 * row.value);
        canvas.marker(
            if class == "noise" { 0 } else { 3 },
            &format!("mark {class}"),
            [x.at(row.value), y],
            &tip,
        );
        canvas.text("label", [left, y - 11.0], "start", &row.label);
        canvas.text(
            "label strong",
            [right, y - 11.0],
            "end",
            &format!("{:+.1}", 100.0 * row.value),
        );
    }
    canvas.line("zero", [x.at(0.0), TOP, x.at(0.0), bottom]);
    canvas.line("axis", [left, bottom, right, bottom]);
    canvas.text("label", [0.5 * (left + right), bottom + 32.0], "middle", axis);
    Chart {
        name: name.to_owned(),
        title: title.to_owned(),
        svg: canvas.finish(title),
    }
}
