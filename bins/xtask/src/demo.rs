//! The demo and the grid: set-up, a release build, then `sst sweep` with a recipe.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::Command;
use crate::setup::{self, Profile};
use crate::workspace::{Workspace, absolute};

const RECIPE: &str = "docs/recipes/demo.toml";
const MADE_UP_DATA: &str = "runs/demo-data";
const GRID: &str = "docs/recipes/sweep.toml";

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

/// The recipe of the small grid.
pub fn grid(workspace: &Workspace) -> PathBuf {
    workspace.root.join(GRID)
}

/// Runs a recipe, the demo's if none is given, from nothing to its results in `runs/<name of the recipe>`.
pub fn demo(workspace: &Workspace, recipe: Option<&Path>, demo: &Demo) -> Result<()> {
    let recipe = match recipe {
        Some(recipe) => in_root(workspace, recipe)?,
        None => RECIPE.into(),
    };
    let out = match &demo.out {
        Some(out) => in_root(workspace, out)?,
        None => Path::new("runs").join(recipe.file_stem().context("the recipe has no file name")?),
    };
    let prepared = Prepared::new(workspace, demo)?;
    prepared
        .on_data(&["sweep".as_ref(), &recipe], &out)
        .args(&demo.args)
        .run()?;
    println!("Results: {} (comparison.md, aggregated_results.json)", out.display());
    Ok(())
}

/// Everything that a run needs, set up.
pub struct Prepared<'a> {
    workspace: &'a Workspace,
    /// The program.
    sst: PathBuf,
    /// The folder of data, made up where the user gave none.
    data: PathBuf,
    device: Option<&'a str>,
}

impl<'a> Prepared<'a> {
    pub fn new(workspace: &'a Workspace, demo: &'a Demo) -> Result<Self> {
        let data = demo.data.as_deref().map(|data| in_root(workspace, data)).transpose()?;
        setup::all(workspace, None, Profile::Release)?;
        let sst = workspace.relative(&setup::sst(workspace, Profile::Release)).to_owned();
        if data.is_none() && !workspace.root.join(MADE_UP_DATA).join("manifest.json").is_file() {
            let synthesise = ["data", "synthesise", "--out", MADE_UP_DATA];
            Command::new(&sst).folder(&workspace.root).args(synthesise).run()?;
        }
        Ok(Self {
            workspace,
            sst,
            data: data.unwrap_or_else(|| MADE_UP_DATA.into()),
            device: demo.device.as_deref(),
        })
    }

    /// `sst` with arguments.
    pub fn sst(&self, arguments: &[&Path]) -> Command {
        Command::new(&self.sst).folder(&self.workspace.root).args(arguments)
    }

    /// `sst` on the data, with its results in `out`.
    pub fn on_data(&self, arguments: &[&Path], out: &Path) -> Command {
        self.sst(arguments)
            .args(["--data".as_ref(), self.data.as_path(), "--out".as_ref(), out])
            .args(self.device.into_iter().flat_map(|device| ["--device", device]))
    }
}

/// `path`, given from where the user stands, as a command in the root names it.
pub fn in_root(workspace: &Workspace, path: &Path) -> Result<PathBuf> {
    Ok(workspace.relative(&absolute(path)?).to_owned())
}
