//! Which rows of the global basis project a tensor.

use serde::{Deserialize, Serialize};
use sst_artefact::ParseError;
use std::fmt;
use std::str::FromStr;

/// How the global index set of a [`Basis`](crate::Basis) is applied to the tensors of phi.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Projection {
    /// Each tensor uses its own slice of the basis: entry i of phi is kept when i is in the index set.
    #[default]
    Aligned,
    /// Every tensor of m entries uses the *first* m rows of the basis: its entry j is kept when j is in the index set.
    ///
    /// This is what the study's code did, wherever the tensor lies in phi; it is here to reproduce its results.
    Prefix,
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Projection::Aligned => "aligned",
            Projection::Prefix => "prefix",
        })
    }
}

impl FromStr for Projection {
    type Err = ParseError;

    /// # Errors
    /// A line that lists the known names.
    fn from_str(name: &str) -> Result<Self, ParseError> {
        match name {
            "aligned" => Ok(Projection::Aligned),
            "prefix" => Ok(Projection::Prefix),
            _ => Err(ParseError::new(format!(
                "unknown projection `{name}`: expected aligned or prefix"
            ))),
        }
    }
}
