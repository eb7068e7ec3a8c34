//! The world's time: steps of a few milliseconds, long pauses and jumps of the wall clock. A crash ends one
//! life of the node, and the next life begins.

use std::time::Duration;

use roomcast::shard::Shard;
use roomcast_core::now::Now;

use crate::socket::SimSocket;
use crate::world::{QUIET, World};

impl World {
    /// Moves the clock by 1 to 9 ms, to the next deadline at most. One step in eight holds the shards back
    /// before.
    pub(crate) fn move_clock(&mut self) {
        let by = Duration::from_millis(self.rng.u64(1..10));
        if self.rng.u8(..8) > 0 {
            self.turn_until_idle();
        }
        self.pass_time(by);
    }

    /// Lets time pass that is long enough for deadlines of slow devices and for idle rooms.
    pub(crate) fn long_pause(&mut self) {
        self.turn_until_idle();
        let seconds = self.rng.choice([2, 11, 16, 601]).unwrap();
        if seconds == 601 {
            self.publish_to(QUIET);
        }
        self.say(format!("pause of {seconds} s"));
        self.pause(Duration::from_secs(seconds));
    }

    /// Lets time pass while every part works. Returns the number of wakes with something to do.
    pub(crate) fn pause(&mut self, pause: Duration) -> u64 {
        let end = self.now.instant + pause;
        let mut wakes = 0;
        while self.now.instant < end {
            self.turn_until_idle();
            let next = self.shards.iter().map(Shard::poll_deadline).min().unwrap();
            let by = next.saturating_duration_since(self.now.instant).max(Duration::from_millis(1));
            self.pass_time(by.min(end.saturating_duration_since(self.now.instant)));
            wakes += 1;
        }
        wakes
    }

    pub(crate) fn pass_time(&mut self, by: Duration) {
        let idle = !self.busy.iter().any(|busy| *busy)
            && self.shards.iter().all(|shard| shard.poll_deadline() > self.now.instant);
        let next = self.shards.iter().map(Shard::poll_deadline).min().unwrap();
        let to_deadline = next.saturating_duration_since(self.now.instant);
        let by = if idle && !to_deadline.is_zero() { by.min(to_deadline) } else { by };
        if !idle {
            self.held_back += by;
        }
        self.now = self.now.later(by);
        if idle {
            self.idle_at = self.now.instant;
        }
        self.store.disk().pass_to(self.now);
        self.say(format!("clock +{} us", by.as_micros()));
        self.links_carry(by);
    }

    /// Slow links carry what they can in this time.
    fn links_carry(&mut self, time: Duration) {
        for index in 0..self.devices.len() {
            let carried = self.devices[index].pipe.borrow_mut().carries(time);
            if carried > 0 && self.devices[index].is_open() {
                self.coverage.count("slow link", 1);
                self.read_from(index, carried);
            }
        }
    }

    /// Runs every part until nothing is left to do at this moment.
    pub(crate) fn turn_until_idle(&mut self) {
        for _ in 0..100_000 {
            let due = |shard: &Shard<SimSocket>| shard.poll_deadline() <= self.now.instant;
            match (0..self.shards.len()).find(|at| self.busy[*at] || due(&self.shards[*at])) {
                Some(index) => self.turn(index),
                None if self.store_works_off() => {}
                None => return self.idle_at = self.now.instant,
            }
        }
        panic!("the shards never come to rest");
    }

    /// The wall clock jumps.
    pub(crate) fn jump(&mut self) {
        let by_ms = self.rng.u64(0..400_000);
        let unix_ms = if self.rng.bool() { self.now.unix_ms + by_ms } else { self.now.unix_ms - by_ms };
        self.now = Now { unix_ms, ..self.now };
        self.store.disk().pass_to(self.now);
        self.say(format!("the wall clock jumps to {unix_ms}"));
        self.coverage.count("clock jump", 1);
    }

    /// Ends the node at once, and starts another node over the same disk, sometimes over an empty disk.
    /// Devices keep the applied messages. Publishers never hear the missing answers.
    pub(crate) fn crash(&mut self) {
        self.say("crash".to_owned());
        self.coverage.count("crash", 1);
        let has_all_arrived = self.rng.bool();
        for index in 0..self.devices.len() {
            let bytes = if has_all_arrived { usize::MAX } else { self.rng.usize(0..2000) };
            self.devices[index].healthy &= has_all_arrived;
            self.read_from(index, bytes);
        }
        self.check_stories(true);
        self.devices.clear();
        self.lingering.clear();
        self.heeded.clear();
        self.chat.clear();
        self.asked.clear();
        self.loading.clear();
        self.ledger.requests.clear();
        if self.rng.u8(..8) == 0 {
            self.say("its data is deleted".to_owned());
            let mut disk = self.store.disk();
            disk.memory = roomcast::store::memory::Memory::default();
            drop(disk);
            self.ledger.forget_durable();
        }
        let by = Duration::from_millis(self.rng.u64(1..5000));
        self.now = self.now.later(by);
        self.store.disk().pass_to(self.now);
        // Every room loads anew, so damage shows.
        if self.rng.u8(..3) == 0 {
            self.damage(self.now.instant + Duration::from_secs(6));
        }
        self.start();
    }
}
