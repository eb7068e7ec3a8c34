//! Reads the sources: what the compiler and clippy can't be asked to keep. Each rule is a function over one file's
//! text, so that each is shown a file that breaks it, too.

#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions alone, not in the code they share"
)]

mod imports;
mod masked;
mod names;
mod prose;
mod tuples;

use std::fs;
use std::path::{Path, PathBuf};

use roomcast::metrics::DEFINITIONS;

use self::imports::Imports;
use self::names::names_defined_twice;
use self::prose::{Prose, wide_lines};
use self::tuples::{tuple_lets, tuple_parameters};

/// Lines of a file before its tests. Most stay under 600; a noun that is whole may take more.
const FILE_LINES_MAX: usize = 800;

/// Parts of the standard library that pure code must not name: they wait, listen, lock, or differ from run to run.
/// Cargo keeps other crates out of the core.
const IMPURE: [&str; 8] = ["thread", "net", "fs", "process", "SystemTime", "Mutex", "RwLock", "HashSet"];
/// Pure files and folders of the server, which Cargo does not guard: sockets are behind a trait there.
const PURE_OF_SHELL: [&str; 5] = [
    "src/shard/directory.rs",
    "src/shard/homes/",
    "src/shard/inbox.rs",
    "src/shard/ladder.rs",
    "src/shard/residents/",
];

/// Words that a type's name must not hold: they say nothing about this program.
const HOMELESS_WORDS: [&str; 11] = [
    "Manager",
    "Handler",
    "Service",
    "Processor",
    "Helper",
    "Util",
    "Common",
    "Info",
    "Data",
    "Wrapper",
    "Factory",
];

/// A source file: its path from the repository's root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn made_up(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The lines before its tests, without line comments. (A `//` within a string is cut as well: that hides code from
    /// the rules, and there is hardly any behind a URL.)
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.lines_before_tests();
        self.text
            .lines()
            .take(lines)
            .enumerate()
            .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
    }

    /// How many lines stand before the module of its tests.
    fn lines_before_tests(&self) -> usize {
        let mut lines = self.text.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            if line == "#[cfg(test)]" && lines.peek().is_some_and(|(_, next)| next.starts_with("mod ")) {
                return index;
            }
        }
        self.text.lines().count()
    }

    /// The text before the module of its tests.
    fn before_tests(&self) -> String {
        self.text.lines().take(self.lines_before_tests()).flat_map(|line| [line, "\n"]).collect()
    }

    fn is_test(&self) -> bool {
        self.path.contains("tests/") || self.path.ends_with("/tests.rs")
    }

    fn is_pure(&self) -> bool {
        let pure = self.path.starts_with("core/src/")
            || PURE_OF_SHELL.iter().any(|pure| self.path.starts_with(pure));
        pure && !self.is_test()
    }
}

/// Identifiers of a line, in order.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The words of a name in camel case: `RoomInfo` is `Room`, `Info`.
fn humps(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let end =
            rest.char_indices().skip(1).find(|(_, c)| c.is_uppercase()).map_or(rest.len(), |(at, _)| at);
        let (hump, behind) = rest.split_at(end);
        rest = behind;
        (!hump.is_empty()).then_some(hump)
    })
}

/// Pure code names nothing impure of the standard library, does not wait, and reads no clock.
fn impurities(source: &Source) -> Vec<String> {
    if !source.is_pure() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (line, code) in source.code() {
        // Names that stand in a path: a local called `net` is none.
        let paths = code
            .match_indices("::")
            .filter_map(|(at, _)| code[..at].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next());
        let imported = words(code).filter(|_| code.trim_start().starts_with("use "));
        let bad = paths.chain(imported).filter(|word| IMPURE.contains(word));
        let waits = words(code).filter(|word| matches!(*word, "async" | "await" | "HashMap"));
        let clock = words(code).filter(|word| *word == "clock");
        let mut all: Vec<&str> = bad.chain(waits).chain(clock).collect();
        all.sort_unstable();
        all.dedup();
        found.extend(all.iter().map(|name| format!("{}:{line}: pure code names {name}", source.path)));
    }
    found
}

