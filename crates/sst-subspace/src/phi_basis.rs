//! A subspace of phi of either kind, for strategies that only need to project.

use crate::{Basis, Error, Projection, RandomControl, SampleBasis, Selection, basis, sample_basis};
use sst_adapter::ParamLayout;
use sst_artefact::{Input, MANIFEST_FILE, Manifest};
use std::collections::BTreeMap;
use std::path::Path;

/// Coordinates of phi, or dense vectors inside its modules.
#[derive(Debug, Clone, PartialEq)]
pub enum PhiBasis {
    /// Of a pair of Fisher diagonals.
    Coordinates(Basis),
    /// Of a pair of sample Fishers.
    Samples(SampleBasis),
}

impl From<Basis> for PhiBasis {
    fn from(basis: Basis) -> Self {
        PhiBasis::Coordinates(basis)
    }
}

impl From<SampleBasis> for PhiBasis {
    fn from(basis: SampleBasis) -> Self {
        PhiBasis::Samples(basis)
    }
}

impl PhiBasis {
    /// Number of directions.
    pub fn k(&self) -> usize {
        match self {
            PhiBasis::Coordinates(basis) => basis.k(),
            PhiBasis::Samples(basis) => basis.k(),
        }
    }

    /// Where each tensor lies in phi.
    pub fn layout(&self) -> &ParamLayout {
        match self {
            PhiBasis::Coordinates(basis) => basis.layout(),
            PhiBasis::Samples(basis) => basis.layout(),
        }
    }

    /// The eigenvalues, descending; none for random coordinates.
    pub fn eigenvalues(&self) -> &[f64] {
        match self {
            PhiBasis::Coordinates(basis) => basis.eigenvalues(),
            PhiBasis::Samples(basis) => basis.eigenvalues(),
        }
    }

    /// How the directions were chosen.
    pub fn selection(&self) -> &Selection {
        match self {
            PhiBasis::Coordinates(basis) => basis.selection(),
            PhiBasis::Samples(basis) => basis.selection(),
        }
    }

    /// The first k directions.
    ///
    /// # Errors
    /// [`Error::Directions`] when k is 0 or larger than [`PhiBasis::k`].
    pub fn truncate(&self, k: usize) -> Result<Self, Error> {
        Ok(match self {
            PhiBasis::Coordinates(basis) => basis.truncate(k)?.into(),
            PhiBasis::Samples(basis) => basis.truncate(k)?.into(),
        })
    }

    /// P phi, `[n]`.
    ///
    /// # Errors
    /// [`Error::Length`] when phi does not have the layout's length; [`Error::PrefixOfVectors`] for
    /// [`Projection::Prefix`] with dense vectors.
    pub fn project(&self, phi: &[f32], projection: Projection) -> Result<Vec<f32>, Error> {
        match self {
            PhiBasis::Coordinates(basis) => basis.project(phi, projection),
            PhiBasis::Samples(basis) => aligned(projection).and_then(|()| basis.project(phi)),
        }
    }

    /// ||P phi||^2 / ||phi||^2 in f64; 0 for phi = 0.
    ///
    /// # Errors
    /// As [`PhiBasis::project`].
    pub fn retained_energy(&self, phi: &[f32], projection: Projection) -> Result<f64, Error> {
        match self {
            PhiBasis::Coordinates(basis) => basis.retained_energy(phi, projection),
            PhiBasis::Samples(basis) => aligned(projection).and_then(|()| basis.retained_energy(phi)),
        }
    }

    /// What a random subspace of the same k keeps of phi under the same projection.
    ///
    /// # Errors
    /// As [`PhiBasis::project`].
    pub fn random_control(&self, phi: &[f32], projection: Projection, seed: u64) -> Result<RandomControl, Error> {
        match self {
            PhiBasis::Coordinates(basis) => basis.random_control(phi, projection, seed),
            PhiBasis::Samples(basis) => aligned(projection).and_then(|()| basis.random_control(phi, seed)),
        }
    }

