//! Errors of Fisher estimation.

/// Fisher information could not be estimated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model or the adapter is not usable.
    #[error(transparent)]
    Model(#[from] sst_model::Error),
    /// The estimate itself is not usable.
    #[error(transparent)]
    Subspace(#[from] sst_subspace::Error),
    /// Too few samples for the estimator.
    #[error(
        "{estimator} needs at least {needed} samples, {got} are left ({too_long} were longer than {max_tokens} tokens)"
    )]
    Samples {
        /// The estimator.
        estimator: &'static str,
        /// Samples it needs.
        needed: usize,
        /// Samples there are.
        got: usize,
        /// Samples left out for their length.
        too_long: usize,
        /// The limit.
        max_tokens: usize,
    },
    /// A gradient is NaN or infinite.
    #[error("gradient of {tensor} is not finite; check the adapter, or measure in f32")]
    NotFinite {
        /// The tensor's name.
        tensor: String,
    },
    /// libtorch refused an operation, most often for want of memory.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
