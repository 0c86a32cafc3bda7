//! One score over the values of one setting: a line per series with its band, the goal, the utility adapter alone.

use super::Chart;
use super::canvas::{Axis, Canvas};
use crate::report::Score;

const HEIGHT: f64 = 250.0;
const PLOT: [f64; 4] = [46.0, 24.0, 384.0, HEIGHT - 40.0];

/// One series.
pub(in super::super) struct EffectLine<'a> {
    pub name: String,
    /// Its colour and shape, the same for a method in all charts.
    pub look: usize,
    pub points: Vec<(f64, &'a Score)>,
}

/// The words and levels of the chart.
pub(in super::super) struct EffectFrame<'a> {
    pub name: String,
    pub title: &'a str,
    pub setting: &'a str,
    pub score: &'a str,
    pub goal: Option<f64>,
    pub reference: Option<(&'a str, f64)>,
}

/// Draws the series; values that span more than a decade lie on a logarithmic axis.
pub(in super::super) fn effect(lines: &[EffectLine<'_>], frame_: &EffectFrame<'_>) -> Chart {
    let [left, top, right, bottom] = PLOT;
    let mut values: Vec<f64> = lines.iter().flat_map(|l| l.points.iter().map(|(v, _)| *v)).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let (low, high) = (
        values.first().copied().unwrap_or(0.0),
        values.last().copied().unwrap_or(1.0),
    );
    let x = if low > 0.0 && high / low > 8.0 {
        Axis::log(values.iter().copied(), left, right)
    } else {
        Axis::linear(values.iter().copied(), 0.0, left, right)
    };
    let ends = lines
        .iter()
        .flat_map(|l| l.points.iter().flat_map(|(_, s)| [s.interval.low, s.interval.high]));
    let levels = frame_.goal.into_iter().chain(frame_.reference.map(|(_, level)| level));
    let y = Axis::linear(ends.chain(levels), 0.06, bottom, top).within(-0.02, f64::INFINITY);

    let mut canvas = Canvas::new(HEIGHT + 22.0);
    frame(&mut canvas, PLOT, frame_.setting, frame_.score);
    // Values too close for their numbers to stand apart go without one; the first and the last always have theirs.
    let wide = |value: &f64| 0.5 * super::canvas::text_width(&format!("{value}"));
    let begin = values.last().map_or(right, |value| x.at(*value) - wide(value));
    let mut free = f64::NEG_INFINITY;
    for (i, value) in values.iter().enumerate() {
        let (at, half) = (x.at(*value), wide(value));
        canvas.line("grid", [at, bottom, at, bottom + 3.0]);
        if i + 1 == values.len() || (at - half > free && at + half + 3.0 < begin) {
            canvas.text("tick", [at, bottom + 15.0], "middle", &format!("{value}"));
            free = at + half + 3.0;
        }
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
    for line in lines {
        let upper = line.points.iter().map(|(v, s)| [x.at(*v), y.at(s.interval.high)]);
        let lower = line.points.iter().rev().map(|(v, s)| [x.at(*v), y.at(s.interval.low)]);
        canvas.polygon(
            &format!("band s{}", line.look % 6),
            &upper.chain(lower).collect::<Vec<_>>(),
        );
    }
    if let Some(goal) = frame_.goal {
        canvas.line("goal", [left, y.at(goal), right, y.at(goal)]);
    }
    if let Some((name, level)) = frame_.reference {
        canvas.line("reference", [left, y.at(level), right, y.at(level)]);
        canvas.text("label", [right - 3.0, y.at(level) - 4.0], "end", name);
    }
    let mut legend = Vec::new();
    for line in lines {
        let class = format!("s{}", line.look % 6);
        let points: Vec<[f64; 2]> = line.points.iter().map(|(v, s)| [x.at(*v), y.at(s.value)]).collect();
        canvas.polyline(&format!("line {class}"), &points);
        for ((value, score), point) in line.points.iter().zip(&points) {
            let [a, b, c] = [score.value, score.interval.low, score.interval.high].map(|x| format!("{:.1}", 100.0 * x));
            canvas.marker(
                line.look,
                &format!("mark {class}"),
                *point,
                &format!("{} = {value}: {a} [{b}, {c}]", frame_.setting),
            );
        }
        legend.push((line.look, class, line.name.clone()));
    }
    canvas.legend(HEIGHT + 12.0, &legend);
    Chart {
        name: frame_.name.clone(),
        title: frame_.title.to_owned(),
        svg: canvas.finish(frame_.title),
    }
}

/// The axes and their names; the vertical one's stands above it, where it can be read upright.
pub(super) fn frame(canvas: &mut Canvas, [left, top, right, bottom]: [f64; 4], x: &str, y: &str) {
    canvas.line("axis", [left, bottom, right, bottom]);
    canvas.line("axis", [left, top, left, bottom]);
    canvas.text("label", [0.5 * (left + right), bottom + 32.0], "middle", x);
    canvas.text("label", [left - 6.0, top - 10.0], "start", y);
}
