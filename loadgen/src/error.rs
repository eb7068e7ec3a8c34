//! The two ways in which a command ends without a verdict.

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// Wrong or impossible arguments; exit code 1.
    #[error("{0}")]
    Usage(String),
    /// A target that can't be reached or is not roomcast; exit code 2.
    #[error("{0}")]
    Target(String),
}
