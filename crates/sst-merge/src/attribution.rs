//! Which stage of a pipeline carries a difference: exact Shapley values of a game whose players are the stages.
//!
//! Two pipelines A and B differ in m stages. v(T) is the score when the stages in T are taken from B and the others from A;
//! all 2^m are known. The share of stage j in v(all) - v(none) is its mean gain over the m! orders of switching from A to B,
//!
//! ```text
//! phi_j = sum over T without j of |T|! (m - |T| - 1)! / m! (v(T + j) - v(T))
//! ```
//!
//! the only division that adds up to the whole, treats equal stages alike, gives nothing to a stage without effect, and is
//! linear in v (L. S. Shapley 1953, "A value for n-person games", Contributions to the Theory of Games II). How far two
//! stages do together what neither does alone is their interaction index,
//!
//! ```text
//! I_ij = sum over T without i and j of |T|! (m - |T| - 2)! / (m - 1)! (v(T + i + j) - v(T + i) - v(T + j) + v(T))
//! ```
//!
//! (M. Grabisch and M. Roubens 1999, "An axiomatic approach to the concept of interaction among players in cooperative
//! games", International Journal of Game Theory 28). Both are linear, so the share of a mean over items is the mean of the
//! items' shares; they are given item by item, to be resampled.

use crate::Error;

/// Stages at most: 2^8 combinations have to be scored.
pub const MAX_STAGES: usize = 8;

/// Shares and interactions of m stages, item by item, as numerators over [`denominator`](Self::denominator) = m!.
///
/// Of scores that are 0 or 1 the numerators are integers: their sums are exact, and a tie at 0 is one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Shapley {
    /// m!.
    pub denominator: f64,
    /// m! (v(all) - v(none)), `[items]`.
    pub total: Vec<f64>,
    /// m! phi_j, `[m][items]`.
    pub stages: Vec<Vec<f64>>,
    /// m! I_ij for i < j in lexicographic order, `[m (m - 1) / 2]`.
    pub interactions: Vec<Interaction>,
}

/// The interaction of two stages.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Interaction {
    /// i < j.
    pub stages: [usize; 2],
    /// m! I_ij, `[items]`.
    pub items: Vec<f64>,
}

impl Shapley {
    /// The share of every stage in the mean difference, `[m]`.
    pub fn values(&self) -> Vec<f64> {
        let mean = |items: &Vec<f64>| items.iter().sum::<f64>() / items.len() as f64 / self.denominator;
        self.stages.iter().map(mean).collect()
    }
}

/// Divides the difference between two pipelines among the stages in which they differ.
///
/// `scores` is `[2^m][items]`: bit j of the first index says that stage j is taken from the second pipeline.
///
/// # Errors
/// [`Error::Scores`] unless there are 2^m combinations with m from 1 to [`MAX_STAGES`], all with the same items, at least
/// one, and finite scores.
///
/// ```
/// // Neither, the first stage, the second, both: worth more together than apart.
/// let scores = [vec![0.0], vec![2.0], vec![3.0], vec![9.0]];
/// let shapley = sst_merge::shapley(&scores)?;
/// assert_eq!(shapley.values(), [4.0, 5.0]);
/// assert_eq!(shapley.interactions[0].items, [2.0 * (9.0 - 2.0 - 3.0)]);
/// # Ok::<(), sst_merge::Error>(())
/// ```
pub fn shapley(scores: &[Vec<f64>]) -> Result<Shapley, Error> {
    let m = check(scores)?;
    let all = scores.len() - 1;
    let stages = (0..m).map(|j| {
        let gains = subsets_without(all, 1 << j).map(|t| {
            let weight = factorial(size(t)) * factorial(m - size(t) - 1);
            (weight, [(1.0, t | 1 << j), (-1.0, t)])
        });
        weighted(scores, gains)
    });
    let pairs = (0..m).flat_map(|i| (i + 1..m).map(move |j| [i, j]));
    let interactions = pairs.map(|[i, j]| {
        let (i_bit, j_bit) = (1 << i, 1 << j);
        let gains = subsets_without(all, i_bit | j_bit).map(|t| {
            // The definition's (m - 1)! below becomes m! by a factor of m above.
            let weight = m as f64 * factorial(size(t)) * factorial(m - size(t) - 2);
            let terms = [(1.0, t | i_bit | j_bit), (-1.0, t | i_bit), (-1.0, t | j_bit), (1.0, t)];
            (weight, terms)
        });
        Interaction {
            stages: [i, j],
            items: weighted(scores, gains),
        }
    });
    Ok(Shapley {
        denominator: factorial(m),
        stages: stages.collect(),
        interactions: interactions.collect(),
        total: weighted(scores, [(factorial(m), [(1.0, all), (-1.0, 0)])]),
    })
}

