//! Every bound of the engine: name, value, and the reaction past the bound.
//!
//! A bound lives here, or beside in `nodes`, and nowhere else. A configurable bound has its default here.
//! `Above:`, `Below:` and `Later:` name the reaction. Relations between bounds are const assertions at the end: a
//! change that breaks a relation does not compile.

mod nodes;

pub use nodes::*;

use std::ops::RangeInclusive;
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Longest room name, in bytes. Above: 400, at the handshake as well.
pub const ROOM_NAME_BYTES_MAX: usize = 128;
/// Longest type name, in bytes. Above: 400.
pub const TYPE_NAME_BYTES_MAX: usize = 64;
/// Longest merge key, in bytes. Above: 400.
pub const KEY_BYTES_MAX: usize = 128;
/// Longest `id` of a publisher, in bytes. Above: 400.
pub const ID_BYTES_MAX: usize = 64;
/// Longest device name, in bytes. Above: 400 at the handshake.
pub const DEVICE_NAME_BYTES_MAX: usize = 64;
/// Largest payload, in bytes. Above: 413.
pub const PAYLOAD_BYTES_MAX: usize = 16 * KIB;
/// Deepest nesting of a JSON payload. Above: 400 `payload_not_json`. A frame has three levels around it: readers
/// whose own bound is 64 by default have to raise theirs.
pub const PAYLOAD_DEPTH_MAX: usize = 64;
/// Longest number of a JSON text, in bytes. Above: 400 `payload_not_json`. Jackson refuses longer ones.
pub const JSON_NUMBER_BYTES_MAX: usize = 1000;
/// Largest `count` of a message. Above: 400.
pub const COUNT_MAX: u64 = 1_000_000_000;
/// Largest integer on the wire: 2^53 − 1, exact in a JSON reader with doubles (RFC 7493 §2.2). Above: totals
/// saturate.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Shortest `ttl_ms`. Below: 400.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// Longest `ttl_ms`. Above: 400.
pub const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Life of a reliable message without a `ttl_ms` from its publisher or its type.
pub const TTL_DEFAULT: Duration = Duration::from_secs(600);
/// Longest wait of a best-effort message for a flush, unless the publisher or the type says otherwise. Later:
/// shed as `expired`.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// Bytes of a count in JSON, the larger encoding: `,"count":` and sixteen digits.
pub const COUNT_WIRE_BYTES: usize = 9 + 16;
/// Bytes of a counter's change in a frame beside its name, in the larger encoding: increment and total.
pub const CHANGE_WIRE_BYTES: usize = 22 + 2 * 16;
/// Bytes of a frame's fields beside messages and counts, with room to spare for the longest names.
pub const FIELDS_WIRE_BYTES: usize = 600;
/// Largest weight of a type. Above: refused at start, or 400.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// Largest configured rate, in messages a second, and largest burst, in messages. Above: refused at start, or
/// 400.
pub const RATE_MAX: u32 = 1_000_000;
/// Types changed by one `PUT` of a room. Above: 400.
pub const TYPES_CHANGED_MAX: usize = 64;
/// Default of `limits.outbound_bytes`: bytes owed to all devices of a node together.
pub const OUTBOUND_BYTES: u64 = 1024 * MIB as u64;
/// Smallest `limits.outbound_bytes`. Below: refused at start.
pub const OUTBOUND_BYTES_LEAST: u64 = 16 * MIB as u64;
/// Largest `limits.outbound_bytes`. Above: refused at start.
pub const OUTBOUND_BYTES_MOST: u64 = 1024 * 1024 * MIB as u64;
/// Messages of a publish request. Above: 400.
pub const REQUEST_MESSAGES_MAX: usize = 1000;
/// Bytes of a publish request. Above: 413.
pub const REQUEST_BYTES_MAX: usize = MIB;

/// Messages waiting in a room. Above: `shed: room_full`.
pub const GATHERED_MESSAGES_MAX: usize = 10_000;
/// Encoded bytes waiting in a room. Above: `shed: room_full`.
pub const GATHERED_BYTES_MAX: usize = 4 * MIB;
/// Keys of class latest in a room. Above: `shed: latest_keys_full`.
pub const LATEST_KEYS_MAX: usize = 128;
/// Largest payload of class latest, in bytes. Above: 400.
pub const LATEST_PAYLOAD_BYTES_MAX: usize = 4 * KIB;
/// Counter types of a room. Above: `shed: counter_types_full`.
pub const COUNTER_TYPES_MAX: usize = 32;
/// Types in the account of a room, beside the reliable ones and `online`. Above: `shed: types_full`.
pub const ROOM_TYPES_MAX: usize = 256;
/// Seqs in the account of a room. Above: a member with a longer gap is closed, resumably.
pub const ACCOUNT_SEQS_MAX: u64 = 2048;
/// Messages in a room's history. Above: the oldest go.
pub const HISTORY_MESSAGES_MAX: usize = 200;
/// Encoded bytes of a room's history. Above: the oldest go.
pub const HISTORY_BYTES_MAX: usize = 256 * KIB;
/// Age of a message in a room's history. Above: the message goes.
pub const HISTORY_AGE_MAX: Duration = Duration::from_secs(60);
/// Time for which an `id` makes a publish idempotent.
pub const ID_AGE_MAX: Duration = Duration::from_secs(300);
/// Ids of best-effort messages in the memory of a room. Above: the oldest go, counted.
pub const IDS_MAX: usize = 4096;
/// Time without members or messages. Later: the room is forgotten.
pub const ROOM_IDLE: Duration = Duration::from_secs(600);
/// Rooms of a node. Above: 503 `rooms_full`.
pub const ROOMS_MAX: usize = 200_000;
/// Rooms of a node that only devices have opened. Above: joins to new rooms are refused with `rooms_full`; the
/// rest of [`ROOMS_MAX`] is kept for publishers.
pub const DEVICE_ROOMS_MAX: usize = ROOMS_MAX / 4 * 3;
/// Shortest time between two audience messages (`online`) of a room.
pub const AUDIENCE_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two flushes of a room with at most `flush.direct_members` members.
pub const DIRECT_SPACING: Duration = Duration::from_millis(10);

