//! The plan itself: rooms to loads, loads to nodes, and what the answer rests on, for people and as JSON.

use std::fmt;

use serde::Serialize;

use super::asked::{Node, Size};
use super::models::{Models, Need};
use super::packing::{Alike, pack};
use super::{Beyond, beyond};
use crate::frame::Encoding;
use crate::model::flushes::Arrivals;
use crate::model::usl::{Basis, Usl};
use crate::model::{Features, Shape};

/// What [`Need::parts`] are.
const RESOURCES: [&str; 3] = ["processors", "memory", "network"];

/// What is asked.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Demand {
    pub(crate) sizes: Vec<Size>,
    /// Of each room.
    pub(crate) chat_rate: f64,
    /// Of each room.
    pub(crate) reliable_rate: f64,
    pub(crate) payload_bytes: usize,
    pub(crate) messages_per_request: u32,
    pub(crate) encoding: Encoding,
    /// Over all rooms.
    pub(crate) joins_per_s: f64,
    pub(crate) node: Node,
    /// The part of each resource that stays free.
    pub(crate) headroom: f64,
}

/// A room that no node carries.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TooLarge {
    pub(crate) rooms: u32,
    pub(crate) viewers: u32,
    /// Of each, on one node.
    need: Need,
    /// Nodes that each would fill, if it could be spread over them.
    nodes_if_spread: f64,
}

/// How much of each resource is taken, from 0 to 1, when the load is spread evenly over so many nodes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Use {
    nodes: usize,
    taken: [f64; 3],
}

/// The plan.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Answer {
    pub(crate) models: Models,
    demand: Demand,
    /// Of all rooms that fit a node.
    load: Features,
    /// What they need together, each node's own share included.
    need: Need,
    pub(super) nodes: usize,
    /// The resource that decides how many.
    pub(super) binding: &'static str,
    /// With one node fewer, with that many, and with one more.
    uses: Vec<Use>,
    pub(crate) too_large: Vec<TooLarge>,
    /// Of the fullest node.
    pub(crate) beyond: Vec<Beyond>,
}

impl Demand {
    fn viewers(&self) -> f64 {
        self.sizes.iter().map(|size| f64::from(size.rooms) * f64::from(size.viewers)).sum()
    }

    /// One room of a size, as a load.
    fn load(&self, size: &Size, models: &Models) -> Result<Features, String> {
        let shape = Shape {
            devices: size.viewers,
            rooms: 1,
            rate: size.rate.unwrap_or(self.chat_rate),
            payload_bytes: self.payload_bytes,
            messages_per_request: self.messages_per_request,
            reliable_rate: self.reliable_rate,
            reconnect_share: 0.0,
            encoding: self.encoding,
        };
        let joins_per_s = self.joins_per_s * f64::from(size.viewers) / self.viewers();
        models.flushes.features(&shape, joins_per_s, Arrivals::Poisson)
    }
}

