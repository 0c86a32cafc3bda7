//! The packaged model's weights: geometry, names, and the order of rotary rows.

use super::{expect, unsupported};
use crate::fetch::FetchError;
use crate::gguf::{GgufFile, GgufTensor};
use safetensors::{Dtype, View};
use sst_artefact::write_atomic;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

/// The numbers that every tensor's shape follows from.
pub(super) struct Geometry {
    pub(super) vocab: usize,
    pub(super) layers: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Geometry {
    pub(super) fn read(file: &GgufFile) -> Result<Self, FetchError> {
        expect(
            file,
            "general.architecture",
            file.string("general.architecture")?,
            "llama",
        )?;
        let number = |key: &str| file.unsigned(&format!("llama.{key}")).map(|n| n as usize);
        let (hidden, heads) = (number("embedding_length")?, number("attention.head_count")?);
        let head_dim = number("rope.dimension_count")?;
        expect(file, "llama.embedding_length", hidden, heads.saturating_mul(head_dim))?;
        if head_dim % 2 != 0 || head_dim == 0 {
            return Err(unsupported(file, "llama.rope.dimension_count", head_dim, "even widths"));
        }
        let kv_heads = number("attention.head_count_kv")?;
        if kv_heads == 0 || heads % kv_heads != 0 {
            let known = format!("divisors of {heads}");
            return Err(unsupported(file, "llama.attention.head_count_kv", kv_heads, known));
        }
        Ok(Self {
            vocab: number("vocab_size")?,
            layers: number("block_count")?,
            hidden,
            intermediate: number("feed_forward_length")?,
            heads,
            kv_heads,
            head_dim,
        })
    }

    /// GGUF name to (Hugging Face name, shape, heads to re-order); the output head is tied to the embedding.
    fn tensors(&self) -> BTreeMap<String, (String, Vec<usize>, Option<usize>)> {
        let (d, f) = (self.hidden, self.intermediate);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut map = BTreeMap::new();
        map.insert(
            "token_embd.weight".into(),
            ("model.embed_tokens.weight".into(), vec![self.vocab, d], None),
        );
        map.insert("output_norm.weight".into(), ("model.norm.weight".into(), vec![d], None));
        let per_layer = [
            ("attn_norm", "input_layernorm", vec![d], None),
            ("attn_q", "self_attn.q_proj", vec![q, d], Some(self.heads)),
            ("attn_k", "self_attn.k_proj", vec![kv, d], Some(self.kv_heads)),
            ("attn_v", "self_attn.v_proj", vec![kv, d], None),
            ("attn_output", "self_attn.o_proj", vec![d, q], None),
            ("ffn_norm", "post_attention_layernorm", vec![d], None),
            ("ffn_gate", "mlp.gate_proj", vec![f, d], None),
            ("ffn_up", "mlp.up_proj", vec![f, d], None),
            ("ffn_down", "mlp.down_proj", vec![d, f], None),
        ];
        for layer in 0..self.layers {
            for (gguf, hf, shape, heads) in &per_layer {
                let name = format!("model.layers.{layer}.{hf}.weight");
                map.insert(format!("blk.{layer}.{gguf}.weight"), (name, shape.clone(), *heads));
            }
        }
        map
    }
}

/// Writes every weight as f32 under its Hugging Face name.
pub(super) fn write_weights(file: &GgufFile, geometry: &Geometry, path: &Path) -> Result<(), FetchError> {
    let names = geometry.tensors();
    if let Some(extra) = file.tensors().keys().find(|name| !names.contains_key(*name)) {
        return Err(unsupported(
            file,
            "a tensor",
            extra,
            "Llama with a tied output head and no biases",
        ));
    }
    let mut weights = Vec::new();
    for (gguf_name, (name, shape, heads)) in &names {
        let tensor = file.tensor(gguf_name)?;
        if tensor.shape != *shape {
            return Err(FetchError::Shape {
                path: file.path().to_path_buf(),
                tensor: gguf_name.clone(),
                expected: shape.clone(),
                got: tensor.shape.clone(),
            });
        }
        weights.push((
            name.as_str(),
            LazyWeight {
                file,
                tensor,
                heads: *heads,
            },
        ));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(weights, Some(metadata)).map_err(|source| FetchError::Weights {
        path: file.path().to_path_buf(),
        source,
    })?;
    write_atomic(path, |out| out.write_all(&bytes))?;
    Ok(())
}

/// One output tensor, decoded when it is written.
struct LazyWeight<'a> {
    file: &'a GgufFile,
    tensor: &'a GgufTensor,
    heads: Option<usize>,
}

impl View for LazyWeight<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let stored = self.file.decode(self.tensor);
        let values = match self.heads {
            Some(heads) => split_halves(&stored, heads, &self.tensor.shape),
            None => stored,
        };
        Cow::Owned(values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.tensor.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

/// Rows from GGUF's interleaved rotary order to Hugging Face's halves, head by head.
fn split_halves(rows: &[f32], heads: usize, shape: &[usize]) -> Vec<f32> {
    let (d_out, d_in) = (shape[0], shape[1]);
    let half = d_out / heads / 2;
    let mut out = Vec::with_capacity(rows.len());
    for head in 0..heads {
        for s in 0..2 {
            for j in 0..half {
                let row = head * 2 * half + 2 * j + s;
                out.extend_from_slice(&rows[row * d_in..(row + 1) * d_in]);
            }
        }
    }
    out
}
