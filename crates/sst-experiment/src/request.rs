//! What was asked for, kept in the result's manifest: asked again, the result is reused; asked otherwise, it is not
//! overwritten.

use crate::Error;
use crate::lock::Lock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sst_artefact::{Input, MANIFEST_FILE, Manifest};
use std::collections::BTreeMap;
use std::path::Path;

const KEY: &str = "request";

/// A step's settings and the hashes of its inputs.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    value: serde_json::Value,
    pub inputs: BTreeMap<String, Input>,
}

impl Request {
    pub(crate) fn new<C: Serialize>(step: &str, config: &C, inputs: impl IntoIterator<Item = (String, Input)>) -> Self {
        let inputs: BTreeMap<String, Input> = inputs.into_iter().collect();
        let hashes: BTreeMap<&String, &String> = inputs.iter().map(|(role, i)| (role, &i.sha256)).collect();
        let value = serde_json::json!({ "step": step, "config": config, "inputs": hashes });
        Self { value, inputs }
    }

    /// Step, settings and hashes of the inputs.
    pub(crate) fn value(&self) -> &serde_json::Value {
        &self.value
    }

    /// Text that differs between any two different requests.
    pub(crate) fn fingerprint(&self) -> String {
        self.value.to_string()
    }

    /// The same of one part of the result.
    pub(crate) fn part<C: Serialize>(&self, step: &str, config: &C) -> Self {
        let value = serde_json::json!({ "step": step, "config": config, "inputs": { "of": self.key() } });
        Self {
            value,
            inputs: self.inputs.clone(),
        }
    }

    /// Twelve hexadecimal digits of the request's hash, to name folders by.
    pub(crate) fn key(&self) -> String {
        sst_artefact::sha256_bytes(self.fingerprint().as_bytes())[..12].to_owned()
    }

    /// The right to compute this request's result into `folder`, for one process at a time; none where it is there.
    ///
    /// Waits while another process computes it. What a killed process left half-written in the folder goes.
    ///
    /// # Errors
    /// [`Error::Taken`] when the folder holds the result of another request; a lock that cannot be had.
    pub(crate) fn claim(&self, folder: &Path) -> Result<Option<Claim<'_>>, Error> {
        if self.is_done(folder)? {
            return Ok(None);
        }
        let claim = Claim {
            request: self,
            lock: Lock::of(folder)?,
        };
        if self.is_done(folder)? {
            return Ok(None);
        }
        sst_artefact::remove_unfinished(folder)?;
        Ok(Some(claim))
    }

    /// Whether `folder` holds the whole result of this request.
    ///
    /// # Errors
    /// [`Error::Taken`] when it holds that of another.
    pub(crate) fn is_done(&self, folder: &Path) -> Result<bool, Error> {
        if !folder.join(MANIFEST_FILE).exists() {
            return Ok(false);
        }
        let manifest = Manifest::read(folder)?;
        match manifest.facts.get(KEY) {
            Some(value) if *value == self.value => Ok(true),
            Some(other) => {
                let difference = difference(&self.value, other);
                Err(Error::Taken {
                    path: folder.to_path_buf(),
                    difference,
                })
            }
            // Its writer was stopped between the result and this record, or is not this tool.
            None => Ok(false),
        }
    }
}

/// A folder that this process alone computes into; given up, it leaves no trace.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    request: &'a Request,
    lock: Lock,
}

impl Claim<'_> {
    /// The request's inputs, for the result's manifest.
    pub(crate) fn inputs(&self) -> BTreeMap<String, Input> {
        self.request.inputs.clone()
    }

    /// Marks the result in the folder, whose manifest is written, as whole and as the request's.
    pub(crate) fn seal(self) -> Result<(), Error> {
        let mut manifest = Manifest::read(self.lock.folder())?;
        if !manifest.facts.is_object() {
            manifest.facts = serde_json::json!({});
        }
        manifest.facts[KEY] = self.request.value.clone();
        manifest.write(self.lock.folder())?;
        Ok(())
    }
}

/// What a finished result of kind `what` measured, kept under `key` in its manifest.
pub(crate) fn fact<T: DeserializeOwned>(folder: &Path, key: &str, what: &'static str) -> Result<T, Error> {
    let manifest = Manifest::read(folder)?;
    serde_json::from_value(manifest.facts[key].clone()).map_err(|source| {
        let path = folder.join(MANIFEST_FILE);
        sst_artefact::Error::Json { what, path, source }.into()
    })
}

/// The first key in which two requests differ, with both values.
fn difference(now: &serde_json::Value, then: &serde_json::Value) -> String {
    for part in ["step", "config", "inputs"] {
        if now[part] == then[part] {
            continue;
        }
        let (Some(a), Some(b)) = (now[part].as_object(), then[part].as_object()) else {
            return format!("{part}: {} there, {} now", then[part], now[part]);
        };
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort();
        if let Some(key) = keys.into_iter().find(|k| a.get(*k) != b.get(*k)) {
            let show = |v: Option<&serde_json::Value>| v.map_or("absent".to_owned(), ToString::to_string);
            return format!("{key}: {} there, {} now", show(b.get(key)), show(a.get(key)));
        }
    }
    "an unknown difference".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(seed: u64) -> Request {
        Request::new("train", &serde_json::json!({ "seed": seed }), [])
    }

    fn finish(request: &Request, folder: &Path) {
        let claim = request.claim(folder).unwrap().expect("not done yet");
        Manifest::new("adapter", &()).write(folder).unwrap();
        assert!(!request.is_done(folder).unwrap(), "not sealed yet");
        claim.seal().unwrap();
    }

    #[test]
    fn a_sealed_result_is_reused_and_another_request_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        finish(&request(1), dir.path());
        assert!(request(1).claim(dir.path()).unwrap().is_none());
        let message = request(2).claim(dir.path()).unwrap_err().to_string();
        assert!(message.contains("seed: 1 there, 2 now"), "{message}");
    }

    #[test]
    fn of_many_at_once_one_computes_and_the_others_wait() {
        let dir = tempfile::tempdir().unwrap();
        let computed = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let request = request(1);
                    if let Some(claim) = request.claim(dir.path()).unwrap() {
                        computed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Manifest::new("adapter", &()).write(dir.path()).unwrap();
                        claim.seal().unwrap();
                    }
                });
            }
        });
        assert_eq!(computed.into_inner(), 1);
    }

    #[test]
    fn a_claim_that_is_given_up_can_be_had_again() {
        let dir = tempfile::tempdir().unwrap();
        drop(request(1).claim(dir.path()).unwrap().expect("not done yet"));
        finish(&request(1), dir.path());
    }

    #[test]
    fn keys_follow_the_request() {
        assert_eq!(request(1).key(), request(1).key());
        assert_ne!(request(1).key(), request(2).key());
        assert_eq!(request(1).key().len(), 12);
    }
}
