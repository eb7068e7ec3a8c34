//! Checks a scenario and turns it into a plan. The first mistake is reported in one line with its key.

use crate::scenario::audience::{Audience, Point};
use crate::scenario::faults;
use crate::scenario::file::{AudienceShape, Publish, Scenario, TypeSection};
use crate::scenario::habits::Awkward;
use crate::scenario::mix::{self, Class, LIMITS_MAX, Limit, Load, ReliableTypes, TYPES_MAX};
use crate::scenario::payload::{Length, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};
use crate::scenario::plan::{Plan, Reliable, Target};
use crate::scenario::schedule::{Arrivals, LISTED_REQUESTS_MAX, Pattern, RoomChoice, Schedule};
use crate::scenario::seating::Sizes;
use crate::scenario::thresholds::{self, Condition};
use crate::scenario::units::{Rate, Share, Span};

/// Most messages of one type: the ledger's rows must fit memory.
const MESSAGES_MAX: u64 = 100_000_000;
/// Most reliable messages: the ledger keeps a row for each, with all apply times.
const RELIABLE_MESSAGES_MAX: u64 = 2_000_000;
/// Most messages of one request; the publisher door refuses more.
const MESSAGES_PER_REQUEST_MAX: u32 = 1_000;
const ROOMS_MAX: u32 = 200_000;
/// 250 workers of 19 000 devices.
const DEVICES_MAX: u32 = 4_750_000;
/// Most storms, faults, thresholds, and points of a shape, each.
const LIST_MAX: usize = 64;
/// Largest exponent or sigma of room sizes. Past it one room holds every device.
const UNEVEN_MAX: f64 = 10.0;
/// Length of a raid's rise.
const RAID: Span = Span::of_seconds(10);

impl Scenario {
    /// Runs every check that needs no connection.
    ///
    /// # Errors
    /// One line with the key and the mistake.
    pub(crate) fn resolve(&self, target: Target) -> Result<Plan, String> {
        self.check_ranges()?;
        let loads = self.loads()?;
        let reliable = self.reliable()?;
        let limits = self.limits(&loads)?;
        let payload_bytes = loads.first().map_or(self.payload, |load| load.length).median();
        let thresholds = self.conditions(&loads)?;
        let nodes = faults::node_names(&self.doors.names, target.ops_doors.len())?;
        let faults = faults::planned(&self.faults, &self.commands, &nodes)?;
        Ok(Plan {
            loads,
            reliable,
            limits,
            rooms: self.rooms.count,
            sizes: self.rooms.sizes,
            others: self.others,
            awkward: self.awkward(),
            devices: self.viewers.devices,
            audience: self.audience()?,
            storms: self.storms.clone(),
            nodes,
            faults,
            thresholds,
            warm_up_ms: self.warm_up.ms(),
            settle_ms: self.settle.ms(),
            seconds_milli: self.seconds.ms(),
            payload_bytes,
            messages_per_request: self.messages_per_request,
            encoding: self.encoding,
            seed: self.seed,
            scenario: self.text(),
            target,
        })
    }

