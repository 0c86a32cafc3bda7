//! Between ndarray and faer: conversion to f64 and products, on one thread; callers run many modules at a time instead.

use crate::Error;
use faer::linalg::matmul::{
    matmul,
    triangular::{self, BlockStructure},
};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::{ArrayView2, s};

/// Columns of a Gram matrix's factor that are converted at a time.
const GRAM_COLUMNS: usize = 256;

pub(super) fn f64s(m: ArrayView2<f32>) -> Mat<f64> {
    Mat::from_fn(m.nrows(), m.ncols(), |i, j| f64::from(m[[i, j]]))
}

/// X X^T of the stack X of `parts`, each `[r, n]`, on and below the diagonal.
pub(super) fn gram<'a>(parts: impl Iterator<Item = ArrayView2<'a, f32>>) -> Mat<f64> {
    let parts: Vec<_> = parts.collect();
    let rows: usize = parts.iter().map(ArrayView2::nrows).sum();
    let n = parts.first().map_or(0, ArrayView2::ncols);
    let mut out = Mat::zeros(rows, rows);
    // Blocks of columns that stay in the cache between their conversion and the product, transposed: a row of a part is then
    // written as one run.
    let mut block = Mat::zeros(GRAM_COLUMNS.min(n), rows);
    for start in (0..n).step_by(GRAM_COLUMNS) {
        let width = GRAM_COLUMNS.min(n - start);
        let lanes = parts.iter().flat_map(|part| part.rows());
        for (row, entries) in lanes.enumerate() {
            let run = block.col_as_slice_mut(row).iter_mut();
            for (to, x) in run.zip(entries.slice(s![start..start + width])) {
                *to = f64::from(*x);
            }
        }
        let block = block.subrows(0, width);
        let (lower, all) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
        triangular::matmul(
            out.as_mut(),
            lower,
            Accum::Add,
            block.transpose(),
            all,
            block,
            all,
            1.0,
            Par::Seq,
        );
    }
    out
}

/// x y; the zero matrix where the inner dimension is 0.
pub(super) fn product(x: MatRef<f64>, y: MatRef<f64>) -> Mat<f64> {
    let mut out = Mat::zeros(x.nrows(), y.ncols());
    add_product(out.as_mut(), x, y, 1.0);
    out
}

/// x y for tests. Not ndarray's `dot`: where another crate turns on ndarray's BLAS, it needs a system library at link time.
#[cfg(test)]
pub(super) fn dot(x: ArrayView2<f64>, y: ArrayView2<f64>) -> ndarray::Array2<f64> {
    ndarray::Array2::from_shape_fn((x.nrows(), y.ncols()), |(i, j)| {
        x.row(i).iter().zip(y.column(j)).map(|(a, b)| a * b).sum()
    })
}

/// out + factor x y, in place.
pub(super) fn add_product(out: MatMut<f64>, x: MatRef<f64>, y: MatRef<f64>, factor: f64) {
    matmul(out, Accum::Add, x, y, factor, Par::Seq);
}

/// Refuses NaN and infinity, which decompositions may loop on.
pub(super) fn check_finite(name: &str, m: ArrayView2<f32>) -> Result<(), Error> {
    match m.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        None => Ok(()),
        Some((index, value)) => Err(Error::NotFinite {
            tensor: name.to_owned(),
            index,
            value: *value,
        }),
    }
}
