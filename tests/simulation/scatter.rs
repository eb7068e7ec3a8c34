//! Where the world's devices are placed and what writing to them costs: the real directory, a made-up meter, the windows
//! that follow from it, and what must hold of all three.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roomcast::metrics::tally::Tally;
use roomcast::shard::directory::{Directory, Load};
use roomcast_core::room::Counts;
use roomcast_core::room::pace::RoomSettings;
use roomcast_core::room::view::RoomView;

use crate::device::Heard;
use crate::socket;
use crate::world::{CLOSING, ROOMS, World, home, name};

/// What a write costs, in microseconds: next to nothing, what it does in life, and so much that windows must widen.
const WRITE_COSTS_US: [u64; 6] = [1, 7, 500, 8_000, 30_000, 100_000];

/// What the world knows of its load.
#[derive(Debug)]
pub(crate) struct Scatter {
    pub(crate) directory: Directory,
    /// Writes cost something.
    pub(crate) is_metered: bool,
    /// By room: since when a window has been in force.
    windows: BTreeMap<String, Vec<(Instant, Duration)>>,
    /// Shards count what they write to rooms that live as long as the node: their runs. `None`: rooms come and go.
    pub(crate) runs: Option<BTreeMap<&'static str, String>>,
    /// What the shards said in their tallies, in this life of the node.
    tallied: Counts,
    /// The most that a shard has stretched windows, in thousandths: a home may have heard it long ago.
    stretch_max: u64,
}

impl Scatter {
    pub(crate) fn new(directory: Directory, is_metered: bool, is_counting: bool) -> Self {
        let runs = is_counting.then(BTreeMap::new);
        Self {
            directory,
            is_metered,
            windows: BTreeMap::new(),
            runs,
            tallied: Counts::default(),
            stretch_max: 1000,
        }
    }
}

impl World {
    /// The node starts: nothing is known of any load.
    pub(crate) fn start_scatter(&mut self) {
        self.scatter.directory = Directory::new(self.shards.len(), self.plan.hot_rooms.clone());
        self.scatter.windows.clear();
        self.scatter.tallied = Counts::default();
        self.draw_write_cost();
        if self.scatter.runs.is_none() {
            return;
        }
        for room in ROOMS.into_iter().chain([CLOSING]) {
            let view = self.configure(room, RoomSettings::default());
            self.scatter.runs.as_mut().expect("seen").insert(room, view.run);
        }
    }

    fn configure(&mut self, room: &str, settings: RoomSettings) -> RoomView {
        let home = home(room, self.shards.len());
        let view = self.shards[home].configure(&name(room), settings, self.now).expect("it takes rooms");
        self.busy[home] = true;
        view
    }

    /// Writes cost more or less from now on.
    pub(crate) fn draw_write_cost(&mut self) {
        let cost_us = if self.scatter.is_metered { self.rng.choice(WRITE_COSTS_US).unwrap() } else { 0 };
        self.say(format!("writes cost {cost_us} us"));
        socket::writes_cost(Duration::from_micros(cost_us));
    }

    /// The shard for a device that comes: as the directory places it, or through another room.
    pub(crate) fn place(&mut self, room: &str) -> usize {
        if self.rng.u8(..4) == 0 {
            return self.rng.usize(..self.shards.len());
        }
        let shard = self.scatter.directory.find(&name(room), |_| true).expect("no shard is full");
        self.scatter.directory.placed(&name(room), shard);
        let is_scattered = shard != home(room, self.shards.len());
        self.coverage.count("member on a scattered shard", u64::from(is_scattered));
        shard
    }

    /// A publisher says how many devices it expects; now and then that is fewer than it did.
    pub(crate) fn expect_audience(&mut self) {
        let (room, expected) = (self.rng.choice(ROOMS).unwrap(), self.rng.u64(0..20));
        self.say(format!("{room} expects {expected}"));
        self.configure(room, RoomSettings { expected_audience: Some(expected), ..RoomSettings::default() });
        self.give_out(home(room, self.shards.len()));
    }

    /// A shard tells how busy it is, or writes cost something else from now on.
    pub(crate) fn load_changes(&mut self) {
        if self.scatter.is_metered && self.rng.u8(..3) == 0 {
            return self.draw_write_cost();
        }
        let shard = self.rng.usize(..self.shards.len());
        let load = Load { busy_tenths: self.rng.u64(0..=10), connections: self.rng.u64(0..30) };
        self.say(format!("shard {shard} is {load:?}"));
        self.scatter.directory.loaded(shard, load);
    }

    /// The directory hears of hot rooms; it need not be at once.
    pub(crate) fn tell_directory(&mut self, index: usize) {
        if self.rng.u8(..4) > 0 {
            self.tell_directory_all(index);
        }
    }

    fn tell_directory_all(&mut self, index: usize) {
        while let Some(spread) = self.shards[index].poll_spread() {
            self.say(format!("shard {index} spreads {spread:?}"));
            self.scatter.directory.spread(spread);
        }
    }

    pub(crate) fn note_load(&mut self, tally: &Tally) {
        let written = tally.frames_level + tally.frames_refresh + tally.frames_carried;
        let (queued, skipped, acked) = (tally.frames_queued, tally.frames_skipped, tally.acks);
        self.scatter.tallied += Counts { written, queued, skipped, acked };
        self.coverage.count("promoted", tally.rooms_promoted);
        self.coverage.count("demoted", tally.rooms_demoted);
    }