    fn check_ranges(&self) -> Result<(), String> {
        let within = |name: &str, found: u64, range: std::ops::RangeInclusive<u64>| {
            let least = range.start();
            let most = range.end();
            if range.contains(&found) {
                Ok(())
            } else {
                Err(format!("{name}: {least} to {most}, and not {found}"))
            }
        };
        within("rooms.count (--rooms)", self.rooms.count.into(), 1..=ROOMS_MAX.into())?;
        within("viewers.devices (--devices)", self.viewers.devices.into(), 0..=DEVICES_MAX.into())?;
        let per_request = u64::from(self.messages_per_request);
        within(
            "messages_per_request (--messages-per-request)",
            per_request,
            1..=MESSAGES_PER_REQUEST_MAX.into(),
        )?;
        for (name, span) in
            [("seconds (--seconds)", self.seconds), ("settle (--settle-seconds)", self.settle)]
        {
            if span == Span::default() {
                return Err(format!("{name}: must be more than 0"));
            }
        }
        within("settle (--settle-seconds), ms", self.settle.ms(), 1..=600_000)?;
        // A warm-up of the whole run would leave no latency to report.
        if self.warm_up >= self.seconds {
            return Err(format!(
                "warm_up (--warm-up): {} is not less than the {} of the run",
                self.warm_up, self.seconds
            ));
        }
        for (name, length) in [
            ("storms", self.storms.len()),
            ("faults", self.faults.len()),
            ("thresholds", self.thresholds.len()),
        ] {
            within(name, length as u64, 0..=LIST_MAX as u64)?;
        }
        // A storm or fault past the last publish would act on no measured message.
        let times = self.storms.iter().map(|storm| storm.at).chain(self.faults.iter().map(|fault| fault.at));
        if let Some(late) = times.into_iter().find(|at| *at >= self.seconds) {
            return Err(format!("storms and faults: {late} is not within the {} of the run", self.seconds));
        }
        if self.habits.hop_share.millionths() > 0 && self.rooms.count == 1 {
            return Err("habits.hop_share: devices hop between rooms, and rooms.count (--rooms) is 1".into());
        }
        check_sizes(self.rooms.sizes)?;
        check_length("payload (--payload-bytes)", self.payload)?;
        within("habits.stall (--stall-seconds), ms", self.habits.stall.ms(), 1_000..=600_000)?;
        within(
            "habits.slow_bytes_per_second",
            self.habits.slow_bytes_per_second.into(),
            1_000..=1_000_000_000,
        )
    }

    /// All types with their classes, by name.
    fn types(&self) -> impl Iterator<Item = (&String, Class, &TypeSection)> {
        self.types.iter().map(|(name, published)| (name, published.class_of(name), published))
    }

    fn loads(&self) -> Result<Vec<Load>, String> {
        let mut loads = Vec::new();
        for (type_name, class, published) in self.types() {
            mix::check_type(type_name, class, published.count, published.keys)
                .map_err(|why| format!("types.{why}"))?;
            // Reliable types share one schedule, made by `reliable`.
            if class == Class::Reliable {
                continue;
            }
            let per_request = mix::messages_per_request(published.rate.milli(), self.messages_per_request);
            let schedule = self.schedule(type_name, published, per_request, MESSAGES_MAX)?;
            let length = published.payload.unwrap_or(self.payload);
            check_length(&format!("types.{type_name}.payload"), length)?;
            let count = published.count;
            let keys = published.keys;
            loads.push(Load { type_name: type_name.clone(), class, schedule, count, keys, length });
        }
        if loads.len() > TYPES_MAX {
            return Err(format!("types: at most {TYPES_MAX} that are not reliable"));
        }
        Ok(loads)
    }

    fn reliable(&self) -> Result<Option<Reliable>, String> {
        let mut types = self.types().filter(|(_, class, _)| *class == Class::Reliable);
        let Some((type_name, _, published)) = types.next() else { return Ok(None) };
        if published.rate.milli() == 0 {
            return Err(format!("types.{type_name}.rate (--reliable-rate): must be more than 0"));
        }
        let mut names = vec![(type_name.clone(), published.rate.milli())];
        // The ledger keeps one stream of reliable messages with one schedule, so only the weights may differ.
        for (other_name, _, other) in types {
            if (TypeSection { rate: published.rate, ..other.clone() }) != *published {
                return Err(format!(
                    "types.{other_name}: reliable types share one schedule, so all keys except rate must equal those \
                     of {type_name}"
                ));
            }
            if other.rate.milli() == 0 {
                return Err(format!("types.{other_name}.rate: must be more than 0"));
            }
            names.push((other_name.clone(), other.rate.milli()));
        }
        let rate_milli = names.iter().fold(0, |sum: u64, (_, rate_milli)| sum.saturating_add(*rate_milli));
        let all = TypeSection { rate: Rate::of_milli(rate_milli), ..published.clone() };
        let schedule = self.schedule(type_name, &all, 1, RELIABLE_MESSAGES_MAX)?;
        let ttl_ms = published.ttl.map(Span::ms);
        // The node refuses a life outside these bounds at each publish.
        if ttl_ms.is_some_and(|ttl_ms| !(1_000..=604_800_000).contains(&ttl_ms)) {
            return Err(format!("types.{type_name}.ttl (--ttl-ms): a second to a week"));
        }
        let length = published.payload.unwrap_or(self.payload);
        check_length(&format!("types.{type_name}.payload"), length)?;
        Ok(Some(Reliable { schedule, types: ReliableTypes::new(names), ttl_ms, length }))
    }

