//! Solvers of F_s v = lambda (F_u + eps I) v.
//!
//! | solver | Fishers | cost |
//! | --- | --- | --- |
//! | [`diagonal`] | two diagonals of phi's length | O(n) |
//! | [`dense`] | two small dense symmetric matrices | O(n^3) |

mod dense;
mod diagonal;

#[cfg(feature = "lapack")]
pub use dense::LapackSolver;
pub use dense::{DenseEigen, DenseSolver, FaerSolver, RESIDUAL_LIMIT, dense, dense_with};
pub use diagonal::{RATIO_EPS, diagonal};
