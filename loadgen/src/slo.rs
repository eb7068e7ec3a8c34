//! What a run is held to: `p99<300ms`, `loss=0`, `gift.p99<1s`. Pure.

use serde::{Deserialize, Serialize};

/// One condition, judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// As it was written.
    pub(crate) condition: String,
    /// What the run came to, in the condition's unit.
    pub(crate) found: f64,
    pub(crate) holds: bool,
}
