//! The placement of the world's devices and the cost of writes: the real directory, a made-up meter, the
//! resulting windows, and all checks.

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

/// The cost of a write in microseconds: next to nothing, realistic, and so high that windows must widen.
const WRITE_COSTS_US: [u64; 6] = [1, 7, 500, 8_000, 30_000, 100_000];

/// The world's knowledge of its load.
#[derive(Debug)]
pub(crate) struct Scatter {
    pub(crate) directory: Directory,
    /// True: writes cost time.
    pub(crate) is_metered: bool,
    /// Room -> the windows in force, each with its start.
    windows: BTreeMap<String, Vec<(Instant, Duration)>>,
    /// Room -> run, for rooms that live as long as the node. Shards count the writes to these rooms. `None`:
    /// rooms come and go.
    pub(crate) runs: Option<BTreeMap<&'static str, String>>,
    /// The sum of the shards' tallies in this life of the node.
    tallied: Counts,
    /// The largest stretch of a shard so far, in thousandths. A home may still use an old stretch.
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
    /// The node starts without knowledge of any load.
    pub(crate) fn start_scatter(&mut self) {
        self.scatter.directory =
            Directory::new(self.shards.len(), self.plan.home_key, self.plan.hot_rooms.clone());
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
        let view =
            self.shards[home].homes.configure(&name(room), settings, self.now).expect("it takes rooms");
        self.busy[home] = true;
        view
    }

    /// Draws a new cost of a write.
    pub(crate) fn draw_write_cost(&mut self) {
        let cost_us = if self.scatter.is_metered { self.rng.choice(WRITE_COSTS_US).unwrap() } else { 0 };
        self.say(format!("writes cost {cost_us} us"));
        socket::writes_cost(Duration::from_micros(cost_us));
    }

    /// Draws the shard for a new device: the directory's place, or any shard, as if another room had led
    /// there.
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

    /// A publisher sets the expected audience, sometimes to less than before.
    pub(crate) fn expect_audience(&mut self) {
        let room = self.rng.choice(ROOMS).unwrap();
        let expected = self.rng.u64(0..20);
        self.say(format!("{room} expects {expected}"));
        self.configure(room, RoomSettings { expected_audience: Some(expected), ..RoomSettings::default() });
        self.give_out(home(room, self.shards.len()));
    }

    /// A shard reports its load, or the cost of a write changes.
    pub(crate) fn load_changes(&mut self) {
        if self.scatter.is_metered && self.rng.u8(..3) == 0 {
            return self.draw_write_cost();
        }
        let shard = self.rng.usize(..self.shards.len());
        let load = Load { busy_tenths: self.rng.u64(0..=10), connections: self.rng.u64(0..30) };
        self.say(format!("shard {shard} is {load:?}"));
        self.scatter.directory.loaded(shard, load);
    }

    /// Hands the hot rooms to the directory, three times of four. The rest waits for a later call.
    pub(crate) fn tell_directory(&mut self, index: usize) {
        if self.rng.u8(..4) > 0 {
            self.tell_directory_all(index);
        }
    }

    fn tell_directory_all(&mut self, index: usize) {
        while let Some(scatter) = self.shards[index].homes.poll_scatter() {
            self.say(format!("shard {index} scatters {scatter:?}"));
            self.scatter.directory.scatter(scatter);
        }
    }

    pub(crate) fn note_load(&mut self, tally: &Tally) {
        let written = tally.frames_level + tally.frames_refresh + tally.frames_carried;
        let queued = tally.frames_queued;
        let skipped = tally.frames_skipped;
        let acked = tally.acks;
        self.scatter.tallied += Counts { written, queued, skipped, acked };
        self.coverage.count("promoted", tally.homes.rooms_promoted);
        self.coverage.count("demoted", tally.homes.rooms_demoted);
    }

    /// Notes the windows in force after a shard's turn.
    pub(crate) fn note_windows(&mut self, index: usize) {
        if !self.scatter.is_metered {
            return;
        }
        // At each turn: a home may hear of a stretch after its shard has let go of it.
        let stretches = self.shards.iter().map(|shard| shard.holdings().stretch_permille);
        self.scatter.stretch_max =
            stretches.chain([self.scatter.stretch_max]).max().expect("there are shards");
        for line in self.shards[index].homes.rooms_by_members(usize::MAX, self.now.instant) {
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
        let view = self.shards[index].homes.describe(&name(room), self.now.instant).expect("it is listed");
        let is_direct = view.members <= rules.direct_members;
        let pass = view.shards.iter().map(|segment| Duration::from_micros(segment.pass_us)).max();
        let needed = rules.spacing(pass.unwrap_or_default());
        let plain = if is_direct { Duration::from_millis(10) } else { rules.gather }.max(needed);
        let millisecond = Duration::from_millis(1);
        assert!(window + millisecond >= plain.min(rules.gather_max), "{room}: {window:?} of {view:?}");
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

    /// The widest window in force in a room since this moment.
    pub(crate) fn window_since(&self, room: &str, since: Instant) -> Duration {
        let Some(windows) = self.scatter.windows.get(room) else { return self.window };
        let first = windows.partition_point(|(at, _)| *at <= since).saturating_sub(1);
        let widest = windows[first..].iter().map(|(_, window)| *window).max();
        widest.map_or(self.window, |window| window + Duration::from_millis(1))
    }

    /// Checks after quiet that the directory places rooms as the homes say and as the audience needs.
    pub(crate) fn check_placement(&mut self) {
        for index in 0..self.shards.len() {
            self.tell_directory_all(index);
        }
        let count = self.shards.len();
        let heat = self.plan.heat;
        for room in ROOMS {
            let view = self.shards[home(room, count)].homes.describe(&name(room), self.now.instant);
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

    /// Checks the counts of all segments, gone segments included, against the shards' writes. Devices can't
    /// have heard more.
    pub(crate) fn check_counts(&mut self) {
        let Some(runs) = self.scatter.runs.clone() else { return };
        let mut sum = Counts::default();
        for (room, run) in runs {
            let view =
                self.shards[home(room, self.shards.len())].homes.describe(&name(room), self.now.instant);
            let Some(view) = view.filter(|view| view.run == run) else {
                return; // The room was forgotten together with its counts.
            };
            let mut counts = view.counts;
            for shard in &self.shards {
                let counted = shard.residents.counts(&name(room)).filter(|(of, _)| of.to_string() == run);
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
