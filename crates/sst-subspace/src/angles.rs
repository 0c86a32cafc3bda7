//! Principal angles between subspaces.
//!
//! With orthonormal frames Q_x, Q_y the singular values of Q_x^T Q_y are the cosines of the angles (Bjorck & Golub 1973).
//! A cosine near 1 hides an angle below sqrt(eps); there the sine is taken from the singular values of
//! Q_y - Q_x Q_x^T Q_y instead (Knyazev & Argentati 2002).

use crate::decompose::{orthonormal, singular_values};
use crate::{Error, PhiBasis};
use ndarray::ArrayView2;
use serde::Serialize;
use std::f64::consts::FRAC_PI_2;

/// Two subspaces compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SubspaceAngles {
    /// Radians, ascending, as many as the smaller subspace has dimensions.
    pub angles: Vec<f64>,
    /// ||Q_1^T Q_2||_F^2 / k, k the smaller dimension: 1 when one contains the other, 0 when they are orthogonal.
    pub overlap: f64,
}

/// The principal angles between the column spans of x `[n, k1]` and y `[n, k2]`: min(k1, k2) radians, ascending.
///
/// ```
/// use ndarray::array;
/// let (x, y) = (array![[1.0], [0.0]], array![[1.0], [1.0]]);
/// let angles = sst_subspace::principal_angles(x.view(), y.view())?;
/// assert!((angles[0] - std::f64::consts::FRAC_PI_4).abs() < 1e-15);
/// # Ok::<(), sst_subspace::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shapes`] when the rows differ, [`Error::RankDeficient`] for dependent columns or entries that are not finite.
pub fn principal_angles(x: ArrayView2<f64>, y: ArrayView2<f64>) -> Result<Vec<f64>, Error> {
    if x.nrows() != y.nrows() {
        return Err(Error::Shapes {
            op: "principal angles",
            left: x.dim().into(),
            right: y.dim().into(),
        });
    }
    let (q_x, q_y) = (orthonormal("x", x)?, orthonormal("y", y)?);
    frame_angles(q_x.view(), q_y.view())
}

/// [`principal_angles`] of frames that are orthonormal already.
fn frame_angles(x: ArrayView2<f64>, y: ArrayView2<f64>) -> Result<Vec<f64>, Error> {
    let (wide, narrow) = if x.ncols() >= y.ncols() { (x, y) } else { (y, x) };
    let cross = wide.t().dot(&narrow);
    let cosines = singular_values(cross.view())?; // descending
    let sines = singular_values((&narrow - &wide.dot(&cross)).view())?; // descending
    let angles = cosines.iter().zip(sines.iter().rev()).map(|(cosine, sine)| {
        if 2.0 * cosine * cosine > 1.0 {
            sine.min(1.0).asin()
        } else {
            cosine.min(1.0).acos()
        }
    });
    let mut angles: Vec<f64> = angles.collect();
    angles.sort_by(f64::total_cmp);
    Ok(angles)
}

impl SubspaceAngles {
    /// Compares two bases of the same layout and kind.
    ///
    /// Coordinates enclose 0 where they are shared and a right angle elsewhere. Dense vectors are compared module by
    /// module and the angles pooled; directions of different modules are orthogonal.
    ///
    /// # Errors
    /// [`Error::Layout`] when the layouts differ, [`Error::BasisKinds`] when the kinds do.
    pub fn between(x: &PhiBasis, y: &PhiBasis) -> Result<Self, Error> {
        x.layout()
            .ensure_same(y.layout(), ("the first basis", "the second basis"))?;
        let k = x.k().min(y.k());
        let mut angles = match (x, y) {
            (PhiBasis::Coordinates(x), PhiBasis::Coordinates(y)) => vec![0.0; shared(x.indices(), y.indices())],
            (PhiBasis::Samples(x), PhiBasis::Samples(y)) => {
                let mut pooled = Vec::new();
                for (module, _) in x.modules() {
                    if let (Some(x), Some(y)) = (x.frame(module), y.frame(module)) {
                        pooled.extend(frame_angles(x, y)?);
                    }
                }
                pooled.sort_by(f64::total_cmp);
                pooled
            }
            _ => return Err(Error::BasisKinds),
        };
        angles.resize(k, FRAC_PI_2);
        let overlap = angles.iter().map(|angle| angle.cos().powi(2)).sum::<f64>() / k as f64;
        Ok(Self { angles, overlap })
    }
}