fn too_long(source: &Source) -> Vec<String> {
    let lines = source.lines_before_tests();
    if source.is_test() || lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines before its tests, {FILE_LINES_MAX} are allowed", source.path)]
}

fn homeless_names(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (line, code) in source.code() {
        let pairs = words(code).zip(words(code).skip(1));
        for (keyword, name) in pairs {
            let banned = match keyword {
                // An associated type has the name its foreign trait gave it.
                "type" if code.starts_with(' ') => false,
                "struct" | "enum" | "trait" | "union" | "type" => {
                    humps(name).any(|hump| HOMELESS_WORDS.contains(&hump.trim_end_matches('s')))
                }
                "fn" => {
                    ["get_", "process_", "do_"].iter().any(|prefix| name.starts_with(prefix))
                        || ["_impl", "_v2"].iter().any(|suffix| name.ends_with(suffix))
                }
                _ => false,
            };
            if banned {
                found.push(format!(
                    "{}:{line}: {keyword} {name} is named after nothing in this program",
                    source.path
                ));
            }
        }
    }
    found
}

fn without_purpose(source: &Source) -> Vec<String> {
    if source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!("{}: the first line does not say what the file is for", source.path)]
}

/// The bounds of `limits` that no other source names.
fn unread_bounds(limits: &Source, others: &[Source]) -> Vec<String> {
    let named = limits.text.lines().filter_map(|line| words(line.strip_prefix("pub const ")?).next());
    let is_read = |name: &str| {
        others.iter().any(|source| source.path != limits.path && words(&source.text).any(|word| word == name))
    };
    named.filter(|name| !is_read(name)).map(|name| format!("{}: nothing keeps {name}", limits.path)).collect()
}

/// Keys of a configuration that stand under no comment, or that `reader` does not name.
fn unexplained_keys(defaults: &str, reader: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut section = String::new();
    let mut commented = false;
    for line in defaults.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((leaf, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            // The types are rows of one table, which is explained above it.
            if section == "types." {
                continue;
            }
            if !commented {
                found.push(format!("{section}{leaf} has no comment of its own"));
            }
            // By its whole name, or as a field of a section that is read field by field.
            let names = |text: String| reader.contains(&format!("\"{text}\""));
            let by_field = names(format!("{section}{{}}")) && names(leaf.into());
            if !by_field && !names(format!("{section}{leaf}")) {
                found.push(format!("{section}{leaf} has no reader"));
            }
        }
        commented = line.starts_with('#');
    }
    found
}

fn read(path: &str) -> Source {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    Source { path: path.into(), text: text.unwrap_or_else(|error| panic!("{path}: {error}")) }
}

/// Every Rust file under these folders of the repository, in order of path.
fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut paths = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(
                    path.strip_prefix(root).unwrap().to_str().expect("paths here are ASCII").to_owned(),
                );
            }
        }
    }
    paths.sort_unstable();
    paths.iter().map(|path| read(path)).collect()
}

const PROGRAMS: [&str; 3] = ["core/src", "src", "loadgen/src"];
const EVERYTHING: [&str; 6] = ["core/src", "src", "loadgen/src", "tests", "loadgen/tests", "benches"];

/// The prose beside the sources.
const PAGES: [&str; 12] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/architecture.md",
    "docs/benchmarks.md",
    "docs/concepts.md",
    "docs/operations.md",
    "docs/planning.md",
    "docs/protocol.md",
    "config/default.toml",
    "proto/room.proto",
    "scripts/test.sh",
];

