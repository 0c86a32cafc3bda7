//! What was asked for, kept in the result's manifest: asked again, the result is reused; asked otherwise, it is not
//! overwritten.

use crate::Error;
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

    /// Twelve hexadecimal digits of the request's hash, to name folders by.
    pub(crate) fn key(&self) -> String {
        sst_artefact::sha256_bytes(self.fingerprint().as_bytes())[..12].to_owned()
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

    /// Marks the result in `folder`, whose manifest is written, as whole and as this request's.
    pub(crate) fn seal(&self, folder: &Path) -> Result<(), Error> {
        let mut manifest = Manifest::read(folder)?;
        if !manifest.facts.is_object() {
            manifest.facts = serde_json::json!({});
        }
        manifest.facts[KEY] = self.value.clone();
        Ok(manifest.write(folder)?)
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

    #[test]
    fn a_sealed_result_is_reused_and_another_request_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!request(1).is_done(dir.path()).unwrap());
        Manifest::new("adapter", &()).write(dir.path()).unwrap();
        assert!(!request(1).is_done(dir.path()).unwrap(), "not sealed yet");
        request(1).seal(dir.path()).unwrap();
        assert!(request(1).is_done(dir.path()).unwrap());
        let message = request(2).is_done(dir.path()).unwrap_err().to_string();
        assert!(message.contains("seed: 1 there, 2 now"), "{message}");
    }

    #[test]
    fn keys_follow_the_request() {
        assert_eq!(request(1).key(), request(1).key());
        assert_ne!(request(1).key(), request(2).key());
        assert_eq!(request(1).key().len(), 12);
    }
}