/// m, if the scores are those of m stages.
fn check(scores: &[Vec<f64>]) -> Result<usize, Error> {
    let fault = |reason: String| Err(Error::Scores { reason });
    let combinations = scores.len();
    if !combinations.is_power_of_two() || !(2..=1 << MAX_STAGES).contains(&combinations) {
        return fault(format!(
            "{combinations} combinations, expected 2^m with m from 1 to {MAX_STAGES}"
        ));
    }
    let items = scores[0].len();
    if items == 0 {
        return fault("no items".to_owned());
    }
    for (t, row) in scores.iter().enumerate() {
        if row.len() != items {
            return fault(format!(
                "combination {t} has {} items, combination 0 has {items}",
                row.len()
            ));
        }
        if let Some(i) = row.iter().position(|score| !score.is_finite()) {
            return fault(format!("combination {t}, item {i}: the score is {}", row[i]));
        }
    }
    Ok(combinations.trailing_zeros() as usize)
}

/// sum of weight * (signed scores), item by item. A bracket of equal scores is exactly 0, whatever its weight.
fn weighted<const N: usize>(
    scores: &[Vec<f64>],
    brackets: impl IntoIterator<Item = (f64, [(f64, usize); N])>,
) -> Vec<f64> {
    let mut sum = vec![0.0; scores[0].len()];
    for (weight, terms) in brackets {
        for (item, sum) in sum.iter_mut().enumerate() {
            *sum += weight * terms.iter().map(|&(sign, t)| sign * scores[t][item]).sum::<f64>();
        }
    }
    sum
}

fn subsets_without(all: usize, excluded: usize) -> impl Iterator<Item = usize> {
    (0..=all).filter(move |t| t & excluded == 0)
}

fn size(subset: usize) -> usize {
    subset.count_ones() as usize
}

