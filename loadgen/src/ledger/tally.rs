//! Counts of the frames and messages of all devices.

use serde::{Deserialize, Serialize};

/// Counts since publishing began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Batch frames.
    pub(crate) frames: u64,
    /// Own messages in the batches, summed over devices.
    pub(crate) deliveries: u64,
    /// Own messages told as skipped, summed over devices.
    pub(crate) skipped: u64,
    /// Decoded frames. Every other frame equalled a decoded frame.
    pub(crate) decoded: u64,
    /// Bytes of frames, without WebSocket headers.
    pub(crate) bytes: u64,
}

/// Adds the named fields of another value to the fields of this value.
macro_rules! add_fields {
    ($to:expr, $from:expr; $($field:ident),+) => {
        $($to.$field += $from.$field;)+
    };
}
pub(crate) use add_fields;
