//! A whole adapter: its configuration and every module's factors, in model order.

use crate::config::ModuleRules;
use crate::{Error, LoraConfig, LoraModule, ModulePath, ParamLayout};
use ndarray::Array2;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A LoRA adapter in memory. Entries are f32 whatever the file held.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// What `adapter_config.json` says.
    pub config: LoraConfig,
    /// Modules in model order.
    pub modules: BTreeMap<ModulePath, LoraModule>,
}

impl Adapter {
    /// Builds an adapter from (module, A `[r, d_in]`, B `[d_out, r]`); alpha comes from the configuration.
    ///
    /// # Errors
    /// [`Error::NotTargeted`], [`Error::Shape`] or [`Error::NotFinite`] when a pair contradicts the configuration,
    /// [`Error::DuplicateTensor`] when a module is given twice, [`Error::Empty`] when there is none,
    /// [`Error::Config`] when the configuration itself is wrong.
    pub fn from_pairs(
        config: LoraConfig,
        pairs: impl IntoIterator<Item = (ModulePath, Array2<f32>, Array2<f32>)>,
    ) -> Result<Self, Error> {
        let rules = config.rules()?;
        let mut modules = BTreeMap::new();
        for (path, a, b) in pairs {
            let module = LoraModule {
                a,
                b,
                alpha: rules.alpha(&path)?,
                rslora: config.use_rslora,
            };
            if modules.insert(path.clone(), module).is_some() {
                return Err(Error::DuplicateTensor {
                    tensor: format!("{path}.lora_A"),
                });
            }
        }
        let adapter = Self { config, modules };
        adapter.check_against(&rules)?;
        Ok(adapter)
    }

    /// Checks every module against the configuration and every entry for NaN and infinity.
    ///
    /// # Errors
    /// As [`Adapter::from_pairs`]; [`Error::Config`] when a module's alpha is not the configuration's.
    pub fn check(&self) -> Result<(), Error> {
        self.check_against(&self.config.rules()?)
    }

    fn check_against(&self, rules: &ModuleRules) -> Result<(), Error> {
        if self.modules.is_empty() {
            return Err(Error::Empty);
        }
        for (path, module) in &self.modules {
            if !rules.targets(path)? {
                return Err(Error::NotTargeted {
                    module: path.to_string(),
                });
            }
            let ((r_a, d_in), (d_out, r_b)) = (module.a.dim(), module.b.dim());
            let rank = rules.rank(path)?;
            for (side, expected, got) in [
                ("lora_A", [rank, d_in], [r_a, d_in]),
                ("lora_B", [d_out, rank], [d_out, r_b]),
            ] {
                if expected != got || got.contains(&0) {
                    let tensor = format!("{path}.{side}");
                    return Err(Error::Shape {
                        op: "adapter",
                        tensor,
                        expected: expected.to_vec(),
                        got: got.to_vec(),
                    });
                }
            }
            if module.alpha != rules.alpha(path)? || module.rslora != self.config.use_rslora {
                return Err(Error::config(
                    "lora_alpha",
                    format!("does not give module {path} its scale {}", module.scale()),
                ));
            }
        }
        self.check_finite()
    }

    /// Finds the first entry, in model order, that is NaN or infinite.
    fn check_finite(&self) -> Result<(), Error> {
        let modules: Vec<_> = self.modules.iter().collect();
        let checked: Vec<Result<(), Error>> = modules
            .into_par_iter()
            .map(|(path, module)| check_finite(path, module))
            .collect();
        checked.into_iter().collect()
    }

