//! Connections past a deadline: those that do not read, are silent, have lingered, or are told to go by a
//! drain.

use super::Residents;
use super::connection::Socket;
use super::connections::SWEEP_INTERVAL;
use roomcast_core::limits::TOKEN_END_AGE_MAX;
use roomcast_core::now::Now;
use roomcast_core::wire::close::CloseReason;

/// Heartbeats without a word after which a device counts as gone: one lost ping and its slack.
const SILENT_HEARTBEATS: f64 = 2.5;

impl<S: Socket> Residents<S> {
    /// Drops connections that have lingered, and closes those past a deadline: waiting ones all at once,
    /// silent ones and those with an ended token a slice of the table at a time.
    pub(in crate::shard) fn sweep(&mut self, now: Now) {
        while let Some(index) = self.connections.next_lingered(now.instant) {
            self.connections.remove(index);
        }
        if now.instant < self.connections.next_sweep {
            return;
        }
        self.connections.next_sweep = now.instant + SWEEP_INTERVAL;
        self.refuse_homeless(now);
        self.connections.age(now.instant);
        let waiting = self.connections.waiting();
        let overdue = waiting.filter_map(|(index, waits)| Some((index, waits.overdue(now.instant)?)));
        let mut overdue: Vec<(u32, CloseReason)> = overdue.collect();
        let stuck = self.connections.stuck(now.instant).into_iter();
        overdue.extend(stuck.map(|index| (index, CloseReason::NoProgress)));
        for (index, reason) in overdue {
            self.close(index, reason, now);
        }
        for index in self.connections.patient_indices() {
            self.go_on_with_history(index, now);
        }
        self.close_silent_or_ended(now);
    }

    fn close_silent_or_ended(&mut self, now: Now) {
        let silence_max = self.plan.heartbeat.mul_f64(SILENT_HEARTBEATS);
        // The whole table within a quarter of a heartbeat, so that a silent device is found soon after its
        // time. A token has no heartbeat, and its end must not wait for a slow one.
        let whole = (self.plan.heartbeat / 4).min(TOKEN_END_AGE_MAX);
        let sweeps = (whole.as_millis() / SWEEP_INTERVAL.as_millis()).max(1);
        let slice = self.connections.capacity().div_ceil(usize::try_from(sweeps).unwrap_or(usize::MAX));
        for _ in 0..slice {
            let place = self.connections.next_place();
            let Some(index) = self.connections.at(place) else { continue };
            let connection = &self.connections[index];
            if now.instant.saturating_duration_since(connection.heard_at) >= silence_max {
                self.close(index, CloseReason::Silent, now);
            } else if connection.grant.is_over(now.unix_ms) {
                self.close(index, CloseReason::TokenExpired, now);
            }
        }
    }

    /// Drops the connections that have said their last, or whose socket failed.
    pub(in crate::shard) fn drop_ended(&mut self, now: Now) {
        while let Some(index) = self.connections.next_ended() {
            self.close(index, CloseReason::Gone, now);
            self.connections.remove(index);
        }
    }

    /// Says goodbye to a turn's worth of connections, once the drain has come so far. True if more are to
    /// come.
    pub(in crate::shard) fn take_farewells(&mut self, now: Now) -> bool {
        let Some(from) = self.farewell else { return false };
        let to = (from + self.plan.turn_members).min(self.connections.capacity());
        for place in from..to {
            if let Some(index) = self.connections.at(place) {
                self.close(index, CloseReason::Draining, now);
            }
        }
        self.farewell = Some(to);
        to > from
    }
}
