//! All tests of the workspace, and its downstream examples.

use anyhow::Result;

use crate::command::Command;
use crate::setup::{self, Profile, Server, Slurm};
use crate::workspace::Workspace;

/// Where the tests of endpoints find a server.
const ENDPOINT: &str = "SST_TEST_ENDPOINT";

/// The test that needs a Slurm, and how it finds one.
const ON_SLURM: &str = "on_slurm";
const SLURM: &str = "SLURM_CONF";

/// Sets up, then runs the tests, those that need the demo model, a server or a Slurm included, the doctests and the examples.
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
    let slurm = Slurm::start()?;
    // A test is marked `#[ignore]` here for one reason: it needs the demo model, the server or Slurm, which are now there.
    let rest: &[&str] = match slurm {
        Some(_) => &["--", "--include-ignored"],
        None => &["--", "--include-ignored", "--skip", ON_SLURM],
    };
    let mut all = tests(&["--tests"], rest).env(ENDPOINT, &server.url);
    if let Some(slurm) = &slurm {
        all = all.env(SLURM, slurm.configuration());
    }
    all.run()?;
    drop(slurm);
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
