//! Products of gradient matrices G `[N, n]` that are far larger than memory: blocks of columns are converted to f64 and
//! multiplied one after another, G_1 G_2^T = sum over blocks of G_1,b G_2,b^T.

use super::GradientFile;
use crate::Error;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{BlockStructure, matmul as triangular_matmul};
use faer::{Accum, MatMut, MatRef, get_global_parallelism};
use ndarray::{Array2, ArrayView2};
use sst_adapter::ModulePath;
use std::ops::Range;

/// Bound on the converted block or blocks, in bytes; so small in tests that their matrices need several.
const BLOCK_BYTES: usize = if cfg!(test) { 1 << 10 } else { 32 << 20 };

/// G G^T, `[N, N]`; the lower half is computed and mirrored.
pub(crate) fn gram(gradients: &GradientFile, module: &ModulePath) -> Result<Array2<f64>, Error> {
    let n = gradients.rows();
    let mut lower = vec![0.0; n * n];
    for cols in blocks(gradients.width(module)?, n) {
        let x = f64s(gradients, module, cols.clone())?;
        let x = MatRef::from_row_major_slice(&x, n, cols.len());
        triangular_matmul(
            MatMut::from_row_major_slice_mut(&mut lower, n, n),
            BlockStructure::TriangularLower,
            Accum::Add,
            x,
            BlockStructure::Rectangular,
            x.transpose(),
            BlockStructure::Rectangular,
            1.0,
            get_global_parallelism(),
        );
    }
    Ok(Array2::from_shape_fn((n, n), |(i, j)| lower[i.max(j) * n + i.min(j)]))
}

/// G_1 G_2^T, `[N_1, N_2]`, of one module that both files hold with the same width.
pub(crate) fn cross_gram(left: &GradientFile, right: &GradientFile, module: &ModulePath) -> Result<Array2<f64>, Error> {
    let (n_left, n_right) = (left.rows(), right.rows());
    let mut out = vec![0.0; n_left * n_right];
    for cols in blocks(left.width(module)?, n_left + n_right) {
        let (x, y) = (f64s(left, module, cols.clone())?, f64s(right, module, cols.clone())?);
        matmul(
            MatMut::from_row_major_slice_mut(&mut out, n_left, n_right),
            Accum::Add,
            MatRef::from_row_major_slice(&x, n_left, cols.len()),
            MatRef::from_row_major_slice(&y, n_right, cols.len()).transpose(),
            1.0,
            get_global_parallelism(),
        );
    }
    Ok(Array2::from_shape_fn((n_left, n_right), |(i, j)| out[i * n_right + j]))
}

/// G^T C, `[n, k]`, for C of shape `[N, k]`.
pub(crate) fn combine(
    gradients: &GradientFile,
    module: &ModulePath,
    coefficients: ArrayView2<f64>,
) -> Result<Array2<f64>, Error> {
    let (n, k) = coefficients.dim();
    if n != gradients.rows() {
        return Err(Error::Length {
            op: "combine",
            expected: gradients.rows(),
            got: n,
        });
    }
    let width = gradients.width(module)?;
    let coefficients: Vec<f64> = coefficients.iter().copied().collect();
    let coefficients = MatRef::from_row_major_slice(&coefficients, n, k);
    let mut out = vec![0.0; width * k];
    for cols in blocks(width, n) {
        let x = f64s(gradients, module, cols.clone())?;
        matmul(
            MatMut::from_row_major_slice_mut(&mut out[cols.start * k..cols.end * k], cols.len(), k),
            Accum::Replace,
            MatRef::from_row_major_slice(&x, n, cols.len()).transpose(),
            coefficients,
            1.0,
            get_global_parallelism(),
        );
    }
    Ok(Array2::from_shape_fn((width, k), |(i, j)| out[i * k + j]))
}

/// Ranges of columns whose f64 entries over `rows` rows fit [`BLOCK_BYTES`].
fn blocks(width: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (BLOCK_BYTES / (size_of::<f64>() * rows.max(1))).max(1);
    (0..width)
        .step_by(step)
        .map(move |start| start..width.min(start + step))
}

