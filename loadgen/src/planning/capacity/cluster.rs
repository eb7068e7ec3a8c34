//! The answer of a plan for a cluster: NATS servers, links, rooms over several nodes, and a lost node. Pure.

use std::fmt;

use roomcast_core::cluster::SLOTS;
use roomcast_core::limits::{BEAT_INTERVAL, HOT_MEMBERS, NODES_MAX as OTHERS_MAX};
use serde::Serialize;

use super::links::{
    APPEND_S, APPENDS_PER_SERVER_CORE, BEAT_BYTES, BEAT_HEARD_BYTES, BEAT_SLOT_BYTES, ENTRY_BYTES, HOP_S,
    JOIN_ORDER_S, LOG_COPIES, LinkLoad, Messages, node_s, server_s,
};
use super::models::{Resources, wire_bytes};
use super::spread::{Placed, Site, Split, Whole};
use crate::planning::model::Features;
use crate::planning::model::cost::most;

/// NATS servers for three copies of the log.
const SERVERS_MIN: u64 = 3;
/// The time in which a device applies a reliable message, from its answer on (I2).
const COUPON_S: f64 = 3.0;

/// The NATS servers of a cluster. They are machines like the nodes, with the same part kept free.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct NatsNeed {
    servers: u64,
    /// Processors of all servers together.
    processors: f64,
    /// Frames, publishes, answers, joins, heartbeats, and records of the log.
    messages_per_s: f64,
    /// Bytes of these messages, each counted once.
    bytes_per_s: f64,
    /// Heartbeats that reach a node. Their number grows with the square of the nodes.
    heartbeats_per_s: f64,
    /// Reliable messages into the log.
    appends_per_s: f64,
}

/// The links of a cluster.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct LinksNeed {
    /// All nodes together.
    all: LinkLoad,
    /// Of the node that sends the most.
    node_sent_bytes_per_s: f64,
    /// Of the node that takes the most.
    node_taken_bytes_per_s: f64,
}

/// The loss of the node with the most devices.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct NodeLost {
    /// Devices that reconnect.
    devices: f64,
    /// The load of the lost node, as a part of the others' resources that are not in use; past 1 they are too few.
    /// The scarcest resource counts. `None`: there is no other node.
    reserve_share: Option<f64>,
    /// Slots that get a new home, on average.
    slots: f64,
    /// Rooms that get a new home, on average.
    rooms: f64,
}

/// The bounds of a hot room's home.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct HomeBounds {
    /// The part of a processor for the order of the room, its encode, and joins at other nodes. One shard does all.
    order_processors: f64,
    /// Messages a second at which the order takes a whole processor less the headroom. `None`: never.
    order_binds_at_per_s: Option<f64>,
    /// Nodes up to which a home can send each of them a frame of its own. Past them they have to share a subject.
    /// `None`: the room has no frames.
    nodes_by_subject: Option<f64>,
    /// The resource that binds there.
    nodes_bound_by: &'static str,
}

/// The time of a reliable message until the last device has it, each part at its longest in a healthy cluster
/// without other work.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CouponTime {
    /// From the publisher's door to the home.
    forward_s: f64,
    /// The record under way, and the own one.
    log_s: f64,
    /// From the home to the other nodes.
    link_s: f64,
    /// The pass under way, and the own one. The time of the processors or of the network counts, by the longer.
    pass_s: f64,
    /// The rest of [`COUPON_S`] behind the answer and the other parts, for the way to the device.
    left_s: f64,
}

/// Rooms over several nodes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct SpreadRooms {
    rooms: u32,
    viewers: u32,
    /// Nodes of each room, its home included.
    nodes: u32,
    home_viewers: u32,
    /// Viewers at the branch with the most.
    branch_viewers: u32,
    /// Frames from each home to other nodes.
    link_frames_per_s: f64,
    link_bytes_per_s: f64,
    home: HomeBounds,
    #[serde(skip_serializing_if = "Option::is_none")]
    coupon: Option<CouponTime>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ClusterAnswer {
    nats: NatsNeed,
    links: LinksNeed,
    node_lost: NodeLost,
    spread: Vec<SpreadRooms>,
    /// The most nodes of a cluster today, if the plan has more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) past_nodes_max: Option<usize>,
}

/// A plan's nodes, for the questions of a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cluster<'a> {
    pub(crate) site: Site<'a>,
    pub(crate) rooms: &'a [Whole],
    pub(crate) placed: &'a Placed,
    /// The resources of a node.
    pub(crate) node: Resources,
    /// The part of each resource that stays free.
    pub(crate) headroom: f64,
    pub(crate) reliable_per_s: f64,
}