    /// The schedule of a type, of at most `most` messages.
    fn schedule(
        &self,
        type_name: &str,
        published: &TypeSection,
        per_request: u32,
        most: u64,
    ) -> Result<Schedule, String> {
        let flag = format!("types.{type_name}.rate (--type {type_name}, --rate, --reliable-rate)");
        let from = published.from;
        let until = published.until.unwrap_or(self.seconds);
        if from >= until || until > self.seconds {
            return Err(format!(
                "types.{type_name}: from {from} until {until} is no part of the {} of the run",
                self.seconds
            ));
        }
        let rate_milli = published.rate.milli();
        if rate_milli == 0 {
            return Err(format!("{flag}: must be more than 0"));
        }
        // In u128: the largest rate times a week overflows u64.
        let messages = (u128::from(rate_milli) * u128::from(until.ms() - from.ms())).div_ceil(1_000_000);
        let messages = u64::try_from(messages).ok().filter(|messages| *messages <= most);
        let messages = messages.ok_or_else(|| format!("{flag} × --seconds: at most {most} messages"))?;
        let share = match self.rooms.publish {
            Publish::Even => RoomChoice::Even,
            Publish::BySize => {
                // Fewer devices than rooms would leave rooms without a message.
                let devices = self.viewers.devices.max(self.rooms.count);
                RoomChoice::BySize { sizes: self.rooms.sizes, devices, seed: self.seed }
            }
        };
        // Bursts of no length would divide by zero.
        if published.arrivals == (Arrivals::Burst { every: Span::default() }) {
            return Err(format!("types.{type_name}.arrivals: burst.every must be more than 0"));
        }
        let pattern = Pattern {
            arrivals: published.arrivals,
            share,
            from_ms: from.ms(),
            within_ms: until.ms() - from.ms(),
            seed: mix::type_seed(self.seed, type_name),
        };
        // Every process of the run holds the list in memory.
        if !pattern.is_plain() && messages.div_ceil(per_request.into()) > LISTED_REQUESTS_MAX {
            return Err(format!(
                "{flag}: at most {LISTED_REQUESTS_MAX} requests that are not constant and to all rooms in turn"
            ));
        }
        Ok(Schedule::even(messages, rate_milli, self.rooms.count, per_request).patterned(pattern))
    }

    fn limits(&self, loads: &[Load]) -> Result<Vec<Limit>, String> {
        if self.readable_max.len() > LIMITS_MAX {
            return Err(format!("readable_max (--readable-max): at most {LIMITS_MAX} types"));
        }
        let limit = |(type_name, per_second): (&String, &u32)| {
            // Counters reach devices as totals, so there are no messages to limit.
            let known = loads.iter().any(|load| load.type_name == *type_name && !load.is_counter());
            let limit = Limit { type_name: type_name.clone(), per_second: *per_second };
            let why = || {
                format!(
                    "readable_max (--readable-max {type_name}): needs a published type with messages, \
                     and a limit above 0"
                )
            };
            (known && *per_second > 0).then_some(limit).ok_or_else(why)
        };
        self.readable_max.iter().map(limit).collect()
    }

    fn conditions(&self, loads: &[Load]) -> Result<Vec<Condition>, String> {
        let parse = |text: &String| text.parse().map_err(|why| format!("thresholds (--threshold): {why}"));
        let conditions = self.thresholds.iter().map(parse).collect::<Result<Vec<Condition>, String>>()?;
        thresholds::check_types(&conditions, loads)
            .map_err(|why| format!("thresholds (--threshold): {why}"))?;
        Ok(conditions)
    }

