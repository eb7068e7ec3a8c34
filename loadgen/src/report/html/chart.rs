//! A chart as SVG: lines over an axis with round ticks, a unit, and a name at the end of each line. Pure.
//!
//! Colours come from the style of the page, so a drawing serves light and dark. Names at the ends take the
//! place of a legend. Past [`COLOURS`] lines a colour comes a second time, with dashes.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use maud::{Markup, Render, html};

use crate::figures::ratio;

/// The size of the drawing; the page scales the drawing.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 250.0;
/// The space beside the plot: the numbers of the y axis, the top, the x axis.
const LEFT: f64 = 52.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 38.0;
/// The lower end of the plot.
const FLOOR: f64 = HEIGHT - BOTTOM;
/// The space at the right without names, and the largest width of names.
const RIGHT: f64 = 18.0;
const NAMES_MAX: f64 = 132.0;
/// The width of a letter, about.
const LETTER: f64 = 6.6;
const LETTERS_MAX: usize = 19;
/// The least distance between two names.
const LABEL_GAP: f64 = 14.0;
/// Named lines of a chart: [`HEIGHT`] has no room for more.
const LABELS_MAX: usize = 14;
/// Colours of the style.
const COLOURS: usize = 6;
/// Points of a line: a screen has no pixels for more.
const POINTS_MAX: usize = 480;
/// A line breaks at a gap wider than this many median gaps: nothing was measured there.
const HOLE: f64 = 3.5;
/// The least width of a mark: a pointer must find it.
const MARK: f64 = 3.0;
/// A limit farther above the highest point than this factor is left out: the lines would be flat.
const LIMIT_ABOVE_MAX: f64 = 2.5;
/// Seconds of an axis past which the axis counts minutes.
const MINUTES_FROM: f64 = 600.0;

#[derive(Debug, Clone)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// The unit of the y axis, which begins at 0.
    pub(crate) unit: &'static str,
    pub(crate) x: X,
    pub(crate) lines: Vec<Line>,
    pub(crate) limit: Option<ChartLimit>,
}

/// The x axis.
#[derive(Debug, Clone)]
pub(crate) enum X {
    /// Seconds from the first publish. Charts with the same range and the same space for names of `letters`
    /// letters can be read together.
    Seconds { from: f64, to: f64, letters: usize, marks: Vec<ChartMark> },
    /// A share q of all values at -log10(1 - q), which gives each further nine the same space: 0.9 lies at 1,
    /// 0.99 at 2.
    Nines,
    /// A named quantity, from 0.
    Named(String),
}

/// A horizontal line: the bound of a condition.
#[derive(Debug, Clone)]
pub(crate) struct ChartLimit {
    pub(crate) at: f64,
    pub(crate) name: String,
}

