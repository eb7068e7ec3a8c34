//! What a run ran on, for those who compare two reports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The generator's machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// `uname`'s release.
    pub(crate) kernel: String,
    /// The processor's name.
    pub(crate) processor: String,
    /// Processors this process may use.
    pub(crate) processors: usize,
    pub(crate) memory_bytes: u64,
    /// Settings of the kernel that matter to many connections.
    pub(crate) sysctls: BTreeMap<String, String>,
    /// The version of this program.
    pub(crate) loadgen: String,
}
