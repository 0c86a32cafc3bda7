//! A part of a Fisher estimate on disk: sums over some of the run's batches.
//!
//! Batch b of a run of n shards belongs to shard i = b mod n + 1. A run checkpoints its sums into such a folder, a shard is
//! its finished checkpoint, and [`reduce`](crate::reduce) makes the artefact of all shards of a run, be it of one.
//!
//! | estimator | tensors, all F64 | shape |
//! | --- | --- | --- |
//! | `diag` | `second/{tensor of phi}`: sum of g_i^2 | that of the tensor |
//! | `diag-variance` | the same, and `first/{tensor of phi}`: sum of g_i | that of the tensor |
//! | `kron` | `A/{input}`: sum of w_t x_t x_t^T; `A.weight/{input}`: sum of w_t | `[d_in, d_in]`; `[1, 1]` |
//! | | `G/{module}`: sum of v_t d_t d_t^T; `G.weight/{module}`: sum of v_t | `[d_out, d_out]`; `[1, 1]` |
//! | `samples` | none; a [`GradientStore`](crate::GradientStore) lies beside the manifest | |

mod place;

pub use place::Shard;

use crate::fisher::{Difference, config_of, difference};
use crate::tensor_file::TensorFile;
use crate::tensor_writer::{TensorSpec, write_tensors};
use crate::{Error, FisherMeta};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sst_adapter::ModulePath;
use sst_artefact::{Input, MANIFEST_FILE, Manifest, sha256_bytes};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

pub(crate) const KIND: &str = "fisher-shard";
/// Key of the number of batches in the sums' metadata, and of the sums' file in the manifest's facts.
const BATCHES_KEY: &str = "batches_done";
const SUMS_KEY: &str = "sums";
const SUMS_PREFIX: &str = "sums-";
/// How an interrupted write of the sums begins.
const WRITING_PREFIX: &str = ".writing-";

/// What a shard's sums are of: the configuration of its manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardMeta {
    /// How the Fisher is estimated; samples and tokens are of this shard so far.
    pub fisher: FisherMeta,
    /// Its place in the run.
    pub shard: Shard,
    /// Batches that the sums hold.
    pub batches_done: usize,
    /// Batches of this shard.
    pub batches: usize,
    /// Samples of the whole run.
    pub total_samples: usize,
    /// Everything else that the shards of a run must share, as named values: hashes, limits, precision.
    pub request: serde_json::Value,
    /// `kron`: from a module to the one that its A is stored under.
    #[serde(default)]
    pub inputs: BTreeMap<ModulePath, ModulePath>,
    /// `samples`: the number within the run of the sample of each row of the gradient store.
    #[serde(default)]
    pub rows: Vec<u64>,
}

impl ShardMeta {
    fn check(&self) -> Result<(), Error> {
        if self.batches_done > self.batches {
            let reason = format!("is {} of {} batches", self.batches_done, self.batches);
            return Err(Error::content(BATCHES_KEY, reason));
        }
        if !self.request.is_object() {
            return Err(Error::content("request", "is not an object of named values"));
        }
        Ok(())
    }

    /// The first value that two shards of one run would share and these do not.
    pub(crate) fn run_difference(&self, other: &ShardMeta) -> Result<Option<Difference>, Error> {
        let run = |meta: &ShardMeta| json!({"shards": meta.shard.of(), "total_samples": meta.total_samples});
        let fisher = self.fisher.difference(&other.fisher, &[])?;
        Ok(fisher
            .or_else(|| difference(&self.request, &other.request))
            .or_else(|| difference(&run(self), &run(other))))
    }
}