/// A time that stands out on every chart, such as that of a fault.
#[derive(Debug, Clone)]
pub(crate) struct ChartMark {
    /// Seconds from the first publish.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// The text above the plot, of a letter or two.
    pub(crate) sign: String,
    /// Shown by a pointer over the mark.
    pub(crate) name: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// An index into the colours of the page: a type has the same colour in every chart.
    pub(crate) colour: usize,
    /// By rising x. The line breaks at a point without a finite y.
    pub(crate) points: Vec<ChartPoint>,
    pub(crate) look: Look,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ChartPoint {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Line,
    /// Each value holds until the next point.
    Steps,
    /// Marks without a line.
    Dots,
    /// Hollow marks without a line, told from dots without colour.
    Rings,
}

impl ChartPoint {
    pub(crate) fn at(x: f64, y: f64) -> Self {
        Self { x, y }
    }
}

/// At most [`POINTS_MAX`] points, each in place of several, whose y become one by `y_of`.
pub(crate) fn thinned(points: &[ChartPoint], y_of: fn(&[ChartPoint]) -> f64) -> Vec<ChartPoint> {
    let each = points.len().div_ceil(POINTS_MAX).max(1);
    points.chunks(each).map(|chunk| ChartPoint::at(chunk[0].x, y_of(chunk))).collect()
}

/// Keeps every peak.
pub(crate) fn highest(points: &[ChartPoint]) -> f64 {
    points.iter().map(|point| point.y).fold(f64::NEG_INFINITY, f64::max)
}

pub(crate) fn mean(points: &[ChartPoint]) -> f64 {
    points.iter().map(|point| point.y).sum::<f64>() / ratio(points.len() as u64, 1)
}

/// The map from figures to the drawing.
struct Frame {
    x: RangeInclusive<f64>,
    /// The figure at the top of the y axis.
    top: f64,
    /// The distance between two lines of the grid, in figures.
    step: f64,
    /// The right end of the plot.
    right: f64,
    /// `None` also for a limit too far up to be shown.
    limit: Option<ChartLimit>,
}

impl Frame {
    fn of(chart: &Chart) -> Self {
        let points = || chart.lines.iter().flat_map(Line::finite);
        let highest = points().map(|point| point.y).fold(0.0, f64::max);
        let limit = chart.limit.clone().filter(|limit| limit.at <= highest * LIMIT_ABOVE_MAX);
        // 6 % above a limit leave the line of the limit apart from the edge.
        let highest = limit.as_ref().map_or(highest, |limit| highest.max(limit.at * 1.06));
        let mut step = round_step(highest / 5.0);
        // Steps are counts, and a count has no fractions.
        if chart.lines.iter().all(|line| line.look == Look::Steps) && !chart.lines.is_empty() {
            step = step.max(1.0);
        }
        let xs = || points().map(|point| point.x);
        let x = match chart.x {
            X::Seconds { from, to, .. } => from..=to,
            X::Named(_) => 0.0..=1.04 * xs().fold(0.0, f64::max),
            X::Nines => xs().fold(f64::INFINITY, f64::min)..=xs().fold(f64::NEG_INFINITY, f64::max),
        };
        // An axis needs a length: one point has none, and no point has infinite ends.
        let x = match (*x.start(), *x.end()) {
            (from, to) if !from.is_finite() || !to.is_finite() => 0.0..=1.0,
            (from, to) if from < to => from..=to,
            (from, to) => from.min(0.0)..=to.max(0.0) + 1.0,
        };
        let right = WIDTH - RIGHT.max(chart.names_width());
        Self { x, top: (highest / step).ceil().max(1.0) * step, step, right, limit }
    }

    fn x(&self, x: f64) -> f64 {
        let from = self.x.start();
        LEFT + (x - from) / (self.x.end() - from) * (self.right - LEFT)
    }

    fn y(&self, y: f64) -> f64 {
        // Figures below 0 would leave the plot.
        FLOOR - (y.max(0.0) / self.top) * (FLOOR - TOP)
    }

    fn horizontal(&self, class: &str, y: f64) -> Markup {
        let at = tenths(self.y(y));
        // `{}` writes an end tag, and SVG needs the end tag: without one the next element would be a child.
        html! { line class=(class) x1=(LEFT) x2=(tenths(self.right)) y1=(at) y2=(at) {} }
    }

    fn mark(&self, ChartMark { from, to, sign, name }: &ChartMark) -> Markup {
        // A mark past the axis would leave the plot.
        let from = from.clamp(*self.x.start(), *self.x.end());
        let at = self.x(from);
        let width = self.x(to.clamp(from, *self.x.end())) - at;
        html! {
            g.mark {
                title { (sign) ": " (name) }
                rect x=(tenths(at)) y=(TOP) width=(tenths(width.max(MARK))) height=(FLOOR - TOP) {}
                line x1=(tenths(at)) x2=(tenths(at)) y1=(TOP) y2=(FLOOR) {}
                text x=(tenths(at)) y=(TOP - 3.0) text-anchor="middle" { (sign) }
            }
        }
    }

    fn grid(&self) -> Markup {
        // The sum of many steps may end a little above the top.
        let ys = (0_u32..).map(|place| f64::from(place) * self.step);
        html! {
            @for y in ys.take_while(|y| *y <= self.top * 1.001) {
                (self.horizontal(if y == 0.0 { "base" } else { "grid" }, y))
                text x=(LEFT - 8.0) y=(tenths(self.y(y) + 4.0)) text-anchor="end" { (tick(y, self.step)) }
            }
        }
    }
}

impl Chart {
    /// The width of the names: as wide as the longest, within [`NAMES_MAX`].
    fn names_width(&self) -> f64 {
        // The title of the chart names a single line.
        let named = self.lines.iter().filter(|_| self.lines.len() > 1);
        let reserved = if let X::Seconds { letters, .. } = self.x { letters } else { 0 };
        let longest = named.map(|line| line.name.chars().count()).fold(reserved, usize::max);
        if longest == 0 { 0.0 } else { (ratio(longest as u64, 1) * LETTER + 16.0).min(NAMES_MAX) }
    }

