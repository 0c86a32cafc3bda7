//! The study's four open questions, each answered by recipes on one set of adapters and a page of report.
//!
//! All phases share a run folder, so that adapters and Fisher statistics are computed by the first and found by the others.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::demo::{self, Demo, Prepared};
use crate::workspace::Workspace;

const FOLDER: &str = "runs/phases";

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Phase {
    /// Which stage makes V1 and V2 differ.
    #[value(name = "1")]
    Stages,
    /// Does V1 come out as reported.
    #[value(name = "2")]
    ReproduceV1,
    /// What more Fisher samples change.
    #[value(name = "3")]
    Samples,
    /// What a safety weight of 0.7 to 0.9 changes.
    #[value(name = "4")]
    Weights,
}

impl Phase {
    fn number(self) -> usize {
        self as usize + 1
    }

    /// The recipe whose table the page shows.
    fn recipe(self) -> &'static str {
        match self {
            Self::Stages => "docs/recipes/demo.toml",
            Self::ReproduceV1 => "docs/recipes/reproduce-v1.toml",
            Self::Samples => "docs/recipes/samples.toml",
            Self::Weights => "docs/recipes/weights.toml",
        }
    }
}

/// Runs a phase from nothing to its page, `phase<N>/` in the run folder.
pub fn phase(workspace: &Workspace, phase: Phase, run: &Demo) -> Result<()> {
    let prepared = Prepared::new(workspace, run)?;
    let out = match &run.out {
        Some(out) => demo::in_root(workspace, out)?,
        None => PathBuf::from(FOLDER),
    };
    if phase == Phase::Stages {
        let pair = ["docs/recipes/attribute-v1.toml", "docs/recipes/attribute-v2.toml"];
        prepared
            .on_data(&["attribute", pair[0], pair[1]].map(Path::new), &out)
            .run()?;
    }
    prepared
        .on_data(&["sweep", phase.recipe()].map(Path::new), &out)
        .args(&run.args)
        .run()?;
    let page = out.join(format!("phase{}", phase.number()));
    prepared
        .sst(&["report".as_ref(), &out, "--out".as_ref(), &page])
        .run()?;
    println!("The page: {}", page.display());
    Ok(())
}
