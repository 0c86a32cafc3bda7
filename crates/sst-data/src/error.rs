//! Errors of reading data sets; each names the file and, where there is one, the line and column.

use crate::Place;
use std::path::PathBuf;

/// A data set could not be found, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A line of a jsonl file is not a JSON object.
    #[error("{}, line {line}: not a JSON object: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// The parser's answer.
        #[source]
        source: serde_json::Error,
    },
    /// A csv file is malformed.
    #[error("{}: malformed csv: {source}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The parser's answer, with the line.
        #[source]
        source: csv::Error,
    },
    /// A parquet file is malformed, or of a kind that is not read.
    #[error("{}: malformed parquet: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's answer.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A column is missing, or its value is not what the data set promises.
    #[error("{}, {place}: column `{column}` {problem}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The row.
        place: Place,
        /// The publisher's column name.
        column: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file holds no rows.
    #[error("{}: no rows", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// The extension names no format that is read.
    #[error("{}: unknown format, expected .parquet, .jsonl, .json or .csv (the last three also .gz)", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A data folder lacks a file.
    #[error("{} has no {wanted}", folder.display())]
    Missing {
        /// The data folder.
        folder: PathBuf,
        /// The file or folder looked for, relative to the data folder.
        wanted: String,
    },
    /// A published set has no such split here.
    #[error("{}: no file of split `{split}`; there are {found}", place.display())]
    Split {
        /// The folder or repository.
        place: PathBuf,
        /// The split.
        split: String,
        /// The files of data there are.
        found: String,
    },
    /// An item to learn from has no response.
    #[error("{}: {id} has no response to learn; train on a set with answers", path.display())]
    Unanswered {
        /// The file.
        path: PathBuf,
        /// The item.
        id: String,
    },
    /// A setting of an import is out of range.
    #[error("import: `{key}` is {value}, expected {expected}")]
    Import {
        /// The key at fault.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The folder to write holds something else already.
    #[error("{} holds another import; remove it or choose another folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// The Hub did not give a file.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] sst_artefact::HubError),
    /// A name that is none of the known ones.
    #[error("unknown {what} `{name}`, expected one of {expected}")]
    Name {
        /// What the name should be.
        what: &'static str,
        /// The name given.
        name: String,
        /// The names known.
        expected: String,
    },
    /// More items were asked for than can be made up.
    #[error("cannot synthesise {wanted} items for {what}: at most {limit} distinct ones exist")]
    TooMany {
        /// Which part of the folder.
        what: &'static str,
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        limit: usize,
    },
    /// An artefact could not be written.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
}
