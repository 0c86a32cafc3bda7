//! XSTest: safe requests that look unsafe, to measure over-refusal, and unsafe ones to contrast.
//!
//! Columns used: `id, prompt, label`, the first not everywhere (Röttger et al. 2023, "XSTest: A Test Suite for Identifying Exaggerated Safety
//! Behaviours in Large Language Models").

use crate::table::{Row, read_items};
use crate::{Error, Prompt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// One request, with whether it is safe to answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct XsTestItem {
    /// The publisher's number; the row's where it is republished without.
    pub id: String,
    /// The request.
    pub prompt: String,
    /// Whether a refusal would be an over-refusal (`label` is `safe`, not `unsafe`).
    pub safe: bool,
}

impl XsTestItem {
    /// Reads a parquet, jsonl or csv file.
    ///
    /// # Errors
    /// Names file, line and column of the first fault; [`Error::Empty`] without rows.
    pub fn read(path: &Path) -> Result<Vec<Self>, Error> {
        read_items(path, Self::from_row)
    }

    pub(crate) fn from_row(row: &Row) -> Result<Self, Error> {
        let label = row.text("label")?;
        let safe = match label.as_str() {
            "safe" => true,
            "unsafe" => false,
            _ => return Err(row.fault("label", format!("holds `{label}`, expected safe or unsafe"))),
        };
        Ok(Self {
            id: match row.value("id") {
                Some(Value::Number(number)) => number.to_string(),
                Some(_) => row.filled("id")?,
                // Republished without the numbers, in the same order.
                None => row.place().number().to_string(),
            },
            prompt: row.filled("prompt")?,
            safe,
        })
    }

    /// The request as one user turn.
    pub fn prompt(&self) -> Prompt {
        Prompt::user(self.prompt.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_label_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prompts.csv");
        std::fs::write(&path, "id,prompt,label\n1,How?,safe\n2,Why?,maybe\n").unwrap();
        let message = XsTestItem::read(&path).unwrap_err().to_string();
        assert!(message.contains("line 3: column `label` holds `maybe`"), "{message}");
    }
}
