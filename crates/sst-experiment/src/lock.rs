//! A folder that one process at a time writes to.

use crate::Error;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Hidden, so that it is no part of the folder's content.
const LOCK_FILE: &str = ".lock";

/// The lock of a folder; it goes when the process does.
#[derive(Debug)]
pub(crate) struct Lock {
    folder: PathBuf,
    _file: File,
}

impl Lock {
    /// Locks a folder, which is made where it is missing; waits while another process holds it.
    ///
    /// # Errors
    /// [`Error::Artefact`] for a lock that cannot be had.
    pub(crate) fn of(folder: &Path) -> Result<Self, Error> {
        loop {
            let file = locked(folder)?;
            // Whoever held it before may have deleted it.
            if is_at(&file, &folder.join(LOCK_FILE)) {
                let folder = folder.to_path_buf();
                return Ok(Self { folder, _file: file });
            }
        }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Lock {
    /// Leaves no trace: neither the lock nor a folder in which there is nothing.
    fn drop(&mut self) {
        // What cannot be removed does no harm: a folder that holds something, a lock that somebody has deleted.
        let _ = std::fs::remove_file(self.folder.join(LOCK_FILE));
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// The folder's lock file, made where it is missing, locked.
fn locked(folder: &Path) -> Result<File, Error> {
    sst_artefact::create_dir(folder)?;
    let path = folder.join(LOCK_FILE);
    let fault = |e| Error::from(sst_artefact::Error::io("lock", &path)(e));
    let file = match File::create(&path) {
        // Deleted with its folder by a lock that was given up.
        Err(e) if e.kind() == ErrorKind::NotFound => return locked(folder),
        other => other.map_err(fault)?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            tracing::info!(folder = %folder.display(), "another process is at it; waiting");
            file.lock().map_err(fault)?;
        }
        Err(TryLockError::Error(e)) => return Err(fault(e)),
    }
    Ok(file)
}

/// Whether an open file is the one at `path` still.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |of: std::fs::Metadata| (of.dev(), of.ino());
    let (ours, there) = (file.metadata().map(place), path.metadata().map(place));
    ours.is_ok_and(|ours| there.is_ok_and(|there| ours == there))
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_reads_and_writes_and_no_trace_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("count");
        std::fs::write(&path, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let lock = Lock::of(dir.path()).unwrap();
                    let count: u32 = std::fs::read_to_string(&path).unwrap().parse().unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    std::fs::write(lock.folder().join("count"), (count + 1).to_string()).unwrap();
                });
            }
        });
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "8");
        assert!(!dir.path().join(LOCK_FILE).exists());
        let empty = dir.path().join("empty");
        drop(Lock::of(&empty).unwrap());
        assert!(!empty.exists());
    }
}
