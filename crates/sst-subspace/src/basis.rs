//! The safety subspace: k coordinates of phi, and what projecting onto them keeps.
//!
//! P = V V^T with V the n x k matrix of unit vectors; it is never formed. Retained energy = ||P phi||^2 / ||phi||^2.

use crate::basis_file::{BasisFile, BasisWriter, LAYOUT_KEY};
use crate::{Error, Projection, RandomControl, Selection};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use sst_adapter::ParamLayout;
use sst_artefact::Input;
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) const KIND: &str = "basis";

/// The span of k coordinates of phi, the most important first.
#[derive(Debug, Clone, PartialEq)]
pub struct Basis {
    layout: ParamLayout,
    indices: Vec<u64>,
    eigenvalues: Vec<f64>,
    selection: Selection,
}

impl Basis {
    /// Takes distinct indices into phi with their eigenvalues, which descend.
    ///
    /// # Errors
    /// [`Error::Directions`] for no index, [`Error::Length`] when the eigenvalues do not match the indices,
    /// [`Error::Content`] for indices that are repeated or beyond phi, or eigenvalues that are NaN or do not descend.
    pub fn new(
        layout: ParamLayout,
        indices: Vec<u64>,
        eigenvalues: Vec<f64>,
        selection: Selection,
    ) -> Result<Self, Error> {
        let n = layout.len();
        if indices.is_empty() {
            return Err(Error::Directions { k: 0, available: n });
        }
        let random = matches!(selection, Selection::Random { .. });
        let expected = if random { 0 } else { indices.len() };
        if eigenvalues.len() != expected {
            return Err(Error::Length {
                op: "eigenvalues",
                expected,
                got: eigenvalues.len(),
            });
        }
        let mut sorted = indices.clone();
        sorted.sort_unstable();
        if sorted.last().is_some_and(|last| *last >= n as u64) || sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::content("indices", format!("are not distinct and below {n}")));
        }
        let descends = eigenvalues.windows(2).all(|pair| pair[0] >= pair[1]);
        if !descends || eigenvalues.iter().any(|x| !x.is_finite()) {
            return Err(Error::content("eigenvalues", "are not finite and descending"));
        }
        Ok(Self {
            layout,
            indices,
            eigenvalues,
            selection,
        })
    }

    /// k coordinates drawn at random without replacement.
    ///
    /// # Errors
    /// [`Error::Directions`] when k is 0 or larger than phi.
    pub fn random(layout: ParamLayout, k: usize, seed: u64) -> Result<Self, Error> {
        let n = layout.len();
        if k == 0 || k > n {
            return Err(Error::Directions { k, available: n });
        }
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let indices = rand::seq::index::sample(&mut rng, n, k)
            .into_iter()
            .map(|i| i as u64)
            .collect();
        Self::new(layout, indices, Vec::new(), Selection::Random { seed })
    }

    /// Where each tensor lies in phi.
    pub fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// Number of directions.
    pub fn k(&self) -> usize {
        self.indices.len()
    }

    /// The coordinates, largest eigenvalue first.
    pub fn indices(&self) -> &[u64] {
        &self.indices
    }

    /// The eigenvalues, descending; none for a random basis.
    pub fn eigenvalues(&self) -> &[f64] {
        &self.eigenvalues
    }

    /// How the coordinates were chosen.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The first k directions: bases of growing k are nested.
    ///
    /// # Errors
    /// [`Error::Directions`] when k is 0 or larger than [`Basis::k`].
    pub fn truncate(&self, k: usize) -> Result<Self, Error> {
        if k == 0 || k > self.k() {
            return Err(Error::Directions { k, available: self.k() });
        }
        Ok(Self {
            layout: self.layout.clone(),
            indices: self.indices[..k].to_vec(),
            eigenvalues: self.eigenvalues.iter().take(k).copied().collect(),
            selection: self.selection.clone(),
        })
    }

    /// P phi: the kept entries of phi, zero elsewhere, `[n]`.
    ///
    /// # Errors
    /// [`Error::Length`] when phi does not have the layout's length.
    pub fn project(&self, phi: &[f32], projection: Projection) -> Result<Vec<f32>, Error> {
        check_length(&self.layout, "project", phi)?;
        let mut out = vec![0.0; phi.len()];
        self.for_each_kept(projection, |i| out[i] = phi[i]);
        Ok(out)
    }

    /// ||P phi||^2 / ||phi||^2 in f64; 0 for phi = 0.
    ///
    /// # Errors
    /// [`Error::Length`] when phi does not have the layout's length.
    pub fn retained_energy(&self, phi: &[f32], projection: Projection) -> Result<f64, Error> {
        check_length(&self.layout, "retained_energy", phi)?;
        let total = energy(phi);
        let mut kept = 0.0;
        self.for_each_kept(projection, |i| kept += f64::from(phi[i]).powi(2));
        Ok(if total == 0.0 { 0.0 } else { kept / total })
    }

    /// What a random subspace of the same k keeps of phi under the same projection.
    ///
    /// # Errors
    /// [`Error::Length`] when phi does not have the layout's length.
    pub fn random_control(&self, phi: &[f32], projection: Projection, seed: u64) -> Result<RandomControl, Error> {
        let k = self.k();
        let random = Self::random(self.layout.clone(), k, seed)?;
        Ok(RandomControl {
            seed,
            k,
            retained_energy: random.retained_energy(phi, projection)?,
        })
    }

    /// Visits each entry of phi that the projection keeps, once.
    fn for_each_kept(&self, projection: Projection, mut visit: impl FnMut(usize)) {
        match projection {
            Projection::Aligned => self.indices.iter().for_each(|i| visit(*i as usize)),
            Projection::Prefix => {
                let mut rows: Vec<usize> = self.indices.iter().map(|i| *i as usize).collect();
                rows.sort_unstable();
                for slot in self.layout.slots() {
                    let first = rows.partition_point(|row| *row < slot.len());
                    rows[..first].iter().for_each(|row| visit(slot.offset + row));
                }
            }
        }
    }

    /// Reads a basis folder.
    ///
    /// # Errors
    /// One line that names the file and the part at fault.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let file = BasisFile::read(folder, KIND)?;
        let selection = file.selection();
        file.parse(|tensors| {
            let layout = tensors.metadata(LAYOUT_KEY)?;
            Self::new(
                layout,
                tensors.u64s("indices")?,
                tensors.f64s("eigenvalues")?,
                selection,
            )
        })
    }

    /// Writes a basis folder; `inputs` are the two Fishers, hashed by the caller.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, folder: &Path, inputs: BTreeMap<String, Input>) -> Result<(), Error> {
        let mut writer = BasisWriter::new(LAYOUT_KEY, &self.layout)?;
        writer.f64s("eigenvalues", vec![self.eigenvalues.len()], &self.eigenvalues);
        writer.u64s("indices", vec![self.k()], &self.indices);
        let facts = serde_json::json!({"k": self.k(), "parameters": self.layout.len()});
        writer.write(folder, KIND, &self.selection, inputs, facts)
    }
}

