//! The soft filter of both sides: P X = W (sigma * (W^T B_g X B_a V)) V^T, entry by entry in the middle.
//!
//! B_a = A_u + eps_a I and B_g = G_u + eps_g I; sigma_ij = gamma mu_i lambda_j / (1 + gamma mu_i lambda_j). The sigma have no
//! low rank, so that P X has none either: it is a dense `[d_out, d_in]`, at 2 d_out d_in (d_out + d_in) operations beside
//! the two eigenproblems.

use super::super::matrix::times_f64;
use super::change::{Change, Thin};
use super::filter::Filter;
use super::input_side::{InputPair, ridged, sigma};
use super::report::{Sigma, Tradeoff};
use crate::Error;
use ndarray::Array2;
use sst_adapter::ModulePath;
use sst_subspace::Factors;
use sst_subspace::gevp::FactorEigen;
use std::rc::Rc;

/// P of one module.
#[derive(Debug)]
pub(super) struct SoftBoth {
    input: Rc<InputPair>,
    /// lambda_j and v_j.
    input_eigen: Rc<FactorEigen>,
    /// B_g, `[d_out, d_out]`.
    output: Array2<f64>,
    /// mu_i and w_i.
    output_eigen: FactorEigen,
    gamma: f64,
}

impl SoftBoth {
    /// Solves the output side.
    ///
    /// # Errors
    /// As [`Factors::solve`].
    pub fn new(
        module: &ModulePath,
        (input, input_eigen): (Rc<InputPair>, Rc<FactorEigen>),
        output: Factors,
        ridge: f64,
        gamma: f64,
    ) -> Result<Self, Error> {
        let output_eigen = output.solve(module, "output", ridge)?;
        Ok(Self {
            input,
            input_eigen,
            output: ridged(output.utility, output_eigen.eps),
            output_eigen,
            gamma,
        })
    }

    /// W^T B_g X B_a V, `[d_out, d_in]`.
    fn coordinates(&self, x: &Thin) -> Array2<f64> {
        let left = self.output_eigen.eigen.vectors.t().dot(&self.output.dot(&x.b)); // [d_out, r]
        let right = x.a.dot(&self.input.utility).dot(&self.input_eigen.eigen.vectors); // [r, d_in]
        times_f64(left.view(), right.view())
    }

    /// mu_i lambda_j.
    fn product_of(&self, (i, j): (usize, usize)) -> f64 {
        self.output_eigen.eigen.values[i] * self.input_eigen.eigen.values[j]
    }

    fn sum_up(&self, coordinates: &Array2<f64>, gamma: f64) -> Tradeoff {
        let mut sum = Tradeoff::default();
        for (at, x) in coordinates.indexed_iter() {
            let l = self.product_of(at);
            sum.add_direction(l, x * x, sigma(gamma * l));
        }
        sum
    }
}

impl Filter for SoftBoth {
    fn apply(&self, x: &Thin) -> Result<Change, Error> {
        let mut middle = self.coordinates(x);
        for (at, entry) in middle.indexed_iter_mut() {
            *entry *= sigma(self.gamma * self.product_of(at));
        }
        let left = times_f64(self.output_eigen.eigen.vectors.view(), middle.view());
        let dense = times_f64(left.view(), self.input_eigen.eigen.vectors.t());
        Ok(Change::Dense(dense))
    }

    fn complement(&self, x: &Thin) -> Result<Change, Error> {
        let minus = Thin {
            b: -&x.b,
            a: x.a.clone(),
        };
        Ok(Change::Thin(x.clone()).plus(self.apply(&minus)?))
    }

    fn sigma(&self) -> Option<Sigma> {
        let (d_out, d_in) = (
            self.output_eigen.eigen.values.len(),
            self.input_eigen.eigen.values.len(),
        );
        let pairs = (0..d_out).flat_map(|i| (0..d_in).map(move |j| (i, j)));
        Some(Sigma::of(
            pairs.map(|at| sigma(self.gamma * self.product_of(at))).collect(),
        ))
    }

    fn tradeoff(&self, d: &Thin) -> Result<Option<Tradeoff>, Error> {
        Ok(Some(self.sum_up(&self.coordinates(d), self.gamma)))
    }

