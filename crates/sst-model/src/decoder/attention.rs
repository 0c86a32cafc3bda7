//! Causal attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023).
//!
//! This is the one place where libtorch differentiates: its fused kernels differ between devices, and each knows its own
//! gradient.

use crate::mask::Mask;
use tch::{Kind, Tensor};

/// Queries, keys, values and the result, joined by libtorch's record of how the result came about.
pub(super) struct Attended {
    q: Tensor,   // [batch, heads, seq, head_dim]
    k: Tensor,   // [batch, kv_heads, seq, head_dim]
    v: Tensor,   // [batch, kv_heads, seq, head_dim]
    out: Tensor, // [batch, heads, seq, head_dim]
}

/// softmax(q k^T / sqrt(head_dim) + bias) v, [batch, heads, seq, head_dim].
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Tensor {
    let grouped = q.size()[1] != k.size()[1];
    Tensor::scaled_dot_product_attention(q, k, v, mask.bias(), 0.0, mask.is_causal(), None::<f64>, grouped)
}

impl Attended {
    pub fn new(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Self {
        let leaf = |t: &Tensor| t.detach().set_requires_grad(true);
        let (q, k, v) = (leaf(q), leaf(k), leaf(v));
        let out = tch::with_grad(|| attend(&q, &k, &v, mask));
        Self { q, k, v, out }
    }

    pub fn out(&self) -> Tensor {
        self.out.detach()
    }

    /// Gradients at q, k and v, given the one at the result.
    pub fn backward(self, gradient: &Tensor) -> Result<[Tensor; 3], tch::TchError> {
        let inner = tch::with_grad(|| (&self.out * gradient).sum(Kind::Float));
        let gradients = Tensor::f_run_backward(&[inner], &[&self.q, &self.k, &self.v], false, false)?;
        <[Tensor; 3]>::try_from(gradients).map_err(|got| {
            let message = format!("{} gradients of attention instead of 3", got.len());
            tch::TchError::Kind(message)
        })
    }
}