/// ||phi||^2 in f64, summed in pieces that are added in their order.
pub(crate) fn energy(phi: &[f32]) -> f64 {
    let piece = |piece: &[f32]| piece.iter().map(|x| f64::from(*x).powi(2)).sum();
    let pieces: Vec<f64> = phi.par_chunks(1 << 16).map(piece).collect();
    pieces.iter().sum()
}

/// Refuses a phi that is not as long as the layout.
pub(crate) fn check_length(layout: &ParamLayout, op: &'static str, phi: &[f32]) -> Result<(), Error> {
    let (expected, got) = (layout.len(), phi.len());
    if expected == got {
        Ok(())
    } else {
        Err(Error::Length { op, expected, got })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BASIS_FILE;
    use crate::{DiagonalFisher, Estimator, FisherMeta, gevp};
    use ndarray::Array2;
    use rand::RngExt;

    /// Three tensors of 6, 8 and 4 entries.
    fn layout() -> ParamLayout {
        ParamLayout::new([
            ("layers.0.q_proj.lora_A".to_owned(), 2, 3),
            ("layers.0.q_proj.lora_B".to_owned(), 4, 2),
            ("layers.1.q_proj.lora_A".to_owned(), 2, 2),
        ])
        .unwrap()
    }

    fn draw(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        (0..n).map(|_| rng.random_range(-2.0f32..2.0)).collect()
    }

    fn basis(k: usize, seed: u64) -> Basis {
        let fisher = |seed| {
            let values = draw(18, seed).iter().map(|x| x.abs()).collect();
            DiagonalFisher::new(layout(), values, FisherMeta::new(Estimator::Diag, "response", seed)).unwrap()
        };
        gevp::diagonal(&fisher(seed), &fisher(seed + 1000), k, 1e-6).unwrap()
    }

    /// The definition, with one-hot matrices: V (n x k), then V V^T per tensor.
    fn brute_force(basis: &Basis, phi: &[f32], projection: Projection) -> Vec<f64> {
        let n = basis.layout().len();
        let mut v = Array2::<f64>::zeros((n, basis.k()));
        for (column, row) in basis.indices().iter().enumerate() {
            v[[*row as usize, column]] = 1.0;
        }
        let mut out = Vec::new();
        for slot in basis.layout().slots() {
            let rows = match projection {
                Projection::Aligned => v.slice(ndarray::s![slot.range(), ..]),
                Projection::Prefix => v.slice(ndarray::s![..slot.len(), ..]),
            };
            let x: ndarray::Array1<f64> = phi[slot.range()].iter().map(|x| f64::from(*x)).collect();
            out.extend(rows.dot(&rows.t().dot(&x)));
        }
        out
    }

    #[test]
    fn projections_agree_with_one_hot_matrices() {
        for seed in 0..20 {
            for k in [1, 3, 9, 18] {
                let (basis, phi) = (basis(k, seed), draw(18, seed + 500));
                for projection in [Projection::Aligned, Projection::Prefix] {
                    let got = basis.project(&phi, projection).unwrap();
                    let want = brute_force(&basis, &phi, projection);
                    assert!(
                        got.iter().zip(&want).all(|(x, y)| f64::from(*x) == *y),
                        "{projection} k {k} seed {seed}"
                    );
                    let energy: f64 = want.iter().map(|x| x * x).sum();
                    let total: f64 = phi.iter().map(|x| f64::from(*x).powi(2)).sum();
                    let retained = basis.retained_energy(&phi, projection).unwrap();
                    assert!(
                        (retained - energy / total).abs() <= 1e-14,
                        "{projection} k {k} seed {seed}"
                    );
                }
            }
        }
    }

    #[test]
    fn prefix_and_aligned_differ_beyond_the_first_tensor() {
        let random = Selection::Random { seed: 0 };
        let basis = Basis::new(layout(), vec![1, 7], Vec::new(), random).unwrap();
        let phi: Vec<f32> = (0..18).map(|i| i as f32).collect();
        let kept = |projection| -> Vec<usize> {
            let out = basis.project(&phi, projection).unwrap();
            (0..18).filter(|&i| out[i] != 0.0).collect()
        };
        assert_eq!(kept(Projection::Aligned), [1, 7]);
        // Entry 1 of each tensor; entry 7 only of the one that has eight: 6 + 7.
        assert_eq!(kept(Projection::Prefix), [1, 7, 13, 15]);
    }

    #[test]
    fn truncation_is_the_smaller_problem() {
        for k in [1, 4, 11] {
            let (large, small) = (basis(11, 3), basis(k, 3));
            assert_eq!(large.truncate(k).unwrap(), small);
        }
        let message = basis(3, 3).truncate(4).unwrap_err().to_string();
        assert_eq!(message, "k = 4 is not between 1 and 3");
    }

    #[test]
    fn a_random_subspace_keeps_its_share_on_average() {
        let (basis, phi) = (basis(6, 1), draw(18, 77));
        let control = |seed| basis.random_control(&phi, Projection::Aligned, seed).unwrap();
        assert_eq!(control(5), control(5));
        assert_ne!(control(5).retained_energy, control(6).retained_energy);
        let mean: f64 = (0..4000).map(|seed| control(seed).retained_energy).sum::<f64>() / 4000.0;
        // k / n = 1/3; one draw has a standard deviation of about 0.1.
        assert!((mean - 1.0 / 3.0).abs() < 0.01, "{mean}");
        assert_eq!(
            Basis::random(layout(), 18, 1)
                .unwrap()
                .retained_energy(&phi, Projection::Aligned)
                .unwrap(),
            1.0
        );
        assert!(Basis::random(layout(), 19, 1).is_err() && Basis::random(layout(), 0, 1).is_err());
    }

    #[test]
    fn survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        for basis in [basis(7, 2), Basis::random(layout(), 5, 9).unwrap()] {
            basis.save(dir.path(), BTreeMap::new()).unwrap();
            assert_eq!(Basis::load(dir.path()).unwrap(), basis);
        }
        let path = dir.path().join(BASIS_FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let message = Basis::load(dir.path()).unwrap_err().to_string();
        assert!(message.contains(BASIS_FILE), "{message}");
        // Where the next one cannot be written, the manifest of this one does not stand for its tensors.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        basis(7, 2).save(dir.path(), BTreeMap::new()).unwrap_err();
        assert!(!dir.path().join(sst_artefact::MANIFEST_FILE).exists());
    }

    #[test]
    fn what_is_no_basis_is_refused() {
        let build = |indices: &[u64], values: &[f64]| {
            let Selection::TopRatios { .. } = basis(1, 0).selection else {
                unreachable!()
            };
            Basis::new(layout(), indices.to_vec(), values.to_vec(), basis(1, 0).selection).map(drop)
        };
        assert!(build(&[1, 2], &[2.0, 1.0]).is_ok());
        for (indices, values) in [
            (&[][..], &[][..]),
            (&[1, 1], &[2.0, 1.0]),
            (&[1, 18], &[2.0, 1.0]),
            (&[1, 2], &[1.0, 2.0]),
            (&[1, 2], &[1.0, f64::NAN]),
            (&[1, 2], &[1.0]),
        ] {
            assert!(build(indices, values).is_err(), "{indices:?} {values:?}");
        }
        assert!(matches!(
            basis(2, 0).project(&[0.0; 17], Projection::Aligned),
            Err(Error::Length {
                expected: 18,
                got: 17,
                ..
            })
        ));
        assert_eq!(
            basis(2, 0).retained_energy(&[0.0; 18], Projection::Aligned).unwrap(),
            0.0
        );
    }
}
