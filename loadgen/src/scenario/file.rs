//! The raw scenario: a TOML file fills the scenario, flags change single values, and a report repeats the
//! whole. `resolve` checks the result.
//!
//! Every key has a default. Without a file the scenario is 1 000 devices in one room and 10 chat messages a
//! second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::scenario::faults::{CommandsSection, FaultSection};
use crate::scenario::habits::Storm;
use crate::scenario::mix::Class;
use crate::scenario::payload::Length;
use crate::scenario::schedule::Arrivals;
use crate::scenario::seating::Sizes;
use crate::scenario::units::{Rate, Share, Span};
use crate::wire::frame::Encoding;

/// Scenarios compiled into the program: name -> TOML.
const SHIPPED: [(&str, &str); 10] = [
    ("quick", include_str!("../../scenarios/quick.toml")),
    ("hot-room", include_str!("../../scenarios/hot-room.toml")),
    ("double-eleven", include_str!("../../scenarios/double-eleven.toml")),
    ("red-packet", include_str!("../../scenarios/red-packet.toml")),
    ("raid", include_str!("../../scenarios/raid.toml")),
    ("reconnect-storm", include_str!("../../scenarios/reconnect-storm.toml")),
    ("rolling-restart", include_str!("../../scenarios/rolling-restart.toml")),
    ("node-loss", include_str!("../../scenarios/node-loss.toml")),
    ("small-rooms", include_str!("../../scenarios/small-rooms.toml")),
    ("soak", include_str!("../../scenarios/soak.toml")),
];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// The scenario's purpose, in one sentence.
    pub(crate) about: String,
    /// Publishing time.
    pub(crate) seconds: Span,
    /// Messages due in this first part of the run are in the ledger and in no latency figure.
    pub(crate) warm_up: Span,
    /// Longest wait for owed messages after the last publish.
    pub(crate) settle: Span,
    /// Spelling of devices' frames and of publish requests.
    pub(crate) encoding: Encoding,
    /// Messages of one publish request, all to one room. Slow types send fewer: at most the messages due in
    /// 10 ms.
    pub(crate) messages_per_request: u32,
    /// Payload length of types without a length of their own.
    pub(crate) payload: Length,
    /// Seed of every random draw.
    pub(crate) seed: u64,
    /// Another run with another seed publishes to the same rooms. Foreign messages are counted and not
    /// judged.
    pub(crate) others: bool,
    /// Devices come back when their connection ends, and a room may have several lives.
    pub(crate) through_restarts: bool,
    /// Conditions like `p99<300ms`. The run fails where a condition does not hold.
    pub(crate) thresholds: Vec<String>,
    pub(crate) doors: DoorsSection,
    pub(crate) viewers: ViewersSection,
    pub(crate) rooms: RoomsSection,
    pub(crate) habits: HabitsSection,
    /// Published types by name. Empty: 10 chat messages a second.
    pub(crate) types: BTreeMap<String, TypeSection>,
    /// Type -> messages a second. The run fails when a device is given more.
    pub(crate) readable_max: BTreeMap<String, u32>,
    pub(crate) storms: Vec<Storm>,
    /// The commands of the faults' actions.
    pub(crate) commands: CommandsSection,
    pub(crate) faults: Vec<FaultSection>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: String::new(),
            about: String::new(),
            seconds: Span::of_seconds(10),
            warm_up: Span::default(),
            settle: Span::of_seconds(6),
            encoding: Encoding::Json,
            messages_per_request: 1,
            payload: Length::Fixed(300),
            seed: 1,
            others: false,
            through_restarts: false,
            thresholds: Vec::new(),
            doors: DoorsSection::default(),
            viewers: ViewersSection::default(),
            rooms: RoomsSection::default(),
            habits: HabitsSection::default(),
            types: BTreeMap::new(),
            readable_max: BTreeMap::new(),
            storms: Vec::new(),
            commands: CommandsSection::default(),
            faults: Vec::new(),
        }
    }
}

/// Doors of the nodes, as URLs. A flag for doors of a kind takes the place of all doors of the kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DoorsSection {
    pub(crate) viewer: Vec<String>,
    pub(crate) publisher: Vec<String>,
    pub(crate) ops: Vec<String>,
    /// Names of the nodes, in the order of `ops`; empty: node-1, node-2 and so on.
    pub(crate) names: Vec<String>,
    /// The viewer door to ask for the nodes of each room; empty: none.
    pub(crate) route: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ViewersSection {
    /// Most devices present at one time. 0: publish only.
    pub(crate) devices: u32,
    pub(crate) shape: AudienceShape,
}

impl Default for ViewersSection {
    fn default() -> Self {
        Self { devices: 1_000, shape: AudienceShape::Steady }
    }
}