    fn x_axis(&self, frame: &Frame) -> Markup {
        let middle = tenths((LEFT + frame.right) / 2.0);
        html! {
            @for (x, text) in self.x.ticks(&frame.x) {
                @let at = tenths(frame.x(x));
                line.base x1=(at) x2=(at) y1=(FLOOR) y2=(FLOOR + 4.0) {}
                text x=(at) y=(FLOOR + 17.0) text-anchor="middle" { (text) }
            }
            text x=(middle) y=(HEIGHT - 4.0) text-anchor="middle" { (self.x.name(&frame.x)) }
        }
    }

    /// The names of the lines at their ends, moved apart.
    fn names(&self, frame: &Frame) -> Markup {
        // The title of the chart names a single line.
        let lines = self.lines.iter().take(LABELS_MAX).filter(|_| self.lines.len() > 1);
        let ends = lines.filter_map(|line| Some((frame.y(line.finite().last()?.y), line)));
        let mut ends: Vec<(f64, &Line)> = ends.collect();
        ends.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut ys: Vec<f64> = ends.iter().map(|end| end.0).collect();
        move_apart(&mut ys);
        html! {
            @for (y, (_, line)) in ys.into_iter().zip(ends) {
                (line.dot(frame.right + 7.0, y, 3.0))
                text.label x=(tenths(frame.right + 14.0)) y=(tenths(y + 4.0)) { (shortened(&line.name)) }
            }
        }
    }
}

impl Render for Chart {
    fn render(&self) -> Markup {
        let frame = Frame::of(self);
        html! {
            figure {
                figcaption { (self.title) span { (self.unit) } }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(self.title) {
                    (frame.grid())
                    @if let X::Seconds { marks, .. } = &self.x {
                        @for mark in marks { (frame.mark(mark)) }
                    }
                    (self.x_axis(&frame))
                    @for line in &self.lines { (line.drawn(&frame)) }
                    @if let Some(ChartLimit { at, name }) = &frame.limit {
                        (frame.horizontal("limit", *at))
                        text.limit-label x=(LEFT + 6.0) y=(tenths(frame.y(*at) - 4.0)) { (name) }
                    }
                    (self.names(&frame))
                }
            }
        }
    }
}

impl Line {
    fn finite(&self) -> impl Iterator<Item = &ChartPoint> {
        self.points.iter().filter(|point| point.y.is_finite())
    }

    fn drawn(&self, frame: &Frame) -> Markup {
        let again = if self.colour < COLOURS { "" } else { " again" };
        html! {
            @if matches!(self.look, Look::Dots | Look::Rings) {
                @for point in self.finite() { (self.dot(frame.x(point.x), frame.y(point.y), 3.5)) }
            } @else {
                path class={ "line s" (self.colour % COLOURS) (again) } d=(self.path(frame)) {}
            }
        }
    }

    fn dot(&self, x: f64, y: f64, radius: f64) -> Markup {
        let class = if self.look == Look::Rings { "ring s" } else { "d" };
        let colour = self.colour % COLOURS;
        html! { circle class={ (class) (colour) } cx=(tenths(x)) cy=(tenths(y)) r=(radius) {} }
    }

    fn path(&self, frame: &Frame) -> String {
        let hole = self.hole();
        let mut path = String::new();
        let mut before = f64::NEG_INFINITY;
        for point in &self.points {
            if !point.y.is_finite() {
                before = f64::NEG_INFINITY;
                continue;
            }
            let x = tenths(frame.x(point.x));
            let y = tenths(frame.y(point.y));
            let written = match self.look {
                // A stroke of .01 shows a point even when the line breaks on both sides.
                _ if point.x - before > hole || before == f64::NEG_INFINITY => write!(path, "M{x} {y}h.01"),
                Look::Steps => write!(path, "H{x}V{y}"),
                Look::Line | Look::Dots | Look::Rings => write!(path, "L{x} {y}"),
            };
            written.expect("writing to memory can't fail");
            before = point.x;
        }
        path
    }

