//! The diagonal of the Fisher information of phi.
//!
//! | estimator | entry i | used as |
//! | --- | --- | --- |
//! | `diag-variance` | population variance of the per-sample gradients g_i | value + ridge |
//! | `diag` | mean of g_i^2 | value + ridge |
//!
//! The file holds the raw values; the estimator's ridge is kept beside them and added by the solver, so that the
//! share of entries that drown in it stays visible. A variance has the mean gradient E_i[g_i] in a file of its own:
//! E_i[g_i^2] is variance + mean^2, and a mean far from zero shows that the adapter's training was not finished.

use super::{FISHER_FILE, GRADIENTS_FILE, GRAM_FILE, KIND, check_setting, read_meta_of};
use crate::tensor_file::TensorFile;
use crate::tensor_writer::{TensorSpec, write_tensors};
use crate::{Error, Estimator, FisherMeta};
use safetensors::Dtype;
use sst_adapter::ParamLayout;
use sst_artefact::{Input, Manifest, retire};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the mean gradient inside the folder of a `diag-variance` Fisher.
pub const MEAN_FILE: &str = "mean.safetensors";

const ESTIMATORS: [Estimator; 2] = [Estimator::DiagVariance, Estimator::Diag];

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

    /// Checks the estimator, the length, the ridge and every entry.
    ///
    /// # Errors
    /// [`Error::Content`] for another family's estimator, [`Error::Length`], [`Error::Setting`] for the ridge,
    /// [`Error::FisherEntry`] for a NaN, infinite or negative entry.
    pub fn check(&self) -> Result<(), Error> {
        self.meta.check_estimator(&ESTIMATORS)?;
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
            for (index, &value) in entries {
                check_entry(&slot.name, index, value)?;
            }
        }
        Ok(())
    }

    /// The mean of several Fishers, summed in f64; samples and tokens add up, everything else is the first one's.
    ///
    /// The adapters that they were measured on may differ, as those of several U do.
    ///
    /// # Errors
    /// [`Error::NoFisher`], [`Error::Layout`] when the layouts differ, [`Error::FisherMeta`] when the estimators,
    /// protocols, ridges or labels do; as [`DiagonalFisher::check`].
    pub fn mean(fishers: &[DiagonalFisher]) -> Result<Self, Error> {
        let (first, rest) = fishers.split_first().ok_or(Error::NoFisher)?;
        for fisher in fishers {
            fisher.check()?;
        }
        let mut mean = first.clone();
        for (i, other) in rest.iter().enumerate() {
            first
                .layout
                .ensure_same(&other.layout, ("Fisher 1", &format!("Fisher {}", i + 2)))?;
            first
                .meta
                .check_alike(&other.meta, &["seed", "stack", "parameters", "weighting"])?;
            mean.meta.samples += other.meta.samples;
            mean.meta.tokens += other.meta.tokens;
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
        let meta = read_meta_of(folder, &ESTIMATORS)?;
        let path = folder.join(FISHER_FILE);
        let (layout, values) = read_values(&TensorFile::open(&path)?)?;
        Self::new(layout, values, meta).map_err(Error::in_file(&path))
    }

    /// The mean gradient beside a `diag-variance` Fisher, `[n]` in the layout's order, where there is one.
    ///
    /// # Errors
    /// A file that is no whole safetensors file, or whose tensors are not those of the Fisher.
    pub fn load_mean(folder: &Path) -> Result<Option<Vec<f32>>, Error> {
        let path = folder.join(MEAN_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let expected = layout_of(&TensorFile::open(&folder.join(FISHER_FILE))?)?;
        let (layout, values) = read_values(&TensorFile::open(&path)?)?;
        expected
            .ensure_same(&layout, (FISHER_FILE, MEAN_FILE))
            .map_err(Error::from)
            .map_err(Error::in_file(&path))?;
        Ok(Some(values))
    }

    /// Writes a Fisher folder; `inputs` are the model, the adapter and the data, hashed by the caller.
    ///
    /// # Errors
    /// As [`DiagonalFisher::check`]; a file that cannot be written.
    pub fn save(&self, folder: &Path, inputs: BTreeMap<String, Input>) -> Result<(), Error> {
        self.check()?;
        retire(folder, &[MEAN_FILE, GRADIENTS_FILE, GRAM_FILE])?;
        let slots = self.layout.slots();
        write_tensors(
            &folder.join(FISHER_FILE),
            BTreeMap::new(),
            &specs(&self.layout),
            |i, sink| sink.f32s(self.values[slots[i].range()].iter().copied()),
        )?;
        write_manifest(
            folder,
            &self.meta,
            inputs,
            self.values.len(),
            self.share_below(self.meta.ridge),
        )
    }
}

/// One F32 matrix per tensor of phi.
pub(crate) fn specs(layout: &ParamLayout) -> Vec<TensorSpec> {
    let slots = layout.slots().iter();
    slots
        .map(|slot| TensorSpec::new(&slot.name, Dtype::F32, [slot.rows, slot.cols]))
        .collect()
}

pub(crate) fn check_entry(tensor: &str, index: usize, value: f32) -> Result<(), Error> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::FisherEntry {
        tensor: tensor.to_owned(),
        index,
        value,
    })
}

pub(crate) fn write_manifest(
    folder: &Path,
    meta: &FisherMeta,
    inputs: BTreeMap<String, Input>,
    parameters: usize,
    share_below_ridge: f64,
) -> Result<(), Error> {
    let mut manifest = Manifest::new(KIND, meta);
    manifest.inputs = inputs;
    manifest.facts = serde_json::json!({"parameters": parameters, "share_below_ridge": share_below_ridge});
    Ok(manifest.write(folder)?)
}

