//! MMLU: multiple choice with four choices, by subject.
//!
//! Columns `question, choice0, choice1, choice2, choice3, answer`, one file per subject: `dev/<subject>_dev.csv` holds
//! the worked examples, `test/<subject>_test.csv` the questions asked.
//! The Hub's copy has the choices as one list, `choices`, and all subjects in one file, by the column `subject`
//! (Hendrycks et al. 2021, "Measuring Massive Multitask Language Understanding").

use crate::Error;
use crate::table::{Row, read_items};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// One question with four choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmluItem {
    /// The question.
    pub question: String,
    /// The choices, A to D.
    pub choices: [String; 4],
    /// Index of the right choice, 0 to 3.
    pub answer: usize,
}

/// The questions of one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Worked examples for few-shot prompts, in file order; empty when the folder has none.
    pub dev: Vec<MmluItem>,
    /// The questions asked.
    pub test: Vec<MmluItem>,
}

/// All subjects, by name as in the file names: `high_school_physics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mmlu {
    /// Subjects in alphabetical order.
    pub subjects: BTreeMap<String, Subject>,
}

impl MmluItem {
    /// Reads a parquet, jsonl or csv file.
    ///
    /// # Errors
    /// Names file, line and column of the first fault; [`Error::Empty`] without rows.
    pub fn read(path: &Path) -> Result<Vec<Self>, Error> {
        read_items(path, Self::from_row)
    }

    fn from_row(row: &Row) -> Result<Self, Error> {
        let choices = match row.value("choices") {
            Some(Value::Array(choices)) => published_choices(row, choices)?,
            _ => [
                row.filled("choice0")?,
                row.filled("choice1")?,
                row.filled("choice2")?,
                row.filled("choice3")?,
            ],
        };
        Ok(Self {
            question: row.filled("question")?,
            choices,
            answer: row.index("answer", 4)?,
        })
    }

    /// Reads a file of questions on several subjects, by the column `subject`.
    ///
    /// # Errors
    /// As [`MmluItem::read`].
    pub(crate) fn read_by_subject(path: &Path) -> Result<Vec<(String, Self)>, Error> {
        read_items(path, |row| Ok((row.filled("subject")?, Self::from_row(row)?)))
    }
}

/// The list of choices that the Hub's copy has in one column.
fn published_choices(row: &Row, choices: &[Value]) -> Result<[String; 4], Error> {
    let texts: Option<Vec<String>> = choices.iter().map(|c| c.as_str().map(str::to_owned)).collect();
    texts
        .and_then(|texts| texts.try_into().ok())
        .ok_or_else(|| row.fault("choices", "is not a list of four texts".to_owned()))
}

impl Mmlu {
    /// Reads `folder/test/<subject>_test.csv` (or `.jsonl`) and the matching `folder/dev/<subject>_dev` files.
    ///
    /// # Errors
    /// [`Error::Missing`] without a `test` folder, [`Error::Empty`] when it holds no subject, and the faults of each file.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let test = files(folder, "test")?;
        if test.is_empty() {
            return Err(Error::Empty {
                path: folder.join("test"),
            });
        }
        let dev = if folder.join("dev").is_dir() {
            files(folder, "dev")?
        } else {
            BTreeMap::new()
        };
        let mut subjects = BTreeMap::new();
        for (name, path) in test {
            let dev = dev.get(&name).map_or(Ok(Vec::new()), |p| MmluItem::read(p))?;
            let test = MmluItem::read(&path)?;
            subjects.insert(name, Subject { dev, test });
        }
        Ok(Self { subjects })
    }
}

/// The files `<subject>_<split>.jsonl`, or else `.csv`, of a split, by subject.
fn files(folder: &Path, split: &str) -> Result<BTreeMap<String, std::path::PathBuf>, Error> {
    let path = folder.join(split);
    if !path.is_dir() {
        return Err(Error::Missing {
            folder: folder.to_path_buf(),
            wanted: format!("{split}/"),
        });
    }
    let fault = |source| Error::Io {
        path: path.clone(),
        source,
    };
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&path).map_err(fault)? {
        let name = entry.map_err(fault)?.file_name().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".csv").or_else(|| name.strip_suffix(".jsonl"));
        if let Some(subject) = stem.and_then(|s| s.strip_suffix(&format!("_{split}"))) {
            let file = path.join(&name);
            if name.ends_with(".jsonl") {
                found.insert(subject.to_owned(), file);
            } else {
                found.entry(subject.to_owned()).or_insert(file);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "question,choice0,choice1,choice2,choice3,answer\n";

    #[test]
    fn pairs_dev_with_test_by_subject() {
        let dir = tempfile::tempdir().unwrap();
        for split in ["dev", "test"] {
            std::fs::create_dir(dir.path().join(split)).unwrap();
        }
        let write = |name: &str, rows: &str| std::fs::write(dir.path().join(name), format!("{HEADER}{rows}")).unwrap();
        write("test/zoology_test.csv", "Legs of a spider?,6,8,10,12,1\n");
        write("test/art_test.csv", "Colour of the sky?,blue,red,green,pink,0\n");
        write("dev/art_dev.csv", "Colour of grass?,blue,red,green,pink,2\n");
        let mmlu = Mmlu::read(dir.path()).unwrap();
        let names: Vec<&String> = mmlu.subjects.keys().collect();
        assert_eq!(names, ["art", "zoology"]);
        assert_eq!(mmlu.subjects["art"].dev[0].answer, 2);
        assert!(mmlu.subjects["zoology"].dev.is_empty());
        assert_eq!(mmlu.subjects["zoology"].test[0].choices[1], "8");
    }

    #[test]
    fn of_two_files_of_a_subject_the_jsonl_is_read_whatever_the_folder_lists_first() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("test")).unwrap();
        let json = r#"{"question": "Of json?", "choices": ["a", "b", "c", "d"], "answer": 3}"#;
        for subject in ["a", "b", "c", "d"] {
            let write = |format: &str, text: &str| {
                std::fs::write(dir.path().join(format!("test/{subject}_test.{format}")), text).unwrap();
            };
            let csv = format!("{HEADER}Of csv?,a,b,c,d,0\n");
            if subject < "c" {
                write("jsonl", json);
                write("csv", &csv);
            } else {
                write("csv", &csv);
                write("jsonl", json);
            }
        }
        let mmlu = Mmlu::read(dir.path()).unwrap();
        let questions: Vec<&str> = mmlu.subjects.values().map(|s| s.test[0].question.as_str()).collect();
        assert_eq!(questions, ["Of json?"; 4]);
    }

    #[test]
    fn a_folder_without_subjects_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Mmlu::read(dir.path()).unwrap_err().to_string().contains("has no test/"));
        std::fs::create_dir(dir.path().join("test")).unwrap();
        assert!(Mmlu::read(dir.path()).unwrap_err().to_string().contains("no rows"));
    }
}
