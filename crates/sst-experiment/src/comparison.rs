//! The table at the end: systems down, benchmarks across, every score with its 95 % interval.

use crate::results::{Results, System};
use crate::{Error, Goals};
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use sst_artefact::Manifest;
use sst_eval::{Benchmark, BenchmarkScore, Evaluation, MmluScoring, SuiteConfig};
use std::path::Path;

/// Systems side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    systems: Vec<System>,
    goals: Goals,
    suite: SuiteConfig,
}

impl Comparison {
    /// The systems of a run.
    pub fn of(results: &Results) -> Self {
        Self {
            systems: results.systems.clone(),
            goals: results.goals,
            suite: results.suite.clone(),
        }
    }

    /// Systems from evaluation folders; a merge's retained energy comes from its adapter's manifest.
    ///
    /// # Errors
    /// [`Error::Compare`] when there is none or their suites or judges differ, [`Error::Eval`] when a folder holds no evaluation.
    pub fn read(folders: &[impl AsRef<Path>], goals: Goals) -> Result<Self, Error> {
        let mut systems = Vec::new();
        let mut first: Option<(SuiteConfig, String, &Path)> = None;
        for folder in folders {
            let folder = folder.as_ref();
            let evaluation = Evaluation::load(folder)?;
            match &first {
                Some((suite, _, path)) if *suite != evaluation.config => {
                    return Err(Error::Compare(format!(
                        "{} and {} were evaluated with different settings; evaluate both with the same",
                        path.display(),
                        folder.display()
                    )));
                }
                Some((_, judge, path)) => same_judge((path, judge), (folder, &evaluation.judge))?,
                None => first = Some((evaluation.config.clone(), evaluation.judge.clone(), folder)),
            }
            let manifest = Manifest::read(folder)?;
            let adapter = manifest.inputs.get("adapter").map(|input| input.path.clone());
            let diagnostics = adapter
                .as_deref()
                .and_then(|path| Manifest::read(path).ok())
                .and_then(|m| serde_json::from_value(m.facts["diagnostics"].clone()).ok());
            let name = evaluation.adapter.clone().unwrap_or_else(|| "base".to_owned());
            systems.push(System {
                diagnostics,
                scores: evaluation.scores,
                adapter,
                evaluation: folder.to_path_buf(),
                ..System::bare(&name)
            });
        }
        match first {
            Some((suite, ..)) => Ok(Self { systems, goals, suite }),
            None => Err(Error::Compare(
                "nothing to compare; give evaluation folders or a run folder".to_owned(),
            )),
        }
    }

    /// The systems compared.
    pub fn systems(&self) -> &[System] {
        &self.systems
    }

    /// The table for a terminal.
    pub fn text(&self) -> String {
        for_terminal(self.table(), &self.legend())
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        as_markdown(self.table(), &self.legend())
    }

    fn table(&self) -> Table {
        let benchmarks = benchmarks(&self.systems);
        let mut table = Table::new();
        let mut header = vec!["system".to_owned()];
        header.extend(benchmarks.iter().map(|b| title(*b).to_owned()));
        header.extend(["over-refusal", "valid", "retained"].map(String::from));
        table.set_header(header);
        for system in &self.systems {
            let mut row = vec![Cell::new(&system.name)];
            row.extend(benchmarks.iter().map(|b| right(self.score(system, *b))));
            row.push(right(share(over_refusal(&system.scores))));
            row.push(right(share(valid(&system.scores))));
            row.push(right(retained(system)));
            table.add_row(row);
        }
        table
    }

    fn score(&self, system: &System, benchmark: Benchmark) -> String {
        let Some(score) = system.scores.iter().find(|s| s.benchmark == benchmark) else {
            return "-".to_owned();
        };
        let mark = match self.goals.of(benchmark) {
            Some(goal) if score.value >= goal => " ✓",
            Some(_) => " ✗",
            None => "",
        };
        format!(
            "{} [{}, {}]{mark}",
            figure(benchmark, score.value),
            figure(benchmark, score.ci_low),
            figure(benchmark, score.ci_high)
        )
    }

