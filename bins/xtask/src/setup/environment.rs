//! Python environments at fixed versions, away from the user's own, each in a folder of the target directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Pip;
use crate::command::Command;
use crate::workspace::Workspace;

/// The Python of the environment `name`, made where it is not there or holds other packages than `pins`.
pub fn pinned(workspace: &Workspace, name: &str, pins: &[&str], what: &str) -> Result<PathBuf> {
    let folder = workspace.target.join(name);
    // Written last, so that an installation that was cut off does not count.
    let marker = folder.join("pins.txt");
    let python = folder.join("bin/python3");
    if is_current(&marker, pins) && Command::new(&python).args(["--version"]).answer().is_some() {
        eprintln!("{what}: there");
        return Ok(python);
    }
    Pip::environment(&folder)?
        .install(workspace)
        .args(pins)
        .run_quietly(&format!("{what}: fetching"))?;
    std::fs::write(&marker, text(pins)).with_context(|| format!("{} cannot be written", marker.display()))?;
    Ok(python)
}

fn text(pins: &[&str]) -> String {
    pins.join("\n") + "\n"
}

fn is_current(marker: &Path, pins: &[&str]) -> bool {
    std::fs::read_to_string(marker).is_ok_and(|there| there == text(pins))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_pins_count() {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("pins.txt");
        let pins = ["torch==2.13.0", "numpy"];
        assert!(!is_current(&marker, &pins));
        std::fs::write(&marker, text(&pins)).unwrap();
        assert!(is_current(&marker, &pins));
        assert!(!is_current(&marker, &["torch==2.12.0", "numpy"]));
        assert!(!is_current(&marker, &pins[..1]));
    }
}
