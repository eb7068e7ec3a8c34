//! The words of a room for the node that would take the room over (`KeptRoom` of `proto/cluster.proto`), and the room
//! of another run that begins with such words.
//!
//! The words hold what devices were shown last: the totals of counters and the latest values. A word holds all of them,
//! or the changes behind a batch. The next run begins at the batch of the words, so its totals are at most those that
//! devices were told, and its account begins with nothing.

use super::audience::ONLINE;
use super::handed::NotHanded;
use super::id::{RoomName, Run, Seq};
use super::message::Class;
use super::pace::RoomRules;
use super::state::RoomState;
use super::{Batch, Room};
use crate::limits::INTEGER_MAX;
use crate::node_proto as pb;
use crate::now::Now;

impl Batch {
    /// True if the batch changes the words for the node that would take the room over.
    #[must_use]
    pub fn changes_kept(&self) -> bool {
        let is_kept = |class: Class, name: &str| class == Class::Latest && name != ONLINE;
        !self.counters.is_empty()
            || self.messages.iter().any(|message| is_kept(message.class(), message.type_name.as_str()))
    }
}

impl Room {
    /// True if a total or a latest value of a publisher is shown to devices.
    #[must_use]
    pub fn has_to_keep(&self) -> bool {
        self.state.counters.totals().next().is_some() || !self.state.latest.kept(Seq(0)).is_empty()
    }

    /// The changes behind the batch `since`, for the node that would take the room over. 0: the whole state.
    #[must_use]
    pub fn kept(&self, since: Seq) -> pb::KeptRoom {
        // The totals reach back no further, and some of the growth would be missed.
        let since = if since < self.state.account.floor() { Seq(0) } else { since };
        pb::KeptRoom {
            room: self.name.as_str().into(),
            run: self.run.0,
            seq: self.state.seq.0,
            since: since.0,
            totals: self.state.counters.kept(since),
            latest: self.state.latest.kept(since),
        }
    }

    /// The room that begins its life `run` with the whole state of a former one.
    ///
    /// # Errors
    /// [`NotHanded`]: no home says so.
    pub fn of_kept(said: pb::KeptRoom, run: Run, node_rules: RoomRules, now: Now) -> Result<Self, NotHanded> {
        let pb::KeptRoom { room, seq, totals, latest, .. } = said;
        let name = RoomName::parse(&room).map_err(|_| NotHanded)?;
        if seq > INTEGER_MAX {
            return Err(NotHanded);
        }
        let counter = |said: pb::KeptTotal| pb::CounterTotal {
            r#type: said.r#type,
            told: Some(pb::Total { base: said.total, ..pb::Total::default() }),
        };
        let shown = pb::RoomShown {
            latest,
            counters: totals.into_iter().map(counter).collect(),
            // Nobody knows what was in the history, and no member stands before this batch.
            whole_after: seq,
            account_floor: seq,
            ..pb::RoomShown::default()
        };
        let mut room = Self::new(name, run, node_rules, now.instant);
        room.state = RoomState::of_handed(shown, Seq(seq), now.instant).ok_or(NotHanded)?;
        room.life.used_by_publisher(now.instant);
        Ok(room)
    }
}

#[cfg(test)]
mod tests;
