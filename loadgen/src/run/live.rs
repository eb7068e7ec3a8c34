//! The progress of a run: lines that a terminal draws again each second, plain lines elsewhere.
//!
//! All lines go to stderr, because stdout belongs to the report. Workers send the figures during the run, and
//! no verdict uses the figures. One thread draws and ends with its [`Live`].

use std::io::Write as _;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::clock::monotonic_ns;
use crate::figures::latency::{Latency, Percentiles};
use crate::figures::{ratio, rounded};
use crate::fleet::words::Progress;
use crate::node::samples::Sample;
use crate::report::html::grouped;

const EVERY: Duration = Duration::from_secs(1);
/// Seconds from one plain line to the next.
const PLAIN_EVERY: u64 = 5;

/// The progress of a run since its first publish.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    /// Milliseconds since the first publish.
    pub(crate) at_ms: u64,
    /// Messages due so far.
    pub(crate) due: u64,
    /// The sum of all workers. Its latencies are of the deliveries since the totals before.
    pub(crate) workers: Progress,
    /// `None` if the node publishes no metrics.
    pub(crate) node: Option<Sample>,
}

/// The last second of a run.
struct Second<'a> {
    /// Milliseconds of publishing in the whole run.
    of_ms: u64,
    totals: &'a Totals,
    due_per_s: f64,
    deliveries_per_s: f64,
    frames_per_s: f64,
    latency: Percentiles,
}

/// The lines of a run under way; dropping removes the lines from a terminal.
#[derive(Debug)]
pub(crate) struct Live {
    stop: Option<Sender<()>>,
    drawing: Option<JoinHandle<()>>,
}

