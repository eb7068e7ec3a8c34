//! The status of a cluster as a table for people. Pure.

use std::fmt::Write as _;

use roomcast_core::cluster::Term;
use roomcast_core::cluster::status::{ClusterNodeView, ClusterView, LinkView, NodeSaid, SlotState, ranges};

/// The columns, each with the place of its text.
const COLUMNS: [(&str, Side); 12] = [
    ("NODE", Side::Left),
    ("STATE", Side::Left),
    ("VERSION", Side::Left),
    ("UP", Side::Right),
    ("REGION", Side::Left),
    ("SEATS", Side::Right),
    ("MEMBERS", Side::Right),
    ("BUSY", Side::Right),
    ("SLOTS", Side::Right),
    ("TERM", Side::Right),
    ("HEARD", Side::Right),
    ("LAG", Side::Left),
];

/// The side of a column at which its texts begin or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// A row of the table, or its heading.
type TableRow = [String; COLUMNS.len()];

/// The states of slots, with their words.
const STATES: [(SlotState, &str); 4] = [
    (SlotState::Ordered, "ordered"),
    (SlotState::Frozen, "frozen"),
    (SlotState::Silent, "at a silent home"),
    (SlotState::Nobody, "without a home"),
];

/// The table: nodes, slots, troubles.
pub(super) fn of(view: &ClusterView) -> String {
    let ClusterView { cluster, node, nodes, troubles, .. } = view;
    let count = nodes.len();
    let mut text =
        format!("cluster {}: {count} nodes, as {} sees them\n\n", printable(cluster), printable(node));
    let heading: TableRow = COLUMNS.map(|(title, _)| title.to_owned());
    let rows: Vec<TableRow> = nodes.iter().map(|node| row(view, node)).collect();
    write_rows(&mut text, std::iter::once(&heading).chain(&rows).collect());
    text.push('\n');
    let counted = STATES.map(|(state, means)| format!("{} {means}", view.slots_in(state).count()));
    writeln!(text, "slots: {}", counted.join(", ")).expect("a string takes every write");
    let without: Vec<_> = view.slots_in(SlotState::Nobody).collect();
    if !without.is_empty() {
        writeln!(text, "without a home: {}", ranges(&without)).expect("a string takes every write");
    }
    if troubles.is_empty() {
        text.push_str("all is well\n");
    } else {
        text.push_str("\nnot well:\n");
    }
    for trouble in troubles {
        writeln!(text, "- {}", printable(&trouble.text)).expect("a string takes every write");
    }
    text
}

fn row(view: &ClusterView, node: &ClusterNodeView) -> TableRow {
    let ClusterNodeView { region, seats, free_seats, busy_permille, heard_ms, said, .. } = node;
    let of_said = |cell: &dyn Fn(&NodeSaid) -> String| said.as_ref().map_or_else(|| "-".to_owned(), cell);
    let taken = seats.saturating_sub(*free_seats);
    let asked = if node.node == view.node { "*" } else { "" };
    [
        format!("{}{asked}", node.node),
        node.state.name().to_owned(),
        of_said(&|said| said.version.clone()),
        of_said(&|said| age(view.at.saturating_sub(said.started_at) / 1000)),
        if region.is_empty() { "-".to_owned() } else { region.clone() },
        format!("{taken}/{seats}"),
        of_said(&|said| said.members.to_string()),
        format!("{} %", busy_permille / 10),
        slots(view, &node.node),
        highest_term(view, &node.node),
        format!("{}.{} s", heard_ms / 1000, heard_ms % 1000 / 100),
        of_said(&|said| lag(&said.links)),
    ]
    .map(|cell| printable(&cell))
}

/// The number of a node's slots, and of the frozen ones among them.
fn slots(view: &ClusterView, node: &str) -> String {
    let own = || view.slots.iter().filter(|slot| slot.home.as_deref() == Some(node));
    let frozen = own().filter(|slot| slot.state == SlotState::Frozen).count();
    let all = own().count();
    if frozen > 0 { format!("{all} ({frozen} frozen)") } else { all.to_string() }
}

/// The highest term of a node's slots.
fn highest_term(view: &ClusterView, node: &str) -> String {
    let own = view.slots.iter().filter(|slot| slot.home.as_deref() == Some(node));
    let highest = own.map(|slot| slot.term).max();
    highest.map_or_else(|| "-".to_owned(), |Term { generation, sequence }| format!("{generation}:{sequence}"))
}

/// The largest lag of a node's links, and the node at the other end.
fn lag(links: &[LinkView]) -> String {
    let worst = links.iter().filter_map(|link| Some((link.lag_ms?, &link.node))).max_by_key(|(lag, _)| *lag);
    match worst {
        None => "-".to_owned(),
        Some((0, _)) => "0 ms".to_owned(),
        Some((lag, to)) => format!("{lag} ms to {to}"),
    }
}

