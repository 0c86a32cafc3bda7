//! Curves over k on logarithmic axes: spectra, and the energy that is kept.

use super::Chart;
use super::canvas::{Axis, Canvas};
use super::effect::frame;

const HEIGHT: f64 = 250.0;
const PLOT: [f64; 4] = [60.0, 24.0, 384.0, HEIGHT - 40.0]; // left, top, right, bottom

/// One curve.
pub(in super::super) struct Curve {
    pub name: String,
    /// Its colour and shape.
    pub look: usize,
    /// Whether it is what others are held against: dotted and grey.
    pub reference: bool,
    /// Its course, by x.
    pub points: Vec<(f64, f64)>,
    /// Points with a marker and what a pointer shows there.
    pub marks: Vec<(f64, f64, String)>,
}

/// The words of the chart.
pub(in super::super) struct CurveWords<'a> {
    pub name: &'a str,
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
}

/// Draws what is above 0 on both axes; `None` where nothing is.
pub(in super::super) fn curves(curves: &[Curve], words: &CurveWords<'_>) -> Option<Chart> {
    let drawn = |(x, y): (f64, f64)| x > 0.0 && y > 0.0 && x.is_finite() && y.is_finite();
    let marked = |c: &Curve| -> Vec<(f64, f64)> { c.marks.iter().map(|(x, y, _)| (*x, *y)).collect() };
    let shown: Vec<(f64, f64)> = curves
        .iter()
        .flat_map(|c| [c.points.clone(), marked(c)].concat())
        .filter(|p| drawn(*p))
        .collect();
    shown.first()?;
    let [left, top, right, bottom] = PLOT;
    let x = Axis::log(shown.iter().map(|p| p.0), left, right);
    let y = Axis::log(shown.iter().map(|p| p.1), bottom, top);
    let mut canvas = Canvas::new(HEIGHT + 22.0);
    frame(&mut canvas, PLOT, words.x, words.y);
    for tick in thinned(x.ticks(6), 6) {
        canvas.line("grid", [x.at(tick), top, x.at(tick), bottom]);
        canvas.text("tick", [x.at(tick), bottom + 15.0], "middle", &power(tick));
    }
    for tick in thinned(y.ticks(6), 6) {
        canvas.line("grid", [left, y.at(tick), right, y.at(tick)]);
        canvas.text("tick", [left - 5.0, y.at(tick) + 4.0], "end", &power(tick));
    }
    let mut legend = Vec::new();
    for curve in curves {
        let class = if curve.reference {
            "alone".to_owned()
        } else {
            format!("s{}", curve.look % 6)
        };
        let points = curve.points.iter().copied().filter(|p| drawn(*p));
        let points: Vec<[f64; 2]> = points.map(|(a, b)| [x.at(a), y.at(b)]).collect();
        let line = if curve.reference {
            "reference".to_owned()
        } else {
            format!("line {class}")
        };
        // The style of a reference is that of a straight line, which has no inside to leave empty.
        for pair in points.windows(2).filter(|_| curve.reference) {
            canvas.line(&line, [pair[0][0], pair[0][1], pair[1][0], pair[1][1]]);
        }
        if !curve.reference {
            canvas.polyline(&line, &points);
        }
        for (a, b, tip) in curve.marks.iter().filter(|(a, b, _)| drawn((*a, *b))) {
            canvas.marker(curve.look, &format!("mark {class}"), [x.at(*a), y.at(*b)], tip);
        }
        let entry = (curve.look, class, curve.name.clone());
        if !legend.contains(&entry) {
            legend.push(entry);
        }
    }
    canvas.legend(HEIGHT + 12.0, &legend);
    Some(Chart {
        name: words.name.to_owned(),
        title: words.title.to_owned(),
        svg: canvas.finish(words.title),
    })
}

/// Every so many-th of the ticks, so that at most `most` are left.
fn thinned(ticks: Vec<f64>, most: usize) -> impl Iterator<Item = f64> {
    let step = ticks.len().div_ceil(most).max(1);
    ticks.into_iter().step_by(step)
}

/// A power of ten, as short as it can be read.
fn power(x: f64) -> String {
    if (1e-2..1e5).contains(&x) {
        format!("{x}")
    } else {
        format!("{x:.0e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> CurveWords<'static> {
        CurveWords {
            name: "spectrum",
            title: "Spectrum",
            x: "rank",
            y: "eigenvalue",
        }
    }

    #[test]
    fn what_no_logarithm_reaches_is_left_out() {
        let curve = |points: &[(f64, f64)]| Curve {
            name: "V1".to_owned(),
            look: 0,
            reference: false,
            points: points.to_vec(),
            marks: vec![(20.0, 5.0, "k = 20".to_owned())],
        };
        let chart = curves(
            &[curve(&[(1.0, 1e9), (100.0, 1e-3), (200.0, 0.0), (300.0, f64::NAN)])],
            &words(),
        )
        .unwrap();
        let line = chart.svg.split("<polyline").nth(1).unwrap().split("/>").next().unwrap();
        assert_eq!(line.matches(',').count(), 2, "{line}");
        assert!(chart.svg.contains("k = 20") && !chart.svg.contains("NaN"));
        let ticks = chart.svg.matches("text-anchor=\"end\"").count();
        assert!((2..=6).contains(&ticks), "{ticks}");
        let nothing = Curve {
            marks: Vec::new(),
            ..curve(&[(0.0, 1.0), (3.0, 0.0)])
        };
        assert!(curves(&[nothing], &words()).is_none());
    }
}
