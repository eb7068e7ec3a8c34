//! The configuration as typed: four layers laid over each other key by key, each value with its source.
//! Unknown keys are refused here. `resolve` checks the values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use toml::{Table, Value};

use super::args::Args;
use super::lines::Lines;
use super::mistake::{Mistake, Source, nearest};
use super::policy::PolicyField;
use super::{ENVIRONMENT_PREFIX, OUR_PREFIX, variable};

/// The lowest layer: every key with its default.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The grammar of a value typed outside a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelt {
    /// Always text, even if the text looks like a number or a date.
    Text,
    /// TOML. Any other text is a string.
    Toml,
}

/// Every key outside `[types]`, in the order of `config/default.toml`.
pub(super) const KEYS: [(&str, Spelt); 54] = [
    ("insecure", Spelt::Toml),
    ("hosts", Spelt::Toml),
    ("viewer.listen", Spelt::Text),
    ("viewer.insecure", Spelt::Toml),
    ("viewer.heartbeat_ms", Spelt::Toml),
    ("viewer.joins_per_second", Spelt::Toml),
    ("viewer.origins", Spelt::Toml),
    ("publisher.listen", Spelt::Text),
    ("publisher.keys", Spelt::Toml),
    ("publisher.insecure", Spelt::Toml),
    ("ops.listen", Spelt::Text),
    ("ops.keys", Spelt::Toml),
    ("ops.insecure", Spelt::Toml),
    ("proxy.trusted", Spelt::Toml),
    ("auth.device_keys", Spelt::Toml),
    ("auth.audiences", Spelt::Toml),
    ("auth.issuers", Spelt::Toml),
    ("auth.lifetime_max_s", Spelt::Toml),
    ("store.data_dir", Spelt::Text),
    ("store.ephemeral", Spelt::Toml),
    ("cluster.nats", Spelt::Toml),
    ("cluster.name", Spelt::Text),
    ("cluster.node", Spelt::Text),
    ("cluster.region", Spelt::Text),
    ("cluster.viewer_url", Spelt::Text),
    ("cluster.credentials", Spelt::Text),
    ("cluster.system_credentials", Spelt::Text),
    ("cluster.replicas", Spelt::Toml),
    ("cluster.dead_after_ms", Spelt::Toml),
    ("cluster.allow_unsynced", Spelt::Toml),
    ("cluster.insecure", Spelt::Toml),
    ("shards.count", Spelt::Toml),
    ("shards.hot_members", Spelt::Toml),
    ("shards.hot_rooms", Spelt::Toml),
    ("flush.gather_ms", Spelt::Toml),
    ("flush.max_messages", Spelt::Toml),
    ("flush.max_bytes", Spelt::Toml),
    ("flush.direct_members", Spelt::Toml),
    ("flush.urgent_spacing_ms", Spelt::Toml),
    ("flush.gather_max_ms", Spelt::Toml),
    ("flush.cpu_share", Spelt::Toml),
    ("flush.high_share", Spelt::Toml),
    ("flush.normal_share", Spelt::Toml),
    ("flush.low_share", Spelt::Toml),
    ("readable.normal_per_second", Spelt::Toml),
    ("readable.high_per_second", Spelt::Toml),
    ("limits.room_messages_per_second", Spelt::Toml),
    ("limits.key_messages_per_second", Spelt::Toml),
    ("limits.outbound_bytes", Spelt::Toml),
    ("limits.connections", Spelt::Toml),
    ("limits.observe_only", Spelt::Toml),
    ("drain.notice_ms", Spelt::Toml),
    ("log.format", Spelt::Text),
    ("log.level", Spelt::Text),
];

/// True for a key that the node reads at its start alone. Any other key changes with a reload.
fn needs_restart(key: &str) -> bool {
    let section = key.split_once('.').map_or("", |(section, _)| section);
    matches!(section, "store" | "cluster" | "shards" | "proxy")
        || matches!(key, "viewer.listen" | "viewer.heartbeat_ms" | "publisher.listen" | "ops.listen")
        || matches!(key, "flush.cpu_share" | "limits.connections" | "log.format")
}

/// Every key of a table in `[types]`.
pub(super) fn type_keys() -> impl Iterator<Item = &'static str> + Clone {
    ["class"].into_iter().chain(PolicyField::ALL.map(PolicyField::name))
}

/// A value and the source. No `Debug`: the value may be a secret.
#[derive(Clone)]
pub(super) struct TypedValue {
    pub(super) value: Value,
    pub(super) source: Source,
}

