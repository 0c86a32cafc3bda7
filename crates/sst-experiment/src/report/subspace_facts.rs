//! What a merge's projection keeps of the safety adapter, and what a random one would keep.

use super::Cell;
use crate::Results;
use serde::Serialize;
use sst_subspace::Spectrum;

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
    /// All eigenvalues as far as they are recorded, from the largest on: rank, from 1, and value.
    pub spectrum: Vec<(f64, f64)>,
    /// All that made the merge but k and its weight, as one text: merges that share it lie on one curve.
    pub family: String,
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
            let spectrum = serde_json::from_value(selection["spectrum"].clone());
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
                spectrum: spectrum.as_ref().map(ranked).unwrap_or_default(),
                family: cell.without_strength(),
            })
        };
        results.systems.iter().zip(cells).filter_map(of).collect()
    }
}

/// The recorded eigenvalues by rank.
fn ranked(spectrum: &Spectrum) -> Vec<(f64, f64)> {
    let n = spectrum.count as f64;
    let head = spectrum
        .head
        .iter()
        .zip(1..)
        .map(|(value, rank)| (f64::from(rank), *value));
    let middle = spectrum
        .quantiles
        .iter()
        .map(|q| (n - (q.level * (n - 1.0)).round(), q.value));
    let last = n - spectrum.tail.len() as f64;
    let tail = spectrum
        .tail
        .iter()
        .zip(1..)
        .map(|(value, place)| (last + f64::from(place), *value));
    let mut all: Vec<(f64, f64)> = head.chain(middle).chain(tail).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.dedup_by_key(|(rank, _)| *rank);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_eigenvalues_have_their_rank_in_the_whole() {
        for n in [1, 7, 25, 1000] {
            // The eigenvalue of rank r is n + 1 - r.
            let spectrum = Spectrum::of((1..=n).map(f64::from).collect());
            let ranked = ranked(&spectrum);
            assert!(
                ranked.iter().all(|(rank, value)| *value == f64::from(n) + 1.0 - rank),
                "{ranked:?}"
            );
            assert_eq!((ranked[0].0, ranked[ranked.len() - 1].0), (1.0, f64::from(n)));
            assert!(ranked.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
