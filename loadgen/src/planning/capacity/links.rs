//! The costs of links between nodes over NATS: of the nodes, of the NATS servers, and of a message on its way.
//! Pure.
//!
//! The constants were measured on one machine with nats-server 2.15.2: a server on a core of its own, client and
//! server on loopback. Ratios hold elsewhere; times do not. Of a measured range the dear end counts.
//!
//! A message of b bytes costs a server a + c × b, a line through both measured sizes. For 26 000 bytes:
//! 2.1 µs + 26 000 × 1.6 ns = 43.5 µs, so a core takes 23 000 a second.

use roomcast_core::limits::HOT_MEMBERS;
use serde::Serialize;

use super::models::wire_bytes;

/// Size of the large measured frame.
const LARGE_BYTES: f64 = 26_000.0;
/// Size of the small measured frame.
const SMALL_BYTES: f64 = 2_000.0;
/// Frames of [`LARGE_BYTES`] a second that a server takes in and gives out on one core. Measured: 23 000 to 32 000.
const LARGE_PER_SERVER_CORE: f64 = 23_000.0;
/// Frames of [`SMALL_BYTES`] a second that a server takes in and gives out on one core. Measured: 190 000 to 280 000.
const SMALL_PER_SERVER_CORE: f64 = 190_000.0;
/// Processor time of both nodes for a message of up to [`LARGE_BYTES`], as measured for that size. A larger message
/// costs in proportion more.
const CLIENTS_S: f64 = 20e-6;
/// Servers on the way of a message: that of the sender, and that of the receiver.
const SERVERS_PASSED: f64 = 2.0;
/// Median time of a frame of [`LARGE_BYTES`] from node to node.
pub(crate) const HOP_S: f64 = 160e-6;
/// Appends a second to the log in three synced copies, all servers on one core. Measured: 20 000 to 27 000.
pub(crate) const APPENDS_PER_SERVER_CORE: f64 = 20_000.0;
/// Time of an append to the log in three synced copies. Measured: 1.1 to 1.4 ms.
pub(crate) const APPEND_S: f64 = 1.4e-3;
/// Copies of a record of the log.
pub(crate) const LOG_COPIES: f64 = 3.0;
/// Processor time of a home for a join at another node: the target of `join` in `benches/nodes.rs`.
pub(crate) const JOIN_ORDER_S: f64 = 2e-6;
/// Bytes of an entry of a link beside its frame or payload, and of a join: an estimate.
pub(crate) const ENTRY_BYTES: f64 = 100.0;
/// Bytes of a heartbeat beside its lists. These and the lists' are the fields of `proto/heartbeat.proto`, rounded up.
pub(crate) const BEAT_BYTES: f64 = 100.0;
/// Bytes of a heartbeat for each held slot.
pub(crate) const BEAT_SLOT_BYTES: f64 = 16.0;
/// Bytes of a heartbeat for each node that was heard.
pub(crate) const BEAT_HEARD_BYTES: f64 = 32.0;

/// Messages between nodes, all alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Messages {
    pub(crate) per_s: f64,
    /// Size of each, the entry's own bytes included.
    pub(crate) bytes: f64,
}

/// The part of a load on the links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct LinkLoad {
    /// Frames from homes to other nodes.
    pub(crate) frames_per_s: f64,
    /// Publishes from other nodes to homes, and their answers.
    pub(crate) calls_per_s: f64,
    /// Messages with joins, and with their answers.
    pub(crate) joins_per_s: f64,
    /// Bytes of all these messages, each counted once.
    pub(crate) bytes_per_s: f64,
    /// Processors of the NATS servers for these messages.
    pub(crate) server_processors: f64,
    /// Bytes that the node sends to other nodes.
    pub(crate) sent_bytes_per_s: f64,
    /// Bytes that the node takes from other nodes.
    pub(crate) taken_bytes_per_s: f64,
    /// Processors of the node for its links.
    pub(crate) processors: f64,
    /// Use of the node's network for the sent bytes, with TCP's own. A network is as wide in the other direction.
    pub(crate) nic_bits_per_s: f64,
}

/// The time of a NATS server for a message.
pub(crate) fn server_s(bytes: f64) -> f64 {
    let for_each_byte =
        (1.0 / LARGE_PER_SERVER_CORE - 1.0 / SMALL_PER_SERVER_CORE) / (LARGE_BYTES - SMALL_BYTES);
    1.0 / SMALL_PER_SERVER_CORE + (bytes - SMALL_BYTES) * for_each_byte
}

/// The time of one of both nodes for a message.
pub(crate) fn node_s(bytes: f64) -> f64 {
    CLIENTS_S / 2.0 * (bytes / LARGE_BYTES).max(1.0)
}

impl Messages {
    /// Processors of the NATS servers.
    pub(crate) fn server_processors(self) -> f64 {
        SERVERS_PASSED * self.per_s * server_s(self.bytes)
    }

    pub(crate) fn bytes_per_s(self) -> f64 {
        self.per_s * self.bytes
    }

    fn node_processors(self) -> f64 {
        self.per_s * node_s(self.bytes)
    }
}

impl LinkLoad {
    /// Adds messages that the node sends.
    pub(crate) fn send(&mut self, messages: Messages) {
        self.processors += messages.node_processors();
        self.sent_bytes_per_s += messages.bytes_per_s();
        self.nic_bits_per_s += 8.0 * wire_bytes(messages.per_s, messages.bytes_per_s());
    }

