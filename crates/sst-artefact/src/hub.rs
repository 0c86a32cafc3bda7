//! Files of the Hugging Face Hub, through its shared cache.
//!
//! Honours `HF_TOKEN`, `HF_HOME` (and `HF_HUB_CACHE`), `HF_ENDPOINT` as the Hub's own client does, and
//! `HF_HUB_OFFLINE`: set to `1`, `on`, `yes` or `true`, nothing but the cache is looked at. All files taken from one
//! [`HubRepository`] are of one commit, the one that the revision names when it is first used.

use hf_hub::repository::{RepoTypeDataset, RepoTypeModel};
use hf_hub::{HFClientSync, HFError, HFRepositorySync};
use std::path::{Path, PathBuf};

/// The Hub did not give a file.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The Hub refuses this user.
    #[error(
        "{id}: the Hub answers {status} ({reason}): private, gated or misspelt; accept its licence on its page, set HF_TOKEN"
    )]
    Access {
        /// Repository id.
        id: String,
        /// HTTP status.
        status: u16,
        /// The server's words, if any.
        reason: String,
    },
    /// No such repository, revision or file.
    #[error("{id}: no {file} at revision {revision:?} on the Hub (no such repository, revision or file)")]
    NotFound {
        /// Repository id.
        id: String,
        /// The file that was asked for.
        file: String,
        /// Branch, tag or commit.
        revision: String,
    },
    /// Offline, and the local cache does not have it.
    #[error("{id}: no {file} at revision {revision:?} in the cache {}, and HF_HUB_OFFLINE is set", cache.display())]
    Offline {
        /// Repository id.
        id: String,
        /// The file that was asked for.
        file: String,
        /// Branch, tag or commit.
        revision: String,
        /// The cache folder that was searched.
        cache: PathBuf,
    },
    /// Any other failure of the client: network, disk, server.
    #[error("cannot fetch {id} from the Hub: {source}")]
    Client {
        /// Repository id.
        id: String,
        /// The client's answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl HubError {
    fn client(id: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Client {
            id: id.to_owned(),
            source: source.into(),
        }
    }
}

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// The Hub, or its cache alone.
pub struct Hub {
    pub(crate) client: HFClientSync,
    pub(crate) cache: PathBuf,
    pub(crate) offline: bool,
}

impl Hub {
    /// The Hub as the environment variables have it.
    ///
    /// # Errors
    /// [`HubError::Client`] when they make no sense.
    pub fn from_environment() -> Result<Self, HubError> {
        Ok(Self {
            client: HFClientSync::new().map_err(|e| HubError::client("anything", e))?,
            cache: hf_hub::resolve_cache_dir(),
            offline: std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| is_true(&value)),
        })
    }

    /// The repository `id` (`owner/name`) at `revision` (branch, tag or commit); nothing is asked yet.
    pub fn repository(&self, kind: RepositoryKind, id: &str, revision: &str) -> HubRepository<'_> {
        let (owner, name) = hf_hub::split_id(id);
        HubRepository {
            remote: match kind {
                RepositoryKind::Model => Remote::Model(self.client.model(owner, name)),
                RepositoryKind::Dataset => Remote::Dataset(self.client.dataset(owner, name)),
            },
            hub: self,
            id: id.to_owned(),
            revision: revision.to_owned(),
            commit: None,
        }
    }
}

/// The values that the Hub's Python client takes for true.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

enum Remote {
    Model(HFRepositorySync<RepoTypeModel>),
    Dataset(HFRepositorySync<RepoTypeDataset>),
}

/// One repository at one commit.
pub struct HubRepository<'a> {
    hub: &'a Hub,
    remote: Remote,
    id: String,
    revision: String,
    commit: Option<String>,
}

