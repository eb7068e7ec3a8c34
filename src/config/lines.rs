//! The lines of a file's keys, for mistakes.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// Path of a key, as in a [`Mistake`](super::Mistake) -> its line, from 1 on.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Notes the lines of a document's keys, and of the entries of its lists.
    pub(super) fn of(text: &str, table: &DeTable<'_>) -> Self {
        let mut lines = Self::default();
        lines.note_table(text, "", table);
        lines
    }

    /// The line of a key, or of the nearest table or list around the key.
    pub(super) fn find(&self, key: &str) -> Option<usize> {
        let mut path = key;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    fn note(&mut self, text: &str, path: String, at: usize) {
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        self.0.insert(path, line);
    }

    fn note_table(&mut self, text: &str, path: &str, table: &DeTable<'_>) {
        for (key, value) in table.iter() {
            let name = key.get_ref();
            let below = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            self.note(text, below.clone(), key.span().start);
            self.note_value(text, &below, value.get_ref());
        }
    }

    fn note_value(&mut self, text: &str, path: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.note_table(text, path, table),
            DeValue::Array(list) => {
                for (at, entry) in list.iter().enumerate() {
                    let below = format!("{path}[{at}]");
                    self.note(text, below.clone(), entry.span().start);
                    self.note_value(text, &below, entry.get_ref());
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_and_each_entry_of_a_list_has_its_line() {
        let text = "insecure = true\n\n[viewer]\nlisten = 'a'\norigins = [\n  'b',\n  'c',\n]\n\
                    auth.x = { y = 1 }\n[[auth2]]\nalg = 1\n";
        let lines = Lines::of(text, DeTable::parse(text).unwrap().get_ref());
        for (key, line) in [
            ("insecure", Some(1)),
            ("viewer.listen", Some(4)),
            ("viewer.origins[1]", Some(7)),
            ("viewer.origins[9]", Some(5)),
            ("viewer.auth.x.y", Some(9)),
            ("auth2[0].alg", Some(11)),
            ("auth2[0].kid", Some(10)),
            ("nowhere.at_all", None),
        ] {
            assert_eq!(lines.find(key), line, "{key}");
        }
    }
}
