//! Items split in two by group: what belongs together stays on one side.
//!
//! Questions about one document must not be trained on and evaluated on; neither must an instruction and its copy.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Splits items into those to train on and those to evaluate on, each in their order.
///
/// Groups are drawn in an order keyed by `seed`, whatever the order of the items, until the drawn ones hold at least the
/// share `eval` of all items; they are the second part.
///
/// ```
/// let items = ["a1", "a2", "b1", "b2", "c1", "c2"];
/// let (train, eval) = sst_data::split_by_group(items.to_vec(), |item| item[..1].to_owned(), 0.3, 0);
/// assert_eq!((train.len(), eval.len()), (4, 2));
/// assert_eq!(eval[0][..1], eval[1][..1]);
/// ```
pub fn split_by_group<T>(items: Vec<T>, group: impl Fn(&T) -> String, eval: f64, seed: u64) -> (Vec<T>, Vec<T>) {
    let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
    for item in &items {
        *sizes.entry(group(item)).or_default() += 1;
    }
    let mut groups: Vec<(&String, &usize)> = sizes.iter().collect();
    groups.shuffle(&mut ChaCha12Rng::seed_from_u64(seed));
    let wanted = eval * items.len() as f64;
    let mut held = 0;
    let drawn: BTreeSet<&String> = groups
        .into_iter()
        .take_while(|(_, size)| {
            let short = (held as f64) < wanted;
            held += **size;
            short
        })
        .map(|(group, _)| group)
        .collect();
    let (second, first) = items.into_iter().partition(|item| drawn.contains(&group(item)));
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(item: &u32) -> String {
        (item / 5).to_string()
    }

    #[test]
    fn no_group_is_on_both_sides_and_nothing_is_lost() {
        let (train, eval) = split_by_group((0..500).collect(), group, 0.2, 3);
        let groups = |items: &[u32]| -> BTreeSet<String> { items.iter().map(group).collect() };
        assert!(groups(&train).is_disjoint(&groups(&eval)));
        assert_eq!((train.len(), eval.len()), (400, 100));
        assert!(train.is_sorted() && eval.is_sorted());
    }

    #[test]
    fn the_seed_decides_and_the_order_of_the_items_does_not() {
        let eval = |items: Vec<u32>, seed| -> BTreeSet<u32> {
            split_by_group(items, group, 0.2, seed).1.into_iter().collect()
        };
        let forth = eval((0..100).collect(), 1);
        assert_eq!(forth, eval((0..100).rev().collect(), 1));
        assert_ne!(forth, eval((0..100).collect(), 2));
    }

    #[test]
    fn the_shares_at_both_ends() {
        assert_eq!(split_by_group((0..10).collect(), group, 0.0, 0).1, Vec::<u32>::new());
        assert_eq!(split_by_group((0..10).collect(), group, 1.0, 0).0, Vec::<u32>::new());
    }
}
