//! The report: what a run folder or a published table says, with tests, charts and findings, in two languages.
//!
//! [`Report::read`] builds plain data; [`Report::write`] renders it as `report.md`, one self-contained `report.html`, its
//! charts as SVG files, and `report.json`. All texts come from one table of phrases per language, all numbers from the
//! data: reports in two languages differ in nothing else.
//!
//! Every difference that a table shows has an interval and a test, and Holm's correction over that table. Findings are
//! small rules over the same numbers ([`Rule`]).

mod answers;
mod build;
mod cell;
mod chart;
mod difference;
mod effect;
mod finding;
mod front;
mod goals;
mod next_run;
mod phrases;
mod render;
mod reproduce;
mod run_folder;
mod selected;
mod study;
mod subspace_facts;
mod view;

pub use answers::{Answer, Piece, Sample};
pub use build::{Report, ReportConfig, Source};
pub use cell::{Cell, CellKind, Rate, Score};
pub use difference::{Difference, Test, Verdict};
pub use effect::{Best, Course, Effect, Series};
pub use finding::{Finding, Rule, Tone};
pub use goals::{Goals, parse_goal};
pub use next_run::NextRun;
pub use phrases::Language;
pub use render::Written;
pub use reproduce::Reproduction;
pub(crate) use run_folder::over_refusal;
pub use selected::{Chosen, ChosenAxis, Gap, Selected};
pub use subspace_facts::SubspaceFacts;
