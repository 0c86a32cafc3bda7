//! How much of the safety adapter each projection keeps, beside a random one of the same k.

use super::Chart;
use super::canvas::{Canvas, WIDTH};
use crate::report::SubspaceFacts;

const ROW: f64 = 46.0;
const TOP: f64 = 6.0;

/// Two bars per merge, in its order.
pub(in super::super) fn retained(title: &str, kept: &str, random: &str, facts: &[SubspaceFacts]) -> Chart {
    let (left, right) = (16.0, WIDTH - 60.0);
    let largest = facts
        .iter()
        .flat_map(|f| [f.retained, f.random])
        .flatten()
        .filter(|x| x.is_finite())
        .fold(0.0, f64::max);
    // An oblique projection may keep more than there is.
    let full = largest.max(0.05);
    let length = |share: f64| (right - left) * share / full;
    let bottom = TOP + ROW * facts.len() as f64;
    let mut canvas = Canvas::new(bottom + 20.0);
    for (i, fact) in facts.iter().enumerate() {
        let y = TOP + ROW * i as f64;
        canvas.text("label", [left + 4.0, y + 13.0], "start", &fact.cell);
        for (j, (share, class)) in [(fact.retained, "s0"), (fact.random, "alone")].into_iter().enumerate() {
            let Some(share) = share.filter(|x| x.is_finite()) else {
                continue;
            };
            let top = y + 18.0 + 13.0 * j as f64;
            canvas.rect(&format!("mark {class}"), [left, top, length(share), 10.0]);
            canvas.text(
                "tick",
                [left + length(share) + 5.0, top + 9.0],
                "start",
                &share_text(share),
            );
        }
    }
    canvas.line("axis", [left, TOP, left, bottom]);
    let entries = [
        (1, "mark s0".to_owned(), kept.to_owned()),
        (1, "mark alone".to_owned(), random.to_owned()),
    ];
    canvas.legend(bottom + 14.0, &entries);
    Chart {
        name: "retained".to_owned(),
        title: title.to_owned(),
        svg: canvas.finish(title),
    }
}

/// Per cent; what a tenth does not show, in powers of ten.
fn share_text(share: f64) -> String {
    if share > 0.0 && share < 1e-3 {
        format!("{:.0e} %", 100.0 * share)
    } else {
        format!("{:.1} %", 100.0 * share)
    }
}
