//! All tests of the workspace, and its downstream examples.

use anyhow::Result;

use crate::command::Command;
use crate::setup::{self, Profile, Server};
use crate::workspace::Workspace;

/// Where the tests of endpoints find a server.
const ENDPOINT: &str = "SST_TEST_ENDPOINT";

/// Sets up, then runs the tests, the ones that need the demo model or a server included, the doctests and the examples.
pub fn test(workspace: &Workspace) -> Result<()> {
    let features = setup::all(workspace, None, Profile::Dev)?;
    let tests = |targets: &[&str], rest: &[&str]| -> Command {
        let args = ["test", "--workspace"]
            .iter()
            .chain(targets)
            .chain(features.args())
            .chain(rest);
        workspace.cargo(args.copied())
    };
    let server = Server::start(workspace)?;
    // A test is marked `#[ignore]` here for one reason: it needs the demo model or the server, which are now there.
    tests(&["--tests"], &["--", "--include-ignored"])
        .env(ENDPOINT, &server.url)
        .run()?;
    drop(server);
    tests(&["--doc"], &[]).run()?;
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