/// Alive reliable messages of a room, recalls aside ([`STREAM_RECALLS_MAX`]). Above: 503 `stream_full`.
pub const STREAM_MESSAGES_MAX: usize = 1024;
/// Encoded bytes of a room's alive reliable messages. Above: 503 `stream_full`.
pub const STREAM_BYTES_MAX: usize = 8 * MIB;
/// Reliable messages in a room's memory. Above: the oldest are read from the store on demand.
pub const TAIL_MESSAGES_MAX: usize = 64;
/// Encoded bytes of the reliable messages in a room's memory. Above: as for [`TAIL_MESSAGES_MAX`].
pub const TAIL_BYTES_MAX: usize = MIB;
/// Living recalls of a room beside the living messages. Above: further recalls take a message's place.
pub const STREAM_RECALLS_MAX: usize = STREAM_MESSAGES_MAX;
/// Reliable messages with a receipt in a room, dead messages included. Above: the oldest dead messages lose
/// the receipt.
pub const RECEIPTS_MAX: usize = 3 * STREAM_MESSAGES_MAX;
/// Names in the receipts of a room. Above: further devices count as connections.
pub const RECEIPT_DEVICES_MAX: usize = 65_536;
/// Encoded bytes of reliable messages in a carry. Above: the rest waits for the next carry, but a frame takes
/// at least the first message.
pub const CARRY_BYTES_MAX: usize = 8 * KIB;
/// Encoded bytes of reliable messages in a frame to a member catching up. Above: the rest follows in the next
/// frame, but a frame takes at least the first message.
pub const CATCH_UP_BYTES_MAX: usize = 64 * KIB;
/// Encoded bytes of reliable messages in a frame to a member whose device is slow or unproven. Above: as for
/// [`CATCH_UP_BYTES_MAX`].
pub const CATCH_UP_SMALL_BYTES_MAX: usize = 7 * KIB;
/// Bytes of a refresh for a slow or unproven device. Above: further refreshes follow. One reliable message or one
/// latest value goes in any case, and the counts of all types.
pub const REFRESH_SMALL_BYTES_MAX: usize = 8 * KIB;
/// Bytes of latest values in a refresh for a slow or unproven device: a reliable message waits until the frame
/// before it is taken. Above: further refreshes follow.
pub const REFRESH_LATEST_BYTES_MAX: usize = 4 * KIB;
/// Bytes of latest values in such a refresh beside reliable messages. Above: further refreshes follow.
pub const REFRESH_RIDING_BYTES_MAX: usize = KIB;
/// Encoded bytes of reliable messages in a welcome. Above: the rest follows while the member catches up.
pub const WELCOME_RELIABLE_BYTES_MAX: usize = 12 * KIB;
/// Encoded bytes of reliable messages in an answer of the pull side. Above: the reader asks again.
pub const PULL_BYTES_MAX: usize = 512 * KIB;
/// Messages parked while the stream of their room loads; parked requests of other sorts have the same bound.
/// Above: 503 `store_failing`.
pub const PARKED_MAX: usize = STREAM_MESSAGES_MAX;
/// Longest wait of joins and publishes for the loading of a stream. Later: devices join without the stream,
/// publishers hear 503 `store_failing`.
pub const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// Pause of a room between a failed request to the store and the next request.
pub const STORE_RETRY: Duration = Duration::from_secs(1);
/// Shortest time over which devices spread acknowledgements.
pub const ACK_WITHIN_MIN: Duration = Duration::from_millis(200);
/// Longest time over which devices spread acknowledgements.
pub const ACK_WITHIN_MAX: Duration = Duration::from_secs(5);
/// Members of a room for each millisecond of `ack_within_ms`. Example: 20 000 members spread over 1 s.
pub const ACK_MEMBERS_PER_MS: u64 = 20;
/// Time added to `ack_within_ms` before a message is carried.
pub const ACK_GRACE: Duration = Duration::from_millis(500);
/// Attempts to carry at the same delay, the first included. Above: each delay is [`CARRY_DELAY_STEP`] longer.
pub const CARRY_STEADY_ATTEMPTS: u32 = 4;
/// Growth of the delay with each attempt after [`CARRY_STEADY_ATTEMPTS`].
pub const CARRY_DELAY_STEP: Duration = Duration::from_secs(1);
/// Longest delay between two attempts to carry, jitter aside.
pub const CARRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// Largest jitter of a delay, in percent of the delay.
pub const CARRY_JITTER_PERCENT: u64 = 10;
/// Shortest time between two looks of a segment for members to carry for.
pub const CARRY_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Distinct carry frames under request by a segment. Above: the rest waits for the next look.
pub const CARRY_STATES_MAX: usize = 256;

/// Messages waiting for a shard. Above: 503 with `Retry-After`.
pub const INBOX_MESSAGES_MAX: usize = 4096;
/// Bytes waiting for a shard. Above: 503 with `Retry-After`.
pub const INBOX_BYTES_MAX: usize = 32 * MIB;
/// Share of [`INBOX_MESSAGES_MAX`] open to publishes without a reliable message; the rest is kept for
/// reliable messages. Above: 503.
pub const INBOX_BEST_EFFORT_MESSAGES_MAX: usize = INBOX_MESSAGES_MAX / 4 * 3;
/// Share of [`INBOX_BYTES_MAX`] open to publishes without a reliable message. Above: 503.
pub const INBOX_BEST_EFFORT_BYTES_MAX: usize = INBOX_BYTES_MAX / 4 * 3;
/// Longest expected wait of a publish for a shard with a standing queue ([`INBOX_STANDING`]) or on a step of
/// the ladder. Above: publishes without a reliable message are refused, 503 with `Retry-After`.
pub const INBOX_AGE_MAX: Duration = Duration::from_millis(25);
/// Time for which each publish has to have waited [`INBOX_AGE_MAX`] before the queue counts as standing.
/// Below: the queue is a burst, and the doors stay open.
pub const INBOX_STANDING: Duration = Duration::from_millis(100);
/// Other requests (describe, configure, close) waiting for a shard. Above: 503.
pub const REQUESTS_MAX: usize = 1024;
/// Frames of a frame lane. Above: the segment misses the batch and heals by refresh.
pub const FRAME_LANE_FRAMES_MAX: usize = 256;
/// Entries of a control lane. Above: further entries wait on the sending shard.
pub const CONTROL_LANE_ENTRIES_MAX: usize = 1024;
/// Entries waiting on a shard for a control lane. Above: joins are refused with an error frame.
pub const CONTROL_WAITING_MAX: usize = 65_536;