    /// Reads a basis folder of either kind, as its manifest says.
    ///
    /// # Errors
    /// One line that names the file and the part at fault.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let manifest = Manifest::read(folder)?;
        match manifest.kind.as_str() {
            basis::KIND => Ok(Basis::load(folder)?.into()),
            sample_basis::KIND => Ok(SampleBasis::load(folder)?.into()),
            other => {
                let expected = format!("`{}` or `{}`", basis::KIND, sample_basis::KIND);
                let error = Error::content("kind", format!("is `{other}`, expected {expected}"));
                Err(Error::in_file(&folder.join(MANIFEST_FILE))(error))
            }
        }
    }

    /// Writes a basis folder; `inputs` are the two Fishers, hashed by the caller.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, folder: &Path, inputs: BTreeMap<String, Input>) -> Result<(), Error> {
        match self {
            PhiBasis::Coordinates(basis) => basis.save(folder, inputs),
            PhiBasis::Samples(basis) => basis.save(folder, inputs),
        }
    }
}

/// A prefix of dense vectors of one module has no meaning in another.
fn aligned(projection: Projection) -> Result<(), Error> {
    match projection {
        Projection::Aligned => Ok(()),
        Projection::Prefix => Err(Error::PrefixOfVectors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SampleDirections;
    use ndarray::array;
    use sst_adapter::ModulePath;

    fn layout() -> ParamLayout {
        ParamLayout::new([("layers.0.q_proj.lora_A".to_owned(), 1, 3)]).unwrap()
    }

    /// The same plane, of the first and the last coordinate, in both forms.
    fn both() -> [PhiBasis; 2] {
        let selection = Selection::Random { seed: 0 };
        let coordinates = Basis::new(layout(), vec![2, 0], Vec::new(), selection.clone()).unwrap();
        let directions = SampleDirections {
            eigenvalues: vec![5.0, 2.0],
            vectors: array![[0.0, 3.0], [0.0, 0.0], [0.5, -7.0]],
        };
        let modules = BTreeMap::from([(ModulePath::new("layers.0.q_proj"), directions)]);
        [
            coordinates.into(),
            SampleBasis::new(layout(), modules, selection).unwrap().into(),
        ]
    }

    #[test]
    fn both_kinds_project_onto_their_plane() {
        let phi = [1.0, 2.0, 4.0];
        for basis in both() {
            let projected = basis.project(&phi, Projection::Aligned).unwrap();
            for (got, want) in projected.iter().zip([1.0, 0.0, 4.0]) {
                assert!((got - want).abs() <= 4.0 * f32::EPSILON, "{got}");
            }
            let energy = basis.retained_energy(&phi, Projection::Aligned).unwrap();
            assert!((energy - 17.0 / 21.0).abs() <= 1e-15);
            assert_eq!(basis.random_control(&phi, Projection::Aligned, 1).unwrap().k, 2);
            let line = basis.truncate(1).unwrap();
            let energy = line.retained_energy(&phi, Projection::Aligned).unwrap();
            assert!((energy - 16.0 / 21.0).abs() <= 1e-15);
            assert_eq!((line.k(), line.layout()), (1, &layout()));
        }
    }

    #[test]
    fn a_folder_is_read_as_what_its_manifest_says() {
        let dir = tempfile::tempdir().unwrap();
        for basis in both() {
            basis.save(dir.path(), BTreeMap::new()).unwrap();
            assert_eq!(PhiBasis::load(dir.path()).unwrap(), basis);
        }
        assert!(
            Basis::load(dir.path())
                .unwrap_err()
                .to_string()
                .contains("is `sample-basis`")
        );
    }

    #[test]
    fn prefix_is_for_coordinates_only() {
        let [coordinates, vectors] = both();
        let phi = [1.0, 2.0, 4.0];
        assert!(coordinates.project(&phi, Projection::Prefix).is_ok());
        for error in [
            vectors.project(&phi, Projection::Prefix).map(drop),
            vectors.retained_energy(&phi, Projection::Prefix).map(drop),
            vectors.random_control(&phi, Projection::Prefix, 0).map(drop),
        ] {
            assert!(matches!(error, Err(Error::PrefixOfVectors)));
        }
    }
}
