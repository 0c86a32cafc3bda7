//! Kronecker-factored Fisher information of whole linear layers (Martens & Grosse 2015, equation 1).
//!
//! Of a layer y = W x with inputs x_t and output gradients d_t over the tokens t,
//!
//! - A = sum_t w_t x_t x_t^T / sum_t w_t, `[d_in, d_in]`;
//! - G = sum_t v_t d_t d_t^T / sum_t v_t, `[d_out, d_out]`;
//!
//! and the Fisher of vec(W) is approximated by G (x) A. Layers that read the same input (q, k, v; gate, up) share A, which
//! is stored once, under the first of them.

use super::{FISHER_FILE, GRADIENTS_FILE, GRAM_FILE, KIND, MEAN_FILE, check_setting, read_meta_of};
use crate::tensor_file::TensorFile;
use crate::tensor_writer::{TensorSpec, write_tensors};
use crate::{Error, Estimator, FisherMeta};
use ndarray::Array2;
use safetensors::Dtype;
use sst_adapter::ModulePath;
use sst_artefact::{Input, Manifest, retire};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Key of the map from a module to the one that its A is stored under.
const INPUTS_KEY: &str = "inputs";

/// Entry (i, j) may differ from (j, i) by this share of sqrt(m_ii m_jj): the two sums run over the same f32 products, of
/// that magnitude at most, in another order.
const SYMMETRY_TOLERANCE: f64 = 1e-4;

/// Rows and columns of a tile while a matrix is compared with its transpose: two tiles fit the first-level cache.
const TILE: usize = 32;

/// The two factors of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct KroneckerFactors {
    /// A: covariance of the inputs, `[d_in, d_in]`.
    pub input: Array2<f64>,
    /// G: covariance of the output gradients, `[d_out, d_out]`.
    pub output: Array2<f64>,
}

/// Two covariances per LoRA'd linear layer, memory-mapped.
///
/// ```
/// use ndarray::array;
/// use sst_subspace::{Estimator, FisherMeta, KroneckerFactors, KroneckerFisher};
/// # fn main() -> Result<(), sst_subspace::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let folder = dir.path();
/// let factors = KroneckerFactors { input: array![[2.0, 1.0], [1.0, 2.0]], output: array![[3.0]] };
/// let meta = FisherMeta::new(Estimator::Kron, "response", 0);
/// KroneckerFisher::save(folder, &meta, &[("layers.0.q_proj".into(), factors.clone())].into(), Default::default())?;
/// let fisher = KroneckerFisher::load(folder)?;
/// assert_eq!(fisher.factors(&"layers.0.q_proj".into())?, factors);
/// assert_eq!(fisher.trace(&"layers.0.q_proj".into())?, 12.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KroneckerFisher {
    /// How the factors were estimated.
    pub meta: FisherMeta,
    file: TensorFile,
    inputs: BTreeMap<ModulePath, ModulePath>,
}