impl HubRepository<'_> {
    /// The commit that everything is taken from; known once something was.
    pub fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    /// The names of all files, sorted; offline, of those in the cache.
    ///
    /// # Errors
    /// [`HubError::Access`], [`HubError::NotFound`], [`HubError::Offline`] when the cache has no such revision,
    /// [`HubError::Client`].
    pub fn files(&mut self) -> Result<Vec<String>, HubError> {
        let mut names = if self.hub.offline {
            self.cached()?
        } else {
            self.published()?
        };
        names.sort();
        Ok(names)
    }

    fn published(&mut self) -> Result<Vec<String>, HubError> {
        let revision = self.pinned().to_owned();
        let answer = match &self.remote {
            Remote::Model(r) => r.info().revision(revision).send().map(|info| (info.sha, info.siblings)),
            Remote::Dataset(r) => r.info().revision(revision).send().map(|info| (info.sha, info.siblings)),
        };
        let (commit, files) = answer.map_err(|e| self.refusal(e, "list of files"))?;
        if self.commit.is_none() {
            self.commit = commit;
        }
        Ok(files
            .unwrap_or_default()
            .into_iter()
            .map(|file| file.rfilename)
            .collect())
    }

    fn cached(&mut self) -> Result<Vec<String>, HubError> {
        let kind = match self.remote {
            Remote::Model(_) => "models",
            Remote::Dataset(_) => "datasets",
        };
        let folder = self.hub.cache.join(format!("{kind}--{}", self.id.replace('/', "--")));
        let reference = std::fs::read_to_string(folder.join("refs").join(&self.revision));
        let commit = reference.map_or_else(|_| self.pinned().to_owned(), |text| text.trim().to_owned());
        let snapshot = folder.join("snapshots").join(&commit);
        if !snapshot.is_dir() {
            return Err(self.absent("files"));
        }
        let mut names = Vec::new();
        walk(&snapshot, "", &mut names).map_err(|e| HubError::client(&self.id, e))?;
        self.commit.get_or_insert(commit);
        Ok(names)
    }

    /// The file in the cache, downloaded if need be.
    ///
    /// # Errors
    /// [`HubError::NotFound`], or [`HubError::Offline`], when there is none; else as [`HubRepository::optional`].
    pub fn required(&mut self, name: &str) -> Result<PathBuf, HubError> {
        match self.optional(name)? {
            Some(path) => Ok(path),
            None => Err(self.absent(name)),
        }
    }

    /// The file in the cache, downloaded if need be; `None` when the repository (offline: the cache) lacks it.
    ///
    /// # Errors
    /// [`HubError::Access`] for private and gated repositories, [`HubError::Client`] for network and server failures.
    pub fn optional(&mut self, name: &str) -> Result<Option<PathBuf>, HubError> {
        let (revision, offline) = (self.pinned().to_owned(), self.hub.offline);
        let answer = match &self.remote {
            Remote::Model(r) => {
                let file = r.download_file().filename(name).revision(revision);
                file.local_files_only(offline).send()
            }
            Remote::Dataset(r) => {
                let file = r.download_file().filename(name).revision(revision);
                file.local_files_only(offline).send()
            }
        };
        match answer {
            Ok(path) => {
                // The cache files a snapshot under its commit, which pins everything after the first file.
                let snapshot = path.ancestors().nth(Path::new(name).components().count());
                if let Some(commit) = snapshot.and_then(Path::file_name) {
                    self.commit.get_or_insert_with(|| commit.to_string_lossy().into_owned());
                }
                Ok(Some(path))
            }
            Err(HFError::EntryNotFound { .. } | HFError::LocalEntryNotFound { .. }) => Ok(None),
            Err(e) => Err(self.refusal(e, name)),
        }
    }

    fn pinned(&self) -> &str {
        self.commit.as_deref().unwrap_or(&self.revision)
    }

    fn absent(&self, file: &str) -> HubError {
        let (id, file, revision) = (self.id.clone(), file.to_owned(), self.pinned().to_owned());
        if self.hub.offline {
            let cache = self.hub.cache.clone();
            HubError::Offline {
                id,
                file,
                revision,
                cache,
            }
        } else {
            HubError::NotFound { id, file, revision }
        }
    }

    fn refusal(&self, error: HFError, file: &str) -> HubError {
        match error {
            HFError::AuthRequired { context } | HFError::Forbidden { context } => HubError::Access {
                id: self.id.clone(),
                status: context.status.as_u16(),
                reason: context.server_message.or(context.error_code).unwrap_or_default(),
            },
            HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } | HFError::EntryNotFound { .. } => {
                self.absent(file)
            }
            other => HubError::client(&self.id, other),
        }
    }
}