/// The typed keys of a type.
pub(super) struct TypeEntries {
    /// The lowest layer with a key of the type.
    pub(super) source: Source,
    pub(super) keys: BTreeMap<&'static str, TypedValue>,
    /// The class of a built-in type in `config/default.toml`. The other built-in keys apply to this class
    /// only.
    pub(super) built_in_class: Option<Value>,
}

/// The values in force.
#[derive(Default)]
pub(super) struct Raw {
    keys: BTreeMap<&'static str, TypedValue>,
    pub(super) types: BTreeMap<String, TypeEntries>,
    mistakes: Vec<Mistake>,
    /// The lines of the file's keys.
    lines: Lines,
}

impl Raw {
    /// Lays all four layers. Returns the values in force, and the mistakes of the layers.
    pub(super) fn layered(
        args: &Args,
        environment: impl Iterator<Item = (String, String)>,
    ) -> (Self, Vec<Mistake>) {
        let mut raw = Self::default();
        raw.lay_document(DEFAULTS, &Source::Default);
        if let (Some(_), Some(_)) = (args.looked_at(), &args.flags.config) {
            let source = Source::Flag("--config");
            let wrong = "a file is named twice, here and after the command";
            raw.mistakes.push(Mistake::new(&source, "--config", wrong, "one of them"));
        }
        if let Some(path) = args.looked_at().or(args.flags.config.as_deref()) {
            raw.lay_file(path);
        }
        let mut variables: Vec<_> = environment.filter(|(name, _)| name.starts_with(OUR_PREFIX)).collect();
        // The system gives variables in any order. A sorted report is the same at each start.
        variables.sort_unstable();
        for (name, text) in variables {
            raw.lay_variable(name, &text);
        }
        raw.lay_flags(args);
        let mistakes = std::mem::take(&mut raw.mistakes);
        (raw, mistakes)
    }

