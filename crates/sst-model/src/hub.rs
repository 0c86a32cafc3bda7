//! Fetches a model from the Hugging Face Hub: only the files that a model needs, through the shared cache.
//!
//! Honours `HF_TOKEN`, `HF_HOME` (and `HF_HUB_CACHE`), `HF_ENDPOINT` as the Hub's own client does, and
//! `HF_HUB_OFFLINE`: set to `1`, `on`, `yes` or `true`, nothing but the cache is looked at. The files of one call all
//! come from one commit, the one that the revision names when the first file is asked for.

use crate::fetch::{FetchError, ShardIndex, check_model_folder};
use crate::packaged::{folder_beside, refuse_occupied};
use hf_hub::repository::RepoTypeModel;
use hf_hub::{HFClientSync, HFError, HFRepositorySync};
use serde_json::json;
use sst_artefact::Manifest;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const REQUIRED: [&str; 2] = ["config.json", "tokenizer.json"];
const OPTIONAL: [&str; 3] = ["tokenizer_config.json", "generation_config.json", "chat_template.jinja"];
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// Fetches the model `id` (`owner/name`) at `revision` (branch, tag or commit) into the folder `dest`.
///
/// `dest` then holds configuration, tokenizer, safetensors weights and a manifest that names the commit; large files
/// share the cache's disk space where the file system allows it. A `dest` that already holds this model at this
/// revision is left as it is: remove it to follow a branch that has moved.
///
/// # Errors
/// [`FetchError::Access`] for private and gated repositories, [`FetchError::NotFound`], [`FetchError::Offline`],
/// [`FetchError::Occupied`] when `dest` holds something else, [`FetchError::Hub`] for network and server failures.
pub fn fetch_hub(id: &str, revision: &str, dest: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
    let client = HFClientSync::new().map_err(|e| hub_error(id, e))?;
    let offline = std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| is_true(&value));
    Hub {
        client,
        cache: hf_hub::resolve_cache_dir(),
        offline,
    }
    .fetch(id, revision, dest, progress)
}

/// The values that the Hub's Python client takes for true.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

fn hub_error(id: &str, source: HFError) -> FetchError {
    FetchError::Hub {
        id: id.to_owned(),
        source: Box::new(source),
    }
}

struct Hub {
    client: HFClientSync,
    cache: PathBuf,
    offline: bool,
}

impl Hub {
    fn fetch(&self, id: &str, revision: &str, dest: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
        let config = json!({"id": id, "revision": revision});
        if check_model_folder(dest).is_ok() && Manifest::read(dest).is_ok_and(|m| m.config == config) {
            progress("the model is there already");
            return Ok(());
        }
        refuse_occupied(dest)?;
        let (owner, name) = hf_hub::split_id(id);
        let repository = self.client.model(owner, name);
        let mut download = Download {
            hub: self,
            repository,
            id,
            revision: revision.to_owned(),
            progress,
        };

        // The cache files a snapshot under its commit, which pins everything after the first file.
        let first = download.required(REQUIRED[0])?;
        let commit = first.parent().and_then(Path::file_name).unwrap_or_default();
        let commit = commit.to_string_lossy().into_owned();
        download.revision.clone_from(&commit);

        let mut files = vec![(REQUIRED[0].to_owned(), first)];
        files.push((REQUIRED[1].to_owned(), download.required(REQUIRED[1])?));
        for name in OPTIONAL {
            files.extend(download.optional(name)?.map(|path| (name.to_owned(), path)));
        }
        let mut weights = BTreeSet::from([SINGLE.to_owned()]);
        if let Some(path) = download.optional(INDEX)? {
            weights = ShardIndex::read(&path)?.shards;
            files.push((INDEX.to_owned(), path));
        }
        for name in weights {
            let path = download.required(&name)?;
            files.push((name, path));
        }

        let temporary = folder_beside(dest)?;
        let folder = temporary.path().join("model");
        sst_artefact::create_dir(&folder)?;
        for (name, cached) in &files {
            link_or_copy(cached, &folder.join(name))?;
        }
        let mut manifest = Manifest::new("model", &config);
        manifest.facts = json!({"commit": commit});
        manifest.write(&folder)?;
        check_model_folder(&folder)?;
        if dest.is_dir() {
            std::fs::remove_dir(dest).map_err(sst_artefact::Error::io("replace", dest))?;
        }
        std::fs::rename(&folder, dest).map_err(sst_artefact::Error::io("write", dest))?;
        Ok(())
    }
}

