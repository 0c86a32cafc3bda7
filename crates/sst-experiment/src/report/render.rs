//! A report on disk: `report.md`, `report.html`, `charts/*.svg`, `report.json`, and a manifest.

use super::chart::STYLE;
use super::phrases::{Phrases, fault};
use super::view::{Block, Document, document};
use super::{Report, ReportConfig};
use crate::Error;
use minijinja::context;
use minijinja::value::Serde;
use serde::Serialize;
use sst_artefact::{Manifest, create_dir, write_atomic, write_json};
use std::io::Write;
use std::path::{Path, PathBuf};

const HTML: &str = include_str!("templates/report.html.j2");
const MARKDOWN: &str = include_str!("templates/report.md.j2");
const PAGE_STYLE: &str = include_str!("templates/page.css");

/// The files of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// The page, which needs nothing beside it.
    pub html: PathBuf,
    /// The same as Markdown, with its charts in `charts`.
    pub markdown: PathBuf,
    /// All data.
    pub json: PathBuf,
}

impl Report {
    /// Writes the report into a folder; a report that is there is replaced.
    ///
    /// # Errors
    /// [`Error::Artefact`] naming the file that cannot be written.
    pub fn write(&self, folder: &Path, config: &ReportConfig) -> Result<Written, Error> {
        let phrases = Phrases::of(self.language)?;
        let document = document(self, &phrases)?;
        let pages = [
            ("report.html", HTML, "report.html"),
            ("report.md", MARKDOWN, "report.md"),
        ]
        .map(|(name, template, file)| page(&phrases, &document, name, template).map(|text| (folder.join(file), text)));
        let (json, drawn) = (folder.join("report.json"), folder.join("charts"));
        if json.exists() && drawn.exists() {
            // An earlier report may have drawn what this one does not.
            std::fs::remove_dir_all(&drawn).map_err(sst_artefact::Error::io("remove", &drawn))?;
        }
        create_dir(&drawn)?;
        for chart in document.sections.iter().flat_map(|s| &s.blocks).flat_map(charts) {
            write_text(&drawn.join(format!("{}.svg", chart.name)), &chart.file())?;
        }
        let [html, markdown] = pages;
        let ((html, page), (markdown, text)) = (html?, markdown?);
        write_text(&html, &page)?;
        write_text(&markdown, &text)?;
        write_json(&json, self)?;
        let mut manifest = Manifest::new("report", config);
        manifest.inputs = self.reproduction.inputs.clone();
        manifest.write(folder)?;
        Ok(Written { html, markdown, json })
    }
}

fn charts<'a>(block: &'a Block<'_>) -> &'a [super::chart::Chart] {
    match block {
        Block::Charts(charts) => charts,
        _ => &[],
    }
}

fn page(phrases: &Phrases, document: &Document<'_>, name: &str, template: &str) -> Result<String, Error> {
    let mut environment = phrases.environment()?;
    environment.add_filter("indent_code", |text: &str| {
        format!("    {}", text.replace('\n', "\n    "))
    });
    environment.add_filter("cell", |text: &str| text.replace('|', "\\|").replace('\n', " "));
    let scope =
        context! { t => Serde(phrases.table()), doc => Serde(document), style => PAGE_STYLE, chart_style => STYLE };
    environment
        .render_named_str(name, template, scope)
        .map_err(|e| fault(&format!("{name}: {e:#}")))
}

fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    Ok(write_atomic(path, |w| w.write_all(text.as_bytes()))?)
}