/// Members visited by a pass between two yields.
pub const PASS_TURN_MEMBERS: usize = 128;
/// Batches waiting in a segment for the next pass. Above: the home stops cutting.
pub const SEGMENT_QUEUED_MAX: usize = 4;
/// Distinct refreshes under request by a segment. Above: the rest waits.
pub const REFRESH_STATES_MAX: usize = 256;
/// Frames owed to a device. Above: the connection is behind.
pub const OUTBOX_FRAMES_MAX: usize = 4;
/// Bytes owed to a device; a frame offered to an empty outbox is exempt. Above: the connection is behind.
pub const OUTBOX_BYTES_MAX: usize = 64 * KIB;
/// Frames owed to a device when an answer to the device (pong, joined, left, error) is added. Above: close
/// 1008.
pub const OUTBOX_NOTICES_MAX: usize = 16;
/// Age of the oldest owed frame. Above: the connection is behind.
pub const OUTBOX_AGE_MAX: Duration = Duration::from_secs(1);
/// Time in which a device takes nothing of the owed bytes. Later: close 4001, resumable.
pub const PROGRESS_AGE_MAX: Duration = Duration::from_secs(10);
/// Age of an owed frame, however the device drips. Above: close 4001, resumable. A welcome of 512 KiB takes
/// 64 s at 64 kbit/s, so honest slow devices stay below.
pub const OWED_AGE_MAX: Duration = Duration::from_secs(90);
/// Time for which a connection is behind. Later: close 4002, resumable.
pub const BEHIND_AGE_MAX: Duration = Duration::from_secs(15);
/// Age of an owed frame at the head of the outbox, a welcome or a piece of history aside, or 1.25 of its time at
/// [`RATE_PRESUMED`], if that is more. Above: close 4002, resumable. The frame may bring a reliable message.
pub const FIRST_OWED_AGE_MAX: Duration = Duration::from_secs(15);
/// Bytes a second presumed of a device until [`PROOF_BYTES`] are measured: 64 kbit/s, headers aside.
pub const RATE_PRESUMED: u32 = 8_000;
/// Bytes measured before the rate of a device counts.
pub const PROOF_BYTES: u16 = 16 * 1024;
/// Bytes a second of a device that is offered frames of any size. Below: frames above
/// [`SMALL_FRAME_BYTES_MAX`] are offered as far as the rate allows, and else missed.
pub const FAST_RATE_MIN: u32 = 64_000;
/// Bytes of level frames offered in one pass to every member with an empty outbox, whatever the rate. A pass
/// with more is for fast devices.
pub const SMALL_FRAME_BYTES_MAX: usize = 8_000;
/// Bytes in the kernel for a device of unknown rate, with the level frames offered to it: 2.2 s at 64 kbit/s.
/// One message of [`PAYLOAD_BYTES_MAX`] as JSON fits, so each room has frames that prove a fast device. Above:
/// the batch is missed, unless the frames are small.
pub const UNPROVEN_BYTES_MAX: usize = 17_000;
/// Bytes of passes between two looks at the devices that are not fast, in a room that goes on at one rate: the
/// distance doubles from [`SMALL_FRAME_BYTES_MAX`] to this one.
pub const SIGHT_BYTES_MAX: usize = 64_000;
/// Time after which a device that was slow is offered as much as one of unknown rate, once: its network may be
/// better, and a frame that it never gets measures nothing.
pub const RATE_TRIAL_INTERVAL: Duration = Duration::from_secs(10);
/// Longest time for a frame at the rate of the device. Longer: the batch is missed.
pub const FRAME_AGE_MAX: Duration = Duration::from_secs(1);
/// Longest time for all owed bytes at the rate of the device. Longer: the connection is behind.
pub const OUTBOX_RATE_AGE_MAX: Duration = Duration::from_millis(750);
/// Most unsent bytes in the kernel for a device (`TCP_NOTSENT_LOWAT`), for one that is fast.
pub const KERNEL_UNSENT_BYTES_MAX: u32 = 16 * 1024;
/// Unsent bytes in the kernel for a device that is slow or unproven.
pub const KERNEL_UNSENT_BYTES_MIN: u32 = 4 * 1024;
/// Time for the unsent bytes in the kernel at the rate of the device, between the two bounds before.
pub const KERNEL_UNSENT_AGE_MAX: Duration = Duration::from_millis(500);
/// Bytes sent and unsent in the kernel, without an acknowledgement, for a device that is not fast: the least.
/// A device with fewer is not asked to give any up.
pub const KERNEL_QUEUED_BYTES_MIN: u32 = 4 * 1024;
/// The same for a device of unknown rate: 1 s at 64 kbit/s. Above: the socket takes no more.
pub const KERNEL_QUEUED_BYTES_UNPROVEN: u32 = 8 * 1024;
/// The same: the most. A fast device has no such bound.
pub const KERNEL_QUEUED_BYTES_MAX: u32 = 32 * 1024;
/// Time for the bytes in the kernel at the rate of the device, between the least and the most.
pub const KERNEL_QUEUED_AGE_MAX: Duration = Duration::from_millis(500);
/// Longest round trip whose bytes the kernel may hold besides. Above: as for this one.
pub const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);
/// Bytes of one write to a device with such a bound. The kernel looks at the bound before each segment that it
/// begins, and a segment is as long as a write.
pub const KERNEL_WRITE_BYTES_MAX: usize = 1200;
/// Bytes of one burst beyond every link's bucket. A burst below proves twice the rate known before, no more.
pub const BUCKET_BYTES_MAX: u64 = 256 * 1024;
/// Time of a burst that proves a rate. Shorter: the next look measures on.
pub const PROOF_TIME_MIN: Duration = Duration::from_millis(100);
/// Time of a closing connection for the goodbye. Later: the socket is dropped.
pub const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// Largest message from a device, all fragments together, in bytes. Above: close 1009.
pub const DEVICE_MESSAGE_BYTES_MAX: usize = 4 * KIB;
/// Frames a second from a device, joined rooms aside. Above: close 1008.
pub const DEVICE_FRAMES_PER_SECOND: u32 = 20;
/// Further frames a second from a device for each joined room.
pub const DEVICE_FRAMES_PER_SECOND_AND_ROOM: u32 = 5;
/// Rooms of a connection. Above: error frame `too_many_rooms`.
pub const ROOMS_PER_CONNECTION_MAX: usize = 16;
/// Time for the head of a request. Later: closed.
pub const HANDSHAKE_AGE_MAX: Duration = Duration::from_secs(5);
/// Time for the body of a request. Later: closed.
pub const BODY_AGE_MAX: Duration = Duration::from_secs(10);
/// Connections before the upgrade. Above: the address that holds most gives way.
pub const HALF_OPEN_MAX: usize = 1024;
/// Connections of the publisher door, and of the operator door. Above: the address that holds most gives way.
pub const DOOR_CONNECTIONS_MAX: usize = 1024;
/// Time without a whole request, or without taking a part of an answer, for a connection at a full door. Later:
/// the place goes to a waiting connection.
pub const FULL_DOOR_GRACE: Duration = Duration::from_secs(1);
/// Time without a whole request for a half-open connection of the address that holds most places of a full
/// door. Later: as for [`FULL_DOOR_GRACE`]. 1 024 places so take 10 000 silent connections a second.
pub const HALF_OPEN_GRACE: Duration = Duration::from_millis(100);
/// Places of a door, or of the pages, per newcomer of the largest address that waits aside while all are taken.
/// More newcomers: closed; a reader hears 503 `pulls_full`.
pub const PLACES_PER_ASIDE: usize = 4;
/// Pages of history not yet wholly with the kernel. Above: a page that nobody takes gives way, else 503
/// `pulls_full`.
pub const PULLS_MAX: usize = 64;
/// Wait of a reader for a place among the pages. Later: 503 `pulls_full`.
pub const PULL_PATIENCE: Duration = Duration::from_millis(1500);
/// Networks in `proxy.trusted`. Above: refused at start.
pub const PROXIES_MAX: usize = 64;
/// Bytes of a header of the PROXY protocol behind its first 16. Above: closed.
pub const PROXY_BYTES_MAX: usize = 4 * KIB;
/// Bytes read and dropped behind a refusal, so that the peer finds the answer. Above: closed; the answer may be
/// lost.
pub const REFUSED_BYTES_MAX: usize = 8 * MIB;
/// Time in which the bytes behind a refusal are read and dropped. Later: as above.
pub const REFUSED_AGE_MAX: Duration = Duration::from_secs(5);
/// Time for a peer to acknowledge sent bytes or to open the window (`TCP_USER_TIMEOUT`), also after the node
/// let go of the socket. Later: the kernel drops the connection and the bytes.
pub const KERNEL_UNACKED_AGE_MAX: Duration = Duration::from_secs(30);
/// Bytes of a request's head, target included. Above: 431 and closed.
pub const HEAD_BYTES_MAX: usize = 16 * KIB;
/// Bytes of a connection buffered by a door. Above: the rest waits in the kernel.
pub const DOOR_BUFFER_BYTES_MAX: usize = 64 * KIB;
/// Time between two requests of a kept-alive connection. Later: closed.
pub const IDLE_AGE_MAX: Duration = Duration::from_secs(75);
/// Longest text of a close frame, in bytes (RFC 6455 §5.5). Above: the name of the reason is sent instead.
pub const CLOSE_TEXT_BYTES_MAX: usize = 123;
/// Time for a door's peer to take an answer. Later: closed. 256 KiB of history take 33 s at 64 kbit/s.
pub const ANSWER_AGE_MAX: Duration = Duration::from_secs(60);
/// Time for a shard to answer a door. Later: 503 `shard_silent`; 503 `node_silent` for a shard of another
/// node.
pub const SHARD_ANSWER_AGE_MAX: Duration = Duration::from_secs(10);
/// First pause of a door after a failed accept; doubles up to [`ACCEPT_PAUSE_MAX`].
pub const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause of a door after a failed accept.
pub const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Connections held by the kernel for a door before the accept.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Time of the doors for answers under way after the shards have drained. Later: the answers are cut.
pub const DOORS_LINGER: Duration = Duration::from_secs(1);
/// Rooms in an answer of `GET /v1/rooms`. Above: 400.
pub const ROOMS_LISTED_MAX: usize = 1000;
/// Rooms in an answer of `GET /v1/rooms` without a limit.
pub const ROOMS_LISTED_DEFAULT: usize = 50;
/// Largest `expected_audience`. Above: 400.
pub const EXPECTED_AUDIENCE_MAX: u64 = 100_000_000;
/// Longest `idle_close_s`. Above: 400.
pub const IDLE_CLOSE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time for a reload to read the configuration's files. Later: the reload is refused, and the node goes on with
/// the configuration in force.
pub const RELOAD_AGE_MAX: Duration = Duration::from_secs(5);
/// Time of `roomcast health` from its question to the end of the answer. Later: the node is not healthy.
pub const HEALTH_AGE_MAX: Duration = Duration::from_secs(3);
/// Bytes of an answer to `roomcast health`. Above: the node is not healthy.
pub const HEALTH_BYTES_MAX: u64 = 4096;
/// Descriptors kept for the doors, the store and the log. A node takes nofile minus this many connections.
/// Above: 503.
pub const DESCRIPTORS_KEPT: u64 = 128;
/// Bytes of a welcome, the frames behind the first one included. Above: the oldest history is left out; latest
/// values and totals stay whole.
pub const WELCOME_BYTES_MAX: usize = 512 * KIB;
/// Bytes of the first frame of a welcome. Above: further reliable messages and latest values follow in refreshes,
/// older history in pieces. One reliable message goes in any case.
pub const WELCOME_FIRST_BYTES_MAX: usize = 16 * KIB;
/// Bytes of a piece of history. A message above is in no piece.
pub const HISTORY_PIECE_BYTES_MAX: usize = 8_000;
/// Bytes of history behind a refresh for a slow or unproven device: two pieces. Above: only the newest.
pub const REFRESH_HISTORY_BYTES_MAX: usize = 2 * HISTORY_PIECE_BYTES_MAX;
/// Bytes in the kernel for a slow or unproven device. Above: the next piece of history waits.
pub const HISTORY_QUEUED_BYTES_MAX: u64 = 8 * 1024;
/// Default of `viewer.heartbeat_ms`. A device silent for 2.5 heartbeats is closed.
pub const HEARTBEAT: Duration = Duration::from_millis(25_000);
/// Longest time of a drain, the notice before it included.
pub const DRAIN_AGE_MAX: Duration = Duration::from_secs(30);
/// Default of `drain.notice_ms` off loopback: balancers ask every few seconds.
pub const DRAIN_NOTICE: Duration = Duration::from_secs(5);
/// Longest `drain.notice_ms`; the rest of the drain needs its time. Above: refused at start.
pub const DRAIN_NOTICE_MAX: Duration = Duration::from_secs(20);
/// Time within which the devices of a draining node come back elsewhere, as told in `bye`.
pub const RECONNECT_WITHIN: Duration = Duration::from_secs(30);
/// Time within which a device comes back after a close of this device alone.
pub const RECONNECT_SOON: Duration = Duration::from_secs(2);
/// Wait told to a refused publisher, in whole seconds.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Longest `Retry-After` of a join refused as `joining_too_fast`.
pub const JOIN_RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Time added to the spread of refused joins, since other devices join meanwhile.
pub const JOIN_RETRY_AFTER_SLACK: Duration = Duration::from_secs(2);
/// Joins at once, as the time in which `viewer.joins_per_second` allows as many; a single join always passes.
/// Above: 503 `joining_too_fast`.
pub const JOIN_BURST: Duration = Duration::from_millis(250);
/// Default of `viewer.joins_per_second`: joins of a node a second.
pub const JOINS_PER_SECOND: u32 = 20_000;
/// Smallest `viewer.joins_per_second`. Below: refused at start.
pub const JOINS_PER_SECOND_MIN: u32 = 1;
/// Largest `viewer.joins_per_second`. Above: refused at start.
pub const JOINS_PER_SECOND_MAX: u32 = 1_000_000;

