//! One encoder layer: y = norm(x + attention(x)), z = norm(y + W2 gelu(W1 y)).
//!
//! Longformer's attention has two sets of projections. A token's query meets the keys within its window and the key of
//! `<s>`; the query of `<s>`, by a projection of its own, meets the keys of all tokens by another. Long texts are rare
//! among answers, so the window is a mask over all pairs.

use super::{Architecture, EncoderConfig};
use crate::Error;
use crate::weights::Weights;
use tch::{Device, Kind, Tensor};

#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor, // [out, in]
    bias: Tensor,   // [out]
}

impl Linear {
    pub fn load(weights: &Weights, name: &str, d_in: usize, d_out: usize) -> Result<Self, Error> {
        Ok(Self {
            weight: weights.take(&format!("{name}.weight"), &[d_out, d_in])?,
            bias: weights.take(&format!("{name}.bias"), &[d_out])?,
        })
    }

    pub fn apply(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

#[derive(Debug)]
pub(super) struct Norm {
    weight: Tensor, // [d]
    bias: Tensor,   // [d]
    eps: f64,
}

impl Norm {
    pub fn load(weights: &Weights, name: &str, config: &EncoderConfig) -> Result<Self, Error> {
        let shape = [config.hidden];
        Ok(Self {
            weight: weights.take(&format!("{name}.weight"), &shape)?,
            bias: weights.take(&format!("{name}.bias"), &shape)?,
            eps: config.eps,
        })
    }

    pub fn apply(&self, x: &Tensor) -> Tensor {
        let d = self.weight.size();
        x.layer_norm(d, Some(&self.weight), Some(&self.bias), self.eps, false)
    }
}

/// Which tokens of a padded batch are there to be seen.
pub(super) struct Sight {
    /// 0 where a token is, minus infinity where padding is: [batch, 1, 1, seq].
    bias: Tensor,
    seq: i64,
}

impl Sight {
    pub fn new(lengths: &[i64], seq: i64, device: Device) -> Self {
        let lengths = Tensor::from_slice(lengths).to_device(device).unsqueeze(1);
        let padding = Tensor::arange(seq, (Kind::Int64, device))
            .unsqueeze(0)
            .ge_tensor(&lengths);
        Self {
            bias: hidden_where(&padding).unsqueeze(1).unsqueeze(1),
            seq,
        }
    }

    /// As a token sees that reaches `side` tokens far on each side, and `<s>`: [batch, 1, seq, seq].
    fn within(&self, side: i64) -> Tensor {
        let at = Tensor::arange(self.seq, (Kind::Int64, self.bias.device()));
        let far = (at.unsqueeze(1) - at.unsqueeze(0)).abs().gt(side); // [seq, seq]
        let beyond = far.logical_and(&at.ne(0).unsqueeze(0));
        &self.bias + hidden_where(&beyond)
    }
}

fn hidden_where(unseen: &Tensor) -> Tensor {
    unseen.to_kind(Kind::Float).masked_fill(unseen, f64::NEG_INFINITY)
}

/// Query, key and value projections.
#[derive(Debug)]
struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
}

impl Projections {
    fn load(weights: &Weights, name: &str, end: &str, d: usize) -> Result<Self, Error> {
        let linear = |part: &str| Linear::load(weights, &format!("{name}.{part}{end}"), d, d);
        Ok(Self {
            query: linear("query")?,
            key: linear("key")?,
            value: linear("value")?,
        })
    }

    /// Attention of `asking` [batch, n, d] to `x` [batch, seq, d] under a bias -> [batch, n, d].
    fn attend(&self, asking: &Tensor, x: &Tensor, bias: &Tensor, heads: i64) -> Tensor {
        let split = |y: Tensor| y.unflatten(-1, [heads, -1]).transpose(1, 2); // [batch, heads, _, d / heads]
        let (q, k, v) = (
            split(self.query.apply(asking)),
            split(self.key.apply(x)),
            split(self.value.apply(x)),
        );
        let scale = (q.size()[3] as f64).sqrt();
        let scores = q.matmul(&k.transpose(-2, -1)) / scale + bias;
        let mixed = scores.softmax(-1, Kind::Float).matmul(&v);
        mixed.transpose(1, 2).flatten(2, 3)
    }
}

#[derive(Debug)]
pub(super) struct Layer {
    projections: Projections,
    /// Longformer's second set, and how far a token sees on each side.
    global: Option<(Projections, i64)>,
    out: Linear,
    norm: Norm,
    up: Linear,
    down: Linear,
    last_norm: Norm,
    heads: i64,
}

impl Layer {
    pub fn load(weights: &Weights, name: &str, config: &EncoderConfig, at: usize) -> Result<Self, Error> {
        let (d, own) = (config.hidden, format!("{name}.attention.self"));
        let global = match &config.architecture {
            Architecture::Roberta => None,
            Architecture::Longformer(sides) => Some((Projections::load(weights, &own, "_global", d)?, sides[at])),
        };
        Ok(Self {
            projections: Projections::load(weights, &own, "", d)?,
            global,
            out: Linear::load(weights, &format!("{name}.attention.output.dense"), d, d)?,
            norm: Norm::load(weights, &format!("{name}.attention.output.LayerNorm"), config)?,
            up: Linear::load(weights, &format!("{name}.intermediate.dense"), d, config.inner)?,
            down: Linear::load(weights, &format!("{name}.output.dense"), config.inner, d)?,
            last_norm: Norm::load(weights, &format!("{name}.output.LayerNorm"), config)?,
            heads: config.heads as i64,
        })
    }

    /// [batch, seq, d] -> [batch, seq, d].
    pub fn apply(&self, x: &Tensor, sight: &Sight) -> Tensor {
        let attended = match &self.global {
            None => self.projections.attend(x, x, &sight.bias, self.heads),
            Some((global, side)) => {
                let local = self.projections.attend(x, x, &sight.within(*side), self.heads);
                let first = global.attend(&x.narrow(1, 0, 1), x, &sight.bias, self.heads);
                Tensor::cat(&[first, local.narrow(1, 1, sight.seq - 1)], 1)
            }
        };
        let y = self.norm.apply(&(x + self.out.apply(&attended)));
        let inner = self.down.apply(&self.up.apply(&y).gelu("none"));
        self.last_norm.apply(&(y + inner))
    }
}