impl Cluster<'_> {
    pub(crate) fn answer(&self) -> ClusterAnswer {
        let nodes = self.placed.nodes();
        let both = self.rooms.iter().zip(&self.placed.splits);
        let spread = both.filter_map(|(whole, split)| Some((whole, split.filter(|split| split.nodes > 1)?)));
        ClusterAnswer {
            nats: self.nats(),
            links: LinksNeed {
                all: self.placed.links(),
                node_sent_bytes_per_s: self.placed.busiest(|links| links.sent_bytes_per_s),
                node_taken_bytes_per_s: self.placed.busiest(|links| links.taken_bytes_per_s),
            },
            node_lost: self.node_lost(),
            spread: spread.map(|(whole, split)| self.spread(whole, &split)).collect(),
            past_nodes_max: Some(OTHERS_MAX + 1).filter(|most| nodes > *most),
        }
    }

    /// The part of a resource that is used.
    fn part(&self) -> f64 {
        1.0 - self.headroom
    }

    /// Nodes; at least one, since every room may be too large.
    fn nodes(&self) -> f64 {
        count(self.placed.nodes()).max(1.0)
    }

    fn nats(&self) -> NatsNeed {
        let nodes = self.nodes();
        let links = self.placed.links();
        // Each heartbeat goes to all nodes, its own included: the echo is the proof of a living connection.
        let slots = count(SLOTS) / nodes;
        let heard = nodes.min(count(OTHERS_MAX));
        let beats = Messages {
            per_s: nodes * nodes / BEAT_INTERVAL.as_secs_f64(),
            bytes: BEAT_BYTES + BEAT_SLOT_BYTES * slots + BEAT_HEARD_BYTES * heard,
        };
        let messages = self.rooms.iter().map(|whole| whole.payload_bytes).fold(0.0, f64::max);
        let records = Messages { per_s: LOG_COPIES * self.reliable_per_s, bytes: messages + ENTRY_BYTES };
        let processors = links.server_processors
            + beats.server_processors()
            + self.reliable_per_s / APPENDS_PER_SERVER_CORE;
        let messages_per_s =
            links.frames_per_s + links.calls_per_s + links.joins_per_s + beats.per_s + records.per_s;
        let bytes_per_s = links.bytes_per_s + beats.bytes_per_s() + records.bytes_per_s();
        // A message leaves the sender's server for that of the receiver, and that one for the receiver.
        let sent_bits_per_s = 2.0 * 8.0 * wire_bytes(messages_per_s, bytes_per_s);
        let most = (processors / self.node.processors).max(sent_bits_per_s / self.node.nic_bits_per_s);
        let servers = crate::figures::rounded((most / self.part()).ceil()).max(SERVERS_MIN);
        NatsNeed {
            servers,
            processors,
            messages_per_s,
            bytes_per_s,
            heartbeats_per_s: beats.per_s,
            appends_per_s: self.reliable_per_s,
        }
    }

    fn node_lost(&self) -> NodeLost {
        let nodes = &self.placed.packing.nodes;
        let room = self.site.room.parts();
        let has = self.node.parts();
        // The headroom is for this day.
        let unused = |left: [f64; 3], at: usize| left[at] + self.headroom * has[at];
        let all_unused: [f64; 3] =
            std::array::from_fn(|at| nodes.iter().map(|node| unused(node.left, at)).sum());
        let share = |left: [f64; 3]| {
            // Without headroom a full node leaves 0.
            let of_others = |at: usize| (all_unused[at] - unused(left, at)).max(1e-9);
            most((0..3).map(|at| (room[at] - left[at]) / of_others(at)))
        };
        let rooms: f64 = self.rooms.iter().map(|whole| f64::from(whole.rooms)).sum();
        NodeLost {
            devices: most(nodes.iter().map(|node| node.load.connections)),
            reserve_share: (nodes.len() > 1).then(|| most(nodes.iter().map(|node| share(node.left)))),
            slots: count(SLOTS) / self.nodes(),
            rooms: rooms / self.nodes(),
        }
    }

    fn spread(&self, whole: &Whole, split: &Split) -> SpreadRooms {
        let frames = Messages {
            per_s: f64::from(split.nodes - 1) * whole.load.flushes_per_s,
            bytes: whole.link_frame_bytes(),
        };
        SpreadRooms {
            rooms: whole.rooms,
            viewers: whole.members,
            nodes: split.nodes,
            home_viewers: split.home,
            branch_viewers: split.branch + u32::from(split.larger > 0),
            link_frames_per_s: frames.per_s,
            link_bytes_per_s: frames.bytes_per_s(),
            home: self.bounds(whole, split),
            coupon: (self.reliable_per_s > 0.0).then(|| self.coupon(whole, split)),
        }
    }

    /// The bounds of a home without members of its own.
    fn bounds(&self, whole: &Whole, split: &Split) -> HomeBounds {
        let cpu = &self.site.models.cpu;
        let cost = |load: &Features| cpu.at(load) - cpu.at(&Features::default());
        let order = whole.of_order();
        let Features { flushes_per_s, messages_per_s, .. } = order;
        let for_flushes = cost(&Features { flushes_per_s, ..Features::default() });
        let for_messages = cost(&order) - for_flushes;
        let for_joins = JOIN_ORDER_S * whole.of_members(f64::from(whole.members - split.home)).joins_per_s;
        let left = (self.part() - for_flushes - for_joins).max(0.0);
        // The nodes that fill each resource with a frame for each flush.
        let bytes = whole.link_frame_bytes();
        let nodes_of =
            |for_each_s: f64| 1.0 + self.part() / (flushes_per_s * for_each_s).max(f64::MIN_POSITIVE);
        let bounds = [
            ("the home's thread for links", nodes_of(node_s(bytes))),
            ("a core of the home's NATS server", nodes_of(server_s(bytes))),
            ("the home's network", nodes_of(8.0 * wire_bytes(1.0, bytes) / self.node.nic_bits_per_s)),
        ];
        let (nodes_bound_by, nodes_by_subject) =
            bounds.into_iter().min_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or_default();
        HomeBounds {
            order_processors: for_flushes + for_messages + for_joins,
            order_binds_at_per_s: (for_messages > 0.0).then(|| messages_per_s * left / for_messages),
            nodes_by_subject: (flushes_per_s > 0.0).then(|| nodes_by_subject.floor()),
            nodes_bound_by,
        }
    }

    fn coupon(&self, whole: &Whole, split: &Split) -> CouponTime {
        let models = self.site.models;
        let members = split.members_max();
        let flushes_per_s = whole.load.flushes_per_s.max(f64::MIN_POSITIVE);
        let Features { frames_per_s, deliveries_per_s, bytes_per_s, .. } =
            whole.of_members(f64::from(members));
        let a_flush = Features { frames_per_s, deliveries_per_s, bytes_per_s, ..Features::default() };
        let a_flush = a_flush.with(Features::default(), |all, _| all / flushes_per_s);
        let with_own = models.need(&a_flush, self.site.processors);
        let own = models.need(&Features::default(), self.site.processors);
        // A room is on a shard for each begun `shards.hot_members`.
        let hot = count(usize::try_from(HOT_MEMBERS).unwrap_or(usize::MAX));
        let shards = (f64::from(members) / hot).ceil().clamp(1.0, self.site.processors.max(1.0));
        let on_shards_s = (with_own.processors - own.processors) / shards;
        let on_network_s = with_own.nic_bits_per_s / self.node.nic_bits_per_s;
        let pass_s = 2.0 * on_shards_s.max(on_network_s);
        CouponTime {
            forward_s: HOP_S,
            log_s: 2.0 * APPEND_S,
            link_s: HOP_S,
            pass_s,
            // The answer stands once the record is durable.
            left_s: COUPON_S - HOP_S - pass_s,
        }
    }
}

