//! Sequence classifiers of the RoBERTa family (Liu et al. 2019; Longformer: Beltagy et al. 2020), which judge answers.
//!
//! Tokens become sums of embeddings of word, position and type, normalised; each layer adds attention, then a two-layer
//! network with GELU, and normalises *after* each sum; the state at `<s>` goes through tanh(W x + b) and a linear map to
//! one logit per label. All in f32.

mod config;
mod judge;
mod layer;

pub use judge::ClassifierJudge;

use crate::host::floats;
use crate::weights::Weights;
use crate::{BatchLimits, DeviceChoice, Error};
use config::{Architecture, EncoderConfig};
use layer::{Layer, Linear, Norm, Sight};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};
use tokenizers::{EncodeInput, TruncationParams};

/// A sequence classifier: `RobertaForSequenceClassification`, `XLMRobertaForSequenceClassification` or
/// `LongformerForSequenceClassification`, with its tokenizer.
///
/// ```no_run
/// use sst_model::{DeviceChoice, SequenceClassifier};
/// let classifier = SequenceClassifier::load("models/rejection".as_ref(), DeviceChoice::Auto)?;
/// let logits = classifier.logits(&[("I'm sorry, I can't help with that.", None)])?;
/// println!("{:?}: {:?}", classifier.labels(), logits[0]);
/// # Ok::<(), sst_model::Error>(())
/// ```
#[derive(Debug)]
pub struct SequenceClassifier {
    config: EncoderConfig,
    folder: PathBuf,
    tokenizer: tokenizers::Tokenizer,
    limits: BatchLimits,
    words: Tensor,     // [vocab, d]
    positions: Tensor, // [max_position, d], the first type's embedding added
    norm: Norm,
    layers: Vec<Layer>,
    dense: Linear,
    out: Linear,
    device: Device,
}

impl SequenceClassifier {
    /// Loads a Hugging Face folder: `config.json`, safetensors weights, `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error`] naming the file, key or tensor that is missing or not supported, or the device that is not there.
    pub fn load(folder: &Path, device: DeviceChoice) -> Result<Self, Error> {
        let config = EncoderConfig::read(folder)?;
        let device = device.resolve()?;
        let tokenizer = tokenizer(folder, config.longest())?;
        let weights = Weights::open(folder, device, Kind::Float)?;
        let (d, prefix) = (config.hidden, config.architecture.prefix());
        let embeddings = format!("{prefix}.embeddings");
        let types = weights.take(
            &format!("{embeddings}.token_type_embeddings.weight"),
            &[config.types, d],
        )?;
        let places = weights.take(
            &format!("{embeddings}.position_embeddings.weight"),
            &[config.positions, d],
        )?;
        let layer = |i| Layer::load(&weights, &format!("{prefix}.encoder.layer.{i}"), &config, i);
        Ok(Self {
            words: weights.take(&format!("{embeddings}.word_embeddings.weight"), &[config.vocab, d])?,
            positions: places + types.get(0),
            norm: Norm::load(&weights, &format!("{embeddings}.LayerNorm"), &config)?,
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
            dense: Linear::load(&weights, "classifier.dense", d, d)?,
            out: Linear::load(&weights, "classifier.out_proj", d, config.labels.len())?,
            folder: folder.to_path_buf(),
            limits: BatchLimits::default(),
            tokenizer,
            config,
            device,
        })
    }

    /// The names of the labels, in the order of the logits.
    pub fn labels(&self) -> &[String] {
        &self.config.labels
    }

    /// One logit per label for each text, or for each pair of texts. What is too long for the model is cut at its end.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the tokenizer refuses a text, [`Error::Weights`] when it knows tokens that the model does
    /// not.
    pub fn logits(&self, texts: &[(&str, Option<&str>)]) -> Result<Vec<Vec<f64>>, Error> {
        let rows: Vec<Vec<u32>> = texts.iter().map(|text| self.encode(*text)).collect::<Result<_, _>>()?;
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let mut logits = vec![Vec::new(); rows.len()];
        let _guard = tch::no_grad_guard();
        for batch in self.limits.plan(&lengths) {
            let of_batch: Vec<&[u32]> = batch.iter().map(|&i| rows[i].as_slice()).collect();
            let values = floats(&self.forward(&of_batch)); // [batch, labels]
            for (&i, row) in batch.iter().zip(values.chunks(self.config.labels.len())) {
                logits[i] = row.iter().map(|&v| f64::from(v)).collect();
            }
        }
        Ok(logits)
    }

