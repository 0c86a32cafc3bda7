//! The benchmarks, each a Criterion target of the crate it measures.

use std::ffi::OsString;

use anyhow::Result;
use clap::ValueEnum;

use crate::workspace::Workspace;

/// A set of benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// The subspace and the merges on adapters of the size of an 8B model's; needs no libtorch.
    Merge,
}

impl Bench {
    /// The package and the name of its benchmark target.
    fn target(self) -> (&'static str, &'static str) {
        match self {
            Self::Merge => ("sst-merge", "merge"),
        }
    }
}

/// Runs the benchmarks in `names`, or all where none is named; `args` go to Criterion.
pub fn bench(workspace: &Workspace, names: &[Bench], args: &[OsString]) -> Result<()> {
    let names = if names.is_empty() {
        Bench::value_variants()
    } else {
        names
    };
    for name in names {
        let (package, target) = name.target();
        workspace
            .cargo(["bench", "--package", package, "--bench", target, "--"])
            .args(args)
            .run()?;
    }
    Ok(())
}
