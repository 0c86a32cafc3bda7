//! OpenBLAS with LAPACK, which the `lapack` solver links as a system library.

use anyhow::{Context, Result};

use super::Features;
use crate::command::Command;
use crate::workspace::Workspace;

/// Calls one routine of LAPACK: an OpenBLAS built without LAPACK does not link.
const PROBE: &str = "void dsygv_(void);\nint main(void) { dsygv_(); return 0; }\n";

/// Makes sure that OpenBLAS can be linked, installing it where this user may.
///
/// Where it cannot be had, that is said in one line and the build goes without.
pub fn bring(workspace: &Workspace) -> Result<Features> {
    if links(workspace)? {
        eprintln!("OpenBLAS: there");
        return Ok(Features::Default);
    }
    let mut reason = "no package manager that this user may run was found".to_owned();
    if let Some(commands) = installers() {
        let installed = commands.iter().try_for_each(Command::run);
        match installed {
            Ok(()) if links(workspace)? => return Ok(Features::Default),
            Ok(()) => reason = "it was installed but does not link".to_owned(),
            Err(error) => reason = format!("{error:#}"),
        }
    }
    eprintln!(
        "OpenBLAS: not there ({reason}); building without the `lapack` solver, faer solves instead. \
         docs/setup.md names the package to install"
    );
    Ok(Features::WithoutLapack)
}

/// Whether the C compiler links the probe, with what pkg-config says or else the plain name, as the build will.
fn links(workspace: &Workspace) -> Result<bool> {
    let folder = workspace.target.join("openblas-probe");
    let source = folder.join("probe.c");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&source, PROBE))
        .with_context(|| format!("{} cannot be written", source.display()))?;
    let flags = Command::new("pkg-config").args(["--libs", "openblas"]).answer();
    let flags = flags.unwrap_or_else(|| format!("{}-lopenblas", homebrew().unwrap_or_default()));
    let linked = Command::new("cc")
        .args([&source])
        .args(["-o"])
        .args([folder.join("probe")])
        .args(flags.split_whitespace())
        .answer();
    Ok(linked.is_some())
}

/// Where Homebrew keeps its OpenBLAS, which is outside the linker's own path.
fn homebrew() -> Option<String> {
    let prefix = Command::new("brew").args(["--prefix", "openblas"]).answer()?;
    Some(format!("-L{}/lib ", prefix.trim()))
}

/// The commands that install OpenBLAS here, if there is a package manager and the right to run it.
fn installers() -> Option<Vec<Command>> {
    let exists = |program: &str| Command::new(program).args(["--version"]).answer().is_some();
    if exists("brew") {
        return Some(vec![Command::new("brew").args(["install", "openblas", "libomp"])]);
    }
    let root = Command::new("id").args(["-u"]).answer()?.trim() == "0";
    if !root && Command::new("sudo").args(["-n", "true"]).answer().is_none() {
        return None;
    }
    let as_root = |words: &[&str]| {
        let sudo: &[&str] = if root { &["env"] } else { &["sudo", "-n", "env"] };
        let mut words = sudo
            .iter()
            .chain(&["DEBIAN_FRONTEND=noninteractive"])
            .chain(words)
            .copied();
        Command::new(words.next().unwrap_or_default()).args(words)
    };
    if exists("apt-get") {
        return Some(vec![
            as_root(&["apt-get", "update"]),
            as_root(&[
                "apt-get",
                "install",
                "--yes",
                "--no-install-recommends",
                "libopenblas-dev",
            ]),
        ]);
    }
    exists("dnf").then(|| vec![as_root(&["dnf", "install", "--assumeyes", "openblas-devel"])])
}
