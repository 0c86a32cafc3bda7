//! The safety subspace of Kronecker factors: k rank-one directions w_i v_j^T in the space of dW `[d_out, d_in]`.
//!
//! The directions of a module are B-orthonormal, B(X) = (G_u + eps_g I) X (A_u + eps_a I), and so is the projection:
//!
//! ```text
//! P dW = sum over the chosen (i, j) of  w_i (w_i^T (G_u + eps_g I) dW (A_u + eps_a I) v_j) v_j^T
//! ```
//!
//! It is oblique: ||P dW||_F may exceed ||dW||_F, so that the retained energy may exceed 1. Without output factors
//! (G = I) a direction is an input direction v_j with all d_out outputs: P dW = dW sum_j (A_u + eps_a I) v_j v_j^T.

mod directions;

pub use directions::{Direction, Frame, KroneckerDirections};

use crate::basis_file::{BasisFile, BasisWriter};
use crate::{Error, RandomControl, Selection};
use ndarray::{Array2, ArrayView2};
use sst_adapter::ModulePath;
use sst_artefact::Input;
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) const KIND: &str = "kronecker-basis";
/// Key of the list of modules in the file's metadata.
const MODULES_KEY: &str = "modules";

/// The k chosen directions of all modules.
#[derive(Debug, Clone, PartialEq)]
pub struct KroneckerBasis {
    modules: BTreeMap<ModulePath, KroneckerDirections>,
    selection: Selection,
}

impl KroneckerBasis {
    /// Takes the chosen directions of each module; modules without one are left out by the caller.
    ///
    /// # Errors
    /// [`Error::Directions`] for no module, [`Error::InModule`] naming what is wrong in one.
    pub fn new(modules: BTreeMap<ModulePath, KroneckerDirections>, selection: Selection) -> Result<Self, Error> {
        if modules.is_empty() {
            return Err(Error::Directions { k: 0, available: 0 });
        }
        for (module, directions) in &modules {
            directions.check().map_err(Error::in_module(module.as_str()))?;
        }
        Ok(Self { modules, selection })
    }

    /// Number of directions over all modules.
    pub fn k(&self) -> usize {
        self.modules.values().map(|directions| directions.chosen.len()).sum()
    }

    /// The modules that have directions, in model order.
    pub fn modules(&self) -> &BTreeMap<ModulePath, KroneckerDirections> {
        &self.modules
    }

    /// mu_i lambda_j of all directions, descending.
    pub fn eigenvalues(&self) -> Vec<f64> {
        let chosen = self.modules.values().flat_map(|directions| &directions.chosen);
        let mut values: Vec<f64> = chosen.map(|direction| direction.value).collect();
        values.sort_by(|x, y| y.total_cmp(x));
        values
    }

    /// How the directions were chosen.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The k directions of the largest values, ties in model order: bases of growing k are nested.
    ///
    /// # Errors
    /// [`Error::Directions`] when k is 0 or larger than [`KroneckerBasis::k`].
    pub fn truncate(&self, k: usize) -> Result<Self, Error> {
        let available = self.k();
        if k == 0 || k > available {
            return Err(Error::Directions { k, available });
        }
        let mut order: Vec<(f64, &ModulePath)> = self
            .modules
            .iter()
            .flat_map(|(module, directions)| directions.chosen.iter().map(move |d| (d.value, module)))
            .collect();
        order.sort_by(|x, y| y.0.total_cmp(&x.0)); // stable
        let mut counts = BTreeMap::new();
        for (_, module) in &order[..k] {
            *counts.entry(*module).or_insert(0) += 1;
        }
        let modules = self.modules.iter().filter_map(|(module, directions)| {
            let count = *counts.get(module)?;
            Some((module.clone(), directions.truncate(count)))
        });
        Ok(Self {
            modules: modules.collect(),
            selection: self.selection.clone(),
        })
    }

    /// P dW of one module, `[d_out, d_in]`: zero where the module has no direction.
    ///
    /// # Errors
    /// [`Error::InModule`] around [`Error::Shapes`].
    pub fn project(&self, module: &ModulePath, delta: ArrayView2<f64>) -> Result<Array2<f64>, Error> {
        match self.modules.get(module) {
            Some(directions) => directions.project(delta).map_err(Error::in_module(module.as_str())),
            None => Ok(Array2::zeros(delta.dim())),
        }
    }

