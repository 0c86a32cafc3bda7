//! Alpaca: instructions, some with an input to work on.
//!
//! Columns `instruction, input, output` (Taori et al. 2023, "Stanford Alpaca: An Instruction-following LLaMA Model").

use crate::table::{Row, read_items};
use crate::{Error, Example, Prompt};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlpacaItem {
    /// What to do.
    pub instruction: String,
    /// What to do it with; empty when the instruction stands alone.
    pub input: String,
    /// The reference answer.
    pub output: String,
}

impl AlpacaItem {
    /// Reads a parquet, jsonl or csv file.
    ///
    /// # Errors
    /// Names file, line and column of the first fault; [`Error::Empty`] without rows.
    pub fn read(path: &Path) -> Result<Vec<Self>, Error> {
        read_items(path, Self::from_row)
    }

    pub(crate) fn from_row(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            instruction: row.filled("instruction")?,
            input: row.text("input")?,
            output: row.filled("output")?,
        })
    }

    /// Instruction, blank line, input; the output as response.
    pub fn example(&self, id: String) -> Example {
        let prompt = if self.input.trim().is_empty() {
            self.instruction.clone()
        } else {
            format!("{}\n\n{}", self.instruction, self.input)
        };
        Example {
            id,
            prompt: Prompt::user(prompt),
            response: self.output.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_input_leaves_no_blank_line() {
        let item = |input: &str| AlpacaItem {
            instruction: "Reverse the list.".to_owned(),
            input: input.to_owned(),
            output: "b, a".to_owned(),
        };
        let prompt = |input| item(input).example("alpaca/train/1".to_owned()).prompt;
        assert_eq!(prompt(""), Prompt::user("Reverse the list."));
        assert_eq!(prompt("a, b"), Prompt::user("Reverse the list.\n\na, b"));
    }
}