    fn encode(&self, (first, second): (&str, Option<&str>)) -> Result<Vec<u32>, Error> {
        let input: EncodeInput = match second {
            Some(second) => (first, second).into(),
            None => first.into(),
        };
        let path = || self.folder.join("tokenizer.json");
        let encoding = self
            .tokenizer
            .encode_fast(input, true)
            .map_err(|source| crate::TokenizerError::Backend { path: path(), source })?;
        let ids = encoding.get_ids().to_vec();
        match ids.iter().find(|&&id| id as usize >= self.config.vocab) {
            Some(id) => Err(Error::Weights {
                path: path(),
                reason: format!(
                    "knows token {id}, the model has {}: they belong to different models",
                    self.config.vocab
                ),
            }),
            None => Ok(ids),
        }
    }

    /// Rows of ids, none empty -> [rows, labels].
    fn forward(&self, rows: &[&[u32]]) -> Tensor {
        let (batch, seq) = (rows.len() as i64, rows.iter().map(|r| r.len()).max().unwrap_or(0));
        let pad = self.config.pad;
        let (mut ids, mut places) = (Vec::new(), Vec::new());
        for row in rows {
            let mut place = pad;
            for &id in *row {
                // Positions count from behind the padding's own, and a padding token inside a text has none.
                places.push(if i64::from(id) == pad {
                    pad
                } else {
                    place += 1;
                    place
                });
                ids.push(i64::from(id));
            }
            ids.resize(ids.len() + seq - row.len(), pad);
            places.resize(ids.len(), pad);
        }
        let grid = |values: &[i64]| {
            Tensor::from_slice(values)
                .to_device(self.device)
                .view([batch, seq as i64])
        };
        let lengths: Vec<i64> = rows.iter().map(|row| row.len() as i64).collect();
        let sight = Sight::new(&lengths, seq as i64, self.device);
        let embedded = Tensor::embedding(&self.words, &grid(&ids), -1, false, false)
            + Tensor::embedding(&self.positions, &grid(&places), -1, false, false);
        let mut x = self.norm.apply(&embedded); // [batch, seq, d]
        for layer in &self.layers {
            x = layer.apply(&x, &sight);
        }
        self.out.apply(&self.dense.apply(&x.select(1, 0)).tanh())
    }
}

fn tokenizer(folder: &Path, longest: usize) -> Result<tokenizers::Tokenizer, Error> {
    let path = folder.join("tokenizer.json");
    let bytes = std::fs::read(&path).map_err(sst_artefact::Error::io("read", &path))?;
    let backend = |source| crate::TokenizerError::Backend {
        path: path.clone(),
        source,
    };
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(backend)?;
    tokenizer.with_padding(None);
    let truncation = TruncationParams {
        max_length: longest,
        ..TruncationParams::default()
    };
    tokenizer.with_truncation(Some(truncation)).map_err(backend)?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/model")
    }

    fn golden() -> Value {
        sst_artefact::read_json(&fixtures().join("encoder.json"), "golden values").unwrap()
    }

    #[test]
    fn logits_are_those_of_transformers_alone_and_in_a_padded_batch() {
        let golden = golden();
        let texts: Vec<(String, Option<String>)> = serde_json::from_value(golden["texts"].clone()).unwrap();
        let texts: Vec<(&str, Option<&str>)> = texts.iter().map(|(a, b)| (a.as_str(), b.as_deref())).collect();
        for name in ["roberta", "longformer"] {
            let classifier =
                SequenceClassifier::load(&fixtures().join("encoder").join(name), DeviceChoice::Cpu).unwrap();
            let expected: Vec<Vec<f64>> = serde_json::from_value(golden[name].clone()).unwrap();
            let together = classifier.logits(&texts).unwrap();
            for (i, expected) in expected.iter().enumerate() {
                let alone = &classifier.logits(&texts[i..=i]).unwrap()[0];
                for ours in [alone, &together[i]] {
                    assert_eq!(ours.len(), expected.len());
                    for (x, y) in ours.iter().zip(expected) {
                        // Two layers of f32 sums of some hundred numbers near 1.
                        assert!((x - y).abs() <= 1e-5, "{name}, text {i}: {x} {y}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let source = fixtures().join("encoder/roberta");
        for file in ["config.json", "tokenizer.json", "model.safetensors"] {
            std::fs::copy(source.join(file), dir.path().join(file)).unwrap();
        }
        let path = dir.path().join("config.json");
        let config: Value = sst_artefact::read_json(&path, "configuration").unwrap();
        for (key, value, part) in [
            ("model_type", Value::from("bert"), "bert"),
            (
                "architectures",
                serde_json::json!(["RobertaForMaskedLM"]),
                "RobertaForMaskedLM",
            ),
            ("hidden_act", Value::from("relu"), "relu"),
            ("num_attention_heads", Value::from(5), "num_attention_heads"),
            ("vocab_size", Value::from(261), "word_embeddings"),
            ("pad_token_id", Value::from(99), "pad_token_id"),
        ] {
            let mut changed = config.clone();
            changed[key] = value;
            sst_artefact::write_json(&path, &changed).unwrap();
            let error = SequenceClassifier::load(dir.path(), DeviceChoice::Cpu)
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{key}: {error}");
        }
    }
}
