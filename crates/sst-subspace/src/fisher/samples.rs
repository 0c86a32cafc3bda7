//! Per-sample gradients: the exact empirical Fisher F = G^T G / N, of rank N at most.
//!
//! Per module m, G_m is `[N, n_m]`. Everything that a solver needs of F goes through the N x N matrices G_m G_m^T, which
//! are computed once, and through products with G_m, which are streamed.

use super::gradient_file::GradientFile;
use super::{FISHER_FILE, GRADIENTS_FILE, KIND, MEAN_FILE, check_setting, gram, read_meta_of};
use crate::tensor_file::TensorFile;
use crate::tensor_writer::{TensorSpec, write_tensors};
use crate::{Error, Estimator, FisherMeta};
use ndarray::{Array2, ArrayView2};
use safetensors::Dtype;
use sst_adapter::{ModulePath, ParamLayout};
use sst_artefact::{Input, Manifest, retire};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Name of the matrices G_m G_m^T inside the folder of a `samples` Fisher.
pub const GRAM_FILE: &str = "gram.safetensors";

/// Every sample's gradient, memory-mapped, with the Gram matrix of each module.
///
/// ```
/// use ndarray::array;
/// use sst_adapter::{Dtype, ParamLayout};
/// use sst_subspace::{Estimator, FisherMeta, GRADIENTS_FILE, GradientStore, SampleFisher};
/// # fn main() -> Result<(), sst_subspace::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let folder = dir.path();
/// let (layout, q) = (ParamLayout::new([("layers.0.q_proj.lora_A".to_owned(), 1, 2)])?, "layers.0.q_proj".into());
/// let mut store = GradientStore::create(&folder.join(GRADIENTS_FILE), &layout, 3, Dtype::F32)?;
/// store.write_rows(&q, &[0, 1, 2], &[1.0, 0.0, 0.0, 2.0, 1.0, 1.0])?;
/// store.finish()?;
/// let meta = FisherMeta { samples: 3, ..FisherMeta::new(Estimator::Samples, "response", 0) };
/// SampleFisher::seal(folder, &meta, Default::default())?;
/// let fisher = SampleFisher::load(folder)?;
/// assert_eq!(fisher.gram(&q)?, array![[1.0, 0.0, 1.0], [0.0, 4.0, 2.0], [1.0, 2.0, 2.0]]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SampleFisher {
    /// How the gradients were taken.
    pub meta: FisherMeta,
    gradients: GradientFile,
    grams: TensorFile,
}

impl SampleFisher {
    /// Makes an artefact of a folder that holds a finished [`GradientStore`](crate::GradientStore) under [`GRADIENTS_FILE`]: computes the Gram
    /// matrices and writes the manifest.
    ///
    /// # Errors
    /// [`Error::Content`] when the number of rows is not that of the samples or the estimator is another;
    /// [`Error::Setting`] for the ridge; a file that cannot be read or written.
    pub fn seal(folder: &Path, meta: &FisherMeta, inputs: BTreeMap<String, Input>) -> Result<(), Error> {
        meta.check_estimator(&[Estimator::Samples])?;
        check_setting("ridge", meta.ridge)?;
        let gradients = GradientFile::open(&folder.join(GRADIENTS_FILE))?;
        let n = gradients.rows();
        if n as u64 != meta.samples || n == 0 {
            let reason = format!("has {n} rows, but {} samples are said to be measured", meta.samples);
            return Err(Error::in_file(gradients.path())(Error::content("gradients", reason)));
        }
        retire(folder, &[FISHER_FILE, MEAN_FILE, GRAM_FILE])?;
        let modules: Vec<&ModulePath> = gradients.widths().keys().collect();
        let spec = |module: &&ModulePath| TensorSpec::new(module.as_str(), Dtype::F64, [n, n]);
        let specs: Vec<TensorSpec> = modules.iter().map(spec).collect();
        let mut trace = 0.0;
        write_tensors(&folder.join(GRAM_FILE), BTreeMap::new(), &specs, |i, sink| {
            let gram = gram::gram(&gradients, modules[i])?;
            trace += gram.diag().sum();
            sink.f64s(gram)
        })?;
        let mut manifest = Manifest::new(KIND, meta);
        manifest.inputs = inputs;
        manifest.facts = serde_json::json!({
            "parameters": gradients.layout().len(),
            "modules": modules.len(),
            "trace": trace / n as f64,
        });
        Ok(manifest.write(folder)?)
    }

