//! The safety subspace spanned by dense vectors of phi, each of them inside one module.
//!
//! The vectors V_m `[n_m, k_m]` of a module are B-orthonormal, not orthonormal. P = Q Q^T with V = Q R is the orthogonal
//! projection onto their span; P of phi is block-diagonal over the modules.

use crate::basis::{check_length, energy};
use crate::basis_file::{BasisFile, BasisWriter, LAYOUT_KEY};
use crate::decompose::orthonormal;
use crate::draw::{keyed, random_frame};
use crate::gevp::{ProductSpectrum, top_products};
use crate::{Error, RandomControl, Selection};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};
use sst_adapter::{ModulePath, ParamLayout};
use sst_artefact::Input;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

pub(crate) const KIND: &str = "sample-basis";

/// The directions inside one module.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleDirections {
    /// Descending, `[k_m]`.
    pub eigenvalues: Vec<f64>,
    /// As columns, `[n_m, k_m]`; n_m counts the entries of A row by row, then those of B.
    pub vectors: Array2<f64>,
}

/// The span of k dense vectors of phi.
///
/// ```
/// use ndarray::array;
/// use sst_subspace::{SampleBasis, SampleDirections, Selection};
/// let layout = sst_adapter::ParamLayout::new([("layers.0.q_proj.lora_A".to_owned(), 1, 2)])?;
/// let directions = SampleDirections { eigenvalues: vec![5.0], vectors: array![[3.0], [3.0]] };
/// let basis = SampleBasis::new(layout, [("layers.0.q_proj".into(), directions)].into(), Selection::Random { seed: 0 })?;
/// assert_eq!(basis.project(&[1.0, 0.0])?, [0.5, 0.5]);
/// # Ok::<(), sst_subspace::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SampleBasis {
    layout: ParamLayout,
    /// In model order; none without a direction.
    blocks: Vec<Block>,
    eigenvalues: Vec<f64>,
    selection: Selection,
}

#[derive(Debug, Clone, PartialEq)]
struct Block {
    module: ModulePath,
    range: Range<usize>,
    directions: SampleDirections,
    /// Q, `[n_m, k_m]`.
    frame: Array2<f64>,
}