/// A time of seconds in its largest unit.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn write_rows(text: &mut String, rows: Vec<&TableRow>) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS.len()] = std::array::from_fn(width);
    for row in rows {
        let mut line = String::new();
        for ((cell, width), (_, side)) in row.iter().zip(widths).zip(COLUMNS) {
            match side {
                Side::Left => write!(line, "{cell:<width$}  "),
                Side::Right => write!(line, "{cell:>width$}  "),
            }
            .expect("a string takes every write");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// A text without characters that a terminal would obey: names and errors come from other machines.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use roomcast_core::cluster::Slot;
    use roomcast_core::cluster::status::{ClusterPart, HeardSlot, LogView, NodeState, OwnSlot};

    use super::*;

    fn node(name: &str, state: NodeState, links: &[(&str, u64)]) -> ClusterNodeView {
        let link = |(node, lag_ms): &(&str, u64)| LinkView {
            node: (*node).to_owned(),
            state: NodeState::Serving,
            lag_ms: Some(*lag_ms),
            kept_bytes: 0,
        };
        let said = NodeSaid {
            version: "0.1.0".to_owned(),
            started_at: 1_000_000,
            members: 1034,
            rooms: 3,
            links: links.iter().map(link).collect(),
            log: LogView::default(),
        };
        ClusterNodeView {
            node: name.to_owned(),
            state,
            region: if name == "node-2" { "us-\u{1b}[2J".to_owned() } else { String::new() },
            seats: 65_408,
            free_seats: 65_000,
            busy_permille: 129,
            words_version: 1,
            heard_ms: 4230,
            said: (!links.is_empty()).then_some(said),
        }
    }

    fn part(view: ClusterNodeView, slots: impl Iterator<Item = u8>, is_frozen: bool) -> ClusterPart {
        let own = |slot| OwnSlot {
            slot: Slot(slot),
            term: Term { generation: 0, sequence: u64::from(slot) + 1 },
            is_frozen: is_frozen && slot < 130,
        };
        ClusterPart { view, slots: slots.map(own).collect() }
    }

    fn view(parts: Vec<ClusterPart>) -> ClusterView {
        ClusterView::new("rc", "node-1", 12_525_000, parts, &vec![HeardSlot::default(); 256])
    }

    #[test]
    fn a_cluster_that_is_well_fits_on_a_screen() {
        let text = of(&view(vec![
            part(node("node-1", NodeState::Serving, &[("node-2", 0)]), 0..=127, false),
            part(node("node-2", NodeState::Draining, &[("node-1", 12)]), 128..=255, false),
        ]));
        let shown = "\
cluster rc: 2 nodes, as node-1 sees them

NODE     STATE     VERSION   UP  REGION       SEATS  MEMBERS  BUSY  SLOTS   TERM  HEARD  LAG
node-1*  serving   0.1.0    3 h  -        408/65408     1034  12 %    128  0:128  4.2 s  0 ms
node-2   draining  0.1.0    3 h  us-?[2J  408/65408     1034  12 %    128  0:256  4.2 s  12 ms to node-1

slots: 256 ordered, 0 frozen, 0 at a silent home, 0 without a home
all is well
";
        assert_eq!(text, shown, "\n{text}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_told_below_the_table() {
        let text = of(&view(vec![
            part(node("node-1", NodeState::Serving, &[("node-2", 1200), ("node-3", 3)]), 0..=127, false),
            part(node("node-2", NodeState::Serving, &[("node-1", 0)]), 128..=250, true),
            part(node("node-3", NodeState::Ended, &[]), std::iter::empty(), false),
        ]));
        let shown = "\
cluster rc: 3 nodes, as node-1 sees them

NODE     STATE    VERSION   UP  REGION       SEATS  MEMBERS  BUSY           SLOTS   TERM  HEARD  LAG
node-1*  serving  0.1.0    3 h  -        408/65408     1034  12 %             128  0:128  4.2 s  1200 ms to node-2
node-2   serving  0.1.0    3 h  us-?[2J  408/65408     1034  12 %  123 (2 frozen)  0:251  4.2 s  0 ms
node-3   ended    -          -  -        408/65408        -  12 %               0      -  4.2 s  -

slots: 249 ordered, 2 frozen, 0 at a silent home, 5 without a home
without a home: 251-255

not well:
- node-3 has ended, or has lost NATS: its last heartbeat is 4.2 s old
- 5 slots without a home: no node orders their rooms (251-255)
- 2 slots frozen: their home has no right to order now (128-129)
- the link from node-1 to node-2 lags by 1.2 s
";
        assert_eq!(text, shown, "\n{text}");
    }

    #[test]
    fn ages_have_one_unit() {
        let ages = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(age);
        assert_eq!(ages, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
    }
}