    /// Notes which windows are in force after a shard's turn.
    pub(crate) fn note_windows(&mut self, index: usize) {
        if !self.scatter.is_metered {
            return;
        }
        for line in self.shards[index].rooms_by_members(usize::MAX, self.now.instant) {
            let window = Duration::from_millis(line.window_ms);
            let windows = self.scatter.windows.entry(line.room.clone()).or_default();
            let before = windows.last().map(|(_, window)| *window);
            if before != Some(window) {
                windows.push((self.now.instant, window));
                self.note_window(index, &line.room, before.unwrap_or(self.window), window);
            }
        }
    }

    fn note_window(&mut self, index: usize, room: &str, before: Duration, window: Duration) {
        let rules = self.plan.rules;
        assert!(window <= rules.gather_max, "{room}: {window:?}");
        let view = self.shards[index].describe(&name(room), self.now.instant).expect("it is listed");
        let is_direct = view.members <= rules.direct_members;
        let pass = view.shards.iter().map(|segment| Duration::from_micros(segment.pass_us)).max();
        let needed = rules.spacing(pass.unwrap_or_default());
        let plain = if is_direct { Duration::from_millis(10) } else { rules.gather }.max(needed);
        let millisecond = Duration::from_millis(1);
        assert!(window + millisecond >= plain.min(rules.gather_max), "{room}: {window:?} of {view:?}");
        let stretches = self.shards.iter().map(|shard| shard.holdings().stretch_permille);
        self.scatter.stretch_max =
            stretches.chain([self.scatter.stretch_max]).max().expect("there are shards");
        let stretch = u32::try_from(self.scatter.stretch_max).expect("bounded");
        assert!(
            window <= plain * stretch / 1000 + millisecond,
            "{room}: {window:?} of {view:?} at {stretch}"
        );
        self.say(format!("window of {room}: {} ms", window.as_millis()));
        self.coverage.count("window widened", u64::from(window > before && window > rules.gather));
        self.coverage.count("window narrowed", u64::from(window < before && before > rules.gather));
        self.coverage.count("stretched", u64::from(window > plain + millisecond));
    }

    /// The widest window that was in force in a room since then.
    pub(crate) fn window_since(&self, room: &str, since: Instant) -> Duration {
        let Some(windows) = self.scatter.windows.get(room) else { return self.window };
        let first = windows.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        let widest = windows[first..].iter().map(|(_, window)| *window).max();
        widest.map_or(self.window, |window| window + Duration::from_millis(1))
    }

    /// After quiet the directory places rooms as their homes say, and as their audience asks for.
    pub(crate) fn check_placement(&mut self) {
        for index in 0..self.shards.len() {
            self.tell_directory_all(index);
        }
        let (count, heat) = (self.shards.len(), self.plan.heat);
        for room in ROOMS {
            let view = self.shards[home(room, count)].describe(&name(room), self.now.instant);
            let view = view.expect("its witness stays");
            let placed_on = self.scatter.directory.shards_of(&name(room));
            assert_eq!(view.hot, placed_on.len() > 1, "{room}: placed on {placed_on:?}: {view:?}");
            let audience = view.members.max(view.expected_audience.unwrap_or(0));
            let is_listed = self.plan.hot_rooms.contains(&name(room));
            let asked = audience.div_ceil(heat.hot_members).clamp(1, count as u64);
            assert!(placed_on.len() as u64 >= asked, "{room}: {placed_on:?} of {view:?}");
            assert!(!is_listed || placed_on.len() == count, "{room} is listed: {placed_on:?}");
            let is_cold = audience * 2 <= heat.hot_members && view.load_permille * 2 <= heat.hot_permille;
            assert!(!view.hot || !is_cold || is_listed, "{room} has cooled down: {placed_on:?} of {view:?}");
        }
    }

    /// What segments count, those that are gone included, is what their shards wrote; and no less than devices heard.
    pub(crate) fn check_counts(&mut self) {
        let Some(runs) = self.scatter.runs.clone() else { return };
        let mut sum = Counts::default();
        for (room, run) in runs {
            let view = self.shards[home(room, self.shards.len())].describe(&name(room), self.now.instant);
            let Some(view) = view.filter(|view| view.run == run) else {
                return; // It was forgotten, and what it had counted with it.
            };
            let mut counts = view.counts;
            for shard in &self.shards {
                let counted = shard.counts(&name(room)).filter(|(of, _)| of.to_string() == run);
                counts += counted.map_or_else(Counts::default, |(_, counted)| counted);
            }
            let is_batch =
                |(of, heard): &&(String, Heard)| of == room && matches!(heard, Heard::Batch { .. });
            let heard: usize =
                self.devices.iter().map(|device| device.heard.iter().filter(is_batch).count()).sum();
            assert!(counts.written >= heard as u64, "{room}: {heard} frames heard of {counts:?}");
            sum += counts;
        }
        assert_eq!(sum, self.scatter.tallied, "what was written is counted once");
        self.coverage.count("counts add up", 1);
    }
}