    fn curve(&self, d: &Thin, multiples: &[f64]) -> Vec<Tradeoff> {
        let coordinates = self.coordinates(d);
        let at = |multiple: &f64| self.sum_up(&coordinates, multiple * self.gamma);
        multiples.iter().map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::input_side::{Eigenproblem, Kernel, SoftInput};
    use super::super::made_up::{MODULE, assert_close, change, factors, solve};
    use super::*;
    use ndarray::Array1;
    use ndarray::linalg::kron;

    const RIDGE: f64 = 1e-2;

    fn filter(input: Factors, output: Factors, ridge: f64, gamma: f64) -> SoftBoth {
        let module = ModulePath::new(MODULE);
        let pair = Rc::new(InputPair::new(&module, input, ridge, Eigenproblem::Needed).unwrap());
        let eigen = pair.eigen.clone().unwrap();
        SoftBoth::new(&module, (pair, eigen), output, ridge, gamma).unwrap()
    }

    fn dense(change: Change) -> Array2<f64> {
        match change {
            Change::Thin(thin) => thin.dense(),
            Change::Dense(dense) => dense,
        }
    }

    fn with_ridge(m: &Array2<f64>, ridge: f64) -> Array2<f64> {
        ridged(m.clone(), ridge * m.diag().mean().unwrap())
    }

    #[test]
    fn the_gradient_vanishes_at_the_result() {
        for (d_out, d_in, gamma, ridge) in [(6, 5, 0.3, RIDGE), (4, 9, 25.0, 1e-4), (3, 3, 1e-3, 0.0)] {
            let (input, output) = (factors(d_in, 1), factors(d_out, 5));
            let d = change(d_out, 2, d_in, 30);
            let filter = filter(input.clone(), output.clone(), ridge, gamma);
            let e = dense(filter.apply(&d).unwrap());
            let (b_a, b_g) = (with_ridge(&input.utility, ridge), with_ridge(&output.utility, ridge));
            let utility = b_g.dot(&e).dot(&b_a);
            let safety = gamma * output.safety.dot(&(&d.dense() - &e)).dot(&input.safety);
            // The condition numbers of both factors, some 1e4 each, times the rounding of f64.
            assert_close(&utility, &safety, 1e-8);
            assert_close(&dense(filter.complement(&d).unwrap()), &(d.dense() - e), 1e-12);
        }
    }

    #[test]
    fn agrees_with_the_normal_equations_of_all_entries() {
        let (d_out, d_in, gamma) = (6, 5, 0.8);
        let (input, output) = (factors(d_in, 11), factors(d_out, 15));
        let d = change(d_out, 3, d_in, 40);
        let f_s = kron(&output.safety, &input.safety);
        let b = kron(&with_ridge(&output.utility, RIDGE), &with_ridge(&input.utility, RIDGE));
        let way = Array1::from_iter(d.dense());
        let want = solve(&(&b + &(gamma * &f_s)), &(gamma * f_s.dot(&way)));
        let filter = filter(input, output, RIDGE, gamma);
        let got = dense(filter.apply(&d).unwrap());
        assert_close(&got, &want.clone().into_shape_with_order((d_out, d_in)).unwrap(), 1e-12);

        let tradeoff = filter.tradeoff(&d).unwrap().unwrap();
        let rest = &way - &want;
        for (got, want) in [
            (tradeoff.utility, want.dot(&b.dot(&want))),
            (tradeoff.utility_of_target, way.dot(&b.dot(&way))),
            (tradeoff.safety, rest.dot(&f_s.dot(&rest))),
            (tradeoff.safety_of_utility, way.dot(&f_s.dot(&way))),
        ] {
            assert!((got - want).abs() <= 1e-11 * want, "{got:e} {want:e}");
        }
        // tr P = sum of sigma.
        let p = (&b + &(gamma * &f_s), gamma * &f_s);
        let trace: f64 = (0..d_out * d_in)
            .map(|i| solve(&p.0, &p.1.column(i).to_owned())[i])
            .sum();
        let sigma = filter.sigma().unwrap();
        assert!((sigma.sum - trace).abs() <= 1e-11 * trace && sigma.count == 30);
    }

    #[test]
    fn identities_on_the_output_side_are_the_input_side() {
        let (d_out, d_in, gamma) = (4, 6, 0.4);
        let input = factors(d_in, 21);
        let output = Factors {
            safety: Array2::eye(d_out),
            utility: Array2::eye(d_out),
        };
        let d = change(d_out, 2, d_in, 50);
        let both = filter(input.clone(), output, 0.0, gamma);
        let module = ModulePath::new(MODULE);
        let kernel = Kernel::new(&module, &both.input, gamma).unwrap();
        let one = SoftInput::new(module, Rc::clone(&both.input), Rc::new(kernel));
        assert_close(&dense(both.apply(&d).unwrap()), &dense(one.apply(&d).unwrap()), 1e-12);
    }
}
