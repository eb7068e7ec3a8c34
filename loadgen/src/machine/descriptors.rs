//! The descriptors of one process: the number of devices it may hold, and what it keeps for all else.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Devices of one process, where its descriptors allow.
pub(crate) const DEVICES_PER_PROCESS_MAX: u32 = 19_000;
/// Pulls under way at one time. Past it devices wait for their turn.
pub(crate) const PULLS_MAX: usize = 64;
/// Descriptors a process needs besides its devices: those of pulls, each a connection, and as many for all else.
pub(crate) const DESCRIPTORS_KEPT: u64 = 2 * PULLS_MAX as u64;

/// How many sockets one process may hold besides what else it needs: what the descriptor limit allows, which is raised
/// as far as it goes, and at most [`DEVICES_PER_PROCESS_MAX`].
///
/// # Errors
/// A sentence, when the kernel does not say.
pub(crate) fn devices_per_process() -> Result<u32, String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| error.to_string())?;
    let limit =
        if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let capacity = u32::try_from(limit.saturating_sub(DESCRIPTORS_KEPT)).unwrap_or(u32::MAX);
    Ok(capacity.clamp(1, DEVICES_PER_PROCESS_MAX))
}
