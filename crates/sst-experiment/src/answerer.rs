//! Who answers an evaluation's questions: a model of ours with adapters beside it, or a server.

use crate::request::Request;
use crate::{Error, LazyModel};
use sst_adapter::Adapter;
use sst_artefact::Input;
use sst_eval::{Endpoint, Generator, SuiteConfig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Requests that reach a model at a time: enough that few rows of its batches idle at the end.
const MODEL_CHUNK: usize = 256;
/// Requests that reach a server at a time: a failure loses at most so many answers that someone paid for.
const SERVER_CHUNK: usize = 32;

/// Who answers.
#[derive(Debug)]
pub enum Answerer<'a> {
    /// A model of ours.
    Model(&'a mut LazyModel),
    /// The models that a server serves.
    Endpoint(&'a mut Endpoint),
}

/// One of the systems that an answerer answers as.
#[derive(Debug, Clone)]
pub struct EvaluatedSystem {
    /// Its name in tables, its own among the systems.
    pub name: String,
    /// The adapter's folder, or behind an endpoint the served model's name; the base model where not given.
    pub adapter: Option<PathBuf>,
    /// The evaluation's folder.
    pub out: PathBuf,
}

impl Answerer<'_> {
    /// What is asked for: all that decides the system's answers and their scores. `inputs` are those of the suite.
    pub(crate) fn request(
        &mut self,
        system: &EvaluatedSystem,
        suite: &SuiteConfig,
        mut inputs: BTreeMap<String, Input>,
    ) -> Result<Request, Error> {
        let mut config = serde_json::json!({ "name": system.name, "suite": suite });
        match self {
            Self::Model(base) => {
                inputs.insert("model".to_owned(), base.input()?);
                if let Some(adapter) = &system.adapter {
                    inputs.insert("adapter".to_owned(), Input::hash(adapter)?);
                }
                config["precision"] = serde_json::json!(base.source().precision);
            }
            Self::Endpoint(endpoint) => {
                config["endpoint"] = endpoint.identity();
                config["served"] = serde_json::json!(system.adapter);
            }
        }
        Ok(Request::new("evaluate", &config, inputs))
    }

    /// The name that requests give a system's adapter.
    pub(crate) fn adapter(&self, system: &EvaluatedSystem) -> Option<String> {
        let adapter: &Path = system.adapter.as_deref()?;
        Some(match self {
            Self::Model(_) => system.name.clone(),
            Self::Endpoint(_) => adapter.display().to_string(),
        })
    }

    /// Makes the systems' adapters ready.
    pub(crate) fn load(&mut self, systems: &[&EvaluatedSystem]) -> Result<&mut dyn Generator, Error> {
        match self {
            Self::Model(base) => {
                let model = base.model()?;
                for system in systems {
                    if let Some(folder) = &system.adapter {
                        model.add_adapter(&system.name, &Adapter::load(folder)?)?;
                    }
                }
                Ok(model)
            }
            Self::Endpoint(endpoint) => Ok(&mut **endpoint),
        }
    }

    /// Lets the adapters go.
    pub(crate) fn unload(&mut self, systems: &[&EvaluatedSystem]) -> Result<(), Error> {
        if let Self::Model(base) = self {
            let model = base.model()?;
            systems.iter().for_each(|system| model.remove_adapter(&system.name));
        }
        Ok(())
    }

    /// How many requests to answer between two saves.
    pub(crate) fn chunk(&self) -> usize {
        match self {
            Self::Model(_) => MODEL_CHUNK,
            Self::Endpoint(_) => SERVER_CHUNK,
        }
    }
}
