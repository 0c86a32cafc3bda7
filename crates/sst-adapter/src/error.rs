//! Errors of adapters; each names the key, module or tensor at fault, and the file when there is one.

use crate::{Dtype, ModulePath};
use std::path::{Path, PathBuf};

/// An adapter could not be read, written, built or combined with another.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
    /// An error inside the named file.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        #[source]
        source: Box<Error>,
    },
    /// An error of the named module.
    #[error("module {module}: {source}")]
    InModule {
        /// The module's path.
        module: String,
        /// What is wrong in it.
        #[source]
        source: Box<Error>,
    },
    /// The file is not a whole safetensors file: cut short, corrupt or something else.
    #[error("not a whole safetensors file: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// A file of `torch.save` that is broken or holds something else than tensors.
    #[error("{entry}: {reason}")]
    Torch {
        /// The entry of the archive, or the tensor.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration key holds a value that is wrong or that we do not support.
    #[error("`{key}` {reason}")]
    Config {
        /// The key of `adapter_config.json`.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// A tensor that is neither a `lora_A` nor a `lora_B` weight.
    #[error("unknown tensor {tensor}: only `base_model.model.<module>.lora_A.weight` and `.lora_B.weight` are known")]
    UnknownTensor {
        /// Its name in the file.
        tensor: String,
    },
    /// One of a module's two tensors is absent.
    #[error("tensor {tensor} is missing")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// Two tensors of the file, or two pairs, stand for the same parameter.
    #[error("tensor {tensor} appears twice")]
    DuplicateTensor {
        /// Its name.
        tensor: String,
    },
    /// A module that the configuration's `target_modules` does not name.
    #[error("module {module} is not among `target_modules`")]
    NotTargeted {
        /// The module's path.
        module: String,
    },
    /// There is no module at all.
    #[error("the adapter has no module")]
    Empty,
    /// A tensor of a type other than f32, bf16 and f16.
    #[error("tensor {tensor} has type {dtype}; f32, bf16 and f16 are supported")]
    TensorType {
        /// Its name.
        tensor: String,
        /// The type in the file.
        dtype: String,
    },
    /// NaN or infinity among the entries.
    #[error("tensor {tensor} holds {value} at flat index {index}")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Row-major index of the first such entry.
        index: usize,
        /// The entry.
        value: f32,
    },
    /// A finite entry that the type asked for cannot hold.
    #[error("tensor {tensor} holds {value}, too large for {dtype}: write it as f32")]
    Overflow {
        /// Its name.
        tensor: String,
        /// The entry.
        value: f32,
        /// The type asked for.
        dtype: Dtype,
    },
    /// A tensor's shape contradicts the configuration or its partner.
    #[error("{op}: tensor {tensor} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The operation that noticed.
        op: &'static str,
        /// The tensor.
        tensor: String,
        /// What the configuration or the partner asks for.
        expected: Vec<usize>,
        /// What it is.
        got: Vec<usize>,
    },
    /// A tensor that is not a matrix.
    #[error("tensor {tensor} has shape {shape:?}; a LoRA factor has two dimensions")]
    NotMatrix {
        /// Its name.
        tensor: String,
        /// Its shape in the file.
        shape: Vec<usize>,
    },
    /// A decomposition did not converge.
    #[error("{op} of shape {shape:?} did not converge")]
    Decomposition {
        /// The operation.
        op: &'static str,
        /// Shape of the matrix, `[d_out, d_in]`.
        shape: [usize; 2],
    },
    /// A flat vector of the wrong length.
    #[error("{op}: got {got} values, the layout has {expected}")]
    Length {
        /// The operation that noticed.
        op: &'static str,
        /// Entries of the layout.
        expected: usize,
        /// Entries given.
        got: usize,
    },
    /// More entries than can be counted, in a tensor or in all of a layout.
    #[error("tensor {tensor} of shape {shape:?} is too large to be addressed")]
    TooLarge {
        /// The first tensor that goes too far.
        tensor: String,
        /// Its shape.
        shape: [usize; 2],
    },
    /// The slots of a layout are not contiguous and in model order.
    #[error("layout: slot {slot} is out of place")]
    Layout {
        /// The first slot at fault.
        slot: String,
    },
    /// Two adapters do not have the same modules.
    #[error("module {module} is in {present} but not in {absent}")]
    TargetsDiffer {
        /// The module's path.
        module: String,
        /// Name of the adapter that has it.
        present: String,
        /// Name of the adapter that lacks it.
        absent: String,
    },
    /// The same tensor has two shapes.
    #[error("tensor {tensor} is {left_shape:?} in {left} but {right_shape:?} in {right}")]
    ShapesDiffer {
        /// The tensor.
        tensor: String,
        /// Name of one adapter.
        left: String,
        /// The shape there.
        left_shape: [usize; 2],
        /// Name of the other adapter.
        right: String,
        /// The shape there.
        right_shape: [usize; 2],
    },
    /// The same module has two scales, so that equal A and B would mean different deltas.
    #[error(
        "module {module} has alpha {left_alpha} (scale {left_scale}) in {left} but alpha {right_alpha} (scale {right_scale}) in {right}"
    )]
    ScalesDiffer {
        /// The module's path.
        module: String,
        /// Name of one adapter.
        left: String,
        /// Its alpha.
        left_alpha: f64,
        /// Its scale.
        left_scale: f64,
        /// Name of the other adapter.
        right: String,
        /// Its alpha.
        right_alpha: f64,
        /// Its scale.
        right_scale: f64,
    },
}

impl Error {
    /// Wraps an error with the file that it was found in.
    pub fn in_file(path: &Path) -> impl FnOnce(Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::InFile {
            path,
            source: Box::new(source),
        }
    }

    /// Wraps an error with the module that it is of.
    pub fn in_module(module: &ModulePath) -> impl FnOnce(Error) -> Error {
        move |source| Error::InModule {
            module: module.to_string(),
            source: Box::new(source),
        }
    }

    pub(crate) fn config(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Config {
            key: key.into(),
            reason: reason.into(),
        }
    }
}
