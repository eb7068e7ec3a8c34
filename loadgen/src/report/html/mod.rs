//! A report as a single HTML file without a network, a font or a script. Pure.
//!
//! A [`Page`] is a verdict above titled sections. maud escapes every text where a template writes the text,
//! so nothing from outside can become markup. `run` makes the sections of a run.

pub(crate) mod chart;
mod run;
mod time;

use std::fmt;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::figures::rounded;
use chart::Chart;
pub(crate) use run::{page, sections};

const STYLE: &str = include_str!("style.css");

#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) title: String,
    pub(crate) tone: Tone,
    /// The verdict in a word, or up to four.
    pub(crate) verdict: String,
    /// The verdict in a sentence.
    pub(crate) words: String,
    pub(crate) sections: Markup,
}

/// A judgement, shown by a sign beside the colour for readers who see no colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    /// The result proves nothing, or something else than was asked.
    Odd,
    Bad,
}

#[derive(Debug, Clone)]
pub(crate) struct Figure {
    name: &'static str,
    value: String,
    unit: &'static str,
    /// A condition of the value; may be empty.
    note: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Figure {
    pub(crate) fn new(name: &'static str, value: String, unit: &'static str) -> Self {
        Self { name, value, unit, note: String::new() }
    }

    pub(crate) fn with_note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }
}

impl Cell {
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone: Some(tone) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: None }
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
        let Self { title, tone, verdict, words, sections } = self;
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (title) ": " (verdict) }
                    // Escaped quotes would break the names of fonts.
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    main {
                        h1 { (title) }
                        div class={ "verdict " (tone.class()) } {
                            div.sign aria-hidden="true" { (tone.sign()) }
                            div { div.word { (verdict) } div.words { (words) } }
                        }
                        (sections)
                    }
                }
            }
        };
        f.write_str(&page.0)
    }
}

/// A titled part of a page; nothing where the content is empty.
pub(crate) fn section(title: &str, content: &Markup) -> Markup {
    html! {
        @if !content.0.is_empty() {
            section { h2 { (title) } (content) }
        }
    }
}

pub(crate) fn figures(figures: &[Figure]) -> Markup {
    html! {
        div.figures {
            @for Figure { name, value, unit, note } in figures {
                div.figure {
                    div.name { (name) }
                    div.value { (value) @if !unit.is_empty() { " " small { (unit) } } }
                    @if !note.is_empty() { div.note { (note) } }
                }
            }
        }
    }
}

/// Charts side by side. A chart without a line is left out.
pub(crate) fn charts(charts: &[Chart]) -> Markup {
    let drawn: Vec<&Chart> = charts.iter().filter(|chart| !chart.lines.is_empty()).collect();
    html! {
        @if !drawn.is_empty() {
            div.charts { @for chart in drawn { (chart) } }
        }
    }
}

/// A table whose first `words` columns hold words and whose other columns hold numbers; nothing without a
/// row.
pub(crate) fn table(columns: &[&str], words: usize, rows: impl IntoIterator<Item = Vec<Cell>>) -> Markup {
    grouped_table(&[("", columns)], words, rows)
}

/// A name and the figures beside the name.
pub(crate) fn row(name: &str, figures: impl IntoIterator<Item = String>) -> Vec<Cell> {
    std::iter::once(name.into()).chain(figures.into_iter().map(Cell::from)).collect()
}