    /// An adapter of the same modules whose entries are all zero.
    pub fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        for module in zeros.modules.values_mut() {
            module.a.fill(0.0);
            module.b.fill(0.0);
        }
        zeros
    }

    /// Where each tensor lies in phi.
    pub fn layout(&self) -> ParamLayout {
        let tensors = self.modules.iter().flat_map(|(path, module)| {
            [("lora_A", &module.a), ("lora_B", &module.b)]
                .map(|(side, tensor)| (format!("{path}.{side}"), tensor.nrows(), tensor.ncols()))
        });
        ParamLayout::new(tensors).expect("paths are the keys of a map")
    }

    /// phi: all A and B entries in model order, A before B, row-major.
    pub fn to_flat(&self) -> Vec<f32> {
        let mut flat = Vec::with_capacity(self.layout().len());
        for tensor in self.modules.values().flat_map(|module| [&module.a, &module.b]) {
            match tensor.as_slice() {
                Some(entries) => flat.extend_from_slice(entries),
                None => flat.extend(tensor),
            }
        }
        flat
    }

    /// The same adapter with the entries of phi.
    ///
    /// # Errors
    /// [`Error::Length`] for a vector of another length, [`Error::NotFinite`] for NaN or infinity in it.
    pub fn with_flat(&self, flat: &[f32]) -> Result<Self, Error> {
        let expected = self.layout().len();
        if flat.len() != expected {
            return Err(Error::Length {
                op: "with_flat",
                expected,
                got: flat.len(),
            });
        }
        let mut rest = flat;
        let mut take = |like: &Array2<f32>| {
            let (entries, after) = rest.split_at(like.len());
            rest = after;
            entries
        };
        let places: Vec<_> = self
            .modules
            .iter()
            .map(|(path, old)| (path, old, take(&old.a), take(&old.b)))
            .collect();
        let tensor = |like: &Array2<f32>, entries: &[f32]| {
            Array2::from_shape_vec(like.dim(), entries.to_vec()).expect("as many entries as the tensor had")
        };
        let modules: Vec<_> = places
            .into_par_iter()
            .map(|(path, old, a, b)| {
                let module = LoraModule {
                    a: tensor(&old.a, a),
                    b: tensor(&old.b, b),
                    alpha: old.alpha,
                    rslora: old.rslora,
                };
                (path.clone(), module)
            })
            .collect();
        let adapter = Self {
            config: self.config.clone(),
            modules: modules.into_iter().collect(),
        };
        adapter.check_finite()?;
        Ok(adapter)
    }

    /// Checks that both adapters have the same modules, shapes and scales, so that their phi can be added.
    ///
    /// `names` say in the error which adapter is which.
    ///
    /// # Errors
    /// [`Error::TargetsDiffer`], [`Error::ShapesDiffer`] or [`Error::ScalesDiffer`] for the first difference.
    pub fn ensure_same_layout(&self, other: &Adapter, names: (&str, &str)) -> Result<(), Error> {
        let only = |path: &ModulePath, (present, absent): (&str, &str)| Error::TargetsDiffer {
            module: path.to_string(),
            present: present.to_owned(),
            absent: absent.to_owned(),
        };
        if let Some(path) = self.modules.keys().find(|path| !other.modules.contains_key(*path)) {
            return Err(only(path, names));
        }
        if let Some(path) = other.modules.keys().find(|path| !self.modules.contains_key(*path)) {
            return Err(only(path, (names.1, names.0)));
        }
        self.layout().ensure_same(&other.layout(), names)?;
        for (path, left) in &self.modules {
            let right = &other.modules[path];
            if left.alpha != right.alpha || left.rslora != right.rslora {
                return Err(Error::ScalesDiffer {
                    module: path.to_string(),
                    left: names.0.to_owned(),
                    left_alpha: left.alpha,
                    left_scale: left.scale(),
                    right: names.1.to_owned(),
                    right_alpha: right.alpha,
                    right_scale: right.scale(),
                });
            }
        }
        Ok(())
    }
}

