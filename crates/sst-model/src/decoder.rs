//! The decoder: embedding, layers of attention and SwiGLU, final norm, head.
//!
//! Every linear is addressed by its Hugging Face path (`model.layers.3.self_attn.q_proj`), which is also how LoRA
//! adapters name what they change.

use crate::Error;
use crate::cache::KvCache;
use crate::config::ModelConfig;
use crate::lora::Lora;
use crate::mask::Mask;
use crate::rope::{Rope, rotate};
use crate::trace::Trace;
use crate::weights::Weights;
use sst_adapter::ModulePath;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// A Llama-family decoder with its weights on one device.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    embedding: Tensor, // [vocab, d_model]
    layers: Vec<Layer>,
    norm: Tensor, // [d_model]
    head: Tensor, // [vocab, d_model]; the embedding where tied
    rope: Rope,
}

#[derive(Debug)]
struct Layer {
    input_norm: Tensor, // [d_model]
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    post_norm: Tensor, // [d_model]
    gate: Linear,
    up: Linear,
    down: Linear,
}

#[derive(Debug)]
struct Linear {
    path: ModulePath,
    weight: Tensor,       // [d_out, d_in]
    bias: Option<Tensor>, // [d_out]
}

/// What one forward pass carries besides its tokens: the adapters on top of the base weights, and a recorder.
#[derive(Default)]
pub(crate) struct Pass<'a> {
    /// Adapters whose updates are added to the base weights.
    pub stack: &'a [&'a Lora],
    /// Records what per-sample gradients of the last adapter of the stack need.
    pub trace: Option<&'a mut Trace>,
}

impl Linear {
    fn load(weights: &Weights, path: String, d_out: usize, d_in: usize, bias: bool) -> Result<Self, Error> {
        Ok(Self {
            weight: weights.take(&format!("{path}.weight"), &[d_out, d_in])?,
            bias: if bias {
                Some(weights.take(&format!("{path}.bias"), &[d_out])?)
            } else {
                None
            },
            path: ModulePath::new(path),
        })
    }

    /// x: [.., d_in] -> [.., d_out].
    fn apply(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let mut y = x.linear(&self.weight, self.bias.as_ref());
        for (at, lora) in pass.stack.iter().enumerate() {
            let Some(factors) = lora.get(&self.path) else { continue };
            let kind = x.kind();
            let h = x.matmul(&factors.a.to_kind(kind).tr()); // [.., r]
            let update = (&h * factors.scale).matmul(&factors.b.to_kind(kind).tr()); // [.., d_out]
            y = &update + y;
            if at + 1 == pass.stack.len()
                && let Some(trace) = &mut pass.trace
            {
                trace.record(&self.path, factors.scale, x, h, update);
            }
        }
        y
    }
}

impl Decoder {
    /// Loads the model in `folder` to `device` with weights of `kind`.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Weights`] or [`Error::Shape`], naming the file, key or tensor.
    pub(crate) fn load(folder: &Path, device: Device, kind: Kind) -> Result<Self, Error> {
        let config = ModelConfig::read(folder)?;
        let weights = Weights::open(folder, device, kind)?;
        let d = config.hidden_size;
        let embedding = weights.take("model.embed_tokens.weight", &[config.vocab_size, d])?;
        let head = if config.tied_head && !weights.has("lm_head.weight") {
            embedding.shallow_clone()
        } else {
            weights.take("lm_head.weight", &[config.vocab_size, d])?
        };
        let layers = (0..config.layers)
            .map(|n| Layer::load(&weights, &config, n))
            .collect::<Result<_, _>>()?;
        let norm = weights.take("model.norm.weight", &[d])?;
        let rope = Rope::new(&config, device);
        Ok(Self {
            config,
            embedding,
            layers,
            norm,
            head,
            rope,
        })
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(crate) fn device(&self) -> Device {
        self.embedding.device()
    }

    pub(crate) fn kind(&self) -> Kind {
        self.embedding.kind()
    }

    /// (d_out, d_in) of the linear at `path`.
    pub(crate) fn linear_shape(&self, path: &str) -> Option<(usize, usize)> {
        self.linears().find(|l| l.path.as_str() == path).map(|l| {
            let size = l.weight.size();
            (size[0] as usize, size[1] as usize)
        })
    }

    /// Paths of all linears whose last component is one of `targets` (`q_proj`, ...), in model order.
    pub(crate) fn modules(&self, targets: &[String]) -> Vec<ModulePath> {
        let named = |path: &str| targets.iter().any(|t| path.rsplit('.').next() == Some(t.as_str()));
        self.linears()
            .map(|l| &l.path)
            .filter(|p| named(p.as_str()))
            .cloned()
            .collect()
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers
            .iter()
            .flat_map(|l| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down])
    }

