//! The soft filter of the input side, without an eigenproblem.
//!
//! With G = I the optimum is M = U + D Q, where
//!
//! ```text
//! Q = V^-T sigma V^T = gamma A_s K^-1,    K = A_u + eps I + gamma A_s,    sigma_j = gamma lambda_j / (1 + gamma lambda_j).
//! ```
//!
//! Only the r rows of a in D = b a are filtered: a Q = (K^-1 gamma A_s a^T)^T, one Cholesky
//! factorisation, d^3 / 3, and r solves of 2 d^2. B stays as it is, so that U and U - U Q share one b.

use super::super::matrix::{array, cholesky, in_place, matrix, times_f64};
use super::SafetyDelta;
use super::change::{Change, Thin};
use super::filter::{Filter, Filtered};
use super::report::{Sigma, Tradeoff};
use crate::Error;
use faer::Mat;
use faer::linalg::solvers::{Llt, Solve};
use ndarray::{Array2, ArrayView2, Axis};
use sst_adapter::ModulePath;
use sst_subspace::gevp::{FactorEigen, RESIDUAL_LIMIT};
use sst_subspace::{Error as SubspaceError, Factors};
use std::rc::Rc;

/// (A_s, A_u + eps I) of the layers that read one input.
#[derive(Debug)]
pub(super) struct InputPair {
    /// A_s, `[d_in, d_in]`.
    pub safety: Array2<f64>,
    /// A_u + eps I, `[d_in, d_in]`.
    pub utility: Array2<f64>,
    /// Norms of both, utility first.
    norms: [f64; 2],
    /// All lambda_j and v_j, where they were solved for.
    pub eigen: Option<Rc<FactorEigen>>,
}

/// Whether the eigenproblem of a pair is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eigenproblem {
    /// It is not.
    Skipped,
    /// For the report alone: where it has no solution to rounding, the report does without.
    Optional,
    /// It was asked for, or is needed.
    Needed,
}

/// K of one gamma, factorised.
#[derive(Debug)]
pub(super) struct Kernel {
    gamma: f64,
    cholesky: Llt<f64>,
}

/// Q of one module.
#[derive(Debug)]
pub(super) struct SoftInput {
    module: ModulePath,
    pair: Rc<InputPair>,
    kernel: Rc<Kernel>,
}

/// Rows a of a change and a Q, with their products; all `[r, d_in]`.
struct Solved<'a> {
    /// a.
    whole: ArrayView2<'a, f64>,
    /// a Q.
    rows: Array2<f64>,
    /// a A_s.
    whole_safety: Array2<f64>,
    /// a Q (A_u + eps I).
    rows_utility: Array2<f64>,
    /// a Q A_s.
    rows_safety: Array2<f64>,
}

impl InputPair {
    /// Adds `ridge` times the mean eigenvalue to A_u, and solves the pair where `spectrum` asks for it.
    ///
    /// # Errors
    /// [`SubspaceError::InFactor`] around [`SubspaceError::Trace`] or the errors of the eigenproblem.
    pub fn new(module: &ModulePath, factors: Factors, ridge: f64, spectrum: Eigenproblem) -> Result<Self, Error> {
        let eigen = match spectrum {
            Eigenproblem::Skipped => None,
            _ => match factors.solve(module, "input", ridge) {
                Err(error) if spectrum == Eigenproblem::Optional && has_no_solution(&error) => None,
                solved => Some(solved?),
            },
        };
        let eps = factors.eps(module, "input", ridge)?;
        let utility = ridged(factors.utility, eps);
        Ok(Self {
            norms: [&utility, &factors.safety].map(norm),
            safety: factors.safety,
            utility,
            eigen: eigen.map(Rc::new),
        })
    }
}

impl Kernel {
    /// Factorises K.
    ///
    /// # Errors
    /// [`Error::Singular`] where K is singular to rounding.
    pub fn new(module: &ModulePath, pair: &InputPair, gamma: f64) -> Result<Self, Error> {
        let mut k = pair.utility.clone();
        k.scaled_add(gamma, &pair.safety);
        let singular = || Error::Singular {
            module: module.to_string(),
            gamma,
        };
        let cholesky = cholesky(k.view()).ok_or_else(singular)?;
        Ok(Self { gamma, cholesky })
    }

