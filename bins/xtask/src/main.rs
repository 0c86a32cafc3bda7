//! Set-up, tests, checks and benchmarks of the workspace: `cargo xtask --help`.
//!
//! It needs neither libtorch nor a BLAS, so that it can be what brings them.

mod bench;
mod command;
mod demo;
mod layering;
mod lint;
mod phases;
mod remove;
mod setup;
mod test;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::bench::Bench;
use crate::demo::Demo;
use crate::phases::Phase;
use crate::setup::{Build, Profile};
use crate::workspace::Workspace;

/// Set-up, tests, checks and benchmarks of SST-Merge.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Bring libtorch, OpenBLAS and the demo model; what is there already is left as it is.
    #[command(after_help = "Example:\n  cargo xtask setup --cpu")]
    Setup(Libtorch),
    /// Train, merge and judge the demo adapters end to end, and print the table of results.
    #[command(
        after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --data my-data --out runs/mine --device cuda:0"
    )]
    Demo(RunArgs),
    /// Run a recipe end to end: by default a small grid over k and weight for V1 and V2, side by side.
    #[command(
        after_help = "Examples:\n  cargo xtask sweep\n  cargo xtask sweep my-grid.toml --data my-data --out runs/mine"
    )]
    Sweep {
        /// The recipe.
        recipe: Option<PathBuf>,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Answer one of the study's four open questions: 1 which stage makes V1 and V2 differ, 2 does V1 come out as reported,
    /// 3 what more Fisher samples change, 4 what a safety weight of 0.7 to 0.9 changes. The phases share a run folder, `runs/phases` if
    /// not given, with a page of report for each.
    #[command(after_help = "Examples:\n  cargo xtask phase 1\n  cargo xtask phase 4 --data my-data --out runs/mine")]
    Phase {
        /// Which.
        phase: Phase,
        #[command(flatten)]
        run: RunArgs,
    },
    /// Run every test: unit, end to end, doctests, those that need the demo model, the examples.
    #[command(after_help = "Example:\n  cargo xtask test")]
    Test,
    /// Check formatting, clippy, the documentation and the order of the crates.
    #[command(after_help = "Example:\n  cargo xtask lint")]
    Lint,
    /// Run the benchmarks; without a name, those of Criterion.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench -- --save-baseline before\n  cargo xtask bench merge\n  cargo xtask bench fisher"
    )]
    Bench {
        #[command(subcommand)]
        bench: Option<Bench>,
        /// Passed on to Criterion.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
}

/// Which libtorch to install; by default the one with CUDA where an NVIDIA driver is present.
#[derive(Args)]
struct Libtorch {
    /// The small build without GPU support.
    #[arg(long, conflicts_with = "cuda")]
    cpu: bool,
    /// The build with CUDA, several GB.
    #[arg(long)]
    cuda: bool,
}

impl Libtorch {
    fn wanted(&self) -> Option<Build> {
        match (self.cpu, self.cuda) {
            (true, _) => Some(Build::Cpu),
            (_, true) => Some(Build::Cuda),
            _ => None,
        }
    }
}

#[derive(Args)]
struct RunArgs {
    /// A data folder in the layout of docs/setup.md; without it, made-up data is generated.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where adapters, merges and results go, `runs/<name of the recipe>` in the root if not given; a run that was cut off goes on
    /// from there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where the model runs, `auto`, `cpu` or `cuda:N`; without it, `sst` chooses.
    #[arg(long)]
    device: Option<String>,
    /// Passed on to `sst sweep`.
    #[arg(last = true)]
    args: Vec<OsString>,
}

impl From<RunArgs> for Demo {
    fn from(run: RunArgs) -> Self {
        Self {
            data: run.data,
            out: run.out,
            device: run.device,
            args: run.args,
        }
    }
}

fn main() -> ExitCode {
    let started = Instant::now();
    match run(Cli::parse().task) {
        Ok(()) => {
            // Not on standard output, whose last line may be for a program.
            eprintln!("Done in {}.", command::wall_time(started.elapsed()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup(libtorch) => setup::all(&workspace, libtorch.wanted(), Profile::Release).map(drop),
        Task::Demo(run) => demo::demo(&workspace, None, &run.into()),
        Task::Sweep { recipe, run } => demo::demo(
            &workspace,
            Some(&recipe.unwrap_or_else(|| demo::grid(&workspace))),
            &run.into(),
        ),
        Task::Phase { phase, run } => phases::phase(&workspace, phase, &run.into()),
        Task::Test => test::test(&workspace),
        Task::Lint => lint::lint(&workspace),
        Task::Bench { bench, args } => bench::bench(&workspace, bench, args),
    }
}