/// Writes a checkpoint of a shard: the sums one tensor at a time, then the manifest that names them.
///
/// An interrupted write leaves the previous checkpoint valid. `tensors` are names and shapes, `fill` gives the row-major
/// entries of one; without tensors (`samples`, or no batch yet) there is no file of sums.
///
/// ```
/// use sst_subspace::{Error, Estimator, FisherMeta, FisherShard, Shard, ShardMeta, reduce, write_shard};
/// # fn main() -> Result<(), Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let (shard, out) = (dir.path().join("shard"), dir.path().join("fisher"));
/// let meta = ShardMeta {
///     fisher: FisherMeta { samples: 2, ..FisherMeta::new(Estimator::Diag, "response", 0) },
///     shard: Shard::WHOLE,
///     batches_done: 1,
///     batches: 1,
///     total_samples: 2,
///     request: serde_json::json!({"precision": "f32"}),
///     inputs: Default::default(),
///     rows: Vec::new(),
/// };
/// let tensors = [("second/layers.0.q_proj.lora_A".to_owned(), [1, 2])];
/// write_shard(&shard, &meta, Default::default(), &tensors, |_| Ok::<_, Error>(vec![3.0, 5.0]))?;
/// assert!(FisherShard::load(&shard)?.is_complete());
/// reduce(&[shard], &out)?;
/// assert_eq!(sst_subspace::DiagonalFisher::load(&out)?.values, [1.5, 2.5]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Content`] for a malformed `meta` or a tensor filled with the wrong number of entries; whatever `fill` returns;
/// a file that cannot be written.
pub fn write_shard<E: From<Error>>(
    folder: &Path,
    meta: &ShardMeta,
    inputs: BTreeMap<String, Input>,
    tensors: &[(String, [usize; 2])],
    mut fill: impl FnMut(&str) -> Result<Vec<f64>, E>,
) -> Result<(), E> {
    meta.check()?;
    let sums = if tensors.is_empty() {
        None
    } else {
        let name = sums_name(meta)?;
        let spec = |(name, shape): &(String, [usize; 2])| TensorSpec::new(name, Dtype::F64, *shape);
        let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
        let metadata = BTreeMap::from([(BATCHES_KEY.to_owned(), meta.batches_done.to_string())]);
        write_tensors(&folder.join(&name), metadata, &specs, |i, sink| {
            Ok::<_, E>(sink.f64s(fill(&specs[i].name)?)?)
        })?;
        Some(name)
    };
    seal(folder, meta, inputs, sums.as_deref())?;
    Ok(())
}

/// Named by everything that the manifest will say, so that no two checkpoints ever share a file.
fn sums_name(meta: &ShardMeta) -> Result<String, Error> {
    let text = serde_json::to_vec(meta).map_err(|e| Error::content("config", e.to_string()))?;
    Ok(format!(
        "{SUMS_PREFIX}{}-{:.12}.safetensors",
        meta.batches_done,
        sha256_bytes(&text)
    ))
}

