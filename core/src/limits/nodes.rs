//! The bounds between nodes: the view of the cluster, links, calls and routes.

use std::time::Duration;

use super::{KIB, MIB};

/// Other nodes that a node keeps an account of, dead ones included. Above: further nodes are ignored, and counted.
pub const NODES_MAX: usize = 64;
/// Interval of a node's heartbeats to the others.
pub const BEAT_INTERVAL: Duration = Duration::from_millis(500);
/// Own heartbeats that wait for their echo. Above: the oldest are forgotten, and their echoes prove nothing.
pub const BEATS_WAITING_MAX: usize = 8;
/// Interval at which a node looks at the silence of the others, and at its right to order.
pub const VIEW_INTERVAL: Duration = Duration::from_millis(100);
/// Age of the last look with a right to order. Later: the slots of this node freeze.
pub const LOOK_AGE_MAX: Duration = Duration::from_secs(1);
/// Silence of a node. Later: the node is probed, and counts as dead if nobody takes the probe.
pub const NODE_SILENCE_MAX: Duration = Duration::from_secs(1);
/// Interval of the probes of a silent node.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// Time for which a silent node counts among the known nodes. Later: it is forgotten.
pub const NODE_KNOWN_AGE: Duration = Duration::from_secs(60);
/// Age of the echo, since the sending of its heartbeat. Later: the node connects to another NATS server, and judges
/// no other node.
pub const ECHO_AGE_MAX: Duration = Duration::from_secs(1);
/// Pause between two connections to NATS servers for want of an echo.
pub const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two connections to NATS servers for want of a node that others hear.
pub const UNHEARD_RECONNECT_PAUSE: Duration = Duration::from_secs(5);
/// Age of the echo, of what a node hears of the others, or of the proof of a slot, with a right to order. Later: the
/// slot freezes.
pub const RIGHT_AGE_MAX: Duration = Duration::from_secs(2);
/// Age of what a node hears of another one. Later: the node proves each of its slots once in
/// [`RENEWAL_INTERVAL`].
pub const HEARING_AGE_MAX: Duration = Duration::from_millis(1500);
/// Interval of proofs of a slot while a known node is not heard, or while the slot is frozen.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of proofs of a slot else. Claims live for days in the log, and longer than any row.
pub const RENEWAL_INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Time for which a slot is frozen. Later: the home gives it up, and its rooms end.
pub const FROZEN_AGE_MAX: Duration = Duration::from_secs(60);
/// Time for which a node with its echo listens before it claims a slot.
pub const SETTLED_AFTER: Duration = Duration::from_millis(1500);
/// Time in which a claimant says in a heartbeat that it holds the slot. Later: the slot has no home.
pub const CLAIM_GRACE: Duration = Duration::from_secs(1);
/// Time without a claim after a fence, for a node that hears half or fewer of the known nodes: it does not take the
/// slot back from a node that it can't hear.
pub const FENCED_PAUSE: Duration = Duration::from_secs(10);
/// Bytes of a heartbeat. Above: dropped, unread.
pub const BEAT_BYTES_MAX: usize = 32 * KIB;
/// Largest generation and sequence of a term from another node. Above: the word is dropped, unread.
pub const TERM_PART_MAX: u64 = 1 << 62;