    /// The gamma of this K.
    pub fn gamma(&self) -> f64 {
        self.gamma
    }
}

impl SoftInput {
    pub fn new(module: ModulePath, pair: Rc<InputPair>, kernel: Rc<Kernel>) -> Self {
        Self { module, pair, kernel }
    }

    /// a Q.
    fn solve<'a>(&self, a: ArrayView2<'a, f64>) -> Result<Solved<'a>, Error> {
        let InputPair { safety, utility, .. } = &*self.pair;
        let gamma = self.kernel.gamma;
        let whole_safety = times_f64(a, safety.view());
        let right = gamma * &whole_safety;
        let mut solution: Mat<f64> = matrix(right.t());
        self.kernel.cholesky.solve_in_place(&mut solution);
        let rows = array(solution.transpose());
        let [rows_utility, rows_safety] = [utility, safety].map(|m| times_f64(rows.view(), m.view()));
        let gap = norm(&(&rows_utility + &(gamma * &rows_safety) - &right));
        let scale = (self.pair.norms[0] + gamma * self.pair.norms[1]) * norm(&rows) + norm(&right);
        let residual = if gap == 0.0 { 0.0 } else { gap / scale };
        if residual <= RESIDUAL_LIMIT {
            return Ok(Solved {
                whole: a,
                rows,
                whole_safety,
                rows_utility,
                rows_safety,
            });
        }
        let source = SubspaceError::Solver {
            solver: "cholesky",
            reason: format!("residual {residual:e} exceeds {RESIDUAL_LIMIT:e}"),
        };
        Err(SubspaceError::InModule {
            module: self.module.to_string(),
            source: Box::new(source),
        }
        .into())
    }

    /// The model's terms for D = b a, of which a Q is solved.
    fn tradeoff_of(&self, b: &Array2<f64>, solved: &Solved<'_>) -> Tradeoff {
        let outputs = b.t().dot(b); // [r, r]
        let square = |a: &Array2<f64>, a_metric: &Array2<f64>| (&outputs * &a_metric.dot(&a.t())).sum();
        let whole = solved.whole.to_owned();
        let rest = &whole - &solved.rows;
        Tradeoff {
            utility: square(&solved.rows, &solved.rows_utility),
            utility_of_target: square(&whole, &times_f64(whole.view(), self.pair.utility.view())),
            safety: square(&rest, &(&solved.whole_safety - &solved.rows_safety)),
            safety_of_utility: square(&whole, &solved.whole_safety),
        }
    }
}

impl Filter for SoftInput {
    fn apply(&self, x: &Thin) -> Result<Change, Error> {
        Ok(Change::Thin(Thin {
            b: x.b.clone(),
            a: self.solve(x.a.view())?.rows,
        }))
    }

    fn complement(&self, x: &Thin) -> Result<Change, Error> {
        Ok(Change::Thin(Thin {
            b: x.b.clone(),
            a: &x.a - &self.solve(x.a.view())?.rows,
        }))
    }

    /// From one solution of the rows of D, which are those of S and U.
    fn merge(&self, u: &Thin, s: &Thin, delta: SafetyDelta) -> Result<Filtered, Error> {
        let way = delta.way(u, s);
        let solved = self.solve(way.a.view())?;
        let (of_safety, of_utility) = solved.rows.view().split_at(Axis(0), s.a.nrows());
        let passed = Thin {
            b: s.b.clone(),
            a: of_safety.to_owned(),
        };
        let stays = match delta {
            SafetyDelta::Difference => Thin {
                b: u.b.clone(),
                a: &u.a - &of_utility,
            },
            SafetyDelta::Safety => u.clone(),
        };
        Ok(Filtered {
            merged: Change::Thin(stays.plus(1.0, &passed)),
            kept: passed.square(None, None),
            tradeoff: Some(self.tradeoff_of(&way.b, &solved)),
        })
    }

