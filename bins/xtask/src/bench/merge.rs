//! Our merges beside PEFT's, and beside what reading and writing alone would take, on this machine, in one run.
//!
//! Adapters have the shape of an 8B Llama's (rank 16 on q, k, v, o), the model to bake its layers, all of random entries;
//! every figure comes from a process of its own, one at a time. PEFT decomposes a dense matrix per module, minutes a layer:
//! both sides do that on fewer layers than the rest.

mod outcome;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::measurement::Timed;
use super::{environment, program};
use crate::command::Command;
use crate::remove::remove;
use crate::workspace::Workspace;
use outcome::{Comparison, Outcome, Pair, Round};

const REFERENCE: &str = "crates/sst-merge/benches/peft_merge.py";

/// The merges measured against reading and writing, as recipes.
const MERGES: [(&str, &str); 4] = [
    ("task-arithmetic", r#"{"strategy": "task-arithmetic"}"#),
    (
        TIES,
        r#"{"strategy": "ties", "space": "factors", "convention": "peft", "density": 0.5}"#,
    ),
    ("v1", r#"{"strategy": "v1", "k": 200}"#),
    ("v2", r#"{"strategy": "v2", "k": 200}"#),
];
const TIES: &str = "ties";
const SVD: &str = r#"{"strategy": "task-arithmetic", "rank": 16}"#;
const CAT: &str = r#"{"strategy": "task-arithmetic"}"#;
const SST: &str = r#"{"strategy": "sst", "spectrum": false}"#;
/// Layers whose statistics SST takes: four modules each.
const SST_LAYERS: &str = "2";

/// Settings of the benchmark.
#[derive(Args)]
pub struct MergeBench {
    /// How often everything is timed; ratios are medians over the rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Layers of the adapters.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..))]
    layers: u64,
    /// Layers of the adapters whose sum both sides cut to rank 16.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    svd_layers: u64,
    /// Layers of the model to bake, 0.44 GB each.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..))]
    model_layers: u64,
    /// Threads of every process.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    threads: u64,
    /// A Python that has torch, transformers and peft, instead of an environment made for the benchmark.
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
}

/// Measures, prints the tables on standard error and the line of JSON on standard output.
///
/// # Errors
/// When a process fails or reports nonsense, or when the two sides' merges of the same rank are not equally good.
pub fn run(workspace: &Workspace, bench: &MergeBench) -> Result<()> {
    let processes = Processes {
        ours: program::build(workspace, &["--package", "sst-merge"], "large")?,
        python: environment::chosen(workspace, bench.python.as_deref())?,
        folder: workspace.target.join("bench-merge"),
        root: workspace.root.clone(),
        threads: bench.threads.to_string(),
    };
    processes.prepare(bench)?;
    let mut rounds = Vec::new();
    let mut comparisons = None;
    for round in 1..=bench.rounds {
        rounds.push(processes.round(&format!("round {round} of {}", bench.rounds))?);
        // At once: there is no use in measuring on when the two sides compute different things.
        if comparisons.is_none() {
            let found = processes.comparisons()?;
            found.iter().try_for_each(Comparison::check)?;
            comparisons = Some(found);
        }
    }
    let outcome = Outcome {
        threads: bench.threads,
        layers: bench.layers,
        svd_layers: bench.svd_layers,
        rounds,
        comparisons: comparisons.context("no round was measured")?,
    };
    let (tables, line) = outcome.render()?;
    remove(&processes.folder)?;
    eprintln!("{tables}");
    println!("{line}");
    Ok(())
}

/// The programs of both sides and what every one of them is told.
struct Processes {
    ours: PathBuf,
    python: PathBuf,
    folder: PathBuf,
    root: PathBuf,
    threads: String,
}

impl Processes {
    fn prepare(&self, bench: &MergeBench) -> Result<()> {
        // A result of an earlier run must not be taken for one of this run.
        remove(&self.folder)?;
        let [layers, svd, model] = [bench.layers, bench.svd_layers, bench.model_layers].map(|n| n.to_string());
        for (name, layers, more) in [
            ("adapters", layers.as_str(), &["--k", "200"][..]),
            ("svd", &svd, &[]),
            ("sst", SST_LAYERS, &["--statistics"]),
            ("bake", &model, &["--model"]),
        ] {
            self.program("prepare")
                .args(["--layers", layers, "--out"])
                .args([self.folder.join(name)])
                .args(more)
                .run_quietly(&format!("inputs: {name}"))?;
        }
        Ok(())
    }

    fn round(&self, round: &str) -> Result<Round> {
        let mut merges = Vec::new();
        for (name, recipe) in MERGES {
            let ours = self.merge(round, "adapters", name, recipe)?;
            let io = self.io(round, "adapters", name)?;
            merges.push((name, Pair { ours, other: io }));
        }
        let ties = merges
            .iter()
            .find(|(name, _)| *name == TIES)
            .map(|(_, pair)| pair.ours.clone());
        Ok(Round {
            svd: Pair {
                ours: self.merge(round, "svd", "svd", SVD)?,
                other: self.reference(round, "svd", "svd")?,
            },
            cat: Pair {
                ours: self.merge(round, "adapters", "cat", CAT)?,
                other: self.reference(round, "adapters", "cat")?,
            },
            ties: Pair {
                ours: ties.context("TIES is not among the merges")?,
                other: self.reference(round, "adapters", TIES)?,
            },
            sst: Pair {
                ours: self.merge(round, "sst", "sst", SST)?,
                other: self.reference(round, "sst", "sst")?,
            },
            bake: self.bake(round)?,
            merges,
        })
    }

    /// Reading, merging and writing by ours.
    fn merge(&self, round: &str, inputs: &str, name: &str, recipe: &str) -> Result<Timed> {
        let command = self
            .program("run")
            .args(["--strategy", recipe, "--folder"])
            .args([self.folder.join(inputs)])
            .args(["--out"])
            .args([self.result("ours", name)]);
        Timed::of(&command, &format!("{round}: {name}"))
    }

    /// As many bytes read and written as by [`Processes::merge`] before.
    fn io(&self, round: &str, inputs: &str, name: &str) -> Result<Timed> {
        let command = self
            .program("io")
            .args(["--folder"])
            .args([self.folder.join(inputs)])
            .args(["--like"])
            .args([self.result("ours", name)]);
        Timed::of(&command, &format!("{round}: the bytes of {name}"))
    }

    /// The same merge by PEFT or PyTorch.
    fn reference(&self, round: &str, inputs: &str, name: &str) -> Result<Timed> {
        let command = Command::new(&self.python)
            .args([self.root.join(REFERENCE)])
            .args([name, "--threads", &self.threads, "--folder"])
            .args([self.folder.join(inputs)])
            .args(["--out"])
            .args([self.result("reference", name)])
            .folder(&self.root);
        Timed::of(&command, &format!("{round}: {name} by PEFT or PyTorch"))
    }

    fn bake(&self, round: &str) -> Result<Pair> {
        let one = |action: &str| {
            let out = self.result(action, "model");
            let command = self
                .program(action)
                .args(["--folder"])
                .args([self.folder.join("bake")])
                .args(["--out"])
                .args([&out]);
            let timed = Timed::of(&command, &format!("{round}: {action}"));
            remove(&out)?;
            timed
        };
        let other = one("copy")?;
        Ok(Pair {
            ours: one("bake")?,
            other,
        })
    }

    /// How far both sides' merges are apart, and each from the exact sum.
    fn comparisons(&self) -> Result<Vec<Comparison>> {
        let inputs = [("svd", "svd"), ("cat", "adapters"), (TIES, "adapters"), ("sst", "sst")];
        inputs
            .into_iter()
            .map(|(name, inputs)| {
                let output = self
                    .program("compare")
                    .args(["--folder"])
                    .args([self.folder.join(inputs)])
                    .args(["--ours"])
                    .args([self.result("ours", name)])
                    .args(["--theirs"])
                    .args([self.result("reference", name)])
                    .output_quietly(&format!("{name}: both sides compared"))?;
                Comparison::parse(name, &output)
            })
            .collect()
    }

    fn program(&self, action: &str) -> Command {
        Command::new(&self.ours)
            .args([action])
            .env("RAYON_NUM_THREADS", &self.threads)
            .folder(&self.root)
    }

    fn result(&self, side: &str, name: &str) -> PathBuf {
        self.folder.join("results").join(side).join(name)
    }
}
