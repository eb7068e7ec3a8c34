//! What is shown while a run runs: a few lines that are drawn again on a terminal, plain lines elsewhere.
//!
//! All of it goes to stderr; stdout is the report's. What is shown is what workers say on their way and is no part of any
//! verdict. A thread of its own draws, once a second, and ends with the [`Live`] that began it.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::monotonic_ns;
use crate::figures::latency::{Buckets, Latency, Percentiles};
use crate::figures::ratio;
use crate::node::samples::Sample;
use crate::report::html::grouped;

/// How often a terminal is drawn.
const EVERY: Duration = Duration::from_secs(1);
/// Of so many moments one is a plain line, where there is no terminal.
const PLAIN_EVERY: u64 = 5;
/// Columns of a line at most. A narrower terminal cuts them off.
const WIDTH: usize = 78;
/// Columns of the bar.
const BAR: usize = 30;

/// How far a run is, counted from its first publish.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    /// Milliseconds since the first publish.
    pub(crate) at_ms: u64,
    /// Devices that are in their rooms.
    pub(crate) members: u64,
    /// Devices on their way there.
    pub(crate) joining: u64,
    /// Messages that were due.
    pub(crate) due: u64,
    /// Messages that devices were given.
    pub(crate) deliveries: u64,
    pub(crate) frames: u64,
    pub(crate) violations: u64,
    /// From due to given, of those that were given since the totals before.
    pub(crate) latency: Buckets,
    /// The node, where it says how it is.
    pub(crate) node: Option<Sample>,
}

/// One second of a run.
#[derive(Debug, Clone, Default)]
struct Second {
    /// How long messages are published.
    of_ms: u64,
    totals: Totals,
    due_per_s: f64,
    deliveries_per_s: f64,
    frames_per_s: f64,
    latency: Percentiles,
}

/// The lines of a run that is going on; they are gone when this is.
#[derive(Debug)]
pub(crate) struct Live {
    stop: Option<Sender<()>>,
    drawing: Option<JoinHandle<()>>,
}

impl Live {
    /// Begins to show a run whose first publish is due at `start_ns` and whose last `of_ms` later. `totals` is asked once
    /// a second, with the milliseconds since the first publish.
    #[must_use]
    pub(crate) fn begin(
        start_ns: u64,
        of_ms: u64,
        mut totals: impl FnMut(u64) -> Totals + Send + 'static,
    ) -> Self {
        let (stop, stopped) = channel::<()>();
        let on_terminal = std::io::stderr().is_terminal();
        let drawing = std::thread::spawn(move || {
            let mut before = Totals::default();
            let mut drawn = 0;
            let mut turn = 0;
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let at_ms = monotonic_ns().saturating_sub(start_ns) / 1_000_000;
                let now = totals(at_ms);
                let moment = Second::between(&before, &now, of_ms);
                turn += 1;
                if on_terminal {
                    let lines = moment.lines(WIDTH);
                    say(&redrawn(&lines, drawn));
                    drawn = lines.len();
                } else if turn % PLAIN_EVERY == 0 {
                    say(&format!("{}\n", moment.line()));
                }
                before = now;
            }
            say(&redrawn(&[], drawn));
        });
        Self { stop: Some(stop), drawing: Some(drawing) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.drawing.take().map(JoinHandle::join));
    }
}

/// To stderr in one piece; one that is closed is no reason to end a run.
fn say(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}

/// The lines in place of so many that were drawn before. While they are written the terminal does not wrap, so that each
/// takes one row however narrow it is.
fn redrawn(lines: &[String], before: usize) -> String {
    if lines.is_empty() && before == 0 {
        return String::new();
    }
    let up = if before == 0 { String::new() } else { format!("\x1b[{before}A") };
    let body: String = lines.iter().map(|line| format!("\x1b[2K{line}\n")).collect();
    format!("{up}\r\x1b[?7l{body}\x1b[J\x1b[?7h")
}

impl Second {
    fn between(before: &Totals, now: &Totals, of_ms: u64) -> Self {
        let took_ms = now.at_ms.saturating_sub(before.at_ms);
        let per_s = |before: u64, now: u64| ratio(now.saturating_sub(before) * 1_000, took_ms);
        let mut latency = Latency::default();
        latency.merge(&now.latency);
        Self {
            of_ms,
            due_per_s: per_s(before.due, now.due),
            deliveries_per_s: per_s(before.deliveries, now.deliveries),
            frames_per_s: per_s(before.frames, now.frames),
            latency: latency.percentiles(),
            totals: now.clone(),
        }
    }

    /// For a terminal, none longer than `width`; what is not known is left out.
    fn lines(&self, width: usize) -> Vec<String> {
        let Totals { members, joining, frames, violations, node, .. } = &self.totals;
        let mut lines = vec![self.bar()];
        let joining = if *joining > 0 { format!(", {} joining", grouped(*joining)) } else { String::new() };
        lines.push(format!("devices    {} in their rooms{joining}", grouped(*members)));
        lines.push(format!("due        {} messages/s", whole(self.due_per_s)));
        if *frames > 0 {
            let deliveries = whole(self.deliveries_per_s);
            let frames = whole(self.frames_per_s);
            lines.push(format!("given      {deliveries}/s in {frames} frames/s"));
        }
        if self.latency.count > 0 {
            let Percentiles { p50_ms, p99_ms, max_ms, .. } = self.latency;
            lines.push(format!(
                "latency    p50 {p50_ms:.0} ms, p99 {p99_ms:.0} ms, max {max_ms:.0} ms in the last second"
            ));
        }
        if let Some(node) = node {
            let mib = ratio(node.resident_bytes, 1 << 20);
            lines.push(format!("node       {:.2} processors, {mib:.0} MiB", node.cpu));
        }
        if *frames > 0 {
            lines.push(format!("violations {} so far", grouped(*violations)));
        }
        lines.into_iter().map(|line| line.chars().take(width).collect()).collect()
    }

