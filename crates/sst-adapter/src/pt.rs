//! Adapters that `torch.save` wrote as a dictionary of tensors (`.pt`), read without executing the pickle inside.
//!
//! Such a file is a zip archive of uncompressed entries: `<name>/data.pkl`, which says how each tensor views its storage,
//! and `<name>/data/<key>` with the numbers of each storage. Tensors bear PEFT's names, `base_model.model.<module>.lora_A`
//! `.default.weight` and so on. It holds no configuration, so alpha comes from the caller; ranks are the tensors'.

mod pickle;

use crate::config::common_rank;
use crate::peft::{Pair, pair_up};
use crate::{Adapter, Dtype, Error, LoraConfig, ModulePath};
use ndarray::Array2;
use pickle::{Element, SavedTensor};
use serde::Serialize;
use sst_artefact::Manifest;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::rc::Rc;
use zip::ZipArchive;

/// Numbers that may be made of each byte of a file, in storages and tensors together: tensors that lie apart make one, of
/// f16. The rest is room for tensors that share numbers, but not for a small file of so many that they fill the memory.
const NUMBERS_PER_BYTE: u64 = 4;
/// Numbers that may be made of any file: 1 GiB of f32.
const NUMBERS: u64 = 1 << 28;

/// What the file of an adapter does not say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PtImport {
    /// alpha of every module.
    pub alpha: f64,
    /// Whether the scale is alpha / sqrt(r) instead of alpha / r.
    pub rslora: bool,
    /// The base model that the adapter was trained on.
    pub base_model: Option<String>,
}

impl Adapter {
    /// Reads an adapter that `torch.save` wrote: a dictionary of tensors, or a dictionary with that as its only entry.
    ///
    /// f64, f32, f16 and bf16 tensors of any strides may be mixed; all become f32.
    ///
    /// # Errors
    /// One line that names the file and what is wrong in it: no zip archive, a pickle that is cut or asks for anything but
    /// tensors, a tensor that leaves its storage, and whatever [`Adapter::load`] refuses in a tensor.
    pub fn import_pt(path: &Path, settings: &PtImport) -> Result<Self, Error> {
        let file = File::open(path).map_err(sst_artefact::Error::io("read", path))?;
        read(BufReader::new(file), settings).map_err(Error::in_file(path))
    }
}

impl PtImport {
    /// Reads an adapter that `torch.save` wrote and writes it as a PEFT folder with a manifest.
    ///
    /// # Errors
    /// As [`Adapter::import_pt`] and [`Adapter::save`].
    pub fn convert(&self, file: &Path, folder: &Path, dtype: Dtype) -> Result<Adapter, Error> {
        let adapter = Adapter::import_pt(file, self)?;
        adapter.save(folder, dtype)?;
        let mut manifest = Manifest::new("adapter", self).input("checkpoint", file)?;
        manifest.facts = serde_json::json!({"dtype": dtype, "parameters": adapter.layout().len()});
        manifest.write(folder)?;
        Ok(adapter)
    }
}

fn read(file: impl Read + Seek, settings: &PtImport) -> Result<Adapter, Error> {
    let pairs = read_pairs(file)?;
    Adapter::from_pairs(configuration(&pairs, settings), pairs)
}

/// Ranks as they are, and target modules by name where every layer has all of them.
fn configuration(pairs: &[Pair], settings: &PtImport) -> LoraConfig {
    let r = common_rank(pairs.iter().map(|(_, a, _)| a.nrows()));
    let paths = || pairs.iter().map(|(path, _, _)| path);
    let names: BTreeSet<&str> = paths().map(ModulePath::name).collect();
    let layers: BTreeSet<Option<u64>> = paths().map(ModulePath::layer).collect();
    let targets: Vec<String> = if names.len() * layers.len() == pairs.len() {
        names.into_iter().map(str::to_owned).collect()
    } else {
        paths().map(ModulePath::to_string).collect()
    };
    let odd = pairs.iter().filter(|(_, a, _)| a.nrows() != r);
    LoraConfig {
        use_rslora: settings.rslora,
        rank_pattern: odd.map(|(path, a, _)| (path.to_string(), a.nrows())).collect(),
        base_model_name_or_path: settings.base_model.clone(),
        ..LoraConfig::new(r, settings.alpha, targets)
    }
}

