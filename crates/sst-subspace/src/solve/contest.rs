//! The k largest eigenvalues over modules that come one after another, so that no module keeps what a later one displaces.

use std::cmp::Ordering;

/// The k largest so far, descending; of equal values the earlier module's stays ahead.
pub(super) struct Contest {
    k: usize,
    holders: Vec<(f64, usize)>,
}

impl Contest {
    pub fn new(k: usize) -> Self {
        let holders = Vec::new();
        Self { k, holders }
    }

    /// Lets a module's values compete, and tells how many of its first ones are among the k largest now.
    pub fn enter(&mut self, module: usize, values: impl IntoIterator<Item = f64>) -> usize {
        self.holders.extend(values.into_iter().map(|value| (value, module)));
        let descending = |x: &(f64, usize), y: &(f64, usize)| -> Ordering { y.0.total_cmp(&x.0) };
        self.holders.sort_by(descending); // stable
        self.holders.truncate(self.k);
        self.count(module)
    }

    /// How many of the k largest so far are the module's.
    pub fn count(&self, module: usize) -> usize {
        self.holders.iter().filter(|(_, holder)| *holder == module).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gevp::{ProductSpectrum, top_products};
    use ndarray::aview1;

    #[test]
    fn ends_as_the_choice_over_all_modules_at_once() {
        let modules: [&[f64]; 4] = [&[5.0, 3.0, 3.0], &[9.0, 3.0, 1.0], &[], &[3.0, 3.0, 0.5]];
        let spectra: Vec<_> = modules.iter().map(|m| ProductSpectrum::of_input(aview1(m))).collect();
        for k in 1..=9 {
            let mut contest = Contest::new(k);
            for (module, values) in modules.iter().enumerate() {
                let admitted = contest.enter(module, values.iter().copied());
                assert_eq!(admitted, contest.count(module));
            }
            let top = top_products(&spectra, k).unwrap();
            for module in 0..modules.len() {
                let expected = top.iter().filter(|p| p.module == module).count();
                assert_eq!(contest.count(module), expected, "k = {k}, module {module}");
            }
        }
    }
}
