//! Published data sets from the Hub.

use crate::Error;
use crate::import::{ImportConfig, Imported, Sources, present, write};
use serde_json::json;
use sst_artefact::{Hub, RepositoryKind};
use std::path::Path;

/// Fetches a published set through the Hub's cache and brings it in as `out/<set>/`.
///
/// `repository` is the set's own where none is given; `revision` a branch, tag or commit. A set that is there already from the
/// same repository and revision, with the same settings, is left as it is: remove it to follow a branch that has moved. `progress` gets
/// one line per file. [`Hub`] says which environment variables count.
///
/// # Errors
/// [`Error::Hub`] for private and gated repositories, missing files, network and server failures; else as [`crate::import`].
pub fn fetch(
    hub: &Hub,
    repository: Option<&str>,
    revision: &str,
    config: &ImportConfig,
    out: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Imported, Error> {
    config.check()?;
    let id = repository.unwrap_or(config.set.repository());
    let origin = json!({ "repository": id, "revision": revision });
    if let Some(imported) = present(config, &origin, out)? {
        progress(&format!("{} is there already", config.set));
        return Ok(imported);
    }
    let mut repository = hub.repository(RepositoryKind::Dataset, id, revision);
    let names = repository.files()?;
    let sources = Sources::of(config, &names, Path::new(id), &mut |name| {
        progress(&format!("{id} {name}"));
        Ok(repository.required(name)?)
    })?;
    write(&sources, config, repository.commit(), &origin, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataFolder, Dataset, Published, Split};
    use sst_artefact::{Manifest, StandInHub};

    fn server() -> StandInHub {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/repliqa/data");
        let file = std::fs::read(root.join("repliqa_0-00000-of-00001.parquet")).unwrap();
        let files = [
            ("README.md", b"card".to_vec()),
            ("data/repliqa_0-00000-of-00001.parquet", file.clone()),
            ("data/repliqa_1-00000-of-00001.parquet", b"unwanted".to_vec()),
        ];
        StandInHub::start(&files, None)
    }

    #[test]
    fn fetches_the_files_of_a_split_then_works_offline() {
        let dir = tempfile::tempdir().unwrap();
        let (server, config) = (server(), ImportConfig::new(Published::RepliQa));
        let fetch_into = |name: &str, offline: bool| {
            let hub = server.hub(&dir.path().join("cache"), offline);
            fetch(
                &hub,
                Some("owner/tiny"),
                "main",
                &config,
                &dir.path().join(name),
                &mut |_| {},
            )
        };
        let first = fetch_into("data", false).unwrap();
        assert_eq!(first.commit.as_deref(), Some(StandInHub::COMMIT));
        let manifest = Manifest::read(&dir.path().join("data/repliqa")).unwrap();
        assert_eq!(
            manifest.config["origin"],
            json!({ "repository": "owner/tiny", "revision": "main" })
        );
        assert!(manifest.inputs.contains_key("data/repliqa_0-00000-of-00001.parquet"));
        assert_eq!(manifest.inputs.len(), 1);
        let data = DataFolder::open(dir.path().join("data")).unwrap();
        assert!(data.examples(Dataset::RepliQa, Split::Train).unwrap().len() > 5);
        assert!(server.requests().iter().all(|r| !r.contains("repliqa_1")));

        assert_eq!(fetch_into("data", false).unwrap(), first, "there already");
        assert_eq!(server.requests(), Vec::<String>::new());
        let offline = server.hub(&dir.path().join("cache"), true);
        let again = dir.path().join("again");
        let commit = StandInHub::COMMIT;
        let cached = fetch(&offline, Some("owner/tiny"), commit, &config, &again, &mut |_| {}).unwrap();
        assert_eq!(cached, first, "the same bytes from the cache");
        assert_eq!(server.requests(), Vec::<String>::new());
    }

    #[test]
    fn a_split_that_is_not_there_names_what_is() {
        let dir = tempfile::tempdir().unwrap();
        let config = ImportConfig {
            split: Some("repliqa_7".to_owned()),
            ..ImportConfig::new(Published::RepliQa)
        };
        let hub = server().hub(&dir.path().join("cache"), false);
        let fetched = fetch(&hub, Some("owner/tiny"), "main", &config, dir.path(), &mut |_| {});
        let message = fetched.unwrap_err().to_string();
        assert!(
            message.contains("owner/tiny: no file of split `repliqa_7`"),
            "{message}"
        );
        assert!(message.contains("repliqa_1-00000"), "{message}");
    }
}
