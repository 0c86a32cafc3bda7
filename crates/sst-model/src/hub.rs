//! Fetches a model from the Hugging Face Hub: only the files that a model needs, through the shared cache.

use crate::fetch::{FetchError, INDEX, SINGLE, check_model_folder, holds_model, shards};
use crate::packaged::{folder_beside, refuse_occupied};
use serde_json::json;
use sst_artefact::{Hub, HubError, HubRepository, Manifest, RepositoryKind};
use std::path::{Path, PathBuf};

const REQUIRED: [&str; 2] = ["config.json", "tokenizer.json"];
const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"];

/// Fetches the model `id` (`owner/name`) at `revision` (branch, tag or commit) into the folder `dest`.
///
/// `dest` then holds configuration, tokenizer, safetensors weights and a manifest that names the commit; the weights
/// share the cache's disk space where the file system allows it. A `dest` that already holds this model at this
/// revision is left as it is: remove it to follow a branch that has moved. [`Hub`] says which environment variables count.
///
/// # Errors
/// [`FetchError::Hub`] for private and gated repositories, missing files, network and server failures,
/// [`FetchError::Occupied`] when `dest` holds something else.
pub fn fetch_hub(id: &str, revision: &str, dest: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
    fetch_from(&Hub::from_environment()?, id, revision, dest, progress)
}

fn fetch_from(
    hub: &Hub,
    id: &str,
    revision: &str,
    dest: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(), FetchError> {
    let config = json!({"id": id, "revision": revision});
    if holds_model(dest, &config) {
        progress("the model is there already");
        return Ok(());
    }
    refuse_occupied(dest)?;
    let mut download = Download {
        repository: hub.repository(RepositoryKind::Model, id, revision),
        id,
        progress,
    };
    let mut files = Vec::new();
    for name in REQUIRED {
        files.push((name.to_owned(), download.required(name)?));
    }
    for name in OPTIONAL {
        files.extend(download.optional(name)?.map(|path| (name.to_owned(), path)));
    }
    if let Some(path) = download.optional(SINGLE)? {
        files.push((SINGLE.to_owned(), path));
    } else if let Some(index) = download.optional(INDEX)? {
        for name in shards(&index)? {
            let path = download.required(&name)?;
            files.push((name, path));
        }
        files.push((INDEX.to_owned(), index));
    } else {
        // Where there is neither, the error names the one that most models have.
        files.push((SINGLE.to_owned(), download.required(SINGLE)?));
    }

    let temporary = folder_beside(dest)?;
    let folder = temporary.path().join("model");
    sst_artefact::create_dir(&folder)?;
    for (name, cached) in &files {
        link_or_copy(cached, &folder.join(name))?;
    }
    let mut manifest = Manifest::new("model", &config);
    manifest.facts = json!({"commit": download.repository.commit()});
    manifest.write(&folder)?;
    check_model_folder(&folder)?;
    if dest.is_dir() {
        std::fs::remove_dir(dest).map_err(sst_artefact::Error::io("replace", dest))?;
    }
    std::fs::rename(&folder, dest).map_err(sst_artefact::Error::io("write", dest))?;
    Ok(())
}

struct Download<'a> {
    repository: HubRepository<'a>,
    id: &'a str,
    progress: &'a mut dyn FnMut(&str),
}

impl Download<'_> {
    fn required(&mut self, name: &str) -> Result<PathBuf, HubError> {
        (self.progress)(&format!("{} {name}", self.id));
        self.repository.required(name)
    }

    fn optional(&mut self, name: &str) -> Result<Option<PathBuf>, HubError> {
        (self.progress)(&format!("{} {name}", self.id));
        self.repository.optional(name)
    }
}

