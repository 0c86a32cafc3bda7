//! W + dW for some rows of a weight as they lie in the file.
//!
//! dW = b a is summed in f32 and added to W in f32; the sum is rounded once, to the nearest value y of W's own type, ties
//! to even. What rounding takes away is measured: the sum of (y - W - dW)^2 beside that of dW^2.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use half::f16;
use rayon::prelude::*;
use safetensors::Dtype;
use sst_adapter::LowRank;

/// Rows that one thread takes at a time: few, so that their dW stays in its cache.
const ROWS: usize = 8;
/// Entries that are changed before they are summed up: few, so that they are still in the first-level cache.
const RUN: usize = 1024;
/// Sums that run side by side, so that no addition waits for the one before it.
const LANES: usize = 8;

/// Squared norms over the rows changed so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Change {
    /// ||dW||^2.
    pub delta: f64,
    /// ||y - W - dW||^2.
    pub lost: f64,
}

impl std::ops::AddAssign for Change {
    fn add_assign(&mut self, other: Self) {
        self.delta += other.delta;
        self.lost += other.lost;
    }
}

/// Adds rows `first..` of `change` to `rows`, whole rows of type `dtype`; none when a sum is not finite.
pub(super) fn add_rows(rows: &mut [u8], dtype: Dtype, change: &LowRank, first: usize) -> Option<Change> {
    let row_bytes = change.a.ncols() * dtype.bitsize() / 8;
    let parts: Vec<Change> = rows
        .par_chunks_mut(ROWS * row_bytes)
        .enumerate()
        .map_init(Vec::new, |delta, (i, rows)| {
            fill_delta(delta, change, first + i * ROWS, rows.len() / row_bytes);
            match dtype {
                Dtype::F32 => add(rows, delta, f32::from_le_bytes, f32::to_le_bytes),
                Dtype::BF16 => add(rows, delta, from_bf16, nearest_bf16),
                Dtype::F16 => {
                    let narrow = |x| f16::from_f32(x).to_le_bytes();
                    add(rows, delta, |y| f16::from_le_bytes(y).to_f32(), narrow)
                }
                other => unreachable!("no change is made for {other:?}"),
            }
        })
        .collect();
    let mut total = Change::default();
    // In the order of the rows, whichever thread was first.
    parts.into_iter().for_each(|part| total += part);
    // An infinity or a NaN in W or y is one in the difference, too.
    total.lost.is_finite().then_some(total)
}

/// dW of `count` rows from `first` on, `[count, d_in]`, row-major.
fn fill_delta(delta: &mut Vec<f32>, change: &LowRank, first: usize, count: usize) {
    let (rank, d_in) = change.a.dim();
    delta.resize(count * d_in, 0.0);
    let a = change.a.as_standard_layout();
    let b = change.b.as_standard_layout();
    let (Some(a), Some(b)) = (a.as_slice(), b.as_slice()) else {
        unreachable!("standard layout is a slice");
    };
    matmul(
        MatMut::from_row_major_slice_mut(delta, count, d_in),
        Accum::Replace,
        MatRef::from_row_major_slice(&b[first * rank..(first + count) * rank], count, rank),
        MatRef::from_row_major_slice(a, rank, d_in),
        1.0,
        Par::Seq,
    );
}

/// Adds `delta` to the entries in `rows`, of `N` bytes each, and leaves in it what rounding took away.
fn add<const N: usize>(
    rows: &mut [u8],
    delta: &mut [f32],
    widen: impl Fn([u8; N]) -> f32,
    narrow: impl Fn(f32) -> [u8; N],
) -> Change {
    let (entries, _) = rows.as_chunks_mut::<N>();
    let mut change = Change::default();
    // Changing and summing in loops of their own, each of which the compiler turns into vector instructions.
    for (entries, delta) in entries.chunks_mut(RUN).zip(delta.chunks_mut(RUN)) {
        change.delta += squares(delta);
        for (entry, d) in entries.iter_mut().zip(&mut *delta) {
            let w = widen(*entry);
            *entry = narrow(w + *d);
            *d = (widen(*entry) - w) - *d;
        }
        change.lost += squares(delta);
    }
    change
}

/// The sum of squares, in f64.
fn squares(x: &[f32]) -> f64 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()
}

/// The value of a bf16. Like its inverse without the crate's branch for NaN, so that a whole block is done at once.
fn from_bf16(y: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(y)) << 16)
}

