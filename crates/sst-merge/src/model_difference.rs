//! V = W_aligned - W_base from two model folders, such as an instruction-tuned model and the base model that it came from.

use crate::bake::ModelFolder;
use crate::{AlignmentChange, BakeError, Error};
use half::{bf16, f16};
use ndarray::Array2;
use safetensors::Dtype;
use sst_adapter::ModulePath;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Two models on disk, of which one module's weights at a time are read.
///
/// ```no_run
/// use sst_merge::{AlignmentChange, ModelDifference};
/// # fn main() -> Result<(), sst_merge::Error> {
/// let difference = ModelDifference::open("Llama-2-7b-chat-hf".as_ref(), "Llama-2-7b-hf".as_ref())?;
/// let v = difference.change(&"model.layers.0.self_attn.q_proj".into())?;
/// assert_eq!(v.dim(), (4096, 4096));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ModelDifference {
    aligned: ModelFolder,
    base: ModelFolder,
}

impl ModelDifference {
    /// Reads the headers of both models' weights.
    ///
    /// # Errors
    /// [`Error::Bake`] naming the folder or file that is no model in full precision.
    pub fn open(aligned: &Path, base: &Path) -> Result<Self, Error> {
        Ok(Self {
            aligned: ModelFolder::open(aligned)?,
            base: ModelFolder::open(base)?,
        })
    }
}

impl AlignmentChange for ModelDifference {
    /// V, from weights in F32, BF16 or F16, subtracted in f32.
    ///
    /// # Errors
    /// [`Error::Bake`] naming the module that a model lacks, or the tensor of another type or that is no matrix; [`Error::Adapter`] with both
    /// shapes where the models differ; a file that cannot be read.
    fn change(&self, module: &ModulePath) -> Result<Array2<f32>, Error> {
        let (aligned, base) = (weight(&self.aligned, module)?, weight(&self.base, module)?);
        if aligned.dim() != base.dim() {
            let shape = |m: &Array2<f32>| [m.nrows(), m.ncols()];
            return Err(Error::Adapter(sst_adapter::Error::ShapesDiffer {
                tensor: format!("{module}.weight"),
                left: self.aligned.path.display().to_string(),
                left_shape: shape(&aligned),
                right: self.base.path.display().to_string(),
                right_shape: shape(&base),
            }));
        }
        Ok(aligned - &base)
    }
}

/// A module's weight, `[d_out, d_in]`.
fn weight(model: &ModelFolder, module: &ModulePath) -> Result<Array2<f32>, Error> {
    let tensor = format!("{module}.weight");
    let found = model.weights.iter().find_map(|file| {
        let (_, info) = file.tensors.iter().find(|(name, _)| *name == tensor)?;
        Some((file, info))
    });
    let Some((file, info)) = found else {
        return Err(BakeError::MissingTensor {
            module: module.to_string(),
            tensor,
            path: model.path.clone(),
        }
        .into());
    };
    let [d_out, d_in] = info.shape[..] else {
        let path = model.path.join(&file.name);
        let reason = format!(
            "tensor {tensor} has shape {:?}; a linear layer's weight has two dimensions",
            info.shape
        );
        return Err(BakeError::File { path, reason }.into());
    };
    let decode = match info.dtype {
        Dtype::F32 => |bytes: &[u8]| entries(bytes, f32::from_le_bytes),
        Dtype::BF16 => |bytes: &[u8]| entries(bytes, |x| bf16::from_le_bytes(x).to_f32()),
        Dtype::F16 => |bytes: &[u8]| entries(bytes, |x| f16::from_le_bytes(x).to_f32()),
        other => {
            let dtype = format!("{other:?}");
            return Err(BakeError::Type { tensor, dtype }.into());
        }
    };
    let (start, end) = info.data_offsets;
    let path = model.path.join(&file.name);
    let bytes = read_at(&path, file.header + start, end - start).map_err(sst_artefact::Error::io("read", &path))?;
    let weight = Array2::from_shape_vec((d_out, d_in), decode(&bytes));
    weight.map_err(|reason| {
        let reason = format!("tensor {tensor}: {reason}");
        BakeError::File { path, reason }.into()
    })
}

fn entries<const N: usize>(bytes: &[u8], widen: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|entry| widen(*entry)).collect()
}

fn read_at(path: &Path, start: usize, length: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start as u64))?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use safetensors::tensor::TensorView;

    const Q: &str = "model.layers.0.self_attn.q_proj";

    /// A model of one file whose only weight is `q_proj`, `[2, 3]` unless told otherwise.
    fn model(shape: &[usize], dtype: Dtype, bytes: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        // Something before the weight, so that its offset counts.
        let norm = 1f32.to_le_bytes();
        let tensors = [
            (
                "a.weight".to_owned(),
                TensorView::new(Dtype::F32, vec![1], &norm).unwrap(),
            ),
            (
                format!("{Q}.weight"),
                TensorView::new(dtype, shape.to_vec(), bytes).unwrap(),
            ),
        ];
        safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).unwrap();
        folder
    }

    fn bf16s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()
    }

    fn open(aligned: &tempfile::TempDir, base: &tempfile::TempDir) -> ModelDifference {
        ModelDifference::open(aligned.path(), base.path()).unwrap()
    }

    #[test]
    fn weights_of_any_precision_are_subtracted() {
        let f32s: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let f16s: Vec<u8> = [0.5f32; 6]
            .iter()
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect();
        let (aligned, base) = (
            model(&[2, 3], Dtype::F32, &f32s),
            model(&[2, 3], Dtype::BF16, &bf16s(&[0.25; 6])),
        );
        let v = open(&aligned, &base).change(&Q.into()).unwrap();
        assert_eq!(v, array![[0.75, 1.75, 2.75], [3.75, 4.75, 5.75]]);
        let half = model(&[2, 3], Dtype::F16, &f16s);
        assert_eq!(
            open(&half, &base).change(&Q.into()).unwrap(),
            Array2::from_elem((2, 3), 0.25)
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let base = model(&[2, 3], Dtype::BF16, &bf16s(&[0.25; 6]));
        let of = |other: &tempfile::TempDir, module: &str| {
            open(other, &base).change(&module.into()).unwrap_err().to_string()
        };
        let message = of(&base, "model.layers.1.self_attn.q_proj");
        assert!(
            message.contains("layers.1") && message.contains("has no tensor"),
            "{message}"
        );
        let message = of(&model(&[3, 2], Dtype::BF16, &bf16s(&[0.25; 6])), Q);
        assert!(message.contains("[3, 2]") && message.contains("[2, 3]"), "{message}");
        let message = of(&model(&[6], Dtype::BF16, &bf16s(&[0.25; 6])), Q);
        assert!(message.contains("[6]"), "{message}");
        let message = of(&model(&[2, 3], Dtype::U8, &[0; 6]), Q);
        assert!(message.contains("U8"), "{message}");
    }
}
