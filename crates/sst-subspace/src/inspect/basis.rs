//! A safety subspace by its eigenvalues, and where its directions lie.

use crate::{PhiBasis, SafetySubspace, Spectrum};
use serde::Serialize;
use sst_adapter::ModulePath;
use std::collections::BTreeMap;

/// The numbers of a basis.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BasisSummary {
    /// Number of directions.
    pub k: usize,
    /// The eigenvalues of the directions; of none for random coordinates.
    pub spectrum: Spectrum,
    /// The modules that have directions, in model order.
    pub modules: Vec<ModuleDirections>,
}

/// How many directions a module has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleDirections {
    /// The module.
    pub module: ModulePath,
    /// Its directions.
    pub count: usize,
}

impl BasisSummary {
    /// Counts the directions of each module.
    pub fn of(subspace: &SafetySubspace) -> Self {
        let mut counts: BTreeMap<ModulePath, usize> = BTreeMap::new();
        match subspace {
            SafetySubspace::Phi(PhiBasis::Coordinates(basis)) => {
                for index in basis.indices() {
                    if let Some(slot) = basis.layout().slot_of(*index as usize) {
                        *counts.entry(slot.module()).or_default() += 1;
                    }
                }
            }
            SafetySubspace::Phi(PhiBasis::Samples(basis)) => {
                counts.extend(basis.modules().map(|(m, own)| (m.clone(), own.eigenvalues.len())));
            }
            SafetySubspace::Kronecker(basis) => {
                counts.extend(basis.modules().iter().map(|(m, own)| (m.clone(), own.chosen.len())));
            }
        }
        let modules = counts.into_iter();
        Self {
            k: subspace.k(),
            spectrum: Spectrum::of(subspace.eigenvalues()),
            modules: modules
                .map(|(module, count)| ModuleDirections { module, count })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Basis, Selection};
    use sst_adapter::ParamLayout;

    #[test]
    fn coordinates_of_both_sides_count_for_their_module() {
        let tensor = |name: &str, rows, cols| (name.to_owned(), rows, cols);
        let layout = ParamLayout::new([
            tensor("layers.0.q_proj.lora_A", 2, 3),
            tensor("layers.0.q_proj.lora_B", 1, 2),
            tensor("layers.1.v_proj.lora_A", 2, 2),
        ]);
        let basis = Basis::new(
            layout.unwrap(),
            vec![7, 0, 11],
            Vec::new(),
            Selection::Random { seed: 1 },
        )
        .unwrap();
        let summary = BasisSummary::of(&SafetySubspace::Phi(basis.into()));
        let counts: Vec<_> = summary.modules.iter().map(|m| (m.module.as_str(), m.count)).collect();
        assert_eq!(counts, [("layers.0.q_proj", 2), ("layers.1.v_proj", 1)]);
        assert_eq!((summary.k, summary.spectrum.count), (3, 0));
    }
}
