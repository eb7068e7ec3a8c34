//! The ledger of a run: what was published and how it ended, what every device saw, and whether the two agree.
//!
//! The publisher fills [`Published`]; each worker fills one [`RoomSeen`] per room; [`check`] settles them after the
//! run. While frames arrive, only what can be told from one frame is judged (`watch`); everything that needs the
//! whole picture is judged here, once. Pure: no socket, no clock.

mod published;
mod seen;
mod span;
mod verdict;
mod violation;

pub(crate) use published::{Outcome, Published};
pub(crate) use seen::{Claim, Numbers, RoomSeen};
pub(crate) use verdict::check;
pub(crate) use violation::{Kind, Violations};