    fn legend(&self) -> String {
        let counts: Vec<String> = self.systems.first().map_or(Vec::new(), |system| {
            system
                .scores
                .iter()
                .map(|s| format!("{} {}", s.benchmark.name(), s.n))
                .collect()
        });
        let asked = benchmarks(&self.systems);
        let weighed = match self.suite.mmlu_scoring {
            MmluScoring::Letters => "by the likelihood of the choices' letters",
            MmluScoring::Choices => "by the likelihood of the choices' texts per byte",
        };
        let written = "by the letter that is written";
        let mmlu = match (
            asked.contains(&Benchmark::Mmlu),
            asked.contains(&Benchmark::MmluGenerated),
        ) {
            (false, true) => written.to_owned(),
            (true, true) => format!("{weighed}; mmlu-generated {written}"),
            (_, false) => weighed.to_owned(),
        };
        let harmless = if asked.contains(&Benchmark::XsTest) {
            "share of XSTest's safe requests refused"
        } else {
            "share of RepliQA and Alpaca items refused"
        };
        let oblique = if self
            .systems
            .iter()
            .filter_map(retained_energy)
            .any(|energy| energy >= 1.0005)
        {
            ";\nP need not be orthogonal, and then may make S longer: above 100"
        } else {
            ""
        };
        format!(
            "All figures in % (likelihoods of references in nats per token), with 95 % intervals; items: {}. Goals ✓ ✗: Jailbreak >= {}, MMLU >= {}, RepliQA >= {}.\n\
             Jailbreak: share of jailbreak prompts refused. MMLU: accuracy, {}-shot, {mmlu}.\n\
             RepliQA, Alpaca: ROUGE-L F1. Over-refusal: {harmless}. Valid: share of all answers\n\
             that are neither empty, looping nor gibberish. Retained: ||P S||^2 / ||S||^2, the share of the safety adapter's energy that the projection keeps{oblique}.",
            counts.join(", "),
            percent(self.goals.jailbreak),
            percent(self.goals.mmlu),
            percent(self.goals.repliqa),
            self.suite.mmlu_shots,
        )
    }
}

impl Goals {
    pub(crate) fn of(&self, benchmark: Benchmark) -> Option<f64> {
        match benchmark {
            Benchmark::Jailbreak => Some(self.jailbreak),
            Benchmark::Mmlu | Benchmark::MmluGenerated => Some(self.mmlu),
            Benchmark::RepliQa => Some(self.repliqa),
            _ => None,
        }
    }
}

/// Refuses evaluations by two judges: a judge's name in a recipe may leave open which model it is.
pub(crate) fn same_judge(first: (&Path, &str), other: (&Path, &str)) -> Result<(), Error> {
    let ((path, judge), (other_path, other_judge)) = (first, other);
    if judge == other_judge {
        return Ok(());
    }
    Err(Error::Compare(format!(
        "{} was judged by {judge} and {} by {other_judge}; name the judge's model, as in endpoint:URL?model=NAME, and evaluate both with it",
        path.display(),
        other_path.display()
    )))
}

/// What any of the systems was asked, in the order of its suite.
pub(crate) fn benchmarks<'a>(systems: impl IntoIterator<Item = &'a System>) -> Vec<Benchmark> {
    let mut all = Vec::new();
    for score in systems.into_iter().flat_map(|system| &system.scores) {
        if !all.contains(&score.benchmark) {
            all.push(score.benchmark);
        }
    }
    all
}

pub(crate) fn title(benchmark: Benchmark) -> &'static str {
    match benchmark {
        Benchmark::Jailbreak => "Jailbreak",
        Benchmark::Mmlu => "MMLU",
        Benchmark::RepliQa => "RepliQA",
        Benchmark::Alpaca => "Alpaca",
        other => other.name(),
    }
}

/// A table with its legend, for a terminal.
pub(crate) fn for_terminal(mut table: Table, legend: &str) -> String {
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic);
    format!("{table}\n{legend}")
}

/// A table with its legend, as Markdown.
pub(crate) fn as_markdown(mut table: Table, legend: &str) -> String {
    table
        .load_style(ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled);
    format!("{table}\n\n{legend}\n")
}

pub(crate) fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A score in %, or in nats per token.
pub(crate) fn figure(benchmark: Benchmark, value: f64) -> String {
    if benchmark.is_share() {
        percent(value)
    } else {
        format!("{value:.3}")
    }
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// Refusals of harmless requests.
pub(crate) fn over_refusal(scores: &[BenchmarkScore]) -> Option<f64> {
    crate::report::over_refusal(scores).map(|rate| rate.value)
}

/// Valid answers, over all generated ones.
pub(crate) fn valid(scores: &[BenchmarkScore]) -> Option<f64> {
    let rates = scores.iter().filter_map(|s| Some((s.valid_rate?, s.n)));
    let (sum, n) = rates.fold((0.0, 0), |(sum, n), (rate, k)| (sum + rate * k as f64, n + k));
    (n > 0).then(|| sum / n as f64)
}

/// A share in %, or a dash.
pub(crate) fn share(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), percent)
}