/// Some columns of all rows in f64, row-major `[N, c]`.
fn f64s(gradients: &GradientFile, module: &ModulePath, cols: Range<usize>) -> Result<Vec<f64>, Error> {
    gradients.block(module, 0..gradients.rows(), cols)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GradientStore;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;
    use sst_adapter::{Dtype, ParamLayout};

    const Q: &str = "layers.0.q_proj";

    /// A file of `rows` random gradients of 3 x 7 + 5 x 3 entries, and those entries in f64.
    fn gradients(rows: usize, dtype: Dtype, seed: u64) -> (GradientFile, Array2<f64>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let draw = Array2::from_shape_simple_fn((rows, 36), || rng.random_range(-3.0f32..3.0));
        let tensors = [(format!("{Q}.lora_A"), 3, 7), (format!("{Q}.lora_B"), 5, 3)];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gradients");
        let mut store = GradientStore::create(&path, &ParamLayout::new(tensors).unwrap(), rows, dtype).unwrap();
        let all: Vec<usize> = (0..rows).collect();
        store.write_rows(&Q.into(), &all, draw.as_slice().unwrap()).unwrap();
        store.finish().unwrap();
        let stored = |x: f32| match dtype {
            Dtype::Bf16 => half::bf16::from_f32(x).to_f64(),
            _ => f64::from(x),
        };
        (GradientFile::open(&path).unwrap(), draw.mapv(stored))
    }

    /// Entry (i, j) of X Y, by the definition; and the sum of the products' magnitudes, which rounding scales with.
    fn product(x: &Array2<f64>, y: &Array2<f64>) -> Array2<(f64, f64)> {
        Array2::from_shape_fn((x.nrows(), y.ncols()), |(i, j)| {
            let terms = (0..x.ncols()).map(|k| x[[i, k]] * y[[k, j]]);
            terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
        })
    }

    fn close(got: &Array2<f64>, want: &Array2<(f64, f64)>, terms: usize) {
        assert_eq!(got.dim(), want.dim());
        for (got, (want, size)) in got.iter().zip(want) {
            // Two sums in different orders, each within n eps of the terms' sizes.
            assert!(
                (got - want).abs() <= 2.0 * terms as f64 * f64::EPSILON * size,
                "{got} {want}"
            );
        }
    }

    #[test]
    fn products_over_several_blocks_agree_with_the_definition() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            for (n_left, n_right) in [(1, 1), (9, 4), (40, 17), (200, 3)] {
                let ((left, x), (right, y)) = (gradients(n_left, dtype, 1), gradients(n_right, dtype, 2));
                assert!(n_left < 9 || blocks(36, n_left).count() > 1, "the test needs blocks");
                let gram = gram(&left, &Q.into()).unwrap();
                close(&gram, &product(&x, &x.t().to_owned()), 36);
                assert_eq!(gram, gram.t());
                let cross = cross_gram(&left, &right, &Q.into()).unwrap();
                close(&cross, &product(&x, &y.t().to_owned()), 36);
                // Not in standard layout: the entries have to be taken in the right order.
                let coefficients = y.slice(ndarray::s![.., ..3.min(n_right)]).to_owned();
                let coefficients = product(&x, &y.t().to_owned())
                    .mapv(|(v, _)| v)
                    .dot(&coefficients)
                    .reversed_axes();
                let combined = combine(&left, &Q.into(), coefficients.t()).unwrap();
                close(
                    &combined,
                    &product(&x.t().to_owned(), &coefficients.t().to_owned()),
                    n_left,
                );
            }
        }
    }

    #[test]
    fn an_unknown_module_or_a_wrong_height_is_named() {
        let (file, x) = gradients(3, Dtype::F32, 1);
        let message = gram(&file, &"lm_head".into()).unwrap_err().to_string();
        assert!(message.ends_with("lm_head: is missing"), "{message}");
        let message = combine(&file, &Q.into(), x.t()).unwrap_err().to_string();
        assert_eq!(message, "combine: got 36 values, expected 3");
    }
}
