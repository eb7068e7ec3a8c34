//! The load of the generator itself, which tells figures of the node from figures of the generator. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::figures::mib;

/// The lateness past which latencies measure the generator.
pub(crate) const LATENESS_P99_MAX_MS: f64 = 20.0;
/// The share of a processor past which a thread is too busy to be on time.
pub(crate) const BUSY_MAX: f64 = 0.9;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GeneratorFigures {
    /// The most memory of a worker process.
    pub(crate) worker_bytes_max: u64,
    /// Devices of the worker with the most memory.
    pub(crate) worker_devices: u32,
    /// Processors used by the busiest worker in the busiest second of publishing, or in a whole run of less
    /// than a second; 1 is a whole processor.
    pub(crate) busiest_worker: f64,
    /// The same of the busiest publisher, until the last answer.
    pub(crate) busiest_publisher: f64,
}

impl GeneratorFigures {
    pub(crate) fn add_worker(&mut self, bytes: u64, devices: u32, busy: f64) {
        if bytes > self.worker_bytes_max {
            self.worker_bytes_max = bytes;
            self.worker_devices = devices;
        }
        self.busiest_worker = self.busiest_worker.max(busy);
    }

    /// The limit reached by the generator, in words.
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
        let Self { worker_bytes_max, worker_devices, busiest_worker, busiest_publisher } = *self;
        writeln!(
            f,
            "generator    busiest worker {busiest_worker:.2} of a processor, busiest publisher {busiest_publisher:.2}; \
             {:.1} MiB for the {worker_devices} devices of a worker",
            mib(worker_bytes_max)
        )
    }
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
}
