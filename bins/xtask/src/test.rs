//! All tests of the workspace, and its downstream examples.

use anyhow::Result;

use crate::setup::{self, Features, Profile};
use crate::workspace::Workspace;

/// Sets up, then runs the tests, the ones that need the demo model included, the doctests and the examples.
pub fn test(workspace: &Workspace) -> Result<()> {
    let features = setup::all(workspace, None, Profile::Dev)?;
    // A test is marked `#[ignore]` here for one reason: it needs the demo model, which is now there.
    tests(workspace, features, &["--tests"], &["--", "--include-ignored"])?;
    tests(workspace, features, &["--doc"], &[])?;
    for manifest in workspace.examples()? {
        workspace
            .cargo(["run", "--quiet", "--manifest-path"])
            .args([workspace.relative(&manifest)])
            .args(["--target-dir"])
            .args([workspace.relative(&workspace.target.join("examples"))])
            .run()?;
    }
    Ok(())
}

fn tests(workspace: &Workspace, features: Features, targets: &[&str], rest: &[&str]) -> Result<()> {
    let args = ["test", "--workspace"]
        .iter()
        .chain(targets)
        .chain(features.args())
        .chain(rest);
    workspace.cargo(args.copied()).run()
}