    /// sum ||P dW||_F^2 / sum ||dW||_F^2 over the modules given, each looked at once; 0 when all are 0. May exceed 1.
    ///
    /// # Errors
    /// As [`KroneckerBasis::project`].
    pub fn retained_energy(&self, deltas: impl IntoIterator<Item = (ModulePath, Array2<f64>)>) -> Result<f64, Error> {
        let square = |m: &Array2<f64>| m.iter().map(|x| x * x).sum::<f64>();
        let (mut kept, mut total) = (0.0, 0.0);
        for (module, delta) in deltas {
            kept += square(&self.project(&module, delta.view())?);
            total += square(&delta);
        }
        Ok(if total == 0.0 { 0.0 } else { kept / total })
    }

    /// What a random subspace of the same shape keeps: in each module the frames are replaced by uniform orthonormal ones,
    /// drawn from (seed, module, side), and the same pairs of columns are in use. That projection is orthogonal.
    ///
    /// # Errors
    /// As [`KroneckerBasis::project`].
    pub fn random_control(
        &self,
        deltas: impl IntoIterator<Item = (ModulePath, Array2<f64>)>,
        seed: u64,
    ) -> Result<RandomControl, Error> {
        let random = self
            .modules
            .iter()
            .map(|(module, directions)| Ok((module.clone(), directions.random_like(seed, module)?)))
            .collect::<Result<_, Error>>()?;
        let random = Self::new(random, Selection::Random { seed })?;
        Ok(RandomControl {
            seed,
            k: self.k(),
            retained_energy: random.retained_energy(deltas)?,
        })
    }

