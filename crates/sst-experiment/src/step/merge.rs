//! Merge adapters by a strategy and write the result as a PEFT folder.

use crate::Error;
use crate::request::{Request, fact};
use sst_adapter::{Adapter, Dtype};
use sst_artefact::Input;
use sst_merge::{Diagnostics, MergeInputs, MergeRecord, StrategyConfig, write_merged};
use sst_subspace::PhiBasis;
use std::path::PathBuf;

/// Which adapters, which strategy, and where to.
#[derive(Debug, Clone)]
pub struct MergeStep {
    /// Folders of the utility adapters; several are averaged.
    pub utility: Vec<PathBuf>,
    /// Folder of the safety adapter.
    pub safety: PathBuf,
    /// Folder of the safety subspace, for strategies that need one.
    pub basis: Option<PathBuf>,
    /// The strategy and its settings, not yet checked.
    pub strategy: StrategyConfig,
    /// Seed of the random-subspace control.
    pub seed: u64,
    /// Precision of the written adapter.
    pub dtype: Dtype,
    /// The command to show in the model card.
    pub command: String,
    /// The merged adapter's folder.
    pub out: PathBuf,
}

/// Merges and writes the adapter with its card; returns what was measured on the way.
///
/// # Errors
/// [`Error::Merge`] when settings or adapters do not fit, [`Error::Adapter`], [`Error::Subspace`], [`Error::Taken`].
pub fn merge(step: &MergeStep) -> Result<Diagnostics, Error> {
    let strategy = step.strategy.clone().check()?;
    let request = request(step)?;
    if request.is_done(&step.out)? {
        return fact(&step.out, "diagnostics", "manifest of a merged adapter");
    }
    let utilities = step
        .utility
        .iter()
        .map(|p| Adapter::load(p))
        .collect::<Result<Vec<_>, _>>()?;
    let safety = Adapter::load(&step.safety)?;
    let basis = match &step.basis {
        Some(path) if strategy.needs_basis() => Some(PhiBasis::load(path)?),
        _ => None,
    };
    let mut inputs = MergeInputs::new(&utilities, &safety).with_control_seed(step.seed);
    if let Some(basis) = &basis {
        inputs = inputs.with_basis(basis);
    }
    let merged = strategy.merge(&inputs)?;
    let record = MergeRecord {
        recipe: strategy.config(),
        inputs: request.inputs.clone(),
        command: step.command.clone(),
        dtype: step.dtype,
    };
    write_merged(&step.out, &merged, &record)?;
    request.seal(&step.out)?;
    Ok(merged.diagnostics)
}

pub(crate) fn request(step: &MergeStep) -> Result<Request, Error> {
    let mut inputs = vec![("safety".to_owned(), Input::hash(&step.safety)?)];
    for (i, path) in step.utility.iter().enumerate() {
        inputs.push((format!("utility_{i}"), Input::hash(path)?));
    }
    if let Some(basis) = &step.basis {
        inputs.push(("basis".to_owned(), Input::hash(basis)?));
    }
    let config = serde_json::json!({
        "strategy": step.strategy, "control_seed": step.seed, "dtype": step.dtype,
    });
    Ok(Request::new("merge", &config, inputs))
}
