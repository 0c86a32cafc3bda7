//! Nested random samples.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;

/// The first `n` items of one shuffle keyed by `seed`, or all of them, shuffled, when there are fewer.
///
/// Samples of one seed are nested: the sample of 50 begins the sample of 100, so that an effect of the sample count is
/// not an effect of other items.
///
/// ```
/// let items: Vec<u32> = (0..1000).collect();
/// let (few, many) = (sst_data::sample(&items, 50, 7), sst_data::sample(&items, 100, 7));
/// assert_eq!(few, many[..50]);
/// ```
pub fn sample<T: Clone>(items: &[T], n: usize, seed: u64) -> Vec<T> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.shuffle(&mut ChaCha12Rng::seed_from_u64(seed));
    order.into_iter().take(n).map(|i| items[i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_without_replacement_and_by_seed() {
        let items: Vec<u32> = (0..200).collect();
        let drawn = sample(&items, 200, 1);
        let mut sorted = drawn.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, items);
        assert_ne!(drawn, items);
        assert_ne!(drawn, sample(&items, 200, 2));
        assert_eq!(sample(&items, 500, 1), drawn);
    }

    #[test]
    fn the_draw_of_a_seed_is_fixed() {
        // Recorded once: a change of generator would silently change every published sample.
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(sample(&items, 6, 42), [98, 44, 62, 2, 1, 20]);
    }
}