/// Words of a shard to other nodes on their way to the cluster's thread, and as many back. Above: a batch lapses,
/// and other words wait on the side that sends them.
pub const NODE_WAY_ENTRIES_MAX: usize = 4096;
/// Time for which a node whose place is full of batches holds up a room, from the cut of the oldest. Later: the room
/// goes on without the node until it is level. A link gives up a batch in the same time.
pub const NODE_HOLD_AGE_MAX: Duration = Duration::from_millis(250);
/// Time of a batch at another node without a pass, or two windows if those are longer. Later: the batch lapses, and
/// none of the node is awaited until it is level.
pub const NODE_BATCH_AGE_MIN: Duration = Duration::from_secs(1);
/// Joins of a shard's branches without an answer of a node. Above: further joins wait for their turn.
pub const NODE_JOINS_MAX: usize = 1024;
/// Joins of one room among them. Above: the joins of other rooms come first.
pub const NODE_ROOM_JOINS_MAX: usize = 256;
/// Time of a join without an answer of a node. Later: the join is sent again.
pub const NODE_JOIN_AGE_MAX: Duration = Duration::from_secs(10);
/// Time for which a device's join waits for a home of its room. Above: refused with an error frame, `no_home`.
pub const NO_HOME_AGE_MAX: Duration = Duration::from_secs(10);
/// Pause before a join is asked again of a node that did not take it as the room's home, and between two looks for
/// joins past [`NO_HOME_AGE_MAX`]. Above: the members of a moved room wait longer than the move took.
pub const NO_HOME_RETRY: Duration = Duration::from_millis(500);
/// Calls of the doors to other nodes that wait for the cluster's thread. Above: 503 `inbox_full`.
pub const NODE_CALLS_MAX: usize = 1024;
/// Bytes of a link's message, the largest payload of a NATS server by default. Above: an entry is cut into parts.
pub const LINK_MESSAGE_BYTES_MAX: usize = MIB;
/// Bytes of a link's message beside its entries. Above: the message is refused.
pub const LINK_HEADER_BYTES_MAX: usize = 16 * KIB;
/// Bytes of a message of several entries. Above: the next message takes the rest.
pub const LINK_BUNDLE_BYTES_MAX: usize = 64 * KIB;
/// Pause between two crowds of a link: joins, welcomes, departures and acknowledgements gather meanwhile. A join storm
/// costs a message for each pause, and not for each join.
pub const LINK_CROWD_PAUSE: Duration = Duration::from_millis(10);
/// Joins, welcomes and other words of a crowd. At the bound: the crowd leaves at once.
pub const LINK_CROWD_MAX: usize = 256;
/// Joins, or members of a welcome, in a word between nodes. Above: the next word takes the rest; a word with more is
/// dropped.
pub const NODE_WORD_JOINS_MAX: usize = 256;
/// Words at the end of a crowd among which a word looks for one of its room that takes it in. Above: the word stays
/// apart.
pub const LINK_CROWD_LOOKS_MAX: usize = 8;
/// Bytes of an entry in a message of several. Above: the entry has a message of its own.
pub const LINK_BUNDLED_BYTES_MAX: usize = 8 * KIB;
/// Entries of a message. Above: the next message takes the rest; a message with more is refused.
pub const LINK_MESSAGE_ENTRIES_MAX: usize = 2048;
/// Bytes of an entry. Above: an answer is replaced by a refusal, and parts of such an entry reset the link.
pub const LINK_ENTRY_BYTES_MAX: usize = 6 * MIB;
/// Batches of a link without an ack. Above: a batch lapses.
pub const LINK_BATCHES_MAX: usize = 256;
/// Bytes of batches of a link without an ack. Above: a batch lapses.
pub const LINK_BATCH_BYTES_MAX: usize = 8 * MIB;
/// Time of a batch without an ack, or three round trips if those take longer. Later: the batch lapses.
pub const LINK_BATCH_AGE_MAX: Duration = Duration::from_millis(250);
/// Bytes of a link's kept entries without an ack. Above: the link begins anew.
pub const LINK_KEPT_BYTES_MAX: usize = 8 * MIB;
/// Time of a kept entry without an ack. Later: the link begins anew.
pub const LINK_KEPT_AGE_MAX: Duration = Duration::from_secs(2);
/// Bytes of kept entries at which a link takes no further call. Above: 503 `inbox_full`.
pub const LINK_CALL_BYTES_MAX: usize = 4 * MIB;
/// Bytes of kept entries beside an answer of a call that is larger than [`LINK_CALL_BYTES_MAX`] allows. Above: the
/// answer waits, as do small ones at [`LINK_CALL_BYTES_MAX`].
pub const LINK_BESIDE_ANSWER_BYTES: usize = MIB;
/// Bytes of answers to calls of another node that wait for the link. Above: the outcome is unknown.
pub const LINK_ANSWERS_BYTES_MAX: usize = 64 * MIB;
/// Longest time of a taken message without an ack.
pub const LINK_ACK_AGE_MAX: Duration = Duration::from_millis(10);
/// Taken messages without an ack. At the bound: an ack is sent at once.
pub const LINK_ACK_MESSAGES: usize = 16;
/// Taken entries without an ack. At the bound: an ack is sent at once.
pub const LINK_ACK_ENTRIES: usize = 1024;
/// Shortest time before a kept message is sent again.
pub const LINK_REPEAT_AGE_MIN: Duration = Duration::from_millis(100);
/// Longest time before a kept message is sent again.
pub const LINK_REPEAT_AGE_MAX: Duration = Duration::from_millis(500);
/// Bytes of messages that are sent again at once. Above: the rest follows after [`LINK_REPEAT_PAUSE`].
pub const LINK_REPEAT_BYTES_MAX: usize = 256 * KIB;
/// Pause between two bursts of repeated messages.
pub const LINK_REPEAT_PAUSE: Duration = Duration::from_millis(10);
/// Messages behind a lost one that are held until it is repeated. Above: dropped, and repeated or lapsed.
pub const LINK_HELD_MESSAGES_MAX: usize = 4096;
/// Bytes of messages behind a lost one. Above: dropped, and repeated or lapsed.
pub const LINK_HELD_BYTES_MAX: usize = LINK_KEPT_BYTES_MAX + LINK_BATCH_BYTES_MAX;
/// Runs of skipped messages that an ack names. Above: no honest node, and the link begins anew.
pub const LINK_SKIPS_MAX: usize = 512;
/// Entries of a link that wait for a shard with a full way, and lapses that wait so. Above half of it: messages of the
/// other node are dropped, and repeated or lapsed. Above: the link begins anew.
pub const LINK_WAITING_ENTRIES_MAX: usize = 4096;
/// Bytes of entries of a link that wait for a shard with a full way. Above half of it: messages of the other node are
/// dropped, and repeated or lapsed.
pub const LINK_WAITING_BYTES_MAX: usize = 2 * LINK_ENTRY_BYTES_MAX;
/// Former links to nodes that may come back. Above: the oldest is forgotten, and a link to that node begins
/// with a reset.
pub const LINKS_PARTED_MAX: usize = 256;
/// Frames of a link that its later words name by number. Above: the oldest is sent whole again.
pub const LINK_FRAMES_KEPT_MAX: usize = 512;
/// Bytes of such frames. Above: the oldest is sent whole again.
pub const LINK_FRAMES_KEPT_BYTES_MAX: usize = 4 * MIB;
/// Bytes of the smallest frame that is named by number. Below: a frame is sent whole each time.
pub const LINK_FRAME_KEPT_BYTES_MIN: usize = 64;
/// Pieces of history in a word between nodes. Above: no node says so, and the word is dropped.
pub const NODE_PIECES_MAX: usize = 1024;
/// Bytes of the path and query of a call. Above: the call is dropped.
pub const NODE_TARGET_BYTES_MAX: usize = 8 * KIB;
/// Bytes of a content type between nodes. Above: the word is dropped.
pub const NODE_CONTENT_TYPE_BYTES_MAX: usize = 256;
/// Longest age, and longest time for acknowledgements, that a word between nodes names. Above: no node says so, and
/// the word is dropped.
pub const NODE_AGE_MAX: Duration = Duration::from_secs(3600);
/// Time of a call without an answer. Later: the outcome is unknown.
pub const NODE_CALL_AGE_MAX: Duration = Duration::from_secs(10);
/// Calls of a link without an answer, in each direction. Above: 503 `inbox_full`.
pub const LINK_CALLS_MAX: usize = 1024;
/// Words of a shard, or calls, that the cluster's thread takes in one turn. Above: the next turn.
pub const EXCHANGE_TURN_WORDS_MAX: usize = 512;
/// Pause before words that found a shard's way full are sent again.
pub const EXCHANGE_PUMP_INTERVAL: Duration = Duration::from_millis(2);
/// Calls of other nodes that the doors answer at the same time. Above: further calls wait.
pub const NODE_CALLS_ANSWERED_MAX: usize = 4096;
/// Time for other nodes to give their part of a receipt, a room's view or a list of rooms. Later: the node is
/// named as silent, and the answer goes without it.
pub const NODE_PART_AGE_MAX: Duration = Duration::from_secs(1);
/// Age of the oldest entry of a link without an ack. From here on: the status of the cluster names the link.
pub const LINK_LAG_MAX: Duration = Duration::from_secs(1);
/// Time of `roomcast cluster status` from its question to the end of the answer. Later: no answer.
pub const STATUS_AGE_MAX: Duration = Duration::from_secs(5);
/// Bytes of an answer to `roomcast cluster status`. Above: no answer.
pub const STATUS_BYTES_MAX: u64 = 4 * MIB as u64;
/// Age of a node's own heartbeat, as it comes back from NATS. Above: 503 `cluster_unreachable`.
pub const UNREACHABLE_AFTER: Duration = Duration::from_secs(2);
/// Taken places of a node, in thousandths. Above: devices of rooms elsewhere are sent to their home.
pub const NODE_SEATS_PERMILLE_MAX: u64 = 800;
/// Processor time of a node's busiest shard, in thousandths. Above: as for [`NODE_SEATS_PERMILLE_MAX`].
pub const NODE_BUSY_PERMILLE_MAX: u64 = 900;
/// Devices that a node sends to other nodes in a second. Above: the others stay until the next second.
pub const ELSEWHERE_PER_SECOND: u32 = 64;
/// Time between two closes of one device with 4005. Below: the device stays.
pub const ELSEWHERE_INTERVAL: Duration = Duration::from_secs(60);
/// Free places of a home, in thousandths. Below: the routes of its cold rooms name the heir as well.
pub const ROUTE_FREE_PERMILLE_MIN: u64 = 100;
/// Life of a route at a device: the device asks again after it.
pub const ROUTE_TTL: Duration = Duration::from_secs(10);
/// Life of a route at a door. Later: the route is asked for anew.
pub const ROUTE_AGE_MAX: Duration = Duration::from_secs(1);
/// Nodes of a route. Above: those with the least weight are left out.
pub const ROUTE_NODES_MAX: usize = 64;
/// Routes that a door remembers. Above: all are forgotten.
pub const ROUTES_MAX: usize = 16 * KIB;
/// Longest region of a route, in bytes. Above: 400.
pub const REGION_BYTES_MAX: usize = 32;

