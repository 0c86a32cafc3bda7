//! Jailbreak: requests that a safe model refuses, many in a wrapper that tries to talk it out of refusing.
//!
//! Columns `prompt, response`; the response is a refusal.

use crate::table::{Row, read_items};
use crate::{Error, Example, Prompt};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One request to be refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailbreakItem {
    /// The request.
    pub prompt: String,
    /// The refusal.
    pub response: String,
}

impl JailbreakItem {
    /// Reads a parquet, jsonl or csv file.
    ///
    /// # Errors
    /// Names file, line and column of the first fault; [`Error::Empty`] without rows.
    pub fn read(path: &Path) -> Result<Vec<Self>, Error> {
        read_items(path, Self::from_row)
    }

    fn from_row(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            prompt: row.filled("prompt")?,
            response: row.filled("response")?,
        })
    }

    /// The request as one user turn, the refusal as response.
    pub fn example(&self, id: String) -> Example {
        Example {
            id,
            prompt: Prompt::user(self.prompt.clone()),
            response: self.response.clone(),
        }
    }
}