fn layout_of(file: &TensorFile) -> Result<ParamLayout, Error> {
    let shapes = file.names().into_iter().map(|name| {
        let [rows, cols] = file.matrix_of(&name, Dtype::F32)?;
        Ok((name, rows, cols))
    });
    let shapes = shapes.collect::<Result<Vec<_>, Error>>()?;
    ParamLayout::new(shapes)
        .map_err(Error::from)
        .map_err(Error::in_file(file.path()))
}

/// The file's tensors in model order; the order in the file does not matter.
fn read_values(file: &TensorFile) -> Result<(ParamLayout, Vec<f32>), Error> {
    let layout = layout_of(file)?;
    let mut values = Vec::with_capacity(layout.len());
    for slot in layout.slots() {
        values.extend(file.f32s(&slot.name)?);
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
        let mut short = fisher([0.0; 5]);
        short.values.pop();
        let message = DiagonalFisher::mean(&[fisher([0.0; 5]), short])
            .unwrap_err()
            .to_string();
        assert!(message.contains("got 4 values, expected 5"), "{message}");
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

    #[test]
    fn the_file_is_the_earlier_one_with_a_format() {
        let dir = tempfile::tempdir().unwrap();
        let fisher = fisher([1e-9, 0.0, 2e-6, 0.5, 7.0]);
        fisher.save(dir.path(), BTreeMap::new()).unwrap();
        let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|x| x.to_le_bytes()).collect() };
        let (a, b) = (bytes(&fisher.values[..3]), bytes(&fisher.values[3..]));
        let view =
            |shape: [usize; 2], data| safetensors::tensor::TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
        let file = |metadata| safetensors::serialize([(A, view([1, 3], &a)), (B, view([2, 1], &b))], metadata).unwrap();
        let path = dir.path().join(FISHER_FILE);
        let format = std::collections::HashMap::from([("format".to_owned(), "1".to_owned())]);
        assert_eq!(std::fs::read(&path).unwrap(), file(Some(format)));
        std::fs::write(&path, file(None)).unwrap();
        assert_eq!(DiagonalFisher::load(dir.path()).unwrap(), fisher);
    }

    #[test]
    fn the_mean_gradient_is_read_where_it_fits() {
        let dir = tempfile::tempdir().unwrap();
        let fisher = fisher([0.0; 5]);
        fisher.save(dir.path(), BTreeMap::new()).unwrap();
        assert_eq!(DiagonalFisher::load_mean(dir.path()).unwrap(), None);
        let write = |layout: &ParamLayout| {
            write_tensors(
                &dir.path().join(MEAN_FILE),
                BTreeMap::new(),
                &specs(layout),
                |i, sink| sink.f32s((0..layout.slots()[i].len()).map(|j| i as f32 - j as f32)),
            )
        };
        write(&layout()).unwrap();
        let mean = DiagonalFisher::load_mean(dir.path()).unwrap().unwrap();
        assert_eq!(mean, [0.0, -1.0, -2.0, 1.0, 0.0]);
        write(&ParamLayout::new([(A.to_owned(), 1, 2), (B.to_owned(), 2, 1)]).unwrap()).unwrap();
        let message = DiagonalFisher::load_mean(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("[1, 3] in fisher.safetensors but [1, 2] in mean.safetensors"),
            "{message}"
        );
        // Saved without one, the Fisher does not keep the old one's.
        fisher.save(dir.path(), BTreeMap::new()).unwrap();
        assert_eq!(DiagonalFisher::load_mean(dir.path()).unwrap(), None);
    }

    #[test]
    fn another_family_or_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fisher([0.0; 5]).save(dir.path(), BTreeMap::new()).unwrap();
        let kron = FisherMeta::new(Estimator::Kron, "response", 0);
        Manifest::new(KIND, &kron).write(dir.path()).unwrap();
        let message = DiagonalFisher::load(dir.path()).unwrap_err().to_string();
        assert!(
            message.ends_with("estimator: is `kron`, expected `diag-variance` or `diag`"),
            "{message}"
        );
        assert!(DiagonalFisher::new(layout(), vec![0.0; 5], kron).is_err());
        Manifest::new(KIND, &meta()).write(dir.path()).unwrap();
        let path = dir.path().join(FISHER_FILE);
        let mut newer = std::fs::read(&path).unwrap();
        let key = b"\"format\":\"1\"";
        let at = newer.windows(key.len()).position(|bytes| bytes == key).unwrap();
        newer[at + key.len() - 2] = b'2';
        std::fs::write(&path, newer).unwrap();
        let message = DiagonalFisher::load(dir.path()).unwrap_err().to_string();
        assert!(message.contains("format 2") && message.contains("up to 1"), "{message}");
    }

    #[test]
    fn fishers_on_other_adapters_average_but_not_with_other_labels() {
        let mut other = fisher([2.0; 5]);
        (other.meta.stack, other.meta.parameters) = (vec!["U2".into()], Some("U2".into()));
        let mean = DiagonalFisher::mean(&[fisher([0.0; 5]), other.clone()]).unwrap();
        assert_eq!(mean.values, [1.0; 5]);
        other.meta.labels = crate::Labels::Sampled { seed: 1 };
        let message = DiagonalFisher::mean(&[fisher([0.0; 5]), other])
            .unwrap_err()
            .to_string();
        assert!(message.contains("differ in labels: given and"), "{message}");
    }
}
