//! libtorch's own kernels, which differ between devices: the one place where libtorch differentiates.

use crate::mask::Mask;
use tch::{Kind, Tensor};

/// Queries, keys, values and the result, joined by libtorch's record of how the result came about.
pub(in super::super) struct Fused {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
}

pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Tensor {
    let grouped = q.size()[2] != k.size()[2];
    let [q, k, v] = [q, k, v].map(|t| t.transpose(1, 2)); // [batch, heads, seq, head_dim]
    Tensor::scaled_dot_product_attention(&q, &k, &v, mask.bias(), 0.0, mask.is_causal(), None::<f64>, grouped)
        .transpose(1, 2)
}

impl Fused {
    pub fn new(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Self {
        let leaf = |t: &Tensor| t.detach().set_requires_grad(true);
        let (q, k, v) = (leaf(q), leaf(k), leaf(v));
        let out = tch::with_grad(|| attend(&q, &k, &v, mask));
        Self { q, k, v, out }
    }

    pub fn out(&self) -> Tensor {
        self.out.detach()
    }

    pub fn backward(self, gradient: &Tensor) -> Result<[Tensor; 3], tch::TchError> {
        let inner = tch::with_grad(|| (&self.out * gradient).sum(Kind::Float));
        let gradients = Tensor::f_run_backward(&[inner], &[&self.q, &self.k, &self.v], false, false)?;
        <[Tensor; 3]>::try_from(gradients).map_err(|got| {
            let message = format!("{} gradients of attention instead of 3", got.len());
            tch::TchError::Kind(message)
        })
    }
}
