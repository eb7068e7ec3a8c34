//! The plan: from rooms to loads, from loads to nodes, with the basis and the assumptions of the answer.

use std::fmt;

use chrono::{DateTime, NaiveDate};
use serde::Serialize;

use super::asked::{AskedTraffic, Size};
use super::cluster::{Cluster, ClusterAnswer};
use super::links::{LinkLoad, link_assumes};
use super::models::{Models, Origin, Resources, SEGMENT_BYTES, SEGMENT_PAYLOAD_BYTES};
use super::packing::{Alike, Packing, pack};
use super::spread::{Site, Whole};
use super::{Beyond, beyond, past};
use crate::planning::model::Features;
use crate::planning::model::cost::Linear;
use crate::planning::model::flushes::PublishRhythm;
use crate::planning::model::usl::{Basis, Usl};
use crate::scenario::shape::RunShape;

/// A model that explains less of the variance is called unreliable.
const TELLING: f64 = 0.9;

/// The question of a plan.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Demand {
    pub(crate) sizes: Vec<Size>,
    #[serde(flatten)]
    pub(crate) traffic: AskedTraffic,
    pub(crate) node: Resources,
    /// Part of each resource to keep free.
    pub(crate) headroom: f64,
    /// True: rooms may be on several nodes. The answer has `cluster` exactly then.
    #[serde(skip)]
    pub(crate) is_cluster: bool,
}

/// Rooms that no node carries. Of a cluster: whose home alone no node carries.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TooLarge {
    pub(crate) rooms: u32,
    pub(crate) viewers: u32,
    /// Need of each room on a single node.
    need: Resources,
    /// Nodes that each room would fill, if a room could be spread over nodes.
    nodes_if_spread: f64,
}

/// The used part of each resource, from 0 to 1, for a load spread evenly over `nodes`.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ResourceUse {
    nodes: usize,
    taken: [f64; 3],
}

/// The fate of the rooms after the loss of a node, packed again without headroom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum OneLost {
    /// The rooms fit the other nodes, each room whole.
    Carried,
    /// The packing found no place for some room.
    NotCarried,
    /// The plan has a single node.
    NoOther,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct PlanAnswer {
    pub(crate) models: Models,
    demand: Demand,
    /// The load of all rooms that fit a node.
    load: Features,
    /// The need of all nodes together, the own need of each node included.
    need: Resources,
    pub(super) nodes: usize,
    /// The resource that decides the number of nodes.
    pub(super) binding: &'static str,
    /// For a node less, this number of nodes, and a node more.
    uses: Vec<ResourceUse>,
    one_lost: OneLost,
    /// NATS servers, links, rooms over several nodes, and a lost node. `None`: without --cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<ClusterAnswer>,
    pub(crate) too_large: Vec<TooLarge>,
    /// Distances from the measured range, of the largest value on any node.
    pub(crate) beyond: Vec<Beyond>,
    /// The largest of the distances, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) past: Option<String>,
    /// The conditions for a right answer, a line each.
    assumes: Vec<String>,
}

impl Demand {
    fn viewers(&self) -> f64 {
        self.sizes.iter().map(Size::devices).sum()
    }

    /// Devices of a room of each size.
    fn members(&self) -> Vec<f64> {
        self.sizes.iter().map(|size| f64::from(size.viewers)).collect()
    }

    /// The load of a single room of a size.
    fn load(&self, size: &Size, models: &Models) -> Result<Features, String> {
        let AskedTraffic { chat_rate, reliable_rate, payload_bytes, messages_per_request, encoding, .. } =
            self.traffic;
        let shape = RunShape {
            devices: size.viewers,
            rooms: 1,
            rate: size.rate.unwrap_or(chat_rate),
            payload_bytes,
            messages_per_request,
            reliable_rate,
            reconnect_share: 0.0,
            encoding,
        };
        let joins_per_s = self.traffic.joins_per_second * f64::from(size.viewers) / self.viewers();
        models.flushes.features(&shape, joins_per_s, PublishRhythm::Poisson)
    }
}

