//! The k-th largest magnitude over many tensors that are never in memory together.
//!
//! The bits of a finite |x| order as |x| does, so two passes of counting suffice: over the upper 16 bits, then over the
//! lower 16 bits of what shares the upper half of the answer.

use super::prune::magnitude;
use ndarray::Array2;
use rayon::prelude::*;

const HALF: u32 = 16;

/// Bits of the k-th largest magnitude: those of 0 where there are fewer, more than any magnitude's for k = 0.
pub(super) fn kth_largest<T: Sync>(k: usize, tensors: &[T], entries: impl Fn(&T) -> Array2<f32> + Sync) -> u32 {
    if k == 0 {
        return u32::MAX;
    }
    let count = |key: &(dyn Fn(u32) -> Option<u32> + Sync)| {
        tensors
            .par_iter()
            .map(|tensor| {
                let mut counts = vec![0usize; 1 << HALF];
                for key in entries(tensor).iter().filter_map(|x| key(magnitude(*x))) {
                    counts[key as usize] += 1;
                }
                counts
            })
            .reduce(
                || vec![0; 1 << HALF],
                |mut sum, counts| {
                    sum.iter_mut().zip(counts).for_each(|(s, c)| *s += c);
                    sum
                },
            )
    };
    let (upper, k) = descend(&count(&|bits| Some(bits >> HALF)), k);
    let low = |bits: u32| (bits >> HALF == upper).then_some(bits & ((1 << HALF) - 1));
    let (lower, _) = descend(&count(&low), k);
    upper << HALF | lower
}

/// The bin of the k-th largest key, and which largest it is inside the bin.
fn descend(counts: &[usize], mut k: usize) -> (u32, usize) {
    for (bin, count) in counts.iter().enumerate().rev() {
        if k <= *count {
            return (bin as u32, k);
        }
        k -= count;
    }
    (0, k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_sorted_order_over_all_tensors() {
        // Neighbours that share the upper half, signed zeros, repeats and a subnormal.
        let values = [
            1.0f32, -1.0000001, 1.0000002, 0.0, -0.0, 3.5, -3.5, 1e-40, -2e5, 7.0, 7.0, 0.1,
        ];
        let tensors: Vec<Array2<f32>> = values
            .chunks(3)
            .map(|part| Array2::from_shape_vec((1, part.len()), part.to_vec()).unwrap())
            .collect();
        let mut sorted = values.map(f32::abs);
        sorted.sort_by(|a, b| b.total_cmp(a));
        for k in 1..=values.len() {
            assert_eq!(
                f32::from_bits(kth_largest(k, &tensors, Array2::clone)),
                sorted[k - 1],
                "{k}"
            );
        }
        assert_eq!(kth_largest(values.len() + 1, &tensors, Array2::clone), 0);
        assert!(kth_largest(0, &tensors, Array2::clone) > magnitude(f32::INFINITY));
    }
}