/// Shortest `viewer.heartbeat_ms`. Below: refused at start.
pub const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
/// Longest `viewer.heartbeat_ms`. Above: refused at start.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(600);
/// Shards of a node. Above: refused at start.
pub const SHARDS_MAX: usize = 256;
/// Default of `shards.hot_members`. Above: the room is hot, and further members are placed on several shards.
pub const HOT_MEMBERS: u64 = 2000;
/// Largest `shards.hot_members`. Above: refused at start.
pub const HOT_MEMBERS_MAX: u64 = 1_000_000;
/// Names in `shards.hot_rooms`. Above: refused at start.
pub const HOT_ROOMS_MAX: usize = 10_000;
/// Range of `flush.cpu_share`. Outside: refused at start.
pub const CPU_SHARES: RangeInclusive<f64> = 0.05..=0.95;
/// Cost of a write to a device until the first measurement.
pub const WRITE_COST_FIRST: Duration = Duration::from_micros(7);
/// Widest stretch of a shard's windows, in thousandths. Above: `/readyz` and a metric report a shard with
/// more work than time.
pub const STRETCH_MAX_PERMILLE: u32 = 20_000;
/// Interval at which a shard weighs the cost of its passes and reports the load.
pub const LOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which a shard weighs the step of the ladder. The queue moves a shard by at most one step
/// an interval.
pub const LADDER_INTERVAL: Duration = Duration::from_millis(500);
/// Wait for a step up: each publish of the interval has waited at least as long.
pub const LADDER_DELAY_UP: Duration = Duration::from_millis(25);
/// Wait for a step down: at least one publish of the interval has waited less.
pub const LADDER_DELAY_DOWN: Duration = Duration::from_millis(5);
/// Refusals of publishes in an interval for a step up, counted once in [`INBOX_STANDING`]: four of five
/// counts mean refusals without a pause.
pub const LADDER_REFUSALS_UP: u32 = 4;
/// Most refusals of publishes in an interval, counted likewise, for a step down: now and then a burst does
/// not fit.
pub const LADDER_REFUSALS_DOWN: u32 = 2;
/// Owed bytes at which each step comes into force, in thousandths of `limits.outbound_bytes`, the first step
/// first.
pub const LADDER_OWED_PERMILLE: [u64; 5] = [800, 825, 850, 875, 900];
/// Distance below the entry in [`LADDER_OWED_PERMILLE`] at which a step is left again, in thousandths.
pub const LADDER_OWED_SLACK_PERMILLE: u64 = 50;
/// Shortest time between two reports of a hot room's members to the directory.
pub const SCATTER_INTERVAL: Duration = Duration::from_millis(100);
/// Longest gather window of a room. Above: refused at start, or 400.
pub const GATHER_MAX: Duration = Duration::from_secs(10);
/// Messages of a batch. Above: refused at start, or 400.
pub const BATCH_MESSAGES_MAX: usize = 10_000;
/// Smallest byte budget of a batch. Below: refused at start, or 400.
pub const BATCH_BYTES_MIN: usize = KIB;
/// Largest byte budget of a batch. Above: refused at start, or 400.
pub const BATCH_BYTES_MAX: usize = MIB;
/// Largest `flush.direct_members`, in members. Above: refused at start, or 400.
pub const DIRECT_MEMBERS_MAX: u64 = 1_000_000;
/// Longest spacing of early flushes. Above: refused at start, or 400.
pub const URGENT_SPACING_MAX: Duration = Duration::from_secs(10);
/// Bearer keys of a door in force together: the present key and the next. Above: refused at start.
pub const BEARER_KEYS_MAX: usize = 2;
/// Names of hosts for doors without keys. Above: refused at start.
pub const HOSTS_MAX: usize = 64;
/// Audiences, and issuers, of device tokens. Above: refused at start.
pub const CLAIM_VALUES_MAX: usize = 16;
/// Largest `limits.connections`. Above: refused at start.
pub const CONNECTIONS_MOST: u64 = 10_000_000;
/// Keys for device tokens; a token is tried with each key fitting the token's header. Above: refused at
/// start.
pub const DEVICE_KEYS_MAX: usize = 8;
/// Shortest HS256 secret, in bytes (RFC 7518 §3.2). Below: refused at start.
pub const SECRET_BYTES_MIN: usize = 32;
/// Largest file of a secret or a public key, in bytes. Above: refused at start.
pub const SECRET_BYTES_MAX: usize = 4 * KIB;
/// Longest device token, in bytes. Above: 401 `token_invalid`, unread.
pub const TOKEN_BYTES_MAX: usize = 4 * KIB;
/// Rooms and prefixes of a token; the connection keeps all. Above: 401 `token_invalid`.
pub const TOKEN_ROOMS_MAX: usize = 64;
/// Distance of a token's `nbf` into the future, since clocks of two machines never agree. Above: 401
/// `token_invalid`.
pub const TOKEN_SKEW: Duration = Duration::from_secs(5);
/// Default of `auth.lifetime_max_s`: the farthest `exp` of a device token. Above: 401 `token_invalid`.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Shortest `auth.lifetime_max_s`. Below: refused at start.
pub const TOKEN_LIFETIME_LEAST: Duration = Duration::from_secs(60);
/// Longest `auth.lifetime_max_s`. Above: refused at start.
pub const TOKEN_LIFETIME_MOST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Frames that a `token` frame counts for, since a signature costs the shard up to 0.1 ms. Above the allowed
/// frames: close 1008.
pub const TOKEN_FRAME_COST: u32 = 10;
/// Longest time from the end of a token to the close of its connection, in silence of the device.
pub const TOKEN_END_AGE_MAX: Duration = Duration::from_secs(6);