struct Download<'a> {
    hub: &'a Hub,
    repository: HFRepositorySync<RepoTypeModel>,
    id: &'a str,
    revision: String,
    progress: &'a mut dyn FnMut(&str),
}

impl Download<'_> {
    fn required(&mut self, name: &str) -> Result<PathBuf, FetchError> {
        match self.optional(name)? {
            Some(path) => Ok(path),
            None if self.hub.offline => Err(FetchError::Offline {
                id: self.id.to_owned(),
                file: name.to_owned(),
                revision: self.revision.clone(),
                cache: self.hub.cache.clone(),
            }),
            None => Err(FetchError::NotFound {
                id: self.id.to_owned(),
                file: name.to_owned(),
                revision: self.revision.clone(),
            }),
        }
    }

    /// The file in the cache, downloaded if need be; `None` when the repository (offline: the cache) lacks it.
    fn optional(&mut self, name: &str) -> Result<Option<PathBuf>, FetchError> {
        (self.progress)(&format!("{} {name}", self.id));
        let answer = self
            .repository
            .download_file()
            .filename(name)
            .revision(self.revision.clone())
            .local_files_only(self.hub.offline)
            .send();
        match answer {
            Ok(path) => Ok(Some(path)),
            Err(HFError::EntryNotFound { .. } | HFError::LocalEntryNotFound { .. }) => Ok(None),
            Err(HFError::AuthRequired { context } | HFError::Forbidden { context }) => Err(FetchError::Access {
                id: self.id.to_owned(),
                status: context.status.as_u16(),
                reason: context.server_message.or(context.error_code).unwrap_or_default(),
            }),
            Err(e) => Err(hub_error(self.id, e)),
        }
    }
}

