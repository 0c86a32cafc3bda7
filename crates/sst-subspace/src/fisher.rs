//! The diagonal of the Fisher information of phi, as an artefact on disk.
//!
//! | estimator | entry i | used as |
//! | --- | --- | --- |
//! | `diag-variance` | population variance of the per-sample gradients g_i | value + ridge |
//! | `diag` | mean of g_i^2 | value + ridge |
//!
//! The file holds the raw values; the estimator's ridge is kept beside them and added by the solver, so that the
//! share of entries that drown in it stays visible.

use crate::Error;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sst_adapter::ParamLayout;
use sst_artefact::{Input, Manifest, write_atomic};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Name of the tensors inside a Fisher folder.
pub const FISHER_FILE: &str = "fisher.safetensors";
/// The ridge that the study's estimator added to every entry.
pub const ESTIMATOR_RIDGE: f64 = 1e-6;

const KIND: &str = "fisher";

/// What was averaged over the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimator {
    /// Population variance of the gradient, entry by entry.
    DiagVariance,
    /// Mean square of the gradient, entry by entry.
    Diag,
}

/// How a Fisher was estimated: the configuration of its manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FisherMeta {
    /// What was averaged.
    pub estimator: Estimator,
    /// Which tokens the loss scored.
    pub protocol: String,
    /// Number of samples.
    pub samples: u64,
    /// Number of scored tokens over all samples.
    pub tokens: u64,
    /// Seed of the sample's draw.
    pub seed: u64,
    /// Added to every entry by the solver; not contained in the values.
    pub ridge: f64,
}

impl FisherMeta {
    /// No samples yet, and the default ridge [`ESTIMATOR_RIDGE`].
    pub fn new(estimator: Estimator, protocol: impl Into<String>, seed: u64) -> Self {
        let protocol = protocol.into();
        Self {
            estimator,
            protocol,
            samples: 0,
            tokens: 0,
            seed,
            ridge: ESTIMATOR_RIDGE,
        }
    }
}

/// One non-negative value per entry of phi.
#[derive(Debug, Clone, PartialEq)]
pub struct DiagonalFisher {
    /// Where each tensor's values lie.
    pub layout: ParamLayout,
    /// The values in the layout's order, without the ridge.
    pub values: Vec<f32>,
    /// How they were estimated.
    pub meta: FisherMeta,
}

impl DiagonalFisher {
    /// Takes values in the layout's order.
    ///
    /// # Errors
    /// As [`DiagonalFisher::check`].
    pub fn new(layout: ParamLayout, values: Vec<f32>, meta: FisherMeta) -> Result<Self, Error> {
        let fisher = Self { layout, values, meta };
        fisher.check()?;
        Ok(fisher)
    }

    /// Checks the length, the ridge and every entry.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Setting`] for the ridge, [`Error::FisherEntry`] for a NaN, infinite or negative entry.
    pub fn check(&self) -> Result<(), Error> {
        let (expected, got) = (self.layout.len(), self.values.len());
        if expected != got {
            return Err(Error::Length {
                op: "fisher",
                expected,
                got,
            });
        }
        check_setting("ridge", self.meta.ridge)?;
        for slot in self.layout.slots() {
            let entries = self.values[slot.range()].iter().enumerate();
            if let Some((index, &value)) = entries.into_iter().find(|(_, x)| !(x.is_finite() && **x >= 0.0)) {
                return Err(Error::FisherEntry {
                    tensor: slot.name.clone(),
                    index,
                    value,
                });
            }
        }
        Ok(())
    }

