//! The benchmarks: those of Criterion, a target of the crate they measure, and three of whole processes side by side.

mod agreement;
mod environment;
mod eval;
mod fisher;
mod measurement;
mod merge;
mod program;
mod ratio;
mod report;

use std::ffi::OsString;

use anyhow::Result;
use clap::Subcommand;

use crate::workspace::Workspace;

pub use eval::EvalBench;
pub use fisher::FisherBench;
pub use merge::MergeBench;

/// A set of benchmarks.
#[derive(Subcommand)]
pub enum Bench {
    /// The merges and `sst bake` beside PEFT, and beside reading and writing alone; needs no libtorch.
    ///
    /// Brings an environment with PyTorch and PEFT (5 GB on Linux) and makes adapters of the shape of an 8B model's. The
    /// last line printed is one JSON object with the three ratios and, under `details`, every measurement. A goal that is
    /// missed is reported and is no failure; two sides that compute different things are.
    #[command(
        after_help = "Examples:\n  cargo xtask bench merge\n  cargo xtask bench merge --rounds 1 --layers 2 --model-layers 1\n  cargo xtask bench merge --python ~/venv/bin/python"
    )]
    Merge(MergeBench),
    /// The Fisher estimators beside a loop in PyTorch and PEFT, and beside what this machine can do at all.
    ///
    /// Brings libtorch, the demo model and an environment with PyTorch (5 GB on Linux), then runs both sides in turn, one
    /// process at a time. The last line printed is one JSON object with the four ratios and, under `details`, every
    /// measurement. A goal that is missed is reported and is no failure; two sides that compute different things are.
    #[command(
        after_help = "Examples:\n  cargo xtask bench fisher\n  cargo xtask bench fisher --rounds 1 --samples 16 --memory-samples 64\n  cargo xtask bench fisher --python ~/venv/bin/python --data my-data"
    )]
    Fisher(FisherBench),
    /// Answers and likelihoods beside those of Hugging Face transformers, and eight adapters in one batch beside eight runs.
    ///
    /// Brings libtorch, the demo model and an environment with PyTorch (5 GB on Linux), then runs both sides in turn, one
    /// process at a time. The last line printed is one JSON object with the four ratios and, under `details`, every
    /// measurement. A goal that is missed is reported and is no failure; likelihoods that differ are.
    #[command(
        after_help = "Examples:\n  cargo xtask bench eval\n  cargo xtask bench eval --rounds 1 --prompts 16 --items 2 --no-curve\n  cargo xtask bench eval --python ~/venv/bin/python"
    )]
    Eval(EvalBench),
}

/// Runs one set of benchmarks, or where none is named those of Criterion; `args` go to Criterion.
pub fn bench(workspace: &Workspace, bench: Option<Bench>, args: Vec<OsString>) -> Result<()> {
    match bench {
        None => workspace
            .cargo(["bench", "--package", "sst-merge", "--bench", "merge", "--"])
            .args(args)
            .run(),
        Some(Bench::Merge(bench)) => merge::run(workspace, &bench),
        Some(Bench::Fisher(bench)) => fisher::run(workspace, &bench),
        Some(Bench::Eval(bench)) => eval::run(workspace, &bench),
    }
}
