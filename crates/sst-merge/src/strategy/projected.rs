//! What V1 and V2 share: S projected onto the first k directions, and weighted sums over phi.

use crate::{Error, MergeInputs, Merged};
use rayon::prelude::*;
use sst_subspace::{PhiBasis, Projection};

/// P S and what to report about it.
pub(super) struct ProjectedSafety {
    basis: PhiBasis,
    projection: Projection,
    /// P S, `[n]`.
    pub phi: Vec<f32>,
}

impl ProjectedSafety {
    /// Projects `safety` onto the basis' first k directions.
    pub fn new(
        strategy: &'static str,
        inputs: &MergeInputs<'_>,
        safety: &[f32],
        k: usize,
        projection: Projection,
    ) -> Result<Self, Error> {
        let basis = inputs.basis.ok_or(Error::NoBasis { strategy })?.truncate(k)?;
        let phi = basis.project(safety, projection)?;
        Ok(Self { basis, projection, phi })
    }

    /// Adds retained energy, its random control and the spectrum to the diagnostics.
    pub fn describe(self, merged: &mut Merged, safety: &[f32], control_seed: u64) -> Result<(), Error> {
        let diagnostics = &mut merged.diagnostics;
        let (basis, projection) = (&self.basis, self.projection);
        diagnostics.retained_energy = Some(basis.retained_energy(safety, projection)?);
        diagnostics.random_control = Some(basis.random_control(safety, projection, control_seed)?);
        diagnostics.k = Some(basis.k());
        diagnostics.projection = Some(projection);
        diagnostics.eigenvalues = match basis.eigenvalues() {
            [largest, .., smallest] => Some([*largest, *smallest]),
            [only] => Some([*only, *only]),
            [] => None,
        };
        diagnostics.selection = Some(basis.selection().clone());
        Ok(())
    }
}

/// x X + y Y in f64, rounded once.
pub(super) fn combine(x: f64, xs: &[f32], y: f64, ys: &[f32]) -> Vec<f32> {
    xs.par_iter()
        .zip(ys)
        .with_min_len(1 << 14)
        .map(|(a, b)| (x * f64::from(*a) + y * f64::from(*b)) as f32)
        .collect()
}
