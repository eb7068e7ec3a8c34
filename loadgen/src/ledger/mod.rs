//! The ledger of a run: what was published and how it ended, what every device saw, and whether the two agree.
//!
//! The publisher fills [`Published`]; each worker fills one [`RoomSeen`] per room; [`check`] settles them after the
//! run. While frames arrive, only what can be told from one frame is judged (`watch`); everything that needs the
//! whole picture is judged here, once. Pure: no socket, no clock.

pub(crate) mod ages;
mod counter;
mod published;
mod reliable;
mod seen;
mod span;
mod stream;
mod tally;
mod verdict;
mod violation;

pub(crate) use counter::check_counter;
pub(crate) use published::{Outcome, Published};
pub(crate) use reliable::{APPLY_AGE_MAX_NS, ApplyTimes, Stored, check_stored, check_stream};
pub(crate) use seen::{Claim, Numbers, RoomSeen, Told};
pub(crate) use stream::{StreamSeen, What};
pub(crate) use tally::Tally;
pub(crate) use verdict::{Account, Case, check, check_one_life};
pub(crate) use violation::{Kind, Violations};
