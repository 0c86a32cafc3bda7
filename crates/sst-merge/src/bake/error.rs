//! Errors of adding an adapter to a model's weights; each names the file, the module or the tensor at fault.

use std::path::PathBuf;

/// An adapter could not be added to the weights of its base model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BakeError {
    /// The folder holds no weights in safetensors.
    #[error("{}: holds neither model.safetensors nor model.safetensors.index.json", path.display())]
    NoWeights {
        /// The model folder.
        path: PathBuf,
    },
    /// A file of the model is not what its name promises.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The model's weights are quantised.
    #[error("{}: `quantization_config` says that the weights are quantised; take the model in full precision", path.display())]
    Quantised {
        /// The configuration that says so.
        path: PathBuf,
    },
    /// The module shares its weight with another one, which the adapter does not mean.
    #[error(
        "module {module}: its weight is tied (`tie_word_embeddings`), a change would reach the other end of the model"
    )]
    Tied {
        /// The adapter's module.
        module: String,
    },
    /// The model lacks a module of the adapter.
    #[error("module {module}: {} has no tensor {tensor}", path.display())]
    MissingTensor {
        /// The adapter's module.
        module: String,
        /// The tensor that it changes.
        tensor: String,
        /// The model folder.
        path: PathBuf,
    },
    /// The adapter's change and the model's weight differ in shape.
    #[error("module {module}: the adapter changes a weight of shape {adapter:?}, the model's is {model:?}")]
    Shape {
        /// The adapter's module.
        module: String,
        /// `[d_out, d_in]` of the adapter's change.
        adapter: [usize; 2],
        /// The shape of the model's tensor.
        model: Vec<usize>,
    },
    /// The weight's number type is not one that a change can be added to.
    #[error("tensor {tensor}: is {dtype}; only F32, BF16 and F16 weights can be changed")]
    Type {
        /// The model's tensor.
        tensor: String,
        /// Its number type.
        dtype: String,
    },
    /// The sum does not fit the weight's number type, or the weight was not finite.
    #[error("tensor {tensor}: the sum of weight and change is not finite in {dtype}")]
    NotFinite {
        /// The model's tensor.
        tensor: String,
        /// Its number type.
        dtype: String,
    },
    /// The output folder holds something else.
    #[error("{}: {reason}; give another folder", path.display())]
    Taken {
        /// The output folder.
        path: PathBuf,
        /// What it holds.
        reason: String,
    },
}
