//! Which batches of a run a shard computes.

use serde::{Deserialize, Serialize};
use sst_artefact::ParseError;
use std::fmt;
use std::str::FromStr;

/// A shard's place in its run, such as `2/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    /// The whole run: shard 1 of 1.
    pub const WHOLE: Self = Self { index: 1, of: 1 };

    /// Checks that there is such a shard.
    ///
    /// # Errors
    /// A line that names both numbers.
    pub fn new(index: usize, of: usize) -> Result<Self, ParseError> {
        if (1..=of).contains(&index) {
            Ok(Self { index, of })
        } else {
            Err(ParseError::new(format!(
                "there is no shard {index} of {of}: they are numbered from 1 to {of}"
            )))
        }
    }

    /// Every shard of a run of so many, in order.
    pub fn all(of: usize) -> impl Iterator<Item = Self> {
        (1..=of).map(move |index| Self { index, of })
    }

    /// Its number, from 1.
    pub fn index(self) -> usize {
        self.index
    }

    /// Number of shards of the run.
    pub fn of(self) -> usize {
        self.of
    }

    /// Whether batch `batch` of the run, counted from 0, is this shard's.
    ///
    /// ```
    /// let shard: sst_subspace::Shard = "2/3".parse().unwrap();
    /// assert_eq!((0..8).filter(|&b| shard.owns(b)).collect::<Vec<_>>(), [1, 4, 7]);
    /// ```
    pub fn owns(self, batch: usize) -> bool {
        batch % self.of == self.index - 1
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = ParseError;

    /// # Errors
    /// A line that shows the expected form or the numbers' range.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let expected = "expected its number and their count, such as 2/8";
        let malformed = || ParseError::new(format!("`{text}` is not a shard: {expected}"));
        let (index, of) = text.split_once('/').ok_or_else(malformed)?;
        let number = |part: &str| part.trim().parse::<usize>().map_err(|_| malformed());
        Self::new(number(index)?, number(of)?)
    }
}

impl TryFrom<String> for Shard {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shards_are_read_as_they_are_printed() {
        for text in ["1/1", "2/8"] {
            assert_eq!(text.parse::<Shard>().unwrap().to_string(), text);
        }
        for (text, part) in [
            ("0/3", "from 1 to 3"),
            ("4/3", "from 1 to 3"),
            ("1", "such as 2/8"),
            ("a/3", "such as 2/8"),
        ] {
            let message = text.parse::<Shard>().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let message = serde_json::from_value::<Shard>(json!("9/8")).unwrap_err().to_string();
        assert!(message.contains("from 1 to 8"), "{message}");
        let owners = |b| Shard::all(3).filter(|shard| shard.owns(b)).count();
        assert!((0..10).all(|b| owners(b) == 1));
    }
}
