//! Development and test items: a setting is chosen on the first and judged on the second, so that the choice does not flatter it.
//!
//! What belongs together (the questions about one document, copies of a request) is on one side. Which side a group is on
//! depends on the seed, the share and the data alone, not on how many items are drawn: a larger draw moves none of them.

use serde::{Deserialize, Serialize};
use sst_data::{sample, split_by_group};
use std::fmt;
use std::str::FromStr;

/// Which of a benchmark's items are asked: `all`, `dev:0.4` or `test:0.4`, the number being the share that is for development.
///
/// ```
/// use sst_eval::ItemSplit;
/// let dev: ItemSplit = "dev:0.4".parse().unwrap();
/// assert_eq!(dev, ItemSplit::Dev(0.4));
/// assert_eq!(dev.to_string(), "dev:0.4");
/// assert!("dev:1.5".parse::<ItemSplit>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ItemSplit {
    /// Every item.
    #[default]
    All,
    /// The development items, of which there is this share.
    Dev(f64),
    /// The others, that share being for development.
    Test(f64),
}

/// A text that stands for no split.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown split `{0}`, expected all, dev:SHARE or test:SHARE with a share between 0 and 1")]
pub struct UnknownSplit(String);

impl ItemSplit {
    /// Whether the share of development items lies strictly between 0 and 1.
    pub fn is_proper(self) -> bool {
        match self {
            ItemSplit::All => true,
            ItemSplit::Dev(share) | ItemSplit::Test(share) => share > 0.0 && share < 1.0,
        }
    }

    /// How many of `n` items are of this split.
    pub(crate) fn of(self, n: usize) -> usize {
        let dev = |share: f64| (share * n as f64).round() as usize;
        match self {
            ItemSplit::All => n,
            ItemSplit::Dev(share) => dev(share),
            ItemSplit::Test(share) => n - dev(share),
        }
    }

    /// The items of this split, those of one `group` together; with `n`, n items are divided between both splits by the
    /// share, each side's the first of one order keyed by `seed`.
    pub(crate) fn draw<T: Clone>(self, items: &[T], groups: &[String], n: Option<usize>, seed: u64) -> Vec<T> {
        let share = match self {
            ItemSplit::All => {
                return match n {
                    Some(n) => sample(items, n, seed),
                    None => items.to_vec(),
                };
            }
            ItemSplit::Dev(share) | ItemSplit::Test(share) => share,
        };
        let grouped: Vec<(&T, &String)> = items.iter().zip(groups).collect();
        let (test, dev) = split_by_group(grouped, |(_, group)| (*group).clone(), share, seed);
        let n = n.map(|n| self.of(n.min(items.len())));
        let side = match self {
            ItemSplit::Dev(_) => dev,
            _ => test,
        };
        let side: Vec<T> = side.into_iter().map(|(item, _)| item.clone()).collect();
        match n {
            Some(n) => sample(&side, n, seed),
            None => side,
        }
    }
}

impl fmt::Display for ItemSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ItemSplit::All => f.write_str("all"),
            ItemSplit::Dev(share) => write!(f, "dev:{share}"),
            ItemSplit::Test(share) => write!(f, "test:{share}"),
        }
    }
}

impl FromStr for ItemSplit {
    type Err = UnknownSplit;

    fn from_str(text: &str) -> Result<Self, UnknownSplit> {
        let share = |text: &str| text.parse::<f64>().ok();
        let split = match text.split_once(':') {
            None if text == "all" => Some(ItemSplit::All),
            Some(("dev", number)) => share(number).map(ItemSplit::Dev),
            Some(("test", number)) => share(number).map(ItemSplit::Test),
            _ => None,
        };
        split
            .filter(|split| split.is_proper())
            .ok_or_else(|| UnknownSplit(text.to_owned()))
    }
}

impl TryFrom<String> for ItemSplit {
    type Error = UnknownSplit;

    fn try_from(text: String) -> Result<Self, UnknownSplit> {
        text.parse()
    }
}

impl From<ItemSplit> for String {
    fn from(split: ItemSplit) -> Self {
        split.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Five items to a group.
    fn draw(split: ItemSplit, n: Option<usize>, seed: u64) -> Vec<usize> {
        let items: Vec<usize> = (0..200).collect();
        let groups: Vec<String> = items.iter().map(|i| (i / 5).to_string()).collect();
        split.draw(&items, &groups, n, seed)
    }

    fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
        items.into_iter().collect()
    }

    #[test]
    fn the_splits_share_no_group_and_leave_nothing_out() {
        let (dev, test) = (ItemSplit::Dev(0.4), ItemSplit::Test(0.4));
        for seed in 0..5 {
            let (a, b) = (draw(dev, None, seed), draw(test, None, seed));
            assert_eq!((a.len(), b.len()), (80, 120));
            let groups = |items: &[usize]| set(items.iter().map(|i| i / 5));
            assert!(groups(&a).is_disjoint(&groups(&b)));
            assert_eq!(set([a, b].concat()), set(0..200));
        }
        assert_ne!(draw(dev, None, 0), draw(dev, None, 1));
    }

    #[test]
    fn a_draw_is_divided_by_the_share_and_a_larger_one_moves_no_item() {
        let both = |n| [ItemSplit::Dev(0.4), ItemSplit::Test(0.4)].map(|split| draw(split, Some(n), 7));
        let [dev, test] = both(50);
        assert_eq!((dev.len(), test.len()), (20, 30));
        let [more_dev, more_test] = both(100);
        assert_eq!(more_dev[..20], dev);
        assert_eq!(more_test[..30], test);
        assert!(set(&more_dev).is_disjoint(&set(&more_test)));
        assert_eq!(both(1000).map(|side| side.len()), [80, 120]);
    }

    #[test]
    fn without_a_split_the_draw_is_the_plain_sample() {
        let items: Vec<usize> = (0..200).collect();
        assert_eq!(draw(ItemSplit::All, Some(30), 7), sample(&items, 30, 7));
        assert_eq!(draw(ItemSplit::All, None, 7), items);
    }

    #[test]
    fn names_are_those_in_files() {
        for split in [ItemSplit::All, ItemSplit::Dev(0.4), ItemSplit::Test(0.25)] {
            let json = serde_json::to_string(&split).unwrap();
            assert_eq!(serde_json::from_str::<ItemSplit>(&json).unwrap(), split, "{json}");
        }
        for text in ["dev", "dev:0", "test:1", "dev:NaN", "train:0.4", "all:0.4"] {
            let message = text.parse::<ItemSplit>().unwrap_err().to_string();
            assert!(message.contains(text), "{message}");
        }
    }
}
