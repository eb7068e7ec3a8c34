//! The configuration in force as TOML, for `roomcast config print`: without secrets, each line with its
//! source.

use std::fmt::Write;

use toml::Value;

use roomcast_core::now::millis;
use roomcast_core::room::policy::TypePolicy;

use super::Config;
use super::mistake::Source;
use super::policy::PolicyField;
use super::raw::{KEYS, Raw};

/// The text in place of a secret. As an invalid key, the text keeps a printed configuration from being
/// served.
const REDACTED: &str = "[redacted]";

pub(super) fn shown(raw: &Raw, config: &Config) -> String {
    let mut text =
        String::from("# The configuration in force. A line that is not a default names its source.\n");
    let mut open_section = "";
    for (key, _) in KEYS {
        let entry = raw.entry(key);
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        if section != open_section {
            line(&mut text, format_args!("\n[{section}]"), None);
            open_section = section;
        }
        let note = match (key, entry.value.as_str()) {
            ("shards.count", Some("auto")) => Some(format!("{} here", config.shards)),
            ("store.data_dir", _) if config.data_dir.is_none() => None,
            _ => origin(&entry.source),
        };
        let content = match key {
            // A file with both keys would be a mistake, so the key that is not in force is a comment.
            "store.data_dir" if config.data_dir.is_none() => format!("# {name} is not used"),
            "store.ephemeral" => {
                format!("{name} = {}", config.data_dir.is_none() && config.cluster.is_none())
            }
            _ => format!("{name} = {}", printed(key, &entry.value, &entry.source)),
        };
        line(&mut text, format_args!("{content}"), note);
    }
    line(&mut text, format_args!("\n[types]"), None);
    for (name, policy) in config.types.iter() {
        let typed = raw.types.get(name.as_str());
        let highest =
            typed.and_then(|entries| entries.keys.values().max_by_key(|entry| entry.source.layer()));
        let note = highest.and_then(|entry| origin(&entry.source));
        // A dot in a bare key would open another table.
        let name = if name.as_str().contains('.') { format!("\"{name}\"") } else { name.to_string() };
        line(&mut text, format_args!("{name} = {}", policy_shown(*policy)), note);
    }
    text
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>, note: Option<String>) {
    let note = note.map(|note| format!("  # {note}")).unwrap_or_default();
    writeln!(text, "{content}{note}").expect("a string takes every line");
}

fn origin(source: &Source) -> Option<String> {
    // A path may hold a line end; a comment may not.
    (*source != Source::Default).then(|| source.to_string().replace(char::is_control, "?"))
}

/// The policy of a type as an inline table, with every key of the class.
fn policy_shown(policy: TypePolicy) -> String {
    let mut text = format!("{{ class = \"{}\"", policy.class.name());
    for field in PolicyField::ALL {
        let value = match field {
            PolicyField::Priority => format!("\"{}\"", policy.priority.name()),
            PolicyField::Merge => format!("\"{}\"", policy.merge.name()),
            PolicyField::Urgent => policy.urgent.to_string(),
            PolicyField::TtlMs if policy.takes_ttl() => millis(policy.ttl).to_string(),
            PolicyField::Rate => policy.rate.map_or(0, |rate| rate.per_second).to_string(),
            PolicyField::Burst if let Some(rate) = policy.rate => rate.burst.to_string(),
            PolicyField::History => policy.history.to_string(),
            PolicyField::Weight => policy.weight.to_string(),
            PolicyField::TtlMs | PolicyField::Burst => continue,
        };
        write!(text, ", {} = {value}", field.name()).expect("a string takes every write");
    }
    text + " }"
}

/// The printed form of a value: without secrets, and with absolute paths.
fn printed(key: &str, value: &Value, source: &Source) -> Value {
    match (key, value) {
        ("publisher.keys" | "ops.keys" | "secret", Value::String(_)) => Value::String(REDACTED.to_owned()),
        ("cluster.credentials" | "cluster.system_credentials", Value::String(typed)) if typed.is_empty() => {
            value.clone()
        }
        (
            "store.data_dir" | "secret_file" | "cluster.credentials" | "cluster.system_credentials",
            Value::String(typed),
        ) => {
            // A printed configuration may be saved in another folder. A relative path would count from there.
            let path = std::path::absolute(source.path(typed)).unwrap_or_else(|_| source.path(typed));
            Value::String(path.to_string_lossy().into_owned())
        }
        (_, Value::Array(list)) => {
            Value::Array(list.iter().map(|value| printed(key, value, source)).collect())
        }
        (_, Value::Table(table)) => {
            let below = |(key, value): (&String, &Value)| (key.clone(), printed(key, value, source));
            Value::Table(table.iter().map(below).collect())
        }
        (_, value) => value.clone(),
    }
}