fn read_pairs(mut file: impl Read + Seek) -> Result<Vec<Pair>, Error> {
    let length = file.seek(SeekFrom::End(0));
    let length = length.map_err(|e| torch("the archive", e.to_string()))?;
    let mut archive = ZipArchive::new(file).map_err(|e| torch("the archive", e.to_string()))?;
    let suffix = "/data.pkl";
    let found: Vec<String> = archive
        .file_names()
        .flatten() // a name that cannot be read is not the one we look for
        .filter_map(|name| Some(name.strip_suffix(suffix)?.to_owned()))
        .collect();
    let [prefix] = &found[..] else {
        return Err(torch(
            "the archive",
            format!("holds {} entries */data.pkl, expected one", found.len()),
        ));
    };
    let byte_order = format!("{prefix}/byteorder");
    // Files of older versions do not say; those machines were little-endian.
    if archive.index_for_name(&byte_order).is_some() && entry(&mut archive, &byte_order)? != b"little" {
        return Err(torch(&byte_order, "only little-endian files are supported"));
    }
    let pickle = entry(&mut archive, &format!("{prefix}{suffix}"))?;
    let tensors = pickle::read_tensors(&pickle)?;
    let mut storages = Storages::new(&tensors, length.saturating_mul(NUMBERS_PER_BYTE).max(NUMBERS));
    pair_up(tensors, |name, tensor| {
        let storage = storages.of(&tensor, |storage| {
            entry(&mut archive, &format!("{prefix}/data/{storage}"))
        })?;
        let matrix = matrix(name, &tensor, &storage)?;
        storages.count(matrix.len())?;
        Ok(matrix)
    })
}

/// The numbers of the storages, each read once and kept while a tensor that views it is to come.
struct Storages {
    /// Tensors to come.
    views: BTreeMap<(Rc<str>, Element), usize>,
    open: BTreeMap<(Rc<str>, Element), Rc<Vec<f32>>>,
    /// Numbers that may still be read.
    left: u64,
}

impl Storages {
    /// For tensors of which so many numbers may be read.
    fn new(tensors: &[(Rc<str>, SavedTensor)], left: u64) -> Self {
        let mut views: BTreeMap<(Rc<str>, Element), usize> = BTreeMap::new();
        for (_, tensor) in tensors {
            *views.entry((Rc::clone(&tensor.storage), tensor.element)).or_default() += 1;
        }
        Self {
            views,
            open: BTreeMap::new(),
            left,
        }
    }

    /// What the next tensor views; `read` gives the bytes of the storage of a name.
    fn of(
        &mut self,
        tensor: &SavedTensor,
        read: impl FnOnce(&str) -> Result<Vec<u8>, Error>,
    ) -> Result<Rc<Vec<f32>>, Error> {
        let key = (Rc::clone(&tensor.storage), tensor.element);
        let numbers = match self.open.remove(&key) {
            Some(numbers) => numbers,
            None => {
                let numbers = tensor.element.decode(&read(&tensor.storage)?);
                self.count(numbers.len())?;
                Rc::new(numbers)
            }
        };
        let views = self.views.entry(key.clone()).or_default();
        *views = views.saturating_sub(1);
        if *views > 0 {
            self.open.insert(key, Rc::clone(&numbers));
        }
        Ok(numbers)
    }

    /// Refuses more numbers than the file can hold.
    fn count(&mut self, numbers: usize) -> Result<(), Error> {
        let too_many = "holds tensors of more numbers than a file of its size: save each as a copy, `tensor.clone()`";
        let left = self.left.checked_sub(numbers as u64);
        self.left = left.ok_or_else(|| torch("the archive", too_many))?;
        Ok(())
    }
}

fn entry<R: Read + Seek>(archive: &mut ZipArchive<R>, name: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut file = archive.by_name(name).map_err(|e| torch(name, e.to_string()))?;
    file.read_to_end(&mut bytes).map_err(|e| torch(name, e.to_string()))?;
    Ok(bytes)
}

