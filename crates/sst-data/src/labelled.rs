//! Answers that people have labelled as compliance or refusal, as XSTest publishes them.
//!
//! Columns `id, prompt, completion, label` with labels `1_full_compliance`, `2_full_refusal`, `3_partial_refusal`
//! (Röttger et al. 2023, section 3).

use crate::table::{Row, read_items};
use crate::{Error, Prompt};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What people say an answer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalLabel {
    /// It answers.
    FullCompliance,
    /// It does not answer.
    FullRefusal,
    /// It declines and answers in part.
    PartialRefusal,
}

/// One answer with its label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelledAnswer {
    /// The publisher's identifier.
    pub id: String,
    /// What was asked.
    pub prompt: Prompt,
    /// What a model answered; may be empty.
    pub completion: String,
    /// What people say of it.
    pub label: RefusalLabel,
}

impl LabelledAnswer {
    /// Reads a jsonl or csv file.
    ///
    /// # Errors
    /// Names file, line and column of the first fault; [`Error::Empty`] without rows.
    pub fn read(path: &Path) -> Result<Vec<Self>, Error> {
        read_items(path, Self::from_row)
    }

    fn from_row(row: &Row) -> Result<Self, Error> {
        let label = row.text("label")?;
        let label = match label.as_str() {
            "1_full_compliance" => RefusalLabel::FullCompliance,
            "2_full_refusal" => RefusalLabel::FullRefusal,
            "3_partial_refusal" => RefusalLabel::PartialRefusal,
            _ => {
                let expected = "1_full_compliance, 2_full_refusal or 3_partial_refusal";
                return Err(row.fault("label", format!("holds `{label}`, expected {expected}")));
            }
        };
        Ok(Self {
            id: row.filled("id")?,
            prompt: Prompt::user(row.filled("prompt")?),
            completion: row.text("completion")?,
            label,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_labels_and_names_those_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labelled.csv");
        let head = "id,prompt,completion,label\nv2-1,How?,,2_full_refusal\n";
        std::fs::write(&path, head).unwrap();
        let read = LabelledAnswer::read(&path).unwrap();
        assert_eq!(
            (read[0].label, read[0].completion.as_str()),
            (RefusalLabel::FullRefusal, "")
        );
        std::fs::write(&path, format!("{head}v2-2,Why?,\"a\nb\",maybe\n")).unwrap();
        let message = LabelledAnswer::read(&path).unwrap_err().to_string();
        assert!(
            message.contains("labelled.csv, line 3: column `label` holds `maybe`"),
            "{message}"
        );
    }
}
