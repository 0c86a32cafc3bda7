//! Our Fisher estimators beside the loop that people write today, on this machine, in one run.
//!
//! Every figure comes from a process of its own, one at a time, so that nothing is warm, resident or running that
//! belongs to another. A round measures the machine (a matrix product), ours and theirs one after the other; after the
//! rounds one larger run of each side shows how memory grows. The limit is the rate of a plain matrix product: an
//! estimator that did nothing but the products of forward and backward would reach it.
//!
//! Both sides get the same threads and the same environment, `OMP_WAIT_POLICY` of Cargo's configuration included.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::measurement::{Matmul, Measurement};
use super::ratio::Round;
use super::report::Outcome;
use super::{agreement, environment, program};
use crate::command::Command;
use crate::remove::remove;
use crate::setup::{self, Profile};
use crate::workspace::{Workspace, absolute};

const LOOP: &str = "crates/sst-fim/benches/peft_loop.py";

/// Settings of the benchmark.
#[derive(Args)]
pub struct FisherBench {
    /// How often everything is timed; ratios are medians over the rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Samples that each timed process works on.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(2..))]
    samples: u64,
    /// Samples of the two runs that are about memory.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(2..))]
    memory_samples: u64,
    /// Threads of every process.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    threads: u64,
    /// A data folder in the layout of docs/setup.md; without it, made-up data.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A model folder; without it, the demo model.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// A Python that has torch, transformers and peft, instead of an environment made for the benchmark.
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Passed on to our side's runs.
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Measures, prints the tables on standard error and the line of JSON on standard output.
///
/// # Errors
/// When a process fails or reports nonsense, or when the two sides do not compute the same diagonal.
pub fn run(workspace: &Workspace, bench: &FisherBench) -> Result<()> {
    let features = setup::all(workspace, None, Profile::Release)?;
    let selection: Vec<&str> = ["--workspace"].iter().chain(features.args()).copied().collect();
    let python = environment::chosen(workspace, bench.python.as_deref())?;
    let processes = Processes {
        ours: program::build(workspace, &selection, "fisher")?,
        python,
        model: workspace.model(bench.model.as_deref())?,
        folder: workspace.target.join("bench-fisher"),
        root: workspace.root.clone(),
        threads: bench.threads.to_string(),
        args: bench.args.clone(),
    };
    let data = bench.data.as_deref().map(absolute).transpose()?;
    processes.prepare(data.as_deref(), bench.samples.max(bench.memory_samples))?;

    let mut rounds = Vec::new();
    let mut agreement = None;
    for round in 1..=bench.rounds {
        rounds.push(processes.round(&format!("round {round} of {}", bench.rounds), bench.samples)?);
        // At once: there is no use in measuring on when the two sides compute different things.
        if agreement.is_none() {
            let found = agreement::compare(&processes.values("ours"), &processes.values("loop"))?;
            found.check()?;
            agreement = Some(found);
        }
    }
    let agreement = agreement.context("no round was measured")?;
    let outcome = Outcome {
        threads: bench.threads,
        rounds,
        large: processes.ours("memory", "diag", bench.memory_samples)?,
        large_reference: processes.reference("memory", bench.memory_samples)?,
        agreement,
    };
    let (tables, line) = outcome.render()?;
    eprintln!("{tables}");
    println!("{line}");
    Ok(())
}

/// The programs of both sides and what every one of them is told.
struct Processes {
    ours: PathBuf,
    python: PathBuf,
    model: PathBuf,
    /// Where samples, adapter and estimates lie.
    folder: PathBuf,
    root: PathBuf,
    threads: String,
    args: Vec<OsString>,
}

impl Processes {
    fn prepare(&self, data: Option<&Path>, samples: u64) -> Result<()> {
        // An estimate of an earlier run must not be taken for one of this run.
        remove(&self.folder)?;
        let mut command = Command::new(&self.ours)
            .args(["prepare", "--model"])
            .args([&self.model])
            .args(["--out"])
            .args([&self.folder])
            .args(["--samples", &samples.to_string()]);
        if let Some(data) = data {
            command = command.args(["--data"]).args([data]);
        }
        command.folder(&self.root).run_quietly("samples and adapter")
    }

    fn round(&self, name: &str, samples: u64) -> Result<Round> {
        let what = format!("{name}: matrix product");
        let output = Command::new(&self.ours)
            .args(["matmul", "--threads", &self.threads])
            .folder(&self.root)
            .output_quietly(&what)?;
        Ok(Round {
            matmul: Matmul::parse(&output).context(what)?,
            diag: self.ours(name, "diag", samples)?,
            plain: self.ours(name, "plain", samples)?,
            kron: self.ours(name, "kron", samples)?,
            reference: self.reference(name, samples)?,
        })
    }

    /// One process of ours; the estimate of `diag` is kept.
    fn ours(&self, name: &str, what: &str, samples: u64) -> Result<Measurement> {
        let mut command = Command::new(&self.ours).args(["run", "--what", what]);
        if what == "diag" {
            command = command.args(["--out"]).args([self.values("ours")]);
        }
        let command = self.on_samples(command, samples).args(&self.args);
        measure(&command, &format!("{name}: {what}, {samples} samples"), samples)
    }

    /// One process of PyTorch and PEFT.
    fn reference(&self, name: &str, samples: u64) -> Result<Measurement> {
        let command = Command::new(&self.python)
            .args([self.root.join(LOOP)])
            .args(["--out"])
            .args([self.values("loop")]);
        let what = format!("{name}: PyTorch and PEFT, {samples} samples");
        measure(&self.on_samples(command, samples), &what, samples)
    }

    fn on_samples(&self, command: Command, samples: u64) -> Command {
        command
            .args(["--model"])
            .args([&self.model])
            .args(["--adapter"])
            .args([self.folder.join("adapter")])
            .args(["--samples"])
            .args([self.folder.join("samples.jsonl")])
            .args(["--n", &samples.to_string(), "--threads", &self.threads])
            .folder(&self.root)
    }

    fn values(&self, side: &str) -> PathBuf {
        self.folder.join(format!("{side}.safetensors"))
    }
}

fn measure(command: &Command, what: &str, samples: u64) -> Result<Measurement> {
    let output = command.output_quietly(what)?;
    Measurement::parse(&output, samples).with_context(|| format!("{what}: `{}`", command.line()))
}
