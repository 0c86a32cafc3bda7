//! The decoder: embedding, layers of attention and SwiGLU, final norm, head.
//!
//! Every linear is addressed by its Hugging Face path (`model.layers.3.self_attn.q_proj`), which is also how LoRA
//! adapters name what they change.

mod attention;
mod bank;
mod head;
mod norm;
mod projection;
mod tape;

pub(crate) use bank::Bank;
pub(crate) use head::Targets;
pub(crate) use tape::Tape;
pub use tape::{FactorGradients, LinearGradient, LoraGradient, Reading};

use crate::Error;
use crate::config::ModelConfig;
use crate::lora::Lora;
use crate::mask::Mask;
use crate::pack::Pack;
use crate::rope::{Rope, Rotation};
use crate::runs::Adapters;
use crate::weights::Weights;
use attention::Attended;
pub(crate) use attention::attend;
use head::Head;
use norm::RmsNorm;
use projection::{Part, Projection};
use sst_adapter::ModulePath;
use std::path::Path;
use tape::LayerTape;
use tch::{Device, Kind, Tensor};

/// A Llama-family decoder with its weights on one device.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    embedding: Tensor, // [vocab, d_model]
    layers: Vec<Layer>,
    head: Head,
    rope: Rope,
}

#[derive(Debug)]
struct Layer {
    input_norm: RmsNorm,
    qkv: Projection,
    o: Projection,
    post_norm: RmsNorm,
    gate_up: Projection,
    down: Projection,
}