    /// Reads a basis folder.
    ///
    /// # Errors
    /// One line that names the file and the part at fault.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let file = BasisFile::read(folder, KIND)?;
        let selection = file.selection();
        file.parse(|tensors| {
            let frame = |name: String| {
                Ok::<_, Error>(Frame {
                    duals: tensors.matrix(&format!("{name}.dual"))?,
                    vectors: tensors.matrix(&name)?,
                })
            };
            let mut modules = BTreeMap::new();
            for module in tensors.metadata::<Vec<ModulePath>>(MODULES_KEY)? {
                let output = format!("{module}.output");
                let values = tensors.f64s(&format!("{module}.values"))?;
                let pairs = tensors.u64s(&format!("{module}.pairs"))?;
                if pairs.len() != 2 * values.len() {
                    let reason = format!("has {} indices for {} values", pairs.len(), values.len());
                    return Err(Error::content(format!("{module}.pairs"), reason));
                }
                let pairs = pairs.as_chunks::<2>().0.iter();
                let chosen = pairs.zip(values).map(|(pair, value)| Direction {
                    output: pair[0] as usize,
                    input: pair[1] as usize,
                    value,
                });
                let directions = KroneckerDirections {
                    chosen: chosen.collect(),
                    input: frame(format!("{module}.input"))?,
                    output: tensors.has(&output).then(|| frame(output)).transpose()?,
                };
                modules.insert(module, directions);
            }
            Self::new(modules, selection)
        })
    }

    /// Writes a basis folder; `inputs` are the two Fishers, hashed by the caller.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, folder: &Path, inputs: BTreeMap<String, Input>) -> Result<(), Error> {
        let paths: Vec<&ModulePath> = self.modules.keys().collect();
        let mut writer = BasisWriter::new(MODULES_KEY, &paths)?;
        for (module, directions) in &self.modules {
            let frames = [
                ("input", Some(&directions.input)),
                ("output", directions.output.as_ref()),
            ];
            for (side, frame) in frames {
                if let Some(frame) = frame {
                    writer.matrix(format!("{module}.{side}"), frame.vectors.view());
                    writer.matrix(format!("{module}.{side}.dual"), frame.duals.view());
                }
            }
            let chosen = &directions.chosen;
            let values: Vec<f64> = chosen.iter().map(|d| d.value).collect();
            let pairs: Vec<u64> = chosen.iter().flat_map(|d| [d.output as u64, d.input as u64]).collect();
            writer.f64s(format!("{module}.values"), vec![chosen.len()], &values);
            writer.u64s(format!("{module}.pairs"), vec![chosen.len(), 2], &pairs);
        }
        let facts = serde_json::json!({"k": self.k(), "modules": self.modules.len()});
        writer.write(folder, KIND, &self.selection, inputs, facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BASIS_FILE;
    use crate::gevp::{FactorPair, KroneckerEigen, Product, kronecker, top_products};
    use ndarray::Array1;
    use ndarray::linalg::kron;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    const SEED: u64 = 40;

    fn draw(rows: usize, cols: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn((rows, cols), || rng.random_range(-1.0..1.0))
    }

    fn factor(d: usize, seed: u64) -> Array2<f64> {
        let x = draw(3 * d, d, seed) / Array1::from_shape_fn(d, |j| 1.0 + j as f64);
        x.t().dot(&x)
    }

    /// Factors A_s, A_u, and G_s, G_u unless G = I.
    struct Module {
        path: ModulePath,
        input: [Array2<f64>; 2],
        output: Option<[Array2<f64>; 2]>,
    }

    fn pair([safety, utility]: &[Array2<f64>; 2]) -> FactorPair<'_> {
        FactorPair {
            safety: safety.view(),
            utility: utility.view(),
        }
    }

    impl Module {
        fn eigen(&self) -> KroneckerEigen {
            let output = self.output.as_ref().map(pair);
            kronecker(self.path.as_str(), pair(&self.input), output, 1e-2).unwrap()
        }
    }

    /// dW of 4 x 6, 5 x 3, and 7 x 6 with G = I.
    fn modules() -> [Module; 3] {
        let two = |d, seed| [factor(d, seed), factor(d, seed + 1)];
        let module = |path: &str, input, output| Module {
            path: ModulePath::new(path),
            input,
            output,
        };
        [
            module("layers.0.q_proj", two(6, SEED), Some(two(4, SEED + 2))),
            module("layers.0.v_proj", two(3, SEED + 4), Some(two(5, SEED + 6))),
            module("layers.1.q_proj", two(6, SEED + 8), None),
        ]
    }

    fn basis(k: usize) -> KroneckerBasis {
        let modules = modules();
        let solved: Vec<KroneckerEigen> = modules.iter().map(Module::eigen).collect();
        let spectra: Vec<_> = solved.iter().map(KroneckerEigen::spectrum).collect();
        let products = top_products(&spectra, k).unwrap();
        let mut chosen = BTreeMap::new();
        for (m, (module, eigen)) in modules.iter().zip(&solved).enumerate() {
            let own: Vec<Product> = products.iter().filter(|p| p.module == m).copied().collect();
            if !own.is_empty() {
                let output = module.output.as_ref().map(pair);
                let directions = KroneckerDirections::new(eigen, pair(&module.input), output, &own).unwrap();
                chosen.insert(module.path.clone(), directions);
            }
        }
        let selection = Selection::TopProducts {
            ridge: 1e-2,
            available: 53,
            residual: 1e-15,
            clamped: 0.0,
        };
        KroneckerBasis::new(chosen, selection).unwrap()
    }

    fn deltas(seed: u64) -> Vec<(ModulePath, Array2<f64>)> {
        let shapes = [(4, 6), (5, 3), (7, 6)].into_iter().zip(modules());
        shapes
            .enumerate()
            .map(|(i, ((rows, cols), module))| (module.path, 3.0 * draw(rows, cols, seed + i as u64)))
            .collect()
    }

    /// X X^T B on the rows of dW, with X the chosen w_i (x) v_j of one dense problem and B the whole product.
    fn brute_force(module: &Module, k: usize, delta: &Array2<f64>) -> Array2<f64> {
        let eigen = module.eigen();
        let ridged = |m: &Array2<f64>, eps: f64| m + eps * Array2::<f64>::eye(m.nrows());
        let eye = Array2::eye(delta.nrows());
        let (g_s, g_b) = match (&module.output, &eigen.output) {
            (Some([g_s, g_u]), Some(solved)) => (g_s.clone(), ridged(g_u, solved.eps)),
            _ => (eye.clone(), eye),
        };
        let [a_s, a_u] = &module.input;
        let (f_s, b) = (kron(&g_s, a_s), kron(&g_b, &ridged(a_u, eigen.input.eps)));
        let dense = crate::gevp::dense(f_s.view(), b.view(), 0.0).unwrap();
        let x = dense.vectors.slice(ndarray::s![.., ..k]);
        let flat = Array1::from_iter(delta.iter().copied());
        x.dot(&x.t().dot(&b.dot(&flat)))
            .into_shape_with_order(delta.dim())
            .unwrap()
    }

    #[test]
    fn projects_as_the_dense_problem_does() {
        for k in [1, 4, 9, 14] {
            let basis = basis(k);
            assert_eq!(basis.k(), k);
            let (mut kept, mut total) = (0.0, 0.0);
            for (module, (path, delta)) in modules().iter().zip(deltas(7)) {
                let got = basis.project(&path, delta.view()).unwrap();
                let count = basis.modules().get(&path).map_or(0, |own| own.chosen.len());
                // With G = I each input direction stands for all d_out = 7 outputs.
                let count = if module.output.is_none() { 7 * count } else { count };
                let want = brute_force(module, count, &delta);
                for (x, y) in got.iter().zip(&want) {
                    assert!((x - y).abs() <= 1e-11, "k {k} {path}: {x} {y}");
                }
                kept += want.iter().map(|x| x * x).sum::<f64>();
                total += delta.iter().map(|x| x * x).sum::<f64>();
                let again = basis.project(&path, got.view()).unwrap();
                assert!(again.iter().zip(&got).all(|(x, y)| (x - y).abs() <= 1e-12), "P P = P");
            }
            let energy = basis.retained_energy(deltas(7)).unwrap();
            assert!((energy - kept / total).abs() <= 1e-12, "{energy} {}", kept / total);
        }
    }

    #[test]
    fn the_projection_is_oblique() {
        // dW = B^-1 of a direction that P keeps whole: its image is longer than itself.
        let basis = basis(1);
        let (path, own) = basis.modules().iter().next().unwrap();
        let dual = match &own.output {
            Some(output) => output.duals.dot(&own.input.duals.t()),
            None => own.input.duals.t().to_owned(),
        };
        let energy = basis.retained_energy([(path.clone(), dual)]).unwrap();
        assert!(energy > 1.0, "{energy}");
    }

    #[test]
    fn truncation_is_the_smaller_problem() {
        let large = basis(14);
        assert_eq!(large.eigenvalues().len(), 14);
        assert!(large.modules().len() == 3, "the test needs every module");
        for k in [1, 3, 8, 13, 14] {
            let (got, want) = (large.truncate(k).unwrap(), basis(k));
            assert_eq!(got.eigenvalues(), want.eigenvalues());
            for (module, delta) in deltas(9) {
                let (x, y) = (got.project(&module, delta.view()), want.project(&module, delta.view()));
                assert!(x.unwrap().iter().zip(&y.unwrap()).all(|(x, y)| (x - y).abs() <= 1e-12));
                let frames = |basis: &KroneckerBasis| {
                    let own = basis.modules().get(&module)?;
                    Some((own.input.vectors.dim(), own.output.as_ref().map(|o| o.vectors.dim())))
                };
                assert_eq!(frames(&got), frames(&want), "only vectors in use");
            }
        }
        assert!(large.truncate(0).is_err() && large.truncate(15).is_err());
    }

    #[test]
    fn a_random_control_keeps_its_share_on_average() {
        let basis = basis(9);
        let control = |seed| basis.random_control(deltas(11), seed).unwrap();
        assert_eq!(control(1), control(1));
        assert_ne!(control(1).retained_energy, control(2).retained_energy);
        let (mut want, mut total) = (0.0, 0.0);
        for (path, delta) in deltas(11) {
            let square = delta.iter().map(|x| x * x).sum::<f64>();
            let share = basis.modules().get(&path).map_or(0.0, |own| {
                let all = own.output.as_ref().map_or(1, |_| delta.nrows()) * delta.ncols();
                own.chosen.len() as f64 / all as f64
            });
            want += share * square;
            total += square;
        }
        let mean = (0..2000).map(|seed| control(seed).retained_energy).sum::<f64>() / 2000.0;
        assert!((mean - want / total).abs() < 0.01, "{mean} {}", want / total);
    }

    #[test]
    fn survives_the_disk_with_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        basis(9).save(one.path(), BTreeMap::new()).unwrap();
        let loaded = KroneckerBasis::load(one.path()).unwrap();
        assert_eq!(loaded, basis(9));
        loaded.save(two.path(), BTreeMap::new()).unwrap();
        let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(BASIS_FILE)).unwrap();
        assert_eq!(read(&one), read(&two));
        let message = crate::PhiBasis::load(one.path()).unwrap_err().to_string();
        assert!(
            message.contains("is `kronecker-basis`, expected `basis` or"),
            "{message}"
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (path, delta) = (ModulePath::new("layers.0.q_proj"), draw(6, 4, 1));
        let message = basis(14).project(&path, delta.view()).unwrap_err().to_string();
        assert_eq!(
            message,
            "module layers.0.q_proj: kronecker projection of dW: [6, 4] and [4, 6] do not fit"
        );
        let elsewhere = basis(14).project(&ModulePath::new("lm_head"), delta.view()).unwrap();
        assert_eq!(elsewhere, Array2::<f64>::zeros((6, 4)));
        let module = &modules()[0];
        let product = Product {
            module: 0,
            output: 4,
            input: 0,
            value: 1.0,
        };
        let output = module.output.as_ref().map(pair);
        let build =
            |output, product| KroneckerDirections::new(&module.eigen(), pair(&module.input), output, &[product]);
        assert!(matches!(
            build(output, product),
            Err(Error::Directions { k: 5, available: 4 })
        ));
        assert!(build(None, Product { output: 0, ..product }).is_err());
        let mut own = build(output, Product { output: 0, ..product }).unwrap();
        own.chosen[0].value = f64::NAN;
        let bad = KroneckerBasis::new(BTreeMap::from([(path, own)]), Selection::Random { seed: 0 });
        assert!(bad.unwrap_err().to_string().contains("layers.0.q_proj: values"));
    }

    #[test]
    fn directions_that_no_solver_gives_are_refused() {
        let basis = basis(14);
        let (path, good) = basis.modules().iter().next().unwrap();
        assert!(good.chosen.len() > 1, "the test needs two directions");
        let message = |change: &dyn Fn(&mut KroneckerDirections)| {
            let mut own = good.clone();
            change(&mut own);
            let modules = BTreeMap::from([(path.clone(), own)]);
            let bad = KroneckerBasis::new(modules, Selection::Random { seed: 0 });
            bad.unwrap_err().to_string()
        };
        let twice = message(&|own| {
            let first = own.chosen[0];
            own.chosen.insert(0, first);
        });
        assert!(twice.ends_with("directions: name a pair of vectors twice"), "{twice}");
        let unused = message(&|own| own.chosen.truncate(1));
        assert!(unused.contains("vectors that no direction uses"), "{unused}");
        let nan = message(&|own| own.input.duals[[1, 0]] = f64::NAN);
        assert!(nan.ends_with("input: vectors or duals are not finite"), "{nan}");
    }

    #[test]
    fn a_file_with_more_pairs_than_values_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        basis(9).save(dir.path(), BTreeMap::new()).unwrap();
        let path = dir.path().join(BASIS_FILE);
        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let cut = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
            let (shape, data) = match name.ends_with(".values") {
                true => (vec![view.shape()[0] - 1], view.data()[8..].to_vec()),
                false => (view.shape().to_vec(), view.data().to_vec()),
            };
            (name.to_owned(), view.dtype(), shape, data)
        };
        let tensors: Vec<_> = file.iter().map(cut).collect();
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap();
            (name, view)
        });
        let changed = safetensors::serialize(views, header.metadata().clone()).unwrap();
        std::fs::write(&path, changed).unwrap();
        let message = KroneckerBasis::load(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains(BASIS_FILE) && message.contains("indices for"),
            "{message}"
        );
    }
}
