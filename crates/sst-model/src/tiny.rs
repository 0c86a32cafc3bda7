//! A tiny random model: two layers, 32 wide, a byte-level tokenizer and a ChatML template, made in milliseconds.
//!
//! It knows nothing; it lets pipelines and tests run on a real model folder in seconds.

use crate::Error;
use crate::counter::uniform;
use crate::fetch::holds_model;
use crate::packaged::refuse_occupied;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use sst_artefact::{Manifest, write_atomic, write_json};
use std::io::Write;
use std::path::Path;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

const HIDDEN: usize = 32;
const FF: usize = 64;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const CHAT_TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Writes a tiny random Llama model folder; the same seed gives the same bytes. A folder that already holds this model is left
/// as it is.
///
/// # Errors
/// [`Error::Fetch`] when the folder holds something else, [`Error::Artefact`] when it cannot be written.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use sst_model::{DeviceChoice, LanguageModel, Precision, Side, write_tiny_model};
/// write_tiny_model(dir.path(), 0)?;
/// let model = LanguageModel::load(dir.path(), DeviceChoice::Cpu, Precision::F32)?;
/// let logits = model.logits(&[&[1, 2, 3]], Side::Right, &[])?;
/// assert_eq!(logits.size(), [1, 3, 259]);
/// # Ok(()) }
/// ```
pub fn write_tiny_model(folder: &Path, seed: u64) -> Result<(), Error> {
    let made = json!({"tiny": true, "seed": seed});
    if holds_model(folder, &made) {
        return Ok(());
    }
    refuse_occupied(folder)?;
    let (tokenizer, vocab) = byte_tokenizer(folder)?;
    write_atomic(&folder.join("tokenizer.json"), |w| w.write_all(tokenizer.as_bytes()))?;
    let end = vocab - 1; // <|im_end|>
    write_json(
        &folder.join("config.json"),
        &json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab,
            "hidden_size": HIDDEN, "intermediate_size": FF, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HIDDEN / HEADS,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096,
            "tie_word_embeddings": true, "hidden_act": "silu", "torch_dtype": "float32",
            "bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end - 2,
        }),
    )?;
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({
            "bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "pad_token": SPECIAL[0],
            "chat_template": CHAT_TEMPLATE, "tokenizer_class": "PreTrainedTokenizerFast",
        }),
    )?;
    write_weights(folder, vocab, seed)?;
    Ok(Manifest::new("model", &made).write(folder)?)
}

/// A tokenizer whose tokens are the 256 bytes and three special tokens, as JSON, and its size.
fn byte_tokenizer(folder: &Path) -> Result<(String, usize), Error> {
    let bad = |e: tokenizers::Error| Error::Weights {
        path: folder.join("tokenizer.json"),
        reason: format!("cannot build the byte tokenizer: {e}"),
    };
    let mut letters: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    letters.sort();
    let vocab = letters
        .into_iter()
        .enumerate()
        .map(|(id, letter)| (letter, id as u32))
        .collect::<tokenizers::models::bpe::Vocab>();
    let model = BPE::builder().vocab_and_merges(vocab, vec![]).build().map_err(bad)?;
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
    tokenizer
        .add_special_tokens(SPECIAL.map(|text| AddedToken::from(text, true)))
        .map_err(bad)?;
    let size = tokenizer.get_vocab_size(true);
    Ok((tokenizer.to_string(true).map_err(bad)?, size))
}

fn write_weights(folder: &Path, vocab: usize, seed: u64) -> Result<(), Error> {
    let kv = HIDDEN / HEADS * KV_HEADS;
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for n in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![kv, HIDDEN]),
            ("self_attn.v_proj", vec![kv, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("mlp.gate_proj", vec![FF, HIDDEN]),
            ("mlp.up_proj", vec![FF, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, FF]),
        ] {
            shapes.push((format!("model.layers.{n}.{name}.weight"), shape));
        }
    }
    let data: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(name, shape)| {
            let bound = (3.0 / HIDDEN as f64).sqrt(); // variance 1 / d_model
            let count: usize = shape.iter().product();
            let value = |i| {
                if shape.len() == 1 {
                    1.0
                } else {
                    uniform(seed, name, i, -bound, bound)
                }
            };
            (0..count).flat_map(|i| value(i).to_le_bytes()).collect()
        })
        .collect();
    let bad = |e: safetensors::SafeTensorError| Error::Weights {
        path: folder.join("model.safetensors"),
        reason: e.to_string(),
    };
    let views = shapes
        .iter()
        .zip(&data)
        .map(|((name, shape), bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(bad)?;
    let bytes = safetensors::serialize(views, None).map_err(bad)?;
    Ok(write_atomic(&folder.join("model.safetensors"), |w| {
        w.write_all(&bytes)
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FetchError;

    #[test]
    fn the_same_model_is_found_and_another_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        write_tiny_model(dir.path(), 3).unwrap();
        let written = std::fs::metadata(&config).unwrap().modified().unwrap();
        write_tiny_model(dir.path(), 3).unwrap();
        assert_eq!(std::fs::metadata(&config).unwrap().modified().unwrap(), written);
        let weights = std::fs::read(dir.path().join("model.safetensors")).unwrap();
        let error = write_tiny_model(dir.path(), 4).unwrap_err();
        assert!(matches!(error, Error::Fetch(FetchError::Occupied { .. })), "{error}");
        assert_eq!(std::fs::read(dir.path().join("model.safetensors")).unwrap(), weights);
    }
}
