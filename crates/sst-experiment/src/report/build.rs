//! A report as data.

use super::run_folder::RunFolder;
use super::study::Study;
use super::{
    Cell, CellKind, Difference, Effect, Finding, Goals, Language, NextRun, Reproduction, Sample, Selected,
    SubspaceFacts, answers, difference, finding, front, next_run, phrases::Phrases,
};
use crate::{Attribution, Error, OverSeeds};
use serde::{Deserialize, Serialize};
use sst_eval::{BENCHMARKS, Benchmark};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where a report's numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A run folder, with every item.
    Run,
    /// A table of figures.
    Study,
}

/// How a report is made.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportConfig {
    /// The language of its texts.
    pub language: Language,
    /// Goals that replace or join those of the run or study, in \[0, 1\].
    pub goals: Goals,
}

/// What a run or a study says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The language of findings and recommendations.
    pub language: Language,
    /// Its title.
    pub title: String,
    /// Where the numbers come from.
    pub source: Source,
    /// The run folder or the study's file, as it was given.
    pub path: PathBuf,
    /// The base model.
    pub model: String,
    /// What a merge should reach.
    pub goals: Goals,
    /// All systems, in their order.
    pub cells: Vec<Cell>,
    /// Names of the systems on the Pareto front.
    pub front: BTreeSet<String>,
    /// Methods against each other at the same k and weight.
    pub same_setting: Vec<Difference>,
    /// Merges against their utility adapters alone.
    pub against_utility: Vec<Difference>,
    /// Series in which one setting varies.
    pub effects: Vec<Effect>,
    /// What the projections keep.
    pub subspaces: Vec<SubspaceFacts>,
    /// The stages behind a difference, where the run folder has an attribution.
    pub attribution: Option<Attribution>,
    /// What the rules found.
    pub findings: Vec<Finding>,
    /// What to run next.
    pub next: Vec<NextRun>,
    /// What was chosen on development items, and how it did on test items; all else is about the development items then.
    pub selection: Option<Selected>,
    /// Every setting's scores over several seeds; empty where the recipe has one.
    pub seeds: Vec<OverSeeds>,
    /// The same of what each seed chose, on the test items.
    pub seeds_chosen: Vec<OverSeeds>,
    /// Answers side by side.
    pub samples: Vec<Sample>,
    /// How to repeat it.
    pub reproduction: Reproduction,
}

impl Report {
    /// Reads a run folder, or a study's file, and works out what it says.
    ///
    /// ```
    /// use sst_experiment::report::{Report, ReportConfig, Rule};
    /// let study = std::path::Path::new("../../fixtures/llama-3.1-8b-study.toml");
    /// let report = Report::read(study, &ReportConfig::default())?;
    /// let zero = report.findings.iter().find(|finding| finding.rule == Rule::SuspiciousZero).unwrap();
    /// assert_eq!(zero.cells, ["V1 k=5 w=0.5"]);
    /// # Ok::<(), sst_experiment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Artefact`], [`Error::Eval`] or [`Error::Recipe`] naming the file that is missing or malformed;
    /// [`Error::Compare`] for a run without systems, and for a goal that no system was measured against.
    pub fn read(path: &Path, config: &ReportConfig) -> Result<Self, Error> {
        let mut report = if path.is_dir() {
            Self::of_run(path, config)?
        } else {
            Self::of_study(path, config)?
        };
        let measured: BTreeSet<Benchmark> = report.cells.iter().flat_map(|c| c.scores.keys().copied()).collect();
        if let Some(benchmark) = config.goals.keys().find(|b| !measured.contains(b)) {
            let message = format!("goal {benchmark}: no system of {} was measured on it", path.display());
            return Err(Error::Compare(message));
        }
        report.goals.extend(&config.goals);
        report.goals.retain(|benchmark, _| measured.contains(benchmark));
        report.conclude()?;
        Ok(report)
    }

    fn of_study(path: &Path, config: &ReportConfig) -> Result<Self, Error> {
        let study = Study::read(path)?;
        Ok(Self {
            title: study.title,
            source: Source::Study,
            model: study.model,
            goals: study.goals,
            cells: study.cells,
            ..Self::blank(path, config, Reproduction::of_study(path)?)
        })
    }

    fn of_run(path: &Path, config: &ReportConfig) -> Result<Self, Error> {
        let run = RunFolder::read(path)?;
        let goals: Goals = BENCHMARKS
            .into_iter()
            .filter_map(|benchmark| Some((benchmark, run.results.goals.of(benchmark)?)))
            .collect();
        let attribution = path.join(crate::attribution::RESULTS_FILE);
        let attribution = attribution.exists().then(|| Attribution::read(path)).transpose()?;
        let mut ranked: Vec<&Cell> = run.cells.iter().filter(|c| c.is_merge()).collect();
        ranked.sort_by(|a, b| {
            let ((met_a, least_a), (met_b, least_b)) = (a.rank(&goals), b.rank(&goals));
            met_b.cmp(&met_a).then(least_b.total_cmp(&least_a))
        });
        let preferred: Vec<&str> = ranked.iter().map(|c| c.name.as_str()).collect();
        let samples = answers::samples(&run.cells, &run.evaluations, &preferred);
        Ok(Self {
            title: crate::step::folder_name(path),
            source: Source::Run,
            model: crate::step::folder_name(&run.results.model.path),
            samples,
            subspaces: SubspaceFacts::all(&run.results, &run.cells),
            attribution,
            goals,
            selection: Selected::of(&run),
            seeds: OverSeeds::of(&run.results.systems),
            seeds_chosen: run
                .results
                .selection
                .as_ref()
                .map(OverSeeds::of_choices)
                .unwrap_or_default(),
            cells: run.cells,
            ..Self::blank(path, config, Reproduction::of_run(path, &run.results)?)
        })
    }