    /// Gives each key that needs a restart the value that it has in `running`. Returns the keys whose value
    /// was another one.
    pub(super) fn keep_what_needs_a_restart(&mut self, running: &Self) -> Vec<&'static str> {
        let keys = KEYS.iter().map(|(key, _)| *key).filter(|key| needs_restart(key));
        let mut waiting = Vec::new();
        for key in keys {
            if self.entry(key).value != running.entry(key).value {
                waiting.push(key);
            }
            // The source as well: a relative path counts from there.
            self.keys.insert(key, running.entry(key).clone());
        }
        waiting
    }

    /// The keys whose values differ between two configurations. A type counts as one key.
    pub(super) fn differing(&self, other: &Self) -> Vec<String> {
        let keys = KEYS.iter().map(|(key, _)| *key);
        let keys = keys.filter(|key| self.entry(key).value != other.entry(key).value).map(str::to_owned);
        let names: BTreeSet<&String> = self.types.keys().chain(other.types.keys()).collect();
        let types = names.into_iter().filter(|name| {
            let typed = [self, other].map(|raw| {
                let keys = raw.types.get(*name).map(|entries| &entries.keys);
                keys.map(|keys| keys.iter().map(|(key, entry)| (*key, &entry.value)).collect::<Vec<_>>())
            });
            typed[0] != typed[1]
        });
        keys.chain(types.map(|name| format!("types.{name}"))).collect()
    }

    /// Adds its line to each mistake of the file.
    pub(super) fn with_lines(&self, mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
        let in_file = mistakes.iter_mut().filter(|mistake| matches!(mistake.source, Source::File(_)));
        in_file.for_each(|mistake| mistake.line = self.lines.find(&mistake.key));
        mistakes
    }

    /// The value in force of a key of [`KEYS`].
    pub(super) fn entry(&self, key: &str) -> &TypedValue {
        self.keys.get(key).expect("config/default.toml has every key; a test holds it to that")
    }

    fn lay_file(&mut self, path: &Path) {
        let source = Source::File(Arc::new(path.to_owned()));
        match std::fs::read_to_string(path) {
            Ok(text) => self.lay_document(&text, &source),
            Err(trouble) => {
                let wrong = format!("can't be read ({trouble})");
                self.mistakes.push(Mistake::new(&source, "file", wrong, "a TOML file this process may read"));
            }
        }
    }

    /// Lays a whole document. A document with a grammar error is left out.
    fn lay_document(&mut self, text: &str, source: &Source) {
        let (table, mut troubles) = toml::de::DeTable::parse_recoverable(text);
        if *source != Source::Default {
            self.lines = Lines::of(text, table.get_ref());
        }
        // Half a file would bring up false mistakes: an unclosed quote hides the keys behind it.
        match toml::from_str::<Table>(text) {
            Ok(table) if troubles.is_empty() => self.lay(&[], Value::Table(table), source),
            Ok(_) => {}
            Err(trouble) if troubles.is_empty() => troubles.push(trouble),
            Err(_) => {}
        }
        for trouble in troubles {
            // The message alone: Display quotes the line, and the line may hold a secret.
            let before = text.get(..trouble.span().map_or(0, |span| span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            self.mistakes.push(Mistake::new(source, format!("line {line}"), trouble.message(), "TOML"));
        }
    }

    fn lay_variable(&mut self, name: String, text: &str) {
        let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
            return self.lay_lookalike(name);
        };
        let path: Vec<String> = rest.to_ascii_lowercase().split("__").map(str::to_owned).collect();
        let spelt = match path.as_slice() {
            [section, _, key] if section == "types" => {
                let has_words = PolicyField::named(key).is_some_and(|field| !field.words().is_empty());
                if has_words || key == "class" { Spelt::Text } else { Spelt::Toml }
            }
            _ => spelling(&path.join(".")),
        };
        self.lay(&path, typed(text, spelt), &Source::Environment(name));
    }

    /// Reports a variable of a similar prefix, unless `variable` knows its owner.
    fn lay_lookalike(&mut self, name: String) {
        if variable::is_anothers(&name) {
            return;
        }
        // Ignored, a misspelt variable would leave a default in force unnoticed.
        let key = name.strip_prefix(OUR_PREFIX).unwrap_or_default().to_ascii_lowercase();
        let source = Source::Environment(name);
        let meant = variable::meant(&key).map(|meant| source.spelling(&meant));
        let allowed = format!("{ENVIRONMENT_PREFIX}SECTION__KEY");
        self.mistakes.push(Mistake::new(&source, key, "unknown variable", allowed).guess(meant));
    }

    fn lay_flags(&mut self, args: &Args) {
        let flags = &args.flags;
        for (flag, key, text) in [
            ("--viewer-listen", "viewer.listen", &flags.viewer_listen),
            ("--publisher-listen", "publisher.listen", &flags.publisher_listen),
            ("--ops-listen", "ops.listen", &flags.ops_listen),
            ("--data-dir", "store.data_dir", &flags.data_dir),
            ("--shards", "shards.count", &flags.shards),
            ("--ephemeral", "store.ephemeral", &flags.ephemeral.then(|| "true".to_owned())),
            ("--insecure", "insecure", &flags.insecure.then(|| "true".to_owned())),
            ("--insecure-nats", "cluster.insecure", &flags.insecure_nats.then(|| "true".to_owned())),
        ] {
            if let Some(text) = text {
                let value = typed(text, spelling(key));
                self.keys.insert(key, TypedValue { value, source: Source::Flag(flag) });
            }
        }
    }

    /// Lays a value at `path`. The entries of a table are laid one by one, down to the known keys.
    fn lay(&mut self, path: &[String], value: Value, source: &Source) {
        let joined = path.join(".");
        let known = KEYS.iter().find(|(key, _)| *key == joined);
        let is_section = sections().any(|section| section == joined);
        match (path, value) {
            ([section, name, rest @ ..], value) if section == "types" => {
                self.lay_type(name, rest, value, source);
            }
            (_, value) if let Some((key, _)) = known => {
                self.keys.insert(key, TypedValue { value, source: source.clone() });
            }
            (_, Value::Table(table)) if path.is_empty() || is_section => {
                for (key, value) in table {
                    let below: Vec<String> = path.iter().cloned().chain([key]).collect();
                    self.lay(&below, value, source);
                }
            }
            (_, _) if is_section => {
                let wrong = "is a section, not a value";
                self.mistakes.push(Mistake::new(source, joined, wrong, "a table of its keys"));
            }
            (_, Value::Table(_)) => self.unknown(&joined, nearest(&joined, sections()), source),
            (_, _) => self.unknown(&joined, nearest(&joined, KEYS.iter().map(|(key, _)| *key)), source),
        }
    }

    /// Lays a value at `types.NAME` followed by `rest`.
    fn lay_type(&mut self, name: &str, rest: &[String], value: Value, source: &Source) {
        match (rest, value) {
            ([], Value::Table(table)) => {
                self.type_named(name, source);
                for (key, value) in table {
                    self.lay_type(name, &[key], value, source);
                }
            }
            ([], _) => {
                let allowed = "a table, such as { class = \"normal\" }";
                self.mistakes.push(Mistake::new(source, format!("types.{name}"), "is not a table", allowed));
            }
            ([key], value) if let Some(known) = type_keys().find(|known| known == key) => {
                let entries = self.type_named(name, source);
                // A later layer may replace the class; `types` compares the two.
                if *source == Source::Default && known == "class" {
                    entries.built_in_class = Some(value.clone());
                }
                entries.keys.insert(known, TypedValue { value, source: source.clone() });
            }
            (below, _) => {
                let below = below.join(".");
                let meant = nearest(&below, type_keys());
                let meant = meant.map(|key| format!("types.{name}.{key}"));
                self.unknown(&format!("types.{name}.{below}"), meant.as_deref(), source);
            }
        }
    }

    fn type_named(&mut self, name: &str, source: &Source) -> &mut TypeEntries {
        let unheard = || TypeEntries { source: source.clone(), keys: BTreeMap::new(), built_in_class: None };
        self.types.entry(name.to_owned()).or_insert_with(unheard)
    }

    fn unknown(&mut self, key: &str, meant: Option<&str>, source: &Source) {
        let meant = meant.map(|meant| source.spelling(meant));
        self.mistakes.push(Mistake::new(source, key, "unknown key", "").guess(meant));
    }
}