    fn awkward(&self) -> Awkward {
        let habits = &self.habits;
        Awkward {
            drop_acks_share: habits.drop_acks_share.millionths(),
            drop_acks: habits.drop_acks.millionths(),
            stall_share: habits.stall_share.millionths(),
            stall_ns: habits.stall.ms() * 1_000_000,
            reconnect_share: habits.reconnect_share.millionths(),
            hop_share: habits.hop_share.millionths(),
            slow_share: habits.slow_share.millionths(),
            slow_bytes_per_s: habits.slow_bytes_per_second,
            dead_share: habits.dead_share.millionths(),
            // A fault may restart the node.
            through_restarts: self.through_restarts || !self.faults.is_empty(),
        }
    }

    fn audience(&self) -> Result<Audience, String> {
        let whole = Share::of_millionths(1_000_000);
        let after = |at: Span, span: Span| Span::of_ms(at.ms() + span.ms());
        let points: Vec<(Span, Share)> = match &self.viewers.shape {
            AudienceShape::Steady => return Ok(Audience::steady(self.viewers.devices)),
            AudienceShape::Ramp { over, from } => vec![(Span::default(), *from), (*over, whole)],
            AudienceShape::Step { at, from } => vec![(Span::default(), *from), (*at, *from), (*at, whole)],
            AudienceShape::Raid { at } => {
                vec![(Span::default(), Share::default()), (*at, Share::default()), (after(*at, RAID), whole)]
            }
            AudienceShape::Spike { at, rise, hold, from } => {
                let up = after(*at, *rise);
                let down = after(after(*at, *rise), *hold);
                let turns = [(Span::default(), *from), (*at, *from), (up, whole), (down, whole)];
                turns.into_iter().chain([(after(down, *rise), *from)]).collect()
            }
            AudienceShape::Points(points) => points.clone(),
        };
        if points.is_empty() || points.len() > LIST_MAX || points[0].0 != Span::default() {
            return Err(format!("viewers.shape: 1 to {LIST_MAX} points, and the first at 0"));
        }
        if points.windows(2).any(|pair| pair[1].0 < pair[0].0)
            || points.iter().any(|(at, _)| *at > self.seconds)
        {
            return Err(format!(
                "viewers.shape: times do not fall, and lie within the {} of the run",
                self.seconds
            ));
        }
        // A witness of each room must be present throughout: the ledger judges the room's loss by its
        // witness.
        let witnesses = self.viewers.devices.min(self.rooms.count);
        let point = |(at, share): &(Span, Share)| Point {
            at_ms: at.ms(),
            devices: share.of(self.viewers.devices).max(witnesses),
        };
        Ok(Audience { points: points.iter().map(point).collect() })
    }
}

fn check_sizes(sizes: Sizes) -> Result<(), String> {
    let (name, found) = match sizes {
        Sizes::Zipf { exponent } => ("zipf.exponent", exponent),
        Sizes::Lognormal { sigma } => ("lognormal.sigma", sigma),
        Sizes::Even | Sizes::Giant { .. } | Sizes::Field => return Ok(()),
    };
    // NaN lies in no range, and is refused here.
    if (0.0..=UNEVEN_MAX).contains(&found) {
        return Ok(());
    }
    Err(format!("rooms.sizes.{name}: 0 to {UNEVEN_MAX}, and not {found}"))
}

fn check_length(name: &str, length: Length) -> Result<(), String> {
    if !(PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&length.median()) {
        return Err(format!("{name}: {PAYLOAD_BYTES_MIN} to {PAYLOAD_BYTES_MAX} bytes"));
    }
    match length {
        Length::Lognormal { sigma, .. } if !(0.0..=3.0).contains(&sigma) => {
            Err(format!("{name}: sigma from 0 to 3"))
        }
        _ => Ok(()),
    }
}