impl PlanAnswer {
    /// Fails for an encoding without a row, and for too many nodes.
    pub(crate) fn of(models: Models, demand: Demand) -> Result<Self, String> {
        let processors = demand.node.processors;
        let has = demand.node.parts();
        // The need of a node without a load. Rooms share the rest.
        let own = models.need(&Features::default(), processors).parts();
        let left = |part: f64| Resources::of(std::array::from_fn(|at| (has[at] * part - own[at]).max(0.0)));
        let room = left(1.0 - demand.headroom);
        let alike = |size: &Size| {
            let load = demand.load(size, &models)?;
            let need = models.need(&load, processors).parts();
            let need = Resources::of(std::array::from_fn(|at| need[at] - own[at]));
            Ok(Alike { rooms: size.rooms, load, need, links: LinkLoad::default() })
        };
        let sizes: Vec<Alike> = demand.sizes.iter().map(alike).collect::<Result<_, String>>()?;
        let placing = if demand.is_cluster {
            Placing::over_nodes(&models, &demand, &sizes, room, left(1.0))?
        } else {
            Placing::whole(&sizes, room, left(1.0))?
        };
        let Placing { packing, too_large: too_large_sizes, one_lost, cluster } = placing;
        let too_large = too_large_sizes.iter().map(|at| TooLarge {
            rooms: sizes[*at].rooms,
            viewers: demand.sizes[*at].viewers,
            need: sizes[*at].need,
            nodes_if_spread: sizes[*at].need.share_of(room).ceil(),
        });
        let too_large: Vec<TooLarge> = too_large.collect();
        let loads: Vec<Features> = packing.nodes.iter().map(|node| node.load).collect();
        let load = loads.iter().fold(Features::default(), |all, load| all.with(*load, |all, one| all + one));
        let nodes = packing.nodes.len();
        let links = packing.nodes.iter().fold(LinkLoad::default(), |all, node| all.with(node.links, 1.0));
        let links = [links.processors, 0.0, links.nic_bits_per_s];
        let with_own = models.need(&load, processors).parts();
        let with_own: [f64; 3] = std::array::from_fn(|at| with_own[at] + links[at]);
        // There is no node at all once every room is too large.
        let count = |nodes: usize| f64::from(u32::try_from(nodes).unwrap_or(u32::MAX)).max(1.0);
        let used = |nodes: usize| {
            let taken = |at: usize| ((with_own[at] - own[at]) / count(nodes) + own[at]) / has[at];
            ResourceUse { nodes, taken: std::array::from_fn(taken) }
        };
        let now = used(nodes);
        let binding = (0..3).max_by(|one, other| now.taken[*one].total_cmp(&now.taken[*other])).unwrap_or(0);
        let need = std::array::from_fn(|at| with_own[at] + (count(nodes) - 1.0) * own[at]);
        // A room too large for a node is a prediction, too, so its distance from the measured range counts.
        let oversize = too_large_sizes.iter().map(|at| sizes[*at].load);
        let most = loads.iter().copied().chain(oversize);
        let most = most.fold(Features::default(), |most, load| most.with(load, f64::max));
        let beyond = beyond(&models, &most);
        let mut assumes = assumes(&models, &demand.members(), PublishRhythm::Poisson);
        assumes.extend(cluster.iter().flat_map(|_| link_assumes()));
        Ok(Self {
            load,
            need: Resources::of(need),
            nodes,
            binding: Resources::NAMES[binding],
            uses: (nodes.saturating_sub(1).max(1)..=nodes + 1).map(used).collect(),
            one_lost,
            cluster,
            too_large,
            past: far(&models, demand.node, &beyond),
            beyond,
            assumes,
            models,
            demand,
        })
    }

    /// True: the nodes carry all rooms, and a cluster may have as many.
    pub(super) fn is_possible(&self) -> bool {
        let past = self.cluster.as_ref().and_then(|cluster| cluster.past_nodes_max);
        self.too_large.is_empty() && past.is_none()
    }
}