/// Bytes of the store, keys and rows. Above: reliable messages are refused, 503 `store_full`.
pub const STORE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Requests of a shard without an answer of the store, or with an answer not yet taken by the shard. Above:
/// `Busy`.
pub const STORE_WAITING_MAX: usize = 4096;
/// Encoded bytes of a shard's messages on the way to the store. Above: 503 `store_busy`.
pub const STORE_WAITING_BYTES_MAX: usize = 32 * MIB;
/// Messages of a commit. Above: the rest waits for the next.
pub const STORE_COMMIT_MESSAGES_MAX: usize = 1024;
/// Bytes of a commit, as encoded for devices. Above: the rest waits for the next.
pub const STORE_COMMIT_BYTES_MAX: usize = 4 * MIB;
/// Loads and pages between two commits. Above: the rest waits for the next turn.
pub const STORE_TURN_READS_MAX: usize = 16;
/// Time of a call of the store. Later: `/readyz` says `store_slow`, and the call goes on.
pub const STORE_CALL_AGE_MAX: Duration = Duration::from_secs(5);
/// First pause before a failed store is opened again; doubles up to [`STORE_REOPEN_PAUSE_MAX`].
pub const STORE_REOPEN_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a failed store is opened again.
pub const STORE_REOPEN_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Commits of a turn that meet damaged pages. Each one is done again in halves, so one damaged room among 1 024
/// takes 11. Above: a commit that fails is not done again, and its appends fail.
pub const STORE_COMMITS_FAILED_MAX: usize = 32;
/// Rooms with failed writes that a turn tries again, each in a commit of its own. Above: the appends of further
/// such rooms fail at once.
pub const STORE_TURN_SUSPECTS_MAX: usize = 1;
/// Bytes that a store writes and syncs after a failure, before the store counts as well: 16 payloads of the
/// largest size. Each try follows after a pause of up to [`STORE_REOPEN_PAUSE_MAX`].
pub const STORE_PROOF_BYTES: usize = 256 * KIB;
/// Threads that read rooms from the store. Above: loads and pages wait in line.
pub const STORE_READERS: usize = 2;
/// Payload bytes in the row of a message. Above: the payload has a row of its own, and a load reads it for the
/// tail alone.
pub const PAYLOAD_INLINE_BYTES_MAX: usize = KIB;
/// Failed loads, pages or writes of a room in a row. At the bound the room is put aside: its calls of that sort
/// fail at once.
pub const STORE_ASIDE_AFTER: u32 = 3;
/// First pause before a call for a room aside is tried again; doubles up to [`STORE_ASIDE_PAUSE_MAX`].
pub const STORE_ASIDE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause before a call for a room aside is tried again.
pub const STORE_ASIDE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Entries of the list of failed calls, one for each room and sort of call. A damaged page of the table of rooms
/// holds about 75. Above: entries of rooms that are not aside give way; else further rooms are tried each time.
pub const STORE_ASIDE_ROOMS_MAX: usize = 1024;
/// Rooms aside in the answer of `/readyz`. Above: the rest is only counted.
pub const STORE_ASIDE_LISTED_MAX: usize = 64;
/// Time without a try after which an entry leaves that list.
pub const STORE_ASIDE_FORGET: Duration = Duration::from_secs(600);
/// Interval at which a store with messages writes both clocks, if no commit has. A restart goes on from there.
pub const STORE_CLOCK_INTERVAL: Duration = Duration::from_secs(60);
/// Step of the wall clock against the monotonic clock. Above: the store writes both clocks at once.
pub const STORE_CLOCK_STEP_MAX: Duration = Duration::from_secs(1);
/// Interval of the purge of expired rows. A purge at the bound is followed by the next at once.
pub const STORE_PURGE_INTERVAL: Duration = Duration::from_secs(1);
/// Time of the wall clock between the last note of a store and the next start. Above: the clock may be wrong, and
/// the purge is held for [`STORE_PURGE_HOLD`].
pub const STORE_AWAY_MAX: Duration = Duration::from_secs(3600);
/// Time without a purge after a start with a wall clock behind the stored times, or far ahead of them.
pub const STORE_PURGE_HOLD: Duration = Duration::from_secs(600);
/// Longest pause after a purge that failed; the pause doubles from [`STORE_PURGE_INTERVAL`].
pub const STORE_PURGE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Time for which an expired row stays that can't be read or removed.
pub const STORE_PURGE_PUT_OFF: Duration = Duration::from_secs(3600);
/// Rows removed by a purge, however many rows were added. Above: the rest waits for the next purge, which
/// follows at once.
pub const STORE_PURGE_ROWS_MAX: usize = 1024;
/// Rows removed by a purge, even if fewer rows were added since the last purge. An append may have to wait
/// for as many removals.
pub const STORE_PURGE_ROWS_MIN: usize = 128;
/// Damaged rows kept for inspection. Above: the oldest go.
pub const STORE_QUARANTINE_ROWS_MAX: u64 = 256;
/// Bytes of the store's file in memory, as pages. Above: the least used go.
pub const STORE_CACHE_BYTES_MAX: usize = 64 * MIB;

