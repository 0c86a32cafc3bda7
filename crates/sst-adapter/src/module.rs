//! One module's low-rank pair: delta W = s B A (Hu et al. 2021, "LoRA", section 4.1).
//!
//! s = alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023, "rsLoRA", equation 3).

use ndarray::{Array1, Array2};

/// The factors of one module.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraModule {
    /// A, `[r, d_in]`.
    pub a: Array2<f32>,
    /// B, `[d_out, r]`.
    pub b: Array2<f32>,
    /// alpha of this module, after `alpha_pattern`.
    pub alpha: f64,
    /// Whether the scale divides by sqrt(r) instead of r.
    pub rslora: bool,
}

impl LoraModule {
    /// The rank r.
    pub fn rank(&self) -> usize {
        self.a.nrows()
    }

    /// The scale s.
    pub fn scale(&self) -> f64 {
        let r = self.rank() as f64;
        self.alpha / if self.rslora { r.sqrt() } else { r }
    }

    /// delta W = s B A, `[d_out, d_in]`, summed in f64.
    ///
    /// # Panics
    /// When A and B disagree on r; an [`Adapter`](crate::Adapter) that was loaded or built has been checked.
    pub fn delta(&self) -> Array2<f32> {
        let ((d_out, rank), (_, d_in)) = (self.b.dim(), self.a.dim());
        let scale = self.scale();
        let a = self.a.mapv(f64::from);
        let mut delta = Array2::zeros((d_out, d_in));
        let mut row = Array1::<f64>::zeros(d_in);
        // Not `dot`: where another crate turns on ndarray's BLAS, it would need a system library at link time.
        for i in 0..d_out {
            row.fill(0.0);
            for k in 0..rank {
                row.scaled_add(scale * f64::from(self.b[[i, k]]), &a.row(k));
            }
            delta.row_mut(i).zip_mut_with(&row, |entry, x| *entry = *x as f32);
        }
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn delta_is_scaled_by_alpha_over_r_or_its_root() {
        let mut module = LoraModule {
            a: array![[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]],
            b: array![[1.0, 2.0], [3.0, 4.0]],
            alpha: 3.0,
            rslora: false,
        };
        assert_eq!(module.scale(), 1.5);
        assert_eq!(module.delta(), array![[1.5, 3.0, 0.0], [4.5, 6.0, 3.0]]);
        module.rslora = true;
        assert_eq!(module.scale(), 3.0 / 2f64.sqrt());
        assert_eq!(module.delta()[[1, 1]], (12.0 / 2f64.sqrt()) as f32);
    }
}
