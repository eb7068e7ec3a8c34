//! Mistakes of a configuration, each with the source of the value. A mistake never shows the value of a
//! secret key.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::ENVIRONMENT_PREFIX;

/// The layer of a typed value, from the lowest to the highest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The built-in `config/default.toml`.
    Default,
    /// A configuration file, by its path.
    File(Arc<PathBuf>),
    /// A variable of the environment, by its name.
    Environment(String),
    /// A flag, in its typed form (`--shards`).
    Flag(&'static str),
}

impl Source {
    /// The number of the layer, 0 to 3. A value of a higher layer replaces a value of a lower layer.
    #[must_use]
    pub fn layer(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) => 3,
        }
    }

    /// The path of a text typed in this source. A relative path in a file counts from the folder of the file:
    /// a node may be started from anywhere. A relative path from elsewhere counts from the working directory.
    pub(super) fn path(&self, typed: &str) -> PathBuf {
        match self {
            Self::File(file) => {
                file.parent().map_or_else(|| PathBuf::from(typed), |folder| folder.join(typed))
            }
            // A variable, a flag and the built-in defaults have no folder.
            Self::Default | Self::Environment(_) | Self::Flag(_) => PathBuf::from(typed),
        }
    }

    /// The spelling of a key in this source.
    pub(super) fn spelling(&self, key: &str) -> String {
        match self {
            Self::Environment(_) => {
                format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
            }
            Self::Default | Self::File(_) | Self::Flag(_) => key.to_owned(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("defaults"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A mistake of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The source of the mistaken value.
    pub source: Source,
    /// The key, as in a file: `flush.gather_ms`, `auth.device_keys[0].alg`.
    pub key: String,
    /// The problem, to complete the sentence "key: …".
    pub wrong: String,
    /// The allowed values, with their unit. Empty for an unknown key.
    pub allowed: String,
    /// The intended key or word, by a guess, in the spelling of the source.
    pub meant: Option<String>,
    /// The line of the key in its file, from 1 on.
    pub line: Option<usize>,
}

impl Mistake {
    /// A mistake without a guess.
    pub(super) fn new(
        source: &Source,
        key: impl Into<String>,
        wrong: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        let source = source.clone();
        Self {
            source,
            key: key.into(),
            wrong: wrong.into(),
            allowed: allowed.into(),
            meant: None,
            line: None,
        }
    }

    /// Adds a guess at the intended key or word.
    pub(super) fn guess(self, meant: Option<impl Into<String>>) -> Self {
        Self { meant: meant.map(Into::into), ..self }
    }
}

impl std::error::Error for Mistake {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}: {}", self.key, self.wrong)?;
        if !self.allowed.is_empty() {
            write!(f, "; allowed: {}", self.allowed)?;
        }
        match &self.meant {
            Some(meant) => write!(f, "; did you mean {meant}?"),
            None => Ok(()),
        }
    }
}

/// All mistakes of a configuration, at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        writeln!(f, "{count} mistake{} in the configuration:", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|mistake| writeln!(f, "  {mistake}"))
    }
}

/// The known name closest to `asked`: the nearest within three changes, or else the first name with the same
/// last part (a key typed in the wrong section).
pub(super) fn nearest<'a>(asked: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let asked = asked.to_ascii_lowercase();
    let near = known
        .clone()
        .map(|name| (changes(&asked, name), name))
        // Half of a short name: three changes would turn "log" into any word.
        .filter(|(changes, name)| *changes <= 3 && *changes * 2 <= name.len())
        .min_by_key(|(changes, _)| *changes);
    if let Some((_, name)) = near {
        return Some(name);
    }
    let last = asked.rsplit('.').next()?.to_owned();
    let mut alike = known.filter(|name| name.rsplit_once('.').is_some_and(|(_, end)| end == last));
    alike.next()
}

/// The Levenshtein distance: the number of characters to insert, delete or change between `from` and `to`.
fn changes(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    // One row of the table at a time: row[n] is the distance of what was read so far to the first n
    // characters.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, a) in from.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (at, b) in to.iter().enumerate() {
            let kept = diagonal + usize::from(a != *b);
            diagonal = row[at + 1];
            row[at + 1] = kept.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_nearest_name_is_a_few_changes_away_or_ends_alike() {
        let known = ["flush.gather_ms", "flush.max_bytes", "viewer.listen", "insecure"];
        for (asked, meant) in [
            ("flush.gathr_ms", Some("flush.gather_ms")),
            ("flush_gather_ms", Some("flush.gather_ms")),
            ("Flush.Gather_Ms", Some("flush.gather_ms")),
            ("viewer.gather_ms", Some("flush.gather_ms")),
            ("insecur", Some("insecure")),
            ("entirely.different", None),
            ("", None),
        ] {
            assert_eq!(nearest(asked, known.iter().copied()), meant, "{asked}");
        }
        assert_eq!((changes("kitten", "sitting"), changes("", "abc"), changes("same", "same")), (3, 3, 0));
    }

    #[test]
    fn a_relative_path_counts_from_the_folder_of_its_file_and_else_from_the_working_directory() {
        let file = |path: &str| Source::File(Arc::new(path.into()));
        for (source, typed, path) in [
            (file("/etc/roomcast/node.toml"), "data", "/etc/roomcast/data"),
            (file("/etc/roomcast/node.toml"), "../keys/device.key", "/etc/roomcast/../keys/device.key"),
            (file("/etc/roomcast/node.toml"), "/var/lib/roomcast", "/var/lib/roomcast"),
            (file("conf/node.toml"), "data", "conf/data"),
            (file("node.toml"), "data", "data"),
            (Source::Default, "data", "data"),
            (Source::Environment("ROOMCAST__STORE__DATA_DIR".into()), "data", "data"),
            (Source::Flag("--data-dir"), "data", "data"),
        ] {
            assert_eq!(source.path(typed), Path::new(path), "{typed} of {source}");
        }
    }
}