/// The bf16 nearest to `x`, ties to even. A NaN may become any value: whoever calls this looks at `x` as well.
fn nearest_bf16(x: f32) -> [u8; 2] {
    let bits = x.to_bits();
    let half = 0x7fff + ((bits >> 16) & 1);
    ((bits.wrapping_add(half) >> 16) as u16).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use ndarray::Array2;

    /// A change of a weight `[d_out, d_in]` of rank `r`, its entries between -1 and 1.
    fn change(d_out: usize, r: usize, d_in: usize) -> LowRank {
        let entry = |i: usize| ((i * 37 + 11) % 101) as f32 / 50.5 - 1.0;
        LowRank {
            a: Array2::from_shape_fn((r, d_in), |(i, j)| entry(i * d_in + j)),
            b: Array2::from_shape_fn((d_out, r), |(i, j)| entry(7 + i * r + j)),
        }
    }

    /// dW in f64, by its definition.
    fn exact(change: &LowRank, i: usize, j: usize) -> f64 {
        let terms = (0..change.rank()).map(|k| f64::from(change.b[[i, k]]) * f64::from(change.a[[k, j]]));
        terms.sum()
    }

    #[test]
    fn every_type_is_rounded_once_from_the_sum() {
        // More rows than one thread takes, a row that is no multiple of the lanes.
        let (d_out, r, d_in, first) = (3 * ROWS + 5, 3, 4 * LANES + 3, 2);
        let change = change(first + d_out, r, d_in);
        let weight = |i: usize| ((i * 29 + 3) % 89) as f32 / 16.0 - 2.75; // exact in every type
        let (w, n) = (|i, j| f64::from(weight(i * d_in + j)), d_out * d_in);
        let f32s: Vec<u8> = (0..n).flat_map(|i| weight(i).to_le_bytes()).collect();
        let bf16s: Vec<u8> = (0..n).flat_map(|i| bf16::from_f32(weight(i)).to_le_bytes()).collect();
        let f16s: Vec<u8> = (0..n).flat_map(|i| f16::from_f32(weight(i)).to_le_bytes()).collect();
        // |y - x| <= u |x| for the type's unit roundoff u; the f32 sum of r terms of at most 1 adds its own.
        let sum_error = |x: f64| f64::from(f32::EPSILON) * (r as f64 + x.abs());
        for (mut bytes, dtype, unit) in [
            (f32s, Dtype::F32, 2f64.powi(-24)),
            (bf16s, Dtype::BF16, 2f64.powi(-8)),
            (f16s, Dtype::F16, 2f64.powi(-11)),
        ] {
            let size = bytes.len() / n;
            let measured = add_rows(&mut bytes, dtype, &change, first).unwrap();
            let (mut delta, mut lost) = (0.0, 0.0);
            for (at, y) in bytes.chunks(size).enumerate() {
                let y = match dtype {
                    Dtype::F32 => f32::from_le_bytes(y.try_into().unwrap()),
                    Dtype::BF16 => bf16::from_le_bytes(y.try_into().unwrap()).to_f32(),
                    _ => f16::from_le_bytes(y.try_into().unwrap()).to_f32(),
                };
                let (i, j) = (at / d_in, at % d_in);
                let d = exact(&change, first + i, j);
                let x = w(i, j) + d;
                let error = (f64::from(y) - x).abs();
                assert!(
                    error <= unit * x.abs() + sum_error(x),
                    "{dtype:?} [{i}, {j}]: {y} for {x}"
                );
                (delta, lost) = (delta + d * d, lost + error * error);
            }
            assert!((measured.delta - delta).abs() <= 1e-5 * delta, "{measured:?} {delta}");
            // In f32 the sum's own rounding is as large as what is measured.
            let share = if dtype == Dtype::F32 { 0.9 } else { 1e-2 };
            assert!((measured.lost - lost).abs() <= share * lost, "{measured:?} {lost}");
        }
    }

    #[test]
    fn bf16_is_rounded_as_by_the_crate() {
        for high in 0..=u16::MAX {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(high) << 16 | low);
                if !x.is_nan() {
                    assert_eq!(from_bf16(high.to_le_bytes()), bf16::from_bits(high).to_f32());
                    assert_eq!(nearest_bf16(x), bf16::from_f32(x).to_le_bytes(), "{x:e}");
                }
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_an_overflow_is_found() {
        let change = |d: f32| LowRank {
            a: Array2::from_elem((1, 1), 1.0),
            b: Array2::from_elem((1, 1), d),
        };
        // bf16 has 8 bits: 1 + 2^-8 lies between 1 and 1 + 2^-7, 1 + 3 * 2^-8 between that and 1 + 2^-6.
        for (d, expected) in [(2f32.powi(-8), 1.0), (3.0 * 2f32.powi(-8), 1.0 + 2f32.powi(-6))] {
            let mut row = bf16::from_f32(1.0).to_le_bytes();
            let change = add_rows(&mut row, Dtype::BF16, &change(d), 0).unwrap();
            assert_eq!(bf16::from_le_bytes(row).to_f32(), expected);
            assert_eq!(change.delta, f64::from(d).powi(2));
            assert_eq!(change.lost, f64::from(2f32.powi(-8)).powi(2));
        }
        let mut row = f16::from_f32(60000.0).to_le_bytes();
        assert_eq!(add_rows(&mut row, Dtype::F16, &change(6000.0), 0), None);
        let mut row = f32::NAN.to_le_bytes();
        assert_eq!(add_rows(&mut row, Dtype::F32, &change(1.0), 0), None);
    }
}
