//! The study's four open questions, each answered by recipes on one set of adapters and a page of report.
//!
//! All phases share a run folder, so that adapters and Fisher statistics are computed by the first and found by the others.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::command::Command;
use crate::demo::{self, Demo};
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
    let (sst, data) = demo::prepared(workspace, run)?;
    let out = match &run.out {
        Some(out) => demo::in_root(workspace, out)?,
        None => PathBuf::from(FOLDER),
    };
    let device: Vec<&str> = run.device.iter().flat_map(|device| ["--device", device]).collect();
    let command = |arguments: &[&str]| {
        Command::new(&sst)
            .folder(&workspace.root)
            .args(arguments)
            .args(["--data"])
            .args([&data])
            .args(["--out"])
            .args([&out])
            .args(&device)
            .args(&run.args)
    };
    if phase == Phase::Stages {
        let pair = ["docs/recipes/attribute-v1.toml", "docs/recipes/attribute-v2.toml"];
        command(&["attribute", pair[0], pair[1]]).run()?;
    }
    command(&["sweep", phase.recipe()]).run()?;
    let page = out.join(format!("phase{}", phase.number()));
    let report: [OsString; 4] = ["report".into(), out.into(), "--out".into(), page.clone().into()];
    Command::new(&sst).folder(&workspace.root).args(report).run()?;
    println!("The page: {}", Path::new(&page).display());
    Ok(())
}
