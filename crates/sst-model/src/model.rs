//! A language model ready to use: decoder, tokenizer and the adapters loaded beside them.

use crate::Error;
use crate::batch::{BatchLimits, Side, pad};
use crate::decoder::Decoder;
use crate::device::{DeviceChoice, Precision};
use crate::lora::Lora;
use crate::mask::Mask;
use crate::tokenizer::Tokenizer;
use sst_adapter::{Adapter, ModulePath};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Decoder, tokenizer and named LoRA adapters on one device.
#[derive(Debug)]
pub struct LanguageModel {
    pub(crate) decoder: Decoder,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) limits: BatchLimits,
    adapters: BTreeMap<String, Lora>,
    folder: PathBuf,
}

impl LanguageModel {
    /// Loads a Hugging Face model folder: `config.json`, safetensors weights, tokenizer and chat template.
    ///
    /// # Errors
    /// [`Error`] naming the file, key or tensor that is missing or does not fit, or the device that is not there.
    pub fn load(folder: &Path, device: DeviceChoice, precision: Precision) -> Result<Self, Error> {
        let device = device.resolve()?;
        let tokenizer = Tokenizer::load(folder)?;
        let decoder = Decoder::load(folder, device, precision.kind())?;
        tracing::info!(folder = %folder.display(), ?device, ?precision, "model loaded");
        Ok(Self {
            decoder,
            tokenizer,
            limits: BatchLimits::default(),
            adapters: BTreeMap::new(),
            folder: folder.to_path_buf(),
        })
    }

    /// The folder it was loaded from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The tokenizer and its chat template.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Replaces the limits of one forward pass.
    ///
    /// # Errors
    /// [`Error::Setting`] when a limit is 0.
    pub fn set_limits(&mut self, limits: BatchLimits) -> Result<(), Error> {
        self.limits = limits.check()?;
        Ok(())
    }

    /// The limits of one forward pass.
    pub fn limits(&self) -> BatchLimits {
        self.limits
    }

    /// Where the weights and the adapters are.
    pub fn device(&self) -> Device {
        self.decoder.device()
    }

    /// Device name for people: `cpu` or `cuda:N`.
    pub fn device_name(&self) -> String {
        match self.decoder.device() {
            Device::Cuda(n) => format!("cuda:{n}"),
            _ => "cpu".into(),
        }
    }

    /// Paths of the linears whose last component is one of `targets`, in model order.
    pub fn modules(&self, targets: &[String]) -> Vec<ModulePath> {
        self.decoder.modules(targets)
    }

    /// (d_out, d_in) of the linear at `path`, if there is one.
    pub fn linear_shape(&self, path: &ModulePath) -> Option<(usize, usize)> {
        self.decoder.linear_shape(path.as_str())
    }

    /// (vocabulary, d_model) of the head.
    pub fn head_shape(&self) -> (usize, usize) {
        let config = self.decoder.config();
        (config.vocab_size, config.hidden_size)
    }

    /// The longest row of tokens that the model was made for.
    pub fn max_position(&self) -> usize {
        self.decoder.config().max_position
    }

    /// Loads an adapter beside the model under `name`, replacing one of the same name.
    ///
    /// # Errors
    /// [`Error::Module`] or [`Error::Shape`] when it belongs to another model.
    pub fn add_adapter(&mut self, name: &str, adapter: &Adapter) -> Result<(), Error> {
        let lora = Lora::attach(name, adapter, &self.decoder)?;
        self.adapters.insert(name.to_owned(), lora);
        Ok(())
    }

    /// Unloads an adapter; unknown names are ignored.
    pub fn remove_adapter(&mut self, name: &str) {
        self.adapters.remove(name);
    }

    /// The adapter loaded under `name`.
    ///
    /// # Errors
    /// [`Error::UnknownAdapter`] listing the loaded ones.
    pub fn adapter(&self, name: &str) -> Result<&Lora, Error> {
        self.adapters.get(name).ok_or_else(|| Error::UnknownAdapter {
            name: name.to_owned(),
            loaded: self.adapters.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Adapters by name, as the stack of one forward pass.
    pub(crate) fn stack(&self, names: &[&str]) -> Result<Vec<&Lora>, Error> {
        names.iter().map(|name| self.adapter(name)).collect()
    }

    /// Logits at every position of padded rows, f32 [batch, seq, vocab]; positions of padding hold no meaning.
    ///
    /// # Errors
    /// [`Error::UnknownAdapter`] when an adapter of the stack is not loaded, [`Error::Example`] for a token that the model
    /// does not have.
    pub fn logits(&self, rows: &[&[u32]], side: Side, adapters: &[&str]) -> Result<Tensor, Error> {
        let stack = self.stack(adapters)?;
        let _guard = tch::no_grad_guard();
        let (ids, lefts) = self.pad(rows, side)?;
        let mask = self.mask(&lefts, ids.size()[1]);
        let logits = self.decoder.logits(&self.decoder.hidden(&ids, &mask, &stack));
        Ok(logits.unflatten(0, [ids.size()[0], ids.size()[1]]))
    }

    pub(crate) fn pad(&self, rows: &[&[u32]], side: Side) -> Result<(Tensor, Vec<i64>), Error> {
        pad(rows, side, self.decoder.config().vocab_size, self.decoder.device())
    }

    pub(crate) fn mask(&self, lefts: &[i64], seq: i64) -> Mask {
        let window = self.decoder.config().sliding_window;
        Mask::padded(lefts, seq, window, (self.decoder.kind(), self.decoder.device()))
    }

    pub(crate) fn long(&self, values: &[i64]) -> Tensor {
        Tensor::from_slice(values)
            .to_kind(Kind::Int64)
            .to_device(self.decoder.device())
    }
}
