//! Rows of a parquet, jsonl, json or csv file with their numbers, so that every fault can be named.

use crate::Error;
use flate2::read::MultiGzDecoder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Where in a file a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The line it starts on, from 1.
    Line(u64),
    /// Its number among the rows, from 1, where the format has no lines.
    Row(u64),
}

impl Place {
    pub(crate) fn number(self) -> u64 {
        match self {
            Place::Line(n) | Place::Row(n) => n,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(n) => write!(f, "line {n}"),
            Place::Row(n) => write!(f, "row {n}"),
        }
    }
}

/// One row: its values by column name.
#[derive(Debug)]
pub(crate) struct Row {
    path: PathBuf,
    place: Place,
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

    /// The value in `column`.
    pub(crate) fn value(&self, column: &str) -> Option<&Value> {
        self.fields.get(column)
    }

    /// The place of the row.
    pub(crate) fn place(&self) -> Place {
        self.place
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
            place: self.place,
            column,
            problem,
        }
    }
}

/// Reads all rows and turns each into an item with `parse`.
///
/// The format is that of the name: `.jsonl`, `.json` (an array of objects), `.csv`, `.parquet`; all but the last also
/// compressed, `.gz`.
///
/// # Errors
/// As the file's format demands; [`Error::Empty`] when there are no rows.
pub(crate) fn read_items<T>(path: &Path, parse: impl Fn(&Row) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    let rows = read_rows(path)?;
    if rows.is_empty() {
        return Err(Error::Empty {
            path: path.to_path_buf(),
        });
    }
    rows.iter().map(parse).collect()
}

/// As [`read_items`], leaving out the rows in which one of `columns` is blank; also how many those were.
pub(crate) fn read_filled<T>(
    path: &Path,
    columns: &[&str],
    parse: impl Fn(&Row) -> Result<T, Error>,
) -> Result<(Vec<T>, usize), Error> {
    let rows = read_rows(path)?;
    let blank = |row: &&Row| {
        let text = |column: &&str| {
            row.value(column)
                .map(|v| v.as_str().is_some_and(|text| text.trim().is_empty()) || v.is_null())
        };
        columns.iter().any(|column| text(column) == Some(true))
    };
    let kept: Vec<&Row> = rows.iter().filter(|row| !blank(row)).collect();
    let skipped = rows.len() - kept.len();
    Ok((kept.into_iter().map(parse).collect::<Result<_, _>>()?, skipped))
}

/// How rows are laid out in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Format {
    Parquet,
    Jsonl,
    Json,
    Csv,
}

impl Format {
    /// The format that a file name promises, and whether the file is compressed.
    pub(crate) fn of(name: &str) -> Option<(Self, bool)> {
        let (plain, compressed) = match name.strip_suffix(".gz") {
            Some(plain) => (plain, true),
            None => (name, false),
        };
        let format = match plain.rsplit_once('.')?.1 {
            "parquet" if !compressed => Self::Parquet,
            "jsonl" => Self::Jsonl,
            "json" => Self::Json,
            "csv" => Self::Csv,
            _ => return None,
        };
        Some((format, compressed))
    }
}

fn read_rows(path: &Path) -> Result<Vec<Row>, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some((format, compressed)) = Format::of(&name) else {
        return Err(Error::Format {
            path: path.to_path_buf(),
        });
    };
    let file = File::open(path).map_err(|source| Error::Io {
        path: path.to_path_buf(),
        source,
    })?;
    if format == Format::Parquet {
        return read_parquet(path, file);
    }
    let reader: Box<dyn Read> = if compressed {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    match format {
        Format::Csv => read_csv(path, reader),
        Format::Json => read_json(path, reader),
        _ => read_jsonl(path, reader),
    }
}

fn read_jsonl(path: &Path, reader: impl Read) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for (line, text) in (1..).zip(BufReader::new(reader).lines()) {
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
            place: Place::Line(line),
            fields,
        });
    }
    Ok(rows)
}

fn read_json(path: &Path, reader: impl Read) -> Result<Vec<Row>, Error> {
    let objects: Vec<Map<String, Value>> =
        serde_json::from_reader(BufReader::new(reader)).map_err(|source| Error::Json {
            path: path.to_path_buf(),
            line: source.line() as u64,
            source,
        })?;
    Ok(numbered(path, objects))
}

fn read_csv(path: &Path, reader: impl Read) -> Result<Vec<Row>, Error> {
    let fault = |source| Error::Csv {
        path: path.to_path_buf(),
        source,
    };
    let mut reader = csv::Reader::from_reader(reader);
    let headers = reader.headers().map_err(fault)?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(fault)?;
        let values = record.iter().map(|v| Value::String(v.to_owned()));
        rows.push(Row {
            path: path.to_path_buf(),
            place: Place::Line(record.position().map_or(0, csv::Position::line)),
            fields: headers.iter().map(str::to_owned).zip(values).collect(),
        });
    }
    Ok(rows)
}

fn read_parquet(path: &Path, file: File) -> Result<Vec<Row>, Error> {
    let fault = |source| Error::Parquet {
        path: path.to_path_buf(),
        source,
    };
    let reader = SerializedFileReader::new(file).map_err(fault)?;
    let mut objects = Vec::new();
    for row in reader.get_row_iter(None).map_err(fault)? {
        if let Value::Object(fields) = row.map_err(fault)?.to_json_value() {
            objects.push(fields);
        }
    }
    Ok(numbered(path, objects))
}

fn numbered(path: &Path, objects: Vec<Map<String, Value>>) -> Vec<Row> {
    let rows = (1..).zip(objects).map(|(number, fields)| Row {
        path: path.to_path_buf(),
        place: Place::Row(number),
        fields,
    });
    rows.collect()
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
    fn compressed_files_and_arrays_give_the_same_rows() {
        let dir = tempfile::tempdir().unwrap();
        let items = |path: &Path| read_items(path, |row| Ok((row.filled("question")?, row.index("answer", 4)?)));
        let packed = dir.path().join("x.jsonl.gz");
        let mut writer = flate2::write::GzEncoder::new(File::create(&packed).unwrap(), flate2::Compression::fast());
        std::io::Write::write_all(&mut writer, b"{\"question\": \"a\", \"answer\": 2}\n").unwrap();
        writer.finish().unwrap();
        assert_eq!(items(&packed).unwrap(), [("a".to_owned(), 2)]);
        let array = r#"[{"question": "a", "answer": 2}, {"question": "b", "answer": 9}]"#;
        assert!(read("x.json", &array.replace('9', "1")).unwrap().len() == 2);
        let message = read("x.json", array).unwrap_err().to_string();
        assert!(message.contains("x.json, row 2: column `answer` holds 9"), "{message}");
    }

    #[test]
    fn parquet_as_the_hub_publishes_it() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/mmlu/all/test-00000-of-00001.parquet");
        let questions = read_items(&path, |row| row.filled("question")).unwrap();
        assert_eq!(questions[0], "Which number is even?");
        let broken = tempfile::tempdir().unwrap();
        let path = broken.path().join("x.parquet");
        std::fs::write(&path, "not parquet").unwrap();
        let message = read_items(&path, |_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("x.parquet: malformed parquet"), "{message}");
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
