//! A filter along chosen directions w_i v_j^T: P X = sum of sigma_d w_i (w_i*^T X v_j*) v_j^T, of a rank of at most the
//! number of distinct v_j, or w_i.
//!
//! v* = (A_u + eps_a I) v and w* = (G_u + eps_g I) w are the duals that a basis keeps. Without output factors a direction
//! stands for all outputs, P X = X sum sigma_d v_j* v_j^T, and b stays as it is.

use super::change::{Change, Thin};
use super::filter::Filter;
use super::input_side::InputPair;
use super::report::{Sigma, Tradeoff};
use crate::Error;
use ndarray::Array2;
use sst_subspace::{Frame, KroneckerDirections, Sides};
use std::rc::Rc;

/// P of one module.
#[derive(Debug)]
pub(super) struct DirectionFilter<'a> {
    /// The module's directions; none: P = 0.
    directions: Option<&'a KroneckerDirections>,
    /// sigma of each of them.
    sigma: Vec<f64>,
    /// Directions that the module's space has: d_in, or d_out d_in for both sides.
    available: u64,
    /// (A_s, A_u + eps_a I), and (G_s, G_u + eps_g I) for both sides, where the statistics are known.
    metric: Option<Metric>,
}

/// The factors of one module, the utility ones with their ridge.
#[derive(Debug)]
pub(super) struct Metric {
    /// A_s and B_a.
    pub input: Rc<InputPair>,
    /// G_s and B_g; none for G = I.
    pub output: Option<[Array2<f64>; 2]>,
}

impl<'a> DirectionFilter<'a> {
    /// `of_value` gives sigma for mu_i lambda_j.
    pub fn new(
        directions: Option<&'a KroneckerDirections>,
        of_value: impl Fn(f64) -> f64,
        [d_out, d_in]: [usize; 2],
        sides: Sides,
        metric: Option<Metric>,
    ) -> Self {
        let chosen = directions.iter().flat_map(|directions| &directions.chosen);
        Self {
            sigma: chosen.map(|direction| of_value(direction.value)).collect(),
            directions,
            available: match sides {
                Sides::Input => d_in as u64,
                Sides::Both => d_out as u64 * d_in as u64,
            },
            metric,
        }
    }

    fn thin(&self, x: &Thin) -> Thin {
        let Some(KroneckerDirections { input, output, chosen }) = self.directions else {
            return Thin {
                b: Array2::zeros((x.b.nrows(), 0)),
                a: Array2::zeros((0, x.a.ncols())),
            };
        };
        let pairs = chosen.iter().zip(&self.sigma);
        let along = x.a.dot(&input.duals); // a v*, [r, p]
        let Some(Frame { vectors, duals }) = output else {
            let mut strength = vec![0.0; along.ncols()];
            pairs.for_each(|(direction, sigma)| strength[direction.input] = *sigma);
            return Thin {
                b: x.b.clone(),
                a: (along * ndarray::aview1(&strength)).dot(&input.vectors.t()),
            };
        };
        let across = duals.t().dot(&x.b); // w*^T b, [q, r]
        let mut middle = Array2::zeros((across.nrows(), along.ncols())); // [q, p]
        for (direction, sigma) in pairs {
            let (i, j) = (direction.output, direction.input);
            middle[[i, j]] = sigma * across.row(i).dot(&along.column(j));
        }
        if vectors.ncols() <= input.vectors.ncols() {
            Thin {
                b: vectors.clone(),
                a: middle.dot(&input.vectors.t()),
            }
        } else {
            Thin {
                b: vectors.dot(&middle),
                a: input.vectors.t().to_owned(),
            }
        }
    }

    /// X - P X; without output factors at the rank of X.
    fn rest(&self, x: &Thin) -> Thin {
        let filtered = self.thin(x);
        match self.directions {
            Some(KroneckerDirections { output: None, .. }) => Thin {
                b: filtered.b,
                a: &x.a - &filtered.a,
            },
            _ => x.plus(-1.0, &filtered),
        }
    }
}

