//! Errors of reading data sets; each names the file and, where there is one, the line and column.

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
    /// A column is missing, or its value is not what the data set promises.
    #[error("{}, line {line}: column `{column}` {problem}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// Line number, from 1; a csv row is named by the line it starts on.
        line: u64,
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
    #[error("{}: unknown format, expected a .jsonl or .csv file", path.display())]
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