/// A number of nodes or slots.
fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

impl fmt::Display for SpreadRooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rooms, viewers, nodes, home_viewers, branch_viewers, home, coupon, .. } = self;
        let each = if *rooms == 1 { "" } else { " each" };
        writeln!(
            f,
            "spread       {rooms} {} with {viewers} devices over {nodes} nodes{each}: {home_viewers} at the home, up \
             to {branch_viewers} at each other node; the home sends {:.0} frames/s, {:.2} MB/s",
            if *rooms == 1 { "room" } else { "rooms" },
            self.link_frames_per_s,
            self.link_bytes_per_s / 1e6
        )?;
        let HomeBounds { order_processors, order_binds_at_per_s, nodes_by_subject, nodes_bound_by } = home;
        write!(f, "  its home   order and encode take {order_processors:.3} of one processor")?;
        if let Some(binds_at) = order_binds_at_per_s {
            write!(f, ", and bind at {binds_at:.0} messages/s")?;
        }
        if let Some(nodes) = nodes_by_subject {
            write!(f, "; a subject for each node holds up to {nodes:.0} nodes, then {nodes_bound_by} binds")?;
        }
        writeln!(f)?;
        let Some(CouponTime { forward_s, log_s, link_s, pass_s, left_s }) = coupon else { return Ok(()) };
        let [forward, log, link, pass] = [forward_s, log_s, link_s, pass_s].map(|seconds| 1e3 * seconds);
        writeln!(
            f,
            "  a coupon   {forward:.1} ms to the home, {log:.1} ms into the log; from the answer on {link:.1} ms to \
             the other nodes, {pass:.0} ms for the pass under way and its own, which leaves {left_s:.2} of \
             {COUPON_S:.0} s for the way to the device"
        )
    }
}

