//! A chart as SVG: lines over an axis, with ticks at round numbers, a unit, and names where the lines end. Pure.
//!
//! Colours come from the page's style, so one file serves light and dark. A line's name stands at its end in place of a
//! legend; past [`LABELS_MAX`] lines, or where it starts anew, it is dashed too, so that none is told by colour alone.

use std::fmt::{self, Write as _};

use super::escaped;

/// The whole drawing, in its own units; the page scales it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 250.0;
/// Room for the y axis' numbers, for what is above, and for the x axis.
const LEFT: f64 = 52.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 38.0;
/// Room at the right: without names, and the most that names take.
const RIGHT: f64 = 18.0;
const NAMES_MAX: f64 = 132.0;
/// About what a letter takes.
const LETTER: f64 = 6.6;
/// Letters of a name that are shown.
const LETTERS_MAX: usize = 19;
/// Least from one name to the next.
const LABEL_GAP: f64 = 14.0;
/// Lines that have a name at their end; more would not fit.
const LABELS_MAX: usize = 14;
/// Colours of the style; past them lines are dashed.
const COLOURS: usize = 6;
/// Points of one line: more than pixels show nothing more.
const POINTS_MAX: usize = 480;
/// A line is not drawn through a hole so much wider than its points usually are apart.
const HOLE: f64 = 3.5;
/// A limit is drawn while it is at most so much above what there is; further up it would flatten the lines.
const LIMIT_ABOVE_MAX: f64 = 2.5;

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// Of the y axis, which begins at 0.
    pub(crate) unit: &'static str,
    pub(crate) x: X,
    pub(crate) lines: Vec<Line>,
    pub(crate) limit: Option<ChartLimit>,
}

/// The x axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum X {
    /// Seconds from the first publish; the same range, and room for names of so many letters, for charts that are read
    /// together.
    Seconds { from: f64, to: f64, letters: usize },
    /// How much is at most the figure: -log10(1 - q), so that each nine has the same room.
    Nines,
    /// Something with a name, from 0.
    Named(String),
}

/// What a figure is held to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChartLimit {
    pub(crate) at: f64,
    pub(crate) name: String,
}

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Its place among the page's colours: the same thing has the same in every chart.
    pub(crate) colour: usize,
    /// By rising x.
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) look: Look,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Line,
    /// It keeps a value until the next.
    Steps,
    /// With a mark at each point.
    Marks,
    /// Marks alone.
    Dots,
    /// Marks alone, hollow: told from dots without colour.
    Rings,
}

/// What stands for several points where there are more than can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thinning {
    /// So that no peak is lost.
    Highest,
    Mean,
}

impl Thinning {
    /// At most [`POINTS_MAX`] points.
    #[must_use]
    pub(crate) fn of(self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let each = points.len().div_ceil(POINTS_MAX).max(1);
        let thinned = points.chunks(each).map(|chunk| {
            let y = match self {
                Self::Highest => chunk.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max),
                Self::Mean => chunk.iter().map(|point| point.1).sum::<f64>() / count(chunk.len()),
            };
            (chunk[0].0, y)
        });
        thinned.collect()
    }
}

/// Where what is measured comes to lie.
struct Frame {
    x: (f64, f64),
    /// The top of the y axis.
    top: f64,
    /// From one line of the grid to the next.
    step: f64,
    right: f64,
    /// The highest of all lines.
    highest: f64,
}

impl Frame {
    fn of(chart: &Chart) -> Self {
        let points = || chart.lines.iter().flat_map(|line| &line.points).filter(|point| point.1.is_finite());
        let highest = points().map(|point| point.1).fold(0.0, f64::max);
        let limit = chart.shown_limit(highest).map_or(0.0, |limit| limit.at * 1.06);
        let step = round_step(highest.max(limit) / 5.0);
        let is_whole = chart.lines.iter().all(|line| line.look == Look::Steps) && !chart.lines.is_empty();
        let step = if is_whole { step.max(1.0) } else { step };
        let top = (highest.max(limit) / step).ceil().max(1.0) * step;
        let x = match chart.x {
            X::Seconds { from, to, .. } => (from, to),
            X::Named(_) => (0.0, 1.04 * points().map(|point| point.0).fold(0.0, f64::max)),
            X::Nines => points().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| {
                (low.min(point.0), high.max(point.0))
            }),
        };
        let x = if x.0 < x.1 { x } else { (x.0.min(0.0), x.0.max(0.0) + 1.0) };
        let x = if x.0.is_finite() && x.1.is_finite() { x } else { (0.0, 1.0) };
        let named = chart.lines.iter().filter(|_| chart.lines.len() > 1);
        let longest =
            named.map(|line| line.name.chars().count()).chain([chart.x.letters()]).max().unwrap_or(0);
        let names = if longest > 0 { count(longest.min(LETTERS_MAX)) * LETTER + 16.0 } else { 0.0 };
        let names = names.min(NAMES_MAX);
        Self { x, top, step, right: WIDTH - RIGHT.max(names), highest }
    }

    fn x(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (self.right - LEFT)
    }

    fn y(&self, y: f64) -> f64 {
        let low = HEIGHT - BOTTOM;
        low - (y.max(0.0) / self.top) * (low - TOP)
    }
}