    fn sigma(&self) -> Option<Sigma> {
        let values = &self.pair.eigen.as_ref()?.eigen.values;
        Some(Sigma::of(values.iter().map(|l| sigma(self.kernel.gamma * l)).collect()))
    }

    fn tradeoff(&self, d: &Thin) -> Result<Option<Tradeoff>, Error> {
        Ok(Some(self.tradeoff_of(&d.b, &self.solve(d.a.view())?)))
    }

    fn curve(&self, d: &Thin, multiples: &[f64]) -> Vec<Tradeoff> {
        let Some(FactorEigen { eigen, .. }) = self.pair.eigen.as_deref() else {
            return Vec::new();
        };
        let gram = d.b.t().dot(&d.b); // [r, r]
        let along = times_f64(d.a.view(), self.pair.utility.view()); // [r, d_in]
        let along = times_f64(along.view(), eigen.vectors.view()); // D's coordinates V^-1, [r, d_in]
        let squares = (gram.dot(&along) * &along).sum_axis(ndarray::Axis(0));
        let at = |multiple: &f64| {
            let mut sum = Tradeoff::default();
            for (l, e) in eigen.values.iter().zip(&squares) {
                sum.add_direction(*l, *e, sigma(multiple * self.kernel.gamma * l));
            }
            sum
        };
        multiples.iter().map(at).collect()
    }
}

/// Whether an eigenproblem failed for itself: of factors that are no covariances the merge must not go on.
fn has_no_solution(error: &SubspaceError) -> bool {
    match error {
        SubspaceError::InFactor { source, .. } => has_no_solution(source),
        SubspaceError::NotPositiveDefinite | SubspaceError::Solver { .. } => true,
        _ => false,
    }
}

/// M + eps I.
pub(super) fn ridged(mut m: Array2<f64>, eps: f64) -> Array2<f64> {
    m.diag_mut().mapv_inplace(|x| x + eps);
    m
}

/// x / (1 + x).
pub(super) fn sigma(x: f64) -> f64 {
    x / (1.0 + x)
}

