//! Our answers and likelihoods beside those of Hugging Face transformers, on this machine, in one run.
//!
//! Both sides read the same tokenised questions, answer greedily in f32 with the same threads and the same
//! `OMP_WAIT_POLICY`, and every figure comes from a process of its own, one at a time; a round has each side in turn. What
//! they compute is compared: answers token for token, of which rounding may change a few, and likelihoods, which must agree.
//!
//! The sweep is that of eight candidate merges, rank 16 on every linear, asked the same few requests to refuse, as a first
//! look at many settings does. On its own a candidate fills no batch: its run has as many rows as there are requests.
//! Together they fill one batch with eight times as many. The curve shows how the gain falls as every candidate gets more
//! requests, and its own run is fuller.

mod outcome;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::measurement::{Timed, last_line};
use super::{environment, program};
use crate::command::Command;
use crate::remove::remove;
use crate::setup::{self, Profile};
use crate::workspace::Workspace;
use outcome::{Answers, Cell, Likelihoods, Outcome, Pair, Round};

const REFERENCE: &str = "crates/sst-model/benches/transformers_eval.py";

/// Rows of a batch on both sides.
const BATCH: &str = "16";
/// Rows of a batch of a sweep's candidates, on their own and together.
const SWEEP_ROWS: &str = "64";
/// Requests to each candidate that the curve is measured at.
const CURVE: [u64; 4] = [1, 2, 8, 16];

/// Settings of the benchmark.
#[derive(Args)]
pub struct EvalBench {
    /// How often everything is timed; ratios are medians over the rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Prompts that are answered in batches of 16.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(16..))]
    prompts: u64,
    /// Prompts that are answered one by one.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    single: u64,
    /// Requests that each of the eight adapters answers.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    each: u64,
    /// Multiple-choice items of each of the six subjects.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    items: u64,
    /// An answer ends after this many tokens at the latest.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    max_new_tokens: u64,
    /// Threads of every process.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    threads: u64,
    /// A model folder; without it, the demo model.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// A Python that has torch and transformers, instead of an environment made for the benchmark.
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Leave out the sweep at other sizes than that of the ratio.
    #[arg(long)]
    no_curve: bool,
}

/// Measures, prints the tables on standard error and the line of JSON on standard output.
///
/// # Errors
/// When a process fails or reports nonsense, or when the two sides' likelihoods differ.
pub fn run(workspace: &Workspace, bench: &EvalBench) -> Result<()> {
    let features = setup::all(workspace, None, Profile::Release)?;
    let selection: Vec<&str> = ["--workspace"].iter().chain(features.args()).copied().collect();
    let python = environment::chosen(workspace, bench.python.as_deref())?;
    let processes = Processes {
        ours: program::build(workspace, &selection, "eval")?,
        python,
        model: workspace.model(bench.model.as_deref())?,
        folder: workspace.target.join("bench-eval"),
        root: workspace.root.clone(),
        bench,
    };
    processes.prepare()?;
    let mut rounds = Vec::new();
    let mut agreement = None;
    for round in 1..=bench.rounds {
        rounds.push(processes.round(&format!("round {round} of {}", bench.rounds))?);
        // At once: there is no use in measuring on when the two sides compute different things.
        if agreement.is_none() {
            let likelihoods = processes.likelihoods()?;
            likelihoods.check()?;
            agreement = Some((processes.answers("b16")?, processes.answers("b1")?, likelihoods));
        }
    }
    let curve = CURVE
        .iter()
        .filter(|_| !bench.no_curve)
        .map(|&each| processes.cell("curve", each));
    let curve = curve.collect::<Result<Vec<_>>>()?;
    let (b16, b1, likelihoods) = agreement.context("no round was measured")?;
    let outcome = Outcome {
        threads: bench.threads,
        max_new_tokens: bench.max_new_tokens,
        rounds,
        curve,
        b16,
        b1,
        likelihoods,
    };
    let (tables, line) = outcome.render()?;
    eprintln!("{tables}");
    println!("{line}");
    Ok(())
}

/// The programs of both sides and what every one of them is told.
struct Processes<'a> {
    ours: PathBuf,
    python: PathBuf,
    model: PathBuf,
    /// Where questions, adapters and answers lie.
    folder: PathBuf,
    root: PathBuf,
    bench: &'a EvalBench,
}

