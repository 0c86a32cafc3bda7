//! Write to a temporary file in the same folder, then rename: a process may be killed at any time.

use crate::Error;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// How the names of temporary files begin.
const TEMPORARY: &str = ".writing-";

/// Writes `path` through `fill`, so that the file either holds all of it or keeps its earlier content, whenever this process
/// fails or is killed.
///
/// The parent folder is created. The temporary file lives beside the target and goes on any error; [`remove_unfinished`] removes
/// those of killed processes. Nothing is forced to the disk, which would be slow for many artefacts: after a power cut, what was
/// written last may be incomplete.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be made, the disk is full, or `fill` fails.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use std::io::Write;
/// let path = dir.path().join("out.txt");
/// sst_artefact::write_atomic(&path, |w| w.write_all(b"whole")).unwrap();
/// assert_eq!(std::fs::read(&path).unwrap(), b"whole");
/// ```
pub fn write_atomic<F>(path: &Path, fill: F) -> Result<(), Error>
where
    F: FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
{
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir(parent)?;
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(default_permissions())
        .tempfile_in(parent)
        .map_err(Error::io("write", path))?;
    let mut writer = BufWriter::with_capacity(1 << 20, temporary.as_file_mut());
    fill(&mut writer)
        .and_then(|()| writer.flush())
        .map_err(Error::io("write", path))?;
    drop(writer);
    temporary
        .persist(path)
        .map(drop)
        .map_err(|e| Error::io("write", path)(e.error))
}

/// Writes `value` as indented JSON with a final newline, atomically.
///
/// # Errors
/// [`Error::Io`] when the file cannot be written.
pub fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), Error> {
    write_atomic(path, |w| {
        serde_json::to_writer_pretty(&mut *w, value)?;
        w.write_all(b"\n")
    })
}

/// Removes from `folder` what a writer that was killed left half-written; nobody else may be writing there.
///
/// # Errors
/// [`Error::Io`] naming the folder or the file.
pub fn remove_unfinished(folder: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            std::fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// Creates a folder and its parents.
///
/// # Errors
/// [`Error::Io`] naming the folder.
pub fn create_dir(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Temporary files are private by default; artefacts follow the user's umask instead.
#[cfg(unix)]
fn default_permissions() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(0o666)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write_atomic(&path, |w| {
            w.write_all(b"new")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_what_is_half_written_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["whole", ".hidden", ".writing-x1"] {
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        remove_unfinished(dir.path()).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, [".hidden", "whole"]);
    }

    #[test]
    fn the_error_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"").unwrap();
        let path = dir.path().join("file/child.txt");
        let error = write_atomic(&path, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }
}
