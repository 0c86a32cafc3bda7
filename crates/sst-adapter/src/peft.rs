//! PEFT folders: `adapter_config.json` beside `adapter_model.safetensors`.
//!
//! Tensors are named `base_model.model.<module>.lora_A.weight` `[r, d_in]` and `.lora_B.weight` `[d_out, r]`;
//! `.lora_A.default.weight`, which some tools write, reads as the same.

use crate::{Adapter, Dtype, Error, LoraConfig, ModulePath};
use half::{bf16, f16};
use memmap2::Mmap;
use ndarray::Array2;
use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype as StoredDtype, SafeTensors};
use sst_artefact::{read_json, retire, sha256_bytes, write_atomic, write_json};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Name of the configuration inside a PEFT folder.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// Name of the weights inside a PEFT folder.
pub const ADAPTER_WEIGHTS_FILE: &str = "adapter_model.safetensors";

const PREFIX: &str = "base_model.model.";

impl Adapter {
    /// Reads a PEFT folder. f32, bf16 and f16 tensors may be mixed; all become f32.
    ///
    /// # Errors
    /// One line that names the file and the key or tensor: a missing, cut or corrupt file, a configuration that we
    /// cannot honour, an unknown or missing tensor, a shape that contradicts the rank, a NaN or an infinity.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let config_path = folder.join(ADAPTER_CONFIG_FILE);
        let config = LoraConfig::from_json(&read_json(&config_path, "adapter configuration")?)
            .map_err(Error::in_file(&config_path))?;
        let path = folder.join(ADAPTER_WEIGHTS_FILE);
        let file = File::open(&path).map_err(sst_artefact::Error::io("read", &path))?;
        #[allow(unsafe_code)]
        // SAFETY: the map lives no longer than this call, and writers replace the file as a whole.
        let bytes = unsafe { Mmap::map(&file) }.map_err(sst_artefact::Error::io("read", &path))?;
        let pairs = read_pairs(&bytes).map_err(Error::in_file(&path))?;
        Adapter::from_pairs(config, pairs).map_err(Error::in_file(&path))
    }

    /// Writes a PEFT folder that Python's PEFT loads; the same adapter gives the same bytes. Gives the SHA-256 of the
    /// weights' file.
    ///
    /// Each file is whole or absent; the configuration comes last, so a folder that has one is complete. Those of an
    /// earlier adapter go first, and so does its manifest: it was not of these weights.
    ///
    /// # Errors
    /// As [`Adapter::check`]; [`Error::Overflow`] when an entry does not fit `dtype`; a file that cannot be written.
    pub fn save(&self, folder: &Path, dtype: Dtype) -> Result<String, Error> {
        self.check()?;
        let config = self.config.to_json()?;
        let sides: Vec<(&ModulePath, &str, &Array2<f32>)> = self
            .modules
            .iter()
            .flat_map(|(path, module)| [(path, "lora_A", &module.a), (path, "lora_B", &module.b)])
            .collect();
        let tensors: Vec<Result<_, Error>> = sides
            .into_par_iter()
            .map(|(path, side, tensor)| {
                let name = format!("{PREFIX}{path}.{side}.weight");
                let bytes = encode(&name, tensor, dtype)?;
                Ok((name, tensor.shape().to_vec(), bytes))
            })
            .collect();
        // Of several tensors that do not fit, the first is named.
        let tensors = tensors.into_iter().collect::<Result<Vec<_>, Error>>()?;
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| Ok((name, TensorView::new(stored(dtype), shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let file = safetensors::serialize(views, Some(metadata))?;
        let (written, hash) = rayon::join(
            || {
                write_atomic(&folder.join(ADAPTER_WEIGHTS_FILE), |w| {
                    w.write_all(&file)?;
                    w.flush()?;
                    // Not before all is on the disk: where that is full, the earlier adapter stays.
                    retire(folder, &[ADAPTER_CONFIG_FILE]).map_err(io::Error::other)
                })
            },
            || sha256_bytes(&file),
        );
        written?;
        write_json(&folder.join(ADAPTER_CONFIG_FILE), &config)?;
        Ok(hash)
    }
}

/// (module, A `[r, d_in]`, B `[d_out, r]`).
pub(crate) type Pair = (ModulePath, Array2<f32>, Array2<f32>);

fn read_pairs(bytes: &[u8]) -> Result<Vec<Pair>, Error> {
    let file = SafeTensors::deserialize(bytes)?;
    let views: Vec<(&str, TensorView<'_>)> = file.iter().collect();
    let tensors: Vec<(&str, Result<Array2<f32>, Error>)> = views
        .into_par_iter()
        .map(|(name, view)| (name, decode(name, &view)))
        .collect();
    pair_up(tensors, |_, tensor| tensor)
}

/// The A and B of every module, from tensors by their names in PEFT's files.
pub(crate) fn pair_up<N: AsRef<str>, T>(
    tensors: impl IntoIterator<Item = (N, T)>,
    mut decode: impl FnMut(&str, T) -> Result<Array2<f32>, Error>,
) -> Result<Vec<Pair>, Error> {
    let mut sides: BTreeMap<ModulePath, [Option<Array2<f32>>; 2]> = BTreeMap::new();
    for (name, tensor) in tensors {
        let name = name.as_ref();
        let (module, side) = parse_name(name).ok_or_else(|| Error::UnknownTensor {
            tensor: name.to_owned(),
        })?;
        let place = &mut sides.entry(module).or_default()[side];
        if place.replace(decode(name, tensor)?).is_some() {
            return Err(Error::DuplicateTensor {
                tensor: name.to_owned(),
            });
        }
    }
    sides
        .into_iter()
        .map(|(module, sides)| {
            let missing = |side| Error::MissingTensor {
                tensor: format!("{PREFIX}{module}.{side}.weight"),
            };
            match sides {
                [Some(a), Some(b)] => Ok((module, a, b)),
                [None, _] => Err(missing("lora_A")),
                [_, None] => Err(missing("lora_B")),
            }
        })
        .collect()
}

/// The module and 0 for A or 1 for B.
fn parse_name(name: &str) -> Option<(ModulePath, usize)> {
    let name = name.strip_prefix(PREFIX)?.strip_suffix(".weight")?;
    let name = name.strip_suffix(".default").unwrap_or(name);
    let (module, side) = name.rsplit_once('.')?;
    match side {
        "lora_A" => Some((ModulePath::new(module), 0)),
        "lora_B" => Some((ModulePath::new(module), 1)),
        _ => None,
    }
}

fn decode(name: &str, view: &TensorView<'_>) -> Result<Array2<f32>, Error> {
    let [rows, cols] = *view.shape() else {
        return Err(Error::NotMatrix {
            tensor: name.to_owned(),
            shape: view.shape().to_vec(),
        });
    };
    let data = view.data();
    let halves = || data.as_chunks::<2>().0.iter();
    let entries: Vec<f32> = match view.dtype() {
        StoredDtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        StoredDtype::BF16 => halves().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        StoredDtype::F16 => halves().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        other => {
            return Err(Error::TensorType {
                tensor: name.to_owned(),
                dtype: format!("{other:?}"),
            });
        }
    };
    // The file's reader checked the number of bytes, but no bytes are enough for a shape such as [0, 2^63].
    Array2::from_shape_vec((rows, cols), entries).map_err(|_| Error::TooLarge {
        tensor: name.to_owned(),
        shape: [rows, cols],
    })
}

fn encode<'a>(name: &str, tensor: &'a Array2<f32>, dtype: Dtype) -> Result<Cow<'a, [u8]>, Error> {
    let overflow = |value: f32| Error::Overflow {
        tensor: name.to_owned(),
        value,
        dtype,
    };
    if let (Dtype::F32, Some(entries), true) = (dtype, tensor.as_slice(), cfg!(target_endian = "little")) {
        return Ok(Cow::Borrowed(bytemuck::cast_slice(entries)));
    }
    let half = |round: fn(f32) -> (bool, [u8; 2])| {
        let halves = tensor.iter().map(|&x| match round(x) {
            (true, bytes) => Ok(bytes),
            (false, _) => Err(overflow(x)),
        });
        halves
            .collect::<Result<Vec<_>, Error>>()
            .map(|halves| Cow::Owned(halves.into_flattened()))
    };
    match dtype {
        Dtype::F32 => Ok(tensor.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Dtype::Bf16 => half(|x| {
            let y = bf16::from_f32(x);
            (y.is_finite(), y.to_le_bytes())
        }),
        Dtype::F16 => half(|x| {
            let y = f16::from_f32(x);
            (y.is_finite(), y.to_le_bytes())
        }),
    }
}

fn stored(dtype: Dtype) -> StoredDtype {
    match dtype {
        Dtype::F32 => StoredDtype::F32,
        Dtype::Bf16 => StoredDtype::BF16,
        Dtype::F16 => StoredDtype::F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ramp(rows: usize, cols: usize, start: f32) -> Array2<f32> {
        Array2::from_shape_fn((rows, cols), |(i, j)| start + 0.37 * (i * cols + j) as f32)
    }

    fn adapter() -> Adapter {
        let mut config = LoraConfig::new(2, 3.0, ["q_proj", "up_proj"]);
        config.rank_pattern.insert("up_proj".into(), 3);
        config.alpha_pattern.insert("up_proj".into(), 7.5);
        config.base_model_name_or_path = Some("some/base".into());
        let pairs = [
            (
                "model.layers.0.self_attn.q_proj".into(),
                ramp(2, 4, -1.0),
                ramp(5, 2, 0.5),
            ),
            ("model.layers.1.mlp.up_proj".into(), ramp(3, 4, 0.1), ramp(6, 3, -0.2)),
        ];
        Adapter::from_pairs(config, pairs).unwrap()
    }

    /// Writes the fixed configuration beside tensors given as (name, type, shape, bytes).
    fn folder(tensors: &[(&str, StoredDtype, Vec<usize>, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let views = tensors
            .iter()
            .map(|(n, t, s, b)| (*n, TensorView::new(*t, s.clone(), b).unwrap()));
        let file = safetensors::serialize(views, None).unwrap();
        std::fs::write(dir.path().join(ADAPTER_WEIGHTS_FILE), file).unwrap();
        let config = json!({"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["q_proj"]});
        std::fs::write(dir.path().join(ADAPTER_CONFIG_FILE), config.to_string()).unwrap();
        dir
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn f32_tensor<'a>(name: &'a str, shape: [usize; 2], values: &[f32]) -> (&'a str, StoredDtype, Vec<usize>, Vec<u8>) {
        (name, StoredDtype::F32, shape.to_vec(), f32s(values))
    }

    const A: &str = "base_model.model.layers.0.q_proj.lora_A.weight";
    const B: &str = "base_model.model.layers.0.q_proj.lora_B.weight";

    #[test]
    fn survives_the_disk_with_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let adapter = adapter();
        adapter.save(one.path(), Dtype::F32).unwrap();
        let loaded = Adapter::load(one.path()).unwrap();
        assert_eq!(loaded.modules, adapter.modules);
        assert_eq!(
            loaded.modules[&ModulePath::new("model.layers.1.mlp.up_proj")].scale(),
            2.5
        );
        loaded.save(two.path(), Dtype::F32).unwrap();
        for file in [ADAPTER_WEIGHTS_FILE, ADAPTER_CONFIG_FILE] {
            let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(file)).unwrap();
            assert_eq!(read(&one), read(&two), "{file}");
        }
    }

    #[test]
    fn halves_are_rounded_to_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let adapter = adapter();
        for (dtype, relative) in [(Dtype::Bf16, 2f32.powi(-8)), (Dtype::F16, 2f32.powi(-11))] {
            adapter.save(dir.path(), dtype).unwrap();
            let loaded = Adapter::load(dir.path()).unwrap();
            for (x, y) in adapter.to_flat().iter().zip(loaded.to_flat()) {
                assert!((x - y).abs() <= relative * x.abs() + 1e-7, "{dtype}: {x} became {y}");
            }
            assert_ne!(adapter.to_flat(), loaded.to_flat());
        }
    }

    #[test]
    fn types_may_be_mixed_and_the_default_name_reads() {
        let name = "base_model.model.layers.0.q_proj.lora_A.default.weight";
        let a: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect();
        let b: Vec<u8> = [0.25f32, 3.0, 4.0]
            .iter()
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect();
        let dir = folder(&[
            (name, StoredDtype::BF16, vec![1, 2], a),
            (B, StoredDtype::F16, vec![3, 1], b),
        ]);
        assert_eq!(
            Adapter::load(dir.path()).unwrap().to_flat(),
            [1.5, -2.0, 0.25, 3.0, 4.0]
        );
    }

    #[test]
    fn what_is_wrong_with_a_tensor_is_said_with_file_and_name() {
        let good_b = f32_tensor(B, [2, 1], &[1.0, 2.0]);
        let cases = [
            (
                vec![f32_tensor(A, [1, 2], &[1.0, f32::INFINITY]), good_b.clone()],
                "layers.0.q_proj.lora_A holds inf at flat index 1",
            ),
            (
                vec![f32_tensor(A, [1, 2], &[f32::NAN, 0.0]), good_b.clone()],
                "layers.0.q_proj.lora_A holds NaN at flat index 0",
            ),
            (
                vec![f32_tensor(A, [2, 1], &[1.0, 2.0]), good_b.clone()],
                "has shape [2, 1], expected [1, 1]",
            ),
            (vec![good_b.clone()], "lora_A.weight is missing"),
            (
                vec![(A, StoredDtype::I32, vec![1, 2], vec![0; 8]), good_b.clone()],
                "has type I32",
            ),
            (
                vec![(A, StoredDtype::F32, vec![2], f32s(&[1.0, 2.0])), good_b.clone()],
                "two dimensions",
            ),
            (
                vec![
                    f32_tensor(A, [1, 1], &[1.0]),
                    good_b.clone(),
                    f32_tensor("base_model.model.lm_head.weight", [1, 1], &[1.0]),
                ],
                "unknown tensor base_model.model.lm_head.weight",
            ),
            (
                vec![f32_tensor(A, [0, 1 << 63], &[]), good_b.clone()],
                "lora_A.weight of shape [0, 9223372036854775808]",
            ),
            (
                vec![
                    f32_tensor(A, [1, 1], &[1.0]),
                    good_b,
                    f32_tensor("base_model.model.layers.0.q_proj.lora_A.default.weight", [1, 1], &[1.0]),
                ],
                "appears twice",
            ),
        ];
        for (tensors, expected) in cases {
            let dir = folder(&tensors);
            let message = Adapter::load(dir.path()).unwrap_err().to_string();
            assert!(
                message.contains(expected) && message.contains(ADAPTER_WEIGHTS_FILE),
                "{message}"
            );
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn missing_cut_and_corrupt_files_are_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let message = |dir: &Path| Adapter::load(dir).unwrap_err().to_string();
        assert!(message(dir.path()).contains(ADAPTER_CONFIG_FILE));
        adapter().save(dir.path(), Dtype::F32).unwrap();
        let path = dir.path().join(ADAPTER_WEIGHTS_FILE);
        let whole = std::fs::read(&path).unwrap();
        for broken in [
            &whole[..whole.len() - 1],
            &whole[..40],
            &whole[..3],
            &[0xff; 64][..],
            &[][..],
        ] {
            std::fs::write(&path, broken).unwrap();
            let message = message(dir.path());
            assert!(
                message.contains(ADAPTER_WEIGHTS_FILE) && !message.contains('\n'),
                "{message}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        assert!(message(dir.path()).contains(ADAPTER_WEIGHTS_FILE));
    }

    #[test]
    fn new_weights_never_lie_beside_an_old_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let adapter = adapter();
        adapter.save(dir.path(), Dtype::F32).unwrap();
        sst_artefact::Manifest::new("adapter", &()).write(dir.path()).unwrap();
        // What cannot be written takes nothing away.
        let mut large = adapter.clone();
        large.modules.values_mut().next().unwrap().a[[0, 0]] = 1e5;
        large.save(dir.path(), Dtype::F16).unwrap_err();
        assert_eq!(Adapter::load(dir.path()).unwrap().modules, adapter.modules);
        // The weights cannot take their place, as if their writer had been killed.
        let weights = dir.path().join(ADAPTER_WEIGHTS_FILE);
        std::fs::remove_file(&weights).unwrap();
        std::fs::create_dir(&weights).unwrap();
        adapter.save(dir.path(), Dtype::F32).unwrap_err();
        for file in [ADAPTER_CONFIG_FILE, sst_artefact::MANIFEST_FILE] {
            assert!(!dir.path().join(file).exists(), "{file}");
        }
    }

    #[test]
    fn an_entry_too_large_for_f16_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut adapter = adapter();
        adapter.modules.values_mut().next().unwrap().a[[0, 0]] = 1e5;
        let message = adapter.save(dir.path(), Dtype::F16).unwrap_err().to_string();
        assert!(
            message.contains("q_proj.lora_A.weight holds 100000, too large for f16"),
            "{message}"
        );
        assert!(adapter.save(dir.path(), Dtype::Bf16).is_ok());
    }
}
