//! A thread's processor time, second by second. Pure.

use crate::figures::ratio;

/// A thread without spare time for a second was late in this second, however idle before.
const WINDOW_NS: u64 = 1_000_000_000;

/// A thread's share of a processor in its busiest second, from readings of its processor time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Busiest {
    /// Begin of the open window, and the thread's processor time at this moment.
    since: (u64, u64),
    /// The largest share among closed windows.
    most: Option<f64>,
}

impl Busiest {
    pub(crate) fn from(now_ns: u64, used_ns: u64) -> Self {
        Self { since: (now_ns, used_ns), most: None }
    }

    /// Takes a reading once a window is over: until then a reading is not worth its cost.
    pub(crate) fn look(&mut self, now_ns: u64, used_ns: impl FnOnce() -> u64) {
        if self.is_due(now_ns) {
            self.read(now_ns, used_ns());
        }
    }

    fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.since.0 + WINDOW_NS
    }

    fn read(&mut self, now_ns: u64, used_ns: u64) {
        self.most = Some(self.with(now_ns, used_ns));
        self.since = (now_ns, used_ns);
    }

    /// Ends the work. The remainder counts as a window only where no other window exists: a moment alone says
    /// little.
    pub(crate) fn end(&self, now_ns: u64, used_ns: u64) -> f64 {
        self.most.filter(|_| !self.is_due(now_ns)).unwrap_or_else(|| self.with(now_ns, used_ns))
    }

    /// The largest share, with the open window closed at this reading.
    fn with(&self, now_ns: u64, used_ns: u64) -> f64 {
        let (since_ns, before_ns) = self.since;
        let used = ratio(used_ns.saturating_sub(before_ns), now_ns.saturating_sub(since_ns));
        self.most.map_or(used, |most| most.max(used))
    }
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
}