impl SampleBasis {
    /// Takes the chosen directions of each module; modules without one are left out.
    ///
    /// # Errors
    /// [`Error::Directions`] for no direction, [`Error::InModule`] around [`Error::Content`] for a module that the layout
    /// lacks or eigenvalues that are not finite, descending and >= 0, [`Error::Shapes`], or [`Error::RankDeficient`].
    pub fn new(
        layout: ParamLayout,
        modules: BTreeMap<ModulePath, SampleDirections>,
        selection: Selection,
    ) -> Result<Self, Error> {
        let blocks = modules
            .into_iter()
            .filter(|(_, directions)| directions.vectors.ncols() > 0 || !directions.eigenvalues.is_empty())
            .map(|(module, directions)| {
                let name = module.as_str().to_owned();
                Block::new(&layout, module, directions).map_err(Error::in_module(&name))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        if blocks.is_empty() {
            let available = layout.len();
            return Err(Error::Directions { k: 0, available });
        }
        Ok(Self::of(layout, blocks, selection))
    }

    fn of(layout: ParamLayout, blocks: Vec<Block>, selection: Selection) -> Self {
        let mut eigenvalues: Vec<f64> = blocks
            .iter()
            .flat_map(|block| block.directions.eigenvalues.iter().copied())
            .collect();
        eigenvalues.sort_by(|x, y| y.total_cmp(x));
        Self {
            layout,
            blocks,
            eigenvalues,
            selection,
        }
    }

    /// Where each tensor lies in phi.
    pub fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// Number of directions over all modules.
    pub fn k(&self) -> usize {
        self.eigenvalues.len()
    }

    /// The eigenvalues of all modules, descending.
    pub fn eigenvalues(&self) -> &[f64] {
        &self.eigenvalues
    }

    /// How the directions were chosen.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The modules that have directions, in model order.
    pub fn modules(&self) -> impl Iterator<Item = (&ModulePath, &SampleDirections)> {
        self.blocks.iter().map(|block| (&block.module, &block.directions))
    }

    /// Q of one module, `[n_m, k_m]`: orthonormal columns, the first j of which span the first j directions.
    pub fn frame(&self, module: &ModulePath) -> Option<ArrayView2<'_, f64>> {
        let block = self.blocks.iter().find(|block| block.module == *module)?;
        Some(block.frame.view())
    }

    /// The k directions of the largest eigenvalues, ties in model order: bases of growing k are nested.
    ///
    /// # Errors
    /// [`Error::Directions`] when k is 0 or larger than [`SampleBasis::k`].
    pub fn truncate(&self, k: usize) -> Result<Self, Error> {
        let spectra: Vec<ProductSpectrum> = self
            .blocks
            .iter()
            .map(|block| ProductSpectrum::of_input(ArrayView1::from(&block.directions.eigenvalues)))
            .collect();
        let mut counts = vec![0; self.blocks.len()];
        for product in top_products(&spectra, k)? {
            counts[product.module] += 1;
        }
        let blocks = self.blocks.iter().zip(counts);
        let blocks = blocks.filter(|(_, count)| *count > 0).map(|(block, count)| Block {
            module: block.module.clone(),
            range: block.range.clone(),
            directions: SampleDirections {
                eigenvalues: block.directions.eigenvalues[..count].to_vec(),
                vectors: block.directions.vectors.slice(s![.., ..count]).to_owned(),
            },
            frame: block.frame.slice(s![.., ..count]).to_owned(),
        });
        Ok(Self::of(self.layout.clone(), blocks.collect(), self.selection.clone()))
    }

    /// P phi in f64, rounded once, `[n]`; zero in modules without a direction.
    ///
    /// # Errors
    /// [`Error::Length`] when phi does not have the layout's length.
    pub fn project(&self, phi: &[f32]) -> Result<Vec<f32>, Error> {
        check_length(&self.layout, "project", phi)?;
        let mut out = vec![0.0; phi.len()];
        for block in &self.blocks {
            let projected = block.frame.dot(&block.frame.t().dot(&block.slice(phi)));
            out[block.range.clone()]
                .iter_mut()
                .zip(&projected)
                .for_each(|(out, x)| *out = *x as f32);
        }
        Ok(out)
    }

    /// ||P phi||^2 / ||phi||^2 in f64; 0 for phi = 0.
    ///
    /// # Errors
    /// [`Error::Length`] when phi does not have the layout's length.
    pub fn retained_energy(&self, phi: &[f32]) -> Result<f64, Error> {
        self.energy("retained_energy", phi, |block| Ok(block.frame.clone()))
    }

    /// What random subspaces of the same dimensions in the same modules keep of phi.
    ///
    /// Each module draws its own uniform subspace, from (seed, module).
    ///
    /// # Errors
    /// [`Error::Length`] when phi does not have the layout's length.
    pub fn random_control(&self, phi: &[f32], seed: u64) -> Result<RandomControl, Error> {
        let retained_energy = self.energy("random_control", phi, |block| {
            let (n, k) = block.frame.dim();
            random_frame(n, k, &mut keyed(seed, block.module.as_str()))
        })?;
        Ok(RandomControl {
            seed,
            k: self.k(),
            retained_energy,
        })
    }

    fn energy(
        &self,
        op: &'static str,
        phi: &[f32],
        frame: impl Fn(&Block) -> Result<Array2<f64>, Error>,
    ) -> Result<f64, Error> {
        check_length(&self.layout, op, phi)?;
        let total = energy(phi);
        let mut kept = 0.0;
        for block in &self.blocks {
            let coordinates = frame(block)?.t().dot(&block.slice(phi));
            kept += coordinates.dot(&coordinates);
        }
        Ok(if total == 0.0 { 0.0 } else { kept / total })
    }

    /// Reads a basis folder.
    ///
    /// # Errors
    /// One line that names the file and the part at fault.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let file = BasisFile::read(folder, KIND)?;
        let selection = file.selection();
        file.parse(|tensors| {
            let layout: ParamLayout = tensors.metadata(LAYOUT_KEY)?;
            let mut modules = BTreeMap::new();
            for module in layout.slots().iter().map(|slot| slot.module()) {
                let vectors = format!("{module}.vectors");
                if tensors.has(&vectors) && !modules.contains_key(&module) {
                    let directions = SampleDirections {
                        eigenvalues: tensors.f64s(&format!("{module}.eigenvalues"))?,
                        vectors: tensors.matrix(&vectors)?,
                    };
                    modules.insert(module, directions);
                }
            }
            Self::new(layout, modules, selection)
        })
    }

    /// Writes a basis folder; `inputs` are the two Fishers, hashed by the caller.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, folder: &Path, inputs: BTreeMap<String, Input>) -> Result<(), Error> {
        let mut writer = BasisWriter::new(LAYOUT_KEY, &self.layout)?;
        for (module, directions) in self.modules() {
            let eigenvalues = &directions.eigenvalues;
            writer.f64s(format!("{module}.eigenvalues"), vec![eigenvalues.len()], eigenvalues);
            writer.matrix(format!("{module}.vectors"), directions.vectors.view());
        }
        let facts = serde_json::json!({
            "k": self.k(), "parameters": self.layout.len(), "modules": self.blocks.len(),
        });
        writer.write(folder, KIND, &self.selection, inputs, facts)
    }
}