impl KroneckerFisher {
    /// Maps a Fisher folder and checks names and shapes, not the entries.
    ///
    /// # Errors
    /// One line that names the file and the tensor or key at fault.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let meta = read_meta_of(folder, &[Estimator::Kron])?;
        let file = TensorFile::open(&folder.join(FISHER_FILE))?;
        let inputs: BTreeMap<ModulePath, ModulePath> = file.metadata_json(INPUTS_KEY)?;
        let expected = tensor_names(&inputs);
        for name in &expected {
            let [rows, cols] = file.matrix_of(name, Dtype::F32)?;
            if rows != cols {
                return Err(file.error(
                    name,
                    format!("is of shape {:?}, expected a square matrix", [rows, cols]),
                ));
            }
        }
        if let Some(name) = file.names().iter().find(|name| !expected.contains(*name)) {
            return Err(file.error(name, format!("belongs to no module of the key `{INPUTS_KEY}`")));
        }
        Ok(Self { meta, file, inputs })
    }

    /// The layers in model order.
    pub fn modules(&self) -> impl Iterator<Item = &ModulePath> {
        self.inputs.keys()
    }

    /// The layer under which A of this one is stored: layers with the same answer share their A.
    ///
    /// # Errors
    /// [`Error::Content`] for an unknown module.
    pub fn input(&self, module: &ModulePath) -> Result<&ModulePath, Error> {
        let input = self.inputs.get(module);
        input.ok_or_else(|| self.file.error(module.as_str(), "is no module of this Fisher"))
    }

    /// Shape of the layer's weight, `[d_out, d_in]`.
    ///
    /// # Errors
    /// [`Error::Content`] for an unknown module.
    pub fn shape(&self, module: &ModulePath) -> Result<[usize; 2], Error> {
        let (a, g) = (input_name(self.input(module)?), output_name(module));
        let size = |name: &str| Ok::<_, Error>(self.file.matrix(name)?.1[0]);
        Ok([size(&g)?, size(&a)?])
    }

    /// A and G of a layer, exactly symmetric.
    ///
    /// # Errors
    /// [`Error::Content`] for an unknown module, or naming the factor that is not finite, not symmetric or has a negative
    /// diagonal.
    pub fn factors(&self, module: &ModulePath) -> Result<KroneckerFactors, Error> {
        Ok(KroneckerFactors {
            input: self.input_factor(module)?,
            output: self.output_factor(module)?,
        })
    }

    /// A of a layer alone, `[d_in, d_in]`, exactly symmetric.
    ///
    /// # Errors
    /// As [`KroneckerFisher::factors`].
    pub fn input_factor(&self, module: &ModulePath) -> Result<Array2<f64>, Error> {
        self.factor(&input_name(self.input(module)?))
    }

    /// G of a layer alone, `[d_out, d_out]`, exactly symmetric.
    ///
    /// # Errors
    /// As [`KroneckerFisher::factors`].
    pub fn output_factor(&self, module: &ModulePath) -> Result<Array2<f64>, Error> {
        self.input(module)?;
        self.factor(&output_name(module))
    }

    fn factor(&self, name: &str) -> Result<Array2<f64>, Error> {
        let [n, _] = self.file.matrix_of(name, Dtype::F32)?;
        let mut entries: Vec<f64> = self.file.f32s(name)?.map(f64::from).collect();
        symmetrise(&mut entries, n).map_err(|reason| self.file.error(name, reason))?;
        Ok(Array2::from_shape_vec((n, n), entries).expect("the file's reader checked the length"))
    }

    /// tr(G (x) A) = tr(G) tr(A), read from the diagonals alone.
    ///
    /// # Errors
    /// [`Error::Content`] for an unknown module, or naming the factor whose trace is not finite or negative.
    pub fn trace(&self, module: &ModulePath) -> Result<f64, Error> {
        let read = |name: &str| {
            let [n, _] = self.file.matrix_of(name, Dtype::F32)?;
            let trace: f64 = self.file.f32s(name)?.step_by(n + 1).map(f64::from).sum();
            if trace.is_finite() && trace >= 0.0 {
                Ok(trace)
            } else {
                Err(self.file.error(name, format!("has trace {trace}")))
            }
        };
        Ok(read(&output_name(module))? * read(&input_name(self.input(module)?))?)
    }

    /// Writes a Fisher folder from factors in memory, every layer with an A of its own.
    ///
    /// # Errors
    /// [`Error::Content`] naming the factor that is not square, finite and symmetric; [`Error::Setting`] for the ridge; a
    /// file that cannot be written.
    pub fn save(
        folder: &Path,
        meta: &FisherMeta,
        factors: &BTreeMap<ModulePath, KroneckerFactors>,
        inputs: BTreeMap<String, Input>,
    ) -> Result<(), Error> {
        let own: BTreeMap<_, _> = factors.keys().map(|module| (module.clone(), module.clone())).collect();
        let named = factors.iter().flat_map(|(module, f)| {
            let factors = [(input_name(module), &f.input), (output_name(module), &f.output)];
            factors.into_iter()
        });
        let named: BTreeMap<String, &Array2<f64>> = named.collect();
        let mut sizes = BTreeMap::new();
        for (name, matrix) in &named {
            if !matrix.is_square() {
                let reason = format!("is of shape {:?}, expected a square matrix", matrix.shape());
                return Err(Error::content(name, reason));
            }
            sizes.insert(name.clone(), matrix.nrows());
        }
        write_kronecker(
            folder,
            meta,
            &own,
            &sizes,
            |name| Ok(named[name].iter().copied().collect()),
            inputs,
        )
    }
}