    /// Last hidden states, after the final norm: [batch, seq, d_model].
    ///
    /// `ids` are [batch, seq] token numbers, `mask` says which keys each of them may see and where it stands, `cache`
    /// holds the keys and values of earlier tokens and takes those of these.
    pub(crate) fn hidden(&self, ids: &Tensor, mask: &Mask, mut cache: Option<&mut KvCache>, pass: &mut Pass) -> Tensor {
        let rope = self.rope.at(mask.positions(), self.kind());
        let mut x = Tensor::embedding(&self.embedding, ids, -1, false, false);
        for (n, layer) in self.layers.iter().enumerate() {
            let normed = self.rms_norm(&x, &layer.input_norm);
            // Sums make new tensors: the backward pass needs the old ones as they were.
            x = self.attention(n, layer, &normed, mask, &rope, cache.as_deref_mut(), pass) + x;
            let normed = self.rms_norm(&x, &layer.post_norm);
            let gated = layer.gate.apply(&normed, pass).silu() * layer.up.apply(&normed, pass);
            x = layer.down.apply(&gated, pass) + x;
        }
        if let Some(cache) = cache {
            cache.advance(ids.size()[1]);
        }
        self.rms_norm(&x, &self.norm)
    }

    /// Logits of hidden states [.., d_model], as f32 [.., vocab].
    pub(crate) fn logits(&self, hidden: &Tensor) -> Tensor {
        hidden.linear(&self.head, None::<&Tensor>).to_kind(Kind::Float)
    }

    /// x / sqrt(mean(x^2) + eps) * weight over the last axis, the mean in f32 (Zhang & Sennrich 2019).
    fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let wide = x.to_kind(Kind::Float);
        let mean = wide.square().mean_dim(-1, true, Kind::Float);
        let scale = (mean + self.config.rms_norm_eps).rsqrt();
        (wide * scale).to_kind(x.kind()) * weight
    }

    #[allow(clippy::too_many_arguments)]
    fn attention(
        &self,
        n: usize,
        layer: &Layer,
        x: &Tensor,
        mask: &Mask,
        rope: &(Tensor, Tensor),
        cache: Option<&mut KvCache>,
        pass: &mut Pass,
    ) -> Tensor {
        let size = x.size();
        let (batch, seq) = (size[0], size[1]);
        let (heads, kv, hd) = (
            self.config.heads as i64,
            self.config.kv_heads as i64,
            self.config.head_dim as i64,
        );
        let split = |t: Tensor, h: i64| t.view([batch, seq, h, hd]).transpose(1, 2); // [batch, h, seq, hd]
        let q = rotate(&split(layer.q.apply(x, pass), heads), rope);
        let mut k = rotate(&split(layer.k.apply(x, pass), kv), rope);
        let mut v = split(layer.v.apply(x, pass), kv);
        if let Some(cache) = cache {
            (k, v) = cache.extend(n, &k, &v);
        }
        let groups = heads / kv;
        let (q, k, v) = if groups == 1 {
            (q, k, v)
        } else if seq == 1 {
            // The query heads of a group are as many queries on one key head: nothing is copied.
            (q.reshape([batch, kv, groups, hd]), k, v)
        } else {
            let keys = k.size()[2];
            let spread = |t: &Tensor| {
                t.unsqueeze(2)
                    .expand([batch, kv, groups, keys, hd], false)
                    .reshape([batch, heads, keys, hd])
            };
            (q, spread(&k), spread(&v))
        };
        let out =
            Tensor::scaled_dot_product_attention(&q, &k, &v, mask.bias(), 0.0, mask.is_causal(), None::<f64>, false);
        let out = out
            .reshape([batch, heads, seq, hd])
            .transpose(1, 2)
            .reshape([batch, seq, heads * hd]);
        layer.o.apply(&out, pass)
    }
}

impl Layer {
    fn load(weights: &Weights, config: &ModelConfig, n: usize) -> Result<Self, Error> {
        let (d, ff) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let at = |name: &str| format!("model.layers.{n}.{name}");
        let norm = |name: &str| weights.take(&at(&format!("{name}.weight")), &[d]);
        let attn = |name: &str, d_out, d_in, bias| {
            Linear::load(weights, at(&format!("self_attn.{name}_proj")), d_out, d_in, bias)
        };
        let mlp = |name: &str, d_out, d_in| {
            Linear::load(weights, at(&format!("mlp.{name}_proj")), d_out, d_in, config.mlp_bias)
        };
        Ok(Self {
            input_norm: norm("input_layernorm")?,
            q: attn("q", q, d, config.qkv_bias)?,
            k: attn("k", kv, d, config.qkv_bias)?,
            v: attn("v", kv, d, config.qkv_bias)?,
            o: attn("o", d, q, config.o_bias)?,
            post_norm: norm("post_attention_layernorm")?,
            gate: mlp("gate", ff, d)?,
            up: mlp("up", ff, d)?,
            down: mlp("down", d, ff)?,
        })
    }
}