#[track_caller]
fn assert_tidy(sources: &[Source], rule: fn(&Source) -> Vec<String>) {
    assert!(sources.len() > 20, "the sources were found");
    let found: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn pure_modules_name_nothing_impure() {
    let sources = sources(&PROGRAMS);
    for path in ["core/src/room/mod.rs", "core/src/limits.rs"].into_iter().chain(PURE_OF_SHELL) {
        let is_there = sources.iter().any(|source| source.path.starts_with(path) && source.is_pure());
        assert!(is_there, "{path} is there");
    }
    assert_tidy(&sources, impurities);
}

#[test]
fn an_impure_module_is_found() {
    for (path, bad) in [
        ("core/src/room/mod.rs", "use std::{net, time::Duration};"),
        ("core/src/room/mod.rs", "use std::collections::{BTreeMap, HashMap};"),
        ("core/src/wire/reader.rs", "pub async fn read() {}"),
        ("core/src/fanout/segment.rs", "use std::sync::Mutex;"),
        ("src/shard/directory.rs", "    std::thread::current();"),
        ("src/shard/homes/heat.rs", "    let now = clock::now();"),
        ("src/shard/residents/pass.rs", "use std::net::TcpStream;"),
    ] {
        assert_eq!(impurities(&Source::made_up(path, bad)).len(), 1, "{path}: {bad}");
    }
    for (path, good) in [
        ("core/src/wire/frame.rs", "use crate::room::Batch; // not std::net"),
        ("core/src/room/pace.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}"),
        ("core/src/room/pace.rs", "    let net = gross - merged;"),
        ("src/shard/run.rs", "use tokio::net::TcpStream;"),
    ] {
        assert_eq!(impurities(&Source::made_up(path, good)), [""; 0], "{path}: {good}");
    }
}

#[test]
fn files_are_short() {
    assert_tidy(&sources(&PROGRAMS), too_long);
}

#[test]
fn a_long_file_is_found() {
    let lines = |count: usize| "code\n".repeat(count);
    assert_eq!(too_long(&Source::made_up("src/a.rs", &lines(801))).len(), 1);
    assert_eq!(too_long(&Source::made_up("src/a.rs", &lines(800))).len(), 0);
    let tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(800), lines(500));
    assert_eq!(too_long(&Source::made_up("src/a.rs", &tests)).len(), 0, "tests don't count");
    let early = format!("#[cfg(test)]\nuse super::*;\n{}", lines(800));
    assert_eq!(
        too_long(&Source::made_up("src/a.rs", &early)).len(),
        1,
        "a line for tests does not end the file"
    );
}

#[test]
fn names_belong_to_this_program() {
    // This file is full of names that do not.
    let sources: Vec<Source> =
        sources(&EVERYTHING).into_iter().filter(|source| !source.path.starts_with("tests/tidy/")).collect();
    assert_tidy(&sources, homeless_names);
}

#[test]
fn a_homeless_name_is_found() {
    for bad in [
        "pub struct RoomManager {",
        "enum MessageInfo {",
        "trait Handlers {}",
        "pub(crate) type UserData = u8;",
        "    pub fn get_room(&self) {",
        "async fn process_message() {",
        "fn do_it() {}",
        "fn flush_impl() {}",
        "fn flush_v2() {}",
    ] {
        assert_eq!(homeless_names(&Source::made_up("src/a.rs", bad)).len(), 1, "{bad}");
    }
    for good in [
        "struct Datagram;",
        "    type Data = Bytes;",
        "fn document() {}",
        "fn getaway() {}",
        "// struct RoomManager",
        "    room.get_or_insert(1);",
    ] {
        assert_eq!(homeless_names(&Source::made_up("src/a.rs", good)), [""; 0], "{good}");
    }
}

#[test]
fn no_tuple_only_gets_round_a_lint() {
    let sources = sources(&EVERYTHING);
    assert_tidy(&sources, tuple_parameters);
    assert_tidy(&sources, tuple_lets);
}

#[test]
fn a_type_name_means_one_thing_in_its_crate() {
    for folder in PROGRAMS {
        let found = names_defined_twice(&sources(&[folder]));
        assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    }
}

#[test]
fn modules_import_in_one_direction() {
    for folder in PROGRAMS {
        let sources = sources(&[folder]);
        let cycle = Imports::read(&format!("{folder}/"), &sources).cycle();
        assert_eq!(cycle, None, "a cycle of imports in {folder}");
    }
}

/// `cargo test --test tidy the_picture` prints the picture that `docs/architecture.md` should have.
#[test]
fn the_picture_of_the_imports_is_that_of_the_code() {
    let page = read("docs/architecture.md").text;
    for folder in PROGRAMS {
        let sources = sources(&[folder]);
        let picture = Imports::read(&format!("{folder}/"), &sources).picture();
        assert!(page.contains(&format!("```mermaid\n{picture}\n```")), "{folder}:\n{picture}");
    }
}

