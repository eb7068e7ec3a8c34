//! Plain English, as far as it can be counted: the words that a doc comment opens with, its pronouns, and widths.
//!
//! The counts are those of a whole crate. They are no style guide: they only notice when the prose turns into riddles.

use crate::Source;

/// Words that open a riddle: the sentence has no subject yet.
const RIDDLES: [&str; 11] =
    ["What", "Who", "Whose", "Whoever", "Whatever", "Which", "Where", "When", "How", "Whether", "Why"];
/// Doc comments of a crate that may open with one of these, in thousandths.
const RIDDLES_PERMILLE_MAX: usize = 80;
/// Words that stand for a noun that the reader has to find.
const PRONOUNS: [&str; 9] = ["it", "its", "that", "those", "them", "they", "one", "ones", "these"];
/// Pronouns of a crate's doc comments, among a thousand words.
const PRONOUNS_PERMILLE_MAX: usize = 45;
/// Columns of a line of code or prose.
const COLUMNS_MAX: usize = 120;

/// Counts over the doc comments of one crate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Prose {
    blocks: usize,
    riddles: Vec<String>,
    words: usize,
    pronouns: usize,
}

impl Prose {
    /// Counts the doc comments of these sources, tests left out.
    pub(crate) fn count(sources: &[Source]) -> Self {
        let mut prose = Self::default();
        for source in sources.iter().filter(|source| !source.is_test()) {
            let mut is_inside = false;
            for (index, line) in source.before_tests().lines().enumerate() {
                let line = line.trim_start();
                let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
                let Some(doc) = doc else {
                    is_inside = false;
                    continue;
                };
                let mut words = doc
                    .split(|c: char| !c.is_ascii_alphabetic() && c != '\'')
                    .filter(|word| !word.is_empty())
                    .peekable();
                if !is_inside {
                    prose.blocks += 1;
                    let opens_riddle = words.peek().is_some_and(|first| RIDDLES.contains(first));
                    prose
                        .riddles
                        .extend(opens_riddle.then(|| format!("{}:{}: {doc}", source.path, index + 1)));
                }
                is_inside = true;
                for word in words {
                    prose.words += 1;
                    prose.pronouns += usize::from(PRONOUNS.contains(&word.to_ascii_lowercase().as_str()));
                }
            }
        }
        prose
    }

    /// The counts that are past their bound, each as a sentence.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let riddles = self.riddles.len() * 1000 / self.blocks.max(1);
        if riddles > RIDDLES_PERMILLE_MAX {
            let all = self.riddles.join("\n");
            faults.push(format!("{riddles} of 1 000 doc comments open with a riddle:\n{all}"));
        }
        let pronouns = self.pronouns * 1000 / self.words.max(1);
        if pronouns > PRONOUNS_PERMILLE_MAX {
            faults.push(format!("{pronouns} of 1 000 words in doc comments are pronouns"));
        }
        faults
    }
}

/// Lines past `COLUMNS_MAX`. Rows of tables, lines with a URL and frames as they travel can't be broken.
pub(crate) fn wide_lines(source: &Source) -> Vec<String> {
    let is_wide = |line: &str| {
        let begin = line.trim_start().trim_start_matches("//! ");
        let is_whole = begin.starts_with('|') || line.starts_with("{\"kind\"") || line.contains("://");
        line.chars().count() > COLUMNS_MAX && !is_whole
    };
    let lines = source.text.lines().enumerate().filter(|(_, line)| is_wide(line));
    lines
        .map(|(index, line)| format!("{}:{}: {} columns", source.path, index + 1, line.chars().count()))
        .collect()
}

#[test]
fn riddles_and_pronouns_are_counted_over_blocks_outside_of_tests() {
    let text = "//! A file.\n\n/// Which room.\n/// Its noun is missing.\nfn a() {}\n// What is no doc comment.\n\
                #[cfg(test)]\nmod tests {\n    /// Who.\n}\n";
    let prose =
        Prose::count(&[Source::made_up("src/a.rs", text), Source::made_up("src/tests.rs", "/// How.")]);
    assert_eq!((prose.blocks, prose.riddles.len(), prose.words, prose.pronouns), (2, 1, 8, 1));
    assert_eq!(prose.faults().len(), 2);
    assert_eq!(
        Prose { blocks: 100, riddles: vec![String::new(); 8], words: 1000, pronouns: 45 }.faults(),
        [""; 0]
    );
}

#[test]
fn a_wide_line_is_found() {
    let wide = |text: &str| wide_lines(&Source::made_up("a.md", &format!("{text}{}", "x".repeat(120)))).len();
    assert_eq!([wide(""), wide("y"), wide("| y"), wide("https://")], [0, 1, 0, 0]);
}
