//! Merge adapters by a strategy and write the result as a PEFT folder.

use crate::Error;
use crate::request::{Request, fact};
use sst_merge::{Diagnostics, MergeRecipe, MergeRecord, write_merged};
use std::path::PathBuf;

/// What to merge and how, and where to.
#[derive(Debug, Clone)]
pub struct MergeStep {
    /// Adapters, strategy, settings.
    pub recipe: MergeRecipe,
    /// The command to show in the model card.
    pub command: String,
    /// The merged adapter's folder.
    pub out: PathBuf,
}

/// Merges and writes the adapter with its card; returns what was measured on the way.
///
/// # Errors
/// [`Error::Merge`] when settings or adapters do not fit or cannot be read, [`Error::Taken`].
pub fn merge(step: &MergeStep) -> Result<Diagnostics, Error> {
    let strategy = step.recipe.check()?;
    let request = request(step)?;
    let Some(claim) = request.claim(&step.out)? else {
        return fact(&step.out, "diagnostics", "manifest of a merged adapter");
    };
    let merged = step.recipe.load()?.merge(strategy.as_ref())?;
    let record = MergeRecord {
        recipe: step.recipe.settings(strategy.as_ref()),
        inputs: request.inputs.clone(),
        command: step.command.clone(),
        dtype: step.recipe.dtype,
    };
    write_merged(&step.out, &merged, &record)?;
    claim.seal()?;
    Ok(merged.diagnostics)
}

pub(crate) fn request(step: &MergeStep) -> Result<Request, Error> {
    let recipe = &step.recipe;
    let config = serde_json::json!({
        "strategy": recipe.method, "weights": recipe.weights, "seed": recipe.seed, "dtype": recipe.dtype,
    });
    Ok(Request::new("merge", &config, recipe.inputs()?))
}
