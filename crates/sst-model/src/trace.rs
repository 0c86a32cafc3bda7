//! What per-sample gradients need from one forward and backward pass.
//!
//! For a module with y = W x + s B h, h = A x, the gradient of sample i's loss is
//! dB_i = s sum_t d_t h_t^T and dA_i = sum_t g_t x_t^T, with d the gradient at y and g the gradient at h. Both come
//! from one backward pass of the summed losses, for the rows of a batch do not meet.

use sst_adapter::ModulePath;
use tch::{Kind, Tensor};

/// Inputs and intermediate values of every traced module, in the order of the forward pass.
#[derive(Debug, Default)]
pub struct Trace {
    modules: Vec<Traced>,
}

#[derive(Debug)]
struct Traced {
    path: ModulePath,
    scale: f64,
    x: Tensor,      // [batch, seq, d_in]
    h: Tensor,      // [batch, seq, r]
    update: Tensor, // [batch, seq, d_out]; its gradient is the gradient at y
}

/// Per-sample gradients of one module's factors.
#[derive(Debug)]
pub struct ModuleGradients {
    /// The module.
    pub path: ModulePath,
    /// Gradient of A per sample, f32 [batch, r, d_in].
    pub a: Tensor,
    /// Gradient of B per sample, f32 [batch, d_out, r].
    pub b: Tensor,
}

impl Trace {
    pub(crate) fn record(&mut self, path: &ModulePath, scale: f64, x: &Tensor, h: Tensor, update: Tensor) {
        let x = x.detach();
        self.modules.push(Traced {
            path: path.clone(),
            scale,
            x,
            h,
            update,
        });
    }

    /// Runs backward from `loss` (a sum of per-sample losses) and hands every module's per-sample gradients to `take`,
    /// one module at a time, so that only one module's are in memory.
    ///
    /// # Errors
    /// What libtorch says, most often for want of memory, or what `take` returns.
    pub fn backward<E: From<tch::TchError>>(
        self,
        loss: &Tensor,
        mut take: impl FnMut(ModuleGradients) -> Result<(), E>,
    ) -> Result<(), E> {
        let inputs: Vec<&Tensor> = self.modules.iter().flat_map(|m| [&m.h, &m.update]).collect();
        let gradients = Tensor::f_run_backward(&[loss], &inputs, false, false)?;
        let _guard = tch::no_grad_guard();
        for (module, gradient) in self.modules.into_iter().zip(gradients.chunks_exact(2)) {
            let (g, d) = (gradient[0].to_kind(Kind::Float), gradient[1].to_kind(Kind::Float));
            let (x, h) = (module.x.to_kind(Kind::Float), module.h.detach().to_kind(Kind::Float));
            take(ModuleGradients {
                path: module.path,
                a: g.transpose(1, 2).bmm(&x),
                b: d.transpose(1, 2).bmm(&h) * module.scale,
            })?;
        }
        Ok(())
    }
}