/// Hard links save the disk space of a second copy of the weights; the cache may lie on another file system.
fn link_or_copy(cached: &Path, target: &Path) -> Result<(), FetchError> {
    let blob = std::fs::canonicalize(cached).map_err(sst_artefact::Error::io("read", cached))?;
    if std::fs::hard_link(&blob, target).is_err() {
        std::fs::copy(&blob, target).map_err(sst_artefact::Error::io("write", target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hf_hub::HFClient;
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A stand-in for the Hub on the loopback: one repository, `owner/tiny`, and a log of the requests.
    struct Server {
        endpoint: String,
        log: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        fn start(files: &[(&str, &str)], refusal: Option<u16>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let log = Arc::new(Mutex::new(Vec::new()));
            let files: BTreeMap<String, String> = files
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect();
            let server_log = Arc::clone(&log);
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    answer(stream, &files, refusal, &server_log);
                }
            });
            Self { endpoint, log }
        }

        fn hub(&self, cache: &Path, offline: bool) -> Hub {
            let client = HFClient::builder()
                .endpoint(&self.endpoint)
                .token("hf_secret")
                .cache_dir(cache)
                .retry_max_attempts(0)
                .retry_base_delay(Duration::from_millis(1))
                .build_sync()
                .unwrap();
            Hub {
                client,
                cache: cache.to_path_buf(),
                offline,
            }
        }

        fn requests(&self) -> Vec<String> {
            std::mem::take(&mut self.log.lock().unwrap())
        }
    }

    fn answer(mut stream: TcpStream, files: &BTreeMap<String, String>, refusal: Option<u16>, log: &Mutex<Vec<String>>) {
        let mut lines = BufReader::new(stream.try_clone().unwrap())
            .lines()
            .map_while(Result::ok);
        let request = lines.next().unwrap_or_default();
        let token = lines
            .take_while(|line| !line.is_empty())
            .any(|line| line.eq_ignore_ascii_case("authorization: Bearer hf_secret"));
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        log.lock()
            .unwrap()
            .push(format!("{method} {path}{}", if token { "" } else { " without token" }));
        let file = ["main", COMMIT]
            .iter()
            .find_map(|revision| path.strip_prefix(&format!("/owner/tiny/resolve/{revision}/")))
            .and_then(|name| files.get(name));
        let (status, text) = match (refusal, file) {
            (Some(status), _) => (status, "no"),
            (None, Some(text)) => (200, text.as_str()),
            (None, None) => (404, "no"),
        };
        let body = if method == "HEAD" { "" } else { text };
        let etag = sst_artefact::sha256_bytes(text.as_bytes());
        let headers = format!(
            "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\nETag: \"{etag}\"\r\n\
             X-Repo-Commit: {COMMIT}\r\nX-Error-Message: ask first\r\n\r\n",
            text.len()
        );
        // A client that has read enough may hang up first.
        let _ = stream
            .write_all(headers.as_bytes())
            .and_then(|()| stream.write_all(body.as_bytes()));
    }

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
        let server = Server::start(&SHARDED, None);
        let (cache, dest) = (dir.path().join("cache"), dir.path().join("model"));
        server
            .hub(&cache, false)
            .fetch("owner/tiny", "main", &dest, &mut |_| {})
            .unwrap();
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
        assert_eq!(manifest.facts["commit"], COMMIT);
        let requests = server.requests();
        assert!(requests.iter().all(|r| !r.contains("without token")), "{requests:?}");
        let at_main = requests.iter().filter(|r| r.contains("/resolve/main/"));
        assert!(
            at_main.clone().all(|r| r.ends_with("config.json")),
            "only the first file may follow the branch"
        );
        assert_ne!(at_main.count(), 0);

        // The folder is complete: nothing is asked again.
        server
            .hub(&cache, false)
            .fetch("owner/tiny", "main", &dest, &mut |_| {})
            .unwrap();
        // Another folder, offline: everything comes from the cache.
        let again = dir.path().join("again");
        server
            .hub(&cache, true)
            .fetch("owner/tiny", "main", &again, &mut |_| {})
            .unwrap();
        assert_eq!(names(&again), expected);
        assert_eq!(server.requests(), Vec::<String>::new());
    }

    #[test]
    fn offline_reads_a_cache_that_others_filled() {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("models--owner--tiny");
        let snapshot = repository.join("snapshots").join(COMMIT);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repository.join("refs")).unwrap();
        std::fs::write(repository.join("refs/main"), COMMIT).unwrap();
        for name in ["config.json", "tokenizer.json"] {
            std::fs::write(snapshot.join(name), "{}").unwrap();
        }
        let server = Server::start(&[], None);
        let dest = dir.path().join("model");
        let fetch = || {
            server
                .hub(dir.path(), true)
                .fetch("owner/tiny", "main", &dest, &mut |_| {})
        };
        let error = fetch().unwrap_err();
        assert!(
            matches!(&error, FetchError::Offline { file, .. } if file == SINGLE),
            "{error}"
        );
        assert!(!dest.exists());
        std::fs::write(snapshot.join(SINGLE), "weights").unwrap();
        fetch().unwrap();
        assert_eq!(
            names(&dest),
            ["config.json", "manifest.json", "model.safetensors", "tokenizer.json"]
        );
        let absent = server
            .hub(dir.path(), true)
            .fetch("owner/other", "main", &dir.path().join("x"), &mut |_| {});
        assert!(absent.unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
        assert_eq!(server.requests(), Vec::<String>::new());
    }

    #[test]
    fn refusals_and_absences_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("model");
        for status in [401, 403] {
            let server = Server::start(&SHARDED, Some(status));
            let fetched = server
                .hub(&dir.path().join("cache"), false)
                .fetch("owner/tiny", "main", &dest, &mut |_| {});
            let message = fetched.unwrap_err().to_string();
            for part in ["owner/tiny", &status.to_string(), "ask first", "HF_TOKEN"] {
                assert!(message.contains(part), "{status}: {message}");
            }
        }
        let server = Server::start(&SHARDED[1..], None);
        let fetched = server
            .hub(&dir.path().join("cache"), false)
            .fetch("owner/tiny", "main", &dest, &mut |_| {});
        assert!(matches!(fetched, Err(FetchError::NotFound { file, .. }) if file == "config.json"));
        let fetched = server
            .hub(&dir.path().join("cache"), false)
            .fetch("owner/tiny", "v9", &dest, &mut |_| {});
        assert!(matches!(fetched, Err(FetchError::NotFound { revision, .. }) if revision == "v9"));
        assert!(!dest.exists());
    }

    #[test]
    fn an_unreachable_hub_names_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        // A port that was free a moment ago and that nobody serves.
        let endpoint = format!(
            "http://{}",
            TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
        );
        let server = Server {
            endpoint,
            log: Arc::default(),
        };
        let fetched = server
            .hub(dir.path(), false)
            .fetch("owner/tiny", "main", &dir.path().join("model"), &mut |_| {});
        let error = fetched.unwrap_err();
        assert!(
            matches!(error, FetchError::Hub { .. }) && error.to_string().contains("owner/tiny"),
            "{error}"
        );
    }

    #[test]
    fn offline_switch_knows_the_hub_s_words() {
        for (value, on) in [
            ("1", true),
            ("ON", true),
            ("yes", true),
            ("True", true),
            ("0", false),
            ("", false),
        ] {
            assert_eq!(is_true(value), on, "{value:?}");
        }
    }
}
