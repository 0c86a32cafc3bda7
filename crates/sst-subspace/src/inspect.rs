//! What is inside an artefact's folder: its manifest, and numbers that say what it is good for.

mod alike;
mod basis;
mod fisher;
mod mass;

pub use alike::{Alike, FisherAlike, alike};
pub use basis::{BasisSummary, ModuleDirections};
pub use fisher::FisherSummary;
pub use mass::Share;

use crate::fisher::KIND as FISHER;
use crate::shard::KIND as SHARD;
use crate::{Error, Fisher, FisherShard, SafetySubspace, Shard, basis as coordinates, kronecker_basis, sample_basis};
use serde::Serialize;
use sst_artefact::Manifest;
use std::path::Path;

/// An artefact in a few numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// What made it, from what, with which settings.
    pub manifest: Manifest,
    /// What its tensors say; none for kinds that this crate does not know.
    pub contents: Option<Contents>,
}

/// The numbers of one kind of artefact.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant)] // one at a time
pub enum Contents {
    /// A Fisher of any family.
    Fisher(FisherSummary),
    /// A part of an estimate.
    Shard(ShardProgress),
    /// A safety subspace of any kind.
    Basis(BasisSummary),
}

/// How far a shard is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ShardProgress {
    /// Its place in the run.
    pub shard: Shard,
    /// Batches that its sums hold.
    pub batches_done: usize,
    /// Batches of this shard.
    pub batches: usize,
    /// Samples that its sums hold.
    pub samples: u64,
    /// Samples of the whole run.
    pub total_samples: usize,
}

/// Reads and summarises any artefact's folder; `progress` is told the modules done and their number.
///
/// ```
/// use sst_adapter::ParamLayout;
/// use sst_subspace::{DiagonalFisher, Estimator, FisherMeta, inspect};
/// # fn main() -> Result<(), sst_subspace::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let folder = dir.path();
/// let layout = ParamLayout::new([("layers.0.q_proj.lora_A".to_owned(), 1, 2)])?;
/// let meta = FisherMeta::new(Estimator::Diag, "response", 7);
/// DiagonalFisher::new(layout, vec![1.0, 3.0], meta)?.save(folder, Default::default())?;
/// let inspection = inspect::inspect(folder, &mut |_, _| ())?;
/// let Some(inspect::Contents::Fisher(fisher)) = inspection.contents else { panic!() };
/// assert_eq!(fisher.spectrum.trace, 4.0);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// One line that names the file and the part at fault.
pub fn inspect(folder: &Path, progress: &mut dyn FnMut(usize, usize)) -> Result<Inspection, Error> {
    let manifest = Manifest::read(folder)?;
    let contents = match manifest.kind.as_str() {
        FISHER => Some(Contents::Fisher(FisherSummary::of(&Fisher::load(folder)?, progress)?)),
        SHARD => {
            let meta = FisherShard::load(folder)?.meta;
            Some(Contents::Shard(ShardProgress {
                shard: meta.shard,
                batches_done: meta.batches_done,
                batches: meta.batches,
                samples: meta.fisher.samples,
                total_samples: meta.total_samples,
            }))
        }
        coordinates::KIND | sample_basis::KIND | kronecker_basis::KIND => {
            Some(Contents::Basis(BasisSummary::of(&SafetySubspace::load(folder)?)))
        }
        _ => None,
    };
    Ok(Inspection { manifest, contents })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Basis, Estimator, FisherMeta, Selection, ShardMeta, solve::made_up, write_shard};

    #[test]
    fn every_kind_is_known_by_its_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        made_up::kron(&at("fisher"), 1, true);
        let random = Selection::Random { seed: 1 };
        let basis = Basis::new(made_up::layout(), vec![3], Vec::new(), random).unwrap();
        basis.save(&at("basis"), Default::default()).unwrap();
        let meta = ShardMeta {
            fisher: FisherMeta {
                samples: 6,
                ..FisherMeta::new(Estimator::Kron, "response", 0)
            },
            shard: Shard::new(2, 3).unwrap(),
            batches_done: 1,
            batches: 4,
            total_samples: 30,
            request: serde_json::json!({}),
            inputs: Default::default(),
            rows: Vec::new(),
        };
        let nothing = |_: &str| Ok::<Vec<f64>, Error>(Vec::new());
        write_shard(&at("shard"), &meta, Default::default(), &[], nothing).unwrap();
        Manifest::new("evaluation", &()).write(&at("other")).unwrap();
        let contents = |name: &str| inspect(&at(name), &mut |_, _| ()).unwrap().contents;
        assert!(matches!(contents("fisher"), Some(Contents::Fisher(f)) if f.parameters == 51));
        assert!(matches!(contents("basis"), Some(Contents::Basis(b)) if b.k == 1));
        let progress = ShardProgress {
            shard: Shard::new(2, 3).unwrap(),
            batches_done: 1,
            batches: 4,
            samples: 6,
            total_samples: 30,
        };
        assert_eq!(contents("shard"), Some(Contents::Shard(progress)));
        assert_eq!(contents("other"), None);
        assert!(inspect(&at("absent"), &mut |_, _| ()).is_err());
    }
}
