//! SHA-256 of files and folders.

use crate::{Error, MANIFEST_FILE};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Lower-case hexadecimal SHA-256 of `bytes`.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 of bytes that come block by block, for files too large to hold.
///
/// ```
/// let mut hash = sst_artefact::StreamHash::default();
/// hash.update(b"a");
/// hash.update(b"bc");
/// assert_eq!(hash.finish(), sst_artefact::sha256_bytes(b"abc"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct StreamHash(Sha256);

impl StreamHash {
    /// Takes the next block.
    pub fn update(&mut self, block: &[u8]) {
        self.0.update(block);
    }

    /// Lower-case hexadecimal SHA-256 of all blocks.
    pub fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

/// Lower-case hexadecimal SHA-256 of a file's content, read in blocks.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String, Error> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hash = StreamHash::default();
    let mut block = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut block).map_err(Error::io("read", path))?;
        if n == 0 {
            return Ok(hash.finish());
        }
        hash.update(&block[..n]);
    }
}

/// SHA-256 over the sorted `name sha256` lines of a folder's own files.
///
/// Sub-folders, hidden files, model cards and the manifest do not count: they describe, they do not define.
///
/// # Errors
/// [`Error::Io`] when the folder or a file in it cannot be read.
pub fn sha256_folder(path: &Path) -> Result<String, Error> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io("read", path))? {
        let entry = entry.map_err(Error::io("read", path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let described = name.starts_with('.') || name == MANIFEST_FILE || name.ends_with(".md");
        if entry.path().is_file() && !described {
            lines.push(format!("{name} {}\n", sha256_file(&entry.path())?));
        }
    }
    lines.sort();
    Ok(sha256_bytes(lines.concat().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_vector() {
        // FIPS 180-4, "abc".
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_bytes(b"abc"), expected);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(sha256_file(&path).unwrap(), expected);
    }

    #[test]
    fn a_folder_is_its_files_not_its_card() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("weights"), "abc").unwrap();
        let before = sha256_folder(dir.path()).unwrap();
        std::fs::write(dir.path().join("README.md"), "card").unwrap();
        assert_eq!(sha256_folder(dir.path()).unwrap(), before);
        std::fs::write(dir.path().join("weights"), "abd").unwrap();
        assert_ne!(sha256_folder(dir.path()).unwrap(), before);
    }
}