/// Writes a Fisher folder one factor at a time; `fill` gives the row-major entries of each tensor of `sizes`.
///
/// The mean of both triangles is written, so that a factor on disk is exactly symmetric.
pub(crate) fn write_kronecker(
    folder: &Path,
    meta: &FisherMeta,
    shared: &BTreeMap<ModulePath, ModulePath>,
    sizes: &BTreeMap<String, usize>,
    mut fill: impl FnMut(&str) -> Result<Vec<f64>, Error>,
    inputs: BTreeMap<String, Input>,
) -> Result<(), Error> {
    meta.check_estimator(&[Estimator::Kron])?;
    check_setting("ridge", meta.ridge)?;
    retire(folder, &[MEAN_FILE, GRADIENTS_FILE, GRAM_FILE])?;
    let json = serde_json::to_string(shared).map_err(|e| Error::content(INPUTS_KEY, e.to_string()))?;
    let spec = |(name, &n): (&String, &usize)| TensorSpec::new(name, Dtype::F32, [n, n]);
    let specs: Vec<TensorSpec> = sizes.iter().map(spec).collect();
    let mut traces = BTreeMap::new();
    let path = folder.join(FISHER_FILE);
    write_tensors(
        &path,
        BTreeMap::from([(INPUTS_KEY.to_owned(), json)]),
        &specs,
        |i, sink| {
            let TensorSpec {
                name, shape: [n, _], ..
            } = &specs[i];
            let mut entries = fill(name)?;
            symmetrise(&mut entries, *n).map_err(|reason| Error::content(name, reason))?;
            let diagonal = entries.iter().step_by(n + 1);
            traces.insert(name.clone(), diagonal.map(|x| f64::from(*x as f32)).sum::<f64>());
            sink.f32s(entries.iter().map(|x| *x as f32))
        },
    )?;
    let trace = |(module, input): (&ModulePath, &ModulePath)| traces[&output_name(module)] * traces[&input_name(input)];
    let mut manifest = Manifest::new(KIND, meta);
    manifest.inputs = inputs;
    manifest.facts = serde_json::json!({
        "modules": shared.len(),
        "parameters": shared.iter().map(|(m, i)| sizes[&output_name(m)] * sizes[&input_name(i)]).sum::<usize>(),
        "trace": shared.iter().map(trace).sum::<f64>(),
    });
    Ok(manifest.write(folder)?)
}

pub(crate) fn input_name(input: &ModulePath) -> String {
    format!("{input}.A")
}

pub(crate) fn output_name(module: &ModulePath) -> String {
    format!("{module}.G")
}

fn tensor_names(inputs: &BTreeMap<ModulePath, ModulePath>) -> BTreeSet<String> {
    let outputs = inputs.keys().map(output_name);
    inputs.values().map(input_name).chain(outputs).collect()
}

