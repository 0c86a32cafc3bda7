//! The base model of a series of steps: loaded when the first step needs it, hashed once.

use crate::Error;
use sst_artefact::Input;
use sst_model::{BatchLimits, DeviceChoice, LanguageModel, Precision};
use std::path::PathBuf;

/// Which model to load, where and in which precision.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// A Hugging Face model folder.
    pub folder: PathBuf,
    /// Where its tensors live.
    pub device: DeviceChoice,
    /// Precision of weights and arithmetic.
    pub precision: Precision,
    /// What one forward pass may hold.
    pub limits: BatchLimits,
}

/// A model source with what is known of it so far.
#[derive(Debug)]
pub struct LazyModel {
    source: ModelSource,
    model: Option<LanguageModel>,
    input: Option<Input>,
}

impl LazyModel {
    /// Nothing is read yet.
    pub fn new(source: ModelSource) -> Self {
        Self {
            source,
            model: None,
            input: None,
        }
    }

    /// The model's folder.
    pub fn source(&self) -> &ModelSource {
        &self.source
    }

    /// The model, loaded now if it was not.
    ///
    /// # Errors
    /// [`Error::Model`] when it cannot be loaded.
    pub fn model(&mut self) -> Result<&mut LanguageModel, Error> {
        let loaded = match self.model.take() {
            Some(model) => model,
            None => {
                let ModelSource {
                    folder,
                    device,
                    precision,
                    limits,
                } = &self.source;
                let mut model = LanguageModel::load(folder, *device, *precision)?;
                model.set_limits(*limits)?;
                model
            }
        };
        Ok(self.model.insert(loaded))
    }

    /// The model as an input of a result: its folder and hash.
    ///
    /// # Errors
    /// [`Error::Artefact`] when the folder cannot be read.
    pub fn input(&mut self) -> Result<Input, Error> {
        let input = match self.input.take() {
            Some(input) => input,
            None => Input::hash(&self.source.folder)?,
        };
        Ok(self.input.insert(input).clone())
    }
}
