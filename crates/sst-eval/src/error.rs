//! Errors of evaluation.

use crate::{Benchmark, GeneratorError, JudgeError};
use std::path::PathBuf;

/// An evaluation could not be configured, run, written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configuration value is out of range.
    #[error("suite configuration: `{key}` {problem}")]
    Config {
        /// The key at fault, as written in the file: `max_new_tokens.alpaca`.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A subject has fewer worked examples than the prompt needs.
    #[error("mmlu: {shots} shots asked for, but subject `{subject}` has {available} worked examples")]
    Shots {
        /// The subject.
        subject: String,
        /// Worked examples wanted.
        shots: usize,
        /// Worked examples there are.
        available: usize,
    },
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] sst_data::Error),
    /// The model failed.
    #[error("{benchmark}: {source}")]
    Generator {
        /// During which benchmark.
        benchmark: Benchmark,
        /// The model's own error.
        #[source]
        source: GeneratorError,
    },
    /// The judge failed.
    #[error("{benchmark}: judge {judge}: {source}")]
    Judge {
        /// During which benchmark.
        benchmark: Benchmark,
        /// The judge's name.
        judge: String,
        /// The judge's own error.
        #[source]
        source: JudgeError,
    },
    /// The model or the judge broke its contract: one finite answer per request, in order.
    #[error("{benchmark}: got {got}, expected {expected}")]
    Answers {
        /// During which benchmark.
        benchmark: Benchmark,
        /// What the requests call for.
        expected: String,
        /// What came back.
        got: String,
    },
    /// Two evaluations were not made on the same items.
    #[error("{benchmark}: item `{id}` is in only one of the two evaluations; run both with the same data, seed and n")]
    Pairing {
        /// Which benchmark.
        benchmark: Benchmark,
        /// The item.
        id: String,
    },
    /// A line of an items file does not parse.
    #[error("{}, line {line}: not an item record: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The parser's answer.
        #[source]
        source: serde_json::Error,
    },
    /// An artefact could not be written or read.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
}