/// The rooms on nodes. Each node gives `room` to rooms, and after the loss of a node `all_room`.
struct Placing {
    packing: Packing,
    /// Indexes of the sizes that no node carries.
    too_large: Vec<usize>,
    one_lost: OneLost,
    cluster: Option<ClusterAnswer>,
}

impl Placing {
    /// Each room on a single node.
    fn whole(sizes: &[Alike], room: Resources, all_room: Resources) -> Result<Self, String> {
        let packing = pack(sizes, room)?;
        let one_lost = one_lost(sizes, &packing, all_room)?;
        Ok(Self { too_large: packing.too_large.clone(), packing, one_lost, cluster: None })
    }

    /// Each room on as many nodes as it needs.
    fn over_nodes(
        models: &Models,
        demand: &Demand,
        sizes: &[Alike],
        room: Resources,
        all_room: Resources,
    ) -> Result<Self, String> {
        #[expect(clippy::cast_precision_loss, reason = "a payload is below 64 KiB")]
        let payload_bytes = demand.traffic.payload_bytes as f64;
        let whole = |(alike, size): (&Alike, &Size)| Whole {
            rooms: size.rooms,
            members: size.viewers,
            load: alike.load,
            payload_bytes,
        };
        let rooms: Vec<Whole> = sizes.iter().zip(&demand.sizes).map(whole).collect();
        let site = Site { models, processors: demand.node.processors, room, nodes: 1 };
        let placed = site.place(&rooms)?;
        let all_rooms: f64 = demand.sizes.iter().map(|size| f64::from(size.rooms)).sum();
        let cluster = Cluster {
            site,
            rooms: &rooms,
            placed: &placed,
            node: demand.node,
            headroom: demand.headroom,
            reliable_per_s: demand.traffic.reliable_rate * all_rooms,
        };
        let cluster = Some(cluster.answer());
        let (on_nodes, too_large): (Vec<usize>, Vec<usize>) =
            (0..sizes.len()).partition(|at| placed.splits[*at].is_some());
        let on_nodes: Vec<Whole> = on_nodes.into_iter().map(|at| rooms[at]).collect();
        let one_lost = match placed.nodes() {
            0 | 1 => OneLost::NoOther,
            // Members of a lost node spread over the others, so the rooms are spread anew.
            nodes if Site { room: all_room, ..site }.place(&on_nodes)?.nodes() < nodes => OneLost::Carried,
            _ => OneLost::NotCarried,
        };
        Ok(Self { packing: placed.packing, too_large, one_lost, cluster })
    }
}

/// Packs the rooms again on nodes with `room` each. A sum over all nodes would not do: an evenly spread load
/// fits sooner than whole rooms.
fn one_lost(sizes: &[Alike], packing: &Packing, room: Resources) -> Result<OneLost, String> {
    let nodes = packing.nodes.len();
    if nodes <= 1 {
        return Ok(OneLost::NoOther);
    }
    // Rooms too large for a node are on no node before the loss either.
    let placed = |place: &usize| !packing.too_large.contains(place);
    let placed: Vec<Alike> = (0..sizes.len()).filter(placed).map(|place| sizes[place]).collect();
    let again = pack(&placed, room)?;
    Ok(if again.nodes.len() < nodes { OneLost::Carried } else { OneLost::NotCarried })
}