impl Answer {
    /// Plans.
    ///
    /// # Errors
    /// One line, when nothing is known of the encoding, or it would be too many nodes.
    pub(crate) fn of(models: Models, demand: Demand) -> Result<Self, String> {
        let Node { processors, memory_bytes, nic_bits_per_s } = demand.node;
        let has = [processors, memory_bytes, nic_bits_per_s];
        let own = models.need(&Features::default(), processors).parts();
        let left = |at: usize| (has[at] * (1.0 - demand.headroom) - own[at]).max(0.0);
        let room = Need { processors: left(0), memory_bytes: left(1), nic_bits_per_s: left(2) };
        let alike = |size: &Size| {
            let load = demand.load(size, &models)?;
            let [cpu, memory, nic] = models.need(&load, processors).parts();
            let need = Need {
                processors: cpu - own[0],
                memory_bytes: memory - own[1],
                nic_bits_per_s: nic - own[2],
            };
            Ok(Alike { rooms: size.rooms, load, need })
        };
        let sizes: Vec<Alike> = demand.sizes.iter().map(alike).collect::<Result<_, String>>()?;
        let packing = pack(&sizes, room)?;
        let too_large = packing.too_large.iter().map(|at| {
            let parts = sizes[*at].need.parts().into_iter().zip(room.parts());
            TooLarge {
                rooms: sizes[*at].rooms,
                viewers: demand.sizes[*at].viewers,
                need: sizes[*at].need,
                nodes_if_spread: parts.map(|(need, room)| need / room.max(1e-9)).fold(0.0, f64::max).ceil(),
            }
        });
        let too_large: Vec<TooLarge> = too_large.collect();
        let load = packing.nodes.iter().fold(Features::default(), |load, node| load.plus(node.load));
        let nodes = packing.nodes.len();
        let without_own = models.need(&load, processors).parts();
        let used = |nodes: usize| {
            let count = f64::from(u32::try_from(nodes).unwrap_or(u32::MAX));
            let taken = |at: usize| ((without_own[at] - own[at]) / count.max(1.0) + own[at]) / has[at];
            Use { nodes, taken: std::array::from_fn(taken) }
        };
        let now = used(nodes);
        let binding = (0..3).max_by(|one, other| now.taken[*one].total_cmp(&now.taken[*other])).unwrap_or(0);
        let count = f64::from(u32::try_from(nodes).unwrap_or(u32::MAX));
        let total: [f64; 3] = std::array::from_fn(|at| without_own[at] + (count - 1.0).max(0.0) * own[at]);
        let mut beyond_all: Vec<Beyond> = Vec::new();
        let oversize = packing.too_large.iter().map(|at| sizes[*at].load);
        for load in packing.nodes.iter().map(|node| node.load).chain(oversize) {
            merge(&mut beyond_all, beyond(&models, &load));
        }
        Ok(Self {
            load,
            need: Need { processors: total[0], memory_bytes: total[1], nic_bits_per_s: total[2] },
            nodes,
            binding: RESOURCES[binding],
            uses: (nodes.saturating_sub(1).max(1)..=nodes + 1).map(used).collect(),
            too_large,
            beyond: beyond_all,
            models,
            demand,
        })
    }
}

/// Keeps the farthest of each feature.
fn merge(all: &mut Vec<Beyond>, node: Vec<Beyond>) {
    for beyond in node {
        match all.iter_mut().find(|known| known.feature == beyond.feature) {
            Some(known) if known.asked < beyond.asked => *known = beyond,
            Some(_) => {}
            None => all.push(beyond),
        }
    }
}

/// Four digits that say something, for figures from nanoseconds to seconds.
fn digits(figure: f64) -> String {
    match figure {
        0.0 => "0".into(),
        size if size >= 1_000.0 => format!("{size:.0}"),
        size if size >= 1.0 => format!("{size:.2}"),
        size if size >= 0.001 => format!("{size:.5}"),
        size => format!("{size:.2e}"),
    }
}

