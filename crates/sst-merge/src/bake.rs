//! An adapter added to the weights of its base model, for programs that know no adapters: W' = W + s B A.
//!
//! The output folder has the model's safetensors, configuration, tokenizer and licence files; left out are README.md, hidden
//! files, subfolders and weights in other formats. A module of the adapter, `model.layers.0.self_attn.q_proj`, names
//! the tensor `model.layers.0.self_attn.q_proj.weight`; its number type stays, and the sum is rounded once (see
//! `bake/update.rs`). Every other byte of a weight file is as it was, the header included. Each file is whole or absent;
//! stopped on the way, the same call goes on after the last whole file.

mod error;
mod model_folder;
mod update;
mod weight_file;

pub use error::BakeError;

use crate::Error;
pub(crate) use model_folder::ModelFolder;
use serde::{Deserialize, Serialize};
use sst_adapter::Adapter;
use sst_artefact::{Input, MANIFEST_FILE, Manifest, create_dir, read_json, remove_unfinished, sha256_file};
use sst_artefact::{write_atomic, write_json};
use std::collections::BTreeMap;
use std::path::Path;
use weight_file::bake_file;

/// What is done so far, until there is a manifest.
const UNFINISHED_FILE: &str = ".unfinished.json";
const KIND: &str = "baked-model";

/// What [`bake`] did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Baked {
    /// Weight files of the model.
    pub weight_files: usize,
    /// Weight files that an earlier call had finished.
    pub resumed: usize,
    /// Bytes of all weight files.
    pub bytes: u64,
    /// Tensors that the adapter changed.
    pub changed: usize,
    /// ||dW|| over all changed tensors.
    pub norm: f64,
    /// What rounding to the weights' type took away, relative to ||dW||; none for dW = 0.
    pub rounding: Option<f64>,
}

/// One weight file of the output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BakedFile {
    /// SHA-256 of the model's file.
    input: String,
    /// Length of both. What was written is not hashed: it follows from the inputs, and the hash would take as long as
    /// all the rest.
    bytes: u64,
    /// Tensors that the adapter changed in it.
    changed: usize,
    /// ||dW||^2 over them.
    delta: f64,
    /// ||y - W - dW||^2 of the sums y that are stored.
    lost: f64,
}

/// Which adapter went into which files.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    adapter: String,
    files: BTreeMap<String, BakedFile>,
}