/// The distance from the measured range, in words: by the features, and by processors without a given law.
fn far(models: &Models, node: Resources, beyond: &[Beyond]) -> Option<String> {
    let times = node.processors / models.processors;
    let processors = (times > 1.0 && models.usl_basis != Basis::Given)
        .then(|| format!("processors {times:.1} × the most measured"));
    let all: Vec<String> = past(beyond).into_iter().chain(processors).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// The assumptions of an answer about rooms with `members` devices.
pub(crate) fn assumes(models: &Models, members: &[f64], arrivals: PublishRhythm) -> Vec<String> {
    let mut all = vec![
        match arrivals {
            PublishRhythm::Poisson => {
                "messages arrive by chance, as people write (a Poisson process)".to_owned()
            }
            PublishRhythm::Steady => "messages arrive at even distances, as `run` publishes them".to_owned(),
        },
        format!(
            "TCP segments carry up to {SEGMENT_PAYLOAD_BYTES:.0} bytes beside {SEGMENT_BYTES:.0} bytes of headers \
             (an MTU of 1500 bytes)"
        ),
    ];
    if models.socket_bytes_per_connection.is_some() {
        all.push(
            "the kernel's buffers were measured for both ends of each connection on one machine; a node alone \
             needs less"
                .to_owned(),
        );
    }
    all.push(
        "the kernel's own structures, some KiB for each connection, are left out; only its buffers count"
            .to_owned(),
    );
    if models.memory.r_squared < TELLING {
        all.push(format!(
            "the memory figure is unreliable: the model explains {:.0} % of the variance, because a node keeps \
             memory of earlier points",
            100.0 * models.memory.r_squared.max(0.0)
        ));
    }
    let flushes = &models.flushes;
    for members in members {
        let other = flushes.nearest(*members).filter(|kind| kind.distance(*members) > 1.0);
        all.extend(other.map(|kind| {
            format!("rooms of {members:.0} devices gather like {}, the nearest measured size", kind.rooms())
        }));
    }
    // An uncertain window of a kind that no asked room uses does not matter.
    for kind in flushes.kinds.iter().filter(|kind| kind.is_vague()) {
        let used = |members: &f64| flushes.nearest(*members).is_some_and(|nearest| nearest == kind);
        if members.iter().any(used) {
            all.push(format!(
                "{} gather for {:.1} ms; this is uncertain, because {} fit the rows as well",
                kind.rooms(),
                kind.window_s * 1_000.0,
                kind.range()
            ));
        }
    }
    all
}

pub(crate) fn write_assumes(f: &mut fmt::Formatter<'_>, assumes: &[String]) -> fmt::Result {
    assumes.iter().try_for_each(|line| writeln!(f, "assumes      {line}"))
}

/// A figure with three or more digits, from nanoseconds to thousands.
pub(crate) fn digits(figure: f64) -> String {
    match figure {
        0.0 => "0".into(),
        size if size >= 1_000.0 => format!("{size:.0}"),
        size if size >= 1.0 => format!("{size:.2}"),
        size if size >= 0.001 => format!("{size:.5}"),
        size => format!("{size:.2e}"),
    }
}

/// The day in UTC.
fn day(unix_ms: u64) -> NaiveDate {
    let time = i64::try_from(unix_ms).ok().and_then(DateTime::from_timestamp_millis);
    time.unwrap_or_default().date_naive()
}

/// Writes the basis of an answer: sweeps, models and windows.
pub(crate) fn write_models(f: &mut fmt::Formatter<'_>, models: &Models) -> fmt::Result {
    for Origin { file, started_unix_ms, processors, rows, rows_used, environment } in &models.origins {
        let day = day(*started_unix_ms);
        writeln!(
            f,
            "based on     {file}: {rows_used} of {rows} rows, a node with {processors} processors, measured on {day} \
             on a machine with {}, kernel {}",
            environment.processor, environment.kernel
        )?;
    }
    write_terms(f, "processors", 1e6, "µs", &models.cpu)?;
    write!(f, "              off, row by row, in %:")?;
    for residual in &models.cpu.residuals {
        write!(f, " {:+.0}", 100.0 * residual)?;
    }
    writeln!(f)?;
    write_terms(f, "memory", 1.0 / 1024.0, "KiB", &models.memory)?;
    let sockets = models.socket_bytes_per_connection.map_or_else(
        || "not measured: the answer leaves out the kernel's memory for sockets".to_owned(),
        |bytes| format!("{bytes:.0} bytes of kernel buffers for each connection"),
    );
    writeln!(f, "sockets      {sockets}")?;
    for kind in &models.flushes.kinds {
        writeln!(
            f,
            "flushes      {} gather for {:.1} ms ({} fit as well{}; rows: {})",
            kind.rooms(),
            kind.window_s * 1_000.0,
            kind.range(),
            if kind.is_vague() { ", so this is uncertain" } else { "" },
            kind.rows
        )?;
    }
    write_scaling(f, models)
}

/// The terms, each coefficient times `scale` in `unit`, and the errors of the fit.
fn write_terms(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    scale: f64,
    unit: &str,
    linear: &Linear,
) -> fmt::Result {
    write!(f, "{name:<12}")?;
    for term in &linear.terms {
        write!(f, " {} {} {unit};", term.name, digits(term.coefficient * scale))?;
    }
    writeln!(f)?;
    let [own, rms, most] =
        [linear.residual_max, linear.left_out_rms, linear.left_out_max].map(|off| 100.0 * off);
    writeln!(
        f,
        "              R² {:.4}; at most {own:.1} % off its own rows; rows left out of the fit: {rms:.1} % off \
         (root mean square), {most:.1} % at most; condition number {:.1}",
        linear.r_squared, linear.condition_number
    )
}

fn write_scaling(f: &mut fmt::Formatter<'_>, models: &Models) -> fmt::Result {
    let Models { usl: Usl { sigma, kappa }, processors, .. } = models;
    let law = format!("σ = {sigma:.4}, κ = {kappa:.6}");
    let scaling = match models.usl_basis {
        Basis::Fitted => format!("{law}, from sweeps with several numbers of processors"),
        Basis::FittedWithoutKappa => format!("{law}, from two numbers of processors; κ is assumed to be 0"),
        Basis::Given => format!("{law}, from --usl, not measured"),
        Basis::AssumedLinear => format!(
            "assumed linear: measured on {processors} processors only; add sweeps with other numbers of processors, or \
             --usl"
        ),
    };
    writeln!(f, "scaling      {scaling}")?;
    models.not_in_usl.iter().try_for_each(|why| writeln!(f, "scaling      leaves out the sweep with {why}"))
}

impl fmt::Display for PlanAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_models(f, &self.models)?;
        let rooms: f64 = self.demand.sizes.iter().map(|size| f64::from(size.rooms)).sum();
        writeln!(f, "asked        {:.0} viewers in {rooms:.0} rooms", self.demand.viewers())?;
        writeln!(f, "features     {:>14} {:>16} {:>13}", "all nodes", "fullest node", "/ largest row")?;
        for beyond in &self.beyond {
            let column = Features::COLUMNS.iter().find(|column| column.name == beyond.feature);
            let all = column.map_or(0.0, |column| (column.of)(&self.load));
            let times = beyond.times.unwrap_or(0.0);
            let past = if times > 1.0 { "  past the measured range" } else { "" };
            writeln!(f, "  {:<12} {all:>12.0} {:>16.0} {times:>13.2}{past}", beyond.feature, beyond.asked)?;
        }
        let Resources { processors, memory_bytes, nic_bits_per_s } = self.demand.node;
        let gib = f64::from(1 << 30);
        writeln!(
            f,
            "need         {:.1} processors, {:.1} GiB, {:.2} Gbit/s; each node has {processors} processors, \
             {:.0} GiB, {} Gbit/s, of which {:.0} % stay free",
            self.need.processors,
            self.need.memory_bytes / gib,
            self.need.nic_bits_per_s / 1e9,
            memory_bytes / gib,
            nic_bits_per_s / 1e9,
            100.0 * self.demand.headroom
        )?;
        writeln!(f, "nodes        {} (the scarcest resource: {})", self.nodes, self.binding)?;
        for used in &self.uses {
            write!(f, "  with {:>5}  ", used.nodes)?;
            for (name, taken) in Resources::NAMES.iter().zip(used.taken) {
                write!(f, "  {name} {:>3.0} %", 100.0 * taken)?;
            }
            f.write_str(match self.one_lost {
                _ if used.nodes >= self.nodes => "\n",
                OneLost::Carried => "  after the loss of a node: all rooms fit\n",
                OneLost::NotCarried => "  after the loss of a node: the rooms do NOT all fit\n",
                OneLost::NoOther => "\n",
            })?;
        }
        if self.one_lost == OneLost::NoOther {
            writeln!(f, "              after the loss of the node: no other node carries its rooms")?;
        }
        for TooLarge { rooms, viewers, need, nodes_if_spread } in &self.too_large {
            let Resources { processors, memory_bytes, nic_bits_per_s } = need;
            write!(
                f,
                "TOO LARGE    {rooms} {} with {viewers} devices: {processors:.1} processors, {:.1} GiB and {:.2} \
                 Gbit/s each, more than a node can give. ",
                if *rooms == 1 { "room" } else { "rooms" },
                memory_bytes / gib,
                nic_bits_per_s / 1e9
            )?;
            match self.cluster {
                None => {
                    write!(
                        f,
                        "A room is on a single node; spread over nodes it would fill {nodes_if_spread:.0}"
                    )
                }
                Some(_) => {
                    write!(f, "No number of nodes is enough: the order and the links of its home fill a node")
                }
            }?;
            writeln!(f, ". The figures above leave out such rooms")?;
        }
        self.cluster.iter().try_for_each(|cluster| cluster.fmt(f))?;
        write_assumes(f, &self.assumes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::planning::capacity::asked::AskedRooms;
    use crate::planning::capacity::models::tests::sweep;
    use crate::planning::capacity::{allowed, allowed_processors};
    use crate::run::args::typed;

    pub(crate) fn demand(rooms: &str, node: &str) -> Demand {
        Demand {
            sizes: rooms.parse::<AskedRooms>().unwrap().sizes(None).unwrap(),
            traffic: typed("--chat-rate 5").unwrap(),
            node: node.parse().unwrap(),
            headroom: 0.3,
            is_cluster: false,
        }
    }

    pub(crate) fn models() -> Models {
        Models::fit(&[sweep(1, Usl::default())], None).unwrap()
    }

    #[test]
    fn what_is_asked_within_what_was_measured_is_answered() {
        let answer = PlanAnswer::of(models(), demand("2:1000,10:50:0.5", "1c,1g,1gbit")).unwrap();
        assert_eq!((answer.nodes, answer.binding), (1, "processors"));
        allowed(&answer.beyond, &answer.models, false).unwrap();
        assert!(answer.to_string().contains("assumed linear: measured on 1 processors only"));
    }

    #[test]
    fn what_is_past_it_has_to_be_asked_for_and_what_nobody_measured_is_not_told() {
        let answer = PlanAnswer::of(models(), demand("40:1000", "16c,64g,10gbit")).unwrap();
        let refused = allowed(&answer.beyond, &answer.models, false).unwrap_err();
        assert!(
            refused.contains("times the largest measured") && refused.contains("--devices-max"),
            "{refused}"
        );
        allowed(&answer.beyond, &answer.models, true).unwrap();
        assert!(answer.to_string().contains("past the measured range"));
        let mut reliable = demand("1:100", "1c,1g,1gbit");
        reliable.traffic.reliable_rate = 1.0;
        let answer = PlanAnswer::of(models(), reliable).unwrap();
        let refused = allowed(&answer.beyond, &answer.models, true).unwrap_err();
        assert!(refused.contains("acks/s"), "{refused}");
    }

    #[test]
    fn more_processors_than_were_measured_have_to_be_asked_for_or_the_law_given() {
        let node = |text: &str| text.parse::<Resources>().unwrap();
        let refused = allowed_processors(&models(), node("4c,1g,1gbit"), false).unwrap_err();
        assert!(refused.contains("4 processors are 4.0 times the most measured (1)"), "{refused}");
        allowed_processors(&models(), node("1c,1g,1gbit"), false).unwrap();
        allowed_processors(&models(), node("4c,1g,1gbit"), true).unwrap();
        let given = Models::fit(&[sweep(1, Usl::default())], Some(Usl { sigma: 0.1, kappa: 0.0 })).unwrap();
        allowed_processors(&given, node("4c,1g,1gbit"), false).unwrap();
    }

    #[test]
    fn nodes_grow_with_the_load_and_a_room_past_a_node_is_named() {
        let nodes = |rooms: &str| PlanAnswer::of(models(), demand(rooms, "4c,64g,10gbit")).unwrap().nodes;
        let some = nodes("400:1000");
        let many = nodes("800:1000");
        assert!(some > 1 && (many == 2 * some || many == 2 * some - 1), "{some} and {many}");
        let answer = PlanAnswer::of(models(), demand("1:500k,10:1000", "4c,64g,10gbit")).unwrap();
        assert_eq!((answer.too_large.len(), answer.too_large[0].viewers, answer.nodes), (1, 500_000, 1));
        assert!(answer.too_large[0].nodes_if_spread > 1.0);
        assert!(answer.to_string().contains("TOO LARGE"));
    }

    #[test]
    fn rooms_are_whole_when_a_node_is_lost() {
        let models = models();
        let node = "4c,64g,10gbit";
        let own = models.need(&Features::default(), 4.0).processors;
        let each = |demand: &Demand| {
            let load = demand.load(&demand.sizes[0], &models).unwrap();
            models.need(&load, 4.0).processors - own
        };
        // A room takes three fifths of a node. Four rooms need four nodes, although their sum would fit
        // three.
        let viewers = (1..500)
            .map(|thousands| thousands * 1_000)
            .find(|viewers| each(&demand(&format!("1:{viewers}"), node)) > 0.55 * 4.0);
        let answer =
            PlanAnswer::of(models.clone(), demand(&format!("4:{}", viewers.unwrap()), node)).unwrap();
        assert_eq!(answer.nodes, 4, "{answer}");
        assert!(answer.uses[0].taken.iter().all(|taken| *taken < 1.0), "{answer}");
        assert_eq!(answer.one_lost, OneLost::NotCarried);
        assert!(
            answer.to_string().contains("after the loss of a node: the rooms do NOT all fit"),
            "{answer}"
        );
        let small = PlanAnswer::of(models.clone(), demand("800:1000", node)).unwrap();
        assert!(small.nodes > 3 && small.one_lost == OneLost::Carried, "{small}");
        let one = PlanAnswer::of(models.clone(), demand("1:100", node)).unwrap();
        assert_eq!((one.nodes, one.one_lost), (1, OneLost::NoOther));
        assert!(one.to_string().contains("no other node carries its rooms"), "{one}");
    }

    #[test]
    fn what_is_taken_for_granted_is_said() {
        let mut models = models();
        models.socket_bytes_per_connection = Some(9_000.0);
        models.memory.r_squared = 0.4;
        models.flushes.kinds[0].window_high_s = 10.0 * models.flushes.kinds[0].window_low_s;
        let told = PlanAnswer::of(models, demand("2:1000,3:5,1:50k", "4c,64g,10gbit")).unwrap().to_string();
        for said in [
            "assumes      messages arrive by chance",
            "1448 bytes beside 90 bytes of headers",
            "for both ends of each connection",
            "the memory figure is unreliable: the model explains 40 % of the variance",
            "are left out; only its buffers count",
            "rooms of 5 devices gather like rooms of 10 devices, the nearest measured size",
            "rooms of 50000 devices gather like rooms of 4000 devices",
            "this is uncertain, because ",
            "fit as well, so this is uncertain; rows: ",
        ] {
            assert!(told.contains(said), "{said}: {told}");
        }
    }

    #[test]
    fn a_day_is_a_day() {
        let days = [0, 951_782_400_000, 1_795_285_817_219, 4_102_444_799_999]
            .map(|unix_ms| day(unix_ms).to_string());
        assert_eq!(days, ["1970-01-01", "2000-02-29", "2026-11-21", "2099-12-31"]);
    }

    #[test]
    fn a_lost_node_is_carried_only_where_there_is_room() {
        let answer = PlanAnswer::of(models(), demand("200:1000", "4c,64g,10gbit")).unwrap();
        let [fewer, now, more] = &*answer.uses else { panic!("{:?}", answer.uses) };
        assert!(fewer.taken[0] > now.taken[0] && now.taken[0] > more.taken[0] && now.taken[0] <= 0.7 + 1e-9);
        assert_eq!((fewer.nodes + 1, now.nodes, more.nodes - 1), (answer.nodes, answer.nodes, answer.nodes));
    }
}