fn factorial(n: usize) -> f64 {
    (1..=n).map(|k| k as f64).product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha12Rng;

    fn random(m: usize, items: usize, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        (0..1 << m)
            .map(|_| (0..items).map(|_| rng.random_range(-1.0..1.0)).collect())
            .collect()
    }

    /// Every order of 0..m.
    fn orders(m: usize) -> Vec<Vec<usize>> {
        if m == 0 {
            return vec![Vec::new()];
        }
        let insert = |order: Vec<usize>| {
            (0..m).map(move |place| {
                let mut longer = order.clone();
                longer.insert(place, m - 1);
                longer
            })
        };
        orders(m - 1).into_iter().flat_map(insert).collect()
    }

    /// Rounding of a sum over 2^m brackets of scores below 1, weighted by at most m! together.
    fn tolerance(m: usize) -> f64 {
        f64::from(1 << (m + 2)) * factorial(m) * f64::EPSILON
    }

    #[test]
    fn equals_the_mean_over_all_orders() {
        for m in 1..=5 {
            let scores = random(m, 3, m as u64);
            let ours = shapley(&scores).unwrap();
            let orders = orders(m);
            assert_eq!(ours.denominator, orders.len() as f64);
            for item in 0..3 {
                let v: Vec<f64> = scores.iter().map(|row| row[item]).collect();
                let mut gains = vec![0.0; m];
                let mut joint = vec![vec![0.0; m]; m];
                for order in &orders {
                    let mut before = 0;
                    for (place, &j) in order.iter().enumerate() {
                        gains[j] += v[before | 1 << j] - v[before];
                        // Neighbours stand for both joining at once: (m - 1)! orders for i directly before k.
                        if let Some(&k) = order.get(place + 1) {
                            joint[j][k] +=
                                v[before | 1 << j | 1 << k] - v[before | 1 << j] - v[before | 1 << k] + v[before];
                        }
                        before |= 1 << j;
                    }
                }
                for (j, gain) in gains.iter().enumerate() {
                    assert!(
                        (ours.stages[j][item] - gain).abs() <= tolerance(m),
                        "m = {m}, stage {j}"
                    );
                }
                assert_eq!(ours.interactions.len(), m * (m - 1) / 2);
                for pair in &ours.interactions {
                    let [i, j] = pair.stages;
                    let expected = m as f64 * joint[i][j];
                    assert!(
                        (pair.items[item] - expected).abs() <= m as f64 * tolerance(m),
                        "m = {m}, {i} {j}"
                    );
                }
            }
        }
    }

    #[test]
    fn shares_add_up_to_the_whole() {
        for m in 1..=MAX_STAGES {
            let scores = random(m, 4, 10 + m as u64);
            let ours = shapley(&scores).unwrap();
            let whole = scores.last().unwrap();
            for item in 0..4 {
                let sum: f64 = ours.stages.iter().map(|stage| stage[item]).sum();
                let expected = ours.denominator * (whole[item] - scores[0][item]);
                assert!(
                    (sum - expected).abs() <= m as f64 * tolerance(m),
                    "m = {m}: {sum} not {expected}"
                );
                assert!((ours.total[item] - expected).abs() <= tolerance(m));
            }
        }
    }

    #[test]
    fn scores_of_0_and_1_are_divided_exactly() {
        let mut rng = ChaCha12Rng::seed_from_u64(5);
        let binary: Vec<Vec<f64>> = (0..1 << 6)
            .map(|_| (0..50).map(|_| f64::from(u8::from(rng.random_bool(0.4)))).collect())
            .collect();
        let ours = shapley(&binary).unwrap();
        for item in 0..50 {
            assert_eq!(ours.stages.iter().map(|s| s[item]).sum::<f64>(), ours.total[item]);
        }
        assert!(ours.stages.iter().flatten().all(|x| x.fract() == 0.0));
        assert!(
            ours.interactions
                .iter()
                .flat_map(|i| &i.items)
                .all(|x| x.fract() == 0.0)
        );
    }

    #[test]
    fn a_stage_without_effect_gets_exactly_nothing() {
        let mut scores = random(3, 5, 1);
        for t in 0..8 {
            if t & 2 != 0 {
                scores[t] = scores[t ^ 2].clone();
            }
        }
        let ours = shapley(&scores).unwrap();
        assert_eq!(ours.stages[1], [0.0; 5]);
        assert!(ours.stages[0].iter().all(|x| *x != 0.0));
        for pair in &ours.interactions {
            assert_eq!(pair.stages.contains(&1), pair.items == [0.0; 5], "{:?}", pair.stages);
        }
        let constant = shapley(&vec![vec![0.5; 3]; 16]).unwrap();
        assert_eq!(constant.values(), [0.0; 4]);
    }

    #[test]
    fn stages_that_do_the_same_get_the_same() {
        let mut scores = random(3, 5, 2);
        let swapped = |t: usize| t & 4 | (t & 1) << 1 | (t & 2) >> 1;
        for t in 0..8 {
            let mean = |i: usize, s: &[Vec<f64>]| (s[t][i] + s[swapped(t)][i]) / 2.0;
            let row: Vec<f64> = (0..5).map(|i| mean(i, &scores)).collect();
            scores[t].clone_from(&row);
            scores[swapped(t)] = row;
        }
        let ours = shapley(&scores).unwrap();
        for item in 0..5 {
            assert!((ours.stages[0][item] - ours.stages[1][item]).abs() <= tolerance(3));
            assert!((ours.stages[0][item] - ours.stages[2][item]).abs() > 1e-3);
        }
    }

    #[test]
    fn shares_are_linear_in_the_scores() {
        let (x, y) = (random(4, 3, 3), random(4, 3, 4));
        let mixed: Vec<Vec<f64>> = x
            .iter()
            .zip(&y)
            .map(|(x, y)| x.iter().zip(y).map(|(x, y)| 0.3 * x - 2.0 * y).collect())
            .collect();
        let of = |scores: &[Vec<f64>]| shapley(scores).unwrap();
        let (x, y, mixed) = (of(&x), of(&y), of(&mixed));
        for j in 0..4 {
            for i in 0..3 {
                let expected = 0.3 * x.stages[j][i] - 2.0 * y.stages[j][i];
                assert!((mixed.stages[j][i] - expected).abs() <= 3.0 * tolerance(4));
            }
        }
    }

    #[test]
    fn what_is_no_set_of_combinations_is_refused() {
        for (scores, part) in [
            (vec![], "0 combinations"),
            (vec![vec![1.0]], "1 combinations"),
            (vec![vec![1.0]; 3], "3 combinations"),
            (vec![vec![1.0]; 512], "512 combinations"),
            (vec![vec![]; 2], "no items"),
            (vec![vec![1.0], vec![1.0, 2.0]], "combination 1 has 2 items"),
            (
                vec![vec![1.0], vec![f64::NAN]],
                "combination 1, item 0: the score is NaN",
            ),
        ] {
            let message = shapley(&scores).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