impl Chart {
    fn shown_limit(&self, highest: f64) -> Option<&ChartLimit> {
        self.limit.as_ref().filter(|limit| limit.at <= highest * LIMIT_ABOVE_MAX)
    }

    fn write_grid(&self, f: &mut fmt::Formatter<'_>, frame: &Frame) -> fmt::Result {
        let mut y = 0.0;
        while y <= frame.top * 1.001 {
            let at = frame.y(y);
            let class = if y == 0.0 { "base" } else { "grid" };
            let right = frame.right;
            let text = tick(y, frame.step);
            writeln!(
                f,
                "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{right:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            )?;
            writeln!(
                f,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 8.0,
                at + 4.0
            )?;
            y += frame.step;
        }
        let low = HEIGHT - BOTTOM;
        for (x, text) in self.x.ticks(frame.x.0, frame.x.1) {
            let at = frame.x(x);
            writeln!(
                f,
                "<line class=\"base\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{low}\" y2=\"{}\"/>",
                low + 4.0
            )?;
            writeln!(f, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>", low + 17.0)?;
        }
        let middle = (LEFT + frame.right) / 2.0;
        let name = escaped(self.x.name(frame.x.0, frame.x.1));
        writeln!(f, "<text x=\"{middle:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>", HEIGHT - 4.0)
    }

    fn write_limit(&self, f: &mut fmt::Formatter<'_>, frame: &Frame) -> fmt::Result {
        let Some(limit) = self.shown_limit(frame.highest) else { return Ok(()) };
        let at = frame.y(limit.at);
        let right = frame.right;
        writeln!(f, "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{right:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>")?;
        let x = LEFT + 6.0;
        let y = at - 4.0;
        let name = escaped(&limit.name);
        writeln!(f, "<text class=\"limit-label\" x=\"{x}\" y=\"{y:.1}\">{name}</text>")
    }

    /// The lines' names at their ends, apart from each other.
    fn write_names(&self, f: &mut fmt::Formatter<'_>, frame: &Frame) -> fmt::Result {
        let ends = self.lines.iter().take(LABELS_MAX).filter_map(|line| {
            let last = line.points.iter().rfind(|point| point.1.is_finite())?;
            Some((frame.y(last.1), line))
        });
        let mut ends: Vec<(f64, &Line)> = ends.collect();
        if self.lines.len() < 2 {
            return Ok(());
        }
        ends.sort_by(|one, other| one.0.total_cmp(&other.0));
        apart(&mut ends, |end| &mut end.0);
        for (y, line) in ends {
            let mut name: String = line.name.chars().take(LETTERS_MAX).collect();
            if line.name.chars().count() > LETTERS_MAX {
                name.pop();
                name.push('…');
            }
            let x = frame.right + 14.0;
            let dot = frame.right + 7.0;
            let name = escaped(&name);
            let colour = line.colour % COLOURS;
            let class = line.mark().unwrap_or("d");
            writeln!(f, "<circle class=\"{class}{colour}\" cx=\"{dot:.1}\" cy=\"{y:.1}\" r=\"3\"/>")?;
            writeln!(f, "<text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\">{name}</text>", y + 4.0)?;
        }
        Ok(())
    }
}

impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = Frame::of(self);
        let title = escaped(&self.title);
        writeln!(f, "<figure><figcaption>{title}<span>{}</span></figcaption>", escaped(self.unit))?;
        writeln!(f, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">")?;
        self.write_grid(f, &frame)?;
        for line in &self.lines {
            line.write(f, &frame)?;
        }
        self.write_limit(f, &frame)?;
        self.write_names(f, &frame)?;
        f.write_str("</svg></figure>\n")
    }
}

