//! Tuples that only get round a lint: as parameters, and in a `let` that takes apart the tuple it has just made.

use crate::Source;
use crate::masked::{behind_bracket, masked, parts};

/// Functions with a parameter that is a tuple.
pub(crate) fn tuple_parameters(source: &Source) -> Vec<String> {
    let code = masked(&source.text);
    let functions =
        code.match_indices("fn ").filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric()));
    let mut found = Vec::new();
    for (at, _) in functions {
        let Some(open) = code[at..].find(['(', ';', '{']).map(|length| at + length) else { continue };
        let end = behind_bracket(&code, open);
        if !code[open..].starts_with('(') || end <= open + 1 {
            continue;
        }
        let is_tuple = |part: &str| {
            let shape = part.rsplit(": ").next().unwrap_or_default();
            part.starts_with('(') || shape.starts_with('(') && shape.contains(',')
        };
        for part in parts(&code[open + 1..end - 1]).into_iter().filter(|part| is_tuple(part)) {
            let line = code[..at].lines().count();
            found.push(format!("{}:{line}: a parameter is a tuple: {part}", source.path));
        }
    }
    found
}

/// Statements `let (a, b) = (c, d);`.
pub(crate) fn tuple_lets(source: &Source) -> Vec<String> {
    let code = masked(&source.text);
    let mut found = Vec::new();
    for (at, opening) in code.match_indices("let (") {
        let pattern_end = behind_bracket(&code, at + opening.len() - 1);
        let value = code[pattern_end..].trim_start().strip_prefix('=').unwrap_or_default().trim_start();
        if !value.starts_with('(') {
            continue;
        }
        let open = code.len() - value.len();
        let end = behind_bracket(&code, open);
        let is_statement = code[end..].trim_start().starts_with(';');
        if is_statement && parts(&code[open + 1..end - 1]).len() > 1 {
            let line = code[..=at].lines().count();
            found.push(format!("{}:{line}: a `let` takes apart the tuple that it makes", source.path));
        }
    }
    found
}

#[test]
fn a_tuple_that_gets_round_a_lint_is_found() {
    for bad in
        ["fn f(&self, (a, b): (u8, u8)) {}", "fn f(a: (u8, u8)) {}", "pub fn f<T>(a: T, b: (T, T)) -> T {"]
    {
        assert_eq!(tuple_parameters(&Source::made_up("src/a.rs", bad)).len(), 1, "{bad}");
    }
    for good in [
        "fn f(a: &[(u8, u8)], b: impl Fn((u8, u8)) -> u8) {}",
        "let f = |(a, b)| a;",
        "fn f(a: fn(u8, u8)) {}",
    ] {
        assert_eq!(tuple_parameters(&Source::made_up("src/a.rs", good)), [""; 0], "{good}");
    }
    for bad in ["let (a, b) = (1, f(2, 3));", "let (mut a, b) =\n    (1,\n    2);"] {
        assert_eq!(tuple_lets(&Source::made_up("src/a.rs", bad)).len(), 1, "{bad}");
    }
    for good in ["let (a, b) = f(1, 2);", "let (a, b) = (c + d).halves();", "// let (a, b) = (1, 2);"] {
        assert_eq!(tuple_lets(&Source::made_up("src/a.rs", good)), [""; 0], "{good}");
    }
}