impl Filter for DirectionFilter<'_> {
    fn apply(&self, x: &Thin) -> Result<Change, Error> {
        Ok(Change::Thin(self.thin(x)))
    }

    fn complement(&self, x: &Thin) -> Result<Change, Error> {
        Ok(Change::Thin(self.rest(x)))
    }

    fn sigma(&self) -> Option<Sigma> {
        Some(Sigma::sparse(&self.sigma, self.available))
    }

    fn tradeoff(&self, d: &Thin) -> Result<Option<Tradeoff>, Error> {
        let Some(Metric { input, output }) = &self.metric else {
            return Ok(None);
        };
        let output = |which: usize| output.as_ref().map(|factors| factors[which].view());
        let safety = |x: &Thin| x.square(output(0), Some(input.safety.view()));
        let utility = |x: &Thin| x.square(output(1), Some(input.utility.view()));
        Ok(Some(Tradeoff {
            utility: utility(&self.thin(d)),
            utility_of_target: utility(d),
            safety: safety(&self.rest(d)),
            safety_of_utility: safety(d),
        }))
    }

    fn curve(&self, _: &Thin, _: &[f64]) -> Vec<Tradeoff> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::both_sides::SoftBoth;
    use super::super::input_side::{Eigenproblem, Kernel, SoftInput, ridged, sigma};
    use super::super::made_up::{MODULE, assert_close, change, factors};
    use super::*;
    use sst_adapter::ModulePath;
    use sst_subspace::gevp::{self, top_products};
    use sst_subspace::{Factors, KroneckerBasis, Selection};

    const RIDGE: f64 = 1e-2;
    const SHAPE: [usize; 2] = [6, 5];

    /// The k best directions of one module.
    fn directions(input: &Factors, output: Option<&Factors>, k: usize) -> KroneckerDirections {
        let output = output.map(Factors::pair);
        let eigen = gevp::kronecker(MODULE, input.pair(), output, RIDGE).unwrap();
        let products = top_products(&[eigen.spectrum()], k).unwrap();
        KroneckerDirections::new(&eigen, input.pair(), output, &products).unwrap()
    }

    fn dense(change: Change) -> Array2<f64> {
        match change {
            Change::Thin(thin) => thin.dense(),
            Change::Dense(dense) => dense,
        }
    }

    fn metric(input: &Factors, output: Option<&Factors>) -> Metric {
        let module = ModulePath::new(MODULE);
        let with_ridge = |f: &Factors| {
            [
                f.safety.clone(),
                ridged(f.utility.clone(), RIDGE * f.utility.diag().mean().unwrap()),
            ]
        };
        Metric {
            input: Rc::new(InputPair::new(&module, input.clone(), RIDGE, Eigenproblem::Needed).unwrap()),
            output: output.map(with_ridge),
        }
    }

    #[test]
    fn hard_is_the_projection_onto_the_basis() {
        let (input, output) = (factors(5, 1), factors(6, 5));
        let x = change(6, 2, 5, 30);
        for (output, sides, ks) in [
            (None, Sides::Input, [1, 3, 5]),
            (Some(&output), Sides::Both, [1, 9, 30]),
        ] {
            for k in ks {
                let directions = directions(&input, output, k);
                let filter = DirectionFilter::new(Some(&directions), |_| 1.0, SHAPE, sides, None);
                let selection = Selection::Random { seed: 0 };
                let path = ModulePath::new(MODULE);
                let basis = KroneckerBasis::new([(path.clone(), directions.clone())].into(), selection).unwrap();
                let want = basis.project(&path, x.dense().view()).unwrap();
                let (passed, rest) = (dense(filter.apply(&x).unwrap()), dense(filter.complement(&x).unwrap()));
                assert_close(&passed, &want, 1e-12);
                assert_close(&(passed + rest), &x.dense(), 1e-12);
                assert_eq!(filter.sigma().unwrap().sum, k as f64);
                assert_eq!(filter.tradeoff(&x).unwrap(), None);
            }
        }
    }

    #[test]
    fn every_direction_with_the_soft_sigma_is_the_soft_filter() {
        let (input, output, gamma) = (factors(5, 11), factors(6, 15), 0.6);
        let x = change(6, 2, 5, 40);
        let of_value = |value: f64| sigma(gamma * value);
        let module = ModulePath::new(MODULE);

        let all = directions(&input, None, 5);
        let got = DirectionFilter::new(Some(&all), of_value, SHAPE, Sides::Input, Some(metric(&input, None)));
        let pair = metric(&input, None).input;
        let kernel = Rc::new(Kernel::new(&module, &pair, gamma).unwrap());
        let want = SoftInput::new(module.clone(), pair, kernel);
        compare(&got, &want, &x);

        let all = directions(&input, Some(&output), 30);
        let metric = metric(&input, Some(&output));
        let eigen = metric.input.eigen.clone().unwrap();
        let want = SoftBoth::new(&module, (Rc::clone(&metric.input), eigen), output, RIDGE, gamma).unwrap();
        let got = DirectionFilter::new(Some(&all), of_value, SHAPE, Sides::Both, Some(metric));
        compare(&got, &want, &x);
    }

    fn compare(got: &dyn Filter, want: &dyn Filter, x: &Thin) {
        assert_close(&dense(got.apply(x).unwrap()), &dense(want.apply(x).unwrap()), 1e-12);
        assert_close(
            &dense(got.complement(x).unwrap()),
            &dense(want.complement(x).unwrap()),
            1e-12,
        );
        let (a, b) = (got.sigma().unwrap(), want.sigma().unwrap());
        assert!((a.sum - b.sum).abs() <= 1e-12 * b.sum && a.count == b.count);
        assert!((a.random_energy() - b.random_energy()).abs() <= 1e-12);
        let (a, b) = (got.tradeoff(x).unwrap().unwrap(), want.tradeoff(x).unwrap().unwrap());
        let parts = |t: Tradeoff| [t.utility, t.utility_of_target, t.safety, t.safety_of_utility];
        for (a, b) in parts(a).into_iter().zip(parts(b)) {
            assert!((a - b).abs() <= 1e-11 * b, "{a:e} {b:e}");
        }
    }

    #[test]
    fn a_module_without_a_direction_is_left_alone() {
        let x = change(6, 2, 5, 50);
        let filter = DirectionFilter::new(None, |_| 1.0, SHAPE, Sides::Both, None);
        assert_eq!(dense(filter.apply(&x).unwrap()), Array2::<f64>::zeros((6, 5)));
        assert_eq!(dense(filter.complement(&x).unwrap()), x.dense());
        assert_eq!(filter.sigma().unwrap().random_energy(), 0.0);
    }
}