    /// The mean of several Fishers, summed in f64; samples and tokens add up, the seed is the first one's.
    ///
    /// # Errors
    /// [`Error::NoFisher`], [`Error::Layout`] when the layouts differ, [`Error::FisherMeta`] when the estimators,
    /// protocols or ridges do.
    pub fn mean(fishers: &[DiagonalFisher]) -> Result<Self, Error> {
        let (first, rest) = fishers.split_first().ok_or(Error::NoFisher)?;
        let mut mean = first.clone();
        for (i, other) in rest.iter().enumerate() {
            first
                .layout
                .ensure_same(&other.layout, ("Fisher 1", &format!("Fisher {}", i + 2)))?;
            let (l, r) = (&first.meta, &other.meta);
            for (what, left, right) in [
                ("estimator", format!("{:?}", l.estimator), format!("{:?}", r.estimator)),
                ("protocol", l.protocol.clone(), r.protocol.clone()),
                ("ridge", l.ridge.to_string(), r.ridge.to_string()),
            ] {
                if left != right {
                    return Err(Error::FisherMeta { what, left, right });
                }
            }
            mean.meta.samples += r.samples;
            mean.meta.tokens += r.tokens;
        }
        for (i, value) in mean.values.iter_mut().enumerate() {
            let sum: f64 = fishers.iter().map(|fisher| f64::from(fisher.values[i])).sum();
            *value = (sum / fishers.len() as f64) as f32;
        }
        Ok(mean)
    }

    /// Share of the entries, without the ridge, that are smaller than `threshold`.
    pub fn share_below(&self, threshold: f64) -> f64 {
        let below = self.values.iter().filter(|x| f64::from(**x) < threshold).count();
        below as f64 / self.values.len().max(1) as f64
    }

    /// Reads a Fisher folder.
    ///
    /// # Errors
    /// One line that names the file and the tensor or key at fault.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let manifest = Manifest::read(folder)?;
        let manifest_path = folder.join(sst_artefact::MANIFEST_FILE);
        let meta = meta_of(&manifest).map_err(Error::in_file(&manifest_path))?;
        let path = folder.join(FISHER_FILE);
        let bytes = std::fs::read(&path).map_err(sst_artefact::Error::io("read", &path))?;
        read_tensors(&bytes)
            .and_then(|(layout, values)| Self::new(layout, values, meta))
            .map_err(Error::in_file(&path))
    }

    /// Writes a Fisher folder; `inputs` are the model, the adapter and the data, hashed by the caller.
    ///
    /// # Errors
    /// As [`DiagonalFisher::check`]; a file that cannot be written.
    pub fn save(&self, folder: &Path, inputs: BTreeMap<String, Input>) -> Result<(), Error> {
        self.check()?;
        let bytes: Vec<u8> = self.values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let views = self.layout.slots().iter().map(|slot| {
            let range = slot.range();
            let data = &bytes[4 * range.start..4 * range.end];
            Ok((
                &slot.name,
                TensorView::new(Dtype::F32, vec![slot.rows, slot.cols], data)?,
            ))
        });
        let file = safetensors::serialize(views.collect::<Result<Vec<_>, Error>>()?, None)?;
        write_atomic(&folder.join(FISHER_FILE), |w| w.write_all(&file))?;
        let mut manifest = Manifest::new(KIND, &self.meta);
        manifest.inputs = inputs;
        manifest.facts = serde_json::json!({
            "parameters": self.values.len(),
            "share_below_ridge": self.share_below(self.meta.ridge),
        });
        manifest.write(folder)?;
        Ok(())
    }
}

pub(crate) fn check_setting(name: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(Error::Setting { name, value })
    }
}

fn meta_of(manifest: &Manifest) -> Result<FisherMeta, Error> {
    if manifest.kind != KIND {
        return Err(Error::content(
            "kind",
            format!("is `{}`, expected `{KIND}`", manifest.kind),
        ));
    }
    serde_json::from_value(manifest.config.clone()).map_err(|e| Error::content("config", e.to_string()))
}

