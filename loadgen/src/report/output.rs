//! The ways out of a report: stdout, and the files named by flags.

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::RunError;

/// Writes to stdout and flushes, for readers of a pipe.
pub(crate) fn tell(text: &(impl Display + ?Sized)) -> Result<(), RunError> {
    let told = write!(std::io::stdout(), "{text}").and_then(|()| std::io::stdout().flush());
    told.map_err(|error| RunError::Usage(format!("writing to stdout: {error}")))
}

pub(crate) fn show(figures: &(impl Display + Serialize), json: Option<&Path>) -> std::io::Result<()> {
    write!(std::io::stdout(), "{figures}")?;
    write_json(figures, json)
}

pub(crate) fn write_json(figures: &impl Serialize, path: Option<&Path>) -> std::io::Result<()> {
    path.map_or(Ok(()), |path| std::fs::write(path, serde_json::to_vec_pretty(figures)?))
}

pub(crate) fn write_text(path: Option<&Path>, text: impl FnOnce() -> String) -> std::io::Result<()> {
    path.map_or(Ok(()), |path| std::fs::write(path, text()))
}

/// Opens the file of a report before any load: a wrong path is known before a long run, not after.
pub(crate) fn openable(flag: &str, path: Option<&PathBuf>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
    opened.map_or_else(|error| Err(format!("{flag} {}: {error}", path.display())), |_| Ok(()))
}
