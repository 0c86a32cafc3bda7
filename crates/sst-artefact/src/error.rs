//! Errors of reading and writing artefacts; each names the path at fault.

use std::path::PathBuf;

/// A file or folder could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused: missing file, no permission, no space.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`, `remove`.
        op: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A JSON file does not hold what its name promises.
    #[error("{}: not a valid {what}: {source}", path.display())]
    Json {
        /// What the file should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Line and column of the fault.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Wraps an [`std::io::Error`] with the operation and the path.
    pub fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { op, path, source }
    }
}