/// Time without a change of members before slots move to the nodes that should hold them. Earlier: they stay.
pub const BALANCE_CALM_AGE: Duration = Duration::from_secs(30);
/// Interval in which a node hands over one slot that another node should hold. Earlier: the others wait for their turn.
pub const BALANCE_INTERVAL: Duration = Duration::from_secs(1);
/// Slots that a node hands over at the same time. Above: the others wait for their turn.
pub const HAND_OVERS_MAX: usize = 4;
/// Time in which the rooms of a slot settle before a hand-over. Later: the hand-over is given up, and the home goes on.
pub const HAND_OVER_PACK_AGE_MAX: Duration = Duration::from_millis(250);
/// Time from the begin of a hand-over to the claim of the next home. Later: the home claims the slot itself, which ends
/// the hand-over either way.
pub const HAND_OVER_AGE_MAX: Duration = Duration::from_millis(500);
/// Pause before a slot is handed over again.
pub const HAND_OVER_RETRY: Duration = Duration::from_millis(500);
/// Time of a drain for hand-overs. Later: slots that are left are taken over by others.
pub const HAND_OVER_DRAIN_AGE_MAX: Duration = Duration::from_secs(8);
/// Time for which a node that has handed its slots over goes on answering other nodes. Later: a request of a node that
/// has not heard of the next home by then gets 503 `node_silent`.
pub const HAND_OVER_LINGER: Duration = Duration::from_millis(250);
/// Time of a drain for the goodbyes to devices, before the hand-overs begin. Later: devices that are left stay members
/// at the next homes of their rooms until the node ends.
pub const FAREWELL_AGE_MAX: Duration = Duration::from_secs(5);
/// Interval of looks at rooms that are to settle for a hand-over.
pub const HAND_OVER_LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Time for which a request to a home waits for the end of a hand-over. Later: 503 `no_home`.
pub const HAND_OVER_HOLD_MAX: Duration = Duration::from_millis(1500);
/// Bytes of a room's state for its next home. Above: the room begins another run there.
pub const ROOM_STATE_BYTES_MAX: usize = MIB;
/// Bytes of the states of a slot's rooms on one shard. Above: further rooms begin another run at their next home.
pub const SLOT_STATES_BYTES_MAX: usize = 16 * MIB;
/// Bytes of states that a shard keeps for slots that it may get. Above: further rooms begin another run.
pub const ARRIVING_BYTES_MAX: usize = 64 * MIB;
/// Time for which a shard keeps the states of a slot that it does not get.
pub const ARRIVING_AGE_MAX: Duration = Duration::from_secs(10);
/// Bytes of a link's kept entries at which states of rooms wait for the link. Above: they wait.
pub const LINK_STATES_BYTES_MAX: usize = 2 * MIB;
/// Bytes of states that wait for a link. Above: a state is left out, and its room begins another run.
pub const LINK_STATES_WAITING_BYTES_MAX: usize = 128 * MIB;
/// Different members of a segment that are told to the next home of their room. Above: the room is not handed over.
pub const ROLL_ENTRIES_MAX: usize = 32_768;
/// Time for which a branch keeps its words for the next home of its room. Later: its members join again.
pub const BRANCH_PAUSED_AGE_MAX: Duration = Duration::from_secs(2);
/// Words that a branch keeps for the next home of its room. Above: its members join again.
pub const BRANCH_PAUSED_WORDS_MAX: usize = 4096;

