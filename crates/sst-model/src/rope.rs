//! Rotary position embedding (Su et al. 2021), in the half-split layout of Hugging Face models.
//!
//! Frequencies theta_j = base^(-2j / head_dim), j < head_dim / 2; a pair (x_j, x_{j + head_dim/2}) at position p
//! turns by the angle p theta_j.

use crate::config::{ModelConfig, RopeScaling};
use std::f64::consts::PI;
use tch::{Device, Kind, Tensor};

/// Rotary frequencies of a model on its device.
#[derive(Debug)]
pub(crate) struct Rope {
    frequencies: Tensor, // [head_dim / 2], f32
}

impl Rope {
    pub(crate) fn new(config: &ModelConfig, device: Device) -> Self {
        let frequencies: Vec<f32> = frequencies(config).iter().map(|f| *f as f32).collect();
        Self {
            frequencies: Tensor::from_slice(&frequencies).to_device(device),
        }
    }

    /// The rotation at `positions` ([batch, seq], int64), in arithmetic of `kind`.
    pub(crate) fn at(&self, positions: &Tensor, kind: Kind) -> Rotation {
        let angles = positions.to_kind(Kind::Float).unsqueeze(-1) * &self.frequencies;
        let angles = angles.unsqueeze(2); // [batch, seq, 1, head_dim / 2]
        let sin = angles.sin().to_kind(kind);
        Rotation {
            cos: angles.cos().to_kind(kind),
            minus_sin: sin.neg(),
            sin,
        }
    }
}

/// Cosines and sines of the angles at given positions, each [batch, seq, 1, head_dim / 2].
pub(crate) struct Rotation {
    cos: Tensor,
    sin: Tensor,
    minus_sin: Tensor,
}

impl Rotation {
    /// Turns `x` [batch, seq, heads, head_dim] forward.
    pub(crate) fn apply(&self, x: &Tensor) -> Tensor {
        let out = Tensor::empty(x.size(), (x.kind(), x.device()));
        self.turn(x, &self.sin, &self.minus_sin, &out);
        out
    }

    /// Turns `x` back and writes it to `out`: rotations are orthogonal, so this is also their gradient.
    pub(crate) fn invert_into(&self, x: &Tensor, out: &Tensor) {
        self.turn(x, &self.minus_sin, &self.sin, out);
    }

    /// (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin).
    fn turn(&self, x: &Tensor, sin: &Tensor, minus_sin: &Tensor, out: &Tensor) {
        let (x, out) = (x.chunk(2, -1), out.chunk(2, -1));
        let _ = x[0].mul_out(&out[0], &self.cos).addcmul_(&x[1], minus_sin);
        let _ = x[1].mul_out(&out[1], &self.cos).addcmul_(&x[0], sin);
    }
}

/// Angle per position of each pair, after scaling.
fn frequencies(config: &ModelConfig) -> Vec<f64> {
    let d = config.head_dim as f64;
    (0..config.head_dim / 2)
        .map(|j| scale(config.rope_theta.powf(-2.0 * j as f64 / d), config.rope_scaling))
        .collect()
}

fn scale(frequency: f64, scaling: RopeScaling) -> f64 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 {
            factor,
            low,
            high,
            original,
        } => {
            let wavelength = 2.0 * PI / frequency;
            // 1 for short wavelengths, 0 for long ones.
            let kept = ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0);
            kept * frequency + (1.0 - kept) * frequency / factor
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_short_waves_and_divides_long_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low: 1.0,
            high: 4.0,
            original: 8192.0,
        };
        assert_eq!(scale(1.0, scaling), 1.0);
        let long = 2.0 * PI / 10_000.0;
        assert_eq!(scale(long, scaling), long / 8.0);
        let middle = 2.0 * PI / 4096.0; // wavelength at original / 2: a third of the way up the ramp
        let expected = middle * (1.0 / 3.0 + (2.0 / 3.0) / 8.0);
        assert!((scale(middle, scaling) - expected).abs() < 1e-15);
    }
}
