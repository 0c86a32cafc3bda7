//! `sst data synthesise`

use crate::options::Options;
use clap::Subcommand;
use std::path::PathBuf;

/// Make data sets.
#[derive(Subcommand)]
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
}

impl Data {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let Self::Synthesise { out, seed } = self;
        sst_data::synthesise(&out, seed, &sst_data::Sizes::default())?;
        let text = format!("synthetic data of seed {seed} is in {}", out.display());
        options.print(&serde_json::json!({ "folder": out, "seed": seed }), &text)
    }
}
