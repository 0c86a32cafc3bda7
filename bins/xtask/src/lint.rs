//! The checks that need no run: order of the crates, formatting, clippy, documentation.

use anyhow::Result;

use crate::layering;
use crate::setup;
use crate::workspace::Workspace;

/// Runs every check; the first that fails ends it.
pub fn lint(workspace: &Workspace) -> Result<()> {
    layering::check(workspace)?;
    let examples = workspace.examples()?;
    let target = workspace.target.join("examples");
    workspace.cargo(["fmt", "--all", "--check"]).run()?;
    for manifest in &examples {
        workspace
            .cargo(["fmt", "--check", "--manifest-path"])
            .args([workspace.relative(manifest)])
            .run()?;
    }
    let features = setup::libraries(workspace, None)?;
    let clippy = ["clippy", "--workspace", "--all-targets"];
    let deny = ["--", "-D", "warnings"];
    workspace
        .cargo(clippy.into_iter().chain(features.args().iter().copied()).chain(deny))
        .run()?;
    for manifest in &examples {
        workspace
            .cargo(["clippy", "--quiet", "--all-targets", "--manifest-path"])
            .args([workspace.relative(manifest)])
            .args(["--target-dir"])
            .args([workspace.relative(&target)])
            .args(deny)
            .run()?;
    }
    let doc = ["doc", "--workspace", "--no-deps"];
    workspace
        .cargo(doc.into_iter().chain(features.args().iter().copied()))
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}
