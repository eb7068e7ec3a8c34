//! A source with its strings, characters and comments blanked, so that rules about code don't read prose.

/// The same text with every string, character and comment turned into spaces. Lines and columns stay.
pub(crate) fn masked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = end_of_opaque(text, at);
        if end > at {
            out.extend(text[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
            continue;
        }
        let c = text[at..].chars().next().expect("within the text");
        out.push(c);
        at += c.len_utf8();
    }
    out
}

/// The end of the string, character or comment that begins at `at`; `at` itself if none does.
fn end_of_opaque(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let end = |length: Option<usize>| at + length.unwrap_or(rest.len());
    if rest.starts_with("//") {
        return end(rest.find('\n'));
    }
    if rest.starts_with("/*") {
        return end(rest.find("*/").map(|length| length + 2));
    }
    let follows_name = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let hashes = rest.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len());
    if let Some(hashes) = hashes.filter(|hashes| !follows_name && rest[1 + hashes..].starts_with('"')) {
        let closing = format!("\"{}", "#".repeat(hashes));
        let begin = hashes + 2;
        return end(rest[begin..].find(&closing).map(|length| begin + length + closing.len()));
    }
    if let Some(string) = rest.strip_prefix('"') {
        return end(end_of_quoted(string, '"').map(|length| length + 1));
    }
    // A lifetime has no closing quote behind its one character.
    let is_character = rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'');
    if rest.starts_with('\'') && is_character {
        return end(end_of_quoted(&rest[1..], '\'').map(|length| length + 1));
    }
    at
}

/// The length of the text up to and with the closing quote.
fn end_of_quoted(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return Some(at + quote.len_utf8());
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// The index behind the bracket that closes the one at `open`.
pub(crate) fn behind_bracket(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

/// The parts between the commas of a list, those in brackets of their own left whole.
pub(crate) fn parts(list: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut begin = 0;
    let mut depth = 0;
    let mut before = ' ';
    for (at, c) in list.char_indices() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '>' if before != '-' && before != '=' => depth -= 1,
            ',' if depth == 0 => {
                found.push(list[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
        before = c;
    }
    found.push(list[begin..].trim());
    found.retain(|part| !part.is_empty());
    found
}

#[test]
fn strings_characters_and_comments_are_blanked() {
    for (text, code) in [
        ("let a = \"b\\\"c\"; // d", "let a =       ;     "),
        ("let a = r#\"b\"c\"#;", "let a =         ;"),
        ("'a' 'static '\\'' x", "    'static      x"),
        ("a /* b\nc */ d", "a     \n     d"),
        ("for (x, y) in z", "for (x, y) in z"),
    ] {
        assert_eq!(masked(text), code, "{text}");
    }
}

#[test]
fn a_list_is_cut_at_its_own_commas() {
    assert_eq!(
        parts("a: (B, C), d: E<F, G>, h: impl Fn(I) -> J,"),
        ["a: (B, C)", "d: E<F, G>", "h: impl Fn(I) -> J"]
    );
    assert_eq!(behind_bracket("f(a, (b))c", 1), 9);
}
