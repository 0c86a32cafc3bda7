//! Two artefacts against each other: angles between subspaces, cosines between Fishers.
//!
//! cos(F, H) = tr(F H) / sqrt(tr(F^2) tr(H^2)), summed over the modules, is in closed form for every family:
//! tr((G (x) A) (G' (x) A')) = tr(G G') tr(A A'), and of gradients tr(F H) = ||G_F G_H^T||_F^2 / (N_F N_H).

use crate::fisher::KIND as FISHER;
use crate::{DiagonalFisher, Error, Fisher, KroneckerFisher, SafetySubspace, SampleFisher, SubspaceAngles};
use ndarray::Array2;
use serde::Serialize;
use sst_adapter::ModulePath;
use sst_artefact::Manifest;
use std::path::Path;

/// How alike two artefacts are.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alike {
    /// Two Fishers of one family.
    Fishers(FisherAlike),
    /// Two subspaces of phi.
    Bases(SubspaceAngles),
}

/// How alike two Fishers are, in [0, 1]; NaN when one of them is 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FisherAlike {
    /// cos(F, H).
    pub cosine: f64,
    /// `kron`: the mean over the modules of cos(A, A').
    pub input: Option<f64>,
    /// `kron`: the mean over the modules of cos(G, G').
    pub output: Option<f64>,
}

/// Compares two folders that hold Fishers of one family, or subspaces of phi of one kind.
///
/// # Errors
/// [`Error::Families`], [`Error::BasisKinds`] for artefacts of different kinds; [`Error::Layout`] or
/// [`Error::InModule`] when they are of different parameters; a folder that cannot be read.
pub fn alike(left: &Path, right: &Path, progress: &mut dyn FnMut(usize, usize)) -> Result<Alike, Error> {
    let is_fisher = |folder: &Path| Ok::<_, Error>(Manifest::read(folder)?.kind == FISHER);
    if !is_fisher(left)? {
        return match (SafetySubspace::load(left)?, SafetySubspace::load(right)?) {
            (SafetySubspace::Phi(x), SafetySubspace::Phi(y)) => Ok(Alike::Bases(SubspaceAngles::between(&x, &y)?)),
            _ => Err(Error::BasisKinds),
        };
    }
    let (f, h) = (Fisher::load(left)?, Fisher::load(right)?);
    let fishers = match (&f, &h) {
        (Fisher::Diagonal(f), Fisher::Diagonal(h)) => diagonal(f, h)?,
        (Fisher::Kronecker(f), Fisher::Kronecker(h)) => kronecker(f, h, progress)?,
        (Fisher::Samples(f), Fisher::Samples(h)) => samples(f, h, progress)?,
        _ => {
            return Err(Error::Families {
                left: left.to_path_buf(),
                left_estimator: f.meta().estimator,
                right: right.to_path_buf(),
                right_estimator: h.meta().estimator,
            });
        }
    };
    Ok(Alike::Fishers(fishers))
}

/// tr(F H), tr(F^2) and tr(H^2).
#[derive(Default)]
struct Products([f64; 3]);

impl Products {
    fn of<'a>(f: impl IntoIterator<Item = &'a f64>, h: impl IntoIterator<Item = &'a f64>) -> Self {
        let mut sums = [0.0; 3];
        for (x, y) in f.into_iter().zip(h) {
            sums = [sums[0] + x * y, sums[1] + x * x, sums[2] + y * y];
        }
        Self(sums)
    }

    fn add(&mut self, other: [f64; 3]) {
        self.0.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
    }

    fn cosine(&self) -> f64 {
        let [cross, f, h] = self.0;
        cross / (f.sqrt() * h.sqrt())
    }
}

fn diagonal(f: &DiagonalFisher, h: &DiagonalFisher) -> Result<FisherAlike, Error> {
    f.layout
        .ensure_same(&h.layout, ("the first Fisher", "the second Fisher"))?;
    let wide = |fisher: &DiagonalFisher| -> Vec<f64> { fisher.values.iter().map(|x| f64::from(*x)).collect() };
    Ok(FisherAlike {
        cosine: Products::of(&wide(f), &wide(h)).cosine(),
        input: None,
        output: None,
    })
}

