//! LoRA (Hu et al. 2021) on the device: y = W x + s B (A x) for the linear modules that an adapter names.

use crate::Error;
use crate::decoder::Decoder;
use crate::host::{matrix, upload};
use sst_adapter::{Adapter, LoraConfig, ModulePath, ParamLayout};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// The two factors of one module, f32 but for what [`Lora::to_kind`] makes.
#[derive(Debug)]
pub struct LoraFactors {
    pub(crate) a: Tensor, // [r, d_in]
    pub(crate) b: Tensor, // [d_out, r]
    pub(crate) scale: f64,
}

/// An adapter whose factors live on the model's device.
#[derive(Debug)]
pub struct Lora {
    config: LoraConfig,
    factors: BTreeMap<ModulePath, LoraFactors>,
}

impl Lora {
    /// Copies `adapter`, which errors call `name`, to the device of `decoder`, module by module.
    ///
    /// # Errors
    /// [`Error::Module`] or [`Error::Shape`] when the adapter belongs to another model.
    pub(crate) fn attach(name: &str, adapter: &Adapter, decoder: &Decoder) -> Result<Self, Error> {
        let mut factors = BTreeMap::new();
        for (path, module) in &adapter.modules {
            let (d_out, d_in) = decoder.linear_shape(path.as_str()).ok_or_else(|| Error::Module {
                adapter: name.to_owned(),
                module: path.to_string(),
            })?;
            let r = module.a.nrows();
            for (factor, got, expected) in [
                ("lora_A", module.a.dim(), (r, d_in)),
                ("lora_B", module.b.dim(), (d_out, r)),
            ] {
                if got != expected {
                    return Err(Error::Shape {
                        adapter: name.to_owned(),
                        tensor: format!("{path}.{factor}"),
                        expected: vec![expected.0, expected.1],
                        got: vec![got.0, got.1],
                    });
                }
            }
            let lora = LoraFactors {
                a: upload(&module.a, decoder.device()),
                b: upload(&module.b, decoder.device()),
                scale: module.scale(),
            };
            factors.insert(path.clone(), lora);
        }
        Ok(Self {
            config: adapter.config.clone(),
            factors,
        })
    }

    /// The same adapter with factors of `kind`, to compute with; those that are of it already are shared.
    pub(crate) fn to_kind(&self, kind: Kind) -> Self {
        let converted = |lora: &LoraFactors| LoraFactors {
            a: lora.a.to_kind(kind),
            b: lora.b.to_kind(kind),
            scale: lora.scale,
        };
        let factors = self.factors.iter();
        Self {
            config: self.config.clone(),
            factors: factors.map(|(path, lora)| (path.clone(), converted(lora))).collect(),
        }
    }

    /// The factors of one module, if the adapter changes it.
    pub(crate) fn get(&self, path: &ModulePath) -> Option<&LoraFactors> {
        self.factors.get(path)
    }

    /// Every factor with its name (`..q_proj.lora_A`), in model order, A before B.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.factors
            .iter()
            .flat_map(|(path, lora)| [(format!("{path}.lora_A"), &lora.a), (format!("{path}.lora_B"), &lora.b)])
    }

    /// Where each factor lies in phi.
    ///
    /// # Errors
    /// [`Error::Adapter`] for a name given twice.
    pub fn layout(&self) -> Result<ParamLayout, Error> {
        let shape = |t: &Tensor| (t.size()[0] as usize, t.size()[1] as usize);
        let slots = self.tensors().map(|(name, tensor)| {
            let (rows, cols) = shape(tensor);
            (name, rows, cols)
        });
        Ok(ParamLayout::new(slots)?)
    }

    /// Copies the factors back to plain arrays.
    ///
    /// # Errors
    /// [`Error::Adapter`] when a factor holds NaN or infinity.
    pub fn download(&self) -> Result<Adapter, Error> {
        let pairs = self
            .factors
            .iter()
            .map(|(path, lora)| (path.clone(), matrix(&lora.a), matrix(&lora.b)));
        Ok(Adapter::from_pairs(self.config.clone(), pairs)?)
    }
}
