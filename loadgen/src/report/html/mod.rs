//! A report as one HTML file that needs nothing else: no network, no font, no script. Pure.
//!
//! A [`Page`] is a verdict and [`Section`]s of figures, charts, tables and texts. What stands in them is text as it came,
//! from whoever it came; it is escaped here, where it is written, and nowhere else. `run` says what a run's page has.

mod chart;
pub(crate) mod knee;
pub(crate) mod model;
mod run;
mod time;
mod types;

use std::fmt;

pub(crate) use chart::{Chart, ChartLimit, Line, Look, Thinning, X};
pub(crate) use run::{page, sections};

const STYLE: &str = include_str!("style.css");

/// One report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Page {
    pub(crate) title: String,
    pub(crate) tone: Tone,
    /// The verdict in a word or three.
    pub(crate) verdict: String,
    /// The verdict in a sentence.
    pub(crate) words: String,
    pub(crate) sections: Vec<Section>,
}

/// How something is to be taken; never said by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    /// It says nothing, or not what was asked.
    Odd,
    Bad,
}

/// What stands under one title. One without blocks is not shown.
///
/// A page of `find-max` or `plan` has sections of its own: a knee is a [`Chart`] over [`X::Named`] whose line has
/// [`Look::Marks`] and whose limit is the objective, a model's residuals are [`Look::Dots`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Section {
    pub(crate) title: String,
    pub(crate) blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Block {
    /// Single numbers, side by side.
    Figures(Vec<Figure>),
    /// Side by side, where there is room.
    Charts(Vec<Chart>),
    Table(Table),
    /// A sentence or two.
    Note(String),
    /// Lines as they are, like a file or a command.
    Text(String),
}

/// A number with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) unit: &'static str,
    /// What it must be read with; may be empty.
    pub(crate) note: String,
}

/// Rows and columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// What stands over several columns: a title and how many; empty: nothing does.
    pub(crate) groups: Vec<(String, usize)>,
    /// The first columns are words, the others numbers.
    pub(crate) columns: Vec<String>,
    /// How many columns are words.
    pub(crate) words: usize,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// What stands in one place of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Figure {
    /// A number without a note.
    #[must_use]
    pub(crate) fn new(name: &str, value: String, unit: &'static str) -> Self {
        Self { name: name.to_owned(), value, unit, note: String::new() }
    }

    /// The same with what it must be read with.
    #[must_use]
    pub(crate) fn with_note(mut self, note: String) -> Self {
        self.note = note;
        self
    }
}

impl Cell {
    /// A cell that says whether that is good.
    #[must_use]
    pub(crate) fn toned(text: &str, tone: Tone) -> Self {
        Self { text: text.to_owned(), tone: Some(tone) }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, tone: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Odd => "odd",
            Self::Bad => "bad",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Odd => "!",
            Self::Bad => "✗",
        }
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = escaped(&self.title);
        let tone = self.tone;
        write!(
            f,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n",
            escaped(&self.verdict)
        )?;
        writeln!(
            f,
            "<div class=\"verdict {}\"><div class=\"sign\" aria-hidden=\"true\">{}</div><div>\
             <div class=\"word\">{}</div><div class=\"words\">{}</div></div></div>",
            tone.class(),
            tone.sign(),
            escaped(&self.verdict),
            escaped(&self.words)
        )?;
        for section in self.sections.iter().filter(|section| !section.blocks.is_empty()) {
            write!(f, "{section}")?;
        }
        f.write_str("</main>\n</body>\n</html>\n")
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "<section>\n<h2>{}</h2>", escaped(&self.title))?;
        for block in &self.blocks {
            write!(f, "{block}")?;
        }
        f.write_str("</section>\n")
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Figures(figures) => {
                f.write_str("<div class=\"figures\">\n")?;
                figures.iter().try_for_each(|figure| write!(f, "{figure}"))?;
                f.write_str("</div>\n")
            }
            Self::Charts(charts) => {
                f.write_str("<div class=\"charts\">\n")?;
                charts.iter().try_for_each(|chart| write!(f, "{chart}"))?;
                f.write_str("</div>\n")
            }
            Self::Table(table) => write!(f, "{table}"),
            Self::Note(words) => writeln!(f, "<p class=\"quiet\">{}</p>", escaped(words)),
            Self::Text(text) => writeln!(f, "<pre>{}</pre>", escaped(text.trim_end())),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<div class=\"figure\"><div class=\"name\">{}</div><div class=\"value\">{}",
            escaped(&self.name),
            escaped(&self.value)
        )?;
        if !self.unit.is_empty() {
            write!(f, " <small>{}</small>", escaped(self.unit))?;
        }
        f.write_str("</div>")?;
        if !self.note.is_empty() {
            write!(f, "<div class=\"note\">{}</div>", escaped(&self.note))?;
        }
        f.write_str("</div>\n")
    }
}