/// A table with titles above groups of columns.
fn grouped_table(
    groups: &[(&str, &[&str])],
    words: usize,
    rows: impl IntoIterator<Item = Vec<Cell>>,
) -> Markup {
    let class = |column: usize| if column < words { "words" } else { "number" };
    let columns = groups.iter().flat_map(|(_, columns)| *columns);
    let mut rows = rows.into_iter().peekable();
    html! {
        @if rows.peek().is_some() {
            div.scroll {
                table {
                    thead {
                        @if groups.iter().any(|(title, _)| !title.is_empty()) {
                            tr { @for (title, of) in groups { th.group colspan=(of.len()) { (title) } } }
                        }
                        @if columns.clone().any(|title| !title.is_empty()) {
                            tr {
                                @for (column, title) in columns.enumerate() {
                                    th class=(class(column)) { (title) }
                                }
                            }
                        }
                    }
                    tbody {
                        @for row in rows {
                            tr {
                                @for (column, Cell { text, tone }) in row.iter().enumerate() {
                                    td class={ (class(column)) " " (tone.map_or("", Tone::class)) } { (text) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(crate) fn note(words: &str) -> Markup {
    html! { p.quiet { (words) } }
}

/// Lines with their own breaks, like a file or a command; nothing where there are none.
pub(crate) fn lines(text: &str) -> Markup {
    html! { @if !text.is_empty() { pre { (text.trim_end()) } } }
}

/// A whole number with a narrow space between thousands.
pub(crate) fn grouped(number: u64) -> String {
    if number < 1_000 {
        return number.to_string();
    }
    format!("{}\u{202f}{:03}", grouped(number / 1_000), number % 1_000)
}

/// A figure with about three digits, grouped from 1 000 on; a dash for an unknown figure.
pub(crate) fn decimal(figure: Option<f64>) -> String {
    let Some(figure) = figure.filter(|figure| figure.is_finite()) else { return "–".to_owned() };
    let places = match figure.abs() {
        // Four digits before the point need none after it.
        size if size >= 1_000.0 => {
            return format!("{}{}", if figure < 0.0 { "−" } else { "" }, grouped(rounded(size)));
        }
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{figure:.places$}")
}

/// A figure with a fixed number of places, for columns of aligned points; a dash for an
/// unknown figure.
pub(crate) fn places(figure: Option<f64>, places: usize) -> String {
    figure
        .filter(|figure| figure.is_finite())
        .map_or_else(|| "–".to_owned(), |figure| format!("{figure:.places$}"))
}

#[cfg(test)]
mod tests {
    use super::chart::{ChartLimit, ChartPoint, Line, Look, X};
    use super::*;

    const HOSTILE: &str = "</pre><script>alert('x')</script><img src=x onerror=\"y\">&";

    #[test]
    fn nothing_from_outside_is_markup_wherever_it_stands() {
        let hostile = || HOSTILE.to_owned();
        let points = vec![ChartPoint::at(0.0, 1.0), ChartPoint::at(1.0, 2.0)];
        let line = Line { name: hostile(), colour: 0, points, look: Look::Line };
        let other = Line { colour: 1, ..line.clone() };
        let chart = Chart {
            title: hostile(),
            unit: "ms",
            x: X::Named(hostile()),
            lines: vec![line, other],
            limit: Some(ChartLimit { at: 1.5, name: hostile() }),
        };
        let row = vec![HOSTILE.into(), Cell::toned(HOSTILE, Tone::Bad)];
        let blocks = [
            figures(&[Figure::new(HOSTILE, hostile(), "").with_note(hostile())]),
            charts(&[chart]),
            grouped_table(&[(HOSTILE, &[HOSTILE, HOSTILE])], 1, [row]),
            note(HOSTILE),
            lines(HOSTILE),
        ];
        let sections = section(HOSTILE, &html! { @for block in blocks { (block) } });
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
    fn what_is_empty_has_no_title() {
        assert_eq!(section("The node", &charts(&[])).0, "");
        assert_eq!(section("Scenario", &lines("")).0, "");
        assert_eq!(section("By type", &table(&["type"], 1, [])).0, "");
    }

    #[test]
    fn numbers_are_apart_by_thousands_and_have_no_more_digits_than_say_something() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(1_000_005), "1\u{202f}000\u{202f}005");
        assert_eq!(decimal(Some(0.123)), "0.12");
        assert_eq!(decimal(Some(12.34)), "12.3");
        assert_eq!(decimal(Some(123.4)), "123");
        assert_eq!(decimal(Some(-1_234.5)), "−1\u{202f}235");
        assert_eq!(decimal(None), "–");
        assert_eq!(decimal(Some(f64::NAN)), "–");
    }
}