/// The file's tensors in model order; the order in the file does not matter.
fn read_tensors(bytes: &[u8]) -> Result<(ParamLayout, Vec<f32>), Error> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut shapes = Vec::new();
    for (name, view) in file.iter() {
        let (&[rows, cols], Dtype::F32) = (view.shape(), view.dtype()) else {
            let found = format!(
                "is {:?} of shape {:?}, expected an F32 matrix",
                view.dtype(),
                view.shape()
            );
            return Err(Error::content(name, found));
        };
        shapes.push((name.to_owned(), rows, cols));
    }
    let layout = ParamLayout::new(shapes)?;
    let mut values = Vec::with_capacity(layout.len());
    for slot in layout.slots() {
        let view = file.tensor(&slot.name)?;
        values.extend(view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
    }
    Ok((layout, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "model.layers.2.self_attn.q_proj.lora_A";
    const B: &str = "model.layers.10.self_attn.q_proj.lora_B";

    fn layout() -> ParamLayout {
        ParamLayout::new([(B.to_owned(), 2, 1), (A.to_owned(), 1, 3)]).unwrap()
    }

    fn meta() -> FisherMeta {
        FisherMeta {
            samples: 4,
            tokens: 40,
            ..FisherMeta::new(Estimator::DiagVariance, "response", 7)
        }
    }

    fn fisher(values: [f32; 5]) -> DiagonalFisher {
        DiagonalFisher::new(layout(), values.to_vec(), meta()).unwrap()
    }

    #[test]
    fn survives_the_disk_in_model_order() {
        let dir = tempfile::tempdir().unwrap();
        let fisher = fisher([1e-9, 0.0, 2e-6, 0.5, 7.0]);
        fisher.save(dir.path(), BTreeMap::new()).unwrap();
        // In the file layer 10 comes before layer 2.
        assert_eq!(DiagonalFisher::load(dir.path()).unwrap(), fisher);
        let manifest = Manifest::read(dir.path()).unwrap();
        assert_eq!(manifest.config["estimator"], "diag-variance");
        assert_eq!(manifest.facts["share_below_ridge"], 0.4);
    }

    #[test]
    fn bad_entries_are_named() {
        for bad in [f32::NAN, f32::INFINITY, -1e-9] {
            let message = DiagonalFisher::new(layout(), vec![0.0, 1.0, 1.0, 1.0, bad], meta())
                .unwrap_err()
                .to_string();
            assert!(message.contains(B) && message.contains("index 1"), "{message}");
        }
        let message = DiagonalFisher::new(layout(), vec![0.0], meta())
            .unwrap_err()
            .to_string();
        assert!(message.contains("got 1 values, expected 5"), "{message}");
        let nan = FisherMeta {
            ridge: f64::NAN,
            ..meta()
        };
        assert!(matches!(
            DiagonalFisher::new(layout(), vec![0.0; 5], nan),
            Err(Error::Setting { name: "ridge", .. })
        ));
    }

    #[test]
    fn the_mean_adds_samples_and_insists_on_one_way_of_estimating() {
        let mean =
            DiagonalFisher::mean(&[fisher([1.0, 0.0, 2.0, 3.0, 4.0]), fisher([3.0, 1.0, 2.0, 0.0, 0.0])]).unwrap();
        assert_eq!(mean.values, [2.0, 0.5, 2.0, 1.5, 2.0]);
        assert_eq!((mean.meta.samples, mean.meta.tokens), (8, 80));
        let mut other = fisher([0.0; 5]);
        other.meta.protocol = "legacy-prompt".into();
        let message = DiagonalFisher::mean(&[fisher([0.0; 5]), other])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("protocol") && message.contains("legacy-prompt"),
            "{message}"
        );
        assert!(matches!(DiagonalFisher::mean(&[]), Err(Error::NoFisher)));
        let narrow = ParamLayout::new([(B.to_owned(), 2, 1), (A.to_owned(), 1, 2)]).unwrap();
        let narrow = DiagonalFisher::new(narrow, vec![0.0; 4], meta()).unwrap();
        let message = DiagonalFisher::mean(&[fisher([0.0; 5]), narrow])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("[1, 3] in Fisher 1 but [1, 2] in Fisher 2"),
            "{message}"
        );
    }

    #[test]
    fn shares_count_strictly_below() {
        let fisher = fisher([0.0, 0.5, 1.0, 1.0, 2.0]);
        assert_eq!(fisher.share_below(1.0), 0.4);
        assert_eq!(fisher.share_below(0.0), 0.0);
        assert_eq!(fisher.share_below(9.0), 1.0);
    }

    #[test]
    fn a_cut_file_or_another_artefact_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fisher([0.0; 5]).save(dir.path(), BTreeMap::new()).unwrap();
        let path = dir.path().join(FISHER_FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 2]).unwrap();
        let message = DiagonalFisher::load(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains(FISHER_FILE) && message.contains("safetensors"),
            "{message}"
        );
        Manifest::new("adapter", &meta()).write(dir.path()).unwrap();
        let message = DiagonalFisher::load(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("manifest.json") && message.contains("`adapter`, expected `fisher`"),
            "{message}"
        );
    }
}