/// Hard links save the disk space of a second copy of the weights; the cache may lie on another file system. Small files,
/// which people edit, are copied, so that the cache keeps what came from the hub.
fn link_or_copy(cached: &Path, target: &Path) -> Result<(), FetchError> {
    let blob = std::fs::canonicalize(cached).map_err(sst_artefact::Error::io("read", cached))?;
    let weights = target.extension().is_some_and(|extension| extension == "safetensors");
    if !weights || std::fs::hard_link(&blob, target).is_err() {
        std::fs::copy(&blob, target).map_err(sst_artefact::Error::io("write", target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sst_artefact::StandInHub;

    const SHARDED: [(&str, &str); 8] = [
        ("config.json", "{}"),
        ("tokenizer.json", "{\"t\": 1}"),
        ("generation_config.json", "{\"g\": 1}"),
        (
            "model.safetensors.index.json",
            r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#,
        ),
        ("model-1.safetensors", "one"),
        ("model-2.safetensors", "two"),
        ("pytorch_model.bin", "unwanted"),
        ("README.md", "unwanted"),
    ];

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn fetches_what_a_model_needs_from_one_commit_then_works_offline() {
        let dir = tempfile::tempdir().unwrap();
        let server = StandInHub::start(&SHARDED, None);
        let (cache, dest) = (dir.path().join("cache"), dir.path().join("model"));
        fetch_from(&server.hub(&cache, false), "owner/tiny", "main", &dest, &mut |_| {}).unwrap();
        let expected = [
            "config.json",
            "generation_config.json",
            "manifest.json",
            "model-1.safetensors",
            "model-2.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
        ];
        assert_eq!(names(&dest), expected);
        assert_eq!(
            std::fs::read_to_string(dest.join("model-2.safetensors")).unwrap(),
            "two"
        );
        let manifest = Manifest::read(&dest).unwrap();
        assert_eq!(manifest.config, json!({"id": "owner/tiny", "revision": "main"}));
        assert_eq!(manifest.facts["commit"], StandInHub::COMMIT);
        let requests = server.requests();
        assert!(requests.iter().all(|r| !r.contains("without token")), "{requests:?}");
        let at_main = requests.iter().filter(|r| r.contains("/resolve/main/"));
        assert!(
            at_main.clone().all(|r| r.ends_with("config.json")),
            "only the first file may follow the branch"
        );
        assert_ne!(at_main.count(), 0);

        // The folder is complete: nothing is asked again.
        fetch_from(&server.hub(&cache, false), "owner/tiny", "main", &dest, &mut |_| {}).unwrap();
        // Another folder, offline: everything comes from the cache, which an edit of the first did not reach.
        std::fs::write(dest.join("generation_config.json"), "edited").unwrap();
        let again = dir.path().join("again");
        fetch_from(&server.hub(&cache, true), "owner/tiny", "main", &again, &mut |_| {}).unwrap();
        assert_eq!(names(&again), expected);
        let kept = std::fs::read_to_string(again.join("generation_config.json")).unwrap();
        assert_eq!(kept, "{\"g\": 1}");
        assert_eq!(server.requests(), Vec::<String>::new());
    }

    #[test]
    fn one_file_of_weights_is_taken_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("config.json", "{}"),
            ("tokenizer.json", "{}"),
            (SINGLE, "weights"),
            (INDEX, "{}"),
        ];
        let server = StandInHub::start(&files, None);
        let (cache, dest) = (dir.path().join("cache"), dir.path().join("model"));
        fetch_from(&server.hub(&cache, false), "owner/tiny", "main", &dest, &mut |_| {}).unwrap();
        assert_eq!(
            names(&dest),
            ["config.json", "manifest.json", "model.safetensors", "tokenizer.json"]
        );
        let requests = server.requests();
        assert!(!requests.iter().any(|r| r.ends_with(INDEX)), "{requests:?}");
    }

    #[test]
    fn offline_reads_a_cache_that_others_filled() {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("models--owner--tiny");
        let snapshot = repository.join("snapshots").join(StandInHub::COMMIT);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::write(repository.join("refs/main"), StandInHub::COMMIT).unwrap();
        for name in ["config.json", "tokenizer.json"] {
            std::fs::write(snapshot.join(name), "{}").unwrap();
        }
        let server = StandInHub::start::<&str>(&[], None);
        let dest = dir.path().join("model");
        let fetch = || fetch_from(&server.hub(dir.path(), true), "owner/tiny", "main", &dest, &mut |_| {});
        let error = fetch().unwrap_err();
        assert!(
            matches!(&error, FetchError::Hub(HubError::Offline { file, .. }) if file == SINGLE),
            "{error}"
        );
        assert!(!dest.exists());
        std::fs::write(snapshot.join(SINGLE), "weights").unwrap();
        fetch().unwrap();
        assert_eq!(
            names(&dest),
            ["config.json", "manifest.json", "model.safetensors", "tokenizer.json"]
        );
        let absent = fetch_from(
            &server.hub(dir.path(), true),
            "owner/other",
            "main",
            &dir.path().join("x"),
            &mut |_| {},
        );
        assert!(absent.unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
        assert_eq!(server.requests(), Vec::<String>::new());
    }

    #[test]
    fn refusals_and_absences_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("model");
        for status in [401, 403] {
            let server = StandInHub::start(&SHARDED, Some(status));
            let fetched = fetch_from(
                &server.hub(&dir.path().join("cache"), false),
                "owner/tiny",
                "main",
                &dest,
                &mut |_| {},
            );
            let message = fetched.unwrap_err().to_string();
            for part in ["owner/tiny", &status.to_string(), "ask first", "HF_TOKEN"] {
                assert!(message.contains(part), "{status}: {message}");
            }
        }
        let server = StandInHub::start(&SHARDED[1..], None);
        let hub = server.hub(&dir.path().join("cache"), false);
        let fetch = |revision| fetch_from(&hub, "owner/tiny", revision, &dest, &mut |_| {});
        let fetched = fetch("main");
        assert!(matches!(fetched, Err(FetchError::Hub(HubError::NotFound { file, .. })) if file == "config.json"));
        let fetched = fetch("v9");
        assert!(matches!(fetched, Err(FetchError::Hub(HubError::NotFound { revision, .. })) if revision == "v9"));
        assert!(!dest.exists());
    }

    #[test]
    fn an_unreachable_hub_names_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        let server = StandInHub::unreachable();
        let fetched = fetch_from(
            &server.hub(dir.path(), false),
            "owner/tiny",
            "main",
            &dir.path().join("model"),
            &mut |_| {},
        );
        let error = fetched.unwrap_err();
        assert!(
            matches!(error, FetchError::Hub(HubError::Client { .. })) && error.to_string().contains("owner/tiny"),
            "{error}"
        );
    }
}