impl Table {
    fn class(&self, column: usize) -> &'static str {
        if column < self.words { "words" } else { "number" }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<div class=\"scroll\"><table>\n<thead>")?;
        if !self.groups.is_empty() {
            f.write_str("<tr>")?;
            for (title, columns) in &self.groups {
                write!(f, "<th class=\"group\" colspan=\"{columns}\">{}</th>", escaped(title))?;
            }
            f.write_str("</tr>\n")?;
        }
        if self.columns.iter().any(|title| !title.is_empty()) {
            f.write_str("<tr>")?;
            for (column, title) in self.columns.iter().enumerate() {
                write!(f, "<th class=\"{}\">{}</th>", self.class(column), escaped(title))?;
            }
            f.write_str("</tr>")?;
        }
        f.write_str("</thead>\n<tbody>\n")?;
        for row in &self.rows {
            f.write_str("<tr>")?;
            for (column, Cell { text, tone }) in row.iter().enumerate() {
                let tone = tone.map_or("", Tone::class);
                write!(f, "<td class=\"{} {tone}\">{}</td>", self.class(column), escaped(text))?;
            }
            f.write_str("</tr>\n")?;
        }
        f.write_str("</tbody>\n</table></div>\n")
    }
}

/// A text as HTML shows it: nothing in it is taken for markup, in an element or in an attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// A whole number with its thousands apart.
#[must_use]
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut apart = String::with_capacity(digits.len() * 2);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            apart.push('\u{202f}');
        }
        apart.push(digit);
    }
    apart
}

/// A figure with so many places, or grouped where it is long; a dash where there is none.
#[must_use]
pub(crate) fn decimal(figure: Option<f64>) -> String {
    let Some(figure) = figure.filter(|figure| figure.is_finite()) else { return "–".to_owned() };
    let places = match figure.abs() {
        size if size >= 1_000.0 => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "rounded, not negative"
            )]
            let whole = size.round() as u64;
            return format!("{}{}", if figure < 0.0 { "−" } else { "" }, grouped(whole));
        }
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{figure:.places$}")
}

/// A figure with so many places, for a column whose points are to lie below each other; a dash where there is none.
#[must_use]
pub(crate) fn places(figure: Option<f64>, places: usize) -> String {
    figure
        .filter(|figure| figure.is_finite())
        .map_or_else(|| "–".to_owned(), |figure| format!("{figure:.places$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</pre><script>alert('x')</script><img src=x onerror=\"y\">&";

    #[test]
    fn nothing_from_outside_is_markup_wherever_it_stands() {
        let hostile = || HOSTILE.to_owned();
        let line =
            Line { name: hostile(), colour: 0, points: vec![(0.0, 1.0), (1.0, 2.0)], look: Look::Line };
        let other = Line { colour: 1, ..line.clone() };
        let chart = Chart {
            title: hostile(),
            unit: "ms",
            x: X::Named(hostile()),
            lines: vec![line, other],
            limit: Some(ChartLimit { at: 1.5, name: hostile() }),
        };
        let table = Table {
            groups: vec![(hostile(), 2)],
            columns: vec![hostile(), hostile()],
            words: 1,
            rows: vec![vec![HOSTILE.into(), Cell::toned(HOSTILE, Tone::Bad)]],
        };
        let figure = Figure::new(HOSTILE, hostile(), "").with_note(hostile());
        let blocks = vec![
            Block::Figures(vec![figure]),
            Block::Charts(vec![chart]),
            Block::Table(table),
            Block::Note(hostile()),
            Block::Text(hostile()),
        ];
        let sections = vec![Section { title: hostile(), blocks }];
        let page = Page { title: hostile(), tone: Tone::Odd, verdict: hostile(), words: hostile(), sections }
            .to_string();
        assert!(
            !page.contains("<script") && !page.contains("<img") && !page.contains("onerror=\""),
            "{page}"
        );
        assert_eq!(page.matches("</pre>").count(), 1);
        assert!(page.matches("&lt;/pre&gt;&lt;script&gt;").count() >= 15, "all of it is shown");
    }

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let page = page(&crate::report::tests::made_up()).to_string();
        for foreign in ["http://", "https://", "url(", "@import", "<script", "<link", "src="] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn numbers_are_apart_by_thousands_and_have_no_more_digits_than_say_something() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(decimal(Some(0.123)), "0.12");
        assert_eq!(decimal(Some(12.34)), "12.3");
        assert_eq!(decimal(Some(123.4)), "123");
        assert_eq!(decimal(Some(-1_234.5)), "−1\u{202f}235");
        assert_eq!(decimal(None), "–");
        assert_eq!(decimal(Some(f64::NAN)), "–");
    }
}
