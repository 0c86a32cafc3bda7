//! Solvers of F_s v = lambda (F_u + eps I) v.
//!
//! | solver | Fishers | cost |
//! | --- | --- | --- |
//! | [`diagonal`] | two diagonals of phi's length | O(n) |
//! | [`dense`] | two small dense symmetric matrices | O(n^3) |
//! | [`kronecker`] | G (x) A per linear layer | O(d_in^3 + d_out^3) per layer; [`top_products`] O(k log k) over all |
//! | [`samples`] | per-sample gradients, through their inner products | O((N_s + N_u)^3) per module |

mod dense;
mod diagonal;
mod kronecker;
mod products;
mod samples;
mod span;

#[cfg(feature = "lapack")]
pub use dense::LapackSolver;
pub use dense::{DenseEigen, DenseSolver, FaerSolver, RESIDUAL_LIMIT, dense, dense_with};
pub use diagonal::{RATIO_EPS, diagonal};
pub use kronecker::{FactorEigen, FactorPair, KroneckerEigen, kronecker};
pub use products::{Product, ProductSpectrum, top_products};
pub use samples::{SampleEigen, gram_spectrum, mean_eigenvalue, samples};
pub use span::SampleGrams;

pub(crate) use kronecker::{relative_eps, solve_side};
pub(crate) use samples::check_eps;
pub(crate) use span::{SampleSpan, SpanEigen};
