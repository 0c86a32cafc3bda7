//! `sst report`

use crate::options::Options;
use clap::{Args, ValueEnum};
use serde::Serialize;
use sst_eval::Benchmark;
use sst_experiment::report::{Language, Report as Document, ReportConfig, Written, parse_goal};
use std::path::{Path, PathBuf};

/// Write the report of a run, or of a study's figures: tables, tests, charts, findings, what to run next.
///
/// Writes `report.html` (one file, no network), `report.md` with `charts/`, and `report.json`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  sst report runs/demo
  sst report runs/demo --lang ja --goal jailbreak=0.9 --goal repliqa=0.35
  sst report fixtures/llama-3.1-8b-study.toml --out runs/study")]
pub struct Report {
    /// A run folder of `sst sweep`, or a study's file of figures (TOML).
    #[arg(value_name = "RUN_OR_STUDY")]
    source: PathBuf,
    /// The report's folder; `report` in the run folder, or `NAME-report` here for a study.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The language of the texts.
    #[arg(long, value_enum, default_value_t = Lang::En)]
    lang: Lang,
    /// A goal that replaces or joins the run's; a score in [0, 1], or in % above 1.
    #[arg(long = "goal", value_name = "BENCHMARK=SCORE", value_parser = parse_goal)]
    goals: Vec<(Benchmark, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lang {
    /// English
    En,
    /// Japanese
    Ja,
}

/// What the command prints.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    written: Written,
    report: &'a Document,
}

impl Report {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let config = ReportConfig {
            language: match self.lang {
                Lang::En => Language::En,
                Lang::Ja => Language::Ja,
            },
            goals: self.goals.into_iter().collect(),
        };
        let report = Document::read(&self.source, &config)?;
        let out = self.out.unwrap_or_else(|| folder(&self.source));
        let written = report.write(&out, &config)?;
        let mut lines = vec![written.html.display().to_string()];
        lines.extend(report.findings.iter().map(|finding| format!("- {}", finding.title)));
        let printed = Printed {
            written,
            report: &report,
        };
        options.print(&printed, &lines.join("\n"))
    }
}

/// Where a report goes that nobody named a folder for.
fn folder(source: &Path) -> PathBuf {
    if source.is_dir() {
        source.join("report")
    } else {
        let stem = source.file_stem().unwrap_or_default().to_string_lossy();
        PathBuf::from(format!("{stem}-report"))
    }
}