/// Writes the manifest; once it is on the disk, removes what earlier checkpoints and interrupted writes left.
fn seal(folder: &Path, meta: &ShardMeta, inputs: BTreeMap<String, Input>, sums: Option<&str>) -> Result<(), Error> {
    let mut manifest = Manifest::new(KIND, meta);
    manifest.inputs = inputs;
    manifest.facts = json!({SUMS_KEY: sums});
    manifest.write(folder)?;
    let path = folder.join(MANIFEST_FILE);
    let synced = File::open(&path).and_then(|file| file.sync_all());
    synced.map_err(sst_artefact::Error::io("write", &path))?;
    for entry in std::fs::read_dir(folder).map_err(sst_artefact::Error::io("read", folder))? {
        let path = entry.map_err(sst_artefact::Error::io("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let leftover = name.starts_with(SUMS_PREFIX) || name.starts_with(WRITING_PREFIX);
        if leftover && Some(&*name) != sums {
            std::fs::remove_file(&path).map_err(sst_artefact::Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// A shard's folder: its sums are memory-mapped, and read where they are asked for.
#[derive(Debug)]
pub struct FisherShard {
    /// What the sums are of.
    pub meta: ShardMeta,
    /// Where it lies.
    pub folder: PathBuf,
    /// The model, the adapters and the data.
    pub inputs: BTreeMap<String, Input>,
    sums: Option<TensorFile>,
}

impl FisherShard {
    /// Reads the latest checkpoint in a shard's folder, finished or not.
    ///
    /// # Errors
    /// One line that names the file and the key at fault.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let manifest = Manifest::read(folder)?;
        let in_manifest = |error| Error::in_file(&folder.join(MANIFEST_FILE))(error);
        let meta: ShardMeta = config_of(&manifest, KIND).map_err(in_manifest)?;
        meta.check().map_err(in_manifest)?;
        let sums = match &manifest.facts[SUMS_KEY] {
            serde_json::Value::Null => None,
            // A file of this folder, never a path out of it.
            serde_json::Value::String(name) if Path::new(name).file_name() == Some(name.as_ref()) => {
                Some(TensorFile::open(&folder.join(name))?)
            }
            other => {
                return Err(in_manifest(Error::content(
                    SUMS_KEY,
                    format!("is {other}, not a file name"),
                )));
            }
        };
        if let Some(file) = &sums {
            let found: usize = file.metadata_json(BATCHES_KEY)?;
            if found != meta.batches_done {
                let reason = format!("is {found}, but the manifest says {}", meta.batches_done);
                return Err(file.error(BATCHES_KEY, reason));
            }
        }
        Ok(Self {
            meta,
            folder: folder.to_path_buf(),
            inputs: manifest.inputs,
            sums,
        })
    }

    /// Whether every batch of the shard is in the sums.
    pub fn is_complete(&self) -> bool {
        self.meta.batches_done == self.meta.batches
    }

    /// Checks that a run with the configuration `wanted` can go on from this checkpoint; progress may differ.
    ///
    /// # Errors
    /// [`Error::Content`] naming the manifest and the first value that differs, with both.
    pub fn check_resume(&self, wanted: &ShardMeta) -> Result<(), Error> {
        let part = |meta: &ShardMeta| json!({"shard": meta.shard, "batches": meta.batches});
        let found = self.meta.run_difference(wanted)?;
        let Some(found) = found.or_else(|| difference(&part(&self.meta), &part(wanted))) else {
            return Ok(());
        };
        let reason = format!(
            "is {} in this checkpoint, {} in the run that would go on from it",
            found.left, found.right
        );
        Err(Error::in_file(&self.folder.join(MANIFEST_FILE))(Error::content(
            found.what, reason,
        )))
    }

    /// The tensors of the sums in the file's order.
    pub fn names(&self) -> Vec<String> {
        self.sums.as_ref().map_or_else(Vec::new, TensorFile::names)
    }

    /// Shape of one tensor of the sums.
    ///
    /// # Errors
    /// [`Error::Content`] when there is no such tensor or it is not F64.
    pub fn shape(&self, name: &str) -> Result<[usize; 2], Error> {
        self.file(name)?.matrix_of(name, Dtype::F64)
    }

    /// The entries of one tensor of the sums, row-major.
    ///
    /// # Errors
    /// [`Error::Content`] when there is no such tensor or it is not F64.
    pub fn tensor(&self, name: &str) -> Result<Vec<f64>, Error> {
        Ok(self.entries(name)?.collect())
    }

    pub(crate) fn entries(&self, name: &str) -> Result<impl ExactSizeIterator<Item = f64>, Error> {
        self.file(name)?.f64s(name)
    }

    fn file(&self, name: &str) -> Result<&TensorFile, Error> {
        let missing = || Error::in_file(&self.folder)(Error::content(name, "is missing: the shard holds no sums"));
        self.sums.as_ref().ok_or_else(missing)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Estimator;

    pub(crate) fn meta(estimator: Estimator, shard: Shard) -> ShardMeta {
        ShardMeta {
            fisher: FisherMeta::new(estimator, "response", 7),
            shard,
            batches_done: 1,
            batches: 1,
            total_samples: 4,
            request: json!({"precision": "f32", "limits": {"tokens": 512}}),
            inputs: BTreeMap::new(),
            rows: Vec::new(),
        }
    }

    fn shard(index: usize, of: usize) -> Shard {
        Shard::new(index, of).unwrap()
    }

    fn write(folder: &Path, done: usize, value: f64) -> Result<(), Error> {
        let meta = ShardMeta {
            batches_done: done,
            batches: 3,
            ..meta(Estimator::Diag, shard(2, 4))
        };
        let tensors = [("second/a".to_owned(), [1, 2]), ("second/b".to_owned(), [1, 1])];
        write_shard(folder, &meta, BTreeMap::new(), &tensors, |name| match name {
            "second/a" => Ok(vec![value, -value]),
            _ if value.is_nan() => Err(Error::NoFisher),
            _ => Ok(vec![value]),
        })
    }

    fn sums(folder: &Path) -> Vec<PathBuf> {
        let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        names
            .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
            .collect()
    }

    #[test]
    fn a_checkpoint_survives_the_disk_and_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        for (done, value) in [(1, 0.1), (2, 0.3), (3, 1e-300)] {
            write(dir.path(), done, value).unwrap();
            let shard = FisherShard::load(dir.path()).unwrap();
            assert_eq!((shard.meta.batches_done, shard.is_complete()), (done, done == 3));
            assert_eq!(shard.tensor("second/a").unwrap(), [value, -value]);
            assert_eq!(shard.shape("second/a").unwrap(), [1, 2]);
            assert_eq!(shard.names(), ["second/a", "second/b"]);
            assert_eq!(sums(dir.path()).len(), 1);
        }
        let error = FisherShard::load(dir.path()).unwrap().tensor("first/a").unwrap_err();
        assert!(error.to_string().ends_with("first/a: is missing"), "{error}");
    }

    #[test]
    fn an_interrupted_write_leaves_the_previous_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1, 0.5).unwrap();
        let first = std::fs::read(dir.path().join(MANIFEST_FILE)).unwrap();
        let valid = |expected: f64| {
            let shard = FisherShard::load(dir.path()).unwrap();
            assert_eq!(shard.tensor("second/b").unwrap(), [expected]);
        };
        // While the sums are written.
        assert!(matches!(write(dir.path(), 2, f64::NAN), Err(Error::NoFisher)));
        std::fs::write(dir.path().join(".writing-x1y2"), b"half of the sums").unwrap();
        valid(0.5);
        // Between the sums and the manifest, with as many batches done or more.
        let other = tempfile::tempdir().unwrap();
        for done in [1, 2] {
            write(other.path(), done, 0.75).unwrap();
            let next = &sums(other.path())[0];
            std::fs::copy(next, dir.path().join(format!("sums-{done}-0123456789ab.safetensors"))).unwrap();
            valid(0.5);
        }
        assert_eq!(std::fs::read(dir.path().join(MANIFEST_FILE)).unwrap(), first);
        // The next whole write clears up.
        write(dir.path(), 2, 0.25).unwrap();
        valid(0.25);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn sums_of_another_checkpoint_or_artefact_are_refused() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(dir.path(), 1, 0.5).unwrap();
        write(other.path(), 2, 0.5).unwrap();
        std::fs::copy(&sums(other.path())[0], &sums(dir.path())[0]).unwrap();
        let message = FisherShard::load(dir.path()).unwrap_err().to_string();
        assert!(
            message.ends_with("batches_done: is 2, but the manifest says 1"),
            "{message}"
        );
        let mut manifest = Manifest::read(other.path()).unwrap();
        manifest.facts = json!({"sums": "../sums.safetensors"});
        manifest.write(other.path()).unwrap();
        let message = FisherShard::load(other.path()).unwrap_err().to_string();
        assert!(message.contains("not a file name"), "{message}");
        Manifest::new("fisher", &json!({})).write(other.path()).unwrap();
        let message = FisherShard::load(other.path()).unwrap_err().to_string();
        assert!(message.contains("`fisher`, expected `fisher-shard`"), "{message}");
    }

    #[test]
    fn a_run_goes_on_from_its_own_checkpoint_alone() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 1, 0.5).unwrap();
        let shard = FisherShard::load(dir.path()).unwrap();
        let mut later = shard.meta.clone();
        (later.batches_done, later.fisher.samples, later.fisher.tokens) = (3, 9, 90);
        shard.check_resume(&later).unwrap();
        let message = |change: &dyn Fn(&mut ShardMeta)| {
            let mut other = later.clone();
            change(&mut other);
            shard.check_resume(&other).unwrap_err().to_string()
        };
        let seed = message(&|m| m.fisher.seed = 8);
        assert!(
            seed.ends_with("manifest.json: seed: is 7 in this checkpoint, 8 in the run that would go on from it"),
            "{seed}"
        );
        assert!(message(&|m| m.request["precision"] = json!("bf16")).contains("precision: is f32"));
        assert!(message(&|m| m.shard = self::shard(1, 4)).contains("shard: is 2/4"));
        assert!(message(&|m| m.shard = self::shard(2, 5)).contains("shards: is 4"));
        assert!(message(&|m| m.batches = 4).contains("batches: is 3"));
        assert!(message(&|m| m.total_samples = 5).contains("total_samples: is 4"));
    }

    #[test]
    fn malformed_shards_are_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let message = |change: &dyn Fn(&mut ShardMeta)| {
            let mut meta = meta(Estimator::Samples, Shard::WHOLE);
            change(&mut meta);
            let none = |_: &str| Ok::<_, Error>(Vec::new());
            write_shard(dir.path(), &meta, BTreeMap::new(), &[], none)
                .unwrap_err()
                .to_string()
        };
        assert!(message(&|m| m.batches_done = 2).contains("2 of 1 batches"));
        assert!(message(&|m| m.request = json!(3)).contains("request"));
        assert!(!dir.path().join(MANIFEST_FILE).exists());
    }
}
