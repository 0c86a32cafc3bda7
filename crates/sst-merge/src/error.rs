//! Errors of merging; each names the setting, the adapter or the tensor at fault.

/// A merge could not be configured, computed or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An adapter is wrong, or two adapters do not fit together.
    #[error(transparent)]
    Adapter(#[from] sst_adapter::Error),
    /// The basis is wrong or does not fit.
    #[error(transparent)]
    Subspace(#[from] sst_subspace::Error),
    /// Writing a file failed.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
    /// No utility adapter was given.
    #[error("a merge needs at least one utility adapter")]
    NoUtility,
    /// The strategy projects, but no basis was given.
    #[error("strategy {strategy} projects onto a safety subspace: give a basis")]
    NoBasis {
        /// The strategy.
        strategy: &'static str,
    },
    /// A setting outside its range.
    #[error("strategy {strategy}: `{setting}` = {value} {reason}")]
    Setting {
        /// The strategy.
        strategy: &'static str,
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: f64,
        /// The range.
        reason: &'static str,
    },
    /// A strategy that does not exist.
    #[error("unknown strategy `{name}`: known are {known}")]
    UnknownStrategy {
        /// The name given.
        name: String,
        /// All names.
        known: String,
    },
    /// An error of a strategy defined elsewhere.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}
