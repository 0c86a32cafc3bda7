//! The error of reading a name or a short form from text.

/// A text that is none of the known names, or not of the form expected: one line that says what is.
///
/// ```
/// use sst_artefact::ParseError;
/// let error = ParseError::new("unknown side `up`: expected left or right");
/// assert_eq!(error.to_string(), "unknown side `up`: expected left or right");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    message: String,
}

impl ParseError {
    /// Takes the line that says what was found and what is expected.
    pub fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { message }
    }
}