/// How many indices two lists of distinct indices share.
fn shared(x: &[u64], y: &[u64]) -> usize {
    let x: std::collections::BTreeSet<u64> = x.iter().copied().collect();
    y.iter().filter(|index| x.contains(index)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Basis, SampleBasis, SampleDirections, Selection};
    use ndarray::{Array2, array};
    use sst_adapter::{ModulePath, ParamLayout};
    use std::collections::BTreeMap;

    #[test]
    fn tiny_angles_keep_their_digits() {
        for angle in [1e-12, 1e-8, 1e-3, 0.8, 1.5] {
            let (x, y) = (
                array![[3.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]],
                array![[0.0, f64::cos(angle)], [5.0, 0.0], [0.0, f64::sin(angle)], [0.0, 0.0]],
            );
            let angles = principal_angles(x.view(), y.view()).unwrap();
            assert!(angles[0] <= 1e-15, "{angles:?}");
            assert!((angles[1] - angle).abs() <= 1e-15 * (1.0 + angle), "{angles:?} {angle}");
        }
    }

    #[test]
    fn bad_matrices_are_refused() {
        let x = array![[1.0, 2.0], [2.0, 4.0], [0.0, 0.0]];
        let y = array![[1.0], [0.0], [0.0]];
        let error = principal_angles(x.view(), y.view()).unwrap_err();
        assert!(
            matches!(&error, Error::RankDeficient { matrix, .. } if matrix == "x"),
            "{error}"
        );
        let error = principal_angles(y.view(), (f64::NAN * &y).view()).unwrap_err();
        assert!(
            matches!(&error, Error::RankDeficient { matrix, .. } if matrix == "y"),
            "{error}"
        );
        let error = principal_angles(y.view(), y.slice(ndarray::s![..2, ..])).unwrap_err();
        assert!(matches!(error, Error::Shapes { .. }), "{error}");
        assert!(principal_angles(Array2::zeros((3, 0)).view(), y.view()).is_err());
    }

    fn layout() -> ParamLayout {
        let tensor = |name: &str, cols| (name.to_owned(), 1, cols);
        ParamLayout::new([tensor("layers.0.q_proj.lora_A", 3), tensor("layers.1.q_proj.lora_A", 4)]).unwrap()
    }

    fn dense(first: Array2<f64>, second: Array2<f64>) -> PhiBasis {
        let directions = |vectors: Array2<f64>| SampleDirections {
            eigenvalues: vec![1.0; vectors.ncols()],
            vectors,
        };
        let modules = BTreeMap::from([
            (ModulePath::new("layers.0.q_proj"), directions(first)),
            (ModulePath::new("layers.1.q_proj"), directions(second)),
        ]);
        let selection = Selection::Random { seed: 0 };
        SampleBasis::new(layout(), modules, selection).unwrap().into()
    }

    #[test]
    fn bases_are_compared_in_phi() {
        let coordinates = |indices: &[u64]| {
            let selection = Selection::Random { seed: 0 };
            PhiBasis::from(Basis::new(layout(), indices.to_vec(), Vec::new(), selection).unwrap())
        };
        let compare = |x: &PhiBasis, y: &PhiBasis| SubspaceAngles::between(x, y).unwrap();
        let angles = compare(&coordinates(&[6, 0, 3]), &coordinates(&[1, 3, 6, 2]));
        assert_eq!(angles.angles, [0.0, 0.0, FRAC_PI_2]);
        assert!((angles.overlap - 2.0 / 3.0).abs() <= 1e-15);

        let x = dense(
            array![[1.0], [0.0], [0.0]],
            array![[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]],
        );
        let y = dense(
            array![[2.0, 0.0], [0.0, 0.0], [2.0, 1.0]],
            array![[0.0], [0.0], [3.0], [0.0]],
        );
        // One contained direction, one orthogonal, and no partner for the third.
        let angles = compare(&x, &y);
        assert_eq!(angles.angles.len(), 3);
        for (got, want) in angles.angles.iter().zip([0.0, FRAC_PI_2, FRAC_PI_2]) {
            assert!((got - want).abs() <= 1e-15, "{angles:?}");
        }
        assert!((angles.overlap - 1.0 / 3.0).abs() <= 1e-15);
        // As one matrix of the whole phi.
        let whole = |basis: &PhiBasis| {
            let PhiBasis::Samples(basis) = basis else {
                panic!("dense")
            };
            let mut all = Array2::zeros((7, basis.k()));
            let (mut row, mut column) = (0, 0);
            for (_, directions) in basis.modules() {
                let (n, k) = directions.vectors.dim();
                let mut block = all.slice_mut(ndarray::s![row..row + n, column..column + k]);
                block.assign(&directions.vectors);
                (row, column) = (row + n, column + k);
            }
            all
        };
        let y = dense(
            array![[2.0, 0.3], [0.5, 0.0], [2.0, 1.0]],
            array![[0.4], [-1.0], [3.0], [0.2]],
        );
        let want = principal_angles(whole(&x).view(), whole(&y).view()).unwrap();
        for (got, want) in compare(&x, &y).angles.iter().zip(&want) {
            assert!((got - want).abs() <= 1e-14, "{got} {want}");
        }
        let mixed = SubspaceAngles::between(&x, &coordinates(&[0]));
        assert!(matches!(mixed, Err(Error::BasisKinds)));
    }
}
