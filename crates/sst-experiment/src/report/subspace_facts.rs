//! What a merge's projection keeps of the safety adapter, and what a random one would keep.

use super::Cell;
use crate::Results;
use serde::Serialize;

/// One merge's subspace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SubspaceFacts {
    /// The merge.
    pub cell: String,
    /// The method.
    pub version: String,
    /// Number of directions.
    pub k: Option<u64>,
    /// ||P S||^2 / ||S||^2.
    pub retained: Option<f64>,
    /// The same of a random subspace of the same k.
    pub random: Option<f64>,
    /// ||M - U|| / ||U||: 0 where the merge is the utility adapter.
    pub relative_change: Option<f64>,
    /// Largest and smallest eigenvalue of the directions kept.
    pub eigenvalues: Option<[f64; 2]>,
    /// Share of the utility Fisher's entries below its ridge, where the ratio hardly sees the utility.
    pub below_ridge: Option<f64>,
    /// Quantiles of all eigenvalues, from low to high: level and value.
    pub quantiles: Vec<(f64, f64)>,
}

impl SubspaceFacts {
    /// Those of every merge that projects; `cells` are the systems of the results, in their order.
    pub(super) fn all(results: &Results, cells: &[Cell]) -> Vec<Self> {
        let of = |(system, cell): (&crate::System, &Cell)| {
            let diagnostics = system.diagnostics.as_ref()?;
            // The selection has a form for each solver; what they share is read by name.
            let selection = serde_json::to_value(&diagnostics.selection).unwrap_or_default();
            let quantiles = selection["spectrum"]["quantiles"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let sst = diagnostics.sst.as_ref();
            let random = diagnostics
                .random_control
                .as_ref()
                .map(|control| control.retained_energy);
            diagnostics.retained_energy?;
            Some(Self {
                cell: cell.name.clone(),
                version: cell.version.clone().unwrap_or_default(),
                k: cell.k,
                retained: diagnostics.retained_energy,
                random: random.or_else(|| sst.and_then(|report| report.random_energy)),
                relative_change: diagnostics.relative_change,
                eigenvalues: diagnostics.eigenvalues,
                below_ridge: selection["share_below_ridge_utility"].as_f64(),
                quantiles: quantiles
                    .iter()
                    .filter_map(|q| Some((q["level"].as_f64()?, q["value"].as_f64()?)))
                    .collect(),
            })
        };
        results.systems.iter().zip(cells).filter_map(of).collect()
    }
}
