//! Names of types: each belongs to this program, and means one thing within its crate.

use std::collections::BTreeMap;

use crate::{Source, words};

/// Type names that more than one place of these sources defines, with the places.
pub(crate) fn names_defined_twice(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        for (line, code) in source.code() {
            for (keyword, name) in words(code).zip(words(code).skip(1)) {
                let is_definition = match keyword {
                    "struct" | "enum" | "trait" | "union" => true,
                    // An associated type has the name its trait gave it.
                    "type" => !code.starts_with(' '),
                    _ => false,
                };
                // The name in a macro that makes enums is a variable.
                let is_definition = is_definition && !code.contains(&format!("${name}"));
                if is_definition && name.starts_with(char::is_uppercase) {
                    places.entry(name).or_default().push(format!("{}:{line}", source.path));
                }
            }
        }
    }
    let twice = places.iter().filter(|(_, places)| places.len() > 1);
    twice.map(|(name, places)| format!("{name} is defined in {}", places.join(", "))).collect()
}

#[test]
fn a_name_with_two_meanings_is_found() {
    let sources = [
        Source::made_up("src/a.rs", "pub(crate) struct Place;\npub struct Seat;\n"),
        Source::made_up("src/b.rs", "enum Place {}\nimpl Sink for A {\n    type Seat = u8;\n}\n"),
        Source::made_up("src/tests.rs", "struct Seat;\n"),
    ];
    assert_eq!(names_defined_twice(&sources), ["Place is defined in src/a.rs:1, src/b.rs:1"]);
}
