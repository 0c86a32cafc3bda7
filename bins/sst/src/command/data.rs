//! `sst data`

use crate::options::Options;
use clap::{Args, Subcommand};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use sst_data::{DataFolder, ImportConfig, Imported, Leak, LeakKind, Published, SetLeakage};
use std::path::{Path, PathBuf};

/// Items of a pair of sets that are named in the table.
const NAMED: usize = 5;

/// Fetch, import, make and check data sets.
#[derive(Subcommand)]
#[command(after_help = "\
Examples:
  sst data synthesise --out runs/data
  sst data fetch repliqa --out runs/data
  sst data check runs/data")]
pub enum Data {
    /// Write synthetic data sets in the publishers' formats: fictional documents with questions, simple instructions, multiple
    /// choice, and harmless stand-ins for requests to be refused.
    #[command(after_help = "Example:\n  sst data synthesise --out runs/data --seed 0")]
    Synthesise {
        /// Folder to write to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Seed of everything in it.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Fetch a published data set from the Hugging Face Hub into a data folder: repliqa, alpaca, mmlu, beavertails, xstest,
    /// jailbreakbench or advbench. RepliQA is split by document.
    #[command(after_help = "\
Examples:
  sst data fetch repliqa --out runs/data --train 2000 --eval 500
  sst data fetch mmlu --out runs/data
  sst data fetch beavertails --repo PKU-Alignment/BeaverTails --split 30k_test --out runs/data

The hub honours HF_TOKEN, HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE.")]
    Fetch {
        /// Which set.
        set: Published,
        #[command(flatten)]
        what: What,
        /// Repository `owner/name`; the set's own if not given.
        #[arg(long, value_name = "ID")]
        repo: Option<String>,
        /// Branch, tag or commit.
        #[arg(long, default_value = "main", value_name = "REVISION")]
        revision: String,
    },
    /// Bring a local copy of a published data set, a file or a folder as downloaded, into a data folder.
    #[command(after_help = "\
Examples:
  sst data import downloads/repliqa --as repliqa --out runs/data
  sst data import harmful_behaviors.csv --as advbench --out runs/data")]
    Import {
        /// A parquet, jsonl, json or csv file (the last three also .gz), or a folder of them.
        path: PathBuf,
        /// Which set it is.
        #[arg(long = "as", value_name = "SET")]
        set: Published,
        #[command(flatten)]
        what: What,
    },
    /// Find items that are trained on and evaluated on alike: the same text, the same document, or most of its words in
    /// the same order.
    #[command(after_help = "\
Examples:
  sst data check runs/data
  sst data check runs/data --json")]
    Check {
        /// Folder of data sets.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// What to take of a published set, and where to.
#[derive(Args)]
pub struct What {
    /// The publisher's split; the set's usual one if not given.
    #[arg(long)]
    split: Option<String>,
    /// Share of the items to evaluate on, for repliqa and alpaca.
    #[arg(long, default_value_t = ImportConfig::new(Published::RepliQa).eval_share, value_name = "SHARE")]
    eval_share: f64,
    /// Items to train on at most, drawn by the seed.
    #[arg(long, value_name = "N")]
    train: Option<usize>,
    /// Items to evaluate on at most, drawn by the seed.
    #[arg(long, value_name = "N")]
    eval: Option<usize>,
    /// Seed of the split and of the draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The data folder; the set becomes a folder inside it.
    #[arg(long, default_value = "data", value_name = "DIR")]
    out: PathBuf,
}

impl What {
    fn config(&self, set: Published) -> ImportConfig {
        ImportConfig {
            set,
            split: self.split.clone(),
            eval_share: self.eval_share,
            train: self.train,
            eval: self.eval,
            seed: self.seed,
        }
    }
}

impl Data {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        match self {
            Self::Synthesise { out, seed } => {
                sst_data::synthesise(&out, seed, &sst_data::Sizes::default())?;
                let text = format!("synthetic data of seed {seed} is in {}", out.display());
                options.print(&serde_json::json!({ "folder": out, "seed": seed }), &text)
            }
            Self::Fetch {
                set,
                what,
                repo,
                revision,
            } => {
                let imported = fetch(options, repo.as_deref(), &revision, &what.config(set), &what.out)?;
                print(options, set, &imported, &what.out)
            }
            Self::Import { path, set, what } => {
                let imported = sst_data::import(&path, &what.config(set), &what.out)?;
                print(options, set, &imported, &what.out)
            }
            Self::Check { folder } => {
                let found = DataFolder::open(&folder)?.leakage_of_all()?;
                options.print(&found, &leakage(&found))
            }
        }
    }
}

#[cfg(feature = "hub")]
fn fetch(
    options: &Options,
    repo: Option<&str>,
    revision: &str,
    config: &ImportConfig,
    out: &Path,
) -> anyhow::Result<Imported> {
    let hub = sst_artefact::Hub::from_environment()?;
    Ok(sst_data::fetch(&hub, repo, revision, config, out, &mut |line| {
        if !options.json {
            eprintln!("{line}");
        }
    })?)
}

#[cfg(not(feature = "hub"))]
fn fetch(_: &Options, _: Option<&str>, _: &str, config: &ImportConfig, _: &Path) -> anyhow::Result<Imported> {
    let set = config.set;
    anyhow::bail!(
        "{set}: this build cannot reach the Hugging Face Hub (feature `hub` is off); give a local copy to `sst data import`"
    )
}

fn print(options: &Options, set: Published, imported: &Imported, out: &Path) -> anyhow::Result<()> {
    let folder = out.join(set.name());
    let rows = |prefix: &str| -> usize {
        let files = imported.rows.iter().filter(|(name, _)| name.starts_with(prefix));
        files.map(|(_, rows)| rows).sum()
    };
    let counts = match set {
        Published::Mmlu => format!("{} questions, {} worked examples", rows("test/"), rows("dev/")),
        _ if rows("train") > 0 => format!("{} items to train on, {} to evaluate on", rows("train"), rows("eval")),
        _ => format!("{} items to evaluate on", rows("")),
    };
    let blank = match imported.blank {
        0 => String::new(),
        n => format!(", {n} blank rows left out"),
    };
    let text = format!("{set} is in {}: {counts}{blank}", folder.display());
    options.print(&serde_json::json!({ "folder": folder, "imported": imported }), &text)
}

fn leakage(found: &[SetLeakage]) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["trained on", "evaluated on", "same", "much alike", "which"]);
    let mut clean = Vec::new();
    for SetLeakage {
        train_set,
        eval_set,
        leakage,
    } in found
    {
        let same = leakage.certain().count();
        if leakage.leaks.is_empty() {
            clean.push(format!("{train_set} and {eval_set}"));
            continue;
        }
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let mut named: Vec<String> = leakage.leaks.iter().take(NAMED).map(name).collect();
        if leakage.leaks.len() > NAMED {
            named.push(format!("and {} more (--json)", leakage.leaks.len() - NAMED));
        }
        table.add_row([
            Cell::new(format!("{train_set}, {} items", leakage.train)),
            Cell::new(format!("{eval_set}, {} items", leakage.eval)),
            right(same.to_string()),
            right((leakage.leaks.len() - same).to_string()),
            Cell::new(named.join("\n")),
        ]);
    }
    let mut parts = Vec::new();
    if clean.len() < found.len() {
        parts.push(table.to_string());
    }
    if !clean.is_empty() {
        parts.push(format!("Nothing in common: {}.", clean.join(", ")));
    }
    parts.join("\n")
}

fn name(leak: &Leak) -> String {
    let share = if leak.share > 0.0 && leak.share < 1.0 {
        format!(" ({:.0} %)", 100.0 * leak.share)
    } else {
        String::new()
    };
    let how = match leak.kind {
        LeakKind::Exact => "is",
        LeakKind::Near => "is much like",
        LeakKind::Document => "has the document of",
    };
    format!("{} {how} {}{share}", leak.eval, leak.train)
}