/// Shortest time between two words of a home about the rooms of a slot to the heir of the slot. Totals and latest
/// values are behind by as much at most when the heir takes the slot over.
pub const KEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Time after which a home says the rooms of a slot whole again. It heals words that were left out.
pub const KEEP_RENEWAL: Duration = Duration::from_secs(120);
/// Bytes of rooms in a word to an heir. Above: the next word takes the rest.
pub const KEEP_WORD_BYTES_MAX: usize = 64 * KIB;
/// Rooms of such a word. Above: the next word takes the rest; a word with more is dropped.
pub const KEEP_WORD_ROOMS_MAX: usize = 256;
/// Bytes of a link's kept entries at which such words wait: batches, joins and rooms that are handed over come first.
pub const LINK_KEEPS_BYTES_MAX: usize = 256 * KIB;
/// Bytes of such words that wait for a link. Above: a word is left out, and its rooms are older at the heir until they
/// are said whole.
pub const LINK_KEEPS_WAITING_BYTES_MAX: usize = 16 * MIB;
/// Bytes of rooms that a node keeps for takeovers, shared out evenly to its shards. Above: the rooms that were not
/// heard of for longest are forgotten, and counted.
pub const KEPT_BYTES_MAX: usize = 256 * MIB;
/// Time since the last word about a kept room. Later: the room is forgotten. Its home says it more often.
pub const KEPT_AGE_MAX: Duration = Duration::from_secs(300);

