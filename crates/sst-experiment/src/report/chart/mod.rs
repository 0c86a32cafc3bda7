//! Charts as SVG, coloured by the style sheet around them.
//!
//! Colours are classes, so that one chart serves light and dark pages; series differ in shape as well, for readers who
//! cannot tell colours apart. A chart is 400 units wide: at that width its text is legible on a telephone as it stands.

mod canvas;
mod curves;
mod effect;
mod forest;
mod pareto;
mod retained;

pub(super) use curves::{Curve, CurveWords, curves};
pub(super) use effect::{EffectFrame, EffectLine, effect};
pub(super) use forest::{ForestRow, forest};
pub(super) use pareto::{ParetoWords, pareto};
pub(super) use retained::retained;

use serde::Serialize;

/// A drawn chart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Chart {
    /// File name without its ending, unique in the report.
    pub name: String,
    /// What it shows, for readers who cannot see it.
    pub title: String,
    /// The `<svg>` element.
    pub svg: String,
}

/// The colours and lines of all charts.
pub(super) const STYLE: &str = include_str!("../templates/chart.css");

impl Chart {
    /// As a file of its own, its style inside.
    pub(super) fn file(&self) -> String {
        self.svg.replacen('>', &format!("><style>{STYLE}</style>"), 1) + "\n"
    }
}
