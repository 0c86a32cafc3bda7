//! A folder of data sets, laid out `<dataset>/<split>.<format>`.

use crate::{AlpacaItem, Error, Example, HarmfulItem, JailbreakItem, Mmlu, RepliQaItem, XsTestItem, normal_form};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A data set of prompts and reference responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// Questions about documents.
    RepliQa,
    /// Instructions.
    Alpaca,
    /// Requests to refuse, with the refusal.
    Jailbreak,
    /// Harmful requests of fourteen kinds, without an answer.
    BeaverTails,
    /// Harmful requests of ten kinds, without an answer.
    JailbreakBench,
    /// Harmful requests, without an answer.
    AdvBench,
}

/// Every data set of prompts.
pub const DATASETS: [Dataset; 6] = [
    Dataset::RepliQa,
    Dataset::Alpaca,
    Dataset::Jailbreak,
    Dataset::BeaverTails,
    Dataset::JailbreakBench,
    Dataset::AdvBench,
];

/// The part of a data set to train on, or the part to evaluate on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training and Fisher statistics.
    Train,
    /// For evaluation.
    Eval,
}

impl Dataset {
    /// Its name in commands, configuration files and folders.
    pub fn name(self) -> &'static str {
        match self {
            Dataset::RepliQa => "repliqa",
            Dataset::Alpaca => "alpaca",
            Dataset::Jailbreak => "jailbreak",
            Dataset::BeaverTails => "beavertails",
            Dataset::JailbreakBench => "jailbreakbench",
            Dataset::AdvBench => "advbench",
        }
    }

    /// The items of one file as examples, in file order, with ids `<dataset>/<file name>/<row>`.
    ///
    /// # Errors
    /// The faults of the file, by line.
    pub fn read(self, path: &Path) -> Result<Vec<Example>, Error> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let id = |i: usize| format!("{self}/{name}/{}", i + 1);
        Ok(match self {
            Dataset::RepliQa => numbered(&RepliQaItem::read(path)?, |i, item| item.example(id(i))),
            Dataset::Alpaca => numbered(&AlpacaItem::read(path)?, |i, item| item.example(id(i))),
            Dataset::Jailbreak => numbered(&JailbreakItem::read(path)?, |i, item| item.example(id(i))),
            Dataset::BeaverTails | Dataset::JailbreakBench | Dataset::AdvBench => {
                numbered(&HarmfulItem::read(path)?, |i, item| item.example(id(i)))
            }
        })
    }

    /// As [`Dataset::read`], of items to learn from.
    ///
    /// # Errors
    /// [`Error::Unanswered`] naming the first item without a response; the faults of the file.
    pub fn read_answered(self, path: &Path) -> Result<Vec<Example>, Error> {
        let examples = self.read(path)?;
        match examples.iter().find(|example| example.response.is_empty()) {
            Some(example) => Err(Error::Unanswered {
                path: path.to_path_buf(),
                id: example.id.clone(),
            }),
            None => Ok(examples),
        }
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dataset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = DATASETS.into_iter().find(|dataset| dataset.name() == name);
        known.ok_or_else(|| Error::Name {
            what: "data set",
            name: name.to_owned(),
            expected: DATASETS.map(Dataset::name).join(", "),
        })
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Eval => "eval",
        })
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "train" => Ok(Split::Train),
            "eval" => Ok(Split::Eval),
            _ => Err(Error::Name {
                what: "split",
                name: name.to_owned(),
                expected: "train, eval".to_owned(),
            }),
        }
    }
}

/// A folder that holds any of `repliqa/`, `alpaca/`, `jailbreak/`, `beavertails/`, `jailbreakbench/`, `advbench/` (each
/// `train` and `eval`, or one of them: `.jsonl`, `.csv` or `.parquet`), `mmlu/` (`dev/`, `test/`) and `xstest/`
/// (`xstest_prompts.csv`).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// use sst_data::{DataFolder, Dataset, Sizes, Split, synthesise};
/// synthesise(path, 1, &Sizes::default()).unwrap();
/// let data = DataFolder::open(path).unwrap();
/// let examples = data.examples(Dataset::RepliQa, Split::Train).unwrap();
/// assert_eq!(examples[0].id, "repliqa/train/1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFolder {
    root: PathBuf,
}

impl DataFolder {
    /// Opens a folder; files are read when asked for.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Missing`] when it holds no data set.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let root = path.as_ref().to_path_buf();
        std::fs::read_dir(&root).map_err(|source| Error::Io {
            path: root.clone(),
            source,
        })?;
        let sets: Vec<&str> = DATASETS
            .iter()
            .map(|set| set.name())
            .chain(["mmlu", "xstest"])
            .collect();
        if !sets.iter().any(|set| root.join(set).is_dir()) {
            return Err(Error::Missing {
                folder: root,
                wanted: format!("data set: none of {}", sets.join("/, ") + "/"),
            });
        }
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of a split: `.jsonl` if it exists, else `.csv`, else `.parquet`.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none.
    pub fn path(&self, dataset: Dataset, split: Split) -> Result<PathBuf, Error> {
        self.find(&format!("{dataset}/{split}"))
    }