impl Decoder {
    /// Loads the model in `folder` to `device` with weights of `kind`.
    ///
    /// # Errors
    /// [`Error::Fetch`], [`Error::Config`] or [`Error::Weights`], naming the file, key or tensor.
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
        let head = Head {
            norm: RmsNorm::load(&weights, "model.norm.weight", d, config.rms_norm_eps)?,
            weight: head,
        };
        let rope = Rope::new(&config, device);
        Ok(Self {
            config,
            embedding,
            layers,
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
        self.linears()
            .find(|(_, part)| part.path.as_str() == path)
            .map(|(projection, part)| (part.d_out as usize, projection.d_in() as usize))
    }

    /// Paths of all linears whose last component is one of `targets` (`q_proj`, ...), in model order.
    pub(crate) fn modules(&self, targets: &[String]) -> Vec<ModulePath> {
        let named = |path: &str| targets.iter().any(|t| path.rsplit('.').next() == Some(t.as_str()));
        self.linears()
            .map(|(_, part)| &part.path)
            .filter(|p| named(p.as_str()))
            .cloned()
            .collect()
    }

    fn linears(&self) -> impl Iterator<Item = (&Projection, &Part)> {
        self.projections()
            .flat_map(|projection| projection.parts().iter().map(move |part| (projection, part)))
    }

    fn projections(&self) -> impl Iterator<Item = &Projection> {
        self.layers.iter().flat_map(|l| [&l.qkv, &l.o, &l.gate_up, &l.down])
    }

    /// The factors of `adapters`, stacked.
    pub(crate) fn bank(&self, adapters: &[&Lora]) -> Bank {
        Bank::new(self.projections(), adapters, self.kind())
    }

    /// Last hidden states, before the final norm: [batch * seq, d_model].
    ///
    /// `ids` are [batch, seq] token numbers, `mask` says which keys each of them may see and where it stands.
    pub(crate) fn hidden(&self, ids: &Tensor, mask: &Mask, stack: &[&Lora]) -> Tensor {
        let adapters = &Adapters::Stack(stack);
        self.forward(ids, Sight::Rows(mask), adapters, None, None).0
    }

    /// Last hidden states, before the final norm, of the tokens of a pack numbered `picked`: [picked, d_model]. `adapters`
    /// are those of all tokens and those of the picked ones.
    pub(crate) fn packed(&self, ids: &Tensor, pack: Pack, adapters: [&Adapters; 2], picked: &Tensor) -> Tensor {
        let [all, last] = adapters;
        self.forward(ids, Sight::Pack(pack), all, Some((picked, last)), None).0
    }

    /// As [`Decoder::hidden`] at the tokens numbered `rows` (of batch * seq), [rows, d_model], keeping what
    /// [`Decoder::backward`] needs to show the linears `wanted`.
    pub(crate) fn traced(
        &self,
        ids: &Tensor,
        mask: &Mask,
        stack: &[&Lora],
        rows: Tensor,
        wanted: &dyn Fn(&ModulePath) -> bool,
    ) -> (Tensor, Tape) {
        let early = self
            .layers
            .last()
            .is_some_and(|l| !is_wanted(&l.gate_up, wanted) && !is_wanted(&l.down, wanted));
        let mut layers = Vec::with_capacity(self.layers.len());
        let adapters = &Adapters::Stack(stack);
        let last = early.then_some((&rows, adapters));
        let (mut hidden, rotation) = self.forward(ids, Sight::Rows(mask), adapters, last, Some(&mut layers));
        if !early {
            hidden = hidden.index_select(0, &rows);
        }
        let (batch, seq) = (ids.size()[0], ids.size()[1]);
        let tape = Tape {
            layers,
            rotation,
            batch,
            seq,
            rows,
            early,
        };
        (hidden, tape)
    }

    /// `last` are the tokens that matter after the last layer's attention, with their adapters; all where not given.
    fn forward(
        &self,
        ids: &Tensor,
        mut sight: Sight,
        adapters: &Adapters,
        last: Option<(&Tensor, &Adapters)>,
        mut trace: Option<&mut Vec<LayerTape>>,
    ) -> (Tensor, Rotation) {
        let _guard = tch::no_grad_guard();
        let (batch, seq) = (ids.size()[0], ids.size()[1]);
        let (heads, kv, hd) = self.head_counts();
        let rotation = self.rope.at(sight.positions(), self.kind());
        let mut x = Tensor::embedding(&self.embedding, &ids.flatten(0, 1), -1, false, false);
        for (n, layer) in self.layers.iter().enumerate() {
            let x_scale = layer.input_norm.scale(&x);
            let qkv = layer.qkv.apply(&layer.input_norm.apply(&x, &x_scale), adapters);
            let split = qkv.y.view([batch, seq, heads + 2 * kv, hd]);
            let turned = rotation.apply(&split.narrow(2, 0, heads + kv));
            let q = turned.narrow(2, 0, heads);
            let k = turned.narrow(2, heads, kv);
            let v = split.narrow(2, heads + kv, kv);
            let (mixed, attended) = match &mut sight {
                Sight::Rows(mask) if trace.is_some() => {
                    // A copy, so that keeping the values does not keep the whole projection.
                    let attended = Attended::new(&q, &k, &v.contiguous(), mask);
                    (attended.out(), Some(attended))
                }
                Sight::Rows(mask) => (attend(&q, &k, &v, mask), None),
                Sight::Pack(pack) => (pack.attend(n, &q, &k, &v), None),
            };
            let (rows, adapters) = match last.filter(|_| n + 1 == self.layers.len()) {
                Some((rows, adapters)) => (Some(rows), adapters),
                None => (None, adapters),
            };
            let only = |t: &Tensor| rows.map_or_else(|| t.shallow_clone(), |rows| t.index_select(0, rows));
            let mut o = layer.o.apply(&only(&joined_heads(&mixed)), adapters);
            let y = o.y.g_add_(&only(&x));
            let y_scale = layer.post_norm.scale(&y);
            let gate_up = layer.gate_up.apply(&layer.post_norm.apply(&y, &y_scale), adapters);
            let mut down = layer.down.apply(&gated(&gate_up.y), adapters);
            let next = down.y.g_add_(&y);
            let x = std::mem::replace(&mut x, next);
            if let (Some(trace), Some(attended)) = (trace.as_deref_mut(), attended) {
                trace.push(LayerTape {
                    x,
                    x_scale,
                    qkv_h: qkv.h,
                    attended,
                    o_h: o.h,
                    y,
                    y_scale,
                    gate_up: gate_up.y,
                    gate_up_h: gate_up.h,
                    down_h: down.h,
                });
            }
        }
        (x, rotation)
    }

    /// Walks back from `gradient`, the gradient at the hidden states of the tape's rows ([rows, d_model]), and shows every
    /// input whose linears are among `wanted`, from the last layer to the first.
    ///
    /// # Errors
    /// What libtorch says, most often for want of memory, or what `show` returns.
    pub(crate) fn backward<E: From<Error>>(
        &self,
        mut tape: Tape,
        gradient: Tensor,
        stack: &[&Lora],
        wanted: &dyn Fn(&ModulePath) -> bool,
        show: &mut dyn FnMut(Reading) -> Result<(), E>,
    ) -> Result<(), E> {
        let _guard = tch::no_grad_guard();
        let (heads, kv, hd) = self.head_counts();
        let (batch, seq) = (tape.batch, tape.seq);
        let needs = |l: &Layer| {
            [&l.qkv, &l.o, &l.gate_up, &l.down]
                .into_iter()
                .any(|p| is_wanted(p, wanted))
        };
        // Nothing is asked of the layers below this one.
        let Some(lowest) = self.layers.iter().position(needs) else {
            return Ok(());
        };
        let rows = tape.rows;
        let spread =
            |t: &Tensor| Tensor::zeros([batch * seq, t.size()[1]], (t.kind(), t.device())).index_copy_(0, &rows, t);
        let mut early = tape.early;
        let mut gradient = if early { gradient } else { spread(&gradient) };
        while let Some(at) = tape.layers.pop() {
            let n = tape.layers.len();
            let layer = &self.layers[n];
            let mut visit =
                |projection: &Projection, input: &dyn Fn() -> Tensor, d: &Tensor, h: Vec<Tensor>, g: &[Tensor]| {
                    if is_wanted(projection, wanted) {
                        show(reading(projection, (batch, seq), &input(), d, h, g, stack, wanted))
                    } else {
                        Ok(())
                    }
                };

            let g = layer.down.lora_gradients(&gradient, stack);
            visit(&layer.down, &|| gated(&at.gate_up), &gradient, at.down_h, &g)?;
            let d_gated = layer.down.input_gradient(&gradient, &g, stack);
            let d_gate_up = gated_backward(&at.gate_up, d_gated);
            drop(at.gate_up);
            let g = layer.gate_up.lora_gradients(&d_gate_up, stack);
            let normed = || layer.post_norm.apply(&at.y, &at.y_scale);
            visit(&layer.gate_up, &normed, &d_gate_up, at.gate_up_h, &g)?;
            let d_normed = layer.gate_up.input_gradient(&d_gate_up, &g, stack);
            drop(d_gate_up);
            let mut d_y = layer.post_norm.backward(&d_normed, &at.y, &at.y_scale);
            let mut d_y = d_y.g_add_(&gradient);
            let mut o_h = at.o_h;
            if std::mem::take(&mut early) {
                // The layers below, and the keys and values of this one, meet all tokens.
                d_y = spread(&d_y);
                o_h.iter_mut().for_each(|h| *h = spread(h));
            }

            let mixed = at.attended.out();
            let g = layer.o.lora_gradients(&d_y, stack);
            visit(&layer.o, &|| joined_heads(&mixed), &d_y, o_h, &g)?;
            let d_mixed = layer.o.input_gradient(&d_y, &g, stack);
            let d_mixed = d_mixed.view([batch, seq, heads, hd]);
            let [d_q, d_k, d_v] = at.attended.backward(&d_mixed).map_err(Error::from)?;
            let d_qkv = Tensor::empty([batch * seq, (heads + 2 * kv) * hd], (d_q.kind(), d_q.device()));
            let split = d_qkv.view([batch, seq, heads + 2 * kv, hd]);
            for (d, from, count) in [(&d_q, 0, heads), (&d_k, heads, kv)] {
                tape.rotation.invert_into(d, &split.narrow(2, from, count));
            }
            split.narrow(2, heads + kv, kv).copy_(&d_v);
            let g = layer.qkv.lora_gradients(&d_qkv, stack);
            let normed = || layer.input_norm.apply(&at.x, &at.x_scale);
            visit(&layer.qkv, &normed, &d_qkv, at.qkv_h, &g)?;
            if n == lowest {
                break;
            }
            let d_normed = layer.qkv.input_gradient(&d_qkv, &g, stack);
            gradient = layer.input_norm.backward(&d_normed, &at.x, &at.x_scale).g_add_(&d_y);
        }
        Ok(())
    }

    /// See [`Head::loss_gradient`].
    pub(crate) fn loss_gradient(&self, hidden: &Tensor, targets: &Targets, weights: &Tensor) -> (Tensor, Tensor) {
        let _guard = tch::no_grad_guard();
        self.head.loss_gradient(hidden, targets, weights)
    }

    /// See [`Head::logits`].
    pub(crate) fn logits(&self, hidden: &Tensor) -> Tensor {
        let _guard = tch::no_grad_guard();
        self.head.logits(hidden)
    }

    /// Query heads, key-value heads, head width.
    fn head_counts(&self) -> (i64, i64, i64) {
        let config = &self.config;
        (config.heads as i64, config.kv_heads as i64, config.head_dim as i64)
    }
}

/// What the tokens of a forward pass see.
enum Sight<'a> {
    /// The tokens of their own row.
    Rows(&'a Mask),
    /// What the pack holds for them.
    Pack(Pack<'a>),
}

impl Sight<'_> {
    fn positions(&self) -> &Tensor {
        match self {
            Self::Rows(mask) => mask.positions(),
            Self::Pack(pack) => pack.positions(),
        }
    }
}

fn is_wanted(projection: &Projection, wanted: &dyn Fn(&ModulePath) -> bool) -> bool {
    projection.parts().iter().any(|part| wanted(&part.path))
}

/// silu(gate) * up, from [tokens, 2 d_ff] to [tokens, d_ff].
fn gated(gate_up: &Tensor) -> Tensor {
    let halves = gate_up.chunk(2, 1);
    halves[0].silu().g_mul_(&halves[1])
}

/// The gradient at gate and up, [tokens, 2 d_ff], given the one at silu(gate) * up.
fn gated_backward(gate_up: &Tensor, mut gradient: Tensor) -> Tensor {
    let out = gate_up.empty_like();
    let (halves, d) = (gate_up.chunk(2, 1), out.chunk(2, 1));
    let _ = gradient.mul_out(&d[1], &halves[0].silu());
    let scaled = gradient.g_mul_(&halves[1]);
    let _ = halves[0].silu_backward_grad_input(&d[0], &scaled);
    out
}

/// [batch, seq, heads, head_dim] -> [batch * seq, heads * head_dim].
fn joined_heads(mixed: &Tensor) -> Tensor {
    mixed.flatten(2, 3).flatten(0, 1)
}

#[allow(clippy::too_many_arguments)]
fn reading(
    projection: &Projection,
    (batch, seq): (i64, i64),
    input: &Tensor,
    d: &Tensor,
    h: Vec<Tensor>,
    g: &[Tensor],
    stack: &[&Lora],
    wanted: &dyn Fn(&ModulePath) -> bool,
) -> Reading {
    let rows = |t: &Tensor| t.unflatten(0, [batch, seq]);
    let mut linears: Vec<LinearGradient> = Vec::new();
    for part in projection.parts().iter().filter(|part| wanted(&part.path)) {
        let adapted = projection.adapted(stack).zip(h.iter().zip(g));
        let of_part = adapted.filter(|((p, _, _), _)| p.path == part.path);
        linears.push(LinearGradient {
            path: part.path.clone(),
            output: rows(&d.narrow(1, part.from, part.d_out)),
            lora: of_part
                .map(|((_, adapter, factors), (h, g))| LoraGradient {
                    adapter,
                    scale: factors.scale,
                    h: rows(h),
                    g: rows(g),
                })
                .collect(),
        });
    }
    Reading {
        input: rows(input),
        linears,
    }
}

impl Layer {
    fn load(weights: &Weights, config: &ModelConfig, n: usize) -> Result<Self, Error> {
        let (d, ff) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let at = |name: &str| format!("model.layers.{n}.{name}");
        let norm = |name: &str| RmsNorm::load(weights, &at(&format!("{name}.weight")), d, config.rms_norm_eps);
        let attn = |name: &str, width| (at(&format!("self_attn.{name}_proj")), width);
        let mlp = |name: &str, width| (at(&format!("mlp.{name}_proj")), width);
        let load = |paths: &[(String, usize)], d_in, bias| Projection::load(weights, paths, d_in, bias);
        Ok(Self {
            input_norm: norm("input_layernorm")?,
            qkv: load(&[attn("q", q), attn("k", kv), attn("v", kv)], d, config.qkv_bias)?,
            o: load(&[attn("o", d)], q, config.o_bias)?,
            post_norm: norm("post_attention_layernorm")?,
            gate_up: load(&[mlp("gate", ff), mlp("up", ff)], d, config.mlp_bias)?,
            down: load(&[mlp("down", d)], ff, config.mlp_bias)?,
        })
    }
}
