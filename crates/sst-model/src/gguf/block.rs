//! How weights are stored: plain floats, or blocks of 32 that share a scale `d` (and an offset `m`), both f16.
//!
//! | type | bytes per block | weight `j` of a block |
//! | --- | --- | --- |
//! | `F32`, `F16` | 4, 2 (one weight) | itself |
//! | `Q4_1` | 20: `d`, `m`, 16 bytes of nibbles | `d q_j + m`; low nibbles are weights 0-15, high ones 16-31 |
//! | `Q8_0` | 34: `d`, 32 signed bytes | `d q_j` |
//!
//! Source: the reference quantisers of ggml.

use half::f16;

const BLOCK: usize = 32;

/// How a tensor's weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 4 bits per weight with scale and offset per block.
    Q4_1,
    /// 8 bits per weight with scale per block.
    Q8_0,
}

impl GgufType {
    pub(super) fn from_ggml(id: u32) -> Option<Self> {
        match id {
            0 => Some(Self::F32),
            1 => Some(Self::F16),
            3 => Some(Self::Q4_1),
            8 => Some(Self::Q8_0),
            _ => None,
        }
    }

    /// Weights per block and bytes per block.
    pub(super) fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 => (1, 2),
            Self::Q4_1 => (BLOCK, 20),
            Self::Q8_0 => (BLOCK, 34),
        }
    }

    /// Decodes whole blocks to f32, exactly as ggml's reference does: each product and sum rounded to f32.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let half = |b: &[u8]| f16::from_le_bytes([b[0], b[1]]).to_f32();
        let (weights, size) = self.block();
        let mut out = Vec::with_capacity(bytes.len() / size * weights);
        for block in bytes.chunks_exact(size) {
            match self {
                Self::F32 => out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
                Self::F16 => out.push(half(block)),
                Self::Q4_1 => {
                    let (d, m) = (half(block), half(&block[2..]));
                    let nibbles = &block[4..];
                    out.extend(nibbles.iter().map(|q| f32::from(q & 0x0f) * d + m));
                    out.extend(nibbles.iter().map(|q| f32::from(q >> 4) * d + m));
                }
                Self::Q8_0 => {
                    let d = half(block);
                    out.extend(block[2..].iter().map(|&q| f32::from(q.cast_signed()) * d));
                }
            }
        }
        out
    }
}
