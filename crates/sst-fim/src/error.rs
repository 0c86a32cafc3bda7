//! Errors of Fisher estimation.

use sst_subspace::Estimator;

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
        estimator: Estimator,
        /// Samples it needs.
        needed: usize,
        /// Samples there are.
        got: usize,
        /// Samples left out for their length.
        too_long: usize,
        /// The limit: the setting, or the model's context where that is shorter.
        max_tokens: usize,
    },
    /// A sample's loss is NaN or infinite.
    #[error("the loss of example {id} is not finite; check the adapter, or measure in f32")]
    NotFinite {
        /// The example's identifier.
        id: String,
    },
    /// Gradients of LoRA parameters are asked for, and the model carries none.
    #[error("{estimator} is about an adapter's parameters: give the adapter, or use kron, which needs none")]
    NoParameters {
        /// The estimator.
        estimator: Estimator,
    },
    /// There is no linear to measure.
    #[error("no linear is named: give an adapter, or targets such as q_proj, k_proj (asked for: {targets})")]
    NoModules {
        /// The targets asked for.
        targets: String,
    },
    /// An adapter is named that the model does not carry while measuring.
    #[error("parameters of `{parameters}` are asked for, and the stack is {stack}")]
    NotInStack {
        /// The adapter.
        parameters: String,
        /// The stack.
        stack: String,
    },
    /// Estimates of one pass must agree in what the pass is about.
    #[error("estimates that share one pass differ in `{setting}`: run them one after the other")]
    NotShared {
        /// The setting.
        setting: &'static str,
    },
    /// A sum that the estimator does not keep.
    #[error("the estimator keeps no sum {name}")]
    NoSum {
        /// Its name.
        name: String,
    },
    /// A file could not be written or read.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
}