impl Line {
    fn write(&self, f: &mut fmt::Formatter<'_>, frame: &Frame) -> fmt::Result {
        let colour = self.colour % COLOURS;
        let again = if self.colour < COLOURS { "" } else { " again" };
        let hole = self.hole();
        let mut path = String::new();
        let mut before: Option<(f64, f64)> = None;
        for point in self.points.iter().filter(|point| point.1.is_finite()) {
            let x = frame.x(point.0);
            let y = frame.y(point.1);
            match before.filter(|before| point.0 - before.0 <= hole) {
                None => write!(path, "M{x:.1} {y:.1}h.01")?,
                Some(_) if self.look == Look::Steps => write!(path, "H{x:.1}V{y:.1}")?,
                Some(_) => write!(path, "L{x:.1} {y:.1}")?,
            }
            before = Some(*point);
            if let Some(class) = self.mark() {
                writeln!(f, "<circle class=\"{class}{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>")?;
            }
        }
        if matches!(self.look, Look::Dots | Look::Rings) {
            return Ok(());
        }
        writeln!(f, "<path class=\"line s{colour}{again}\" d=\"{path}\"/>")
    }

    /// The style of a mark at each point, where there is any.
    fn mark(&self) -> Option<&'static str> {
        match self.look {
            Look::Line | Look::Steps => None,
            Look::Marks | Look::Dots => Some("d"),
            Look::Rings => Some("ring s"),
        }
    }

    /// What is too far from one point to the next to draw a line; nothing is, where few points are.
    fn hole(&self) -> f64 {
        if self.look == Look::Marks || self.points.len() < 8 {
            return f64::INFINITY;
        }
        let mut steps: Vec<f64> = self.points.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        steps.sort_by(f64::total_cmp);
        steps[steps.len() / 2] * HOLE
    }
}

impl X {
    fn letters(&self) -> usize {
        if let Self::Seconds { letters, .. } = self { *letters } else { 0 }
    }

    fn name(&self, from: f64, to: f64) -> &str {
        match self {
            Self::Seconds { .. } if to - from > 600.0 => "minutes from the first publish",
            Self::Seconds { .. } => "seconds from the first publish",
            Self::Nines => "at most so long: percent of all",
            Self::Named(name) => name,
        }
    }

    fn ticks(&self, from: f64, to: f64) -> Vec<(f64, String)> {
        if *self == Self::Nines {
            let named = [
                (0.5, "50"),
                (0.9, "90"),
                (0.99, "99"),
                (0.999, "99.9"),
                (0.9999, "99.99"),
                (0.99999, "99.999"),
            ];
            let known = named.iter().map(|(share, text)| (nines(*share), (*text).to_owned()));
            let zero = std::iter::once((0.0, "0".to_owned()));
            return zero.chain(known).filter(|(x, _)| (from..=to).contains(x)).collect();
        }
        let in_minutes = matches!(self, Self::Seconds { .. }) && to - from > 600.0;
        let each = if in_minutes { 60.0 } else { 1.0 };
        let step = round_step((to - from) / each / 6.0);
        let first = (from / each / step).ceil();
        let ticks = (0..24_u32).map(|place| (first + f64::from(place)) * step);
        ticks.take_while(|x| x * each <= to * 1.000_001).map(|x| (x * each, tick(x, step))).collect()
    }
}

/// Where a share comes to lie on an axis of nines; all is put a little behind what the axis can tell.
#[must_use]
pub(crate) fn nines(share: f64) -> f64 {
    -(1.0 - share).max(1e-9).log10()
}

/// The round number at or next above: 1, 2 or 5 and zeros.
fn round_step(least: f64) -> f64 {
    if !least.is_finite() || least <= 0.0 {
        return 0.25;
    }
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().find(|round| round * power >= least * 0.999_999).unwrap_or(10.0) * power
}

/// A number at a tick, with the places that the step has.
fn tick(number: f64, step: f64) -> String {
    let text = match step {
        _ if number == 0.0 => "0".to_owned(),
        step if step >= 1e6 => format!("{}M", number / 1e6),
        step if step >= 1e3 => format!("{}k", number / 1e3),
        step if step >= 1.0 => format!("{number:.0}"),
        step if step >= 0.1 => format!("{number:.1}"),
        step if step >= 0.01 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    };
    text.replace('-', "−")
}