fn norm(x: &Array2<f64>) -> f64 {
    in_place(x.view(), |x| x.norm_l2())
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MODULE, assert_close, change, covariance, draw, factors, tokens};
    use super::*;
    use faer::Side;
    use faer::linalg::solvers::SolveLstsq;

    const RIDGE: f64 = 1e-2;

    fn filter(factors: Factors, ridge: f64, gamma: f64, spectrum: bool) -> SoftInput {
        let module = ModulePath::new(MODULE);
        let spectrum = if spectrum {
            Eigenproblem::Needed
        } else {
            Eigenproblem::Skipped
        };
        let pair = InputPair::new(&module, factors, ridge, spectrum).unwrap();
        let kernel = Kernel::new(&module, &pair, gamma).unwrap();
        SoftInput::new(module, Rc::new(pair), Rc::new(kernel))
    }

    fn thin(change: Change) -> Thin {
        match change {
            Change::Thin(thin) => thin,
            Change::Dense(_) => panic!("of small rank"),
        }
    }

    #[test]
    fn the_gradient_vanishes_at_the_result() {
        for (d_in, gamma, ridge) in [(7, 0.3, RIDGE), (5, 40.0, 1e-4), (9, 1e-3, 0.0)] {
            let pair = factors(d_in, 1);
            let d = change(4, 3, d_in, 50);
            let b = ridged(pair.utility.clone(), ridge * pair.utility.diag().mean().unwrap());
            let e = thin(filter(pair.clone(), ridge, gamma, false).apply(&d).unwrap()).dense();
            let (utility, safety) = (e.dot(&b), gamma * (&d.dense() - &e).dot(&pair.safety));
            assert_close(&utility, &safety, 1e-12);
        }
    }

    #[test]
    fn regmean_is_the_least_squares_fit_to_the_outputs_of_all_tokens() {
        let (d_out, d_in) = (4, 6);
        let (x_u, x_s) = (tokens(20, d_in, 3), tokens(20, d_in, 5));
        let (u, s) = (change(d_out, 2, d_in, 60), change(d_out, 3, d_in, 70));
        let x = ndarray::concatenate![ndarray::Axis(0), x_u, x_s];
        let y = ndarray::concatenate![ndarray::Axis(0), x_u.dot(&u.dense().t()), x_s.dot(&s.dense().t())];
        let fit = matrix(x.view()).qr().solve_lstsq(matrix(y.view()));
        let pair = Factors {
            safety: covariance(&x_s),
            utility: covariance(&x_u),
        };
        let filter = filter(pair, 0.0, 1.0, false);
        let merged = filter.complement(&u).unwrap().plus(filter.apply(&s).unwrap());
        let merged = thin(merged);
        assert_eq!(merged.a.nrows(), 5);
        assert_close(&merged.dense(), &array(fit.transpose()), 1e-12);
    }

    #[test]
    fn gamma_leads_from_u_to_the_target_where_the_safety_data_are() {
        let d_in = 6;
        let whole = factors(d_in, 7);
        let d = change(3, 2, d_in, 80);
        let of =
            |pair: &Factors, gamma: f64| thin(filter(pair.clone(), RIDGE, gamma, false).apply(&d).unwrap()).dense();
        assert!(of(&whole, 0.0).iter().all(|x| *x == 0.0));
        // sigma = gamma lambda to first order, and 1 - 1 / (gamma lambda) at the other end.
        assert_close(&(of(&whole, 1e-11) / 1e-11), &(of(&whole, 1e-10) / 1e-10), 1e-6);
        assert_close(&of(&whole, 1e9), &d.dense(), 1e-5);
        // Safety data that never leave three directions: along v with A_s v = 0 nothing passes.
        let few = tokens(3, d_in, 9);
        let flat = Factors {
            safety: covariance(&few),
            ..whole
        };
        let e = of(&flat, 1e6);
        // E X_s^T = D X_s^T on the data, and E has no more than their rank.
        assert_close(&e.dot(&few.t()), &d.dense().dot(&few.t()), 1e-3);
        let null = null_vector(&flat.safety);
        let b = ridged(flat.utility.clone(), RIDGE * flat.utility.diag().mean().unwrap());
        let along = e.dot(&b.dot(&null));
        assert!(along.iter().all(|x| x.abs() <= 1e-6), "{along}");
    }

    fn null_vector(m: &Array2<f64>) -> ndarray::Array1<f64> {
        let eigen = matrix(m.view()).self_adjoint_eigen(Side::Lower).unwrap();
        eigen.U().col(0).iter().copied().collect()
    }

    #[test]
    fn the_spectrum_and_the_factors_predict_the_same() {
        let (pair, d) = (factors(8, 11), change(5, 3, 8, 90));
        let gamma = 0.7;
        let (with, without) = (
            filter(pair.clone(), RIDGE, gamma, true),
            filter(pair, RIDGE, gamma, false),
        );
        assert_eq!(with.apply(&d).unwrap(), without.apply(&d).unwrap());
        assert_eq!((without.sigma(), without.curve(&d, &[1.0]).len()), (None, 0));
        let direct = with.tradeoff(&d).unwrap().unwrap();
        let curve = with.curve(&d, &[0.1, 1.0, 10.0]);
        let parts = |t: &Tradeoff| [t.utility, t.utility_of_target, t.safety, t.safety_of_utility];
        for (x, y) in parts(&direct).iter().zip(parts(&curve[1])) {
            assert!((x - y).abs() <= 1e-11 * y, "{x:e} {y:e}");
        }
        for pair in curve.windows(2) {
            assert!(pair[0].utility < pair[1].utility && pair[0].safety > pair[1].safety);
        }
        // tr Q = sum of sigma.
        let q = thin(
            with.apply(&Thin {
                b: Array2::eye(8),
                a: Array2::eye(8),
            })
            .unwrap(),
        );
        let sigma = with.sigma().unwrap();
        assert!((q.a.diag().sum() - sigma.sum).abs() <= 1e-12 * sigma.sum);
        assert!((q.a.dot(&q.a).diag().sum() - sigma.sum_of_squares).abs() <= 1e-12);
    }

    #[test]
    fn the_merge_from_one_solution_is_that_of_its_parts() {
        let (pair, u, s) = (factors(8, 17), change(5, 2, 8, 110), change(5, 3, 8, 120));
        let filter = filter(pair, RIDGE, 0.7, false);
        let passed = thin(filter.apply(&s).unwrap());
        for (delta, stays, way) in [
            (
                SafetyDelta::Difference,
                thin(filter.complement(&u).unwrap()),
                s.plus(-1.0, &u),
            ),
            (SafetyDelta::Safety, u.clone(), s.clone()),
        ] {
            let got = filter.merge(&u, &s, delta).unwrap();
            let (merged, want) = (thin(got.merged), stays.plus(1.0, &passed));
            assert_eq!(merged.a.nrows(), 5);
            assert_close(&merged.dense(), &want.dense(), 1e-14);
            let energy = passed.square(None, None);
            assert!((got.kept - energy).abs() <= 1e-14 * energy);
            let (got, want) = (got.tradeoff.unwrap(), filter.tradeoff(&way).unwrap().unwrap());
            assert!((got.safety - want.safety).abs() <= 1e-12 * want.safety_of_utility);
            assert!((got.utility - want.utility).abs() <= 1e-12 * want.utility_of_target);
        }
    }

    #[test]
    fn what_no_data_and_no_ridge_hold_is_refused() {
        let few = covariance(&tokens(2, 5, 13));
        let pair = Factors {
            safety: few.clone(),
            utility: few,
        };
        let module = ModulePath::new(MODULE);
        let inputs = InputPair::new(&module, pair.clone(), 0.0, Eigenproblem::Skipped).unwrap();
        let error = Kernel::new(&module, &inputs, 0.3).unwrap_err().to_string();
        assert!(error.contains(MODULE) && error.contains("ridge"), "{error}");
        let inputs = InputPair::new(&module, pair, RIDGE, Eigenproblem::Skipped).unwrap();
        assert!(Kernel::new(&module, &inputs, 0.3).is_ok());
        let none = Factors {
            safety: covariance(&draw(9, 5, 1)),
            utility: Array2::zeros((5, 5)),
        };
        let error = InputPair::new(&module, none, RIDGE, Eigenproblem::Optional)
            .unwrap_err()
            .to_string();
        assert!(error.contains(MODULE) && error.contains("trace"), "{error}");
    }

    #[test]
    fn a_spectrum_for_the_report_alone_keeps_no_merge_from_being_made() {
        // A_u + A_s = I, but A_u alone is singular: lambda = infinity.
        let pair = || Factors {
            safety: ndarray::array![[0.0, 0.0], [0.0, 1.0]],
            utility: ndarray::array![[1.0, 0.0], [0.0, 0.0]],
        };
        let module = ModulePath::new(MODULE);
        let inputs = InputPair::new(&module, pair(), 0.0, Eigenproblem::Optional).unwrap();
        assert!(inputs.eigen.is_none());
        let kernel = Kernel::new(&module, &inputs, 1.0).unwrap();
        let filter = SoftInput::new(module.clone(), Rc::new(inputs), Rc::new(kernel));
        let d = change(3, 2, 2, 100);
        let e = thin(filter.apply(&d).unwrap()).dense();
        assert_close(&e, &(d.dense() * ndarray::array![0.0, 1.0]), 1e-15);
        assert!(filter.sigma().is_none() && filter.curve(&d, &[1.0]).is_empty());
        let error = InputPair::new(&module, pair(), 0.0, Eigenproblem::Needed).unwrap_err();
        assert!(error.to_string().contains("raise the ridge or eps"), "{error}");
        // What is no covariance is refused, whoever asks.
        let mut negative = pair();
        negative.safety[[1, 1]] = -1.0;
        let error = InputPair::new(&module, negative, 1.0, Eigenproblem::Optional).unwrap_err();
        assert!(error.to_string().contains("indefinite"), "{error}");
    }
}