/// Interval of a node's reports of its demand to the dividers of limits.
pub const QUOTA_REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// Interval at which a limit of the cluster is divided anew.
pub const QUOTA_DIVISION_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two divisions: a node that comes has the limit divided at once.
pub const QUOTA_DIVISION_PAUSE: Duration = Duration::from_millis(100);
/// Time in which nodes say that they have taken smaller shares. Later: the larger ones are told as far as places are
/// free.
pub const QUOTA_RAISE_PAUSE: Duration = Duration::from_millis(50);
/// Age of a share, since the sending of the report that it answers. Later: the node keeps to limit ÷ known nodes.
pub const QUOTA_SHARE_AGE_MAX: Duration = Duration::from_secs(3);
/// Time since the last report of a node. Later: its share has ended, by a clock that runs slower too, and is free.
pub const QUOTA_RESERVED_AGE: Duration = Duration::from_millis(3500);
/// Interval at which a node looks at its limits and the ends of its shares.
pub const QUOTA_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Limits that a node divides. Above: the nodes of a further one keep to limit ÷ known nodes.
pub const QUOTAS_DIVIDED_MAX: usize = 16;
/// Shares of a node that no report has confirmed. Above: the last one counts as large as the one before it.
pub const QUOTA_UNCONFIRMED_MAX: usize = 8;
/// Limits in a word between nodes. Above: the word is dropped.
pub const QUOTA_LINES_MAX: usize = QUOTAS_DIVIDED_MAX;
/// Bytes of a word about shares. Above: dropped, unread.
pub const QUOTA_BYTES_MAX: usize = 4 * KIB;
/// Places a second of a limit, and of a demand. Above: the word is dropped.
pub const QUOTA_PLACES_MAX: u64 = 1_000_000;