    fn bar(&self) -> String {
        let at_s = self.totals.at_ms / 1_000;
        let of_s = self.of_ms.div_ceil(1_000);
        if self.totals.at_ms >= self.of_ms {
            return format!("[{}] all is published; devices get what they are owed", "#".repeat(BAR));
        }
        let whole_ms = self.of_ms.max(1);
        let full = usize::try_from(self.totals.at_ms * BAR as u64 / whole_ms).unwrap_or(BAR).min(BAR);
        let percent = self.totals.at_ms * 100 / whole_ms;
        let left_s = (self.of_ms - self.totals.at_ms).div_ceil(1_000);
        let empty = "-".repeat(BAR - full);
        let full = "#".repeat(full);
        format!("[{full}{empty}] {percent:>2} %  {at_s} of {of_s} s, {} left", minutes(left_s))
    }

    /// The same where there is no terminal.
    fn line(&self) -> String {
        let Totals { members, frames, violations, .. } = &self.totals;
        let at_s = self.totals.at_ms / 1_000;
        let of_s = self.of_ms.div_ceil(1_000);
        let mut line = format!("{at_s} of {of_s} s: {members} devices, {:.0} messages/s due", self.due_per_s);
        if *frames > 0 {
            let Percentiles { p50_ms, p99_ms, .. } = self.latency;
            let deliveries = self.deliveries_per_s;
            let frames = self.frames_per_s;
            line.push_str(&format!(
                ", {deliveries:.0}/s given in {frames:.0} frames/s, p50 {p50_ms:.0} ms, p99 {p99_ms:.0} ms, {violations} violations"
            ));
        }
        line
    }
}

fn whole(figure: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is not negative; a cast saturates"
    )]
    let whole = figure.round() as u64;
    grouped(whole)
}

fn minutes(seconds: u64) -> String {
    if seconds < 100 { format!("{seconds} s") } else { format!("{}:{:02} min", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> Second {
        let node = Sample { cpu: 1.734, resident_bytes: 412 << 20, ..Sample::default() };
        let before = Totals {
            at_ms: 25_000,
            members: 900,
            due: 26_000,
            frames: 1_000_000,
            deliveries: 9_000_000,
            ..Totals::default()
        };
        let now = Totals {
            at_ms: 26_000,
            members: 18_000,
            joining: 12,
            due: 27_000,
            frames: 1_110_000,
            deliveries: 10_234_567,
            violations: 2,
            latency: vec![(50_000, 98), (101_000, 2)],
            node: Some(node),
        };
        Second::between(&before, &now, 60_000)
    }

    #[test]
    fn a_moment_says_how_far_it_is_and_what_the_last_second_was() {
        let lines = moment().lines(WIDTH);
        assert_eq!(
            lines,
            [
                "[#############-----------------] 43 %  26 of 60 s, 34 s left",
                "devices    18\u{202f}000 in their rooms, 12 joining",
                "due        1\u{202f}000 messages/s",
                "given      1\u{202f}234\u{202f}567/s in 110\u{202f}000 frames/s",
                "latency    p50 50 ms, p99 101 ms, max 101 ms in the last second",
                "node       1.73 processors, 412 MiB",
                "violations 2 so far",
            ]
        );
        assert!(moment().lines(20).iter().all(|line| line.chars().count() <= 20));
        let plain = "26 of 60 s: 18000 devices, 1000 messages/s due, 1234567/s given in 110000 frames/s, p50 50 ms, p99 101 ms, \
                     2 violations";
        assert_eq!(moment().line(), plain);
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let now = Totals { at_ms: 1_000, members: 5, due: 10, ..Totals::default() };
        let moment = Second::between(&Totals::default(), &now, 500_000);
        let lines = moment.lines(WIDTH);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].ends_with("8:19 min left"), "{lines:?}");
        assert_eq!(moment.line(), "1 of 500 s: 5 devices, 10 messages/s due");
    }

    #[test]
    fn a_run_whose_publishing_is_over_or_that_takes_no_time_has_a_full_bar() {
        for (at_ms, of_ms) in [(60_000, 60_000), (61_000, 60_000), (0, 0)] {
            let moment = Second { totals: Totals { at_ms, ..Totals::default() }, of_ms, ..Second::default() };
            assert!(moment.lines(WIDTH)[0].contains("all is published"), "{at_ms} of {of_ms}");
        }
    }

    #[test]
    fn lines_take_the_place_of_those_before_and_leave_nothing_behind() {
        let lines = vec!["one".to_owned(), "two".to_owned()];
        assert_eq!(redrawn(&lines, 0), "\r\x1b[?7l\x1b[2Kone\n\x1b[2Ktwo\n\x1b[J\x1b[?7h");
        assert!(redrawn(&lines, 3).starts_with("\x1b[3A\r"));
        assert_eq!(redrawn(&[], 2), "\x1b[2A\r\x1b[?7l\x1b[J\x1b[?7h");
        assert_eq!(redrawn(&[], 0), "");
    }
}
