//! Election of signs and fusion of what agrees (Yadav et al. 2023, "TIES-Merging", algorithm 1, steps 2 and 3).
//!
//! At one entry let x_t be adapter t's value after pruning, w_t its weight, v_t = w_t x_t. The elected sign is
//! gamma = sgn(sum_t y_t) for `total` and sgn(sum_t sgn y_t) for `frequency`; C holds the adapters with
//! sgn y_t = gamma, or all of them without an election; the result is sum_{t in C} v_t / D.
//!
//! | convention | votes y_t | sgn(0) of the sum | D with `normalize`, else 1 |
//! | --- | --- | --- | --- |
//! | `paper` | v_t | 0: nothing is elected | sum_{t in C} \|w_t\|, which is \|C\| at equal weights of 1 |
//! | `peft` | x_t, before weights | +1 | \|C\| |
//! | `mergekit` | v_t | +1 | sum_{t in C} w_t |
//!
//! The papers have no weights: at equal ones `paper` is theirs. A D of 0 divides by 1.

use super::{Convention, MajoritySign};
use ndarray::Array2;

/// How pruned entries become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::strategy) struct Consensus {
    /// The election.
    pub majority_sign: MajoritySign,
    /// Whose definition.
    pub convention: Convention,
    /// Whether to divide by D.
    pub normalize: bool,
}

/// mergekit's bound below which a sum of weights does not divide.
const DIVISOR_MIN: f64 = 1e-8;
/// Entries fused at a time: what is summed of them stays in the first-level cache.
const BLOCK: usize = 512;

impl Consensus {
    /// lambda times the fused tensor; parts are (weight, row-major entries), none standing for zeros.
    ///
    /// # Panics
    /// When no part has entries: a module belongs to some adapter.
    pub fn fuse(&self, parts: &[(f64, Option<Array2<f32>>)], lambda: f64) -> Array2<f32> {
        let present: Vec<(f64, &[f32])> = parts
            .iter()
            .filter_map(|(weight, entries)| Some((*weight, entries.as_ref()?.as_slice()?)))
            .collect();
        let shape = parts
            .iter()
            .find_map(|(_, entries)| entries.as_ref().map(Array2::dim))
            .expect("a module belongs to some adapter");
        let all: f64 = parts.iter().map(|(weight, _)| self.share(*weight)).sum();
        let mut fused = Array2::zeros(shape);
        let blocks = fused.as_slice_mut().into_iter().flat_map(|out| out.chunks_mut(BLOCK));
        for (start, out) in (0..).step_by(BLOCK).zip(blocks) {
            let place = start..start + out.len();
            let seen: Vec<(f64, &[f32])> = present.iter().map(|(w, x)| (*w, &x[place.clone()])).collect();
            self.fuse_block(&seen, all, lambda, out);
        }
        fused
    }

    /// Adapter by adapter rather than entry by entry, so that loops are simple enough for the processor's vectors.
    fn fuse_block(&self, parts: &[(f64, &[f32])], all: f64, lambda: f64, out: &mut [f32]) {
        let (mut poll, mut sum, mut divisor) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
        let votes = parts.iter().map(|(w, x)| match self.convention {
            Convention::Peft => (1.0, *w, *x),
            Convention::Paper | Convention::Mergekit => (*w, *w, *x),
        });
        for (vote, _, x) in votes.clone() {
            match self.majority_sign {
                MajoritySign::None => {}
                MajoritySign::Total => poll.iter_mut().zip(x).for_each(|(p, x)| *p += vote * f64::from(*x)),
                MajoritySign::Frequency => poll
                    .iter_mut()
                    .zip(x)
                    .for_each(|(p, x)| *p += sign(vote * f64::from(*x))),
            }
        }
        for elected in &mut poll {
            *elected = match self.convention {
                Convention::Paper => sign(*elected),
                Convention::Peft | Convention::Mergekit if *elected >= 0.0 => 1.0,
                Convention::Peft | Convention::Mergekit => -1.0,
            };
        }
        for (vote, w, x) in votes {
            let share = self.share(w);
            for (((sum, divisor), elected), x) in sum.iter_mut().zip(&mut divisor).zip(&poll).zip(x) {
                let x = f64::from(*x);
                let agrees = self.majority_sign == MajoritySign::None || vote * x * elected > 0.0;
                *sum += if agrees { w * x } else { 0.0 };
                *divisor += if agrees { share } else { 0.0 };
            }
        }
        if self.majority_sign == MajoritySign::None {
            divisor = [all; BLOCK];
        }
        for ((out, sum), divisor) in out.iter_mut().zip(&sum).zip(&divisor) {
            *out = (lambda * self.divide(*sum, *divisor)) as f32;
        }
    }

