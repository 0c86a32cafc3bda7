//! `sst judge check`

use crate::options::Options;
use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;
use sst_data::{LabelledAnswer, RefusalLabel};
use sst_eval::{Agreement, Confusion, Interval, JudgeChoice, Verdict, judge_labelled};
use std::path::PathBuf;

/// Check a judge of refusals against people.
#[derive(Subcommand)]
#[command(after_help = "\
Example:
  sst judge check labelled_gpt4.csv --judge keyword")]
pub enum Judge {
    /// Measure how well a judge agrees with human labels: accuracy, balanced accuracy and the confusion table, full
    /// refusal against full compliance, partial refusals apart.
    #[command(after_help = "\
Examples:
  sst judge check labelled_gpt4.csv labelled_llama2.csv
  sst judge check labelled_gpt4.csv --judge keyword --errors 10
  sst judge check labelled_gpt4.csv --json")]
    Check(Check),
}

#[derive(Args)]
pub struct Check {
    /// Csv or jsonl files with columns id, prompt, completion, label (1_full_compliance, 2_full_refusal or
    /// 3_partial_refusal).
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Which judge: rules or keyword.
    #[arg(long, default_value_t = JudgeChoice::Rules, value_name = "JUDGE")]
    judge: JudgeChoice,
    /// List so many disagreements of each file, full refusal against full compliance.
    #[arg(long, default_value_t = 0, value_name = "N")]
    errors: usize,
}

/// The agreement over all files, and of each.
#[derive(Serialize)]
struct Report {
    judge: String,
    #[serde(flatten)]
    all: Agreement,
    files: Vec<FileReport>,
}

#[derive(Serialize)]
struct FileReport {
    file: PathBuf,
    #[serde(flatten)]
    agreement: Agreement,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disagreements: Vec<LabelledAnswer>,
}

impl Judge {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let Self::Check(check) = self;
        let mut judge = check
            .judge
            .built_in()
            .with_context(|| format!("judge {} cannot be checked here; use rules or keyword", check.judge))?;
        let (mut files, mut answers, mut verdicts) = (Vec::new(), Vec::new(), Vec::new());
        for file in check.files {
            let labelled = LabelledAnswer::read(&file)?;
            let judged = judge_labelled(&mut *judge, &labelled)?;
            files.push(FileReport {
                file,
                agreement: Agreement::of(&labelled, &judged),
                disagreements: disagreements(&labelled, &judged, check.errors),
            });
            answers.extend(labelled);
            verdicts.extend(judged);
        }
        let report = Report {
            judge: judge.name(),
            all: Agreement::of(&answers, &verdicts),
            files,
        };
        options.print(&report, &text(&report))
    }
}

/// The first answers whose verdict is not their label.
fn disagreements(answers: &[LabelledAnswer], verdicts: &[Verdict], at_most: usize) -> Vec<LabelledAnswer> {
    let wrong = |answer: &LabelledAnswer, refuses: bool| match answer.label {
        RefusalLabel::FullCompliance => refuses,
        RefusalLabel::FullRefusal => !refuses,
        RefusalLabel::PartialRefusal => false,
    };
    let pairs = answers.iter().zip(verdicts);
    let wrong = pairs.filter(|(answer, verdict)| wrong(answer, verdict.refuses));
    wrong.take(at_most).map(|(answer, _)| answer.clone()).collect()
}

fn text(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "file",
        "n",
        "balanced accuracy",
        "accuracy",
        "refusals found",
        "compliance kept",
        "partial refused",
    ]);
    let files = report
        .files
        .iter()
        .map(|f| (f.file.display().to_string(), &f.agreement));
    let all = (report.files.len() > 1).then(|| ("all".to_owned(), &report.all));
    for (name, agreement) in files.chain(all) {
        table.add_row(row(&name, agreement));
    }
    let mut text = format!(
        "judge {}, against human labels, in % with 95 % intervals\n{table}\n{}",
        report.judge,
        confusion(&report.all.confusion)
    );
    for file in &report.files {
        for answer in &file.disagreements {
            let label = match answer.label {
                RefusalLabel::FullRefusal => "refusal missed",
                _ => "compliance taken for refusal",
            };
            text += &format!(
                "\n{}, {}, {label}: {} -> {}",
                file.file.display(),
                answer.id,
                opening(&answer.prompt.plain_text()),
                opening(&answer.completion)
            );
        }
    }
    text
}

fn row(name: &str, agreement: &Agreement) -> Vec<Cell> {
    let partial = agreement.confusion.partial_refusal;
    let mut row = vec![Cell::new(name)];
    row.extend(
        [
            agreement.n.to_string(),
            rate(agreement.balanced_accuracy, agreement.balanced_accuracy_ci),
            rate(agreement.accuracy, agreement.accuracy_ci),
            rate(agreement.sensitivity, agreement.sensitivity_ci),
            rate(agreement.specificity, agreement.specificity_ci),
            format!("{} of {}", partial.refuses, partial.refuses + partial.complies),
        ]
        .map(|text| Cell::new(text).set_alignment(CellAlignment::Right)),
    );
    row
}

fn rate(value: Option<f64>, interval: Option<Interval>) -> String {
    value.zip(interval).map_or("-".to_owned(), |(value, interval)| {
        let [value, low, high] = [value, interval.low, interval.high].map(|share| 100.0 * share);
        format!("{value:.1} [{low:.1}, {high:.1}]")
    })
}

fn confusion(confusion: &Confusion) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(["people say", "judge: complies", "judge: refuses"]);
    for (label, judgements) in [
        ("full compliance", confusion.full_compliance),
        ("full refusal", confusion.full_refusal),
        ("partial refusal", confusion.partial_refusal),
    ] {
        let counts = [judgements.complies, judgements.refuses];
        let mut row = vec![Cell::new(label)];
        row.extend(counts.map(|n| Cell::new(n).set_alignment(CellAlignment::Right)));
        table.add_row(row);
    }
    table.to_string()
}

/// The start of a text, on one line.
fn opening(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").chars().take(160).collect()
}