/// The day in UTC, by Hinnant's civil_from_days.
fn date(unix_ms: u64) -> String {
    let days = unix_ms / 86_400_000 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// What the answer rests on.
pub(crate) fn write_models(f: &mut fmt::Formatter<'_>, models: &Models) -> fmt::Result {
    for origin in &models.origins {
        writeln!(
            f,
            "rests on     {}: {} of {} rows, a node with {} processors, measured on {}, {} {}",
            origin.file,
            origin.rows_used,
            origin.rows,
            origin.processors,
            date(origin.started_unix_ms),
            origin.environment.processor,
            origin.environment.kernel
        )?;
    }
    let terms = |f: &mut fmt::Formatter<'_>,
                 name: &str,
                 scale: f64,
                 unit: &str,
                 linear: &crate::model::cost::Linear| {
        write!(f, "{name:<12}")?;
        for term in &linear.terms {
            write!(f, " {} {} {unit};", term.name, digits(term.coefficient * scale))?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "              R² {:.4}; rows off by at most {:.1} %, unseen rows by {:.1} % (root mean square) and {:.1} % (most); \
             condition number {:.1}",
            linear.r_squared,
            100.0 * linear.residual_max,
            100.0 * linear.left_out_rms,
            100.0 * linear.left_out_max,
            linear.condition_number
        )
    };
    terms(f, "processors", 1e6, "µs", &models.cpu)?;
    write!(f, "              row by row, %:")?;
    for residual in &models.cpu.residuals {
        write!(f, " {:+.0}", 100.0 * residual)?;
    }
    writeln!(f)?;
    terms(f, "memory", 1.0 / 1024.0, "KiB", &models.memory)?;
    match models.socket_bytes_per_connection {
        Some(bytes) => writeln!(f, "sockets      {bytes:.0} bytes of the kernel for each connection")?,
        None => writeln!(f, "sockets      not measured: the kernel's memory for sockets is no part of this")?,
    }
    for kind in &models.flushes.kinds {
        writeln!(
            f,
            "flushes      rooms of {:.0} to {:.0} devices gather for {:.1} ms ({} rows)",
            kind.members_min,
            kind.members_max,
            kind.window_s * 1_000.0,
            kind.rows
        )?;
    }
    write_scaling(f, models)
}

fn write_scaling(f: &mut fmt::Formatter<'_>, models: &Models) -> fmt::Result {
    let Usl { sigma, kappa } = models.usl;
    let law = format!("σ = {sigma:.4}, κ = {kappa:.6}");
    let processors = models.processors;
    match models.usl_basis {
        Basis::Fitted => writeln!(f, "scaling      {law}, from sweeps with several numbers of processors"),
        Basis::FittedWithoutKappa => {
            writeln!(f, "scaling      {law}, from two numbers of processors: κ is taken to be 0")
        }
        Basis::Given => writeln!(f, "scaling      {law}, as --usl says, not measured"),
        Basis::AssumedLinear => writeln!(
            f,
            "scaling      assumed linear: measured on {processors} processors only; sweeps with other numbers, or --usl, say more"
        ),
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_models(f, &self.models)?;
        let rooms: f64 = self.demand.sizes.iter().map(|size| f64::from(size.rooms)).sum();
        writeln!(f, "asked        {:.0} viewers in {rooms:.0} rooms", self.demand.viewers())?;
        writeln!(f, "features     {:>14} {:>16} {:>10}", "of all nodes", "of the fullest", "× largest")?;
        for beyond in &self.beyond {
            let column = Features::COLUMNS.iter().find(|column| column.name == beyond.feature);
            let all = column.map_or(0.0, |column| (column.of)(&self.load));
            let times = beyond.times.unwrap_or(0.0);
            let past = if times > 1.0 { "  past what was measured" } else { "" };
            writeln!(f, "  {:<12} {all:>12.0} {:>16.0} {times:>10.2}{past}", beyond.feature, beyond.asked)?;
        }
        let Node { processors, memory_bytes, nic_bits_per_s } = self.demand.node;
        let gib = f64::from(1 << 30);
        writeln!(
            f,
            "need         {:.1} processors, {:.1} GiB, {:.2} Gbit/s, on nodes of {processors}, {:.0} GiB and {} Gbit/s, {:.0} % \
             of each to stay free",
            self.need.processors,
            self.need.memory_bytes / gib,
            self.need.nic_bits_per_s / 1e9,
            memory_bytes / gib,
            nic_bits_per_s / 1e9,
            100.0 * self.demand.headroom
        )?;
        writeln!(f, "nodes        {}: {} decide", self.nodes, self.binding)?;
        for used in &self.uses {
            write!(f, "  with {:>5}  ", used.nodes)?;
            for (name, taken) in RESOURCES.iter().zip(used.taken) {
                write!(f, "  {name} {:>3.0} %", 100.0 * taken)?;
            }
            let over = used.taken.iter().any(|taken| *taken > 1.0);
            let less = used.nodes < self.nodes;
            let note = match (less, over) {
                (true, true) => "  one node lost: the others do NOT carry it",
                (true, false) => "  one node lost: the others carry it",
                (false, _) => "",
            };
            writeln!(f, "{note}")?;
        }
        for large in &self.too_large {
            writeln!(
                f,
                "TOO LARGE    {} room(s) of {} devices need {:.1} processors, {:.1} GiB and {:.2} Gbit/s each: more than a node has to \
                 give. A room is on one node, spread over its shards; if it could be spread over nodes it would fill {:.0}. It \
                 is in no figure above",
                large.rooms,
                large.viewers,
                large.need.processors,
                large.need.memory_bytes / gib,
                large.need.nic_bits_per_s / 1e9,
                large.nodes_if_spread
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::asked::Rooms;
    use crate::capacity::models::tests::sweep;
    use crate::capacity::{allowed, allowed_processors};

    fn demand(rooms: &str, node: &str) -> Demand {
        Demand {
            sizes: rooms.parse::<Rooms>().unwrap().sizes(None).unwrap(),
            chat_rate: 5.0,
            reliable_rate: 0.0,
            payload_bytes: 300,
            messages_per_request: 1,
            encoding: Encoding::Json,
            joins_per_s: 0.0,
            node: node.parse().unwrap(),
            headroom: 0.3,
        }
    }

    fn models() -> Models {
        Models::fit(&[sweep(1, Usl::default())], None).unwrap()
    }

    #[test]
    fn what_is_asked_within_what_was_measured_is_answered() {
        let answer = Answer::of(models(), demand("2:1000,10:50:0.5", "1c,1g,1gbit")).unwrap();
        assert_eq!((answer.nodes, answer.binding), (1, "processors"));
        allowed(&answer.beyond, &answer.models, false).unwrap();
        assert!(answer.to_string().contains("assumed linear: measured on 1 processors only"));
    }

    #[test]
    fn what_is_past_it_has_to_be_asked_for_and_what_nobody_measured_is_not_told() {
        let answer = Answer::of(models(), demand("40:1000", "16c,64g,10gbit")).unwrap();
        let refused = allowed(&answer.beyond, &answer.models, false).unwrap_err();
        assert!(
            refused.contains("× beyond the largest measured") && refused.contains("--devices-max"),
            "{refused}"
        );
        allowed(&answer.beyond, &answer.models, true).unwrap();
        assert!(answer.to_string().contains("past what was measured"));
        let reliable = Demand { reliable_rate: 1.0, ..demand("1:100", "1c,1g,1gbit") };
        let answer = Answer::of(models(), reliable).unwrap();
        let refused = allowed(&answer.beyond, &answer.models, true).unwrap_err();
        assert!(refused.contains("acks/s"), "{refused}");
    }

    #[test]
    fn more_processors_than_were_measured_have_to_be_asked_for_or_the_law_given() {
        let node = |text: &str| text.parse::<Node>().unwrap();
        let refused = allowed_processors(&models(), node("4c,1g,1gbit"), false).unwrap_err();
        assert!(refused.contains("4.0 × beyond the most processors measured"), "{refused}");
        allowed_processors(&models(), node("1c,1g,1gbit"), false).unwrap();
        allowed_processors(&models(), node("4c,1g,1gbit"), true).unwrap();
        let given = Models::fit(&[sweep(1, Usl::default())], Some(Usl { sigma: 0.1, kappa: 0.0 })).unwrap();
        allowed_processors(&given, node("4c,1g,1gbit"), false).unwrap();
    }

    #[test]
    fn nodes_grow_with_the_load_and_a_room_past_a_node_is_named() {
        let nodes = |rooms: &str| Answer::of(models(), demand(rooms, "4c,64g,10gbit")).unwrap().nodes;
        let (some, many) = (nodes("400:1000"), nodes("800:1000"));
        assert!(some > 1 && (many == 2 * some || many == 2 * some - 1), "{some} and {many}");
        let answer = Answer::of(models(), demand("1:500k,10:1000", "4c,64g,10gbit")).unwrap();
        assert_eq!((answer.too_large.len(), answer.too_large[0].viewers, answer.nodes), (1, 500_000, 1));
        assert!(answer.too_large[0].nodes_if_spread > 1.0);
        assert!(answer.to_string().contains("TOO LARGE"));
    }

    #[test]
    fn a_day_is_a_day() {
        let days = [0, 951_782_400_000, 1_795_285_817_219, 4_102_444_799_999].map(date);
        assert_eq!(days, ["1970-01-01", "2000-02-29", "2026-11-21", "2099-12-31"]);
    }

    #[test]
    fn a_lost_node_is_carried_only_where_there_is_room() {
        let answer = Answer::of(models(), demand("200:1000", "4c,64g,10gbit")).unwrap();
        let [fewer, now, more] = &*answer.uses else { panic!("{:?}", answer.uses) };
        assert!(fewer.taken[0] > now.taken[0] && now.taken[0] > more.taken[0] && now.taken[0] <= 0.7 + 1e-9);
        assert_eq!((fewer.nodes + 1, now.nodes, more.nodes - 1), (answer.nodes, answer.nodes, answer.nodes));
    }
}
