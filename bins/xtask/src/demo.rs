//! The demo and the grid runner: set-up, a release build, then `sst sweep`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::Command;
use crate::setup::{self, Profile};
use crate::workspace::Workspace;

const RECIPE: &str = "docs/recipes/demo.toml";
const MADE_UP_DATA: &str = "runs/demo-data";
const RESULTS: &str = "runs/demo";

/// What the user chose for a demo run.
pub struct Demo {
    /// A data folder; without it, data is made up.
    pub data: Option<PathBuf>,
    /// Where the results go; without it, a fixed place in the root.
    pub out: Option<PathBuf>,
    /// Where the model runs.
    pub device: Option<String>,
    /// More arguments for `sst sweep`.
    pub args: Vec<OsString>,
}

/// Runs the demo's recipe from nothing to its results.
pub fn demo(workspace: &Workspace, demo: &Demo) -> Result<()> {
    let out = demo
        .out
        .as_deref()
        .map_or_else(|| Ok(RESULTS.into()), |out| in_root(workspace, out))?;
    let data = demo.data.as_deref().map(|data| in_root(workspace, data)).transpose()?;
    setup::all(workspace, None, Profile::Release)?;
    let sst = || Command::new(workspace.relative(&setup::sst(workspace, Profile::Release))).folder(&workspace.root);
    let data = match data {
        Some(data) => data,
        None => {
            if !workspace.root.join(MADE_UP_DATA).join("manifest.json").is_file() {
                sst().args(["data", "synthesise", "--out", MADE_UP_DATA]).run()?;
            }
            MADE_UP_DATA.into()
        }
    };
    let device = demo.device.iter().flat_map(|device| ["--device", device]);
    sst()
        .args(["sweep", RECIPE, "--data"])
        .args([&data])
        .args(["--out"])
        .args([&out])
        .args(device)
        .args(&demo.args)
        .run()?;
    println!("Results: {} (comparison.md, aggregated_results.json)", out.display());
    Ok(())
}

/// Runs `sst sweep` with `args`, where the user stands.
pub fn sweep(workspace: &Workspace, args: &[OsString]) -> Result<()> {
    setup::all(workspace, None, Profile::Release)?;
    Command::new(setup::sst(workspace, Profile::Release))
        .args(["sweep"])
        .args(args)
        .run()
}

/// `path`, given from where the user stands, as a command in the root names it.
fn in_root(workspace: &Workspace, path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))?;
    Ok(workspace.relative(&absolute).to_owned())
}
