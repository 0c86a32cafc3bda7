//! Taking an earlier artefact out of a folder that is about to be written again.

use crate::{Error, MANIFEST_FILE};
use std::io::ErrorKind;
use std::path::Path;

/// Removes the manifest and `files` of an earlier artefact, in this order; what is not there is none.
///
/// Call it before the first file is written, with the files that readers look for first and those that the new artefact
/// lacks. Without a manifest no reader mistakes a mixture of old and new files for an artefact, should the writer be
/// killed between two of them.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let folder = dir.path();
/// sst_artefact::Manifest::new("fisher", &()).write(folder)?;
/// std::fs::write(folder.join("mean.safetensors"), "old").unwrap();
/// sst_artefact::retire(folder, &["mean.safetensors"])?;
/// assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
/// # Ok::<(), sst_artefact::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] naming the file that cannot be removed.
pub fn retire(folder: &Path, files: &[&str]) -> Result<(), Error> {
    for name in [MANIFEST_FILE].iter().chain(files) {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            // Of a folder that cannot be one, its writer tells.
            Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(Error::io("remove", &path)(e));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        for name in [MANIFEST_FILE, "config.json", "notes.txt"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        retire(dir.path(), &["config.json", "absent.json"]).unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["notes.txt"]);
        retire(&dir.path().join("new/folder"), &[]).unwrap();
        retire(&dir.path().join("notes.txt"), &[]).unwrap();
        std::fs::create_dir(dir.path().join(MANIFEST_FILE)).unwrap();
        let message = retire(dir.path(), &[]).unwrap_err().to_string();
        assert!(
            message.contains("cannot remove") && message.contains(MANIFEST_FILE),
            "{message}"
        );
    }
}
