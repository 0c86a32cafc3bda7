//! Masks over the entries of one tensor, and what the survivors are scaled by.
//!
//! | [`Rule`] | keeps |
//! | --- | --- |
//! | `Top` | the floor(density n) largest magnitudes of the tensor |
//! | `TopOfAdapter` | every entry no smaller than the floor(density N)-th largest magnitude of all merged modules |
//! | `Band` | floor(density n) entries: the largest ones after the floor(gamma n) very largest |
//! | `Random` | each entry with probability density |
//! | `MagPrune` | each entry with a probability that grows with its rank in its row |
//!
//! Equal magnitudes count as larger the earlier they stand, row-major.

use ndarray::Array2;

/// A mask and the scale of what it keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::strategy) struct Prune {
    /// The mask.
    pub rule: Rule,
    /// The scale.
    pub rescale: Rescale,
}

/// Which entries survive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::strategy) enum Rule {
    /// The largest of a tensor, at least `at_least`.
    Top { density: f64, at_least: usize },
    /// The largest of the whole adapter.
    TopOfAdapter { density: f64 },
    /// The largest but for the very largest.
    Band { density: f64, gamma: f64 },
    /// Each at random.
    Random { density: f64 },
    /// Each at random, the larger the likelier: `lowest` for a row's smallest entry up to `highest` for its largest.
    MagPrune { density: f64, lowest: Keep, highest: Keep },
}

/// A probability of keeping, `base + per_entry / n` in a row of n entries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::strategy) struct Keep {
    /// What does not depend on n.
    pub base: f64,
    /// What shrinks with n.
    pub per_entry: f64,
}

/// What the survivors are scaled by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::strategy) enum Rescale {
    /// 1.
    None,
    /// 1 / (the probability that the entry survives), which keeps its expectation.
    Probability,
    /// (sum of magnitudes before) / (after), per tensor, unless one of them is below 1e-7.
    L1,
}

/// mergekit's bound below which a norm is not restored.
const L1_MIN: f64 = 1e-7;

impl Prune {
    /// Prunes a row-major tensor in place. `cut` is the smallest magnitude kept by [`Rule::TopOfAdapter`]; `uniform`
    /// gives the draw in [0, 1) of a flat index.
    pub fn apply(&self, tensor: &mut Array2<f32>, cut: Option<u32>, uniform: impl Fn(u64) -> f64) {
        let (n, cols) = (tensor.len(), tensor.ncols());
        let before = match self.rescale {
            Rescale::L1 => l1(tensor),
            _ => 0.0,
        };
        let draw = |i: usize, probability: f64, x: &mut f32| {
            let scale = match self.rescale {
                Rescale::Probability => 1.0 / probability,
                _ => 1.0,
            };
            *x = if uniform(i as u64) < probability {
                (f64::from(*x) * scale) as f32
            } else {
                0.0
            };
        };
        match self.rule {
            Rule::Top { density, at_least } => {
                Largest::of(tensor, count(density, n).max(at_least)).keep(tensor);
            }
            Rule::TopOfAdapter { .. } => {
                let cut = cut.unwrap_or(0);
                tensor.mapv_inplace(|x| if magnitude(x) >= cut { x } else { 0.0 });
            }
            Rule::Band { density, gamma } => {
                let kept = count(density, n);
                let dropped = count(gamma, n).min(n - kept);
                let (outer, inner) = (Largest::of(tensor, dropped + kept), Largest::of(tensor, dropped));
                let mut tails = tensor.clone();
                inner.keep(&mut tails);
                outer.keep(tensor);
                *tensor -= &tails;
            }
            Rule::Random { density } => {
                tensor.iter_mut().enumerate().for_each(|(i, x)| draw(i, density, x));
            }
            Rule::MagPrune {
                density,
                lowest,
                highest,
            } => {
                if density < 1.0 {
                    let (lowest, highest) = (lowest.at(cols), highest.at(cols));
                    for (row, mut entries) in tensor.rows_mut().into_iter().enumerate() {
                        let ranks = ranks(&entries.iter().copied().collect::<Vec<_>>());
                        for (col, x) in entries.iter_mut().enumerate() {
                            let share = if cols > 1 {
                                ranks[col] as f64 / (cols - 1) as f64
                            } else {
                                0.5
                            };
                            draw(row * cols + col, lowest + share * (highest - lowest), x);
                        }
                    }
                }
            }
        }
        if self.rescale == Rescale::L1 {
            let after = l1(tensor);
            if before >= L1_MIN && after >= L1_MIN {
                let ratio = before / after;
                tensor.mapv_inplace(|x| (f64::from(x) * ratio) as f32);
            }
        }
    }
}

impl Keep {
    fn at(self, n: usize) -> f64 {
        self.base + self.per_entry / n as f64
    }
}

/// floor(share n).
pub(super) fn count(share: f64, n: usize) -> usize {
    ((share * n as f64) as usize).min(n)
}

/// The bits of |x|, which order as |x| does: NaN never reaches a merge.
pub(super) fn magnitude(x: f32) -> u32 {
    x.abs().to_bits()
}

fn l1(tensor: &Array2<f32>) -> f64 {
    tensor.iter().map(|x| f64::from(x.abs())).sum()
}

/// The k largest entries of a tensor: those above the k-th largest magnitude, and the first `at_cut` of those equal to it.
struct Largest {
    cut: u32,
    at_cut: usize,
    /// Whether others equal to the k-th largest do not belong to the k.
    tied: bool,
}

