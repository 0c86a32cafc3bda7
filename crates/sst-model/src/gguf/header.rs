//! The header of a GGUF file: metadata, and where each tensor lies.

use super::{GgufError, GgufTensor, GgufType, GgufValue};
use std::collections::BTreeMap;
use std::path::Path;

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_DIMENSIONS: u32 = 4;

type Header = (BTreeMap<String, GgufValue>, BTreeMap<String, GgufTensor>);

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Header, GgufError> {
    let mut reader = Reader { path, bytes, at: 0 };
    if reader.take(4, "magic")? != MAGIC {
        return Err(reader.malformed("it does not start with \"GGUF\""));
    }
    let version = reader.u32("version")?;
    if !(2..=3).contains(&version) {
        let hint = if matches!(version.swap_bytes(), 2 | 3) {
            " (big-endian)"
        } else {
            ""
        };
        return Err(reader.malformed(format!("version {version}{hint}; known are 2 and 3, little-endian")));
    }
    let tensor_count = reader.u64("tensor count")?;
    let kv_count = reader.u64("metadata count")?;

    let mut metadata = BTreeMap::new();
    for _ in 0..kv_count {
        let key = reader.string("a metadata key")?;
        let kind = reader.u32(&key)?;
        let value = reader.value(&key, kind)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(reader.malformed(format!("metadata key {key:?} appears twice")));
        }
    }

    let mut described = Vec::new();
    for _ in 0..tensor_count {
        described.push(reader.tensor()?);
    }
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        Some(GgufValue::Unsigned(alignment)) if alignment.is_power_of_two() => *alignment,
        Some(other) => return Err(reader.malformed(format!("general.alignment is {other:?}, not a power of two"))),
    };
    let data = (reader.at as u64).next_multiple_of(alignment);

    let mut tensors = BTreeMap::new();
    for (name, shape, dtype, offset, size) in described {
        let range = data
            .checked_add(offset)
            .and_then(|start| Some((start, start.checked_add(size)?)))
            .filter(|&(_, end)| end <= bytes.len() as u64);
        let Some((start, end)) = range else {
            let have = bytes.len();
            return Err(reader.malformed(format!(
                "tensor {name:?} {shape:?} needs {size} bytes at {data} + {offset}, the file has {have}"
            )));
        };
        if tensors
            .insert(
                name.clone(),
                GgufTensor {
                    shape,
                    dtype,
                    range: start as usize..end as usize,
                },
            )
            .is_some()
        {
            return Err(reader.malformed(format!("tensor {name:?} appears twice")));
        }
    }
    Ok((metadata, tensors))
}

/// Walks the header; every read is checked against the file's length.
struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn malformed(&self, what: impl Into<String>) -> GgufError {
        GgufError::Malformed {
            path: self.path.to_path_buf(),
            what: what.into(),
        }
    }

    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.at..];
        if n > rest.len() {
            let (at, left) = (self.at, rest.len());
            return Err(self.malformed(format!("cut off in {what}: {n} bytes wanted at {at}, {left} left")));
        }
        self.at += n;
        Ok(&rest[..n])
    }

    fn fixed<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.fixed(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.fixed(what).map(u64::from_le_bytes)
    }

    /// A length, as memory can hold it.
    fn length(&mut self, what: &str) -> Result<usize, GgufError> {
        let length = self.u64(what)?;
        usize::try_from(length).map_err(|_| self.malformed(format!("{what}: length {length}")))
    }

    fn string(&mut self, what: &str) -> Result<String, GgufError> {
        let length = self.length(what)?;
        let bytes = self.take(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(e) => Err(self.malformed(format!("{what}: not UTF-8: {e}"))),
        }
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<GgufValue, GgufError> {
        const ARRAY: u32 = 9;
        if kind != ARRAY {
            return self.scalar(key, kind);
        }
        let element = self.u32(key)?;
        let count = self.length(key)?;
        // Every element takes at least one byte, which bounds what a false count can make us allocate.
        if element == ARRAY || count > self.bytes.len() - self.at {
            return Err(self.malformed(format!("{key}: an array of {count} elements of type {element}")));
        }
        let values: Result<Vec<_>, _> = (0..count).map(|_| self.scalar(key, element)).collect();
        Ok(GgufValue::Array(values?))
    }

    fn scalar(&mut self, key: &str, kind: u32) -> Result<GgufValue, GgufError> {
        use GgufValue::{Bool, F32, F64, Signed, String, Unsigned};
        Ok(match kind {
            0 => Unsigned(self.fixed(key).map(u8::from_le_bytes)?.into()),
            1 => Signed(self.fixed(key).map(i8::from_le_bytes)?.into()),
            2 => Unsigned(self.fixed(key).map(u16::from_le_bytes)?.into()),
            3 => Signed(self.fixed(key).map(i16::from_le_bytes)?.into()),
            4 => Unsigned(self.u32(key)?.into()),
            5 => Signed(self.fixed(key).map(i32::from_le_bytes)?.into()),
            6 => F32(self.fixed(key).map(f32::from_le_bytes)?),
            7 => match self.fixed::<1>(key)? {
                [0] => Bool(false),
                [1] => Bool(true),
                [other] => return Err(self.malformed(format!("{key}: a bool of value {other}"))),
            },
            8 => String(self.string(key)?),
            10 => Unsigned(self.u64(key)?),
            11 => Signed(self.fixed(key).map(i64::from_le_bytes)?),
            12 => F64(self.fixed(key).map(f64::from_le_bytes)?),
            _ => return Err(self.malformed(format!("{key}: unknown value type {kind}"))),
        })
    }

    /// Name, row-major shape, type, offset into the data, bytes.
    fn tensor(&mut self) -> Result<(String, Vec<usize>, GgufType, u64, u64), GgufError> {
        let name = self.string("a tensor name")?;
        let dimensions = self.u32(&name)?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(self.malformed(format!("tensor {name:?} has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(self.length(&name)?);
        }
        shape.reverse();
        let ggml_type = self.u32(&name)?;
        let offset = self.u64(&name)?;
        let dtype = GgufType::from_ggml(ggml_type).ok_or_else(|| GgufError::TensorType {
            path: self.path.to_path_buf(),
            tensor: name.clone(),
            ggml_type,
        })?;
        let (weights, size) = dtype.block();
        let bytes = shape
            .iter()
            .try_fold(1_usize, |n, &d| n.checked_mul(d))
            .filter(|_| shape.last().is_some_and(|row| row % weights == 0))
            .and_then(|n| (n / weights).checked_mul(size));
        match bytes {
            Some(bytes) => Ok((name, shape, dtype, offset, bytes as u64)),
            None => Err(self.malformed(format!("tensor {name:?} of type {dtype:?} cannot have shape {shape:?}"))),
        }
    }
}
