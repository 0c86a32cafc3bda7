//! A summary of all n eigenvalues: the largest, the smallest, quantiles and the trace.

use serde::{Deserialize, Serialize};

/// How many of the largest and of the smallest eigenvalues are listed.
pub(crate) const EDGE: usize = 10;
/// The levels of the listed quantiles.
const LEVELS: [f64; 9] = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99];

/// The spectrum of a generalised eigenproblem in a few numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// Number of eigenvalues.
    pub count: u64,
    /// Sum of all eigenvalues.
    pub trace: f64,
    /// The largest eigenvalues, descending.
    pub head: Vec<f64>,
    /// The smallest eigenvalues, descending: the last one is the smallest.
    pub tail: Vec<f64>,
    /// Quantiles from low to high.
    pub quantiles: Vec<Quantile>,
}

/// One quantile: the eigenvalue of rank `level` (n - 1), rounded to the nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    /// Share of the spectrum below, in [0, 1].
    pub level: f64,
    /// The eigenvalue.
    pub value: f64,
}

impl Spectrum {
    /// Summarises eigenvalues given in any order, in O(n); the values are reordered.
    pub fn of(mut values: Vec<f64>) -> Self {
        let n = values.len();
        let trace = values.iter().sum();
        let rank = |level: f64| (level * n.saturating_sub(1) as f64).round() as usize;
        let mut ranks: Vec<usize> = (0..n.min(EDGE)).chain(n.saturating_sub(EDGE)..n).collect();
        ranks.extend(LEVELS.iter().map(|level| rank(*level)).filter(|_| n > 0));
        ranks.sort_unstable();
        ranks.dedup();
        place_order_statistics(&mut values, 0, &ranks);
        Self {
            count: n as u64,
            trace,
            head: values.iter().rev().take(EDGE).copied().collect(),
            tail: values.iter().take(EDGE).rev().copied().collect(),
            quantiles: LEVELS
                .iter()
                .filter_map(|&level| values.get(rank(level)).map(|&value| Quantile { level, value }))
                .collect(),
        }
    }
}

/// Puts the order statistics of the given sorted ranks into place; `values` begins at rank `first`.
fn place_order_statistics(values: &mut [f64], first: usize, ranks: &[usize]) {
    let Some(&middle) = ranks.get(ranks.len() / 2) else {
        return;
    };
    let (below, _, above) = values.select_nth_unstable_by(middle - first, f64::total_cmp);
    place_order_statistics(below, first, &ranks[..ranks.len() / 2]);
    place_order_statistics(above, middle + 1, &ranks[ranks.len() / 2 + 1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_full_sort() {
        for n in [1usize, 3, 11, 25, 1000] {
            // 7919 is prime and larger than n: a permutation of distinct values.
            let values: Vec<f64> = (0..n).map(|i| ((i * 7919) % 10007) as f64 * 0.5).collect();
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let spectrum = Spectrum::of(values);
            let edge = n.min(EDGE);
            assert_eq!(spectrum.tail, sorted[..edge].iter().rev().copied().collect::<Vec<_>>());
            assert_eq!(
                spectrum.head,
                sorted.iter().rev().take(edge).copied().collect::<Vec<_>>()
            );
            assert_eq!(spectrum.trace, sorted.iter().sum::<f64>());
            for q in &spectrum.quantiles {
                assert_eq!(
                    q.value,
                    sorted[(q.level * (n - 1) as f64).round() as usize],
                    "n {n} level {}",
                    q.level
                );
            }
        }
    }

    #[test]
    fn no_eigenvalue_is_no_panic() {
        let spectrum = Spectrum::of(Vec::new());
        assert!(spectrum.head.is_empty() && spectrum.quantiles.is_empty());
    }
}
