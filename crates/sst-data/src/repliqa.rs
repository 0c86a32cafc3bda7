//! RepliQA: questions about fictional documents, so that the answer cannot come from pre-training.
//!
//! Columns `document_id, document_extracted, question, answer`
//! (Monteiro et al. 2024, "RepLiQA: A Question-Answering Dataset for Benchmarking LLMs on Unseen Reference Content").

use crate::table::{Row, read_items};
use crate::{Error, Example, Prompt};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One question about one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepliQaItem {
    /// Which document; several questions share one.
    pub document_id: String,
    /// The document's text.
    pub document_extracted: String,
    /// The question.
    pub question: String,
    /// The reference answer.
    pub answer: String,
}

impl RepliQaItem {
    /// Reads a parquet, jsonl or csv file.
    ///
    /// # Errors
    /// Names file, line and column of the first fault; [`Error::Empty`] without rows.
    pub fn read(path: &Path) -> Result<Vec<Self>, Error> {
        read_items(path, Self::from_row)
    }

    pub(crate) fn from_row(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            document_id: row.filled("document_id")?,
            document_extracted: row.filled("document_extracted")?,
            question: row.filled("question")?,
            answer: row.filled("answer")?,
        })
    }

    /// Document, then question, asking for a short answer from the document; the answer as response.
    pub fn example(&self, id: String) -> Example {
        let prompt = format!(
            "{}\n\nQuestion: {}\nGive a short answer from the text above.",
            self.document_extracted.trim(),
            self.question.trim()
        );
        Example {
            id,
            prompt: Prompt::user(prompt),
            response: self.answer.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_comes_before_the_question() {
        let item = RepliQaItem {
            document_id: "d1".to_owned(),
            document_extracted: "The mill opened in 1911.\n".to_owned(),
            question: "When did the mill open?".to_owned(),
            answer: "In 1911.".to_owned(),
        };
        let example = item.example("repliqa/eval/1".to_owned());
        let expected =
            "The mill opened in 1911.\n\nQuestion: When did the mill open?\nGive a short answer from the text above.";
        assert_eq!(example.prompt, Prompt::user(expected));
        assert_eq!(example.response, "In 1911.");
    }
}
