//! The demo model, fetched and converted by `sst model fetch`.

use anyhow::Result;

use super::{Profile, pip::Pip, sst};
use crate::command::Command;
use crate::workspace::Workspace;

const NAME: &str = "smollm2-135m-instruct";

/// Brings the model into `.models`, with an `sst` that is already built.
pub fn bring(workspace: &Workspace, profile: Profile) -> Result<()> {
    let folder = format!(".models/{NAME}");
    let there = |file: &str| workspace.root.join(&folder).join(file).is_file();
    if there("config.json") && there("model.safetensors") {
        eprintln!("demo model: there, in {folder}");
        return Ok(());
    }
    let mut fetch = Command::new(workspace.relative(&sst(workspace, profile)))
        .args(["model", "fetch", NAME, "--out", &folder])
        .folder(&workspace.root);
    if let Some(folder) = Pip::find(workspace)?.private_folder() {
        fetch = fetch.path_first(folder)?;
    }
    fetch.run()
}
