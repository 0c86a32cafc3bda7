//! `sst bake`

use crate::options::Options;
use clap::Args;
use std::path::PathBuf;

/// Bytes of a megabyte, the unit of the progress bar.
const MB: u64 = 1_000_000;

/// Add an adapter to the weights of its base model, for programs that know no adapters.
///
/// The output folder has the model's safetensors, in the same number type, and its configuration, tokenizer and licence;
/// README.md, hidden files, subfolders and weights in other formats are left out. Memory does not grow with the
/// model. Stopped on the way, the same command goes on after the last whole file.
#[derive(Args)]
#[command(after_help = "\
Example:
  sst bake --model .models/smollm2-135m-instruct --adapter runs/v1 --out runs/v1-model")]
pub struct Bake {
    /// Folder of the base model: safetensors in f32, bf16 or f16, in one file or several.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder of the adapter.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// Folder for the changed model.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Bake {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let mut reporter = options.reporter();
        reporter.start("bake", 0);
        let baked = sst_merge::bake(&self.model, &self.adapter, &self.out, &mut |done, total| {
            reporter.advance((done / MB) as usize, (total / MB) as usize, "MB");
        })?;
        let size = format!("{:.2} GB", baked.bytes as f64 / 1e9);
        reporter.finish(&size);
        let lost = baked.rounding.map_or("no change".to_owned(), |x| {
            format!("{:.2} % of it lost to rounding", 100.0 * x)
        });
        let text = format!(
            "{}: {} tensors changed by {:.4} in all ({lost}), {} weight files of {size}, {} of them there already",
            self.out.display(),
            baked.changed,
            baked.norm,
            baked.weight_files,
            baked.resumed,
        );
        options.print(&baked, &text)
    }
}
