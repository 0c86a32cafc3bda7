//! The record beside an artefact: what made it, from what, with which settings.

use crate::{Error, sha256_file, sha256_folder, write_json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the manifest file inside an artefact's folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// How an artefact came to be. No clock times: the same inputs and seed give the same bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the folder holds: `adapter`, `fisher`, `evaluation`, ...
    pub kind: String,
    /// Version of the tool that wrote it.
    pub tool_version: String,
    /// The resolved configuration, defaults filled in, seeds included.
    pub config: serde_json::Value,
    /// Every input by role, with its hash.
    pub inputs: BTreeMap<String, Input>,
    /// What was measured on the way: counts, losses, diagnostics.
    #[serde(default)]
    pub facts: serde_json::Value,
}

/// One input of an artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The path as it was given.
    pub path: PathBuf,
    /// SHA-256 of the file, or of the folder as [`sha256_folder`] defines it.
    pub sha256: String,
}

impl Input {
    /// Hashes a file or a folder.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read.
    pub fn hash(path: &Path) -> Result<Self, Error> {
        let sha256 = if path.is_dir() {
            sha256_folder(path)?
        } else {
            sha256_file(path)?
        };
        Ok(Self {
            path: path.to_path_buf(),
            sha256,
        })
    }
}

impl Manifest {
    /// A manifest of this tool version with no inputs and no facts.
    ///
    /// ```
    /// let manifest = sst_artefact::Manifest::new("adapter", &serde_json::json!({"k": 20}));
    /// assert_eq!(manifest.config["k"], 20);
    /// ```
    pub fn new<C: Serialize>(kind: &str, config: &C) -> Self {
        Self {
            kind: kind.to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            config: serde_json::to_value(config).unwrap_or_default(),
            inputs: BTreeMap::new(),
            facts: serde_json::Value::Null,
        }
    }

    /// Adds an input under `role`, hashing it now.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read.
    pub fn input(mut self, role: &str, path: &Path) -> Result<Self, Error> {
        self.inputs.insert(role.to_owned(), Input::hash(path)?);
        Ok(self)
    }

    /// Writes `folder/manifest.json` atomically.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        write_json(&folder.join(MANIFEST_FILE), self)
    }

    /// Reads `folder/manifest.json`.
    ///
    /// # Errors
    /// [`Error::Io`] when it is missing, [`Error::Json`] when it is malformed.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        read_json(&folder.join(MANIFEST_FILE), "manifest")
    }
}

/// Reads a JSON file into `T`; `what` names the kind of file in the error.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Json`] when it does not parse into `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map_err(|source| Error::Json {
        what,
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data.txt");
        std::fs::write(&data, "x").unwrap();
        let manifest = Manifest::new("fisher", &serde_json::json!({"seed": 7}))
            .input("data", &data)
            .unwrap();
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
    }

    #[test]
    fn a_malformed_manifest_names_the_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(MANIFEST_FILE), "{\n  oops").unwrap();
        let message = Manifest::read(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("manifest.json") && message.contains("line 2"),
            "{message}"
        );
    }
}
