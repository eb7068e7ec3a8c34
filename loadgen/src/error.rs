//! The ends of a command without a verdict.

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// Flags or a scenario that can't be carried out; exit code 1.
    #[error("{0}")]
    Usage(String),
    /// A target that can't be reached, or is not roomcast; exit code 2.
    #[error("{0}")]
    Target(String),
    /// A signal before the first figure; exit code 130.
    #[error("{0}")]
    Stopped(String),
}

impl From<RunError> for String {
    fn from(error: RunError) -> Self {
        error.to_string()
    }
}