pub(super) fn sections() -> impl Iterator<Item = &'static str> + Clone {
    [
        "viewer",
        "publisher",
        "ops",
        "proxy",
        "auth",
        "store",
        "cluster",
        "shards",
        "flush",
        "readable",
        "limits",
        "drain",
        "log",
        "types",
    ]
    .into_iter()
}

fn spelling(asked: &str) -> Spelt {
    KEYS.iter().find(|(key, _)| *key == asked).map_or(Spelt::Toml, |(_, spelt)| *spelt)
}

/// Reads a value typed outside a file.
fn typed(text: &str, spelt: Spelt) -> Value {
    match (text.parse::<Value>(), spelt) {
        // Quotes are allowed for text keys as well: a shell script may quote every value.
        (Ok(Value::String(quoted)), _) => Value::String(quoted),
        (Ok(value), Spelt::Toml) => value,
        (Ok(_), Spelt::Text) | (Err(_), _) => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words_are_text_and_text_keys_are_never_numbers() {
        assert_eq!(typed("10", Spelt::Toml), Value::Integer(10));
        assert_eq!(typed("600_000", Spelt::Toml), Value::Integer(600_000));
        assert_eq!(typed("auto", Spelt::Toml), Value::String("auto".into()));
        assert_eq!(typed("127.0.0.1:1", Spelt::Toml), Value::String("127.0.0.1:1".into()));
        assert_eq!(typed("2026", Spelt::Text), Value::String("2026".into()));
        assert_eq!(typed("\"a b\"", Spelt::Text), Value::String("a b".into()));
        assert_eq!(
            typed("10\nlog = 1", Spelt::Toml),
            Value::String("10\nlog = 1".into()),
            "one value, one key"
        );
        assert_eq!(typed("", Spelt::Toml), Value::String(String::new()));
    }

    #[test]
    fn default_toml_has_each_known_key_and_no_other() {
        let (raw, mistakes) = Raw::layered(&Args::default(), std::iter::empty());
        assert!(mistakes.is_empty(), "{mistakes:?}");
        for (key, _) in KEYS {
            assert!(raw.keys.contains_key(key), "{key} is not in config/default.toml");
            assert!(
                key.split_once('.').is_none_or(|(section, _)| sections().any(|known| known == section)),
                "{key}"
            );
        }
        assert_eq!(raw.keys.len(), KEYS.len());
        for key in type_keys() {
            assert!(DEFAULTS.contains(&format!("#   {key}  ")), "types.*.{key} is not described");
        }
        for key in super::super::resolve::DEVICE_KEY_KEYS {
            assert!(DEFAULTS.contains(&format!("#   {key} ")), "auth.device_keys[].{key} is not described");
        }
    }

    #[test]
    fn each_key_of_default_toml_has_a_comment_above_it() {
        let mut commented = false;
        for line in DEFAULTS.lines().take_while(|line| *line != "[types]") {
            match line.chars().next() {
                Some('#') => commented = true,
                None | Some('[') => commented = false,
                Some(_) => assert!(std::mem::take(&mut commented), "no comment above: {line}"),
            }
        }
    }
}