/// Puts the mean of (i, j) and (j, i) in both places of a row-major `[n, n]` covariance.
fn symmetrise(entries: &mut [f64], n: usize) -> Result<(), String> {
    if let Some(at) = entries.iter().position(|x| !x.is_finite()) {
        return Err(format!("is {} at [{}, {}]", entries[at], at / n, at % n));
    }
    let diagonal: Vec<f64> = entries.iter().step_by(n + 1).copied().collect();
    if let Some(at) = diagonal.iter().position(|x| *x < 0.0) {
        return Err(format!(
            "is {} at [{at}, {at}]: a covariance has no negative diagonal",
            diagonal[at]
        ));
    }
    let roots: Vec<f64> = diagonal.iter().map(|x| x.sqrt()).collect();
    for (top, left) in (0..n)
        .step_by(TILE)
        .flat_map(|top| (top..n).step_by(TILE).map(move |left| (top, left)))
    {
        for i in top..n.min(top + TILE) {
            for j in left.max(i + 1)..n.min(left + TILE) {
                let (upper, lower) = (entries[i * n + j], entries[j * n + i]);
                if (upper - lower).abs() > SYMMETRY_TOLERANCE * roots[i] * roots[j] {
                    return Err(format!("is not symmetric at [{i}, {j}]: {upper} and {lower}"));
                }
                let mean = 0.5 * upper + 0.5 * lower;
                entries[i * n + j] = mean;
                entries[j * n + i] = mean;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    const Q: &str = "layers.0.q_proj";

    fn meta() -> FisherMeta {
        FisherMeta::new(Estimator::Kron, "response", 0)
    }

    /// X^T X of random rows, rounded to f32.
    fn covariance(n: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let x = Array2::from_shape_simple_fn((n + 1, n), || rng.random_range(-1.0..1.0));
        x.t().dot(&x).mapv(|x| f64::from(x as f32))
    }

    fn save(folder: &Path, input: Array2<f64>, output: Array2<f64>) -> Result<(), Error> {
        let factors = KroneckerFactors { input, output };
        KroneckerFisher::save(folder, &meta(), &BTreeMap::from([(Q.into(), factors)]), BTreeMap::new())
    }

    /// The same file with other tensors or another map of inputs.
    fn rewrite(folder: &Path, inputs: &str, specs: &[TensorSpec], values: &[f32]) {
        let metadata = BTreeMap::from([(INPUTS_KEY.to_owned(), inputs.to_owned())]);
        write_tensors(&folder.join(FISHER_FILE), metadata, specs, |i, sink| {
            sink.f32s(
                values
                    .iter()
                    .copied()
                    .cycle()
                    .take(specs[i].shape[0] * specs[i].shape[1]),
            )
        })
        .unwrap();
    }

    #[test]
    fn factors_survive_the_disk_over_several_tiles() {
        let dir = tempfile::tempdir().unwrap();
        let factors: BTreeMap<ModulePath, KroneckerFactors> = [(Q, 70, 33), ("lm_head", 3, 1)]
            .into_iter()
            .map(|(module, d_in, d_out)| {
                let (input, output) = (covariance(d_in, 1), covariance(d_out, 2));
                (module.into(), KroneckerFactors { input, output })
            })
            .collect();
        KroneckerFisher::save(dir.path(), &meta(), &factors, BTreeMap::new()).unwrap();
        let fisher = KroneckerFisher::load(dir.path()).unwrap();
        assert!(fisher.modules().eq(factors.keys()));
        for (module, expected) in &factors {
            assert_eq!(&fisher.factors(module).unwrap(), expected);
            assert_eq!(
                fisher.shape(module).unwrap(),
                [expected.output.nrows(), expected.input.nrows()]
            );
            assert_eq!(fisher.input(module).unwrap(), module);
        }
        let message = fisher.factors(&"layers.0.k_proj".into()).unwrap_err().to_string();
        assert!(
            message.ends_with("fisher.safetensors: layers.0.k_proj: is no module of this Fisher"),
            "{message}"
        );
    }

    #[test]
    fn rounding_is_averaged_and_anything_else_is_no_covariance() {
        let dir = tempfile::tempdir().unwrap();
        let one = array![[1.0]];
        // The scale of an entry is that of its row and column, whatever the largest entry is.
        save(dir.path(), array![[1e6, 1.0], [1.0 + 1e-3, 1e-6]], one.clone()).unwrap_err();
        save(dir.path(), array![[1e6, 1.0], [1.0 + 1e-6, 1e-6]], one.clone()).unwrap();
        let stored = KroneckerFisher::load(dir.path())
            .unwrap()
            .factors(&Q.into())
            .unwrap()
            .input;
        assert_eq!(stored[[0, 1]], stored[[1, 0]]);
        for (bad, reason) in [
            (array![[1.0, 0.0]], "expected a square matrix"),
            (array![[1.0, f64::NAN], [f64::NAN, 1.0]], "is NaN at [0, 1]"),
            (array![[1.0, 0.0], [0.0, -1e-9]], "is -0.000000001 at [1, 1]"),
            (
                array![[1.0, 0.2], [0.1, 1.0]],
                "is not symmetric at [0, 1]: 0.2 and 0.1",
            ),
        ] {
            let message = save(dir.path(), one.clone(), bad).unwrap_err().to_string();
            assert!(
                message.contains("layers.0.q_proj.G: ") && message.contains(reason),
                "{message}"
            );
        }
        save(dir.path(), array![[2.0]], one).unwrap();
        let specs = ["A", "G"].map(|side| TensorSpec::new(format!("{Q}.{side}"), Dtype::F32, [2, 2]));
        rewrite(
            dir.path(),
            &format!("{{\"{Q}\": \"{Q}\"}}"),
            &specs,
            &[1.0, 0.5, 0.25, f32::NAN],
        );
        let fisher = KroneckerFisher::load(dir.path()).unwrap();
        let message = fisher.factors(&Q.into()).unwrap_err().to_string();
        assert!(message.ends_with("layers.0.q_proj.A: is NaN at [1, 1]"), "{message}");
        let message = fisher.trace(&Q.into()).unwrap_err().to_string();
        assert!(message.ends_with("layers.0.q_proj.G: has trace NaN"), "{message}");
    }

    #[test]
    fn missing_foreign_and_oblong_factors_are_named_at_once() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), array![[2.0]], array![[1.0]]).unwrap();
        let spec = |name: &str, shape| TensorSpec::new(name, Dtype::F32, shape);
        let (a, g) = (spec("layers.0.q_proj.A", [2, 2]), spec("layers.0.q_proj.G", [1, 1]));
        let own = "{\"layers.0.q_proj\": \"layers.0.q_proj\"}";
        for (inputs, specs, expected) in [
            (own, vec![a.clone()], "layers.0.q_proj.G: is missing"),
            (
                "{\"layers.0.q_proj\": \"lm_head\"}",
                vec![a.clone(), g.clone()],
                "lm_head.A: is missing",
            ),
            (
                own,
                vec![a.clone(), g.clone(), spec("lm_head.G", [1, 1])],
                "lm_head.G: belongs to no module",
            ),
            (
                own,
                vec![a.clone(), spec("layers.0.q_proj.G", [1, 2])],
                "layers.0.q_proj.G: is of shape [1, 2]",
            ),
            ("[]", vec![a, g], "inputs: "),
        ] {
            rewrite(dir.path(), inputs, &specs, &[1.0]);
            let message = KroneckerFisher::load(dir.path()).unwrap_err().to_string();
            assert!(
                message.contains(&format!("fisher.safetensors: {expected}")),
                "{message}"
            );
        }
    }
}
