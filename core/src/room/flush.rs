//! The cut of a batch across the parts of a room: from the gathering, through the state seen by devices and
//! the reliable stream, to the segments.

use std::time::Instant;

use super::gathering::Cause;
use super::message::{Class, ShedReason};
use super::reliable::ack_within_ms;
use super::tally::RoomTally;
use super::{Batch, Output, Room};

impl Room {
    /// Cuts all waiting messages, as far as the segments take batches.
    pub(super) fn flush(&mut self, now: Instant, tally: &mut RoomTally) {
        while self.may_flush() && self.cut(Cause::Flush, now, tally) {}
    }

    /// Flushes once a flush is due. Whole batches leave together, and so do messages for which the next flush
    /// would come too late: a single write for each member. The rest waits, and so does everything while a
    /// segment is full.
    pub(super) fn flush_if_due(&mut self, now: Instant, tally: &mut RoomTally) {
        let members = self.members();
        let Some(began) = self.gathering.cause(members, now) else { return };
        while self.may_cut()
            && let Some(cause) = self.gathering.next_cause(began, members, now)
            && self.cut(cause, now, tally)
        {}
    }

    /// Cuts one batch. Returns false if nothing may leave yet.
    fn cut(&mut self, cause: Cause, now: Instant, tally: &mut RoomTally) -> bool {
        self.give_up_expired(now, tally);
        let seq = self.state.seq.next();
        let cut = self.gathering.cut(cause, self.segments.batches_left(), self.run.0, now);
        let counting_since = self.gathering.cut_counters(cause, now);
        let counters = counting_since.map_or_else(Vec::new, |_| self.state.tell_counters(seq));
        // A batch without content would cost each member a write. Messages held back by a rate come here each
        // window.
        if cut.messages.is_empty() && cut.dropped.is_empty() && counters.is_empty() {
            self.gathering.pace.last_idle = Some(now);
            return false;
        }
        let counting_since = counting_since.filter(|_| !counters.is_empty());
        let oldest = cut.oldest.into_iter().chain(counting_since).min().unwrap_or(now);
        // From here on the batch exists: the state, the stream and the segments all move on to `seq`.
        self.state.tell(seq, &cut, now, tally);
        let members = self.members();
        let span = self.stream.send(&cut.messages, ack_within_ms(members));
        self.gathering.flushed(!counters.is_empty(), now);
        self.segments.send_batch(seq, now);
        tally.batches += 1;
        tally.window = Some(self.gathering.pace.window(members));
        let batch = Batch {
            seq,
            skipped: cut.dropped.iter().map(|(name, dropped)| (name.clone(), dropped.count())).collect(),
            messages: cut.messages,
            merged: cut.merged.into_iter().collect(),
            counters,
            oldest,
            span,
        };
        let segments = self.segments.held().collect();
        self.outputs.push_back(Output::Batch { batch, segments, sent: self.stream.sent });
        true
    }

    /// Drops durable messages that expired before they could leave: a slow sync, or a window as long as their
    /// life. Members see a hole in the offsets, as for every expired message.
    fn give_up_expired(&mut self, now: Instant, tally: &mut RoomTally) {
        let entries = &mut self.stream.entries;
        for message in self.gathering.buffer.give_up_expired(|offset| entries.has_expired(offset, now)) {
            if let Some(entry) = entries.entry_mut(message.offset) {
                entry.is_unsent = true;
            }
            tally.shed[ShedReason::Expired as usize].add(Class::Reliable, 1);
            self.state.expired(&message.type_name);
        }
    }

    /// Returns true if every segment has room for a further batch, the right to order is certain, and no other node is
    /// about to order.
    pub(super) fn may_cut(&self) -> bool {
        !self.life.is_frozen && !self.life.is_paused && self.segments.batches_left() > 0
    }
}
