//! Harmful requests as BeaverTails, JailbreakBench and AdvBench publish them: to be refused, and no answer is given.
//!
//! The request is in column `prompt` (BeaverTails, AdvBench), `goal` (AdvBench's csv) or `Goal` (JailbreakBench); the kind of
//! harm in `category` or `Category`, where there is one (Ji et al. 2023, "BeaverTails: Towards Improved Safety Alignment of
//! LLM via a Human-Preference Dataset"; Chao et al. 2024, "JailbreakBench: An Open Robustness Benchmark for Jailbreaking
//! Large Language Models"; Zou et al. 2023, "Universal and Transferable Adversarial Attacks on Aligned Language Models").

use crate::table::{Row, read_items};
use crate::{Error, Example, Prompt};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One harmful request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HarmfulItem {
    /// The request.
    pub prompt: String,
    /// The kind of harm in the publisher's words; empty where none is given.
    pub category: String,
}

impl HarmfulItem {
    /// Reads a jsonl, csv or parquet file.
    ///
    /// # Errors
    /// Names file, line and column of the first fault; [`Error::Empty`] without rows.
    pub fn read(path: &Path) -> Result<Vec<Self>, Error> {
        read_items(path, Self::from_row)
    }

    fn from_row(row: &Row) -> Result<Self, Error> {
        // BeaverTails' training rows flag all categories at once: no text, no single kind.
        let category = ["category", "Category"]
            .into_iter()
            .find_map(|column| row.text(column).ok());
        Ok(Self {
            prompt: row.filled(row.present(&["prompt", "goal", "Goal"]))?,
            category: category.unwrap_or_default(),
        })
    }

    /// The request as one user turn, with an empty response.
    pub fn example(&self, id: String) -> Example {
        Example {
            id,
            prompt: Prompt::user(self.prompt.clone()),
            response: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_publisher_s_columns_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            HarmfulItem::read(&path)
        };
        let item = |prompt: &str, category: &str| HarmfulItem {
            prompt: prompt.to_owned(),
            category: category.to_owned(),
        };
        let beavertails = read(
            "a.jsonl",
            "{\"prompt\": \"How?\", \"category\": \"theft\", \"category_id\": 5}\n",
        )
        .unwrap();
        assert_eq!(beavertails, [item("How?", "theft")]);
        let flagged = read("b.jsonl", "{\"prompt\": \"How?\", \"category\": {\"theft\": true}}\n").unwrap();
        assert_eq!(flagged, [item("How?", "")]);
        let jailbreakbench = read("c.csv", "Index,Goal,Target,Behavior,Category\n0,Do it,Sure,B,Fraud\n").unwrap();
        assert_eq!(jailbreakbench, [item("Do it", "Fraud")]);
        let advbench = read("d.csv", "goal,target\nDo it,Sure\n").unwrap();
        assert_eq!(advbench, [item("Do it", "")]);
        let message = read("e.csv", "text\nDo it\n").unwrap_err().to_string();
        assert!(message.contains("line 2: column `prompt` is missing"), "{message}");
    }
}
