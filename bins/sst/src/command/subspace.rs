//! `sst subspace`

use crate::options::Options;
use clap::Args;
use sst_experiment::step::{SubspaceStep, subspace};
use sst_subspace::{SubspaceConfig, SubspaceSummary};
use std::path::{Path, PathBuf};

/// Find the directions that matter for safety and not for utility.
///
/// Solves F_s v = lambda (F_u + eps I) v and keeps the top k. The artefacts' estimator decides the solver: ratios of
/// diagonals (diag, diag-variance), Kronecker factors (kron), or per-sample gradients (samples).
#[derive(Args)]
#[command(after_help = "\
Examples:
  sst subspace --utility runs/fisher-A5 --safety runs/fisher-A7 -k 20 --out runs/subspace
  sst subspace --utility runs/samples-A5 --safety runs/samples-A7 -k 20 --ridge 0.01 --bootstrap 100 --out runs/exact")]
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
    /// diag, diag-variance: added to the denominator, on top of the estimator's ridge. [default: 1e-6]
    #[arg(long)]
    eps: Option<f64>,
    /// kron, samples: eps relative to the mean eigenvalue of F_u. [default: 1e-2]
    #[arg(long)]
    ridge: Option<f64>,
    /// samples: draw the samples anew so many times, and say how stable the top k is.
    #[arg(long, value_name = "B")]
    bootstrap: Option<usize>,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the basis.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Subspace {
    pub fn run(self, options: &Options) -> anyhow::Result<()> {
        let step = SubspaceStep {
            utility: self.utility,
            safety: self.safety,
            config: SubspaceConfig {
                k: self.k,
                eps: self.eps,
                ridge: self.ridge,
                bootstrap: self.bootstrap,
                seed: self.seed,
            },
            out: self.out,
        };
        let summary = subspace(&step, &mut *options.reporter())?;
        options.print(&summary, &text(&step.out, &summary))
    }
}

fn text(out: &Path, summary: &SubspaceSummary) -> String {
    let (first, last) = (summary.eigenvalues.first(), summary.eigenvalues.last());
    let mut text = format!(
        "{}: {} of {} directions, eigenvalues {:.4e} to {:.4e} ({}",
        out.display(),
        summary.k,
        summary.available.unwrap_or_default(),
        first.copied().unwrap_or(f64::NAN),
        last.copied().unwrap_or(f64::NAN),
        summary.solver,
    );
    if let Some(residual) = summary.residual {
        text += &format!(", residual {residual:.1e}");
    }
    text.push(')');
    if let Some(stability) = &summary.bootstrap {
        let [low, high] = stability.interval;
        text += &format!(
            "\nbootstrap of {}: overlap {:.3} [{low:.3}, {high:.3}] with the same k of resampled data; \
             a random subspace: {:.1e} of all parameters, {:.3} in the samples' span",
            stability.overlaps.len(),
            stability.mean,
            stability.random,
            stability.random_in_span,
        );
    }
    text
}
