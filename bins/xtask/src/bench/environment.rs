//! The Python environment of the reference: PyTorch, transformers and PEFT at fixed versions, away from the user's own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::Command;
use crate::setup::Pip;
use crate::workspace::Workspace;

/// On Linux torch brings its CUDA libraries, nearly all of the 5 GB: its Python half links them and does not load without.
const PINS: [&str; 5] = [
    "torch==2.13.0",
    "transformers==5.23.0",
    "peft==0.21.2",
    "safetensors",
    "numpy",
];

/// The Python that the user names, or else the one of [`python`].
pub fn chosen(workspace: &Workspace, named: Option<&Path>) -> Result<PathBuf> {
    match named {
        // A bare name is looked up in the PATH.
        Some(named) if named.components().count() > 1 => {
            std::path::absolute(named).with_context(|| format!("{} is no path", named.display()))
        }
        Some(named) => Ok(named.to_path_buf()),
        None => python(workspace),
    }
}

/// The Python of an environment in `target/bench-environment`, made where it is not there or holds other versions.
fn python(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("bench-environment");
    // Written last, so that an installation that was cut off does not count.
    let marker = folder.join("pins.txt");
    let python = folder.join("bin/python3");
    if is_current(&marker) && Command::new(&python).args(["--version"]).answer().is_some() {
        eprintln!("environment of the reference: there");
        return Ok(python);
    }
    Pip::environment(&folder)?
        .install(workspace)
        .args(PINS)
        .run_quietly("environment of the reference: fetching PyTorch, transformers and PEFT (5 GB on Linux)")?;
    std::fs::write(&marker, pins()).with_context(|| format!("{} cannot be written", marker.display()))?;
    Ok(python)
}

fn pins() -> String {
    PINS.join("\n") + "\n"
}

fn is_current(marker: &Path) -> bool {
    std::fs::read_to_string(marker).is_ok_and(|text| text == pins())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_pins_count() {
        let dir = tempfile::tempdir().unwrap();
        let marker = dir.path().join("pins.txt");
        assert!(!is_current(&marker));
        std::fs::write(&marker, pins()).unwrap();
        assert!(is_current(&marker));
        std::fs::write(&marker, pins().replace("torch==2.13.0", "torch==2.12.0")).unwrap();
        assert!(!is_current(&marker));
    }
}
