//! `sst subspace`

use crate::options::Options;
use clap::Args;
use sst_experiment::step::{SubspaceStep, subspace};
use sst_subspace::{RATIO_EPS, Spectrum};
use std::path::PathBuf;

/// Solve F_s v = lambda (F_u + eps I) v and keep the top k: directions that matter for safety and not for utility.
#[derive(Args)]
#[command(after_help = "\
Example:
  sst subspace --utility runs/fisher-A5 --safety runs/fisher-A7 -k 20 --out runs/subspace")]
pub struct Subspace {
    /// Folder of a utility Fisher artefact; several are averaged.
    #[arg(long, value_name = "DIR", required = true)]
    utility: Vec<PathBuf>,
    /// Folder of the safety Fisher artefact.
    #[arg(long, value_name = "DIR")]
    safety: PathBuf,
    /// Number of directions.
    #[arg(short, long)]
    k: usize,
    /// Added to the denominator, on top of the estimator's ridge.
    #[arg(long, default_value_t = RATIO_EPS)]
    eps: f64,
    /// Folder for the basis.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Subspace {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let step = SubspaceStep {
            utility: self.utility,
            safety: self.safety,
            k: self.k,
            eps: self.eps,
            out: self.out,
        };
        let basis = subspace(&step)?;
        let spectrum = Spectrum::of(basis.eigenvalues().to_vec());
        let (first, last) = (spectrum.head.first(), spectrum.tail.last());
        let text = format!(
            "{}: {} of {} directions, eigenvalues {:.4e} to {:.4e}",
            step.out.display(),
            basis.k(),
            basis.layout().len(),
            first.copied().unwrap_or(f64::NAN),
            last.copied().unwrap_or(f64::NAN)
        );
        let value = serde_json::json!({ "k": basis.k(), "spectrum": spectrum, "selection": basis.selection() });
        options.print(&value, &text)
    }
}