impl Largest {
    fn of(tensor: &Array2<f32>, k: usize) -> Self {
        if k == 0 || k >= tensor.len() {
            return Self {
                cut: if k == 0 { u32::MAX } else { 0 },
                at_cut: 0,
                tied: false,
            };
        }
        // A slice's iterator is one that the processor's vectors can take.
        let mut magnitudes: Vec<u32> = match tensor.as_slice() {
            Some(entries) => entries.iter().map(|x| magnitude(*x)).collect(),
            None => tensor.iter().map(|x| magnitude(*x)).collect(),
        };
        let (above, cut, below) = magnitudes.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        let equal = |others: &[u32]| others.iter().filter(|m| **m == *cut).count();
        Self {
            cut: *cut,
            at_cut: 1 + equal(above),
            tied: equal(below) > 0,
        }
    }

    /// Sets all others to 0.
    fn keep(mut self, tensor: &mut Array2<f32>) {
        if self.tied {
            tensor.mapv_inplace(|x| {
                let first = magnitude(x) == self.cut && self.at_cut > 0;
                self.at_cut -= usize::from(first);
                if first || magnitude(x) > self.cut { x } else { 0.0 }
            });
        } else {
            tensor.mapv_inplace(|x| if magnitude(x) >= self.cut { x } else { 0.0 });
        }
    }
}

/// 0 for the smallest magnitude of a row up to n - 1 for the largest.
fn ranks(row: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).rev().collect();
    order.sort_by_key(|i| magnitude(row[*i]));
    let mut ranks = vec![0; row.len()];
    for (rank, i) in order.into_iter().enumerate() {
        ranks[i] = rank;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn pruned(rule: Rule, rescale: Rescale, mut tensor: Array2<f32>, draws: &[f64]) -> Array2<f32> {
        Prune { rule, rescale }.apply(&mut tensor, None, |i| draws[i as usize]);
        tensor
    }

    #[test]
    fn the_largest_stay_and_ties_go_to_the_earlier() {
        let x = array![[1.0, -3.0, 2.0], [-2.0, 0.5, 2.0]];
        let of = |density, at_least| pruned(Rule::Top { density, at_least }, Rescale::None, x.clone(), &[]);
        assert_eq!(of(0.5, 0), array![[0.0, -3.0, 2.0], [-2.0, 0.0, 0.0]]);
        assert_eq!(of(1.0, 0), x);
        assert_eq!(of(0.1, 0), Array2::<f32>::zeros((2, 3)));
        assert_eq!(of(0.1, 1), array![[0.0, -3.0, 0.0], [0.0, 0.0, 0.0]]);
        let zeros = Array2::<f32>::zeros((2, 2));
        let rule = Rule::Top {
            density: 0.5,
            at_least: 0,
        };
        assert_eq!(pruned(rule, Rescale::L1, zeros.clone(), &[]), zeros);
    }

    #[test]
    fn a_band_drops_both_tails_and_gamma_yields_to_density() {
        let x = array![[10.0, 1.0, -9.0, 2.0, 8.0, -3.0, 7.0, 4.0, -6.0, 5.0]];
        let of = |density, gamma| pruned(Rule::Band { density, gamma }, Rescale::None, x.clone(), &[]);
        assert_eq!(
            of(0.3, 0.2),
            array![[0.0, 0.0, 0.0, 0.0, 8.0, 0.0, 7.0, 0.0, -6.0, 0.0]]
        );
        assert_eq!(of(0.9, 0.4), {
            let mut all_but_largest = x.clone();
            all_but_largest[[0, 0]] = 0.0;
            all_but_largest
        });
        assert_eq!(of(1.0, 0.4), x);
    }

    #[test]
    fn magprune_keeps_the_larger_more_often() {
        // A row of 4 with keep probabilities 0.2, 0.4, 0.6, 0.8 from the smallest to the largest.
        let rule = Rule::MagPrune {
            density: 0.5,
            lowest: Keep {
                base: 0.2,
                per_entry: 0.0,
            },
            highest: Keep {
                base: 0.4,
                per_entry: 1.6,
            },
        };
        let x = array![[4.0, -1.0, 3.0, 2.0], [1.0, -2.0, 3.0, -4.0]];
        let draws = [0.79, 0.21, 0.59, 0.39, 0.19, 0.41, 0.61, 0.81];
        let got = pruned(rule, Rescale::Probability, x.clone(), &draws);
        for (got, want) in got.iter().zip([5.0, 0.0, 5.0, 5.0, 5.0, 0.0, 0.0, 0.0]) {
            assert!((got - want).abs() <= 4.0 * f32::EPSILON * want, "{got} {want}");
        }
        let got = pruned(rule, Rescale::L1, x, &draws);
        let want = array![[8.0, 0.0, 6.0, 4.0], [2.0, 0.0, 0.0, 0.0]]; // 20 before, 10 after
        assert_eq!(got, want);
    }

    #[test]
    fn random_masks_keep_the_expectation() {
        let n = 200_000usize;
        let density = 0.3;
        let draws = crate::Counter::new(11, "x");
        let mut x = Array2::<f32>::ones((n / 100, 100));
        let prune = Prune {
            rule: Rule::Random { density },
            rescale: Rescale::Probability,
        };
        prune.apply(&mut x, None, |i| draws.uniform(i));
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
        let standard_error = ((1.0 - density) / density / n as f64).sqrt();
        assert!((mean - 1.0).abs() < 5.0 * standard_error, "{mean}");
        assert!(
            x.iter()
                .all(|x| *x == 0.0 || (*x - (1.0 / density) as f32).abs() < 1e-6)
        );
    }
}
