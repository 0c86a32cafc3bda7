//! The report as a document: sections of tables, charts and texts, the same for every format.

mod charts;
mod fact_tables;
mod seeds;
mod selection;
mod tables;

use super::chart::Chart;
use super::phrases::{self, Phrases};
use super::{Finding, NextRun, Report, Reproduction, Sample, Source};
use crate::Error;
use serde::Serialize;
use serde_json::json;
use tables::Words;

/// A report to read.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    pub title: &'a str,
    /// Facts under the title: name and value.
    pub facts: Vec<(String, String)>,
    pub headline: Vec<&'a Finding>,
    pub sections: Vec<Section<'a>>,
    pub footer: String,
}

/// One section.
#[derive(Debug, Serialize)]
pub(super) struct Section<'a> {
    /// Its anchor.
    pub id: &'static str,
    pub title: String,
    pub intro: Vec<String>,
    pub blocks: Vec<Block<'a>>,
}

/// A part of a section.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", content = "value", rename_all = "lowercase")]
pub(super) enum Block<'a> {
    Table(Table),
    Charts(Vec<Chart>),
    Findings(&'a [Finding]),
    Next(&'a [NextRun]),
    Samples(&'a [Sample]),
    Reproduction(&'a Reproduction),
}

/// A table.
#[derive(Debug, Default, Serialize)]
pub(super) struct Table {
    pub caption: String,
    pub head: Vec<Head>,
    pub rows: Vec<Vec<Entry>>,
}

/// The head of a column.
#[derive(Debug, Serialize)]
pub(super) struct Head {
    pub text: String,
    /// Whether the column holds numbers, which stand to the right.
    pub number: bool,
}

/// One entry of a table.
#[derive(Debug, Default, Serialize)]
pub(super) struct Entry {
    pub text: String,
    /// Small print: the interval.
    pub note: String,
    /// `✓` or `✗`, or nothing.
    pub mark: &'static str,
    /// How it is coloured: `met`, `missed`, `better`, `worse`, `noise`, `front`, or nothing.
    pub class: &'static str,
}

impl Entry {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    pub(super) fn classed(text: impl Into<String>, class: &'static str) -> Self {
        Self {
            class,
            ..Self::plain(text)
        }
    }
}

/// Lays a report out.
pub(super) fn document<'a>(report: &'a Report, phrases: &'a Phrases) -> Result<Document<'a>, Error> {
    let words = Words { report, phrases };
    let mut sections = vec![results(&words)?];
    sections.extend(pareto(&words)?);
    sections.extend(selection::section_of(&words)?);
    sections.extend(seeds::section_of(&words)?);
    sections.extend(same_setting(&words)?);
    sections.extend(utility(&words)?);
    for key in ["k", "weight", "samples", "other"] {
        sections.extend(effects(&words, key)?);
    }
    sections.extend(subspace(&words)?);
    sections.extend(attribution(&words)?);
    sections.push(section(
        &words,
        "findings",
        &[],
        vec![Block::Findings(&report.findings)],
    )?);
    if !report.next.is_empty() {
        sections.push(section(&words, "next", &[], vec![Block::Next(&report.next)])?);
    }
    if !report.samples.is_empty() {
        sections.push(section(
            &words,
            "answers",
            &["answers"],
            vec![Block::Samples(&report.samples)],
        )?);
    }
    let reproduction = vec![
        Block::Reproduction(&report.reproduction),
        Block::Table(words.inputs(&report.reproduction)?),
    ];
    let intro: &[&str] = if report.source == Source::Run {
        &["reproduce"]
    } else {
        &[]
    };
    sections.push(section(&words, "reproduce", intro, reproduction)?);
    Ok(Document {
        title: &report.title,
        facts: facts(&words)?,
        headline: headline(&report.findings),
        sections,
        footer: words.filled(
            &["page", "generated"],
            json!({ "version": report.reproduction.report_version }),
        )?,
    })
}

/// The findings that a reader in a hurry needs: one of each rule, the first six.
fn headline(findings: &[Finding]) -> Vec<&Finding> {
    let mut chosen: Vec<&Finding> = Vec::new();
    for finding in findings {
        if chosen.len() < 6 && !chosen.iter().any(|c| c.rule == finding.rule) {
            chosen.push(finding);
        }
    }
    chosen
}

fn facts(words: &Words<'_>) -> Result<Vec<(String, String)>, Error> {
    let report = words.report;
    let source = match report.source {
        Source::Run => "run",
        Source::Study => "study",
    };
    let items: Vec<String> = words
        .benchmarks()
        .iter()
        .filter_map(|b| {
            let n = report.cells.iter().find_map(|c| c.scores.get(b)).map(|s| s.n)?;
            Some(format!("{} {n}", phrases::bench(b.name())))
        })
        .collect();
    let goals = if report.goals.is_empty() {
        words.word(&["page", "no_goals"])?
    } else {
        phrases::goal_words(&report.goals, words.phrases)
    };
    Ok(vec![
        (
            words.word(&["page", "sources", source])?,
            report.path.display().to_string(),
        ),
        (words.word(&["page", "model"])?, report.model.clone()),
        (words.word(&["page", "systems"])?, report.cells.len().to_string()),
        (words.word(&["page", "items"])?, items.join(words.phrases.comma())),
        (words.word(&["page", "goals"])?, goals),
    ])
}

fn section<'a>(
    words: &Words<'_>,
    id: &'static str,
    intro: &[&str],
    blocks: Vec<Block<'a>>,
) -> Result<Section<'a>, Error> {
    Ok(Section {
        id,
        title: words.word(&["section", id])?,
        intro: intro
            .iter()
            .map(|key| words.word(&["intro", key]))
            .collect::<Result<_, _>>()?,
        blocks,
    })
}

fn results<'a>(words: &Words<'_>) -> Result<Section<'a>, Error> {
    let tables = words.results()?.into_iter().map(Block::Table).collect();
    let intro: &[&str] = match words.report.source {
        Source::Study => &["results", "results_study"],
        Source::Run => &["results"],
    };
    section(words, "results", intro, tables)
}