impl Live {
    /// Shows a run from its first publish at `start_ns` for `of_ms`. `totals` is called once a second with
    /// the milliseconds since the first publish.
    pub(crate) fn begin(
        start_ns: u64,
        of_ms: u64,
        mut totals: impl FnMut(u64) -> Totals + Send + 'static,
    ) -> Self {
        let (stop, stopped) = channel::<()>();
        let drawing = std::thread::spawn(move || {
            let bar = bar(of_ms, ProgressDrawTarget::stderr());
            let mut before = Totals::default();
            let mut seconds = 0;
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = totals(monotonic_ns().saturating_sub(start_ns) / 1_000_000);
                let second = Second::between(&before, &now, of_ms);
                seconds += 1;
                if !bar.is_hidden() {
                    second.draw(&bar);
                } else if seconds % PLAIN_EVERY == 0 {
                    // A closed stderr is no reason to end a run.
                    drop(writeln!(std::io::stderr(), "{}", second.plain_line()));
                }
                before = now;
            }
            bar.finish_and_clear();
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

/// Hidden if the target is no terminal.
fn bar(of_ms: u64, target: ProgressDrawTarget) -> ProgressBar {
    let style = ProgressStyle::with_template("[{bar:30}] {msg}").expect("the template is whole");
    ProgressBar::with_draw_target(Some(of_ms), target).with_style(style.progress_chars("#-"))
}

impl<'a> Second<'a> {
    fn between(before: &Totals, now: &'a Totals, of_ms: u64) -> Self {
        // The thread may wake late, so a second is as long as it was.
        let took_ms = now.at_ms.saturating_sub(before.at_ms);
        let per_s = |before: u64, now: u64| ratio(now.saturating_sub(before) * 1_000, took_ms);
        let mut latency = Latency::default();
        latency.merge(&now.workers.latency);
        Self {
            of_ms,
            due_per_s: per_s(before.due, now.due),
            deliveries_per_s: per_s(before.workers.deliveries, now.workers.deliveries),
            frames_per_s: per_s(before.workers.frames, now.workers.frames),
            latency: latency.percentiles(),
            totals: now,
        }
    }

    fn draw(&self, bar: &ProgressBar) {
        // Unlike `set_message`, `with_message` does not draw: one drawing a second has the text and the bar
        // of that second.
        bar.clone().with_message(self.lines().join("\n")).set_position(self.totals.at_ms);
    }

    /// The text beside the bar, and the lines below the bar. Unknown figures are left out.
    fn lines(&self) -> Vec<String> {
        let Progress { watching, joining, frames, violations, .. } = &self.totals.workers;
        let mut lines = vec![self.progress()];
        let joining = if *joining > 0 { format!(", {} joining", grouped(*joining)) } else { String::new() };
        lines.push(format!("devices    {} in their rooms{joining}", grouped(*watching)));
        lines.push(format!("due        {} messages/s", whole(self.due_per_s)));
        if *frames > 0 {
            let deliveries = whole(self.deliveries_per_s);
            let frames = whole(self.frames_per_s);
            lines.push(format!("given      {deliveries}/s in {frames} frames/s"));
        }
        // The first seconds may have no delivery.
        if self.latency.count > 0 {
            let Percentiles { p50_ms, p99_ms, max_ms, .. } = self.latency;
            lines.push(format!(
                "latency    p50 {p50_ms:.0} ms, p99 {p99_ms:.0} ms, max {max_ms:.0} ms in the last second"
            ));
        }
        if let Some(node) = &self.totals.node {
            let mib = ratio(node.resident_bytes, 1 << 20);
            lines.push(format!("node       {:.2} processors, {mib:.0} MiB", node.cpu));
        }
        // Before the first frame a count of 0 would look like a proof.
        if *frames > 0 {
            lines.push(format!("violations {} so far", grouped(*violations)));
        }
        lines
    }

    fn progress(&self) -> String {
        let at_ms = self.totals.at_ms;
        // Past the last publish there is no percentage; a run of 0 s would divide by 0.
        if at_ms >= self.of_ms {
            return "all is published; devices get what they are owed".to_owned();
        }
        let left = minutes((self.of_ms - at_ms).div_ceil(1_000));
        let percent = at_ms * 100 / self.of_ms;
        format!("{percent:>2} %  {}, {left} left", self.seconds())
    }

    fn seconds(&self) -> String {
        format!("{} of {} s", self.totals.at_ms / 1_000, self.of_ms.div_ceil(1_000))
    }

    fn plain_line(&self) -> String {
        let Progress { watching, frames, violations, .. } = &self.totals.workers;
        let mut line =
            format!("{}: {watching} devices, {:.0} messages/s due", self.seconds(), self.due_per_s);
        if *frames > 0 {
            let Percentiles { p50_ms, p99_ms, .. } = self.latency;
            let deliveries = self.deliveries_per_s;
            let frames = self.frames_per_s;
            line.push_str(&format!(
                ", {deliveries:.0}/s given in {frames:.0} frames/s, p50 {p50_ms:.0} ms, p99 {p99_ms:.0} ms, \
                 {violations} violations"
            ));
        }
        line
    }
}

fn whole(figure: f64) -> String {
    grouped(rounded(figure))
}

fn minutes(seconds: u64) -> String {
    if seconds < 100 { format!("{seconds} s") } else { format!("{}:{:02} min", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    /// The lines of a terminal of so many columns after each of these seconds, and after the run.
    fn drawn(columns: u16, of_ms: u64, moments: &[Totals]) -> Vec<String> {
        let terminal = InMemoryTerm::new(30, columns);
        let bar = bar(of_ms, ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        let mut before = Totals::default();
        let mut drawn = Vec::new();
        for now in moments {
            Second::between(&before, now, of_ms).draw(&bar);
            drawn.push(terminal.contents());
            before = now.clone();
        }
        bar.finish_and_clear();
        drawn.push(terminal.contents());
        drawn
    }

    fn moments() -> [Totals; 2] {
        let node = Sample { cpu: 1.734, resident_bytes: 412 << 20, ..Sample::default() };
        let before = Totals {
            at_ms: 25_000,
            due: 26_000,
            workers: Progress {
                watching: 900,
                frames: 1_000_000,
                deliveries: 9_000_000,
                ..Progress::default()
            },
            node: None,
        };
        let now = Totals {
            at_ms: 26_000,
            due: 27_000,
            workers: Progress {
                watching: 18_000,
                joining: 12,
                frames: 1_110_000,
                deliveries: 10_234_567,
                violations: 2,
                latency: vec![(50_000, 98), (101_000, 2)],
            },
            node: Some(node),
        };
        [before, now]
    }

    #[test]
    fn a_moment_says_how_far_it_is_and_what_the_last_second_was() {
        let lines = drawn(80, 60_000, &moments()).swap_remove(1);
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
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
        let plain = "26 of 60 s: 18000 devices, 1000 messages/s due, 1234567/s given in 110000 frames/s, p50 50 ms, \
                     p99 101 ms, 2 violations";
        let [before, now] = moments();
        assert_eq!(Second::between(&before, &now, 60_000).plain_line(), plain);
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let workers = Progress { watching: 5, ..Progress::default() };
        let now = Totals { at_ms: 1_000, due: 10, workers, node: None };
        let before = Totals::default();
        let moment = Second::between(&before, &now, 500_000);
        let lines = moment.lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].ends_with("8:19 min left"), "{lines:?}");
        assert_eq!(moment.plain_line(), "1 of 500 s: 5 devices, 10 messages/s due");
    }

    #[test]
    fn a_run_whose_publishing_is_over_or_that_takes_no_time_has_a_full_bar() {
        for (at_ms, of_ms) in [(60_000, 60_000), (61_000, 60_000), (0, 0)] {
            let lines = drawn(80, of_ms, &[Totals { at_ms, ..Totals::default() }]).swap_remove(0);
            assert!(
                lines.starts_with("[##############################] all is published"),
                "{at_ms} of {of_ms}: {lines}"
            );
        }
    }

    #[test]
    fn lines_take_the_place_of_those_before_and_leave_nothing_behind() {
        let [before, now] = moments();
        for columns in [80, 20] {
            let drawn = drawn(columns, 60_000, &[now.clone(), before.clone()]);
            let of = |word: &str| drawn.iter().map(|lines| lines.matches(word).count()).collect::<Vec<_>>();
            assert_eq!(
                (of("devices"), of("node"), &*drawn[2]),
                (vec![1, 1, 0], vec![1, 0, 0], ""),
                "{drawn:?}"
            );
        }
    }

    #[test]
    fn elsewhere_than_on_a_terminal_no_bar_is_drawn() {
        assert!(bar(1, ProgressDrawTarget::hidden()).is_hidden());
    }
}
