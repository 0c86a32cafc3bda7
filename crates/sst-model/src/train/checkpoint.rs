//! A run interrupted between two steps: factors, moments and progress in one safetensors file.

use crate::Error;
use crate::host::floats;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use tch::{Device, Tensor};

const KEY: &str = "sst_checkpoint";

/// Progress of a run, beside its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// What run this is: settings and hashes of its inputs.
    pub fingerprint: String,
    /// Optimizer steps taken.
    pub step: usize,
    /// Mean loss per token of every step so far.
    pub losses: Vec<f64>,
}

/// Writes named f32 tensors and the progress, atomically.
pub(crate) fn write(path: &Path, progress: &Progress, tensors: &[(String, &Tensor)]) -> Result<(), Error> {
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let bytes = floats(tensor).iter().flat_map(|v| v.to_le_bytes()).collect();
            (name.clone(), tensor.size().iter().map(|&n| n as usize).collect(), bytes)
        })
        .collect();
    let bad = |reason: String| Error::Checkpoint {
        path: path.to_path_buf(),
        reason,
    };
    let views = data
        .iter()
        .map(|(name, shape, bytes)| Ok((name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| bad(e.to_string()))?;
    let text = serde_json::to_string(progress).map_err(|e| bad(e.to_string()))?;
    let metadata = HashMap::from([(KEY.to_owned(), text)]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| bad(e.to_string()))?;
    Ok(sst_artefact::write_atomic(path, |w| w.write_all(&bytes))?)
}

/// Reads a checkpoint of the run `fingerprint` into `tensors`, matched by name and shape; `None` where there is none.
pub(crate) fn read(
    path: &Path,
    fingerprint: &str,
    tensors: &mut [(String, &mut Tensor)],
    device: Device,
) -> Result<Option<Progress>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let bad = |reason: String| Error::Checkpoint {
        path: path.to_path_buf(),
        reason,
    };
    let damaged = |e: &dyn std::fmt::Display| bad(format!("not a whole checkpoint ({e}); delete it to start anew"));
    let bytes = std::fs::read(path).map_err(sst_artefact::Error::io("read", path))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
    let text = header
        .metadata()
        .as_ref()
        .and_then(|m| m.get(KEY))
        .ok_or_else(|| damaged(&"no progress"))?;
    let progress: Progress = serde_json::from_str(text).map_err(|e| damaged(&e))?;
    if progress.fingerprint != fingerprint {
        return Err(bad(
            "belongs to a run with other settings, model or data; delete it, or give another output folder".into(),
        ));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(&e))?;
    for (name, tensor) in tensors {
        let view = file.tensor(name).map_err(|e| damaged(&e))?;
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        if shape != tensor.size() || view.dtype() != Dtype::F32 {
            return Err(damaged(&format!("tensor {name} has another shape or dtype")));
        }
        let stored = Tensor::f_from_data_size(view.data(), &shape, tch::Kind::Float)?.to_device(device);
        tch::no_grad(|| tensor.copy_(&stored));
    }
    Ok(Some(progress))
}
