//! From the shards of a run to the artefact.
//!
//! Sums of the shards are added in f64, in the shards' order, one tensor at a time, and divided by the number of samples
//! (`diag`, `diag-variance`) or the sum of the weights (`kron`); gradients (`samples`) are put in the samples' order.

mod diagonal;
mod kronecker;
#[cfg(test)]
mod made_up;
mod samples;
mod sums;

use crate::{Error, Estimator, FisherMeta, FisherShard, Shard};
use sst_artefact::Input;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Writes the Fisher folder `out` from every shard of one run, given in any order, and returns its configuration.
///
/// The shards stay as they are. Memory: a few tensors, whatever the number of shards.
///
/// # Errors
/// [`Error::ShardSet`] naming a shard that is missing or given twice, [`Error::ShardUnfinished`],
/// [`Error::ShardsDiffer`] naming the first value that two of them do not share; [`Error::Content`],
/// [`Error::FisherEntry`] for sums that are not those of a Fisher; files that cannot be read or written.
pub fn reduce(shards: &[PathBuf], out: &Path) -> Result<FisherMeta, Error> {
    let shards = shards.iter().map(|folder| FisherShard::load(folder));
    let shards = one_run(shards.collect::<Result<_, _>>()?)?;
    let same_folder =
        |shard: &&FisherShard| matches!((shard.folder.canonicalize(), out.canonicalize()), (Ok(s), Ok(o)) if s == o);
    if let Some(shard) = shards.iter().find(same_folder) {
        let reason = format!(
            "shard {} lies in {}: write the Fisher elsewhere",
            shard.meta.shard,
            out.display()
        );
        return Err(Error::ShardSet { reason });
    }
    let mut meta = shards[0].meta.fisher.clone();
    meta.samples = shards.iter().map(|shard| shard.meta.fisher.samples).sum();
    meta.tokens = shards.iter().map(|shard| shard.meta.fisher.tokens).sum();
    let (total, needed) = (shards[0].meta.total_samples as u64, meta.estimator.needed_samples());
    if meta.samples != total || total < needed {
        let reason = format!(
            "the shards hold {} samples; the run has {total}, and `{}` needs {needed}",
            meta.samples, meta.estimator
        );
        return Err(Error::ShardSet { reason });
    }
    let inputs = inputs(&shards)?;
    match meta.estimator {
        Estimator::Diag | Estimator::DiagVariance => diagonal::reduce(&shards, &meta, inputs, out)?,
        Estimator::Kron => kronecker::reduce(&shards, &meta, inputs, out)?,
        Estimator::Samples => samples::reduce(&shards, &meta, inputs, out)?,
    }
    Ok(meta)
}

/// Sorts the shards; checks that they are all of one run, each once, finished.
fn one_run(mut shards: Vec<FisherShard>) -> Result<Vec<FisherShard>, Error> {
    let none = || Error::ShardSet {
        reason: "there is no shard to reduce".to_owned(),
    };
    shards.sort_by_key(|shard| shard.meta.shard.index());
    let (first, rest) = shards.split_first().ok_or_else(none)?;
    for other in rest {
        if let Some(found) = first.meta.run_difference(&other.meta)? {
            return Err(differ(first, other, found.what, found.left, found.right));
        }
    }
    for pair in shards.windows(2) {
        if pair[0].meta.shard == pair[1].meta.shard {
            let [left, right] = [0, 1].map(|i| pair[i].folder.display());
            let reason = format!("shard {} is given twice: {left} and {right}", pair[0].meta.shard);
            return Err(Error::ShardSet { reason });
        }
    }
    let missing = |wanted: &Shard| shards.iter().all(|shard| shard.meta.shard != *wanted);
    if let Some(shard) = Shard::all(first.meta.shard.of()).find(missing) {
        let reason = format!("shard {shard} is missing: run it, or give its folder");
        return Err(Error::ShardSet { reason });
    }
    if let Some(shard) = shards.iter().find(|shard| !shard.is_complete()) {
        return Err(Error::ShardUnfinished {
            shard: shard.meta.shard,
            path: shard.folder.clone(),
            done: shard.meta.batches_done,
            batches: shard.meta.batches,
        });
    }
    Ok(shards)
}

fn differ(left: &FisherShard, right: &FisherShard, what: impl Into<String>, there: String, here: String) -> Error {
    Error::ShardsDiffer {
        what: what.into(),
        left: left.folder.clone(),
        right: right.folder.clone(),
        there,
        here,
    }
}

