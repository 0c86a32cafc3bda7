//! Rows of a jsonl or csv file with their line numbers, so that every fault can be named.

use crate::Error;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// One row: its values by column name.
#[derive(Debug)]
pub(crate) struct Row {
    path: PathBuf,
    line: u64,
    fields: Map<String, Value>,
}

impl Row {
    /// The text in `column`.
    pub(crate) fn text(&self, column: &'static str) -> Result<String, Error> {
        match self.fields.get(column) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(self.fault(column, format!("holds {other}, expected text"))),
            None => Err(self.fault(column, "is missing".to_owned())),
        }
    }

    /// The text in `column`, which must hold more than white space.
    pub(crate) fn filled(&self, column: &'static str) -> Result<String, Error> {
        let text = self.text(column)?;
        if text.trim().is_empty() {
            return Err(self.fault(column, "is empty".to_owned()));
        }
        Ok(text)
    }

    /// The first of `columns` that the row has, else the first.
    pub(crate) fn present(&self, columns: &[&'static str]) -> &'static str {
        let found = columns.iter().find(|column| self.fields.contains_key(**column));
        found.unwrap_or(&columns[0])
    }

    /// The integer in `column`, which must lie below `bound`.
    pub(crate) fn index(&self, column: &'static str, bound: usize) -> Result<usize, Error> {
        let value = match self.fields.get(column) {
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(value) => value.as_u64().and_then(|n| usize::try_from(n).ok()),
            None => return Err(self.fault(column, "is missing".to_owned())),
        };
        match value {
            Some(n) if n < bound => Ok(n),
            _ => {
                let got = &self.fields[column];
                Err(self.fault(
                    column,
                    format!("holds {got}, expected an integer from 0 to {}", bound - 1),
                ))
            }
        }
    }

    /// An [`Error::Column`] at this row.
    pub(crate) fn fault(&self, column: &'static str, problem: String) -> Error {
        Error::Column {
            path: self.path.clone(),
            line: self.line,
            column,
            problem,
        }
    }
}

/// Reads all rows and turns each into an item with `parse`.
///
/// # Errors
/// As the file's format demands; [`Error::Empty`] when there are no rows.
pub(crate) fn read_items<T>(path: &Path, parse: impl Fn(&Row) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    let rows = match path.extension().and_then(|e| e.to_str()) {
        Some("jsonl") => read_jsonl(path)?,
        Some("csv") => read_csv(path)?,
        _ => {
            return Err(Error::Format {
                path: path.to_path_buf(),
            });
        }
    };
    if rows.is_empty() {
        return Err(Error::Empty {
            path: path.to_path_buf(),
        });
    }
    rows.iter().map(parse).collect()
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Io {
        path: path.to_path_buf(),
        source,
    })
}

fn read_jsonl(path: &Path) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for (line, text) in (1..).zip(BufReader::new(open(path)?).lines()) {
        let text = text.map_err(|source| Error::Io {
            path: path.to_path_buf(),
            source,
        })?;
        if text.trim().is_empty() {
            continue;
        }
        let fields = serde_json::from_str(&text).map_err(|source| Error::Json {
            path: path.to_path_buf(),
            line,
            source,
        })?;
        rows.push(Row {
            path: path.to_path_buf(),
            line,
            fields,
        });
    }
    Ok(rows)
}

fn read_csv(path: &Path) -> Result<Vec<Row>, Error> {
    let fault = |source| Error::Csv {
        path: path.to_path_buf(),
        source,
    };
    let mut reader = csv::Reader::from_reader(open(path)?);
    let headers = reader.headers().map_err(fault)?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(fault)?;
        let values = record.iter().map(|v| Value::String(v.to_owned()));
        rows.push(Row {
            path: path.to_path_buf(),
            line: record.position().map_or(0, csv::Position::line),
            fields: headers.iter().map(str::to_owned).zip(values).collect(),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &str) -> Result<Vec<(String, usize)>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        read_items(&path, |row| Ok((row.filled("question")?, row.index("answer", 4)?)))
    }

    #[test]
    fn both_formats_give_the_same_rows() {
        let expected = vec![("a, \"b\"\nc".to_owned(), 3), ("d".to_owned(), 0)];
        let csv = "answer,question\n3,\"a, \"\"b\"\"\nc\"\n0,d\n";
        assert_eq!(read("x.csv", csv).unwrap(), expected);
        let jsonl = "{\"question\": \"a, \\\"b\\\"\\nc\", \"answer\": 3}\n\n{\"answer\": 0, \"question\": \"d\"}\n";
        assert_eq!(read("x.jsonl", jsonl).unwrap(), expected);
    }

    #[test]
    fn faults_name_file_line_and_column() {
        let cases = [
            (
                "x.jsonl",
                "{\"question\":\"a\",\"answer\":0}\n{\"question\":\"b\"}\n",
                "x.jsonl, line 2: column `answer` is missing",
            ),
            (
                "x.jsonl",
                "{\"question\":\"a\",\"answer\":4}\n",
                "line 1: column `answer` holds 4, expected an integer from 0 to 3",
            ),
            (
                "x.jsonl",
                "{\"question\":7,\"answer\":0}\n",
                "line 1: column `question` holds 7, expected text",
            ),
            (
                "x.jsonl",
                "{\"question\":\" \",\"answer\":0}\n",
                "line 1: column `question` is empty",
            ),
            (
                "x.jsonl",
                "{\"question\":\"a\",\"answer\":0}\nnot json\n",
                "x.jsonl, line 2: not a JSON object",
            ),
            (
                "x.csv",
                "question,answer\n\"a\nb\",1\nc,-1\n",
                "x.csv, line 4: column `answer` holds \"-1\"",
            ),
            (
                "x.csv",
                "text,answer\na,1\n",
                "x.csv, line 2: column `question` is missing",
            ),
            ("x.csv", "question,answer\na\n", "x.csv: malformed csv"),
            ("x.csv", "question,answer\n", "x.csv: no rows"),
            ("x.jsonl", "\n", "x.jsonl: no rows"),
            ("x.txt", "a", "x.txt: unknown format"),
        ];
        for (name, content, expected) in cases {
            let message = read(name, content).unwrap_err().to_string();
            assert!(message.contains(expected), "{message} lacks {expected}");
        }
    }
}
