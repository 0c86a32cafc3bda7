//! What a filter P of one module can do: P X, X - P X, and say how strong it is.

use super::change::{Change, Thin};
use super::report::{Sigma, Tradeoff};
use crate::Error;

/// The filter of one module.
pub(super) trait Filter {
    /// P X.
    fn apply(&self, x: &Thin) -> Result<Change, Error>;

    /// X - P X.
    fn complement(&self, x: &Thin) -> Result<Change, Error>;

    /// The eigenvalues sigma of P, where they are known.
    fn sigma(&self) -> Option<Sigma>;

    /// What the quadratic model predicts of U + P D, for D the way from U to the safety target; where the statistics are
    /// known.
    fn tradeoff(&self, d: &Thin) -> Result<Option<Tradeoff>, Error>;

    /// The same for other gammas, given as multiples of this one; empty where the spectrum is not known.
    fn curve(&self, d: &Thin, multiples: &[f64]) -> Vec<Tradeoff>;
}
