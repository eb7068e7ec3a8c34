//! The end of a command without a verdict.

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// Flags or a scenario that cannot be carried out.
    #[error("{0}")]
    Usage(String),
    /// A target that cannot be reached, or is not roomcast.
    #[error("{0}")]
    Target(String),
}