/// NATS servers in the configuration. Above: a mistake.
pub const NATS_SERVERS_MAX: usize = 16;
/// Letters of `cluster.name`. Above: a mistake.
pub const CLUSTER_NAME_MAX: usize = 32;
/// Letters of `cluster.node`. Above: a mistake; a longer host name is cut.
pub const NODE_NAME_MAX: usize = 64;
/// Letters of `cluster.region`. Above: a mistake.
pub const REGION_MAX: usize = 32;
/// Letters of `cluster.viewer_url`. Above: a mistake.
pub const VIEWER_URL_MAX: usize = 256;
/// Copies of a stream, the most that JetStream makes. Above: a mistake.
pub const REPLICAS_MAX: usize = 5;
/// Bytes of a message that a NATS server takes, at least. Below: the node does not start.
pub const NATS_PAYLOAD_LEAST: usize = MIB;
/// Streams of the log; a slot is in the stream with the number of the slot modulo this one. Fixed for the life of a
/// cluster.
pub const LOG_STREAMS: usize = 8;
/// Bytes of a stream beyond its share of [`STORE_BYTES_MAX`]: claims fit where rows are refused.
pub const LOG_RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// Appends of a stream under way at a time, of one node. Above: they wait in line. As many as keep three servers
/// busy: 64 over all streams.
pub const LOG_STREAM_APPENDS_MAX: usize = 8;
/// Time in which a claim has its turn. Later: it goes to the end of the line. A record has [`LOG_APPEND_PATIENCE`].
pub const LOG_TURN_AGE_MAX: Duration = Duration::from_secs(5);
/// Time in which JetStream knows a repeated append by its id. An append is repeated within seconds.
pub const LOG_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Time of one operation on a log. Later: its outcome is unknown.
pub const LOG_OP_AGE_MAX: Duration = Duration::from_secs(5);
/// Silence within the answer to a read. Later: the rest is asked for again.
pub const LOG_READ_SILENCE_MAX: Duration = Duration::from_secs(2);
/// Messages of one answer to a read. Above: the rest is asked for.
pub const LOG_READ_MESSAGES_MAX: usize = 256;
/// Bytes of one answer to a read, and up to a record more. Above: the rest is asked for.
pub const LOG_READ_BYTES_MAX: usize = MIB;
/// Reads under way at a time. Above: they wait in line.
pub const LOG_READS_MAX: usize = 16;
/// Answers in a row that bring a read no further, since a replica lags behind. Above: the read has failed.
pub const LOG_READ_STALLS_MAX: usize = 20;
/// Pause before a replica that lags behind is asked again.
pub const LOG_READ_PAUSE: Duration = Duration::from_millis(100);
/// Heard answers between the client's tasks and the machines of the slots. Above: the tasks wait.
pub const LOG_HEARD_MAX: usize = 1024;
/// Orders of the cluster to the log: several for each slot. Above: the cluster keeps the rest.
pub const LOG_ORDERS_MAX: usize = 1024;
/// Words of the log to the cluster. Above: proofs are dropped, and of other words a slot's last ones are kept.
pub const LOG_NEWS_MAX: usize = 1024;
/// Requests of one shard in a turn of the log. Above: the others come first.
pub const LOG_TURN_REQUESTS_MAX: usize = 128;
/// Time in which the streams are made or found at a start. Later: the node does not start.
pub const LOG_START_AGE_MAX: Duration = Duration::from_secs(20);
/// Time for which a start waits until each slot has a home. Later: the node goes on, and `/readyz` says so.
pub const CLUSTER_SETTLE_AGE_MAX: Duration = Duration::from_secs(10);
/// Time for which a stopping log still works on sent requests. Later: they have no answer.
pub const LOG_STOP_AGE_MAX: Duration = Duration::from_secs(2);
/// Interval at which the log looks at the size of its streams.
pub const LOG_SIZE_INTERVAL: Duration = Duration::from_secs(2);
/// Interval at which the servers are asked again if they sync.
pub const PROOF_INTERVAL: Duration = Duration::from_secs(60);
/// Interval at which they are asked again while a server is silent.
pub const PROOF_RETRY: Duration = Duration::from_secs(5);
/// Time for the answers of all servers. Later: the missing ones are silent.
pub const PROOF_AGE_MAX: Duration = Duration::from_secs(2);
/// Servers in the answers to one question. Above: the rest is not looked at.
pub const PROOF_ANSWERS_MAX: usize = 1024;
/// Time in which a node finds a NATS server at its start. Later: it does not start, and says why.
pub const NATS_START_AGE_MAX: Duration = Duration::from_secs(10);
/// Time of one try to connect to one NATS server. Later: the next server is tried.
pub const NATS_CONNECT_AGE_MAX: Duration = Duration::from_secs(2);
/// Pause between two tries to connect to all NATS servers.
pub const NATS_CONNECT_PAUSE: Duration = Duration::from_millis(250);
/// Commands of the log to its NATS connection that wait. Above: the operation waits, for its own time.
pub const NATS_QUEUE_MAX: usize = 2048;
/// Words to other nodes that wait in the NATS connection. Above: a message of a link waits in the link, and a
/// heartbeat or a claim is dropped.
pub const NODE_SENDS_MAX: usize = 128;
/// Messages of other nodes in a turn of the cluster's thread. Above: deadlines and shards come first.
pub const NODE_TURN_MESSAGES_MAX: usize = 256;
/// Interval at which the doors get a new picture of the cluster.
pub const CLUSTER_SHOWN_INTERVAL: Duration = Duration::from_millis(500);
/// Suspension of the machine. Above: the echoes of the node prove nothing any more.
pub const SUSPENSION_MAX: Duration = Duration::from_millis(100);
/// Time for the goodbye of a node to reach its NATS server. Later: the others find out by its silence.
pub const GOODBYE_AGE_MAX: Duration = Duration::from_secs(1);
/// Interval of pings to the NATS server. Two without an answer: the client goes to another server.
pub const NATS_PING_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of a file of credentials. Above: the node does not start.
pub const NATS_CREDENTIALS_BYTES_MAX: u64 = 64 * 1024;
/// Shortest silence after which a node may count as dead: two heartbeats. Below: a mistake.
pub const DEAD_AFTER_LEAST: Duration = Duration::from_secs(1);
/// Longest silence after which a node counts as dead. Above: a mistake.
pub const DEAD_AFTER_MOST: Duration = Duration::from_secs(60);
/// Bytes of a record in a slot's log. Above: further appends wait for the next record, and a larger append takes
/// several records.
pub const LOG_RECORD_BYTES_MAX: usize = 512 * KIB;
/// Life of a record behind the last moment at which a row of it may go: the clocks of nodes differ, and the home
/// judges lives.
pub const LOG_RECORD_SLACK: Duration = Duration::from_secs(60);
/// Life of a row from its append on. Above: the append takes no record together with shorter ones, which would
/// stay as long.
pub const LOG_SHORT_ROW: Duration = Duration::from_secs(3600);
/// Life of a claim, of a daily renewal and of a removal: longer than any row.
pub const LOG_CLAIM_AGE: Duration = Duration::from_secs(8 * 24 * 3600);
/// Interval of the renewals that live as long as a claim.
pub const LOG_RENEW_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Life of a renewal that only proves the right to order.
pub const LOG_PROOF_AGE: Duration = Duration::from_secs(120);
/// Time for the acknowledgement of an append, with all tries, and before that for its turn. Above: its outcome is
/// unknown, and the slot is claimed again; a record without its turn fails alone.
pub const LOG_APPEND_PATIENCE: Duration = Duration::from_secs(1);
/// Longest time for the acknowledgement of a claim. The time doubles with each claim that is not answered in it, or a
/// slow server would have more of them each second.
pub const LOG_CLAIM_PATIENCE_MAX: Duration = Duration::from_secs(4);
/// Time for the next part of a read. Above: a claim reads on from there, and a load or a page fails.
pub const LOG_READ_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a failed claim, or a read that ended early, is tried again.
pub const LOG_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Pause before a slot is claimed again whose log has entries of a later version: each claim ends the right of the
/// present home.
pub const LOG_NEWER_PAUSE: Duration = Duration::from_secs(60);
/// Interval at which acknowledged appends are told as proofs. Above: told with the next append.
pub const LOG_PROVEN_INTERVAL: Duration = Duration::from_millis(500);
/// Bytes of payloads that a slot keeps in memory. Above: the oldest go, and loads and pages read them from the
/// log.
pub const LOG_PAYLOADS_BYTES_MAX: usize = 16 * MIB;
/// Bytes of payloads that all slots of a node keep in memory, an equal part each. Above: as for a slot.
pub const LOG_NODE_PAYLOADS_BYTES_MAX: usize = 512 * MIB;
/// Requests of a shard that one slot holds. Above: `Busy`.
pub const LOG_SLOT_REQUESTS_MAX: usize = 512;
/// Bytes of a shard's appends that one slot holds. Above: `Busy`.
pub const LOG_SLOT_BYTES_MAX: usize = 4 * MIB;
/// Records of one read by sequence. Above: the rest comes with the next read.
pub const LOG_GET_RECORDS_MAX: usize = 64;
/// Bytes of the records of one read by sequence; one record always fits. Above: as for [`LOG_GET_RECORDS_MAX`].
pub const LOG_GET_BYTES_MAX: usize = 4 * MIB;
/// Loads and pages of a slot that read the log at the same time. Above: the rest waits in line.
pub const LOG_SLOT_READS_MAX: usize = 4;
/// Head rows of a record. Above: the rest waits for the next.
pub const LOG_HEADS_MAX: usize = 1024;