impl fmt::Display for ClusterAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NatsNeed { servers, processors, messages_per_s, bytes_per_s, heartbeats_per_s, appends_per_s } =
            self.nats;
        writeln!(
            f,
            "NATS         {servers} servers, {processors:.2} processors in all; {messages_per_s:.0} messages/s, {:.2} \
             MB/s ({heartbeats_per_s:.0} heartbeats/s; {appends_per_s:.1} reliable messages/s into the log)",
            bytes_per_s / 1e6
        )?;
        let LinksNeed { all, node_sent_bytes_per_s, node_taken_bytes_per_s } = self.links;
        writeln!(
            f,
            "links        {:.0} frames/s, {:.0} publishes and answers/s, {:.0} messages with joins/s, {:.2} MB/s; the \
             busiest node sends {:.2} MB/s, and takes {:.2} MB/s",
            all.frames_per_s,
            all.calls_per_s,
            all.joins_per_s,
            all.bytes_per_s / 1e6,
            node_sent_bytes_per_s / 1e6,
            node_taken_bytes_per_s / 1e6
        )?;
        self.spread.iter().try_for_each(|spread| spread.fmt(f))?;
        let NodeLost { devices, reserve_share, slots, rooms } = self.node_lost;
        let reserve = reserve_share.map_or_else(
            || "there is no other node".to_owned(),
            |share| format!("they take {:.0} % of the others' reserve", 100.0 * share),
        );
        writeln!(
            f,
            "lost node    {devices:.0} devices reconnect, {reserve}; on average {slots:.1} slots and {rooms:.1} rooms \
             get a new home"
        )?;
        if let Some(most) = self.past_nodes_max {
            writeln!(f, "TOO MANY     a cluster has at most {most} nodes today")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planning::capacity::answer::PlanAnswer;
    use crate::planning::capacity::answer::tests::{demand, models};
    use crate::planning::capacity::spread::tests::{ROOM, heavy};

    /// A node whose 10 processors are what `ROOM` keeps of it.
    const NODE: Resources = Resources { processors: 12.5, memory_bytes: 2e12, nic_bits_per_s: 2e15 };

    fn answer(rooms: &[Whole], reliable_per_s: f64) -> ClusterAnswer {
        let models = models();
        let site = Site { models: &models, processors: 10.0, room: ROOM, nodes: 1 };
        let placed = site.place(rooms).unwrap();
        let headroom = 0.2;
        Cluster { site, rooms, placed: &placed, node: NODE, headroom, reliable_per_s }.answer()
    }

    fn plan(rooms: &str, node: &str) -> PlanAnswer {
        let mut demand = demand(rooms, node);
        demand.is_cluster = true;
        PlanAnswer::of(models(), demand).unwrap()
    }

    #[test]
    fn a_room_past_a_node_is_spread_and_the_plan_without_the_flag_is_as_it_was() {
        let rooms = "1:500k,10:1000";
        let node = "4c,64g,10gbit";
        let alone = PlanAnswer::of(models(), demand(rooms, node)).unwrap();
        let told = serde_json::to_value(&alone).unwrap();
        assert!(told.get("cluster").is_none() && told["demand"].get("is_cluster").is_none(), "{told}");
        assert!(!alone.is_possible() && !alone.to_string().contains("NATS"), "{alone}");
        let together = plan(rooms, node);
        assert!(together.is_possible() && together.nodes > 2, "{together}");
        let told = serde_json::to_value(&together).unwrap();
        let spread = &told["cluster"]["spread"];
        assert_eq!((&spread[0]["viewers"], spread[1].is_null()), (&500_000.into(), true), "{spread}");
        for said in
            ["spread       1 room with 500000 devices over ", "lost node    ", "µs of processor, half at"]
        {
            assert!(together.to_string().contains(said), "{said}: {together}");
        }
    }

    #[test]
    fn rooms_that_fit_a_node_need_the_same_nodes_with_a_link_or_without() {
        let alone = PlanAnswer::of(models(), demand("20:100", "4c,64g,10gbit")).unwrap();
        let together = plan("20:100", "4c,64g,10gbit");
        assert_eq!((alone.nodes, together.nodes), (1, 1));
        let cluster = together.cluster.unwrap();
        assert_eq!(cluster.links.all, LinkLoad::default(), "a lone node has no link");
        assert_eq!((cluster.nats.servers, cluster.node_lost.reserve_share), (3, None));
        // Its own heartbeats come back, twice a second.
        assert_eq!((cluster.nats.messages_per_s, cluster.nats.heartbeats_per_s), (2.0, 2.0));
    }

    #[test]
    fn too_many_nodes_are_told_and_no_success() {
        let many = plan("500:30k", "4c,64g,10gbit");
        assert!(many.nodes > 65, "{many}");
        assert!(
            !many.is_possible() && many.to_string().contains("TOO MANY     a cluster has at most 65 nodes")
        );
        assert!(many.to_string().contains("lost node"), "the figures stand all the same");
    }

    #[test]
    fn a_lost_node_takes_its_part_of_the_others_reserve() {
        // Two nodes with 7 processors for members, 2 for the order, and 20 000 publishes from the other door.
        let lost = answer(&[Whole { rooms: 2, ..heavy(7_000) }], 0.0).node_lost;
        assert_eq!((lost.devices, lost.slots, lost.rooms), (7_000.0, 128.0, 1.0));
        let used = 7.0 + 2.0 + 20_000.0 * 20e-6;
        // Without the kept part the other node has 12.5 processors, in place of 10.
        let share = used / (12.5 - used);
        assert!((lost.reserve_share.unwrap() / share - 1.0).abs() < 1e-3, "{lost:?} for {share}");
    }

    #[test]
    fn a_home_is_bound_by_the_server_at_large_frames_and_by_its_order_at_many_messages() {
        let load = Features {
            connections: 300_000.0,
            rooms: 1.0,
            publishes_per_s: 1_000.0,
            messages_per_s: 1_000.0,
            frames_per_s: 3_000_000.0,
            bytes_per_s: 3_000_000.0 * 25_900.0,
            flushes_per_s: 10.0,
            ..Features::default()
        };
        let whole = Whole { rooms: 1, members: 300_000, load, payload_bytes: 300.0 };
        let spread = answer(&[whole], 0.0).spread[0];
        // 0.8 of a core, 10 frames of 43.5 µs a second for each node.
        assert_eq!(spread.home.nodes_by_subject, Some(1.0 + (0.8_f64 * 23_000.0 / 10.0).floor()));
        assert_eq!(spread.home.nodes_bound_by, "a core of the home's NATS server");
        // 50 µs for each publish: 0.8 of a processor are 16 000.
        assert!((spread.home.order_processors - 0.05).abs() < 1e-4, "{spread:?}");
        assert!((spread.home.order_binds_at_per_s.unwrap() / 16_000.0 - 1.0).abs() < 1e-2, "{spread:?}");
        assert!(spread.coupon.is_none(), "no reliable message is asked for");
        assert!((spread.link_bytes_per_s - spread.link_frames_per_s * 26_000.0).abs() < 1e-3);
        assert_eq!(spread.link_frames_per_s, 10.0 * f64::from(spread.nodes - 1));
    }

    #[test]
    fn a_coupon_waits_for_two_records_and_two_passes() {
        let spread = answer(&[heavy(25_000)], 1.0).spread[0];
        let coupon = spread.coupon.unwrap();
        assert_eq!((coupon.forward_s, coupon.log_s, coupon.link_s), (160e-6, 2.8e-3, 160e-6));
        // The largest part has 8 867 devices on five shards, and a frame is 4 µs, 24.95 thousandths of a flush each.
        let pass = f64::from(spread.branch_viewers) * 0.02495 * 4e-6 / 5.0;
        assert!((coupon.pass_s / (2.0 * pass) - 1.0).abs() < 1e-3, "{coupon:?} for {pass}");
        assert!((coupon.left_s - (3.0 - coupon.link_s - coupon.pass_s)).abs() < 1e-12);
    }

    #[test]
    fn the_log_and_the_heartbeats_are_work_of_the_servers() {
        let [none, some] = [0.0, 4_000.0].map(|reliable| answer(&[heavy(1_000)], reliable).nats);
        assert!((some.processors - none.processors - 0.2).abs() < 1e-9, "20 000 a second and core");
        assert!((some.messages_per_s - none.messages_per_s - 12_000.0).abs() < 1e-6, "three copies");
        let nodes = answer(&[Whole { rooms: 10, ..heavy(7_000) }], 0.0).nats;
        assert_eq!(nodes.heartbeats_per_s, 200.0, "ten nodes hear ten, twice a second");
    }
}
