//! What builds and tests need from outside: libtorch, OpenBLAS, the demo model, a server, a Slurm. Nothing is brought twice.

mod blas;
mod demo_model;
pub mod environment;
mod libtorch;
mod pip;
mod server;
mod slurm;

pub use libtorch::Build;
pub use pip::Pip;
pub use server::Server;
pub use slurm::Slurm;

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::Workspace;

/// The features that the workspace builds with on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Features {
    /// All defaults.
    Default,
    /// Without a system LAPACK: the eigenproblems are solved by faer alone.
    WithoutLapack,
}

impl Features {
    /// The arguments that a `cargo` command over the whole workspace takes for them.
    pub fn args(self) -> &'static [&'static str] {
        match self {
            Self::Default => &[],
            Self::WithoutLapack => &["--no-default-features", "--features", "sst/hub"],
        }
    }
}

/// How a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As `cargo test` builds it, tests included, so that nothing is compiled twice.
    Dev,
    /// Optimised.
    Release,
}

/// Brings libtorch and OpenBLAS; enough to compile.
pub fn libraries(workspace: &Workspace, wanted: Option<Build>) -> Result<Features> {
    libtorch::bring(workspace, wanted)?;
    blas::bring(workspace)
}

/// Brings everything, and builds `sst` on the way, since that is what converts the demo model.
pub fn all(workspace: &Workspace, wanted: Option<Build>, profile: Profile) -> Result<Features> {
    let features = libraries(workspace, wanted)?;
    build(workspace, features, profile)?;
    demo_model::bring(workspace, profile)?;
    Ok(features)
}

/// Where the front door is once built.
pub fn sst(workspace: &Workspace, profile: Profile) -> PathBuf {
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    workspace.target.join(folder).join("sst")
}

/// Builds the whole workspace: building one package alone would resolve other features and compile
/// torch-sys a second time.
fn build(workspace: &Workspace, features: Features, profile: Profile) -> Result<()> {
    let targets: &[&str] = match profile {
        Profile::Dev => &["--bins", "--tests"],
        Profile::Release => &["--release"],
    };
    let args = ["build", "--workspace"].iter().chain(targets).chain(features.args());
    workspace.cargo(args.copied()).run()
}
