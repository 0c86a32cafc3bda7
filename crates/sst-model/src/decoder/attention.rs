//! Causal attention with grouped queries (Vaswani et al. 2017; Ainslie et al. 2023), and its gradient.
//!
//! libtorch's fused kernels are the fastest on a GPU, and each knows its own gradient. On the CPU small matrix products are
//! faster, forward and backward.

mod blocked;
mod fused;

use crate::mask::Mask;
use blocked::Blocked;
use fused::Fused;
use tch::{Device, Kind, Tensor};

/// softmax(q k^T / sqrt(head_dim) + bias) v, [batch, seq, heads, head_dim], from q of that shape and k, v
/// [batch, keys, kv_heads, head_dim].
pub(crate) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Tensor {
    fused::attend(q, k, v, mask)
}

/// The result of attention with what its gradient needs.
pub(super) enum Attended {
    Fused(Fused),
    Blocked(Blocked),
}

impl Attended {
    pub fn new(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Self {
        if q.device() == Device::Cpu && q.kind() == Kind::Float && mask.is_causal() {
            Self::Blocked(Blocked::new(q, k, v))
        } else {
            Self::Fused(Fused::new(q, k, v, mask))
        }
    }

    /// [batch, seq, heads, head_dim].
    pub fn out(&self) -> Tensor {
        match self {
            Self::Fused(fused) => fused.out(),
            Self::Blocked(blocked) => blocked.out(),
        }
    }

    /// Gradients at q, k and v, given the one at the result; all in their shapes.
    pub fn backward(self, gradient: &Tensor) -> Result<[Tensor; 3], tch::TchError> {
        match self {
            Self::Fused(fused) => fused.backward(gradient),
            Self::Blocked(blocked) => Ok(blocked.backward(gradient)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_agree_in_value_and_gradient() {
        let _guard = tch::no_grad_guard();
        let on = (Kind::Float, Device::Cpu);
        for (batch, seq, heads, kv_heads) in [(2, 5, 4, 2), (1, 64, 2, 2), (2, 150, 6, 2)] {
            let wave = |heads: i64, pace: f64| {
                let count = batch * seq * heads * 8;
                (Tensor::arange(count, on) * pace).sin().reshape([batch, seq, heads, 8])
            };
            let (q, k, v) = (wave(heads, 0.7), wave(kv_heads, 1.3), wave(kv_heads, 0.4));
            let mask = Mask::padded(&vec![0; batch as usize], seq, None, on);
            let blocked = Attended::new(&q, &k, &v, &mask);
            assert!(matches!(blocked, Attended::Blocked(_)));
            let fused = Fused::new(&q, &k, &v, &mask);
            let gradient = wave(heads, 2.1);
            let (ours, theirs) = (blocked.out(), fused.out());
            let gradients = blocked.backward(&gradient).unwrap();
            let expected = fused.backward(&gradient).unwrap();
            for (ours, theirs) in [(&ours, &theirs)].into_iter().chain(gradients.iter().zip(&expected)) {
                assert_eq!(ours.size(), theirs.size());
                let gap = (ours - theirs).abs().max().double_value(&[]);
                // Sums of up to `seq` products of numbers near 1, in another order.
                let bound = f64::from(f32::EPSILON) * 4.0 * seq as f64;
                assert!(gap <= bound, "seq {seq}: {gap} > {bound}");
            }
        }
    }
}
