//! Errors of loading and running a model; each names the file, tensor or setting at fault.

use std::path::PathBuf;

/// Anything that can go wrong between a model folder and its answers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
    /// An adapter folder is not usable.
    #[error(transparent)]
    Adapter(#[from] sst_adapter::Error),
    /// The tokenizer or its chat template is not usable.
    #[error(transparent)]
    Tokenizer(#[from] crate::TokenizerError),
    /// A model could not be brought here.
    #[error(transparent)]
    Fetch(#[from] crate::FetchError),
    /// `config.json` asks for something this decoder does not do.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key and what is wrong with it.
        reason: String,
    },
    /// A weight file is missing, truncated, not a safetensors file, or lacks a tensor of the model's shape.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A factor of an adapter has another shape than the model's module asks for.
    #[error("adapter {adapter}: {tensor}: expected shape {expected:?}, found {got:?}; it belongs to another model")]
    Shape {
        /// The name that the adapter was to have.
        adapter: String,
        /// The factor's name.
        tensor: String,
        /// The shape that goes with the module.
        expected: Vec<usize>,
        /// The shape that it has.
        got: Vec<usize>,
    },
    /// An adapter changes a module that the model does not have.
    #[error("adapter {adapter}: {module}: the model has no such linear module; it belongs to another model")]
    Module {
        /// The name that the adapter was to have.
        adapter: String,
        /// The module's path.
        module: String,
    },
    /// The device does not exist here.
    #[error("device {device}: {reason}")]
    Device {
        /// The device as asked for.
        device: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A setting is out of its range.
    #[error("{key} = {value}: {reason}")]
    Setting {
        /// The setting's name.
        key: &'static str,
        /// The value given.
        value: String,
        /// The range it must lie in.
        reason: &'static str,
    },
    /// An example cannot be used, or no usable example is left.
    #[error("{id}: {reason}")]
    Example {
        /// The example's identifier, or the data set's.
        id: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A request names an adapter that is not loaded.
    #[error("adapter {name} is not loaded; loaded are: {loaded}")]
    UnknownAdapter {
        /// The name in the request.
        name: String,
        /// The names that are loaded.
        loaded: String,
    },
    /// Training left the finite numbers.
    #[error("{what} is {value} at step {step}; lower the learning rate (now {learning_rate:e}) or raise the warm-up")]
    Diverged {
        /// The loss or the gradient norm.
        what: &'static str,
        /// NaN or infinite.
        value: f64,
        /// Optimizer step, counted from 1.
        step: usize,
        /// Learning rate at that step.
        learning_rate: f64,
    },
    /// A checkpoint belongs to another run.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The checkpoint file.
        path: PathBuf,
        /// What differs and what to do.
        reason: String,
    },
    /// libtorch refused an operation, most often for want of memory.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
