//! Removing what an earlier run left, whatever it is.

use std::path::Path;

use anyhow::{Context, Result};

/// Removes a file, a link or a folder with all in it; nothing there is fine.
pub fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    removed.with_context(|| format!("{} cannot be removed", path.display()))
}
