//! Reports on their way out: stdout, and the files that were asked for.

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::RunError;

/// Says something on stdout, at once.
///
/// # Errors
/// [`RunError::Usage`], when it takes no more.
pub(crate) fn tell(text: &(impl Display + ?Sized)) -> Result<(), RunError> {
    let told = write!(std::io::stdout(), "{text}").and_then(|()| std::io::stdout().flush());
    told.map_err(|error| RunError::Usage(format!("writing to stdout: {error}")))
}

/// Says figures on stdout, and writes them to the JSON file.
///
/// # Errors
/// When one of the two takes no more.
pub(crate) fn show(figures: &(impl Display + Serialize), json: Option<&Path>) -> std::io::Result<()> {
    write!(std::io::stdout(), "{figures}")?;
    write_json(figures, json)
}

/// Writes figures to the JSON file, if there is to be one.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write_json(figures: &impl Serialize, path: Option<&Path>) -> std::io::Result<()> {
    path.map_or(Ok(()), |path| std::fs::write(path, serde_json::to_vec_pretty(figures)?))
}

/// Writes a text to a file, if there is to be one.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write_text(path: Option<&Path>, text: impl FnOnce() -> String) -> std::io::Result<()> {
    path.map_or(Ok(()), |path| std::fs::write(path, text()))
}

/// Whether a report can be written there; better known before the load than after.
pub(crate) fn openable(flag: &str, path: Option<&PathBuf>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
    opened.map_or_else(|error| Err(format!("{flag} {}: {error}", path.display())), |_| Ok(()))
}
