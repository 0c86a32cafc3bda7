//! `sst inspect`

use crate::options::Options;
use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use sst_artefact::Manifest;
use sst_subspace::inspect::{Alike, BasisSummary, Contents, FisherSummary, Inspection, Share, alike, inspect};
use sst_subspace::{Spectrum, SubspaceAngles};
use std::path::{Path, PathBuf};

/// Characters of a setting or fact that are shown.
const SHOWN: usize = 100;
/// Digits of a hash that are shown.
const SHORT_HASH: usize = 12;

/// Show what is inside artefact folders: settings, inputs, spectra, and where the mass lies.
///
/// Kronecker-factored Fishers take a while: every factor is decomposed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  sst inspect runs/fisher-A5 runs/subspace
  sst inspect runs/fisher-A5 --against runs/fisher-A7
  sst inspect runs/subspace --against runs/subspace-other --json")]
pub struct Inspect {
    /// Folders of adapters, Fishers, shards, bases, evaluations: anything with a manifest.
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Compare each folder with this one: cosines of Fishers of one family, principal angles of bases of one kind.
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
}

#[derive(serde::Serialize)]
struct Entry {
    folder: PathBuf,
    #[serde(flatten)]
    inspection: Inspection,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Alike>,
}

impl Inspect {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let (mut entries, mut texts) = (Vec::new(), Vec::new());
        for folder in self.folders {
            let inspection = with_progress(options, &folder, |progress| inspect(&folder, progress))?;
            let mut text = text(&folder, &inspection);
            let against = match &self.against {
                Some(other) => {
                    let result = with_progress(options, other, |progress| alike(&folder, other, progress))?;
                    text += &format!("\n\nAgainst {}\n{}", other.display(), against_text(&result));
                    Some(result)
                }
                None => None,
            };
            texts.push(text);
            entries.push(Entry {
                folder,
                inspection,
                against,
            });
        }
        options.print(&entries, &texts.join("\n\n"))
    }
}

fn with_progress<T>(
    options: &Options,
    folder: &Path,
    run: impl FnOnce(&mut dyn FnMut(usize, usize)) -> Result<T, sst_subspace::Error>,
) -> anyhow::Result<T> {
    let mut reporter = options.reporter();
    let (mut started, mut modules) = (false, 0);
    let value = run(&mut |done, total| {
        if !std::mem::replace(&mut started, true) {
            reporter.start(&format!("reading {}", folder.display()), total);
        }
        reporter.advance(done, total, "modules");
        modules = total;
    })?;
    if started {
        reporter.finish(&format!("{modules} modules"));
    }
    Ok(value)
}

fn text(folder: &Path, inspection: &Inspection) -> String {
    let mut parts = vec![manifest(folder, &inspection.manifest)];
    match &inspection.contents {
        Some(Contents::Fisher(fisher)) => parts.push(fisher_text(fisher)),
        Some(Contents::Basis(basis)) => parts.push(basis_text(basis)),
        Some(Contents::Shard(shard)) => parts.push(format!(
            "Shard {}: {} of {} batches, {} samples (of the run's {})",
            shard.shard, shard.batches_done, shard.batches, shard.samples, shard.total_samples
        )),
        None => {}
    }
    parts.join("\n")
}

fn manifest(folder: &Path, manifest: &Manifest) -> String {
    let mut table = table(&["", "key", "value"]);
    for (title, value) in [("setting", &manifest.config), ("fact", &manifest.facts)] {
        match value.as_object() {
            Some(fields) => fields.iter().for_each(|(key, value)| {
                table.add_row([title, key, &short(value)]);
            }),
            None if value.is_null() => {}
            None => {
                table.add_row([title, "", &short(value)]);
            }
        }
    }
    for (role, input) in &manifest.inputs {
        let hash = input.sha256.get(..SHORT_HASH).unwrap_or(&input.sha256);
        table.add_row(["input", role, &format!("{} ({hash})", input.path.display())]);
    }
    format!(
        "{}: {}, written by version {}\n{table}",
        folder.display(),
        manifest.kind,
        manifest.tool_version
    )
}

/// A JSON value on one line, cut where it is long.
fn short(value: &serde_json::Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

fn fisher_text(fisher: &FisherSummary) -> String {
    let rank = |rank: Option<f64>| rank.map_or("none".to_owned(), |rank| format!("{rank:.1}"));
    let mut text = format!(
        "Trace {:.4e} over {} dimensions; effective rank {} (entropy), {} (participation)",
        fisher.spectrum.trace,
        fisher.parameters,
        rank(fisher.effective_rank),
        rank(fisher.participation_ratio),
    );
    if let Some(share) = fisher.share_below_ridge {
        text += &format!("; {:.1} % of the entries below the ridge", 100.0 * share);
    }
    text += &format!("\n{}", spectrum(&fisher.spectrum));
    for (title, shares) in [("modules", &fisher.kinds), ("layer", &fisher.layers)] {
        if !shares.is_empty() {
            text += &format!("\n{}", share_table(title, shares));
        }
    }
    text
}

fn share_table(title: &str, shares: &[Share]) -> Table {
    let mut table = table(&[title, "dimensions", "trace", "share"]);
    for share in shares {
        table.add_row([
            Cell::new(&share.name),
            right(share.parameters.to_string()),
            right(format!("{:.3e}", share.trace)),
            right(format!("{:.1} %", 100.0 * share.share)),
        ]);
    }
    table
}

fn basis_text(basis: &BasisSummary) -> String {
    let mut table = table(&["module", "directions"]);
    for module in &basis.modules {
        table.add_row([Cell::new(&module.module), right(module.count.to_string())]);
    }
    format!("{} directions\n{}\n{table}", basis.k, spectrum(&basis.spectrum))
}

fn spectrum(spectrum: &Spectrum) -> String {
    if spectrum.count == 0 {
        return "No eigenvalues".to_owned();
    }
    let list = |values: &[f64]| values.iter().map(|x| format!("{x:.3e}")).collect::<Vec<_>>().join(" ");
    format!(
        "{} eigenvalues\n  largest   {}\n  smallest  {}",
        spectrum.count,
        list(&spectrum.head),
        list(&spectrum.tail)
    )
}

fn against_text(alike: &Alike) -> String {
    match alike {
        Alike::Fishers(fishers) => {
            let mut text = format!("Cosine {:.4}", fishers.cosine);
            if let (Some(input), Some(output)) = (fishers.input, fishers.output) {
                text += &format!("; mean over the modules: inputs A {input:.4}, output gradients G {output:.4}");
            }
            text
        }
        Alike::Bases(SubspaceAngles { angles, overlap, .. }) => {
            let degrees: Vec<String> = angles.iter().map(|x| format!("{:.1}", x.to_degrees())).collect();
            format!(
                "Overlap {overlap:.4}; principal angles in degrees: {}",
                degrees.join(" ")
            )
        }
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.to_vec());
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}