    /// The gap between two points past which the line breaks.
    fn hole(&self) -> f64 {
        // A median of fewer than 8 points says nothing about the usual gap.
        if self.points.len() < 8 {
            return f64::INFINITY;
        }
        let mut gaps: Vec<f64> = self.points.windows(2).map(|pair| pair[1].x - pair[0].x).collect();
        gaps.sort_by(f64::total_cmp);
        gaps[gaps.len() / 2] * HOLE
    }
}

impl X {
    fn in_minutes(&self, range: &RangeInclusive<f64>) -> bool {
        matches!(self, Self::Seconds { .. }) && range.end() - range.start() > MINUTES_FROM
    }

    fn name(&self, range: &RangeInclusive<f64>) -> &str {
        match self {
            Self::Seconds { .. } if self.in_minutes(range) => "minutes from the first publish",
            Self::Seconds { .. } => "seconds from the first publish",
            Self::Nines => "at most so long: percent of all",
            Self::Named(name) => name,
        }
    }

    fn ticks(&self, range: &RangeInclusive<f64>) -> Vec<(f64, String)> {
        if matches!(self, Self::Nines) {
            let percents = ["0", "50", "90", "99", "99.9", "99.99", "99.999"].into_iter();
            let known = percents.zip([0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999].map(nines));
            return known.map(|(text, x)| (x, text.to_owned())).filter(|(x, _)| range.contains(x)).collect();
        }
        let each = if self.in_minutes(range) { 60.0 } else { 1.0 };
        let step = round_step((range.end() - range.start()) / each / 6.0);
        let first = (range.start() / each / step).ceil();
        let ticks = (0..24_u32).map(|place| (first + f64::from(place)) * step);
        // The last tick may lie past the end by an error of rounding.
        let ticks = ticks.take_while(|x| x * each <= range.end() * 1.000_001);
        ticks.map(|x| (x * each, tick(x, step))).collect()
    }
}

/// The place of a share on an axis of nines. Shares past 1 - 1e-9 share a place: the place of 1 is infinite.
pub(crate) fn nines(share: f64) -> f64 {
    -(1.0 - share).max(1e-9).log10()
}

/// The next of 1, 2 and 5 times a power of ten, at or above `least`.
fn round_step(least: f64) -> f64 {
    // A chart of zeros has an axis too: up to 0.25.
    if !least.is_finite() || least <= 0.0 {
        return 0.25;
    }
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().find(|round| round * power >= least * 0.999_999).unwrap_or(10.0) * power
}

/// A number at a tick, with as many places as the step has.
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

/// Moves rising places apart by [`LABEL_GAP`]: down, then back up from the end of the plot.
fn move_apart(ys: &mut [f64]) {
    let mut least = TOP;
    for y in ys.iter_mut() {
        *y = y.max(least);
        least = *y + LABEL_GAP;
    }
    let mut most = FLOOR;
    for y in ys.iter_mut().rev() {
        *y = y.min(most);
        most = *y - LABEL_GAP;
    }
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= LETTERS_MAX {
        return name.to_owned();
    }
    name.chars().take(LETTERS_MAX - 1).chain(['…']).collect()
}

fn tenths(at: f64) -> String {
    format!("{at:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(of: impl IntoIterator<Item = [f64; 2]>) -> Vec<ChartPoint> {
        of.into_iter().map(|[x, y]| ChartPoint::at(x, y)).collect()
    }

    fn chart(of: impl IntoIterator<Item = [f64; 2]>) -> Chart {
        let line = Line { name: "chat".into(), colour: 0, points: points(of), look: Look::Line };
        Chart {
            title: "Latency".into(),
            unit: "ms",
            x: X::Seconds { from: 0.0, to: 60.0, letters: 0, marks: Vec::new() },
            lines: vec![line],
            limit: None,
        }
    }

    #[test]
    fn ticks_are_round_and_reach_above_the_highest() {
        for (highest, top, step) in
            [(0.9, 1.0, 0.2), (118.0, 150.0, 50.0), (4_100.0, 5_000.0, 1_000.0), (0.0, 0.25, 0.25)]
        {
            let frame = Frame::of(&chart([[0.0, 0.0], [1.0, highest]]));
            assert_eq!((frame.top, frame.step), (top, step), "{highest}");
        }
        let x = X::Seconds { from: -3.0, to: 60.0, letters: 4, marks: Vec::new() };
        let ticks: Vec<String> = x.ticks(&(-3.0..=60.0)).into_iter().map(|(_, text)| text).collect();
        assert_eq!(ticks, ["0", "20", "40", "60"]);
        assert_eq!(tick(120_000.0, 20_000.0), "120k");
        assert_eq!(tick(-0.5, 0.5), "−0.5");
    }

    #[test]
    fn nothing_is_drawn_outside_whatever_the_figures_are() {
        for points in [
            vec![],
            vec![[5.0, 0.0]],
            vec![[0.0, f64::NAN], [1.0, f64::INFINITY]],
            vec![[0.0, 1e18], [60.0, -3.0]],
        ] {
            let drawn = chart(points).render().0;
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }

    #[test]
    fn probes_and_residuals_have_marks_without_a_line() {
        let mut knee = chart([[1_000.0, 80.0], [2_000.0, 120.0], [3_000.0, 900.0]]);
        knee.x = X::Named("devices".into());
        for (look, marks_and_paths) in [(Look::Line, [0, 1]), (Look::Dots, [3, 0]), (Look::Rings, [3, 0])] {
            knee.lines[0].look = look;
            let drawn = knee.render().0;
            assert_eq!(["<circle", "<path"].map(|tag| drawn.matches(tag).count()), marks_and_paths);
            assert!(drawn.contains(">devices<") && drawn.contains(">2k<"), "{drawn}");
        }
    }

    #[test]
    fn a_line_stops_where_nothing_was_measured() {
        let measured = (0..40).filter(|x| !(10..20).contains(x)).map(|x| [f64::from(x), 5.0]);
        let drawn = chart(measured).render().0;
        let path = drawn.split('<').find(|tag| tag.starts_with("path")).unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
    }

    #[test]
    fn a_line_breaks_where_a_figure_is_missing_and_a_mark_stays_in_the_plot() {
        let mut silent = chart([[0.0, 1.0], [1.0, 1.0], [2.0, f64::NAN], [3.0, 1.0]]);
        let mark = |from, to| ChartMark { from, to, sign: "1".into(), name: "kill node-1".into() };
        silent.x =
            X::Seconds { from: 0.0, to: 3.0, letters: 0, marks: vec![mark(1.5, 99.0), mark(7.0, 9.0)] };
        let drawn = silent.render().0;
        let path = drawn.split('<').find(|tag| tag.starts_with("path")).unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(drawn.matches("<title>1: kill node-1</title>").count(), 2);
        let widths = drawn.split("<rect").skip(1).map(|rect| rect.split("width=\"").nth(1).unwrap());
        assert!(
            widths.into_iter().all(|width| width.split('"').next().unwrap().parse::<f64>().unwrap() <= 266.0)
        );
    }

    #[test]
    fn a_peak_survives_thinning_and_a_mean_does_not_grow() {
        let peak = points((0..7_200).map(|x| [f64::from(x), if x == 3_333 { 900.0 } else { 1.0 }]));
        let highest = thinned(&peak, highest);
        assert!(highest.len() <= POINTS_MAX && highest.iter().any(|point| point.y == 900.0));
        let mean = thinned(&points(vec![[0.0, 2.0]; 5_000]), mean);
        assert!(mean.iter().all(|point| point.y == 2.0));
    }

    #[test]
    fn names_do_not_lie_on_each_other() {
        let mut ends = [200.0, 201.0, 202.0, 211.0, 212.0];
        move_apart(&mut ends);
        for pair in ends.windows(2) {
            assert!(pair[1] - pair[0] >= LABEL_GAP - 1e-9, "{ends:?}");
        }
        assert!(ends[4] <= FLOOR);
    }

    #[test]
    fn a_limit_that_is_far_above_does_not_flatten_the_lines() {
        let mut near = chart([[0.0, 100.0], [1.0, 110.0]]);
        near.limit = Some(ChartLimit { at: 150.0, name: "p99<150ms".into() });
        assert!(near.render().0.contains("p99&lt;150ms"));
        near.limit = Some(ChartLimit { at: 3_000.0, name: "p99<3s".into() });
        let drawn = near.render().0;
        assert!(!drawn.contains("p99&lt;3s") && drawn.contains(">150<"), "{drawn}");
    }
}
