//! What alignment changed in a model's weights, module by module.

use crate::Error;
use ndarray::Array2;
use sst_adapter::ModulePath;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Gives V = W_aligned - W_base of a module, when it is asked for: whole models need not fit in memory.
pub trait AlignmentChange: Debug + Sync {
    /// V, `[d_out, d_in]`.
    ///
    /// # Errors
    /// [`Error::AlignmentMissing`] for a module that is not known; what keeps it from being read.
    fn change(&self, module: &ModulePath) -> Result<Array2<f32>, Error>;
}

impl AlignmentChange for BTreeMap<ModulePath, Array2<f32>> {
    fn change(&self, module: &ModulePath) -> Result<Array2<f32>, Error> {
        let missing = || Error::AlignmentMissing {
            module: module.to_string(),
        };
        self.get(module).cloned().ok_or_else(missing)
    }
}
