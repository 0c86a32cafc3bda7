//! Rows to files.

use crate::Error;
use serde::Serialize;
use sst_artefact::write_atomic;
use std::io::{self, Write};
use std::path::Path;

/// One JSON object per line.
pub(crate) fn write_jsonl<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), Error> {
    write_atomic(path, |w| {
        for row in rows {
            serde_json::to_writer(&mut *w, row)?;
            w.write_all(b"\n")?;
        }
        Ok(())
    })?;
    Ok(())
}

/// With a header of the field names.
pub(crate) fn write_csv<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), Error> {
    write_atomic(path, |w| {
        let mut writer = csv::Writer::from_writer(w);
        for row in rows {
            writer.serialize(row).map_err(io::Error::other)?;
        }
        writer.flush()
    })?;
    Ok(())
}
