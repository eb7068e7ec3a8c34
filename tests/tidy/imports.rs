//! The import graph of a crate's top-level modules: it has no cycle, and it is the picture in `docs/architecture.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::Source;
use crate::masked::{behind_bracket, masked, parts};

/// The top-level modules of one crate, each with the modules that it imports from and a file that does.
pub(crate) struct Imports<'a>(BTreeMap<&'a str, BTreeMap<&'a str, &'a str>>);

impl<'a> Imports<'a> {
    /// Reads the imports of the sources below `folder` (`core/src/`), tests left out.
    pub(crate) fn read(folder: &str, sources: &'a [Source]) -> Self {
        let own: Vec<&Source> =
            sources.iter().filter(|source| source.path.starts_with(folder) && !source.is_test()).collect();
        let top = |source: &'a Source| {
            let path = &source.path[folder.len()..];
            path.split('/').next().map(|first| first.trim_end_matches(".rs"))
        };
        let tops: BTreeSet<&str> = own
            .iter()
            .filter_map(|source| top(source))
            .filter(|top| !matches!(*top, "lib" | "main" | "bin"))
            .collect();
        let mut graph: BTreeMap<&str, BTreeMap<&str, &str>> =
            tops.iter().map(|top| (*top, BTreeMap::new())).collect();
        for source in own {
            let Some(from) = top(source).filter(|from| tops.contains(from)) else { continue };
            for to in imported(&source.path[folder.len()..], &source.before_tests()) {
                if let Some(to) = tops.get(to.as_str()).filter(|to| **to != from) {
                    graph.entry(from).or_default().entry(to).or_insert(&source.path);
                }
            }
        }
        Self(graph)
    }

    /// A path of imports that ends where it began, with a file for each arrow; `None`: there is none.
    pub(crate) fn cycle(&self) -> Option<String> {
        let mut done = BTreeSet::new();
        self.0.keys().find_map(|from| self.cycle_behind(&mut vec![from], &mut done))
    }

    fn cycle_behind(&self, path: &mut Vec<&'a str>, done: &mut BTreeSet<&'a str>) -> Option<String> {
        let from = *path.last().expect("a path has a begin");
        for (to, file) in &self.0[from] {
            if let Some(begin) = path.iter().position(|module| module == to) {
                return Some(format!("{} → {to} (by {file})", path[begin..].join(" → ")));
            }
            if !done.contains(to) {
                path.push(to);
                let found = self.cycle_behind(path, done);
                path.pop();
                if found.is_some() {
                    return found;
                }
            }
        }
        done.insert(from);
        None
    }

    /// A Mermaid chart with the arrows that no longer way replaces.
    pub(crate) fn picture(&self) -> String {
        let mut lines = vec!["flowchart BT".to_owned()];
        for (from, all) in &self.0 {
            let replaced = |to: &str| all.keys().any(|via| *via != to && self.reaches(via, to));
            let arrows = all.keys().filter(|to| !replaced(to));
            lines.extend(arrows.map(|to| format!("    {from} --> {to}")));
        }
        lines.join("\n")
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        self.0[from].keys().any(|next| *next == to || self.reaches(next, to))
    }
}

/// The top-level modules that a file names, by `crate::` or by enough of `super::`.
fn imported(path: &str, text: &str) -> Vec<String> {
    let code = masked(text);
    let folders = path.matches('/').count();
    // `a/mod.rs` is one level below the root, `a/b.rs` two.
    let depth = if path.ends_with("/mod.rs") { folders } else { folders + 1 };
    let root = "super::".repeat(depth);
    let mut found = Vec::new();
    for prefix in ["crate::", root.as_str()] {
        for (at, _) in code.match_indices(prefix) {
            let is_inner = code[..at].ends_with("super::") || code[..at].ends_with("$");
            let rest = &code[at + prefix.len()..];
            if is_inner || rest.starts_with("super::") {
                continue;
            }
            let list = if rest.starts_with('{') { &rest[1..behind_bracket(rest, 0) - 1] } else { rest };
            let paths = if rest.starts_with('{') { parts(list) } else { vec![list] };
            found.extend(paths.into_iter().filter_map(|path| crate::words(path).next()).map(str::to_owned));
        }
    }
    found
}

#[test]
fn a_cycle_of_imports_is_found_and_its_path_told() {
    let sources = [
        Source::made_up("src/a/mod.rs", "use crate::{b::B, c};"),
        Source::made_up("src/b.rs", "fn f() { super::c::g(); } // crate::a"),
        Source::made_up(
            "src/c/d.rs",
            "use super::super::a::A;\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}",
        ),
        Source::made_up("src/main.rs", "use crate::a;"),
    ];
    let cycle = Imports::read("src/", &sources).cycle().unwrap();
    assert_eq!(cycle, "a → b → c → a (by src/c/d.rs)");
    let open = Imports::read("src/", &sources[..2]);
    assert_eq!(open.cycle(), None);
    assert_eq!(open.picture(), "flowchart BT\n    a --> b");
}
