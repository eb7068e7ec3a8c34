//! Passes: the turns of segments, and the share of each in the processor time.

use std::time::Duration;

use super::Residents;
use super::connection::Socket;
use super::strain::Windows;
use roomcast_core::fanout::segment::CaughtUp;
use roomcast_core::now::Now;
use roomcast_core::room::SegmentSaid;

/// One turn of a segment, until its cost is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentTurn {
    key: u32,
    /// Members that were offered frames.
    offered: u32,
}

impl<S: Socket> Residents<S> {
    /// Gives segments their turns, and has each bear its part of the cost. True if more turns are to come.
    pub(in crate::shard) fn take_metered_passes(&mut self, now: Now) -> bool {
        if self.strain.is_due(now.instant) {
            let windows = self.widest_windows();
            self.strain.weigh(windows, now.instant);
        }
        // Reading the meter is a system call: an idle shard makes none.
        if self.segments.active.is_empty() {
            return false;
        }
        let before = (self.plan.meter)();
        let busy = self.take_passes(now);
        let spent = (self.plan.meter)().saturating_sub(before);
        self.bear_cost(spent, now);
        busy
    }

    /// Divides processor time among the segments that had turns, by the number of members offered a frame.
    fn bear_cost(&mut self, spent: Duration, now: Now) {
        let offered: u32 = self.turns.iter().map(|turn| turn.offered).sum();
        // Taken out, so that the list keeps its memory while goodbyes need all of `self`.
        let mut turns = std::mem::take(&mut self.turns);
        for turn in turns.drain(..) {
            // The goodbyes of the segment before may have emptied this one.
            let Some(placed) = self.segments.placed(turn.key) else { continue };
            let part = spent.saturating_mul(turn.offered) / offered.max(1);
            self.strain.spend(part, placed.window(&self.plan.rules));
            placed.bear(part, turn.offered);
            // Not before the meter was read: goodbyes are no part of a pass.
            self.finish_closing(turn.key, now);
        }
        self.turns = turns;
    }

    /// Gives segments their turns until a turn's worth of members has been visited. True if more are to come.
    fn take_passes(&mut self, now: Now) -> bool {
        let mut left = self.plan.turn_members;
        while left > 0 {
            let Some(key) = self.segments.active.pop_front() else { return false };
            left = left.saturating_sub(self.take_segment_turn(key, left, now));
        }
        !self.segments.active.is_empty()
    }

    /// Gives one segment a turn. The result is the cost in members, at least one.
    fn take_segment_turn(&mut self, key: u32, members_max: usize, now: Now) -> usize {
        // The segment may have ended, or begun anew, since it got in line.
        let Some(placed) = self.segments.placed(key).filter(|placed| placed.active) else {
            return 1;
        };
        let turn = placed.segment.turn(members_max, &mut self.connections, now.instant);
        placed.counts += turn.counts();
        self.segments.turn_is_over(key);
        self.turns.push(SegmentTurn { key, offered: u32::try_from(turn.offered).unwrap_or(u32::MAX) });
        self.tally.frames_level += turn.level;
        self.tally.frames_refresh += turn.refreshed;
        self.tally.frames_carried += turn.carried;
        self.tally.frames_catching_up += turn.catching_up;
        self.tally.messages_skipped += turn.messages_skipped;
        self.tally.frames_queued += turn.queued;
        self.tally.frames_skipped += turn.skipped;
        self.tally.written.extend(turn.written);
        self.report_turn(key, turn.taken);
        for connection in turn.carried_to {
            self.connections.watch(connection, now.instant);
        }
        for CaughtUp { connection, history } in turn.caught_up {
            self.connections[connection].keep_history(key, true, &history, now.instant);
            self.connections.note_patient(connection);
            self.go_on_with_history(connection, now);
        }
        turn.visited.max(1)
    }

    /// A segment took `taken` batches into a pass, and may want refreshes.
    fn report_turn(&mut self, key: u32, taken: usize) {
        self.segments.note_look(key);
        self.hand_over_tallies(key);
        if taken > 0 {
            let cost = Some(self.segments[key].pass_begins(self.strain.stretch_permille));
            self.tell_home(key, SegmentSaid::Taken { batches: taken, cost });
        }
        self.send_wants(key);
    }

    /// The widest windows of rooms with a pass here since the last weighing, each as its passes alone need
    /// it.
    fn widest_windows(&mut self) -> Windows {
        let mut windows = Windows::default();
        for placed in self.segments.iter_mut() {
            if !std::mem::take(&mut placed.passed) {
                continue;
            }
            let window = placed.window(&self.plan.rules);
            windows.of_all = windows.of_all.max(window);
            if self.strain.is_helped(window) {
                windows.of_helped = windows.of_helped.max(window);
            }
        }
        windows
    }
}
