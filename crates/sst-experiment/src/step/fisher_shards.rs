//! An estimate of a run folder in shards, which lie in its own folder until they are joined there.

use super::FisherStep;
use super::fisher::fisher_shard;
use crate::request::Request;
use crate::{Error, LazyModel, Reporter};
use sst_subspace::Shard;
use std::path::{Path, PathBuf};

/// One shard of the one estimate of a step.
#[derive(Debug)]
pub(crate) struct ShardStep {
    pub(crate) request: Request,
    pub(crate) out: PathBuf,
    shard: Shard,
}

impl ShardStep {
    /// Shard `shard` of the estimate that `whole` asks for.
    pub(crate) fn new(whole: &Request, step: &FisherStep, shard: Shard) -> Self {
        Self {
            request: whole.part("fisher-shard", &serde_json::json!({ "shard": shard })),
            out: folder(&step.estimates[0].out, shard),
            shard,
        }
    }

    /// Computes the shard; an interrupted one goes on. Nothing where it, or the whole estimate, is there.
    ///
    /// # Errors
    /// As [`fisher_shard`].
    pub(crate) fn run(
        &self,
        base: &mut LazyModel,
        whole: &Request,
        step: &FisherStep,
        reporter: &mut dyn Reporter,
    ) -> Result<(), Error> {
        let Some(claim) = self.request.claim(&self.out)? else {
            return Ok(());
        };
        // Another process may have joined the shards, and deleted this one, since the caller looked.
        if whole.is_done(&step.estimates[0].out)? {
            return Ok(());
        }
        let mut step = step.clone();
        step.name = format!("{} shard {}", step.name, self.shard);
        step.estimates[0].out.clone_from(&self.out);
        fisher_shard(base, &step, self.shard, reporter)?;
        claim.seal()
    }
}

/// Joins the `of` shards of a step's one estimate, all of them finished, where that is not done, and deletes them.
///
/// # Errors
/// [`Error::Subspace`] when the shards do not belong together; [`Error::Taken`].
pub(crate) fn reduce(request: &Request, step: &FisherStep, of: usize) -> Result<(), Error> {
    let out = &step.estimates[0].out;
    let shards: Vec<PathBuf> = Shard::all(of).map(|shard| folder(out, shard)).collect();
    if let Some(claim) = request.claim(out)? {
        sst_subspace::reduce(&shards, out)?;
        claim.seal()?;
    }
    for shard in shards.iter().filter(|shard| shard.exists()) {
        // Another process may be at it too; what stays is of no use and does no harm.
        if let Err(error) = std::fs::remove_dir_all(shard) {
            tracing::info!(shard = %shard.display(), %error, "a joined shard was not deleted");
        }
    }
    Ok(())
}

fn folder(estimate: &Path, shard: Shard) -> PathBuf {
    estimate.join(format!("shard-{}-of-{}", shard.index(), shard.of()))
}
