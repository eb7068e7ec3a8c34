//! What is wrong with a configuration, and where it was typed. A mistake never shows the value of a secret key.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::ENVIRONMENT_PREFIX;

/// Where a value was typed, from the lowest layer to the highest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The built-in `config/default.toml`.
    Default,
    /// A configuration file.
    File(Arc<PathBuf>),
    /// A variable of the environment, by its name.
    Environment(String),
    /// A flag, as it is typed.
    Flag(&'static str),
}

impl Source {
    /// Its place among the layers; a higher one counts over a lower one.
    #[must_use]
    pub fn layer(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) => 3,
        }
    }

    /// How a key is spelt there.
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

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it was typed.
    pub source: Source,
    /// The key, as in a file: `flush.gather_ms`, `auth.device_keys[0].alg`.
    pub key: String,
    /// What is wrong with it.
    pub wrong: String,
    /// What is allowed; empty for an unknown key.
    pub allowed: String,
    /// What was probably meant, spelt as its source spells keys.
    pub meant: Option<String>,
}

impl std::error::Error for Mistake {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.source, self.key, self.wrong)?;
        if !self.allowed.is_empty() {
            write!(f, "; allowed: {}", self.allowed)?;
        }
        match &self.meant {
            Some(meant) => write!(f, "; did you mean {meant}?"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        writeln!(f, "{count} mistake{} in the configuration:", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|mistake| writeln!(f, "  {mistake}"))
    }
}

/// The known name that `asked` was probably meant to be: the nearest within three changes, or one that ends alike
/// (a key looked for in the wrong section).
pub(super) fn nearest<'a>(asked: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let asked = asked.to_ascii_lowercase();
    let near = known
        .clone()
        .map(|name| (changes(&asked, name), name))
        .filter(|(changes, name)| *changes <= 3 && *changes * 2 <= name.len())
        .min_by_key(|(changes, _)| *changes);
    if let Some((_, name)) = near {
        return Some(name);
    }
    let last = asked.rsplit('.').next()?.to_owned();
    let mut alike = known.filter(|name| name.rsplit_once('.').is_some_and(|(_, end)| end == last));
    alike.next()
}

/// How many characters must be put in, left out or changed to turn one name into the other (Levenshtein).
fn changes(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
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
}
