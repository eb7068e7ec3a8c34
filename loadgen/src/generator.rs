//! What the generator itself used: whether a run's figures are the node's or its own. Pure.

use serde::{Deserialize, Serialize};

/// The generator's own use of this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GeneratorFigures {
    /// The most memory a worker process held.
    pub(crate) worker_bytes_max: u64,
    /// Devices of that worker.
    pub(crate) worker_devices: u32,
    /// Processor time of the busiest worker's thread over the time of the run: 1 is all of a processor.
    pub(crate) busiest_worker: f64,
    /// The same of the busiest publisher's thread.
    pub(crate) busiest_publisher: f64,
}
