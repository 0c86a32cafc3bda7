//! The packaged model's tokenizer: byte-level BPE behind a split of single digits.

use super::weights::Geometry;
use super::{expect, unsupported};
use crate::fetch::FetchError;
use crate::gguf::{GgufFile, GgufValue};
use serde_json::{Map, Value, json};

/// The tokens with a role, by id and text.
pub(super) struct SpecialTokens {
    pub(super) bos: (u64, String),
    pub(super) eos: (u64, String),
    pub(super) pad: (u64, String),
    pub(super) unk: (u64, String),
}

impl SpecialTokens {
    pub(super) fn read(file: &GgufFile) -> Result<Self, FetchError> {
        let tokens = file.strings("tokenizer.ggml.tokens")?;
        let token = |role: &str| -> Result<(u64, String), FetchError> {
            let key = format!("tokenizer.ggml.{role}_token_id");
            let id = file.unsigned(&key)?;
            let text = usize::try_from(id).ok().and_then(|id| tokens.get(id));
            let text = text.ok_or_else(|| unsupported(file, &key, id, format!("ids below {}", tokens.len())))?;
            Ok((id, (*text).to_owned()))
        };
        Ok(Self {
            bos: token("bos")?,
            eos: token("eos")?,
            pad: token("padding")?,
            unk: token("unknown")?,
        })
    }

    pub(super) fn ids(&self) -> Value {
        json!({"bos_token_id": self.bos.0, "eos_token_id": self.eos.0, "pad_token_id": self.pad.0})
    }
}

/// `tokenizer.json`.
pub(super) fn tokenizer(file: &GgufFile) -> Result<Value, FetchError> {
    const CONTROL: i64 = 3;
    const USER_DEFINED: i64 = 4;
    expect(
        file,
        "tokenizer.ggml.model",
        file.string("tokenizer.ggml.model")?,
        "gpt2",
    )?;
    expect(file, "tokenizer.ggml.pre", file.string("tokenizer.ggml.pre")?, "smollm")?;
    for key in [
        "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.add_eos_token",
        "tokenizer.ggml.add_space_prefix",
    ] {
        if let Some(value) = file.get(key).filter(|value| **value != GgufValue::Bool(false)) {
            return Err(unsupported(file, key, format!("{value:?}"), "false"));
        }
    }
    let tokens = file.strings("tokenizer.ggml.tokens")?;
    let types = file.signed_integers("tokenizer.ggml.token_type")?;
    expect(file, "the number of token types", types.len(), tokens.len())?;

    let vocab: Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, t)| ((*t).to_owned(), id.into()))
        .collect();
    expect(file, "the number of distinct tokens", vocab.len(), tokens.len())?;
    let added: Vec<Value> = (0..tokens.len())
        .filter(|&id| matches!(types[id], CONTROL | USER_DEFINED))
        .map(|id| {
            json!({
                "id": id,
                "content": tokens[id],
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": types[id] == CONTROL,
            })
        })
        .collect();
    let mut merges = Vec::new();
    for merge in file.strings("tokenizer.ggml.merges")? {
        let pair = merge.split_once(' ');
        let pair = pair.ok_or_else(|| unsupported(file, "tokenizer.ggml.merges", merge, "pairs with a space"))?;
        merges.push(json!([pair.0, pair.1]));
    }
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level],
        },
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges,
        },
    }))
}

/// `tokenizer_config.json`.
pub(super) fn tokenizer_config(
    file: &GgufFile,
    geometry: &Geometry,
    special: &SpecialTokens,
) -> Result<Value, FetchError> {
    expect(
        file,
        "the number of tokens",
        file.strings("tokenizer.ggml.tokens")?.len(),
        geometry.vocab,
    )?;
    Ok(json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "bos_token": special.bos.1,
        "chat_template": file.string("tokenizer.chat_template")?,
        "clean_up_tokenization_spaces": false,
        "eos_token": special.eos.1,
        "model_max_length": file.unsigned("llama.context_length")?,
        "pad_token": special.pad.1,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": special.unk.1,
    }))
}