/// The inputs of all shards by role; the same role must name the same content, wherever it lay.
fn inputs(shards: &[FisherShard]) -> Result<BTreeMap<String, Input>, Error> {
    let mut merged: BTreeMap<String, (&FisherShard, &Input)> = BTreeMap::new();
    for shard in shards {
        for (role, input) in &shard.inputs {
            let (owner, known) = *merged.entry(role.clone()).or_insert((shard, input));
            if known.sha256 != input.sha256 {
                let what = format!("the content of the input `{role}`");
                return Err(differ(owner, shard, what, known.sha256.clone(), input.sha256.clone()));
            }
        }
    }
    Ok(merged
        .into_iter()
        .map(|(role, (_, input))| (role, input.clone()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::made_up::{A, O, Q, diagonal, draw, kron, meta, samples, write};
    use super::*;
    use crate::MEAN_FILE;
    use ndarray::Array2;
    use serde_json::{Value, json};
    use sst_adapter::Dtype;

    /// A run of two shards with one of them changed, and what reducing it says.
    fn refusal(estimator: Estimator, change: impl FnOnce(&mut Value)) -> (String, [String; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let shards = match estimator {
            Estimator::Kron => kron(&dir, 2),
            Estimator::Samples => samples(&dir, Dtype::F32, 2),
            diag => diagonal(&dir, diag, 2),
        };
        let path = shards[1].join(sst_artefact::MANIFEST_FILE);
        let mut manifest: Value = sst_artefact::read_json(&path, "manifest").unwrap();
        change(&mut manifest);
        sst_artefact::write_json(&path, &manifest).unwrap();
        let message = reduce(&shards, &dir.path().join("out")).unwrap_err().to_string();
        assert!(!dir.path().join("out").exists(), "{message}");
        (message, [0, 1].map(|i| shards[i].display().to_string()))
    }

    #[test]
    fn whatever_differs_is_named_with_both_values_and_folders() {
        for (pointer, value, what) in [
            (
                "/config/fisher/estimator",
                json!("diag-variance"),
                "estimator: diag there, diag-variance here",
            ),
            (
                "/config/fisher/protocol",
                json!("legacy-prompt"),
                "protocol: response there, legacy-prompt here",
            ),
            ("/config/fisher/seed", json!(8), "seed: 7 there, 8 here"),
            ("/config/fisher/ridge", json!(0.5), "ridge: 1e-6 there, 0.5 here"),
            ("/config/fisher/stack", json!(["U"]), "stack: [] there, [\"U\"] here"),
            (
                "/config/fisher/parameters",
                json!("U"),
                "parameters: null there, U here",
            ),
            (
                "/config/request/precision",
                json!("bf16"),
                "precision: f32 there, bf16 here",
            ),
            (
                "/config/request/limits/tokens",
                json!(64),
                "limits.tokens: 512 there, 64 here",
            ),
            ("/config/total_samples", json!(9), "total_samples: 14 there, 9 here"),
            ("/config/shard", json!("2/3"), "shards: 2 there, 3 here"),
        ] {
            let (message, [left, right]) = refusal(Estimator::Diag, |m| *m.pointer_mut(pointer).unwrap() = value);
            assert_eq!(message, format!("shards {left} and {right} differ in {what}"));
        }
        let (message, _) = refusal(Estimator::Diag, |m| m["config"]["request"]["batch"] = json!(4));
        assert!(message.ends_with("differ in batch: null there, 4 here"), "{message}");
        let (message, _) = refusal(Estimator::Kron, |m| m["config"]["inputs"] = json!({Q: Q, O: O}));
        let expected = "differ in the input of layers.0.k_proj: layers.0.q_proj there, null here";
        assert!(message.ends_with(expected), "{message}");
        let hashes = |m: &mut Value, sha256: &str| m["inputs"]["model"] = json!({"path": "m", "sha256": sha256});
        let dir = tempfile::tempdir().unwrap();
        let shards = diagonal(&dir, Estimator::Diag, 2);
        for (shard, sha256) in shards.iter().zip(["aa", "bb"]) {
            let path = shard.join(sst_artefact::MANIFEST_FILE);
            let mut manifest: Value = sst_artefact::read_json(&path, "manifest").unwrap();
            hashes(&mut manifest, sha256);
            sst_artefact::write_json(&path, &manifest).unwrap();
        }
        let message = reduce(&shards, &dir.path().join("out")).unwrap_err().to_string();
        assert!(
            message.ends_with("differ in the content of the input `model`: aa there, bb here"),
            "{message}"
        );
    }

    #[test]
    fn only_every_shard_once_and_finished_is_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let (shards, out) = (diagonal(&dir, Estimator::Diag, 3), dir.path().join("out"));
        let message = |shards: &[PathBuf], out: &Path| reduce(shards, out).unwrap_err().to_string();
        assert!(message(&[], &out).contains("no shard"));
        assert!(message(&[shards[2].clone(), shards[0].clone()], &out).contains("shard 2/3 is missing"));
        let twice = [shards.clone(), vec![shards[1].clone()]].concat();
        assert!(message(&twice, &out).contains("shard 2/3 is given twice"));
        assert!(message(&shards, &shards[1]).contains("write the Fisher elsewhere"));
        let (message, [_, path]) = refusal(Estimator::Diag, |m| m["config"]["batches"] = json!(7));
        assert_eq!(
            message,
            format!("shard 2/2 in {path} has done 3 of 7 batches: run it again to finish it")
        );
        let (message, _) = refusal(Estimator::Diag, |m| m["config"]["fisher"]["samples"] = json!(3));
        assert!(message.contains("hold 11 samples; the run has 14"), "{message}");
        let (message, _) = refusal(Estimator::Samples, |m| m["config"]["rows"][0] = json!(0));
        assert!(message.contains("sample 0 has two gradients"), "{message}");
    }

    #[test]
    fn sums_that_are_no_fisher_are_refused_by_name() {
        let refusal = |estimator, sums: &[(&str, Array2<f64>)]| {
            let dir = tempfile::tempdir().unwrap();
            let shard = dir.path().join("shard");
            let mut meta = meta(estimator, Shard::WHOLE);
            meta.inputs = [(Q.into(), Q.into())].into();
            write(
                &shard,
                &meta,
                sums.iter().map(|(name, m)| ((*name).to_owned(), m.clone())).collect(),
            );
            let message = reduce(&[shard], &dir.path().join("out")).unwrap_err().to_string();
            assert!(!dir.path().join("out").join(sst_artefact::MANIFEST_FILE).exists());
            message
        };
        let (one, nan) = (Array2::<f64>::ones((1, 1)), Array2::from_elem((1, 1), f64::NAN));
        let second = format!("second/{A}");
        for (estimator, sums, expected) in [
            (
                Estimator::Diag,
                vec![(second.as_str(), nan.clone())],
                "is or sums to NaN at flat index 0",
            ),
            (
                Estimator::Diag,
                vec![(second.as_str(), -one.clone())],
                "must be finite and not negative",
            ),
            (
                Estimator::Diag,
                vec![(second.as_str(), &one * 1e300)],
                "must be finite and not negative",
            ),
            (
                Estimator::DiagVariance,
                vec![(second.as_str(), one.clone())],
                "first/layers.0.q_proj.lora_A: is missing",
            ),
            (
                Estimator::Diag,
                vec![("third/x", one.clone())],
                "shard: third/x: the sums are not those of a diagonal estimate",
            ),
            (
                Estimator::Diag,
                vec![],
                "second/: the sums are not those of a diagonal estimate",
            ),
            (
                Estimator::Kron,
                vec![("A/layers.0.q_proj", one.clone())],
                "A.weight/layers.0.q_proj: is missing",
            ),
            (
                Estimator::Kron,
                kron_sums(&one, &(&one * 0.0), 1),
                "shard: A.weight/layers.0.q_proj: adds up to 0 over all shards: no token counted",
            ),
            (
                Estimator::Kron,
                kron_sums(&ndarray::array![[1.0, 0.5], [0.0, 1.0]], &one, 1),
                "A: is not symmetric at [0, 1]",
            ),
            (
                Estimator::Kron,
                kron_sums(&draw(1, 2, 0), &one, 1),
                "expected a square matrix",
            ),
            (
                Estimator::Kron,
                kron_sums(&one, &one, 2),
                "shard: G/lm_head: belongs to no layer",
            ),
        ] {
            let message = refusal(estimator, &sums);
            assert!(message.contains(expected), "{expected}: {message}");
        }
    }

    /// A of q with a weight, G of q, and for 2 modules one that nothing else names.
    fn kron_sums(a: &Array2<f64>, weight: &Array2<f64>, modules: usize) -> Vec<(&'static str, Array2<f64>)> {
        let one = Array2::ones((1, 1));
        let mut sums = vec![
            ("A/layers.0.q_proj", a.clone()),
            ("A.weight/layers.0.q_proj", weight.clone()),
            ("G/layers.0.q_proj", one.clone()),
            ("G.weight/layers.0.q_proj", one.clone()),
        ];
        if modules == 2 {
            sums.push(("G/lm_head", one));
        }
        sums
    }

    #[test]
    fn an_artefact_leaves_nothing_of_the_one_it_replaces() {
        let out = tempfile::tempdir().unwrap();
        for estimator in [
            Estimator::DiagVariance,
            Estimator::Diag,
            Estimator::Kron,
            Estimator::Samples,
            Estimator::Diag,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let shards = match estimator {
                Estimator::Kron => kron(&dir, 2),
                Estimator::Samples => samples(&dir, Dtype::F32, 2),
                diag => diagonal(&dir, diag, 2),
            };
            reduce(&shards, out.path()).unwrap();
            assert_eq!(crate::Fisher::load(out.path()).unwrap().meta().estimator, estimator);
            let files = std::fs::read_dir(out.path()).unwrap().count();
            let expected = if [Estimator::Diag, Estimator::Kron].contains(&estimator) {
                2
            } else {
                3
            };
            assert_eq!(files, expected, "{estimator}");
            assert_eq!(
                out.path().join(MEAN_FILE).exists(),
                estimator == Estimator::DiagVariance
            );
        }
    }
}