#[test]
fn doc_comments_are_plain_english() {
    for folder in PROGRAMS {
        let faults = Prose::count(&sources(&[folder])).faults();
        assert!(faults.is_empty(), "{folder}: {}", faults.join("\n"));
    }
}

#[test]
fn no_line_is_too_wide() {
    assert_tidy(&sources(&EVERYTHING), wide_lines);
    let found: Vec<String> = PAGES.iter().flat_map(|page| wide_lines(&read(page))).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    assert_tidy(&sources(&EVERYTHING), without_purpose);
}

#[test]
fn a_file_without_purpose_is_found() {
    assert_eq!(without_purpose(&Source::made_up("src/a.rs", "use std::io;\n//! Late.\n")).len(), 1);
    assert_eq!(without_purpose(&Source::made_up("src/a.rs", "//! A noun.\n")).len(), 0);
}

#[test]
fn every_bound_is_kept_somewhere() {
    // A default that is typed in config/default.toml is read by the test that ties the two.
    let readers = sources(&["core/src", "src", "loadgen/src", "tests"]);
    for limits in ["core/src/limits.rs", "core/src/limits/nodes.rs"] {
        let found = unread_bounds(&read(limits), &readers);
        assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    }
}

#[test]
fn a_bound_that_nothing_keeps_is_found() {
    let limits =
        Source::made_up("limits.rs", "pub const A_MAX: usize = 1;\npub const B_MAX: usize = A_MAX;\n");
    let reader = Source::made_up("a.rs", "if len > B_MAX {}");
    let found = unread_bounds(&limits, &[reader]);
    assert_eq!(found, ["limits.rs: nothing keeps A_MAX"]);
}

#[test]
fn every_key_of_the_configuration_is_explained_and_read() {
    let readers = [read("src/config/resolve.rs"), read("src/config/flush.rs"), read("src/config/cluster.rs")]
        .map(|source| source.text)
        .concat();
    let found = unexplained_keys(&read("config/default.toml").text, &readers);
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn an_unexplained_key_is_found() {
    let defaults =
        "# Why.\na = 1\nb = 2\n\n[flush]\n# Why.\nc = 3\n\n[shards]\n# Why.\nd = 4\n\n[types]\nchat = {}\n";
    let found = unexplained_keys(defaults, r#"read("a"), read("b"), read("shards.{}"), "d""#);
    assert_eq!(found, ["b has no comment of its own", "flush.c has no reader"]);
}

#[test]
fn every_metric_says_what_it_counts() {
    assert!(DEFINITIONS.len() > 10);
    for row in DEFINITIONS {
        assert!(row.name.starts_with("roomcast_"), "{}", row.name);
        let explained = row.help.ends_with('.') && words(row.help).count() >= 2;
        assert!(explained, "{}: {:?} is not a sentence", row.name, row.help);
    }
}

/// A sabotaged build that can't be made proves nothing; making them all takes longer than these tests may.
#[test]
fn every_sabotage_fits_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut patches = 0;
    for entry in fs::read_dir(root.join("tests/sabotage")).unwrap() {
        let path = entry.unwrap().path();
        let patch = fs::read_to_string(&path).unwrap();
        for of_file in patch.split("\n+++ b/").skip(1) {
            let (file, hunks) = of_file.split_once('\n').unwrap();
            let source = fs::read_to_string(root.join(file.split('\t').next().unwrap())).unwrap();
            // Hunks begin with "@@ … @@" and perhaps a heading, which is no line of the source.
            for hunk in hunks.split("\n@@ ").flat_map(|hunk| hunk.split_once('\n')).map(|(_, lines)| lines) {
                let lines =
                    hunk.lines().take_while(|line| !line.starts_with("---") && !line.starts_with("diff"));
                let before: Vec<&str> = lines.filter_map(|line| line.strip_prefix([' ', '-'])).collect();
                assert!(!before.is_empty(), "{}", path.display());
                assert!(source.contains(&before.join("\n")), "{}: {file}:\n{hunk}", path.display());
            }
        }
        patches += 1;
    }
    assert!(patches > 10, "{patches}");
}