    fn blank(path: &Path, config: &ReportConfig, reproduction: Reproduction) -> Self {
        Self {
            language: config.language,
            title: String::new(),
            source: Source::Study,
            path: path.to_path_buf(),
            model: String::new(),
            goals: Goals::new(),
            cells: Vec::new(),
            front: BTreeSet::new(),
            same_setting: Vec::new(),
            against_utility: Vec::new(),
            effects: Vec::new(),
            subspaces: Vec::new(),
            attribution: None,
            findings: Vec::new(),
            next: Vec::new(),
            selection: None,
            seeds: Vec::new(),
            seeds_chosen: Vec::new(),
            samples: Vec::new(),
            reproduction,
        }
    }

    /// Everything that follows from cells and goals.
    fn conclude(&mut self) -> Result<(), Error> {
        for (name, benchmark, ..) in finding::suspicious_zeros(&self.cells) {
            let cell = self.cells.iter_mut().find(|c| c.name == name);
            if let Some(score) = cell.and_then(|c| c.scores.get_mut(&benchmark)) {
                score.suspicious = true;
            }
        }
        self.front = front::front(&self.cells, &self.goals);
        if let Some(selection) = &mut self.selection {
            selection.conclude(&self.goals);
        }
        self.same_setting = difference::family(&same_setting(&self.cells));
        self.against_utility = difference::family(&against_utility(&self.cells));
        self.effects = Effect::all(&self.cells, &self.goals);
        let phrases = Phrases::of(self.language)?;
        let mut findings = finding::findings(self);
        for finding in &mut findings {
            let key = finding.rule.name();
            finding.title = phrases.text(&["finding", &key, "title"], &finding.evidence)?;
            finding.text = phrases.text(&["finding", &key, "text"], &finding.evidence)?;
        }
        let mut next = next_run::next_runs(self, &findings);
        for run in &mut next {
            run.title = phrases.text(&["next", &run.question, "title"], &run.evidence)?;
            run.text = phrases.text(&["next", &run.question, "text"], &run.evidence)?;
        }
        (self.findings, self.next) = (findings, next);
        Ok(())
    }
}

/// Merges by different methods of one variant, k and weight, whose sample counts agree as far as they are known.
fn same_setting(cells: &[Cell]) -> Vec<(&Cell, &Cell)> {
    let merges: Vec<&Cell> = cells.iter().filter(|c| c.is_merge()).collect();
    let mut pairs = Vec::new();
    for (i, first) in merges.iter().enumerate() {
        for second in &merges[i + 1..] {
            let setting = |c: &Cell| (c.variant.clone(), c.k, c.weight);
            let samples = first.samples.zip(second.samples).is_none_or(|(a, b)| a == b);
            let same = setting(first) == setting(second) && first.k.is_some() && first.weight.is_some() && samples;
            if same && first.version != second.version {
                pairs.push((*first, *second));
            }
        }
    }
    pairs
}

/// Each merge after each utility adapter of its variant.
fn against_utility(cells: &[Cell]) -> Vec<(&Cell, &Cell)> {
    let mut pairs = Vec::new();
    for merge in cells.iter().filter(|c| c.is_merge()) {
        let parts: Vec<&str> = merge
            .variant
            .as_deref()
            .unwrap_or_default()
            .split('+')
            .map(str::trim)
            .collect();
        let own = cells
            .iter()
            .filter(|c| c.kind == CellKind::Utility && parts.contains(&c.name.as_str()));
        pairs.extend(own.map(|utility| (utility, merge)));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::super::difference::tests::cell;
    use super::*;

    #[test]
    fn methods_are_paired_at_equal_settings_only() {
        let mut other_samples = cell("V2", 20, 1.0, 500, &[]);
        other_samples.samples = Some(1000);
        let mut known = cell("V1", 20, 1.0, 500, &[]);
        known.samples = Some(500);
        let cells = [
            known,
            other_samples.clone(),
            cell("V2", 20, 1.0, 500, &[]),
            cell("V2", 20, 0.8, 500, &[]),
            cell("V1", 30, 1.0, 500, &[]),
        ];
        let pairs = same_setting(&cells);
        assert_eq!(pairs.len(), 1);
        assert!(
            pairs[0].1.samples.is_none(),
            "an unknown count may be the same, another one is not"
        );
    }
}
