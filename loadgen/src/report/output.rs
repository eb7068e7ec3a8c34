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
    path.map_or(Ok(()), |path| replace(path, &serde_json::to_vec_pretty(figures)?))
}

/// Writes the whole file or leaves the file as it was: a signal between two bytes of a sweep's rows would cost
/// all rows.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    // A pipe, a device and a link are written through, as is a file in a folder without a right to add files.
    let is_plain = std::fs::symlink_metadata(path).map_or(true, |found| found.is_file());
    let is_beside = is_plain && std::fs::write(&beside, bytes).is_ok();
    if is_beside && std::fs::rename(&beside, path).is_ok() {
        return Ok(());
    }
    drop(std::fs::remove_file(&beside));
    std::fs::write(path, bytes)
}

/// Writes the reason for a missing report to its JSON file. A program that reads the file finds neither
/// nothing nor an older report.
pub(crate) fn write_reason(reason: &RunError, path: Option<&Path>) {
    let said = serde_json::json!({ "verdict": null, "reason": reason.to_string() });
    // The reason goes to stderr as well, so a failed write loses nothing.
    drop(write_json(&said, path));
}

pub(crate) fn write_text(path: Option<&Path>, text: impl FnOnce() -> String) -> std::io::Result<()> {
    path.map_or(Ok(()), |path| std::fs::write(path, text()))
}

/// Opens the file of a report before any load: a wrong path is known before a long run, not after. A file that
/// was not there is removed again, because an empty report would look like one.
pub(crate) fn openable(flag: &str, path: Option<&PathBuf>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let is_new = std::fs::symlink_metadata(path).is_err();
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| format!("{flag} {}: {error}", path.display()))?;
    if is_new {
        drop(std::fs::remove_file(path));
    }
    Ok(())
}