    /// The items of a split as examples, in file order, with ids `<dataset>/<split>/<row>`.
    ///
    /// # Errors
    /// [`Error::Missing`] when the file does not exist, else the faults of the file.
    pub fn examples(&self, dataset: Dataset, split: Split) -> Result<Vec<Example>, Error> {
        dataset.read(&self.path(dataset, split)?)
    }

    /// What each of a split's examples belongs to, in their order: its document, or else the words that it asks.
    ///
    /// # Errors
    /// As [`DataFolder::examples`].
    pub fn groups(&self, dataset: Dataset, split: Split) -> Result<Vec<String>, Error> {
        let path = self.path(dataset, split)?;
        if dataset == Dataset::RepliQa {
            let items = RepliQaItem::read(&path)?;
            return Ok(items.into_iter().map(|item| item.document_id).collect());
        }
        let asked = |example: Example| normal_form(&example.prompt.plain_text());
        Ok(dataset.read(&path)?.into_iter().map(asked).collect())
    }

    /// The folder of the multiple-choice subjects.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none.
    pub fn mmlu_path(&self) -> Result<PathBuf, Error> {
        let path = self.root.join("mmlu");
        if path.is_dir() {
            return Ok(path);
        }
        Err(Error::Missing {
            folder: self.root.clone(),
            wanted: "mmlu/".to_owned(),
        })
    }

    /// The multiple-choice questions.
    ///
    /// # Errors
    /// [`Error::Missing`] when there are none, else the faults of the files.
    pub fn mmlu(&self) -> Result<Mmlu, Error> {
        Mmlu::read(&self.mmlu_path()?)
    }

    /// The file of requests that test for over-refusal.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none.
    pub fn xstest_path(&self) -> Result<PathBuf, Error> {
        self.find("xstest/xstest_prompts")
    }

    /// The requests that test for over-refusal, safe and unsafe, in file order.
    ///
    /// # Errors
    /// [`Error::Missing`] when there are none, else the faults of the file.
    pub fn xstest(&self) -> Result<Vec<XsTestItem>, Error> {
        XsTestItem::read(&self.xstest_path()?)
    }

    fn find(&self, stem: &str) -> Result<PathBuf, Error> {
        [".jsonl", ".csv", ".parquet"]
            .iter()
            .map(|extension| self.root.join(format!("{stem}{extension}")))
            .find(|path| path.is_file())
            .ok_or_else(|| Error::Missing {
                folder: self.root.clone(),
                wanted: format!("{stem}.jsonl, .csv or .parquet"),
            })
    }
}

fn numbered<T>(items: &[T], example: impl Fn(usize, &T) -> Example) -> Vec<Example> {
    items.iter().enumerate().map(|(i, item)| example(i, item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Prompt;

    #[test]
    fn names_round_trip() {
        for dataset in DATASETS {
            let name = dataset.name();
            assert_eq!(name.parse::<Dataset>().unwrap(), dataset);
            assert_eq!(serde_json::to_value(dataset).unwrap(), name);
        }
        for split in [Split::Train, Split::Eval] {
            assert_eq!(split.to_string().parse::<Split>().unwrap(), split);
        }
        let message = "mmlu".parse::<Dataset>().unwrap_err().to_string();
        assert!(
            message.contains("`mmlu`") && message.contains("repliqa, alpaca"),
            "{message}"
        );
    }

    #[test]
    fn reads_whichever_format_is_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("jailbreak")).unwrap();
        std::fs::write(dir.path().join("jailbreak/eval.csv"), "prompt,response\nDo it,No.\n").unwrap();
        let data = DataFolder::open(dir.path()).unwrap();
        let examples = data.examples(Dataset::Jailbreak, Split::Eval).unwrap();
        assert_eq!(examples.len(), 1);
        assert_eq!(examples[0].id, "jailbreak/eval/1");
        assert_eq!(examples[0].prompt, Prompt::user("Do it"));
        let message = data.examples(Dataset::Alpaca, Split::Train).unwrap_err().to_string();
        assert!(
            message.contains("has no alpaca/train.jsonl, .csv or .parquet"),
            "{message}"
        );
        assert!(data.mmlu().unwrap_err().to_string().contains("has no mmlu/"));
    }

    #[test]
    fn requests_without_an_answer_are_not_learnt_from() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.csv");
        std::fs::write(&path, "goal,target\nDo it,Sure\n").unwrap();
        assert_eq!(Dataset::AdvBench.read(&path).unwrap().len(), 1);
        let message = Dataset::AdvBench.read_answered(&path).unwrap_err().to_string();
        assert!(message.contains("advbench/train/1 has no response"), "{message}");
    }

    #[test]
    fn a_folder_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(DataFolder::open(dir.path()), Err(Error::Missing { .. })));
        assert!(matches!(
            DataFolder::open(dir.path().join("nowhere")),
            Err(Error::Io { .. })
        ));
    }
}