impl Processes<'_> {
    fn prepare(&self) -> Result<()> {
        // Answers of an earlier run must not be taken for those of this run.
        remove(&self.folder)?;
        let most = CURVE.iter().copied().max().unwrap_or(0);
        let prompts = self.bench.prompts.max(self.bench.single).max(self.bench.each).max(most);
        Command::new(&self.ours)
            .args(["prepare", "--model"])
            .args([&self.model])
            .args(["--out"])
            .args([&self.folder])
            .args(["--prompts", &prompts.to_string()])
            .args(["--items", &self.bench.items.to_string()])
            .folder(&self.root)
            .run_quietly("questions and adapters")
    }

    fn round(&self, round: &str) -> Result<Round> {
        let bench = self.bench;
        Ok(Round {
            b16: self.pair(round, "b16", "generate", bench.prompts, BATCH)?,
            b1: self.pair(round, "b1", "generate", bench.single, "1")?,
            adapters: self.cell(round, bench.each)?,
            // A pass of ours has as many rows as fit; a batch of theirs 16, which is no slower than more.
            quiz: self.pair(round, "quiz", "quiz", 6 * bench.items, BATCH)?,
        })
    }

    /// The same questions by both sides.
    fn pair(&self, round: &str, name: &str, what: &str, n: u64, batch: &str) -> Result<Pair> {
        let rows = if what == "quiz" { "32" } else { batch };
        let ours = self
            .program(what, n, rows)
            .args(["--out"])
            .args([self.result("ours", name)]);
        let questions = if what == "quiz" { "quiz.jsonl" } else { "prompts.jsonl" };
        let theirs = Command::new(&self.python)
            .args([self.root.join(REFERENCE)])
            .args(["--what", what, "--model"])
            .args([&self.model])
            .args(["--questions"])
            .args([self.folder.join(questions)])
            .args(["--n", &n.to_string(), "--batch", batch])
            .args(["--threads", &self.bench.threads.to_string()])
            .args(["--max-new-tokens", &self.bench.max_new_tokens.to_string()])
            .args(["--out"])
            .args([self.result("theirs", name)])
            .folder(&self.root);
        Ok(Pair {
            ours: Timed::of(&ours, &format!("{round}: {name}"))?,
            theirs: Timed::of(&theirs, &format!("{round}: {name} by transformers"))?,
        })
    }

    /// Eight adapters, each with `each` requests: run by run, and in one batch.
    fn cell(&self, round: &str, each: u64) -> Result<Cell> {
        let program = || self.program("adapters", each, SWEEP_ROWS);
        Ok(Cell {
            each,
            runs: Timed::of(&program(), &format!("{round}: eight runs of {each}"))?,
            together: Timed::of(
                &program().args(["--together"]),
                &format!("{round}: eight times {each} together"),
            )?,
        })
    }

    fn answers(&self, name: &str) -> Result<Answers> {
        let command = Command::new(&self.ours)
            .args(["compare-answers", "--model"])
            .args([&self.model]);
        last_line(&self.compared(command, name)?)
    }

    fn likelihoods(&self) -> Result<Likelihoods> {
        let command = Command::new(&self.ours).args(["compare-likelihoods"]);
        last_line(&self.compared(command, "quiz")?)
    }

    fn compared(&self, command: Command, name: &str) -> Result<String> {
        command
            .args(["--ours"])
            .args([self.result("ours", name)])
            .args(["--theirs"])
            .args([self.result("theirs", name)])
            .folder(&self.root)
            .output_quietly(&format!("{name}: both sides compared"))
    }

    fn program(&self, action: &str, n: u64, rows: &str) -> Command {
        Command::new(&self.ours)
            .args([action, "--model"])
            .args([&self.model])
            .args(["--folder"])
            .args([&self.folder])
            .args(["--n", &n.to_string(), "--rows", rows])
            .args(["--threads", &self.bench.threads.to_string()])
            .args(["--max-new-tokens", &self.bench.max_new_tokens.to_string()])
            .folder(&self.root)
    }

    fn result(&self, side: &str, name: &str) -> PathBuf {
        self.folder.join(format!("{side}-{name}.jsonl"))
    }
}