/// Adds the adapter in the folder `adapter` to the model in the folder `model` and writes the folder `out`.
///
/// Weights are f32, bf16 or f16, in `model.safetensors` or in the files that `model.safetensors.index.json` lists;
/// memory is a few small blocks and the adapter, whatever the model's size. `progress` is given the bytes of weights
/// done and those of all. The same inputs give the same bytes.
///
/// # Errors
/// [`BakeError`]: a model that is quantised or not whole, a module that it lacks, ties or holds in another shape, a sum
/// that is not finite in the weight's type, an output folder that holds something else. An adapter that cannot be
/// read, a file that cannot be read or written.
pub fn bake(model: &Path, adapter: &Path, out: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Baked, Error> {
    let source = ModelFolder::open(model)?;
    let changes = source.changes(&Adapter::load(adapter)?)?;
    let adapter = Input::hash(adapter)?;
    let (mut record, finished) = Record::read(out, &adapter.sha256)?;
    create_dir(out).map_err(Error::from)?;
    remove_unfinished(out)?;

    if let Some(name) = record
        .files
        .keys()
        .find(|name| source.weights.iter().all(|file| file.name != **name))
    {
        return Err(taken(out, format!("holds {name}, which the model does not have")));
    }

    let (total, mut done, mut resumed) = (source.bytes(), 0, 0);
    for file in &source.weights {
        let (from, to) = (model.join(&file.name), out.join(&file.name));
        if let Some(known) = record.files.get(&file.name) {
            if known.input != sha256_file(&from)? {
                return Err(taken(
                    out,
                    format!("{} was made from another file of that name", file.name),
                ));
            }
            if std::fs::metadata(&to).is_ok_and(|to| to.len() == known.bytes) {
                done += file.bytes();
                resumed += 1;
                progress(done, total);
                continue;
            }
            if finished {
                return Err(taken(out, format!("{} is not what the manifest says", file.name)));
            }
        }
        let baked = bake_file(&from, file, &changes, &to, &mut |bytes| {
            done += bytes;
            progress(done, total);
        })?;
        record.files.insert(file.name.clone(), baked);
        write_json(&out.join(UNFINISHED_FILE), &record)?;
    }
    let baked = record.summary(resumed, total);
    write_rest(&source, adapter, out, &record, &baked)?;
    Ok(baked)
}

/// The files beside the weights and the manifest; with it the folder is finished.
fn write_rest(source: &ModelFolder, adapter: Input, out: &Path, record: &Record, baked: &Baked) -> Result<(), Error> {
    let mut manifest = Manifest::new(KIND, &serde_json::json!({ "sum": "W + s B A" }));
    manifest.inputs.insert("adapter".to_owned(), adapter);
    let mut input = |name: &str, sha256: String| {
        let path = source.path.join(name);
        manifest.inputs.insert(format!("model/{name}"), Input { path, sha256 });
    };
    for (name, file) in &record.files {
        input(name, file.input.clone());
    }
    for name in &source.others {
        let from = source.path.join(name);
        let mut file = std::fs::File::open(&from).map_err(sst_artefact::Error::io("read", &from))?;
        write_atomic(&out.join(name), |w| std::io::copy(&mut file, w).map(drop))?;
        input(name, sha256_file(&from)?);
    }
    let unfinished = out.join(UNFINISHED_FILE);
    // How much of it was there already is no property of the result.
    let baked = Baked {
        resumed: 0,
        ..baked.clone()
    };
    manifest.facts = serde_json::json!({ "record": record, "baked": baked });
    manifest.write(out)?;
    if unfinished.exists() {
        std::fs::remove_file(&unfinished).map_err(sst_artefact::Error::io("remove", &unfinished))?;
    }
    Ok(())
}

impl Record {
    /// The record in `out` and whether all of it was done; an empty one for a folder without weights.
    fn read(out: &Path, adapter: &str) -> Result<(Self, bool), Error> {
        let (unfinished, manifest) = (out.join(UNFINISHED_FILE), out.join(MANIFEST_FILE));
        let (record, finished) = if unfinished.exists() {
            (read_json(&unfinished, "record of an unfinished model")?, false)
        } else if manifest.exists() {
            let manifest = Manifest::read(out)?;
            let record = serde_json::from_value(manifest.facts["record"].clone());
            match record {
                Ok(record) if manifest.kind == KIND => (record, true),
                _ => return Err(taken(out, format!("holds an artefact of kind `{}`", manifest.kind))),
            }
        } else if out.join("config.json").exists() {
            return Err(taken(out, "holds a model that was not made here".to_owned()));
        } else {
            let adapter = adapter.to_owned();
            (
                Self {
                    adapter,
                    files: BTreeMap::new(),
                },
                false,
            )
        };
        if record.adapter != adapter {
            return Err(taken(
                out,
                format!("holds weights with another adapter, SHA-256 {}", record.adapter),
            ));
        }
        Ok((record, finished))
    }

    fn summary(&self, resumed: usize, bytes: u64) -> Baked {
        let sum = |value: fn(&BakedFile) -> f64| self.files.values().map(value).sum::<f64>();
        let (norm, lost) = (sum(|f| f.delta).sqrt(), sum(|f| f.lost).sqrt());
        Baked {
            weight_files: self.files.len(),
            resumed,
            bytes,
            changed: self.files.values().map(|f| f.changed).sum(),
            norm,
            rounding: (norm > 0.0).then(|| lost / norm),
        }
    }
}

fn taken(out: &Path, reason: String) -> Error {
    let path = out.to_path_buf();
    BakeError::Taken { path, reason }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use ndarray::Array2;
    use safetensors::tensor::TensorView;
    use safetensors::{Dtype, SafeTensors};
    use sst_adapter::{Dtype as AdapterDtype, LoraConfig, ModulePath};
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    type Tensor = (&'static str, Dtype, [usize; 2]);

    const Q: Tensor = ("model.layers.0.self_attn.q_proj.weight", Dtype::BF16, [6, 5]);
    const K: Tensor = ("model.layers.0.self_attn.k_proj.weight", Dtype::F16, [3, 5]);
    /// Two blocks and a part of a third.
    const UP: Tensor = ("model.layers.1.mlp.up_proj.weight", Dtype::F32, [700, 900]);
    const EMBED: Tensor = ("model.embed_tokens.weight", Dtype::BF16, [9, 5]);
    /// Nothing can be added to it, and nothing is.
    const MASK: Tensor = ("model.mask", Dtype::BOOL, [3, 7]);

    fn value(i: usize) -> f32 {
        ((i * 29 + 3) % 89) as f32 / 16.0 - 2.75
    }

    fn bytes((_, dtype, [rows, cols]): Tensor) -> Vec<u8> {
        let values = (0..rows * cols).map(value);
        match dtype {
            Dtype::F32 => values.flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::BF16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
            Dtype::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
            _ => values.map(|x| u8::from(x > 0.0)).collect(),
        }
    }

    fn write_weights(path: &Path, tensors: &[Tensor]) {
        let data: Vec<Vec<u8>> = tensors.iter().map(|tensor| bytes(*tensor)).collect();
        let views = tensors
            .iter()
            .zip(&data)
            .map(|((name, dtype, shape), data)| (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap()));
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        std::fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
    }

    /// A model, an adapter for it, and room for the output.
    struct Case {
        dir: tempfile::TempDir,
    }

    impl Case {
        /// Weights in two files, other files beside them.
        fn new() -> Self {
            let case = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            create_dir(&case.model()).unwrap();
            case.write("config.json", r#"{"tie_word_embeddings": true}"#);
            case.write("tokenizer.json", "{}");
            case.write("LICENSE", "free");
            for name in [
                "README.md",
                "pytorch_model.bin",
                "pytorch_model.bin.index.json",
                ".hidden",
            ] {
                case.write(name, "of the old model");
            }
            case.shard(&[("a.safetensors", &[Q, UP]), ("b.safetensors", &[K, EMBED, MASK])]);
            case.adapter(&[
                "model.layers.0.self_attn.q_proj",
                "model.layers.0.self_attn.k_proj",
                "model.layers.1.mlp.up_proj",
            ]);
            case
        }

        fn model(&self) -> PathBuf {
            self.dir.path().join("model")
        }

        fn out(&self) -> PathBuf {
            self.dir.path().join("out")
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.model().join(name), text).unwrap();
        }

        fn shard(&self, files: &[(&str, &[Tensor])]) {
            let mut map = serde_json::Map::new();
            for (name, tensors) in files {
                write_weights(&self.model().join(name), tensors);
                map.extend(
                    tensors
                        .iter()
                        .map(|(tensor, ..)| ((*tensor).to_owned(), (*name).into())),
                );
            }
            self.write(
                "model.safetensors.index.json",
                &serde_json::json!({ "weight_map": map }).to_string(),
            );
        }

        /// Writes an adapter of rank 2 and scale 1.5 on the modules; shapes are those of the model's tensors.
        fn adapter(&self, modules: &[&str]) {
            let pairs = modules.iter().map(|module| {
                let [d_out, d_in] = [Q, K, UP, EMBED]
                    .iter()
                    .find(|(name, ..)| name.strip_suffix(".weight") == Some(module))
                    .map_or([2, 2], |(_, _, shape)| *shape);
                let a = Array2::from_shape_fn((2, d_in), |(i, j)| value(5 + i * d_in + j) / 4.0);
                let b = Array2::from_shape_fn((d_out, 2), |(i, j)| value(11 + i * 2 + j) / 4.0);
                (ModulePath::new(*module), a, b)
            });
            let adapter = Adapter::from_pairs(LoraConfig::new(2, 3.0, modules.iter().copied()), pairs).unwrap();
            adapter
                .save(&self.dir.path().join("adapter"), AdapterDtype::F32)
                .unwrap();
        }

        fn bake(&self) -> Result<Baked, Error> {
            self.bake_to(&self.out())
        }

        fn bake_to(&self, out: &Path) -> Result<Baked, Error> {
            bake(&self.model(), &self.dir.path().join("adapter"), out, &mut |_, _| ())
        }

        fn message(&self) -> String {
            let message = self.bake().unwrap_err().to_string();
            assert!(!message.contains('\n'), "{message}");
            message
        }
    }

    fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                (
                    path.file_name().unwrap().to_str().unwrap().to_owned(),
                    std::fs::read(path).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn changed_tensors_hold_the_sum_and_every_other_byte_stays() {
        let case = Case::new();
        let mut seen = Vec::new();
        let baked = bake(
            &case.model(),
            &case.dir.path().join("adapter"),
            &case.out(),
            &mut |done, total| {
                seen.push((done, total));
            },
        )
        .unwrap();
        let (before, after) = (files(&case.model()), files(&case.out()));
        let names: BTreeSet<&str> = after.keys().map(String::as_str).collect();
        let expected = [
            "LICENSE",
            "a.safetensors",
            "b.safetensors",
            "config.json",
            MANIFEST_FILE,
            "model.safetensors.index.json",
            "tokenizer.json",
        ];
        assert_eq!(names, BTreeSet::from(expected));

        let adapter = Adapter::load(&case.dir.path().join("adapter")).unwrap();
        let mut norm = 0.0;
        for file in ["a.safetensors", "b.safetensors"] {
            let (before, after) = (&before[file], &after[file]);
            let (header, _) = SafeTensors::read_metadata(before).unwrap();
            assert_eq!(before[..header + 8], after[..header + 8]);
            let after = SafeTensors::deserialize(after).unwrap();
            for (name, old) in SafeTensors::deserialize(before).unwrap().iter() {
                let new = after.tensor(name).unwrap();
                let Some(module) = adapter.modules.get(&ModulePath::new(name.trim_end_matches(".weight"))) else {
                    assert_eq!(old.data(), new.data(), "{name}");
                    continue;
                };
                let delta = module.delta();
                norm += delta.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>();
                let unit = match old.dtype() {
                    Dtype::F32 => 2f64.powi(-24),
                    Dtype::BF16 => 2f64.powi(-8),
                    _ => 2f64.powi(-11),
                };
                let size = old.data().len() / delta.len();
                for (i, (y, d)) in new.data().chunks(size).zip(&delta).enumerate() {
                    let y = match old.dtype() {
                        Dtype::F32 => f32::from_le_bytes(y.try_into().unwrap()),
                        Dtype::BF16 => bf16::from_le_bytes(y.try_into().unwrap()).to_f32(),
                        _ => f16::from_le_bytes(y.try_into().unwrap()).to_f32(),
                    };
                    // All entries are multiples of 2^-13 below 8: f32 holds every sum exactly.
                    let x = f64::from(value(i)) + f64::from(*d);
                    assert!((f64::from(y) - x).abs() <= unit * x.abs(), "{name} {i}: {y} for {x}");
                }
            }
        }
        let total = (before["a.safetensors"].len() + before["b.safetensors"].len()) as u64;
        assert_eq!(
            (baked.bytes, baked.weight_files, baked.changed, baked.resumed),
            (total, 2, 3, 0)
        );
        assert!((baked.norm - norm.sqrt()).abs() <= 1e-6 * norm.sqrt(), "{baked:?}");
        assert!(
            baked.rounding.is_some_and(|rounding| rounding > 0.0 && rounding < 1e-3),
            "{baked:?}"
        );
        assert_eq!(seen.last(), Some(&(total, total)));
        assert!(seen.len() > 4 && seen.is_sorted());

        let manifest = Manifest::read(&case.out()).unwrap();
        for (name, bytes) in &before {
            let input = manifest.inputs.get(&format!("model/{name}"));
            let read = after.contains_key(name).then(|| sst_artefact::sha256_bytes(bytes));
            assert_eq!(input.map(|input| &input.sha256), read.as_ref(), "{name}");
        }
    }

    #[test]
    fn one_file_or_several_and_a_second_time_give_the_same_weights() {
        let case = Case::new();
        case.bake().unwrap();
        let several = files(&case.out());
        let again = case.bake().unwrap();
        assert_eq!((again.resumed, again.changed), (2, 3));
        assert_eq!(files(&case.out()), several);
        write_weights(&case.model().join("model.safetensors"), &[Q, K, UP, EMBED, MASK]);
        let out = case.dir.path().join("single");
        assert_eq!(case.bake_to(&out).unwrap().weight_files, 1);
        let single = std::fs::read(out.join("model.safetensors")).unwrap();
        let single = SafeTensors::deserialize(&single).unwrap();
        for file in ["a.safetensors", "b.safetensors"] {
            for (name, tensor) in SafeTensors::deserialize(&several[file]).unwrap().iter() {
                assert_eq!(single.tensor(name).unwrap().data(), tensor.data(), "{name}");
            }
        }
    }

    #[test]
    fn what_was_stopped_goes_on_after_the_last_whole_file() {
        let case = Case::new();
        case.bake().unwrap();
        let whole = files(&case.out());
        std::fs::remove_dir_all(case.out()).unwrap();
        // As if killed while the second file was being written.
        let stopped = std::panic::catch_unwind(|| {
            let limit = std::fs::metadata(case.model().join("a.safetensors")).unwrap().len();
            let stop = &mut |done, _| assert!(done <= limit, "stop");
            bake(&case.model(), &case.dir.path().join("adapter"), &case.out(), stop).map(drop)
        });
        assert!(stopped.is_err());
        std::fs::write(case.out().join(".writing-x"), "half").unwrap();
        assert!(case.out().join(UNFINISHED_FILE).exists() && !case.out().join(MANIFEST_FILE).exists());
        assert_eq!(case.bake().unwrap().resumed, 1);
        assert_eq!(files(&case.out()), whole);
    }

    #[test]
    fn a_folder_that_holds_something_else_is_left_alone() {
        let case = Case::new();
        case.bake().unwrap();
        let whole = files(&case.out());
        case.adapter(&["model.layers.0.self_attn.q_proj"]);
        assert!(case.message().contains("with another adapter"));
        let case = Case { dir: case.dir };
        case.adapter(&[
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.self_attn.k_proj",
            "model.layers.1.mlp.up_proj",
        ]);
        case.shard(&[("b.safetensors", &[K]), ("a.safetensors", &[Q, UP])]);
        assert!(case.message().contains("b.safetensors was made from another file"));
        case.shard(&[("a.safetensors", &[Q, UP, K])]);
        assert!(
            case.message()
                .contains("holds b.safetensors, which the model does not have")
        );
        assert_eq!(files(&case.out()), whole);
        case.shard(&[("a.safetensors", &[Q, UP]), ("b.safetensors", &[K, EMBED, MASK])]);
        std::fs::write(case.out().join("a.safetensors"), "edited").unwrap();
        assert!(case.message().contains("a.safetensors is not what the manifest says"));
        let before = files(&case.model());
        let message = case.bake_to(&case.model()).unwrap_err().to_string();
        assert!(message.contains("not made here"), "{message}");
        assert_eq!(files(&case.model()), before);
        Manifest::new("fisher", &()).write(&case.out()).unwrap();
        assert!(case.message().contains("kind `fisher`"));
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_by_name() {
        let case = Case::new();
        let refused = |words: &[&str]| {
            let message = case.message();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
            assert!(!case.out().exists());
        };
        case.write("config.json", r#"{"quantization_config": {"bits": 4}}"#);
        refused(&["config.json", "quantised"]);
        case.write("config.json", "{}");
        for name in ["../b.safetensors", "x/b.safetensors", ".."] {
            case.write(
                "model.safetensors.index.json",
                &format!(r#"{{"weight_map": {{"x": "{name}"}}}}"#),
            );
            refused(&["index.json", name, "not a file name"]);
        }
        case.shard(&[("a.safetensors", &[Q, UP]), ("b.safetensors", &[K, Q])]);
        refused(&["b.safetensors", Q.0, "in a.safetensors as well"]);
        case.shard(&[("a.safetensors", &[Q, UP])]);
        refused(&[
            "module model.layers.0.self_attn.k_proj",
            "no tensor model.layers.0.self_attn.k_proj.weight",
        ]);
        case.shard(&[("a.safetensors", &[Q, UP, (K.0, Dtype::F16, [3, 4])])]);
        refused(&["module model.layers.0.self_attn.k_proj", "[3, 5]", "[3, 4]"]);
        case.shard(&[("a.safetensors", &[Q, UP, (K.0, Dtype::U8, [3, 5])])]);
        refused(&[K.0, "U8", "BF16"]);
        let whole = std::fs::read(case.model().join("a.safetensors")).unwrap();
        for length in [0, 7, 8, 100, whole.len() - 1] {
            std::fs::write(case.model().join("a.safetensors"), &whole[..length]).unwrap();
            refused(&["a.safetensors", "not a whole safetensors file"]);
        }
        std::fs::remove_file(case.model().join("a.safetensors")).unwrap();
        refused(&["cannot read", "a.safetensors"]);
        std::fs::remove_file(case.model().join("model.safetensors.index.json")).unwrap();
        refused(&["neither model.safetensors nor"]);
        write_weights(&case.model().join("model.safetensors"), &[Q, K, UP, EMBED, MASK]);
        case.adapter(&["model.embed_tokens"]);
        assert!(case.bake().is_ok());
        std::fs::remove_dir_all(case.out()).unwrap();
        case.write("config.json", r#"{"tie_word_embeddings": true}"#);
        refused(&["module model.embed_tokens", "tied"]);
    }

    #[test]
    fn a_sum_that_the_type_cannot_hold_is_refused_and_leaves_no_file() {
        let case = Case::new();
        let mut adapter = Adapter::load(&case.dir.path().join("adapter")).unwrap();
        let path = ModulePath::new("model.layers.0.self_attn.k_proj");
        adapter.modules.get_mut(&path).unwrap().b.mapv_inplace(|x| 1e6 * x);
        adapter
            .save(&case.dir.path().join("adapter"), AdapterDtype::F32)
            .unwrap();
        let message = case.message();
        assert!(message.contains(K.0) && message.contains("F16"), "{message}");
        let names: Vec<String> = files(&case.out()).into_keys().collect();
        assert_eq!(names, [UNFINISHED_FILE, "a.safetensors"]);
    }
}
