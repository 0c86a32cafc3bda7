//! The benchmarks: those of Criterion, each a target of the crate it measures, and one of whole processes side by side.

mod agreement;
mod environment;
mod fisher;
mod measurement;
mod ratio;
mod report;

use std::ffi::OsString;

use anyhow::Result;
use clap::Subcommand;

use crate::workspace::Workspace;

pub use fisher::FisherBench;

/// A set of benchmarks.
#[derive(Subcommand)]
pub enum Bench {
    /// The subspace and the merges on adapters of the size of an 8B model's; needs no libtorch.
    #[command(after_help = "Example:\n  cargo xtask bench merge -- --save-baseline before")]
    Merge {
        /// Passed on to Criterion.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// The Fisher estimators beside a loop in PyTorch and PEFT, and beside what this machine can do at all.
    ///
    /// Brings libtorch, the demo model and an environment with PyTorch (5 GB on Linux), then runs both sides in turn, one
    /// process at a time. The last line printed is one JSON object with the four ratios and, under `details`, every
    /// measurement. A goal that is missed is reported and is no failure; two sides that compute different things are.
    #[command(
        after_help = "Examples:\n  cargo xtask bench fisher\n  cargo xtask bench fisher --rounds 1 --samples 16 --memory-samples 64\n  cargo xtask bench fisher --python ~/venv/bin/python --data my-data"
    )]
    Fisher(FisherBench),
}

/// Runs one set of benchmarks, or where none is named those of Criterion; `args` go to Criterion.
pub fn bench(workspace: &Workspace, bench: Option<Bench>, args: Vec<OsString>) -> Result<()> {
    match bench.unwrap_or(Bench::Merge { args }) {
        Bench::Merge { args } => workspace
            .cargo(["bench", "--package", "sst-merge", "--bench", "merge", "--"])
            .args(args)
            .run(),
        Bench::Fisher(bench) => fisher::run(workspace, &bench),
    }
}
