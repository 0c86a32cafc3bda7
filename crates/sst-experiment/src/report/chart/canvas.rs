//! Scales, axes, markers: what all charts are drawn with.

use std::fmt::Write;

/// Width of a chart in units.
pub(super) const WIDTH: f64 = 400.0;

/// A range of values along one side of the plot.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    from: f64, // position of `low`
    to: f64,
    log: bool,
}

impl Axis {
    /// A linear axis over the values with a margin; at least `least` wide.
    pub(super) fn linear(values: impl Iterator<Item = f64>, least: f64, from: f64, to: f64) -> Self {
        let (mut low, mut high) = extent(values);
        let short = 0.5 * (least - (high - low)).max(0.0);
        let margin = 0.05 * (high - low) + short;
        (low, high) = (low - margin, high + margin);
        Self {
            low,
            high,
            from,
            to,
            log: false,
        }
    }

    /// A logarithmic axis; values of 0 and below are left out.
    pub(super) fn log(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = extent(values.filter(|x| *x > 0.0).map(f64::log10));
        let margin = 0.05 * (high - low).max(0.5);
        Self {
            low: low - margin,
            high: high + margin,
            from,
            to,
            log: true,
        }
    }

    /// Keeps the axis inside these values.
    pub(super) fn within(mut self, low: f64, high: f64) -> Self {
        self.low = self.low.max(low);
        self.high = self.high.min(high);
        self
    }

    /// Whether the value lies on the axis.
    pub(super) fn holds(&self, value: f64) -> bool {
        let value = if self.log { value.log10() } else { value };
        (self.low..=self.high).contains(&value)
    }

    /// Where the value lies; what is off the axis, at its end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = if self.log {
            value.max(f64::MIN_POSITIVE).log10()
        } else {
            value
        };
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + share * (self.to - self.from)
    }

    /// Round values about `wanted` in number.
    pub(super) fn ticks(&self, wanted: usize) -> Vec<f64> {
        if self.log {
            let decades = (self.low.ceil() as i32..=self.high.floor() as i32).map(|e| 10f64.powi(e));
            return decades.collect();
        }
        let rough = (self.high - self.low) / wanted as f64;
        let scale = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0];
        let step = scale * steps.into_iter().find(|s| s * scale >= rough).unwrap_or(10.0);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|x| x.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

/// An SVG in the making.
pub(super) struct Canvas {
    body: String,
    height: f64,
}

impl Canvas {
    pub(super) fn new(height: f64) -> Self {
        Self {
            body: String::new(),
            height,
        }
    }

    pub(super) fn finish(self, title: &str) -> String {
        format!(
            "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">{}</svg>",
            number(self.height),
            escape(title),
            self.body
        )
    }

    pub(super) fn line(&mut self, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(number);
        self.push(format_args!(
            "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>"
        ));
    }

    pub(super) fn rect(&mut self, class: &str, [x, y, w, h]: [f64; 4]) {
        let [x, y, w, h] = [x, y, w.max(0.0), h.max(0.0)].map(number);
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"/>"
        ));
    }

    /// `anchor` is `start`, `middle` or `end`.
    pub(super) fn text(&mut self, class: &str, [x, y]: [f64; 2], anchor: &str, text: &str) {
        let ([x, y], text) = ([x, y].map(number), escape(text));
        self.push(format_args!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    pub(super) fn polyline(&mut self, class: &str, points: &[[f64; 2]]) {
        let points = path(points);
        self.push(format_args!("<polyline class=\"{class}\" points=\"{points}\"/>"));
    }

    pub(super) fn polygon(&mut self, class: &str, points: &[[f64; 2]]) {
        let points = path(points);
        self.push(format_args!("<polygon class=\"{class}\" points=\"{points}\"/>"));
    }

    pub(super) fn circle(&mut self, class: &str, [x, y]: [f64; 2], r: f64) {
        let [x, y, r] = [x, y, r].map(number);
        self.push(format_args!(
            "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{r}\"/>"
        ));
    }

    /// One of six shapes, with a tip that a pointer shows.
    pub(super) fn marker(&mut self, shape: usize, class: &str, [x, y]: [f64; 2], tip: &str) {
        let r = 4.6;
        self.push(format_args!("<g><title>{}</title>", escape(tip)));
        let around = |turns: &[f64], r: f64| -> Vec<[f64; 2]> {
            let at = |turn: &f64| {
                [
                    x + r * (turn * std::f64::consts::TAU).sin(),
                    y - r * (turn * std::f64::consts::TAU).cos(),
                ]
            };
            turns.iter().map(at).collect()
        };
        match shape % 6 {
            0 => self.circle(class, [x, y], r),
            1 => self.rect(class, [x - r, y - r, 2.0 * r, 2.0 * r]),
            2 => self.polygon(class, &around(&[0.0, 1.0 / 3.0, 2.0 / 3.0], 1.35 * r)),
            3 => self.polygon(class, &around(&[0.0, 0.25, 0.5, 0.75], 1.35 * r)),
            4 => self.polygon(class, &around(&[1.0 / 6.0, 0.5, 5.0 / 6.0], 1.35 * r)),
            _ => self.polygon(class, &around(&[0.0, 0.2, 0.4, 0.6, 0.8], 1.25 * r)),
        }
        self.push(format_args!("</g>"));
    }

    /// Names of series in a row under the plot, as many rows as they need; returns the height used.
    pub(super) fn legend(&mut self, y: f64, entries: &[(usize, String, String)]) -> f64 {
        let (mut x, mut row) = (46.0, y);
        for (shape, class, name) in entries {
            let width = 20.0 + text_width(name) + 12.0;
            if x + width > WIDTH && x > 46.0 {
                (x, row) = (46.0, row + 17.0);
            }
            self.marker(*shape, class, [x + 6.0, row - 4.0], name);
            self.text("label", [x + 16.0, row], "start", name);
            x += width;
        }
        row - y + 17.0
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.body.write_fmt(text);
    }
}

/// Units that a text takes at the charts' size, roughly: wide letters as two.
pub(super) fn text_width(text: &str) -> f64 {
    text.chars().map(|c| if c.is_ascii() { 6.8 } else { 12.5 }).sum()
}

fn path(points: &[[f64; 2]]) -> String {
    let point = |p: &[f64; 2]| format!("{},{}", number(p[0]), number(p[1]));
    points.iter().map(point).collect::<Vec<_>>().join(" ")
}

/// A tenth of a unit is finer than any screen shows; fewer digits, smaller files.
fn number(x: f64) -> String {
    let text = format!("{:.1}", if x.is_finite() { x } else { 0.0 });
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::linear([0.736, 0.782].into_iter(), 0.0, 0.0, 100.0);
        let ticks = axis.ticks(5);
        assert!((3..=6).contains(&ticks.len()), "{ticks:?}");
        for tick in ticks {
            assert!((100.0 * tick - (100.0 * tick).round()).abs() < 1e-9 && (0.0..=100.0).contains(&axis.at(tick)));
        }
        assert_eq!(
            Axis::log([1.0, 1000.0].into_iter(), 0.0, 1.0).ticks(4),
            [1.0, 10.0, 100.0, 1000.0]
        );
    }

    #[test]
    fn text_cannot_leave_its_element() {
        let mut canvas = Canvas::new(10.0);
        canvas.text("label", [0.0, f64::NAN], "start", "<b>&\"");
        let svg = canvas.finish("a \"title\"");
        assert!(svg.contains("&lt;b&gt;&amp;&quot;") && svg.contains("y=\"0\"") && svg.contains("a &quot;title&quot;"));
    }
}