/// The view that a tensor has of its storage.
fn matrix(name: &str, tensor: &SavedTensor, storage: &[f32]) -> Result<Array2<f32>, Error> {
    let (&[rows, cols], &[down, right]) = (&tensor.shape[..], &tensor.strides[..]) else {
        return Err(Error::NotMatrix {
            tensor: name.to_owned(),
            shape: tensor.shape.clone(),
        });
    };
    // A view may repeat entries by a stride of 0, but a factor that was trained has one entry each.
    let fits = rows.checked_mul(cols).is_some_and(|entries| entries <= storage.len());
    let last = |size: usize, stride: usize| size.saturating_sub(1).checked_mul(stride);
    let end = last(rows, down)
        .zip(last(cols, right))
        .and_then(|(down, right)| tensor.offset.checked_add(down)?.checked_add(right));
    if !fits || (rows * cols > 0 && end.is_none_or(|end| end >= storage.len())) {
        let reason = format!(
            "a view of shape {:?}, strides {:?} and offset {} does not fit its storage of {} entries",
            tensor.shape,
            tensor.strides,
            tensor.offset,
            storage.len()
        );
        return Err(torch(&format!("tensor {name}"), reason));
    }
    let at = |(i, j): (usize, usize)| storage[tensor.offset + i * down + j * right];
    Ok(Array2::from_shape_fn((rows, cols), at))
}