const _: () = {
    assert!(BATCH_MESSAGES_MAX <= GATHERED_MESSAGES_MAX, "a batch is no larger than a room may gather");
    assert!(BATCH_BYTES_MAX <= GATHERED_BYTES_MAX);
    assert!(HEARTBEAT_MIN.as_millis() <= HEARTBEAT.as_millis());
    assert!(HEARTBEAT.as_millis() <= HEARTBEAT_MAX.as_millis());
    assert!(PAYLOAD_BYTES_MAX < REQUEST_BYTES_MAX);
    assert!(REQUEST_MESSAGES_MAX <= INBOX_MESSAGES_MAX, "a whole request fits an empty inbox");
    assert!(REQUEST_BYTES_MAX <= INBOX_BYTES_MAX);
    assert!(REQUEST_MESSAGES_MAX <= INBOX_BEST_EFFORT_MESSAGES_MAX);
    assert!(REQUEST_BYTES_MAX <= INBOX_BEST_EFFORT_BYTES_MAX);
    assert!(
        LADDER_DELAY_DOWN.as_millis() < LADDER_DELAY_UP.as_millis(),
        "a delay between the two bounds changes nothing"
    );
    assert!(LADDER_REFUSALS_DOWN < LADDER_REFUSALS_UP);
    assert!(INBOX_STANDING.as_millis() * LADDER_REFUSALS_UP as u128 <= LADDER_INTERVAL.as_millis());
    assert!(LADDER_OWED_SLACK_PERMILLE < LADDER_OWED_PERMILLE[0]);
    assert!(SEGMENT_QUEUED_MAX < FRAME_LANE_FRAMES_MAX, "one room can't fill a lane alone");
    assert!(HISTORY_BYTES_MAX < WELCOME_BYTES_MAX);
    assert!(WELCOME_RELIABLE_BYTES_MAX < WELCOME_FIRST_BYTES_MAX);
    assert!(HISTORY_PIECE_BYTES_MAX < WELCOME_FIRST_BYTES_MAX && WELCOME_FIRST_BYTES_MAX < WELCOME_BYTES_MAX);
    assert!(KERNEL_UNSENT_BYTES_MIN < KERNEL_UNSENT_BYTES_MAX);
    assert!(KERNEL_QUEUED_BYTES_MIN <= KERNEL_QUEUED_BYTES_UNPROVEN);
    assert!(KERNEL_QUEUED_BYTES_UNPROVEN < KERNEL_QUEUED_BYTES_MAX);
    assert!(
        KERNEL_QUEUED_BYTES_MAX as u128 * 1000 >= FAST_RATE_MIN as u128 * KERNEL_QUEUED_AGE_MAX.as_millis(),
        "the bound never keeps a device from being fast"
    );
    // 24 KB in 3 s at 64 kbit/s: the kernel's part (about 10 KB), a begun frame, and the coupon.
    assert!(PAYLOAD_BYTES_MAX < UNPROVEN_BYTES_MAX && 4 * UNPROVEN_BYTES_MAX <= 9 * RATE_PRESUMED as usize);
    assert!(SMALL_FRAME_BYTES_MAX as u128 <= RATE_PRESUMED as u128 * FRAME_AGE_MAX.as_millis() / 1000);
    assert!(
        PAYLOAD_BYTES_MAX * 4 / 3 < CATCH_UP_BYTES_MAX,
        "one frame brings a catching-up member at least one whole message"
    );
    assert!(TAIL_BYTES_MAX <= STREAM_BYTES_MAX);
    assert!(TAIL_MESSAGES_MAX <= STREAM_MESSAGES_MAX);
    assert!(STREAM_MESSAGES_MAX + STREAM_RECALLS_MAX <= RECEIPTS_MAX, "the alive ones keep their receipts");
    assert!(HEAD_BYTES_MAX <= DOOR_BUFFER_BYTES_MAX);
    assert!(PULLS_MAX < HALF_OPEN_MAX, "readers of history leave places for joins");
    assert!(HALF_OPEN_GRACE.as_millis() < FULL_DOOR_GRACE.as_millis());
    assert!(
        FULL_DOOR_GRACE.as_millis() < PULL_PATIENCE.as_millis(),
        "a reader outwaits those that take nothing"
    );
    assert!(REQUEST_BYTES_MAX < REFUSED_BYTES_MAX, "a body that is somewhat too large finds its answer");
    assert!(DEVICE_ROOMS_MAX < ROOMS_MAX, "publishers have a reserve");
    assert!(
        PROGRESS_AGE_MAX.as_millis() < KERNEL_UNACKED_AGE_MAX.as_millis(),
        "a device is told before the kernel cuts the connection"
    );
    assert!(JOINS_PER_SECOND_MIN <= JOINS_PER_SECOND && JOINS_PER_SECOND <= JOINS_PER_SECOND_MAX);
    assert!(JOIN_RETRY_AFTER_SLACK.as_secs() < JOIN_RETRY_AFTER_MAX.as_secs());
    assert!(ROOMS_LISTED_DEFAULT <= ROOMS_LISTED_MAX);
    assert!(OUTBOUND_BYTES_LEAST <= OUTBOUND_BYTES && OUTBOUND_BYTES <= OUTBOUND_BYTES_MOST);
    assert!(SEGMENT_QUEUED_MAX <= OUTBOX_FRAMES_MAX, "a pass fits an empty outbox");
    assert!(REQUEST_MESSAGES_MAX <= STORE_COMMIT_MESSAGES_MAX, "a whole request fits one commit");
    assert!(STORE_PURGE_ROWS_MIN <= STORE_PURGE_ROWS_MAX);
    assert!(STORE_COMMIT_MESSAGES_MAX <= STORE_PURGE_ROWS_MAX, "purges keep up with commits");
    assert!(STORE_REOPEN_PAUSE_MIN.as_millis() <= STORE_REOPEN_PAUSE_MAX.as_millis());
    assert!(STORE_ASIDE_LISTED_MAX <= STORE_ASIDE_ROOMS_MAX);
    assert!(STORE_ASIDE_PAUSE_MIN.as_millis() <= STORE_ASIDE_PAUSE_MAX.as_millis());
    assert!(PAYLOAD_BYTES_MAX <= STORE_PROOF_BYTES, "after a proof the next message finds room");
    assert!(BEAT_INTERVAL.as_millis() < NODE_SILENCE_MAX.as_millis());
    assert!(NODE_SILENCE_MAX.as_millis() <= DEAD_AFTER_LEAST.as_millis());
    assert!(
        2 * BEAT_INTERVAL.as_millis() < HEARING_AGE_MAX.as_millis(),
        "a beat, and the beat that lists it"
    );
    assert!(HEARING_AGE_MAX.as_millis() < RIGHT_AGE_MAX.as_millis(), "slots are proven before they freeze");
    assert!(RENEWAL_INTERVAL.as_millis() < RIGHT_AGE_MAX.as_millis());
    assert!(RIGHT_AGE_MAX.as_millis() <= BEATS_WAITING_MAX as u128 * BEAT_INTERVAL.as_millis());
    assert!(JOINS_PER_SECOND_MAX as u64 <= QUOTA_PLACES_MAX && RATE_MAX as u64 <= QUOTA_PLACES_MAX);
    assert!(BEARER_KEYS_MAX < QUOTA_LINES_MAX, "a report holds the limits of all keys, and that of joins");
    assert!(
        QUOTA_SHARE_AGE_MAX.as_millis() + QUOTA_LOOK_INTERVAL.as_millis() < QUOTA_RESERVED_AGE.as_millis(),
        "a share has ended before its part is free"
    );
    assert!(
        QUOTA_DIVISION_PAUSE.as_millis() + QUOTA_RAISE_PAUSE.as_millis() < QUOTA_REPORT_INTERVAL.as_millis()
    );
    assert!(2 * PAYLOAD_BYTES_MAX < LOG_RECORD_BYTES_MAX, "a row fits a record");
    assert!(LOG_RECORD_BYTES_MAX <= LOG_GET_BYTES_MAX);
    assert!(TTL_MAX.as_secs() + LOG_RECORD_SLACK.as_secs() < LOG_CLAIM_AGE.as_secs(), "claims outlive rows");
    assert!(STORE_PURGE_INTERVAL.as_secs() < LOG_RECORD_SLACK.as_secs(), "head rows come before the rows go");
};
