//! What the generator itself used: whether a run's figures are the node's or its own. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::report::{LATENESS_P99_MAX_MS, ratio};

/// The part of a processor past which a thread of the generator is taken to have been too busy to be on time.
pub(crate) const BUSY_MAX: f64 = 0.9;

/// A second or so: a thread that had no time to spare for so long was late for what came then, however idle it was before.
const WINDOW_NS: u64 = 1_000_000_000;

/// The part of a processor that a thread used in the busiest second of its work, from readings of its processor time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Busiest {
    /// When the window began that is not over, and the thread's processor time then.
    since: (u64, u64),
    /// The most of the windows that are over.
    most: Option<f64>,
}

impl Busiest {
    /// The work begins at this time, at this reading.
    #[must_use]
    pub(crate) fn from(now_ns: u64, used_ns: u64) -> Self {
        Self { since: (now_ns, used_ns), most: None }
    }

    /// Whether a window is over, so that the thread's processor time is worth reading.
    #[must_use]
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.since.0 + WINDOW_NS
    }

    /// A window is over.
    pub(crate) fn read(&mut self, now_ns: u64, used_ns: u64) {
        self.most = Some(self.with(now_ns, used_ns));
        self.since = (now_ns, used_ns);
    }

    /// The work is over. What is left of it is a window where there is no other: a moment alone says little.
    #[must_use]
    pub(crate) fn end(&self, now_ns: u64, used_ns: u64) -> f64 {
        self.most.filter(|_| !self.is_due(now_ns)).unwrap_or_else(|| self.with(now_ns, used_ns))
    }

    /// The most with what was used since the window began.
    fn with(&self, now_ns: u64, used_ns: u64) -> f64 {
        let (since_ns, before_ns) = self.since;
        let used = ratio(used_ns.saturating_sub(before_ns), now_ns.saturating_sub(since_ns));
        self.most.map_or(used, |most| most.max(used))
    }
}

/// The generator's own use of this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GeneratorFigures {
    /// The most memory a worker process held.
    pub(crate) worker_bytes_max: u64,
    /// Devices of that worker.
    pub(crate) worker_devices: u32,
    /// Processor time of the busiest worker's thread over its busiest second while messages were published, or the whole of
    /// a shorter time: 1 is all of a processor.
    pub(crate) busiest_worker: f64,
    /// The same of the busiest publisher's thread, up to its last answer.
    pub(crate) busiest_publisher: f64,
}

impl GeneratorFigures {
    /// Takes in what one worker process used.
    pub(crate) fn add_worker(&mut self, bytes: u64, devices: u32, busy: f64) {
        if bytes > self.worker_bytes_max {
            (self.worker_bytes_max, self.worker_devices) = (bytes, devices);
        }
        self.busiest_worker = self.busiest_worker.max(busy);
    }

    /// What made the run's figures this machine's own, in words; `None` where nothing did.
    #[must_use]
    pub(crate) fn limit(&self, lateness_p99_ms: f64) -> Option<String> {
        if lateness_p99_ms > LATENESS_P99_MAX_MS {
            return Some(format!(
                "messages left later than {LATENESS_P99_MAX_MS} ms after they were due and could leave"
            ));
        }
        [("worker", self.busiest_worker), ("publisher", self.busiest_publisher)]
            .into_iter()
            .find(|(_, busy)| *busy > BUSY_MAX)
            .map(|(who, busy)| format!("a {who} used {busy:.2} of a processor for a second, past {BUSY_MAX}"))
    }
}

impl fmt::Display for GeneratorFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.worker_devices == 0 {
            return Ok(());
        }
        writeln!(
            f,
            "generator    busiest worker {:.2} of a processor, busiest publisher {:.2}; {:.1} MiB for the {} devices of a worker",
            self.busiest_worker,
            self.busiest_publisher,
            ratio(self.worker_bytes_max, 1 << 20),
            self.worker_devices
        )
    }
}

/// The most memory that a process held so far, from what `/proc/self/status` says; 0 where it does not say.
#[must_use]
pub(crate) fn peak_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_that_held_most_is_named() {
        let mut figures = GeneratorFigures::default();
        figures.add_worker(100, 10, 0.2);
        figures.add_worker(300, 20, 0.1);
        figures.add_worker(200, 30, 0.3);
        assert_eq!(
            (figures.worker_bytes_max, figures.worker_devices, figures.busiest_worker),
            (300, 20, 0.3)
        );
    }

    #[test]
    fn a_thread_is_as_busy_as_in_its_busiest_second() {
        const SECOND: u64 = 1_000_000_000;
        let mut busiest = Busiest::from(5 * SECOND, 0);
        assert!(!busiest.is_due(6 * SECOND - 1) && busiest.is_due(6 * SECOND));
        busiest.read(7 * SECOND, SECOND / 5);
        busiest.read(8 * SECOND, SECOND);
        busiest.read(18 * SECOND, 2 * SECOND);
        assert_eq!(busiest.end(18 * SECOND + 1_000, 2 * SECOND + 1_000), 0.8, "a moment says little");
        assert_eq!(busiest.end(20 * SECOND, 4 * SECOND), 1.0);
        assert_eq!(Busiest::from(0, 0).end(SECOND / 2, SECOND / 4), 0.5, "a short run is one window");
    }

    #[test]
    fn what_limited_a_run_is_said() {
        let figures =
            GeneratorFigures { busiest_worker: 0.5, busiest_publisher: 0.5, ..GeneratorFigures::default() };
        assert_eq!(figures.limit(LATENESS_P99_MAX_MS), None);
        assert!(figures.limit(LATENESS_P99_MAX_MS + 1.0).is_some_and(|why| why.contains("left later than")));
        let busy = GeneratorFigures { busiest_worker: 0.95, ..figures };
        assert_eq!(
            busy.limit(1.0).as_deref(),
            Some("a worker used 0.95 of a processor for a second, past 0.9")
        );
        let busy = GeneratorFigures { busiest_publisher: 0.91, ..figures };
        assert!(busy.limit(1.0).is_some_and(|why| why.starts_with("a publisher used 0.91")));
    }

    #[test]
    fn the_peak_is_read_from_what_the_kernel_says() {
        assert_eq!(peak_bytes("Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), 2 << 20);
        assert_eq!(peak_bytes("Name:\tx\n"), 0);
    }
}