    /// What an agreeing adapter adds to D.
    fn share(&self, weight: f64) -> f64 {
        match self.convention {
            Convention::Paper => weight.abs(),
            Convention::Peft => 1.0,
            Convention::Mergekit => weight,
        }
    }

    fn divide(&self, sum: f64, divisor: f64) -> f64 {
        if self.normalize && divisor.abs() >= DIVISOR_MIN {
            sum / divisor
        } else {
            sum
        }
    }
}

/// sgn, with sgn(0) = 0.
fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn fuse(majority_sign: MajoritySign, convention: Convention, parts: &[(f64, [f32; 4])]) -> Vec<f32> {
        let parts: Vec<_> = parts
            .iter()
            .map(|(w, x)| (*w, Some(array![[x[0], x[1]], [x[2], x[3]]])))
            .collect();
        let consensus = Consensus {
            majority_sign,
            convention,
            normalize: true,
        };
        consensus.fuse(&parts, 2.0).into_iter().collect()
    }

    #[test]
    fn the_conventions_differ_where_they_say() {
        use Convention::{Mergekit, Paper, Peft};
        use MajoritySign::{Frequency, None, Total};
        // Agreement; a tie that cancels; one large against two small; a weight that turns the vote.
        let parts = [
            (1.0, [3.0, 2.0, 5.0, 1.0]),
            (1.0, [1.0, -2.0, -2.0, -1.5]),
            (2.0, [0.0, 0.0, -2.0, 0.5]),
        ];
        assert_eq!(
            fuse(Total, Paper, &parts),
            [4.0, 0.0, 2.0 * -6.0 / 3.0, 2.0 * 2.0 / 3.0]
        );
        assert_eq!(fuse(Total, Peft, &parts), [4.0, 4.0, 10.0, 2.0]);
        assert_eq!(fuse(Total, Mergekit, &parts), [4.0, 4.0, -4.0, (4.0 / 3.0)]);
        assert_eq!(fuse(Frequency, Paper, &parts)[2], -4.0);
        assert_eq!(fuse(Frequency, Peft, &parts)[2], 2.0 * -6.0 / 2.0);
        assert_eq!(fuse(None, Mergekit, &parts), [2.0, 0.0, -0.5, 0.25]);
    }

    #[test]
    fn a_missing_module_is_a_zero_change() {
        let consensus = Consensus {
            majority_sign: MajoritySign::None,
            convention: Convention::Mergekit,
            normalize: true,
        };
        let x = array![[1.0, -2.0]];
        assert_eq!(consensus.fuse(&[(1.0, Some(x.clone())), (3.0, None)], 1.0), &x / 4.0);
        let total = Consensus {
            majority_sign: MajoritySign::Total,
            ..consensus
        };
        assert_eq!(total.fuse(&[(1.0, None), (3.0, Some(x.clone()))], 1.0), x);
    }

    #[test]
    fn opposite_weights_divide_by_one() {
        let parts = [(1.0, [1.0, 2.0, 3.0, 4.0]), (-1.0, [0.5, 0.0, -1.0, 4.0])];
        let got = fuse(MajoritySign::None, Convention::Mergekit, &parts);
        assert_eq!(got, [1.0, 4.0, 8.0, 0.0]);
    }
}
