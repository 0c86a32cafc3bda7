//! What one forward pass keeps for the backward pass, and what the backward pass shows of every linear.
//!
//! For a linear with y = W x + s B (A x): d is the gradient at y, h = A x, g = s B^T d. Sample i's own gradients are
//! dB_i = s sum_t d_t h_t^T and dA_i = sum_t g_t x_t^T, the sums over that sample's tokens: one backward pass of the summed
//! losses gives them all, for the rows of a batch do not meet.

use super::attention::Attended;
use crate::rope::Rotation;
use sst_adapter::ModulePath;
use tch::{Kind, Tensor};

/// The forward pass of one batch; [tokens, ..] stands for [batch * seq, ..].
pub(crate) struct Tape {
    pub(super) layers: Vec<LayerTape>,
    pub(super) rotation: Rotation,
    pub(super) batch: i64,
    pub(super) seq: i64,
    /// The tokens whose hidden states were asked for.
    pub(super) rows: Tensor,
    /// Whether the last layer computed nothing else after its attention.
    pub(super) early: bool,
}

pub(super) struct LayerTape {
    pub x: Tensor,       // [tokens, d_model], the layer's input
    pub x_scale: Tensor, // [tokens, 1]
    pub qkv_h: Vec<Tensor>,
    pub attended: Attended,
    pub o_h: Vec<Tensor>,
    pub y: Tensor,       // [tokens, d_model], after attention
    pub y_scale: Tensor, // [tokens, 1]
    pub gate_up: Tensor, // [tokens, 2 d_ff]
    pub gate_up_h: Vec<Tensor>,
    pub down_h: Vec<Tensor>,
}

/// One input and the linears that read it, as the backward pass meets them.
#[derive(Debug)]
pub struct Reading {
    /// The input x, [batch, seq, d_in] in the model's kind. Padding holds no meaning.
    pub input: Tensor,
    /// The linears asked for, in model order.
    pub linears: Vec<LinearGradient>,
}

/// The gradient at one linear's output.
#[derive(Debug)]
pub struct LinearGradient {
    /// The linear.
    pub path: ModulePath,
    /// d, the gradient of the summed losses at y, [batch, seq, d_out]; zero at padding.
    pub output: Tensor,
    /// Of every adapter that changes the linear.
    pub lora: Vec<LoraGradient>,
}

/// What the gradients of one adapter's factors are made of.
#[derive(Debug)]
pub struct LoraGradient {
    /// The adapter's place in the stack.
    pub adapter: usize,
    /// s.
    pub scale: f64,
    /// h = A x, [batch, seq, r].
    pub h: Tensor,
    /// g = s B^T d, [batch, seq, r].
    pub g: Tensor,
}

/// Gradients of one linear's factors.
#[derive(Debug)]
pub struct FactorGradients {
    /// The linear.
    pub path: ModulePath,
    /// Gradient of A, f32: [batch, r, d_in] per sample, [r, d_in] summed.
    pub a: Tensor,
    /// Gradient of B, f32: [batch, d_out, r] per sample, [d_out, r] summed.
    pub b: Tensor,
}

impl Reading {
    /// Every sample's own gradients of the factors of the adapter at place `adapter` in the stack.
    pub fn per_sample(&self, adapter: usize) -> impl Iterator<Item = FactorGradients> {
        self.factors(adapter, |left, right| left.transpose(1, 2).bmm(right))
    }

    /// Those gradients summed over the batch, as training takes them.
    pub fn summed(&self, adapter: usize) -> impl Iterator<Item = FactorGradients> {
        let flat = |t: &Tensor| t.flatten(0, 1);
        self.factors(adapter, move |left, right| flat(left).tr().matmul(&flat(right)))
    }

    fn factors(
        &self,
        adapter: usize,
        product: impl Fn(&Tensor, &Tensor) -> Tensor,
    ) -> impl Iterator<Item = FactorGradients> {
        let wide = |t: &Tensor| t.to_kind(Kind::Float);
        let input = wide(&self.input);
        self.linears.iter().filter_map(move |linear| {
            let lora = linear.lora.iter().find(|l| l.adapter == adapter)?;
            Some(FactorGradients {
                path: linear.path.clone(),
                a: product(&wide(&lora.g), &input),
                b: product(&wide(&linear.output), &wide(&lora.h)) * lora.scale,
            })
        })
    }
}