fn kronecker(
    f: &KroneckerFisher,
    h: &KroneckerFisher,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<FisherAlike, Error> {
    let modules: Vec<&ModulePath> = f.modules().collect();
    for module in f.modules().chain(h.modules()) {
        let (left, right) = (f.shape(module)?, h.shape(module)?);
        if left != right {
            let op = "layers of two Fishers";
            return Err(Error::in_module(module.as_str())(Error::Shapes { op, left, right }));
        }
    }
    let (mut whole, mut input, mut output) = (Products::default(), 0.0, 0.0);
    for (done, module) in modules.iter().enumerate() {
        let (x, y) = (f.factors(module)?, h.factors(module)?);
        let (a, g) = (Products::of(&x.input, &y.input), Products::of(&x.output, &y.output));
        whole.add([0, 1, 2].map(|i| a.0[i] * g.0[i]));
        input += a.cosine() / modules.len() as f64;
        output += g.cosine() / modules.len() as f64;
        progress(done + 1, modules.len());
    }
    Ok(FisherAlike {
        cosine: whole.cosine(),
        input: Some(input),
        output: Some(output),
    })
}

fn samples(f: &SampleFisher, h: &SampleFisher, progress: &mut dyn FnMut(usize, usize)) -> Result<FisherAlike, Error> {
    let square = |gram: &Array2<f64>| gram.iter().map(|x| x * x).sum::<f64>();
    let (n_f, n_h) = (f.samples() as f64, h.samples() as f64);
    let mut whole = Products::default();
    let count = f.modules().count();
    for (done, (module, _)) in f.modules().enumerate() {
        whole.add([
            square(&f.cross_gram(h, module)?) / (n_f * n_h),
            square(&f.gram(module)?) / (n_f * n_f),
            square(&h.gram(module)?) / (n_h * n_h),
        ]);
        progress(done + 1, count);
    }
    Ok(FisherAlike {
        cosine: whole.cosine(),
        input: None,
        output: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::made_up::{self, DOWN, K, Q, gradients};
    use crate::{Basis, KroneckerFactors, Selection};
    use ndarray::linalg::kron;
    use std::f64::consts::FRAC_PI_2;

    fn cosine(pairs: &[(Array2<f64>, Array2<f64>)]) -> f64 {
        let cross: f64 = pairs.iter().map(|(x, y)| (x * y).sum()).sum();
        let squares = pairs.iter().map(|(x, y)| ((x * x).sum(), (y * y).sum()));
        let (x, y) = squares.fold((0.0, 0.0), |(x, y), (a, b)| (x + a, y + b));
        cross / (x * y).sqrt()
    }

    fn fishers(left: &Path, right: &Path) -> FisherAlike {
        match alike(left, right, &mut |_, _| ()).unwrap() {
            Alike::Fishers(fishers) => fishers,
            other => panic!("{other:?}"),
        }
    }

    fn assert_close(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-13, "{got} {want}");
    }

    #[test]
    fn cosines_are_those_of_the_whole_matrices() {
        let dir = tempfile::tempdir().unwrap();
        let [x, y] = ["x", "y"].map(|name| dir.path().join(name));
        let [f, h] = [made_up::kron(&x, 1, true), made_up::kron(&y, 30, false)];
        let modules = [Q, K, DOWN].map(ModulePath::new);
        let factors: Vec<[KroneckerFactors; 2]> = modules
            .iter()
            .map(|m| [&f, &h].map(|f| f.factors(m).unwrap()))
            .collect();
        let side = |side: fn(&KroneckerFactors) -> &Array2<f64>| {
            let cosines = factors
                .iter()
                .map(|[f, h]| cosine(&[(side(f).clone(), side(h).clone())]));
            cosines.sum::<f64>() / 3.0
        };
        let whole: Vec<_> = factors
            .iter()
            .map(|[f, h]| (kron(&f.output, &f.input), kron(&h.output, &h.input)))
            .collect();
        let got = fishers(&x, &y);
        assert_close(got.cosine, cosine(&whole));
        assert_close(got.input.unwrap(), side(|f| &f.input));
        assert_close(got.output.unwrap(), side(|f| &f.output));

        let [x, y] = ["gx", "gy"].map(|name| dir.path().join(name));
        made_up::samples(&x, 4, 1);
        made_up::samples(&y, 5, 30);
        let fisher = |module, n: usize, seed| {
            let g = gradients(module, n, seed);
            g.t().dot(&g) / n as f64
        };
        let whole = [Q, DOWN].map(|module| (fisher(module, 4, 1), fisher(module, 5, 30)));
        assert_close(fishers(&x, &y).cosine, cosine(&whole));

        let [x, y] = ["dx", "dy"].map(|name| dir.path().join(name));
        let [f, h] = [made_up::diagonal(&x, 1), made_up::diagonal(&y, 2)];
        let matrix = |f: DiagonalFisher| Array2::from_shape_fn((1, 26), |(_, j)| f64::from(f.values[j]));
        assert_close(fishers(&x, &y).cosine, cosine(&[(matrix(f), matrix(h))]));
        assert_close(fishers(&x, &x).cosine, 1.0);
    }

    #[test]
    fn bases_have_angles_and_nothing_is_like_another_kind() {
        let dir = tempfile::tempdir().unwrap();
        let [x, y, f, g] = ["x", "y", "f", "g"].map(|name| dir.path().join(name));
        for (folder, indices) in [(&x, vec![3, 1]), (&y, vec![3, 7])] {
            let selection = Selection::Random { seed: 1 };
            let basis = Basis::new(made_up::layout(), indices, Vec::new(), selection).unwrap();
            basis.save(folder, Default::default()).unwrap();
        }
        let Alike::Bases(angles) = alike(&x, &y, &mut |_, _| ()).unwrap() else {
            panic!()
        };
        assert_eq!(angles.angles, [0.0, FRAC_PI_2]);
        made_up::diagonal(&f, 1);
        made_up::kron(&g, 1, true);
        let error = alike(&f, &g, &mut |_, _| ()).unwrap_err();
        assert!(matches!(error, Error::Families { .. }), "{error}");
        for (left, right) in [(&f, &x), (&x, &f)] {
            alike(left, right, &mut |_, _| ()).unwrap_err();
        }
    }
}
