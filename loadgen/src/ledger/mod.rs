//! The ledger of a run: published messages and their outcomes, the sight of every device, and the comparison
//! of both.
//!
//! The publisher fills [`Published`]. Each worker fills one [`RoomSeen`] per room. [`check`] settles both
//! after the run. While frames arrive, `watch` judges only faults visible in a frame. Pure: no socket, no
//! clock.

pub(crate) mod ages;
mod counter;
mod lives;
mod published;
mod reliable;
mod seen;
mod span;
mod stays;
mod stream;
mod tally;
mod verdict;
mod violation;

pub(crate) use counter::check_counter;
pub(crate) use lives::check_lives;
pub(crate) use published::{Outcome, Published};
pub(crate) use reliable::{
    APPLY_AGE_MAX_NS, ApplyTimes, Stored, check_stored, check_stream, slow_apply_age_max_ns,
};
pub(crate) use seen::{Claim, Numbers, RoomSeen, Told};
pub(crate) use stream::{StreamSeen, What};
pub(crate) use tally::{Tally, add_fields};
pub(crate) use verdict::{Account, Case, check};
pub(crate) use violation::{Kind, Violations};