/// The names of the files under `folder`, with `/` between the parts.
fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(feature = "stand-in-hub")]
mod tests {
    use super::*;
    use crate::StandInHub;

    const FILES: [(&str, &str); 3] = [
        ("README.md", "card"),
        ("data/a.csv", "x\n1\n"),
        ("data/deep/b.csv", "x\n2\n"),
    ];

    fn names(listed: Result<Vec<String>, HubError>) -> Vec<String> {
        listed.unwrap()
    }

    #[test]
    fn lists_and_fetches_one_commit_then_works_offline() {
        for kind in [RepositoryKind::Model, RepositoryKind::Dataset] {
            let dir = tempfile::tempdir().unwrap();
            let server = StandInHub::start(&FILES, None);
            let hub = server.hub(dir.path(), false);
            let mut repository = hub.repository(kind, "owner/tiny", "main");
            assert_eq!(repository.commit(), None);
            assert_eq!(
                names(repository.files()),
                ["README.md", "data/a.csv", "data/deep/b.csv"]
            );
            assert_eq!(repository.commit(), Some(StandInHub::COMMIT));
            let path = repository.required("data/deep/b.csv").unwrap();
            assert_eq!(std::fs::read_to_string(path).unwrap(), "x\n2\n");
            assert_eq!(repository.optional("data/c.csv").unwrap(), None);
            let requests = server.requests();
            assert!(requests.iter().all(|r| !r.contains("without token")), "{requests:?}");
            let followed = requests.iter().filter(|r| r.contains("/main"));
            assert_eq!(followed.count(), 1, "only the list may follow the branch: {requests:?}");

            // By commit, for the stand-in of main was never asked of the files.
            let offline = server.hub(dir.path(), true);
            let mut cached = offline.repository(kind, "owner/tiny", StandInHub::COMMIT);
            assert_eq!(names(cached.files()), ["data/deep/b.csv"]);
            cached.required("data/deep/b.csv").unwrap();
            let error = cached.required("README.md").unwrap_err();
            assert!(
                matches!(&error, HubError::Offline { file, .. } if file == "README.md"),
                "{error}"
            );
            assert_eq!(server.requests(), Vec::<String>::new());
        }
    }

    #[test]
    fn a_branch_in_the_cache_is_followed_offline() {
        let dir = tempfile::tempdir().unwrap();
        let server = StandInHub::start(&FILES, None);
        let online = server.hub(dir.path(), false);
        online
            .repository(RepositoryKind::Dataset, "owner/tiny", "main")
            .required("data/a.csv")
            .unwrap();
        server.requests();
        let hub = server.hub(dir.path(), true);
        let mut repository = hub.repository(RepositoryKind::Dataset, "owner/tiny", "main");
        assert_eq!(names(repository.files()), ["data/a.csv"]);
        assert_eq!(repository.commit(), Some(StandInHub::COMMIT));
        let absent = hub
            .repository(RepositoryKind::Dataset, "owner/other", "main")
            .files()
            .unwrap_err();
        assert!(absent.to_string().contains("HF_HUB_OFFLINE"), "{absent}");
        assert_eq!(server.requests(), Vec::<String>::new());
    }

    #[test]
    fn refusals_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        for status in [401, 403] {
            let server = StandInHub::start(&FILES, Some(status));
            let hub = server.hub(dir.path(), false);
            let mut repository = hub.repository(RepositoryKind::Dataset, "owner/tiny", "main");
            for error in [
                repository.files().unwrap_err(),
                repository.required("README.md").unwrap_err(),
            ] {
                let message = error.to_string();
                for part in ["owner/tiny", &status.to_string(), "ask first", "HF_TOKEN"] {
                    assert!(message.contains(part), "{status}: {message}");
                }
            }
        }
        let server = StandInHub::start(&FILES, None);
        let hub = server.hub(dir.path(), false);
        let error = hub
            .repository(RepositoryKind::Dataset, "owner/tiny", "v9")
            .files()
            .unwrap_err();
        assert!(
            matches!(&error, HubError::NotFound { revision, .. } if revision == "v9"),
            "{error}"
        );
    }

    #[test]
    fn the_offline_switch_knows_the_hub_s_words() {
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