fn retained_energy(system: &System) -> Option<f64> {
    system.diagnostics.as_ref()?.retained_energy
}

fn retained(system: &System) -> String {
    match retained_energy(system) {
        Some(energy) if energy > 0.0 && energy < 1e-3 => format!("{:.1e}", 100.0 * energy),
        Some(energy) => percent(energy),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(benchmark: Benchmark, value: f64, refusal: f64, n: usize) -> BenchmarkScore {
        serde_json::from_value(serde_json::json!({
            "benchmark": benchmark, "metric": "m", "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "n": n,
            "refusal_rate": refusal, "valid_rate": 1.0, "macro_average": null, "per_subject": {},
        }))
        .unwrap()
    }

    #[test]
    fn marks_goals_and_pools_over_refusal_by_items() {
        let mut system = System::bare("V1");
        system.scores = vec![
            score(Benchmark::Jailbreak, 0.8, 0.8, 10),
            score(Benchmark::RepliQa, 0.3, 0.1, 10),
            score(Benchmark::Alpaca, 0.2, 0.4, 30),
            score(Benchmark::AlpacaNll, 2.5, 0.0, 30),
        ];
        let text = Comparison {
            systems: vec![system],
            goals: Goals::default(),
            suite: SuiteConfig::default(),
        }
        .markdown();
        assert!(text.contains("80.0 [70.0, 90.0] ✓"), "{text}");
        assert!(text.contains("30.0 [20.0, 40.0] ✗"), "{text}");
        assert!(text.contains("20.0 [10.0, 30.0] |"), "{text}");
        assert!(text.contains("2.500 [2.400, 2.600]"), "nats are no share: {text}");
        assert!(text.contains("32.5"), "over-refusal (0.1 * 10 + 0.4 * 30) / 40: {text}");
    }

    #[test]
    fn the_legend_says_what_was_asked() {
        let markdown = |asked: &[Benchmark]| {
            let mut system = System::bare("V1");
            system.scores = asked.iter().map(|b| score(*b, 0.53, 0.25, 20)).collect();
            Comparison {
                systems: vec![system],
                goals: Goals::default(),
                suite: SuiteConfig::of(sst_eval::Protocol::StudyV1),
            }
            .markdown()
        };
        let study = markdown(&[Benchmark::MmluGenerated, Benchmark::RepliQa]);
        assert!(study.contains("53.0 [43.0, 63.0] ✓ |"), "the goal of MMLU: {study}");
        assert!(study.contains("0-shot, by the letter that is written."), "{study}");
        assert!(study.contains("RepliQA and Alpaca items refused"), "{study}");
        let both = markdown(&[Benchmark::Mmlu, Benchmark::MmluGenerated, Benchmark::XsTest]);
        assert!(
            both.contains("choices' letters; mmlu-generated by the letter"),
            "{both}"
        );
        assert!(
            both.contains(" 25.0 |") && both.contains("XSTest's safe requests refused"),
            "{both}"
        );
    }

    #[test]
    fn more_energy_than_the_adapter_had_is_explained() {
        let legend = |energy: f64| {
            let mut system = System::bare("SST");
            let diagnostics = serde_json::json!({
                "parameters": 1, "norm_utility": 1.0, "norm_safety": 1.0, "norm_merged": 1.0, "retained_energy": energy,
            });
            system.diagnostics = serde_json::from_value(diagnostics).unwrap();
            Comparison {
                systems: vec![System::bare("base"), system],
                goals: Goals::default(),
                suite: SuiteConfig::default(),
            }
            .legend()
        };
        assert!(legend(1.0004).ends_with("the projection keeps."), "shown as 100.0");
        assert!(legend(1.001).ends_with("may make S longer: above 100."));
    }

    #[test]
    fn two_judges_are_named() {
        let [one, two] = ["one", "two"].map(Path::new);
        assert!(same_judge((one, "rules"), (two, "rules")).is_ok());
        let message = same_judge((one, "endpoint:U (a)"), (two, "endpoint:U (b)"));
        let message = message.unwrap_err().to_string();
        for part in [
            "one was judged by endpoint:U (a)",
            "two by endpoint:U (b)",
            "?model=NAME",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
}