    /// Adds messages that the node takes.
    pub(crate) fn take(&mut self, messages: Messages) {
        self.processors += messages.node_processors();
        self.taken_bytes_per_s += messages.bytes_per_s();
    }

    /// Adds messages at the NATS servers. Of both nodes only a room's home does so.
    pub(crate) fn pass(&mut self, messages: Messages) {
        self.bytes_per_s += messages.bytes_per_s();
        self.server_processors += messages.server_processors();
    }

    /// The sum of this load and `count` times the other.
    pub(crate) fn with(self, other: Self, count: f64) -> Self {
        let sum = |one: f64, more: f64| one + more * count;
        Self {
            frames_per_s: sum(self.frames_per_s, other.frames_per_s),
            calls_per_s: sum(self.calls_per_s, other.calls_per_s),
            joins_per_s: sum(self.joins_per_s, other.joins_per_s),
            bytes_per_s: sum(self.bytes_per_s, other.bytes_per_s),
            server_processors: sum(self.server_processors, other.server_processors),
            sent_bytes_per_s: sum(self.sent_bytes_per_s, other.sent_bytes_per_s),
            taken_bytes_per_s: sum(self.taken_bytes_per_s, other.taken_bytes_per_s),
            processors: sum(self.processors, other.processors),
            nic_bits_per_s: sum(self.nic_bits_per_s, other.nic_bits_per_s),
        }
    }
}

/// The costs and the simplifications of an answer about a cluster, a line each.
pub(crate) fn link_assumes() -> Vec<String> {
    let us = |seconds: f64| seconds * 1e6;
    vec![
        format!(
            "a link's message of up to {LARGE_BYTES:.0} bytes costs {:.0} µs of processor, half at each of both nodes, \
             and takes {:.2} ms (the median; measured with NATS on one machine; a larger one costs in proportion)",
            us(CLIENTS_S),
            1e3 * HOP_S
        ),
        format!(
            "a core of a NATS server takes {LARGE_PER_SERVER_CORE:.0} messages of {LARGE_BYTES:.0} bytes a second, \
             and {SMALL_PER_SERVER_CORE:.0} of {SMALL_BYTES:.0} (the least measured), other sizes by a straight line; \
             each message passes {SERVERS_PASSED:.0} servers, and servers are machines like the nodes"
        ),
        format!(
            "a core of NATS takes {APPENDS_PER_SERVER_CORE:.0} reliable messages a second into {LOG_COPIES:.0} synced \
             copies, each in {:.1} ms (the dear end of the measured range)",
            1e3 * APPEND_S
        ),
        format!(
            "an entry of a link has {ENTRY_BYTES:.0} bytes beside its frame or payload; each publish is a message of \
             its own, and so is its answer; joins share messages"
        ),
        format!(
            "a join at another node costs the home {:.0} µs (the target of a benchmark)",
            us(JOIN_ORDER_S)
        ),
        format!(
            "a room takes a node for each begun {HOT_MEMBERS} devices (`shards.hot_members`) on each of its \
             processors, up to all nodes, and spreads evenly; a node has a shard for each processor"
        ),
        "the frames of a home are on one connection, and one core of its NATS server reads them".to_owned(),
        "publishers use all doors alike; a publish costs its home as much as it costs a lone node, its door included"
            .to_owned(),
        "devices ask for routes, so a cold room is at its home alone; its home is where it fits (in truth a hash of \
         the name says where)"
            .to_owned(),
        "links' own acknowledgements, counts, and the nodes' time for heartbeats are left out".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_server_goes_through_both_measured_sizes() {
        assert!((server_s(26_000.0) - 1.0 / 23_000.0).abs() < 1e-12);
        assert!((server_s(2_000.0) - 1.0 / 190_000.0).abs() < 1e-12);
        assert!(server_s(0.0) > 0.0 && server_s(0.0) < server_s(2_000.0));
    }

    #[test]
    fn a_message_costs_both_nodes_alike_and_at_least_as_much_as_the_measured_one() {
        assert!((node_s(300.0) - 10e-6).abs() < 1e-12);
        assert!((node_s(26_000.0) - 10e-6).abs() < 1e-12);
        assert!((node_s(52_000.0) - 20e-6).abs() < 1e-12);
    }

    #[test]
    fn sent_messages_fill_the_network_and_taken_ones_do_not() {
        let messages = Messages { per_s: 10.0, bytes: 1_448.0 };
        let mut load = LinkLoad::default();
        load.take(messages);
        assert_eq!((load.nic_bits_per_s, load.taken_bytes_per_s), (0.0, 14_480.0));
        load.send(messages);
        // Each has its bytes, and the headers of two segments: a full one, and the partial one at its end.
        assert!((load.nic_bits_per_s - 8.0 * 10.0 * (1_448.0 + 180.0)).abs() < 1e-6, "{load:?}");
        assert!((load.processors - 200e-6).abs() < 1e-12, "10 taken and 10 sent");
        load.pass(messages);
        assert_eq!(load.bytes_per_s, 14_480.0);
        assert!((load.server_processors - 20.0 * server_s(1_448.0)).abs() < 1e-12, "two servers");
        let thrice = LinkLoad::default().with(load, 3.0);
        assert!((thrice.sent_bytes_per_s - 3.0 * load.sent_bytes_per_s).abs() < 1e-9);
    }
}
