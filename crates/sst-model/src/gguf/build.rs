//! Writes small GGUF files for tests.

use super::GgufValue;

pub(crate) struct Builder {
    pub(crate) version: u32,
    pub(crate) kv: Vec<(String, GgufValue)>,
    /// Name, row-major shape, ggml type, bytes.
    pub(crate) tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            version: 3,
            kv: Vec::new(),
            tensors: Vec::new(),
        }
    }

    pub(crate) fn kv(mut self, key: &str, value: GgufValue) -> Self {
        self.kv.push((key.to_owned(), value));
        self
    }

    pub(crate) fn f32_tensor(mut self, name: &str, shape: &[usize], data: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push((name.to_owned(), shape.to_vec(), 0, bytes));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.kv.len() as u64).to_le_bytes());
        for (key, value) in &self.kv {
            text(&mut out, key);
            out.extend(kind(value).to_le_bytes());
            payload(&mut out, value);
        }
        let mut offset = 0;
        for (name, shape, ggml_type, data) in &self.tensors {
            text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            for d in shape.iter().rev() {
                out.extend((*d as u64).to_le_bytes());
            }
            out.extend(ggml_type.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += data.len().next_multiple_of(32);
        }
        for (_, _, _, data) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(data);
        }
        out
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn kind(value: &GgufValue) -> u32 {
    match value {
        GgufValue::Unsigned(_) => 10,
        GgufValue::Signed(_) => 11,
        GgufValue::F32(_) => 6,
        GgufValue::F64(_) => 12,
        GgufValue::Bool(_) => 7,
        GgufValue::String(_) => 8,
        GgufValue::Array(_) => 9,
    }
}

fn payload(out: &mut Vec<u8>, value: &GgufValue) {
    match value {
        GgufValue::Unsigned(x) => out.extend(x.to_le_bytes()),
        GgufValue::Signed(x) => out.extend(x.to_le_bytes()),
        GgufValue::F32(x) => out.extend(x.to_le_bytes()),
        GgufValue::F64(x) => out.extend(x.to_le_bytes()),
        GgufValue::Bool(x) => out.push((*x).into()),
        GgufValue::String(x) => text(out, x),
        GgufValue::Array(values) => {
            out.extend(values.first().map_or(8, kind).to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| payload(out, value));
        }
    }
}
