//! What a filter P of one module can do: merge, P X, X - P X, and say how strong it is.

use super::SafetyDelta;
use super::change::{Change, Thin};
use super::report::{Sigma, Tradeoff};
use crate::Error;

/// One module's merge.
#[derive(Debug)]
pub(super) struct Filtered {
    /// M = U + P D.
    pub merged: Change,
    /// ||P S||_F^2.
    pub kept: f64,
    /// What the quadratic model predicts of M, where the statistics are known.
    pub tradeoff: Option<Tradeoff>,
}

/// The filter of one module.
pub(super) trait Filter {
    /// P X.
    fn apply(&self, x: &Thin) -> Result<Change, Error>;

    /// X - P X.
    fn complement(&self, x: &Thin) -> Result<Change, Error>;

    /// The merge of U and S for that target.
    fn merge(&self, u: &Thin, s: &Thin, delta: SafetyDelta) -> Result<Filtered, Error> {
        let passed = self.apply(s)?;
        let kept = passed.square();
        let stays = match delta {
            SafetyDelta::Difference => self.complement(u)?,
            SafetyDelta::Safety => Change::Thin(u.clone()),
        };
        Ok(Filtered {
            merged: stays.plus(passed),
            kept,
            tradeoff: self.tradeoff(&delta.way(u, s))?,
        })
    }

    /// The eigenvalues sigma of P, where they are known.
    fn sigma(&self) -> Option<Sigma>;

    /// What the quadratic model predicts of U + P D, for D the way from U to the safety target; where the statistics are
    /// known.
    fn tradeoff(&self, d: &Thin) -> Result<Option<Tradeoff>, Error>;

    /// The same for other gammas, given as multiples of this one; empty where the spectrum is not known.
    fn curve(&self, d: &Thin, multiples: &[f64]) -> Vec<Tradeoff>;
}
