//! Why a command ends without a verdict.

/// Why a run gave no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// What was typed can't be done.
    #[error("{0}")]
    Usage(String),
    /// What was named can't be reached, or is not roomcast.
    #[error("{0}")]
    Target(String),
}