/// Moves what is sorted by its place apart: down where the next is too near, then up where that went past the end.
fn apart<T>(ends: &mut [T], mut place: impl FnMut(&mut T) -> &mut f64) {
    let mut least = TOP;
    for end in ends.iter_mut() {
        let at = place(end);
        *at = at.max(least);
        least = *at + LABEL_GAP;
    }
    let mut most = HEIGHT - BOTTOM;
    for end in ends.iter_mut().rev() {
        let at = place(end);
        *at = at.min(most);
        most = *at - LABEL_GAP;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of what is drawn")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let line = Line { name: "chat".into(), colour: 0, points, look: Look::Line };
        Chart {
            title: "Latency".into(),
            unit: "ms",
            x: X::Seconds { from: 0.0, to: 60.0, letters: 0 },
            lines: vec![line],
            limit: None,
        }
    }

    #[test]
    fn ticks_are_round_and_reach_above_the_highest() {
        for (highest, top, step) in
            [(0.9, 1.0, 0.2), (118.0, 150.0, 50.0), (4_100.0, 5_000.0, 1_000.0), (0.0, 0.25, 0.25)]
        {
            let frame = Frame::of(&chart(vec![(0.0, 0.0), (1.0, highest)]));
            assert_eq!((frame.top, frame.step), (top, step), "{highest}");
        }
        let x = X::Seconds { from: -3.0, to: 60.0, letters: 4 };
        let ticks: Vec<String> = x.ticks(-3.0, 60.0).into_iter().map(|(_, text)| text).collect();
        assert_eq!(ticks, ["0", "20", "40", "60"]);
        assert_eq!(tick(120_000.0, 20_000.0), "120k");
        assert_eq!(tick(-0.5, 0.5), "−0.5");
    }

    #[test]
    fn nothing_is_drawn_outside_whatever_the_figures_are() {
        for points in [
            vec![],
            vec![(5.0, 0.0)],
            vec![(0.0, f64::NAN), (1.0, f64::INFINITY)],
            vec![(0.0, 1e18), (60.0, -3.0)],
        ] {
            let drawn = chart(points).to_string();
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }

    #[test]
    fn a_knee_has_marks_on_its_line_and_residuals_marks_alone() {
        let points = vec![(1_000.0, 80.0), (2_000.0, 120.0), (3_000.0, 900.0)];
        let mut knee = chart(points);
        knee.x = X::Named("devices".into());
        for (look, paths) in [(Look::Marks, 1), (Look::Dots, 0), (Look::Rings, 0)] {
            knee.lines[0].look = look;
            let drawn = knee.to_string();
            assert_eq!((drawn.matches("<circle").count(), drawn.matches("<path").count()), (3, paths));
            assert!(drawn.contains(">devices<") && drawn.contains(">2k<"), "{drawn}");
        }
    }

    #[test]
    fn a_line_stops_where_nothing_was_measured() {
        let points: Vec<(f64, f64)> =
            (0..40).filter(|x| !(10..20).contains(x)).map(|x| (f64::from(x), 5.0)).collect();
        let drawn = chart(points).to_string();
        let path = drawn.lines().find(|line| line.starts_with("<path")).unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
    }

    #[test]
    fn a_peak_survives_thinning_and_a_mean_does_not_grow() {
        let points: Vec<(f64, f64)> =
            (0..7_200).map(|x| (f64::from(x), if x == 3_333 { 900.0 } else { 1.0 })).collect();
        let highest = Thinning::Highest.of(&points);
        assert!(highest.len() <= POINTS_MAX && highest.iter().any(|point| point.1 == 900.0));
        let mean = Thinning::Mean.of(&vec![(0.0, 2.0); 5_000]);
        assert!(mean.iter().all(|point| point.1 == 2.0));
    }

    #[test]
    fn names_do_not_lie_on_each_other() {
        let mut ends = [200.0, 201.0, 202.0, 211.0, 212.0];
        apart(&mut ends, |end| end);
        for pair in ends.windows(2) {
            assert!(pair[1] - pair[0] >= LABEL_GAP - 1e-9, "{ends:?}");
        }
        assert!(ends[4] <= HEIGHT - BOTTOM);
    }

    #[test]
    fn a_limit_that_is_far_above_does_not_flatten_the_lines() {
        let mut near = chart(vec![(0.0, 100.0), (1.0, 110.0)]);
        near.limit = Some(ChartLimit { at: 150.0, name: "p99<150ms".into() });
        assert!(near.to_string().contains("p99&lt;150ms"));
        near.limit = Some(ChartLimit { at: 3_000.0, name: "p99<3s".into() });
        let drawn = near.to_string();
        assert!(!drawn.contains("p99&lt;3s") && drawn.contains(">150<"), "{drawn}");
    }
}
