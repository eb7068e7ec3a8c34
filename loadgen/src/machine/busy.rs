//! The processor time and the memory that a part of the generator uses. Pure.

use crate::figures::ratio;

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
    pub(crate) fn from(now_ns: u64, used_ns: u64) -> Self {
        Self { since: (now_ns, used_ns), most: None }
    }

    /// Whether a window is over, so that the thread's processor time is worth reading.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.since.0 + WINDOW_NS
    }

    /// A window is over.
    pub(crate) fn read(&mut self, now_ns: u64, used_ns: u64) {
        self.most = Some(self.with(now_ns, used_ns));
        self.since = (now_ns, used_ns);
    }

    /// The work is over. What is left of it is a window where there is no other: a moment alone says little.
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

/// The most memory that a process held so far, from what `/proc/self/status` says; 0 where it does not say.
pub(crate) fn peak_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_peak_is_read_from_what_the_kernel_says() {
        assert_eq!(peak_bytes("Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), 2 << 20);
        assert_eq!(peak_bytes("Name:\tx\n"), 0);
    }
}