impl Block {
    fn new(layout: &ParamLayout, module: ModulePath, directions: SampleDirections) -> Result<Self, Error> {
        let mut slots = layout.slots().iter().filter(|slot| slot.module() == module);
        // The slots of a module are neighbours in the layout's order.
        let range = match (slots.next(), slots.next_back()) {
            (Some(first), Some(last)) => first.range().start..last.range().end,
            (Some(only), None) => only.range(),
            _ => return Err(Error::content("layout", "does not list the module")),
        };
        let SampleDirections { eigenvalues, vectors } = &directions;
        if vectors.dim() != (range.len(), eigenvalues.len()) {
            return Err(Error::Shapes {
                op: "sample basis: parameters x eigenvalues and vectors",
                left: [range.len(), eigenvalues.len()],
                right: vectors.dim().into(),
            });
        }
        let descends = eigenvalues.windows(2).all(|pair| pair[0] >= pair[1]);
        if !descends || eigenvalues.iter().any(|x| !(x.is_finite() && *x >= 0.0)) {
            return Err(Error::content("eigenvalues", "are not finite, descending and >= 0"));
        }
        let frame = orthonormal("the directions", vectors.view())?;
        Ok(Self {
            module,
            range,
            directions,
            frame,
        })
    }

    fn slice(&self, phi: &[f32]) -> Array1<f64> {
        phi[self.range.clone()].iter().map(|x| f64::from(*x)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BASIS_FILE;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    const Q: &str = "layers.0.q_proj";
    const V: &str = "layers.1.v_proj";

    /// Modules of 6 + 8, 5 + 3 and 4 + 2 entries; the middle one stays without a direction.
    fn layout() -> ParamLayout {
        let tensor = |name: &str, rows, cols| (name.to_owned(), rows, cols);
        ParamLayout::new([
            tensor("layers.0.q_proj.lora_A", 2, 3),
            tensor("layers.0.q_proj.lora_B", 4, 2),
            tensor("layers.0.v_proj.lora_A", 1, 5),
            tensor("layers.0.v_proj.lora_B", 3, 1),
            tensor("layers.1.v_proj.lora_A", 2, 2),
            tensor("layers.1.v_proj.lora_B", 1, 2),
        ])
        .unwrap()
    }

    fn draw<T>(n: usize, seed: u64, map: impl Fn(f64) -> T) -> Vec<T> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| map(rng.random_range(-2.0..2.0))).collect()
    }

    fn directions(n: usize, eigenvalues: &[f64], seed: u64) -> SampleDirections {
        let k = eigenvalues.len();
        // Lengths a thousand times apart, as B-orthonormal vectors have.
        let mut vectors = Array2::from_shape_vec((n, k), draw(n * k, seed, |x| x)).unwrap();
        vectors.column_mut(0).mapv_inplace(|x| 1e3 * x);
        SampleDirections {
            eigenvalues: eigenvalues.to_vec(),
            vectors,
        }
    }

    fn basis() -> SampleBasis {
        let modules = BTreeMap::from([
            (ModulePath::new(V), directions(6, &[7.0, 3.0], 2)),
            (ModulePath::new(Q), directions(14, &[9.0, 3.0, 0.5], 1)),
        ]);
        SampleBasis::new(layout(), modules, Selection::Random { seed: 0 }).unwrap()
    }

    /// V (V^T V)^-1 V^T as a dense n x n matrix, by solving the normal equations with Gauss-Jordan elimination.
    fn brute_force(basis: &SampleBasis) -> Array2<f64> {
        let n = basis.layout().len();
        let mut v = Array2::<f64>::zeros((n, basis.k()));
        let mut column = 0;
        for (module, directions) in basis.modules() {
            let start = if module.as_str() == Q { 0 } else { 22 };
            for x in directions.vectors.columns() {
                let unit = &x / x.dot(&x).sqrt();
                v.slice_mut(s![start..start + x.len(), column]).assign(&unit);
                column += 1;
            }
        }
        let (mut gram, mut rest) = (v.t().dot(&v), v.t().to_owned());
        for i in 0..column {
            let (row, right) = (
                gram.row(i).to_owned() / gram[[i, i]],
                rest.row(i).to_owned() / gram[[i, i]],
            );
            for j in 0..column {
                let factor = gram[[j, i]];
                if j != i {
                    gram.row_mut(j).scaled_add(-factor, &row);
                    rest.row_mut(j).scaled_add(-factor, &right);
                }
            }
            gram.row_mut(i).assign(&row);
            rest.row_mut(i).assign(&right);
        }
        v.dot(&rest)
    }