fn torch(entry: &str, reason: impl Into<String>) -> Error {
    Error::Torch {
        entry: entry.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::io::{Cursor, Write};
    use std::path::PathBuf;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    #[derive(Deserialize)]
    struct Expected {
        tensors: BTreeMap<String, Vec<Vec<f64>>>,
    }

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fixtures/adapter")
            .join(name)
    }

    fn study() -> Vec<u8> {
        std::fs::read(fixture("study.pt")).unwrap()
    }

    fn settings() -> PtImport {
        PtImport {
            alpha: 5.0,
            rslora: false,
            base_model: Some("some/base".to_owned()),
        }
    }

    /// Every entry of an archive by name.
    fn entries(file: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = ZipArchive::new(Cursor::new(file)).unwrap();
        let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        let read = |name: String| (name.clone(), entry(&mut archive, &name).unwrap());
        names.into_iter().map(read).collect()
    }

    fn archive(entries: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, bytes) in entries {
            writer.start_file(name, stored).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn message(file: &[u8]) -> String {
        read(Cursor::new(file), &settings()).unwrap_err().to_string()
    }

    #[test]
    fn tensors_of_every_type_stride_and_offset_are_read_to_the_bit() {
        let Expected { tensors } = sst_artefact::read_json(&fixture("expected.json"), "golden file").unwrap();
        let adapter = Adapter::import_pt(&fixture("study.pt"), &settings()).unwrap();
        assert_eq!((tensors.len(), adapter.modules.len()), (8, 4));
        for (name, rows) in tensors {
            let path = name.strip_prefix("base_model.model.").unwrap();
            let (path, side) = path.split_once(".lora_").unwrap();
            let module = &adapter.modules[&ModulePath::new(path)];
            let got = if side.starts_with('A') { &module.a } else { &module.b };
            let want = Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, j)| rows[i][j] as f32);
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn the_configuration_follows_the_tensors() {
        let adapter = Adapter::import_pt(&fixture("study.pt"), &settings()).unwrap();
        let LoraConfig { r, rank_pattern, .. } = &adapter.config;
        let odd = "model.layers.1.self_attn.v_proj".to_owned();
        assert_eq!((*r, rank_pattern.get(&odd), rank_pattern.len()), (2, Some(&3), 1));
        let json = adapter.config.to_json().unwrap();
        assert_eq!(json["target_modules"], serde_json::json!(["q_proj", "v_proj"]));
        assert_eq!(json["base_model_name_or_path"], "some/base");
        assert_eq!(adapter.modules[&odd.into()].scale(), 5.0 / 3.0);
        // Where a layer lacks a module, the name alone would target too much.
        let mut pairs = read_pairs(Cursor::new(study())).unwrap();
        pairs.pop();
        let json = configuration(&pairs, &settings()).to_json().unwrap();
        assert_eq!(json["target_modules"][0], "model.layers.0.self_attn.q_proj");
    }

    #[test]
    fn becomes_a_folder_with_a_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let adapter = settings()
            .convert(&fixture("study.pt"), dir.path(), Dtype::F32)
            .unwrap();
        assert_eq!(Adapter::load(dir.path()).unwrap().modules, adapter.modules);
        let manifest = Manifest::read(dir.path()).unwrap();
        assert_eq!(manifest.config["alpha"], 5.0);
        assert_eq!(manifest.inputs["checkpoint"].sha256.len(), 64);
    }

    #[test]
    fn a_cut_file_is_one_line_wherever_it_is_cut() {
        let whole = study();
        for length in 0..whole.len() {
            let message = message(&whole[..length]);
            assert!(!message.contains('\n'), "{length}: {message}");
        }
        let path = Path::new("no/such/file.pt");
        let message = Adapter::import_pt(path, &settings()).unwrap_err().to_string();
        assert!(message.contains("no/such/file.pt"), "{message}");
    }

    #[test]
    fn a_cut_or_changed_pickle_never_panics() {
        let entries = entries(&study());
        let pickle = &entries["study/data.pkl"];
        for length in 0..pickle.len() {
            assert!(pickle::read_tensors(&pickle[..length]).is_err(), "{length}");
        }
        for at in 0..pickle.len() {
            for bit in 0..8 {
                let mut changed = pickle.clone();
                changed[at] ^= 1 << bit;
                let changed =
                    BTreeMap::from_iter(entries.clone().into_iter().chain([("study/data.pkl".into(), changed)]));
                // Some changes give another adapter; none may take more than the file holds, or panic.
                if let Err(error) = read(Cursor::new(archive(&changed)), &settings()) {
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_is_missing_or_too_short_is_named() {
        let whole = entries(&study());
        let without = |name: &str| {
            let mut entries = whole.clone();
            entries.remove(name).unwrap();
            message(&archive(&entries))
        };
        assert!(without("study/data.pkl").contains("0 entries */data.pkl"));
        assert!(without("study/data/3").contains("study/data/3"));
        let with = |name: &str, bytes: &[u8]| {
            let mut entries = whole.clone();
            entries.insert(name.to_owned(), bytes.to_vec());
            message(&archive(&entries))
        };
        assert!(with("study/byteorder", b"big").contains("little-endian"));
        let message = with("study/data/0", &[0; 36]);
        assert!(
            message.contains("lora_A.default.weight: a view of shape [2, 5]"),
            "{message}"
        );
        assert!(message.contains("storage of 9 entries"), "{message}");
        let nan = f32::NAN.to_le_bytes().repeat(10);
        let message = with("study/data/0", &nan);
        assert!(
            message.contains("layers.0.self_attn.q_proj.lora_A holds NaN"),
            "{message}"
        );
    }

    #[test]
    fn tensors_may_share_a_storage_but_not_fill_the_memory_with_it() {
        let view = |name: usize, entries: usize| {
            let tensor = SavedTensor {
                storage: "0".into(),
                element: Element::F32,
                offset: 0,
                shape: vec![1, entries],
                strides: vec![entries, 1],
            };
            (Rc::<str>::from(name.to_string()), tensor)
        };
        let read_all = |tensors: &[(Rc<str>, SavedTensor)], left: u64| -> Result<usize, Error> {
            let (mut storages, mut reads) = (Storages::new(tensors, left), 0);
            for (name, tensor) in tensors {
                let storage = storages.of(tensor, |_| {
                    reads += 1;
                    Ok(vec![0; 400])
                })?;
                storages.count(matrix(name, tensor, &storage)?.len())?;
            }
            assert!(storages.open.is_empty());
            Ok(reads)
        };
        // One tensor after the other in one storage of a hundred numbers, read once.
        let parts: Vec<_> = (0..50).map(|i| view(i, 2)).collect();
        assert_eq!(read_all(&parts, 2000).unwrap(), 1);
        // All of it over and over.
        let copies: Vec<_> = (0..50).map(|i| view(i, 100)).collect();
        let message = read_all(&copies, 2000).unwrap_err().to_string();
        assert!(message.contains("more numbers than a file of its size"), "{message}");
    }

    #[test]
    fn views_stay_inside_their_storage() {
        let view = |offset, shape: &[usize], strides: &[usize]| SavedTensor {
            storage: "0".into(),
            element: pickle::Element::F32,
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        };
        let storage = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let read = |tensor: SavedTensor| matrix("x", &tensor, &storage);
        assert_eq!(
            read(view(1, &[2, 3], &[1, 2])).unwrap(),
            ndarray::array![[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]
        );
        assert_eq!(read(view(9, &[0, 3], &[3, 1])).unwrap().dim(), (0, 3));
        for tensor in [
            view(2, &[2, 3], &[1, 2]),
            view(usize::MAX, &[2, 3], &[1, 2]),
            view(0, &[2, 3], &[usize::MAX, 2]),
            view(0, &[usize::MAX, 3], &[1, 1]),
            view(0, &[8, 1], &[0, 0]),
        ] {
            let message = read(tensor).unwrap_err().to_string();
            assert!(message.contains("tensor x: a view"), "{message}");
        }
        let message = read(view(0, &[6], &[1])).unwrap_err().to_string();
        assert!(message.contains("x has shape [6]"), "{message}");
    }
}