fn pareto<'a>(words: &Words<'_>) -> Result<Option<Section<'a>>, Error> {
    let charts = charts::pareto(words, &words.report.cells, &words.report.front, "pareto")?;
    let halo = words.report.cells.iter().any(|c| c.over_refusal.is_some());
    let intro: &[&str] = if halo { &["pareto", "halo"] } else { &["pareto"] };
    (!charts.is_empty())
        .then(|| section(words, "pareto", intro, vec![Block::Charts(charts)]))
        .transpose()
}

/// How the differences of this report are tested.
fn how(words: &Words<'_>) -> &'static str {
    match words.report.source {
        Source::Run => "paired",
        Source::Study => "unpaired",
    }
}

fn same_setting<'a>(words: &Words<'_>) -> Result<Option<Section<'a>>, Error> {
    let differences = &words.report.same_setting;
    if words.report.cells.iter().filter(|c| c.is_merge()).count() < 2 {
        return Ok(None);
    }
    if differences.is_empty() {
        return section(words, "same_setting", &["none_same_setting"], Vec::new()).map(Some);
    }
    let blocks = vec![
        Block::Table(words.differences(differences)?),
        Block::Charts(charts::differences(words, differences)?),
    ];
    section(words, "same_setting", &["differences", how(words)], blocks).map(Some)
}

fn utility<'a>(words: &Words<'_>) -> Result<Option<Section<'a>>, Error> {
    let differences = &words.report.against_utility;
    if differences.is_empty() {
        return Ok(None);
    }
    let blocks = vec![Block::Table(words.changes(differences)?)];
    section(words, "utility", &["changes", how(words)], blocks).map(Some)
}

fn effects<'a>(words: &Words<'_>, key: &'static str) -> Result<Option<Section<'a>>, Error> {
    let named = ["k", "weight", "samples"];
    let own: Vec<_> = words
        .report
        .effects
        .iter()
        .filter(|e| {
            if key == "other" {
                !named.contains(&e.setting.as_str())
            } else {
                e.setting == key
            }
        })
        .collect();
    if own.is_empty() {
        let merges = words.report.cells.iter().any(|c| c.is_merge());
        let none = match key {
            "k" => "none_k",
            "weight" => "none_weight",
            "samples" => "none_samples",
            _ => return Ok(None),
        };
        return merges.then(|| section(words, key, &[none], Vec::new())).transpose();
    }
    let mut blocks = vec![Block::Charts(charts::effects(words, &own)?)];
    for effect in own {
        blocks.push(Block::Table(words.effect(effect)?));
        blocks.push(Block::Table(words.series(effect)?));
    }
    section(words, key, &["effect", how(words)], blocks).map(Some)
}

fn subspace<'a>(words: &Words<'_>) -> Result<Option<Section<'a>>, Error> {
    let facts = &words.report.subspaces;
    if facts.is_empty() {
        return Ok(None);
    }
    let curves = charts::subspace_curves(words)?;
    let intro: &[&str] = if curves.is_empty() {
        &["subspace"]
    } else {
        &["subspace", "curves"]
    };
    let charts = [charts::retained(words)?, curves].concat();
    let blocks = vec![Block::Charts(charts), Block::Table(words.subspaces(facts)?)];
    section(words, "subspace", intro, blocks).map(Some)
}

fn attribution<'a>(words: &Words<'_>) -> Result<Option<Section<'a>>, Error> {
    let Some(attribution) = &words.report.attribution else {
        return Ok(None);
    };
    let blocks = vec![
        Block::Charts(charts::attribution(words, attribution)?),
        Block::Table(words.attribution(attribution)?),
    ];
    let [first, second] = &attribution.names;
    let intro = words.filled(&["intro", "attribution"], json!({ "first": first, "second": second }))?;
    let mut section = section(words, "attribution", &[], blocks)?;
    section.intro.push(intro);
    Ok(Some(section))
}