    #[test]
    fn projects_as_the_dense_matrix_does() {
        let basis = basis();
        assert_eq!((basis.k(), basis.eigenvalues()), (5, &[9.0, 7.0, 3.0, 3.0, 0.5][..]));
        for k in [1, 2, 4, 5] {
            let basis = basis.truncate(k).unwrap();
            let p = brute_force(&basis);
            for seed in 10..20 {
                let phi = draw(28, seed, |x| x as f32);
                let wide: Array1<f64> = phi.iter().map(|x| f64::from(*x)).collect();
                let want = p.dot(&wide);
                let got = basis.project(&phi).unwrap();
                for (got, want) in got.iter().zip(&want) {
                    // One rounding to single precision of an entry of at most 2 sqrt(14).
                    assert!(
                        (f64::from(*got) - want).abs() <= 8.0 * f64::from(f32::EPSILON),
                        "{got} {want}"
                    );
                }
                let energy = basis.retained_energy(&phi).unwrap();
                assert!((energy - want.dot(&want) / wide.dot(&wide)).abs() <= 1e-13, "k {k}");
            }
        }
    }

    #[test]
    fn truncation_keeps_the_largest_over_all_modules_and_ties_in_model_order() {
        let counts = |k| {
            let basis = basis().truncate(k).unwrap();
            let of = |name| {
                let found = basis.modules().find(|(module, _)| module.as_str() == name);
                found.map_or(0, |(_, directions)| directions.eigenvalues.len())
            };
            assert_eq!(basis.k(), k);
            [of(Q), of(V)]
        };
        assert_eq!([1, 2, 3, 4, 5].map(counts), [[1, 0], [1, 1], [2, 1], [2, 2], [3, 2]]);
        assert_eq!(basis().truncate(5).unwrap(), basis());
        for k in [0, 6] {
            assert!(matches!(
                basis().truncate(k),
                Err(Error::Directions { available: 5, .. })
            ));
        }
    }

    #[test]
    fn a_random_control_keeps_its_share_of_each_module_on_average() {
        let (basis, phi) = (basis(), draw(28, 5, |x| x as f32));
        let control = |seed| basis.random_control(&phi, seed).unwrap();
        assert_eq!(control(3), control(3));
        assert_ne!(control(3).retained_energy, control(4).retained_energy);
        let square = |range: Range<usize>| phi[range].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        // 3 of 14 dimensions of the first module, 2 of 6 of the last; one draw deviates by about 0.08.
        let want = (square(0..14) * 3.0 / 14.0 + square(22..28) / 3.0) / square(0..28);
        let mean = (0..2000).map(|seed| control(seed).retained_energy).sum::<f64>() / 2000.0;
        assert!((mean - want).abs() < 0.01, "{mean} {want}");
    }

    #[test]
    fn survives_the_disk_with_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        basis().save(one.path(), BTreeMap::new()).unwrap();
        let loaded = SampleBasis::load(one.path()).unwrap();
        assert_eq!(loaded, basis());
        loaded.save(two.path(), BTreeMap::new()).unwrap();
        let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(BASIS_FILE)).unwrap();
        assert_eq!(read(&one), read(&two));
        let whole = read(&one);
        std::fs::write(one.path().join(BASIS_FILE), &whole[..whole.len() - 1]).unwrap();
        let message = SampleBasis::load(one.path()).unwrap_err().to_string();
        assert!(message.contains(BASIS_FILE), "{message}");
    }

    #[test]
    fn what_is_no_basis_is_named() {
        let build = |module: &str, directions| {
            let modules = BTreeMap::from([(ModulePath::new(module), directions)]);
            SampleBasis::new(layout(), modules, Selection::Random { seed: 0 }).map(drop)
        };
        let mut dependent = directions(14, &[2.0, 1.0], 3);
        let copy = dependent.vectors.column(0).to_owned();
        dependent.vectors.column_mut(1).assign(&copy);
        for (module, directions, word) in [
            ("layers.7.q_proj", directions(14, &[1.0], 3), "layout"),
            (Q, directions(13, &[1.0], 3), "[14, 1] and [13, 1]"),
            (Q, directions(14, &[1.0, 2.0], 3), "descending"),
            (Q, directions(14, &[f64::NAN], 3), "finite"),
            (Q, directions(14, &[1.0, -1.0], 3), ">= 0"),
            (Q, dependent, "dependent"),
        ] {
            let message = build(module, directions).unwrap_err().to_string();
            assert!(message.contains(module) && message.contains(word), "{word}: {message}");
        }
        let none = SampleBasis::new(layout(), BTreeMap::new(), Selection::Random { seed: 0 });
        assert!(matches!(none, Err(Error::Directions { k: 0, .. })));
        let message = basis().project(&[0.0; 27]).unwrap_err().to_string();
        assert!(message.contains("got 27 values, expected 28"), "{message}");
        assert_eq!(basis().retained_energy(&[0.0; 28]).unwrap(), 0.0);
    }
}
