//! Between ndarray and faer: conversion to f64, products and decompositions.
//!
//! All of it runs on one thread, because faer's decompositions round differently with the number of threads; callers run
//! many modules at a time instead.

use crate::Error;
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::householder::{
    apply_block_householder_sequence_on_the_left_in_place_scratch as apply_scratch,
    apply_block_householder_sequence_on_the_left_in_place_with_conj as apply_reflections,
};
use faer::linalg::matmul::{
    matmul,
    triangular::{self, BlockStructure},
};
use faer::linalg::qr::no_pivoting::factor::{qr_in_place, qr_in_place_scratch, recommended_block_size};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Accum, Conj, Mat, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2, s};

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
    // Blocks of columns that stay in the cache between their conversion and the product.
    let mut block = Mat::zeros(rows, GRAM_COLUMNS.min(n));
    for start in (0..n).step_by(GRAM_COLUMNS) {
        let width = GRAM_COLUMNS.min(n - start);
        let mut first = 0;
        for part in &parts {
            for (row, entries) in part.rows().into_iter().enumerate() {
                for (col, x) in entries.slice(s![start..start + width]).iter().enumerate() {
                    block[(first + row, col)] = f64::from(*x);
                }
            }
            first += part.nrows();
        }
        let block = block.subcols(0, width);
        let (lower, all) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
        triangular::matmul(
            out.as_mut(),
            lower,
            Accum::Add,
            block,
            all,
            block.transpose(),
            all,
            1.0,
            Par::Seq,
        );
    }
    out
}

pub(super) fn array(m: MatRef<f64>) -> Array2<f64> {
    Array2::from_shape_fn((m.nrows(), m.ncols()), |(i, j)| m[(i, j)])
}

/// x y; the zero matrix where the inner dimension is 0.
pub(super) fn product(x: MatRef<f64>, y: MatRef<f64>) -> Mat<f64> {
    let mut out = Mat::zeros(x.nrows(), y.ncols());
    add_product(out.as_mut(), x, y, 1.0);
    out
}

/// x y for tests. Not ndarray's `dot`: where another crate turns on ndarray's BLAS, it needs a system library at link time.
#[cfg(test)]
pub(super) fn dot(x: ArrayView2<f64>, y: ArrayView2<f64>) -> Array2<f64> {
    Array2::from_shape_fn((x.nrows(), y.ncols()), |(i, j)| {
        x.row(i).iter().zip(y.column(j)).map(|(a, b)| a * b).sum()
    })
}

/// out + factor x y, in place.
pub(super) fn add_product(out: MatMut<f64>, x: MatRef<f64>, y: MatRef<f64>, factor: f64) {
    matmul(out, Accum::Add, x, y, factor, Par::Seq);
}

/// Q `[n, p]` and R `[p, k]` of m `[n, k]`, p = min(n, k).
pub(super) fn qr(mut m: Mat<f64>) -> (Mat<f64>, Mat<f64>) {
    let (n, k) = m.shape();
    let p = n.min(k);
    let block = recommended_block_size::<f64>(n, k);
    let mut coefficients = Mat::zeros(block, p);
    let scratch = qr_in_place_scratch::<f64>(n, k, block, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    qr_in_place(m.as_mut(), coefficients.as_mut(), Par::Seq, stack, Default::default());

    // R is left on and above the diagonal, the reflections' vectors below it.
    let r = Mat::from_fn(p, k, |i, j| if i <= j { m[(i, j)] } else { 0.0 });
    let mut q = Mat::identity(n, p);
    let mut memory = MemBuffer::new(apply_scratch::<f64>(n, block, p));
    let stack = MemStack::new(&mut memory);
    let reflections = m.subcols(0, p);
    apply_reflections(
        reflections,
        coefficients.as_ref(),
        Conj::No,
        q.as_mut(),
        Par::Seq,
        stack,
    );
    (q, r)
}

/// U `[n, p]`, singular values descending and V `[k, p]` of a small m `[n, k]`, p = min(n, k); none without convergence.
pub(super) fn thin_svd(m: MatRef<f64>) -> Option<(Mat<f64>, Vec<f64>, Mat<f64>)> {
    let (n, k) = m.shape();
    let p = n.min(k);
    let (mut u, mut s, mut v) = (Mat::zeros(n, p), Diag::zeros(p), Mat::zeros(k, p));
    let thin = ComputeSvdVectors::Thin;
    let mut memory = MemBuffer::new(svd_scratch::<f64>(n, k, thin, thin, Par::Seq, Default::default()));
    let stack = MemStack::new(&mut memory);
    let (left, right) = (Some(u.as_mut()), Some(v.as_mut()));
    svd(m, s.as_mut(), left, right, Par::Seq, stack, Default::default()).ok()?;
    let values = s.column_vector().iter().copied().collect();
    Some((u, values, v))
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
