//! Root mean square normalisation (Zhang & Sennrich 2019): y = x r w with r = 1 / sqrt(mean(x^2) + eps), and its gradient
//! dx = r (w dy - x r^2 mean(w dy x)). Means are taken in f32.

use crate::Error;
use crate::weights::Weights;
use tch::{Kind, Tensor};

#[derive(Debug)]
pub(super) struct RmsNorm {
    weight: Tensor, // [d]
    eps: f64,
}

impl RmsNorm {
    pub fn load(weights: &Weights, name: &str, d: usize, eps: f64) -> Result<Self, Error> {
        Ok(Self {
            weight: weights.take(name, &[d])?,
            eps,
        })
    }

    /// 1 / sqrt(mean(x^2) + eps) of every row of x [n, d]: f32 [n, 1].
    pub fn scale(&self, x: &Tensor) -> Tensor {
        let d = x.size()[1] as f64;
        let length = x.linalg_norm(2.0, [-1i64].as_slice(), true, Kind::Float);
        (length.square() / d + self.eps).rsqrt()
    }

    /// x [n, d] with its [`RmsNorm::scale`] -> [n, d].
    pub fn apply(&self, x: &Tensor, scale: &Tensor) -> Tensor {
        let mut y = (x * scale).to_kind(x.kind());
        y.g_mul_(&self.weight)
    }

    /// Gradient at x [n, d], given the gradient at the output.
    pub fn backward(&self, gradient: &Tensor, x: &Tensor, scale: &Tensor) -> Tensor {
        let (kind, d) = (x.kind(), x.size()[1] as f64);
        let weighted = (gradient * &self.weight).to_kind(Kind::Float);
        let x = x.to_kind(Kind::Float);
        let mean = Tensor::linalg_vecdot(&weighted, &x, -1).unsqueeze(1) / d;
        let shrink = mean * scale.square() * -1.0;
        let mut inner = weighted.addcmul(&x, &shrink);
        inner.g_mul_(scale).to_kind(kind)
    }
}