    /// Maps a Fisher folder; entries are read where they are asked for.
    ///
    /// # Errors
    /// One line that names the file and the tensor or key at fault.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let meta = read_meta_of(folder, &[Estimator::Samples])?;
        let gradients = GradientFile::open(&folder.join(GRADIENTS_FILE))?;
        let grams = TensorFile::open(&folder.join(GRAM_FILE))?;
        let n = gradients.rows();
        for module in gradients.widths().keys() {
            let found = grams.matrix_of(module.as_str(), Dtype::F64)?;
            if found != [n, n] {
                let reason = format!("is of shape {found:?}, but there are gradients of {n} samples");
                return Err(grams.error(module.as_str(), reason));
            }
        }
        Ok(Self { meta, gradients, grams })
    }

    /// Where each tensor lies in phi.
    pub fn layout(&self) -> &ParamLayout {
        self.gradients.layout()
    }

    /// The modules in model order, each with its number of entries n_m.
    pub fn modules(&self) -> impl Iterator<Item = (&ModulePath, usize)> {
        self.gradients.widths().iter().map(|(module, width)| (module, *width))
    }

    /// Number of samples N.
    pub fn samples(&self) -> usize {
        self.gradients.rows()
    }

    /// G_m G_m^T, `[N, N]`, not divided by N.
    ///
    /// # Errors
    /// [`Error::Content`] for an unknown module or an entry that is not finite.
    pub fn gram(&self, module: &ModulePath) -> Result<Array2<f64>, Error> {
        let [n, _] = self.grams.matrix_of(module.as_str(), Dtype::F64)?;
        let entries: Vec<f64> = self.grams.f64s(module.as_str())?.collect();
        if let Some(at) = entries.iter().position(|x| !x.is_finite()) {
            let reason = format!("is {} at flat index {at}", entries[at]);
            return Err(self.grams.error(module.as_str(), reason));
        }
        Ok(Array2::from_shape_fn((n, n), |(i, j)| entries[i * n + j]))
    }

    /// Some rows of G_m, `[rows.len(), n_m]`.
    ///
    /// # Errors
    /// [`Error::Content`] for an unknown module or rows beyond N.
    pub fn rows(&self, module: &ModulePath, rows: Range<usize>) -> Result<Array2<f32>, Error> {
        let (height, width) = (rows.len(), self.gradients.width(module)?);
        let entries: Vec<f32> = self.gradients.block(module, rows, 0..width)?;
        Ok(Array2::from_shape_fn((height, width), |(i, j)| entries[i * width + j]))
    }

    /// G_m of this Fisher times the transpose of G_m of another, `[N, N_other]`, in f64.
    ///
    /// # Errors
    /// [`Error::Layout`] naming the tensor when the two are of different parameters; [`Error::Content`] for an unknown
    /// module.
    pub fn cross_gram(&self, other: &SampleFisher, module: &ModulePath) -> Result<Array2<f64>, Error> {
        let [left, right] = [&self.gradients, &other.gradients].map(|file| file.path().display().to_string());
        self.layout().ensure_same(other.layout(), (&left, &right))?;
        gram::cross_gram(&self.gradients, &other.gradients, module)
    }

    /// G_m^T C, `[n_m, k]`, in f64: directions of phi that are combinations of the samples' gradients; C is `[N, k]`.
    ///
    /// # Errors
    /// [`Error::Length`] when C does not have N rows; [`Error::Content`] for an unknown module.
    pub fn combine(&self, module: &ModulePath, coefficients: ArrayView2<f64>) -> Result<Array2<f64>, Error> {
        gram::combine(&self.gradients, module, coefficients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GradientStore;
    use sst_adapter::Dtype as Stored;

    const Q: &str = "layers.0.q_proj";
    const DOWN: &str = "layers.1.down_proj";

    fn layout(rank: usize) -> ParamLayout {
        let tensor = |name: &str, side: &str, rows, cols| (format!("{name}.lora_{side}"), rows, cols);
        let q = [tensor(Q, "A", rank, 3), tensor(Q, "B", 2, rank)];
        ParamLayout::new(
            q.into_iter()
                .chain([tensor(DOWN, "A", rank, 2), tensor(DOWN, "B", 3, rank)]),
        )
        .unwrap()
    }

    /// Two samples; row i of every module is i + 1 in each entry.
    fn fisher(folder: &Path, rank: usize) -> FisherMeta {
        let mut store = GradientStore::create(&folder.join(GRADIENTS_FILE), &layout(rank), 2, Stored::Bf16).unwrap();
        for module in [Q, DOWN] {
            let values: Vec<f32> = [1.0, 2.0].iter().flat_map(|x| vec![*x; 5 * rank]).collect();
            store.write_rows(&module.into(), &[0, 1], &values).unwrap();
        }
        store.finish().unwrap();
        let meta = FisherMeta {
            samples: 2,
            ..FisherMeta::new(Estimator::Samples, "response", 0)
        };
        SampleFisher::seal(folder, &meta, BTreeMap::new()).unwrap();
        meta
    }

    #[test]
    fn the_artefact_knows_its_modules_and_their_trace() {
        let dir = tempfile::tempdir().unwrap();
        let meta = fisher(dir.path(), 4);
        let fisher = SampleFisher::load(dir.path()).unwrap();
        assert_eq!(
            (&fisher.meta, fisher.layout(), fisher.samples()),
            (&meta, &layout(4), 2)
        );
        let modules: Vec<_> = fisher
            .modules()
            .map(|(module, width)| (module.as_str(), width))
            .collect();
        assert_eq!(modules, [(Q, 20), (DOWN, 20)]);
        assert_eq!(
            fisher.gram(&Q.into()).unwrap(),
            ndarray::array![[20.0, 40.0], [40.0, 80.0]]
        );
        assert_eq!(
            fisher.rows(&DOWN.into(), 1..2).unwrap(),
            Array2::from_elem((1, 20), 2.0)
        );
        assert_eq!(
            fisher.cross_gram(&fisher, &Q.into()).unwrap(),
            fisher.gram(&Q.into()).unwrap()
        );
        // tr F = sum over the modules of tr(G G^T) / N.
        assert_eq!(Manifest::read(dir.path()).unwrap().facts["trace"], 100.0);
    }

    #[test]
    fn gradients_of_other_parameters_are_refused_by_tensor() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fisher(one.path(), 1);
        fisher(two.path(), 2);
        let load = |dir: &tempfile::TempDir| SampleFisher::load(dir.path()).unwrap();
        let message = load(&one).cross_gram(&load(&two), &Q.into()).unwrap_err().to_string();
        assert!(message.contains("layers.0.q_proj.lora_A is [1, 3] in"), "{message}");
    }

    #[test]
    fn what_does_not_belong_together_is_refused_by_file() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let meta = fisher(dir.path(), 1);
        let seal = |meta: &FisherMeta| {
            SampleFisher::seal(dir.path(), meta, BTreeMap::new())
                .unwrap_err()
                .to_string()
        };
        let message = seal(&FisherMeta {
            samples: 3,
            ..meta.clone()
        });
        assert!(message.contains("has 2 rows, but 3 samples"), "{message}");
        let message = seal(&FisherMeta {
            estimator: Estimator::Diag,
            ..meta
        });
        assert!(message.contains("is `diag`, expected `samples`"), "{message}");
        let mut store = GradientStore::create(&other.path().join("g"), &layout(1), 3, Stored::F32).unwrap();
        store.write_rows(&Q.into(), &[0], &[0.0; 5]).unwrap();
        store.finish().unwrap();
        std::fs::copy(other.path().join("g"), dir.path().join(GRADIENTS_FILE)).unwrap();
        let message = SampleFisher::load(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("gram.safetensors: layers.0.q_proj: is of shape [2, 2]"),
            "{message}"
        );
        std::fs::copy(dir.path().join(GRAM_FILE), dir.path().join(GRADIENTS_FILE)).unwrap();
        let message = SampleFisher::load(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("gradients.safetensors: layout: is missing"),
            "{message}"
        );
    }
}