/// The audience over time. One device of each room is present throughout, whatever the shape says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum AudienceShape {
    /// All devices, from before the first publish to the end.
    Steady,
    /// A straight line from a share to all devices.
    Ramp {
        over: Span,
        #[serde(default)]
        from: Share,
    },
    /// A share of the devices, and from `at` on all.
    Step {
        at: Span,
        #[serde(default)]
        from: Share,
    },
    /// A share of the devices, then all within `rise` and for `hold`, and the share again.
    Spike {
        at: Span,
        rise: Span,
        hold: Span,
        #[serde(default)]
        from: Share,
    },
    /// Nobody, and from `at` on all devices within 10 s, as when another streamer sends their viewers over.
    Raid { at: Span },
    /// Shares of the devices at given times, with straight lines between.
    Points(Vec<(Span, Share)>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RoomsSection {
    pub(crate) count: u32,
    pub(crate) sizes: Sizes,
    /// Choice of the room for each request: rooms in turn, or rooms weighted by their devices.
    pub(crate) publish: Publish,
}

impl Default for RoomsSection {
    fn default() -> Self {
        Self { count: 1, sizes: Sizes::Even, publish: Publish::Even }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Publish {
    Even,
    BySize,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TypeSection {
    /// The engine's promise, where the scenario overrides the class built in for the name.
    pub(crate) class: Option<Class>,
    /// Messages a second, over all rooms.
    pub(crate) rate: Rate,
    #[serde(default)]
    pub(crate) arrivals: Arrivals,
    pub(crate) payload: Option<Length>,
    /// Units in each message, as in `like` × 20.
    pub(crate) count: Option<u32>,
    /// Number of keys, used in turn; 0: messages have no key.
    #[serde(default)]
    pub(crate) keys: u32,
    /// Due time of the first message, after the start.
    #[serde(default)]
    pub(crate) from: Span,
    /// End of publishing, after the start. `None`: the end of the run.
    pub(crate) until: Option<Span>,
    /// Life of reliable messages, where the scenario overrides the type's.
    pub(crate) ttl: Option<Span>,
}

/// Shares of devices with awkward habits. The first device of each room at most drops acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HabitsSection {
    /// Share of devices dropping acknowledgements, and the dropped part of their acknowledgements.
    pub(crate) drop_acks_share: Share,
    pub(crate) drop_acks: Share,
    /// Share of devices pausing their reads about once a minute, and the length of a pause.
    pub(crate) stall_share: Share,
    pub(crate) stall: Span,
    /// Share of devices cutting their connection without a close every 2 to 12 s, and back within a second.
    pub(crate) reconnect_share: Share,
    /// Share of devices leaving for another room every 2 to 20 s.
    pub(crate) hop_share: Share,
    /// Share of devices with a slow reader, and the reader's speed.
    pub(crate) slow_share: Share,
    pub(crate) slow_bytes_per_second: u32,
    /// Share of devices falling silent for ever within the first 12 s, without a close.
    pub(crate) dead_share: Share,
}

impl Default for HabitsSection {
    fn default() -> Self {
        Self {
            drop_acks_share: Share::default(),
            drop_acks: Share::of_millionths(500_000),
            stall_share: Share::default(),
            stall: Span::of_seconds(5),
            reconnect_share: Share::default(),
            hop_share: Share::default(),
            slow_share: Share::default(),
            slow_bytes_per_second: 20_000,
            dead_share: Share::default(),
        }
    }
}

impl TypeSection {
    pub(crate) fn at(rate: Rate) -> Self {
        Self { rate, ..Self::default() }
    }

    pub(crate) fn class_of(&self, type_name: &str) -> Class {
        self.class.unwrap_or_else(|| Class::of(type_name))
    }
}

impl Scenario {
    /// Loads a file or a shipped scenario, then applies each `key=value`, with dots between tables.
    ///
    /// # Errors
    /// One line with the place and the mistake.
    pub(crate) fn load(file_or_name: Option<&str>, sets: &[String]) -> Result<Self, String> {
        let text = file_or_name.map_or_else(|| Ok(String::new()), text_of)?;
        // Checked before `--set` changes anything, so an error names the line of the file.
        let scenario: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            format!("--scenario {}: line {line}: {}", file_or_name.unwrap_or_default(), in_one_line(&error))
        })?;
        // Round trip through a table: `--set` can then reach every key, defaults included.
        let mut table = toml::Table::try_from(scenario).expect("a scenario is TOML");
        for set in sets {
            put(&mut table, set)?;
            table
                .clone()
                .try_into::<Self>()
                .map_err(|error| format!("--set {set}: {}", in_one_line(&error)))?;
        }
        Ok(table.try_into().expect("judged"))
    }

    /// The scenario as TOML.
    pub(crate) fn text(&self) -> String {
        toml::to_string(self).expect("a scenario is TOML")
    }

    /// Gives all reliable types this life.
    ///
    /// # Errors
    /// A sentence when no type is reliable.
    pub(crate) fn set_ttl(&mut self, ttl: Span) -> Result<(), String> {
        let types = self.types.iter_mut();
        let mut reliable =
            types.filter(|(name, published)| published.class_of(name) == Class::Reliable).peekable();
        reliable.peek().ok_or("no type is reliable")?;
        reliable.for_each(|(_, published)| published.ttl = Some(ttl));
        Ok(())
    }

    /// Scales all types' rates to a new total; each type keeps its part.
    pub(crate) fn scale_rates(&mut self, total_milli: u64) {
        let all: u128 = self.types.values().map(|published| u128::from(published.rate.milli())).sum();
        for published in self.types.values_mut() {
            let part = u128::from(published.rate.milli()) * u128::from(total_milli) / all.max(1);
            published.rate = Rate::of_milli(u64::try_from(part).unwrap_or(u64::MAX));
        }
    }
}

fn text_of(file_or_name: &str) -> Result<String, String> {
    if let Some((_, text)) = SHIPPED.iter().find(|(name, _)| *name == file_or_name) {
        return Ok((*text).to_owned());
    }
    std::fs::read_to_string(file_or_name).map_err(|error| {
        let names = SHIPPED.map(|(name, _)| name).join(", ");
        format!("--scenario {file_or_name}: {error}; shipped are {names}")
    })
}

/// Sets one key to a TOML value. A value without valid TOML is taken as text, so `seconds=90s` needs no
/// quotes.
fn put(table: &mut toml::Table, set: &str) -> Result<(), String> {
    let (path, value) = set.split_once('=').ok_or_else(|| format!("--set {set}: is KEY=VALUE"))?;
    let mut keys: Vec<&str> = path.split('.').map(str::trim).collect();
    let last =
        keys.pop().filter(|key| !key.is_empty()).ok_or_else(|| format!("--set {set}: is KEY=VALUE"))?;
    let mut at = table;
    for key in keys {
        let next = at.entry(key).or_insert_with(|| toml::Table::new().into());
        at = next.as_table_mut().ok_or_else(|| format!("--set {set}: {key} has no keys"))?;
    }
    let parsed =
        format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
    at.insert(last.to_owned(), parsed.unwrap_or_else(|| value.into()));
    Ok(())
}

fn in_one_line(error: &toml::de::Error) -> String {
    error.message().lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::args::tests::resolve;

    #[test]
    fn every_shipped_scenario_is_one_and_has_its_own_name() {
        for (name, _) in SHIPPED {
            let scenario = Scenario::load(Some(name), &[]).unwrap();
            assert_eq!(scenario.name, name);
            assert!(!scenario.about.is_empty() && !scenario.thresholds.is_empty(), "{name}");
            let plan = resolve(&format!("--scenario {name}")).unwrap();
            assert!(
                plan.audience.at_start() >= plan.rooms.min(plan.devices),
                "{name}: a witness in each room"
            );
        }
    }

    #[test]
    fn a_scenario_says_all_of_itself() {
        for (name, _) in SHIPPED {
            let scenario = Scenario::load(Some(name), &[]).unwrap();
            let again: Scenario = toml::from_str(&scenario.text()).unwrap();
            assert_eq!(again, scenario, "{name}");
        }
    }

    fn keys(value: &toml::Value) -> Vec<String> {
        match value {
            toml::Value::Table(table) => {
                table.iter().flat_map(|(key, value)| [vec![key.clone()], keys(value)].concat()).collect()
            }
            toml::Value::Array(values) => values.iter().flat_map(keys).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn the_manual_has_every_key() {
        let sets = [
            "types.NAME={rate=1,class=\"normal\",payload=80,count=2,keys=3,from=1,until=5,\
             ttl=9,arrivals={burst={every=5}}}",
            "storms=[{at=1,share=0.5,back_within=2}]",
            "commands.node.kill=kill {name}",
            "faults=[{at=1,run=\"true\"},{at=2,do=\"kill\",node=\"a\"},{at=3,do=\"kill\",nats=\"b\"}]",
            "doors.viewer=[\"ws://127.0.0.1:1\"]",
        ];
        let all = Scenario::load(None, &sets.map(str::to_owned)).unwrap();
        let manual = include_str!("../../../docs/planning.md");
        for key in keys(&toml::Value::try_from(all).unwrap()) {
            assert!(manual.contains(&key), "docs/planning.md lacks {key}");
        }
    }

    #[test]
    fn any_key_can_be_set() {
        let sets = [
            "viewers.devices=77",
            "types.chat.rate=2.5",
            "seconds=90s",
            "rooms.sizes={ zipf = { exponent = 1.5 } }",
        ];
        let scenario = Scenario::load(Some("quick"), &sets.map(str::to_owned)).unwrap();
        assert_eq!(scenario.viewers.devices, 77);
        assert_eq!(scenario.types["chat"].rate, Rate::of_milli(2_500));
        assert_eq!(scenario.seconds, Span::of_seconds(90));
        assert_eq!(scenario.rooms.sizes, Sizes::Zipf { exponent: 1.5 });
    }

    #[test]
    fn what_is_wrong_is_named_in_one_line() {
        for (set, named) in [
            ("speed=3", "speed"),
            ("viewers.device=3", "device"),
            ("viewers.devices=many", "devices"),
            ("seconds=soon", "is no time"),
            ("habits.dead_share=2", "between 0 and 1"),
            ("viewers", "KEY=VALUE"),
            ("seconds.x=1", "seconds has no keys"),
            ("viewers.shape=round", "round"),
        ] {
            let error = Scenario::load(None, &[set.to_owned()]).unwrap_err();
            assert!(
                error.starts_with("--set ") && error.contains(named) && error.lines().count() == 1,
                "{set}: {error}"
            );
        }
        assert!(
            Scenario::load(Some("nowhere.toml"), &[]).unwrap_err().contains("shipped are quick, hot-room")
        );
    }

    #[test]
    fn what_does_not_fit_is_named_before_any_load() {
        for (set, named) in [
            ("rooms.count=0", "rooms.count"),
            ("warm_up=10s", "warm_up"),
            ("rooms.sizes={ zipf = { exponent = nan } }", "rooms.sizes.zipf.exponent"),
            ("rooms.sizes={ zipf = { exponent = -3.0 } }", "rooms.sizes.zipf.exponent"),
            ("rooms.sizes={ lognormal = { sigma = 50.0 } }", "rooms.sizes.lognormal.sigma"),
            ("types.chat={ rate = 1, arrivals = { burst = { every = 0 } } }", "types.chat.arrivals"),
            ("habits.hop_share=0.5", "habits.hop_share"),
            ("types.chat.rate=0", "types.chat.rate"),
            ("types.coupon={ rate = 1, count = 5 }", "types.coupon"),
            ("types.chat={ rate = 1, from = 8, until = 3 }", "types.chat: from 8s until 3s"),
            ("storms=[{ at = 11, share = 0.5, back_within = 5 }]", "storms"),
            ("viewers.shape={ points = [[1, 0.5]] }", "viewers.shape"),
            ("viewers.shape={ ramp = { over = 11 } }", "viewers.shape"),
            ("payload={ median = 300, sigma = 9.0 }", "payload"),
        ] {
            let scenario = Scenario::load(None, &[set.to_owned()]).unwrap();
            let error = scenario.resolve(resolve("").unwrap().target).unwrap_err();
            assert!(error.contains(named) && error.lines().count() == 1, "{set}: {error}");
        }
    }

    #[test]
    fn reliable_types_share_a_schedule_and_keep_their_parts() {
        let sets = ["types.coupon={ rate = 3 }", "types.red_packet={ rate = 1 }"].map(str::to_owned);
        let plan = Scenario::load(None, &sets).unwrap().resolve(resolve("").unwrap().target).unwrap();
        let reliable = plan.reliable.unwrap();
        assert_eq!((reliable.schedule.rate_milli, reliable.schedule.messages), (4_000, 40));
        assert_eq!(reliable.types.names().collect::<Vec<_>>(), ["coupon", "red_packet"]);
        let unlike =
            ["types.coupon={ rate = 3 }", "types.red_packet={ rate = 1, from = 2 }"].map(str::to_owned);
        let error = Scenario::load(None, &unlike).unwrap().resolve(resolve("").unwrap().target).unwrap_err();
        assert!(error.contains("types.red_packet: reliable types share one schedule"), "{error}");
        let never = ["types.coupon={ rate = 3 }", "types.red_packet={ rate = 0 }"].map(str::to_owned);
        let error = Scenario::load(None, &never).unwrap().resolve(resolve("").unwrap().target).unwrap_err();
        assert!(error.contains("types.red_packet.rate"), "{error}");
    }

    #[test]
    fn shapes_become_points_above_the_witnesses() {
        let points = |flags: &str| {
            let plan = resolve(flags).unwrap();
            plan.audience.points.iter().map(|point| (point.at_ms, point.devices)).collect::<Vec<_>>()
        };
        assert_eq!(points("--devices 50"), [(0, 50)]);
        let raid = "--devices 500 --rooms 4 --seconds 30 --set viewers.shape={raid={at=5}}";
        assert_eq!(points(raid), [(0, 4), (5_000, 4), (15_000, 500)]);
        let spike = "--devices 500 --seconds 30 --set viewers.shape={spike={at=5,rise=2,hold=3,from=0.1}}";
        assert_eq!(points(spike), [(0, 50), (5_000, 50), (7_000, 500), (10_000, 500), (12_000, 50)]);
    }
}