fn check_finite(path: &ModulePath, module: &LoraModule) -> Result<(), Error> {
    for (side, tensor) in [("lora_A", &module.a), ("lora_B", &module.b)] {
        // Without a branch per entry this runs as fast as memory is read.
        if tensor.iter().fold(true, |finite, x| finite & x.is_finite()) {
            continue;
        }
        if let Some((index, value)) = tensor.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            return Err(Error::NotFinite {
                tensor: format!("{path}.{side}"),
                index,
                value: *value,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    fn ramp(rows: usize, cols: usize, start: f32) -> Array2<f32> {
        Array2::from_shape_fn((rows, cols), |(i, j)| start + (i * cols + j) as f32)
    }

    fn adapter(alpha: f64) -> Adapter {
        let config = LoraConfig::new(2, alpha, ["q_proj", "v_proj"]);
        Adapter::from_pairs(
            config,
            [
                (
                    "model.layers.0.self_attn.v_proj".into(),
                    ramp(2, 3, 100.0),
                    ramp(4, 2, 200.0),
                ),
                (
                    "model.layers.0.self_attn.q_proj".into(),
                    ramp(2, 3, 0.0),
                    ramp(5, 2, 10.0),
                ),
            ],
        )
        .unwrap()
    }

    #[test]
    fn phi_is_in_model_order_and_comes_back() {
        let adapter = adapter(4.0);
        let flat = adapter.to_flat();
        let layout = adapter.layout();
        assert_eq!((flat.len(), layout.len()), (30, 30));
        let firsts: Vec<f32> = layout.slots().iter().map(|slot| flat[slot.offset]).collect();
        assert_eq!(firsts, [0.0, 10.0, 100.0, 200.0]);
        assert_eq!(layout.slots()[2].name, "model.layers.0.self_attn.v_proj.lora_A");
        assert_eq!(adapter.zeros_like().with_flat(&flat).unwrap(), adapter);
    }

    #[test]
    fn phi_of_transposed_arrays_is_still_row_major() {
        let config = LoraConfig::new(2, 4.0, ["q_proj"]);
        let a = ramp(3, 2, 0.0).reversed_axes(); // [2, 3] with column-major memory
        let adapter = Adapter::from_pairs(config, [("layers.0.q_proj".into(), a.clone(), ramp(2, 2, 9.0))]).unwrap();
        assert_eq!(adapter.to_flat()[..6], [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        assert_eq!(adapter.with_flat(&adapter.to_flat()).unwrap(), adapter);
    }

    #[test]
    fn a_flat_vector_is_checked() {
        let adapter = adapter(4.0);
        let message = adapter.with_flat(&[0.0; 29]).unwrap_err().to_string();
        assert!(message.contains("29") && message.contains("30"), "{message}");
        let mut flat = adapter.to_flat();
        flat[7] = f32::NAN;
        let message = adapter.with_flat(&flat).unwrap_err().to_string();
        assert!(
            message.contains("q_proj.lora_B") && message.contains("NaN at flat index 1"),
            "{message}"
        );
    }

    #[test]
    fn pairs_must_fit_the_configuration() {
        let build = |path: &str, a, b| {
            Adapter::from_pairs(LoraConfig::new(2, 1.0, ["q_proj"]), [(ModulePath::new(path), a, b)])
                .unwrap_err()
                .to_string()
        };
        let message = build("layers.0.q_proj", ramp(3, 4, 0.0), ramp(4, 3, 0.0));
        assert!(message.contains("[3, 4], expected [2, 4]"), "{message}");
        let message = build("layers.0.q_proj", ramp(2, 4, 0.0), ramp(4, 3, 0.0));
        assert!(
            message.contains("lora_B") && message.contains("[4, 3], expected [4, 2]"),
            "{message}"
        );
        let message = build("layers.0.k_proj", ramp(2, 4, 0.0), ramp(4, 2, 0.0));
        assert!(message.contains("layers.0.k_proj"), "{message}");
    }

    #[test]
    fn differing_adapters_are_told_apart() {
        let left = adapter(4.0);
        let compare = |right: &Adapter| left.ensure_same_layout(right, ("U", "S")).unwrap_err().to_string();
        assert!(left.ensure_same_layout(&adapter(4.0), ("U", "S")).is_ok());
        let message = compare(&adapter(8.0));
        assert!(
            message.contains("alpha 4 (scale 2) in U but alpha 8 (scale 4) in S"),
            "{message}"
        );
        let mut fewer = left.clone();
        fewer
            .modules
            .remove(&ModulePath::new("model.layers.0.self_attn.v_proj"));
        assert_eq!(
            compare(&fewer),
            "module model.layers.0.self_attn.v_proj is in U but not in S"
        );
        let mut wider = left.clone();
        wider
            .modules
            .get_mut(&ModulePath::new("model.layers.0.self_attn.q_proj"))
            .unwrap()
            .b = ramp(6, 2, 0.0);
        assert_eq!(
            compare(&wider),
            "tensor model.layers.0.self_attn.q_proj.lora_B is [5, 2] in U but [6, 2] in S"
        );
    }
}
