//! `sst import`

use crate::options::Options;
use clap::Args;
use sst_adapter::{Dtype, PtImport};
use std::path::PathBuf;

/// Turn an adapter that `torch.save` wrote into a PEFT folder.
///
/// The tensors are read; code in the file is not run.
#[derive(Args)]
#[command(after_help = "\
Examples:
  sst import A5.pt --alpha 32 --out adapters/A5
  sst import A7.pt --alpha 32 --base-model meta-llama/Llama-3.1-8B-Instruct --out-dtype bf16 --out adapters/A7

The file holds the tensors alone: alpha, and --rslora where it was used, must be those of the training. Ranks and target
modules are the tensors'.")]
pub struct Import {
    /// A dictionary of tensors with PEFT's names.
    #[arg(value_name = "FILE.pt")]
    file: PathBuf,
    /// alpha of every module.
    #[arg(long)]
    alpha: f64,
    /// The adapter was trained with the scale alpha / sqrt(r) instead of alpha / r.
    #[arg(long)]
    rslora: bool,
    /// Name of the base model, for the adapter's configuration.
    #[arg(long, value_name = "MODEL")]
    base_model: Option<String>,
    /// Precision of the written adapter: f32, bf16 or f16.
    #[arg(long, default_value = "f32")]
    out_dtype: Dtype,
    /// Folder for the adapter.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Import {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let settings = PtImport {
            alpha: self.alpha,
            rslora: self.rslora,
            base_model: self.base_model,
        };
        let adapter = settings.convert(&self.file, &self.out, self.out_dtype)?;
        let (modules, parameters) = (adapter.modules.len(), adapter.layout().len());
        let text = format!(
            "{}: {modules} modules of rank {}, {parameters} parameters",
            self.out.display(),
            adapter.config.r
        );
        let summary = serde_json::json!({
            "folder": self.out, "modules": modules, "parameters": parameters, "config": adapter.config,
        });
        options.print(&summary, &text)
    }
}
