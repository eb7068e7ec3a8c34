//! Descriptors of one process: the number of devices, and the reserve for everything else.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Most devices of one process, whatever the descriptor limit.
pub(crate) const DEVICES_PER_PROCESS_MAX: u32 = 19_000;
/// Most pulls under way. Past this devices wait for their turn.
pub(crate) const PULLS_MAX: usize = 64;
/// Descriptors beside the devices: one for each pull, and as many for everything else.
pub(crate) const DESCRIPTORS_KEPT: u64 = 2 * PULLS_MAX as u64;

/// Raises the descriptor limit to the hard limit, and returns the number of devices under the limit.
///
/// # Errors
/// A sentence when the kernel gives no limit.
pub(crate) fn devices_per_process() -> Result<u32, String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| error.to_string())?;
    let limit =
        if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let capacity = u32::try_from(limit.saturating_sub(DESCRIPTORS_KEPT)).unwrap_or(u32::MAX);
    Ok(capacity.clamp(1, DEVICES_PER_PROCESS_MAX))
}
