//! The Python environment of the reference: PyTorch, transformers and PEFT at fixed versions, away from the user's own.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::setup::environment;
use crate::workspace::{Workspace, absolute};

/// On Linux torch brings its CUDA libraries, nearly all of the 5 GB: its Python half links them and does not load without.
const PINS: [&str; 5] = [
    "torch==2.13.0",
    "transformers==5.23.0",
    "peft==0.21.2",
    "safetensors",
    "numpy",
];

/// The Python that the user names, or else that of an environment of ours.
pub fn chosen(workspace: &Workspace, named: Option<&Path>) -> Result<PathBuf> {
    match named {
        // A bare name is looked up in the PATH.
        Some(named) if named.components().count() > 1 => absolute(named),
        Some(named) => Ok(named.to_path_buf()),
        None => python(workspace),
    }
}

fn python(workspace: &Workspace) -> Result<PathBuf> {
    let what = "environment of the reference (PyTorch, transformers and PEFT; 5 GB on Linux)";
    environment::pinned(workspace, "bench-environment", &PINS, what)
}
