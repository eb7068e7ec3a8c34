//! Every bound of the engine: its name, its value, and what happens past it.
//!
//! A bound lives here and nowhere else; what can be configured has its default here. Relations between
//! bounds are const assertions at the end, so a change that breaks one does not compile.

use std::ops::RangeInclusive;
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Longest room name, in bytes. Past it: 400, at the handshake as well.
pub const ROOM_NAME_BYTES_MAX: usize = 128;
/// Longest type name, in bytes. Past it: 400.
pub const TYPE_NAME_BYTES_MAX: usize = 64;
/// Longest merge key, in bytes. Past it: 400.
pub const KEY_BYTES_MAX: usize = 128;
/// Longest publisher's id, in bytes. Past it: 400.
pub const ID_BYTES_MAX: usize = 64;
/// Longest device name, in bytes. Past it: handshake 400.
pub const DEVICE_NAME_BYTES_MAX: usize = 64;
/// Largest payload. Past it: 413.
pub const PAYLOAD_BYTES_MAX: usize = 16 * KIB;
/// Deepest nesting of a JSON payload. Past it: 400 `payload_not_json`.
pub const PAYLOAD_DEPTH_MAX: usize = 64;
/// Largest `count`. Past it: 400.
pub const COUNT_MAX: u64 = 1_000_000_000;
/// Largest integer that travels: what a JSON reader holds exactly. Totals saturate there.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Shortest `ttl_ms`. Below it: 400.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// Longest `ttl_ms`. Past it: 400.
pub const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a reliable message lives when neither its type nor its publisher says.
pub const TTL_DEFAULT: Duration = Duration::from_secs(600);
/// How long a message that is not reliable may wait for its turn, unless its type or publisher says otherwise. Past it: shed
/// `expired`.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// What a message's count takes in JSON, the larger encoding: `,"count":` and sixteen digits.
pub const COUNT_WIRE_BYTES: usize = 9 + 16;
/// Largest weight of a type. Past it: refused at start, or 400.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// Highest rate of messages, and most at once, that may be configured anywhere. Past it: refused at start, or 400.
pub const RATE_MAX: u32 = 1_000_000;
/// Types whose treatment one `PUT` of a room changes. Past it: 400.
pub const TYPES_CHANGED_MAX: usize = 64;
/// Bytes that a node's devices may be owed together, if nothing else is configured.
pub const OUTBOUND_BYTES: u64 = 1024 * MIB as u64;
/// Least `limits.outbound_bytes`. Below it: refused at start.
pub const OUTBOUND_BYTES_LEAST: u64 = 16 * MIB as u64;
/// Most `limits.outbound_bytes`. Past it: refused at start.
pub const OUTBOUND_BYTES_MOST: u64 = 1024 * 1024 * MIB as u64;
/// Most messages of one publish request. Past it: 400.
pub const REQUEST_MESSAGES_MAX: usize = 1000;
/// Largest publish request. Past it: 413.
pub const REQUEST_BYTES_MAX: usize = MIB;

/// Messages that may wait in one room. Past it: `shed: room_full`.
pub const GATHERED_MESSAGES_MAX: usize = 10_000;
/// Bytes (as encoded) that may wait in one room. Past it: `shed: room_full`.
pub const GATHERED_BYTES_MAX: usize = 4 * MIB;
/// Keys a room keeps the latest value of. Past it: `shed: latest_keys_full`.
pub const LATEST_KEYS_MAX: usize = 128;
/// Largest payload of class latest. Past it: 400.
pub const LATEST_PAYLOAD_BYTES_MAX: usize = 4 * KIB;
/// Counter types of one room. Past it: `shed: counter_types_full`.
pub const COUNTER_TYPES_MAX: usize = 32;
/// Types a room accounts for at one time. Past it: `shed: types_full`.
pub const ROOM_TYPES_MAX: usize = 256;
/// Seqs that the account of a room reaches back. A member that missed more is closed, resumably.
pub const ACCOUNT_SEQS_MAX: u64 = 2048;
/// Messages of a room's history. Past it: the oldest go.
pub const HISTORY_MESSAGES_MAX: usize = 200;
/// Bytes (as encoded) of a room's history. Past it: the oldest go.
pub const HISTORY_BYTES_MAX: usize = 256 * KIB;
/// Age of a message in a room's history. Past it: it goes.
pub const HISTORY_AGE_MAX: Duration = Duration::from_secs(60);
/// How long an `id` makes a publish idempotent.
pub const ID_AGE_MAX: Duration = Duration::from_secs(300);
/// Ids of best-effort messages that one room remembers. Past it: the oldest go, counted.
pub const IDS_MAX: usize = 4096;
/// A room without members or messages for this long is forgotten.
pub const ROOM_IDLE: Duration = Duration::from_secs(600);
/// Rooms of one node. Past it: 503 `rooms_full`.
pub const ROOMS_MAX: usize = 200_000;
/// How often the engine publishes a room's audience at most.
pub const AUDIENCE_INTERVAL: Duration = Duration::from_secs(1);
/// A room of at most `flush.direct_members` flushes at most this often.
pub const DIRECT_SPACING: Duration = Duration::from_millis(10);

/// Reliable messages of a room that may be alive; recalls stand in the place of what they take back. Past it: 503
/// `stream_full`.
pub const STREAM_MESSAGES_MAX: usize = 1024;
/// Bytes (as encoded) of a room's alive reliable messages. Past it: 503 `stream_full`.
pub const STREAM_BYTES_MAX: usize = 8 * MIB;
/// Reliable messages that a room keeps in memory. Past it: the oldest are read from the store when they are needed.
pub const TAIL_MESSAGES_MAX: usize = 64;
/// Bytes (as encoded) of those.
pub const TAIL_BYTES_MAX: usize = MIB;
/// Reliable messages, dead ones included, that a room has receipts of. Past it: the oldest dead ones go.
pub const RECEIPTS_MAX: usize = 2 * STREAM_MESSAGES_MAX;
/// Names of devices that left before they had acknowledged, in one room, once for each message. Past it: they count as
/// connections.
pub const RECEIPT_DEVICES_MAX: usize = 65_536;
/// What a frame carries again of messages that were not acknowledged in time; always one at least.
pub const CARRY_BYTES_MAX: usize = 8 * KIB;
/// What a frame brings of messages that were not sent yet, to a member that is catching up; always one at least.
pub const CATCH_UP_BYTES_MAX: usize = 64 * KIB;
/// What a welcome brings of the reliable stream. Past it: the rest follows while the member catches up.
pub const WELCOME_RELIABLE_BYTES_MAX: usize = 256 * KIB;
/// What one answer of the pull side brings of the reliable stream. Past it: the reader asks again.
pub const PULL_BYTES_MAX: usize = 512 * KIB;
/// Messages of publishes that wait for their room's stream to be loaded, and other requests that do, each at most. Past
/// it: 503 `store_failing`.
pub const PARKED_MAX: usize = STREAM_MESSAGES_MAX;
/// How long joins and publishes wait for a room's stream to be loaded. Past it: devices join without it, publishers hear
/// 503 `store_failing`.
pub const STORE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a room leaves the store alone that failed it.
pub const STORE_RETRY: Duration = Duration::from_secs(1);
/// Shortest time over which devices spread their acknowledgements.
pub const ACK_WITHIN_MIN: Duration = Duration::from_millis(200);
/// Longest time over which devices spread their acknowledgements.
pub const ACK_WITHIN_MAX: Duration = Duration::from_secs(5);
/// Members of a room for each millisecond of that time: acknowledgements come at 20 000 a second.
pub const ACK_MEMBERS_PER_MS: u64 = 20;
/// How much longer than that a member may take before a message is carried again.
pub const ACK_GRACE: Duration = Duration::from_millis(500);
/// Attempts to carry that are all equally far apart, the first included; each later one waits `CARRY_DELAY_STEP` longer.
pub const CARRY_STEADY_ATTEMPTS: u32 = 4;
/// By how much the delay grows after those.
pub const CARRY_DELAY_STEP: Duration = Duration::from_secs(1);
/// Longest time between two attempts.
pub const CARRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// How much of a delay the jitter may add, in percent.
pub const CARRY_JITTER_PERCENT: u64 = 10;
/// A segment looks for members to carry for at most this often.
pub const CARRY_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Distinct frames one segment asks to carry at one time. Past it: the rest wait for the next look.
pub const CARRY_STATES_MAX: usize = 256;

/// Messages that wait for one shard. Past it: 503 with `Retry-After`.
pub const INBOX_MESSAGES_MAX: usize = 4096;
/// Bytes that wait for one shard. Past it: 503 with `Retry-After`.
pub const INBOX_BYTES_MAX: usize = 32 * MIB;
/// Of those messages, what publishes without a reliable one may take: the rest is kept for reliable ones. Past it: 503.
pub const INBOX_BEST_EFFORT_MESSAGES_MAX: usize = INBOX_MESSAGES_MAX / 4 * 3;
/// Of those bytes, likewise.
pub const INBOX_BEST_EFFORT_BYTES_MAX: usize = INBOX_BYTES_MAX / 4 * 3;
/// How long a publish may wait for a shard that has had a queue standing for `INBOX_STANDING`, or is on a step of its ladder.
/// Past it: publishes without a reliable message are refused, 503 with `Retry-After`, while what waits takes longer than this
/// to be taken.
pub const INBOX_AGE_MAX: Duration = Duration::from_millis(25);
/// How long each publish has to have waited `INBOX_AGE_MAX` before the doors hold to it: a burst is no standing queue.
pub const INBOX_STANDING: Duration = Duration::from_millis(100);
/// Other requests (describe, configure, close) that wait for one shard. Past it: 503.
pub const REQUESTS_MAX: usize = 1024;
/// Frames of a frame lane. Past it: the segment heals by refresh.
pub const FRAME_LANE_FRAMES_MAX: usize = 256;
/// Entries of a control lane. Past it: they wait on the shard that sends them.
pub const CONTROL_LANE_ENTRIES_MAX: usize = 1024;
/// Entries that may wait on a shard for its control lane. Past it: joins are refused with an error frame.
pub const CONTROL_WAITING_MAX: usize = 65_536;

/// Members a pass visits before it yields.
pub const PASS_TURN_MEMBERS: usize = 128;
/// Batches that may wait in a segment for its next pass. Past it: the home stops cutting.
pub const SEGMENT_QUEUED_MAX: usize = 4;
/// Distinct states one segment asks refreshes for at one time. Past it: the rest wait.
pub const REFRESH_STATES_MAX: usize = 256;
/// Frames a device may be owed. Past it: behind.
pub const OUTBOX_FRAMES_MAX: usize = 4;
/// Bytes a device may be owed; a frame that finds nothing owed is exempt. Past it: behind.
pub const OUTBOX_BYTES_MAX: usize = 64 * KIB;
/// Frames a device may be owed when a notice it asked for (pong, joined, left, error) is added. Past it: close 1008.
pub const OUTBOX_NOTICES_MAX: usize = 16;
/// A device whose oldest owed frame is older is behind.
pub const OUTBOX_AGE_MAX: Duration = Duration::from_secs(1);
/// A device that takes nothing of what it is owed for this long is closed, resumably.
pub const PROGRESS_AGE_MAX: Duration = Duration::from_secs(10);
/// A frame that is owed for this long closes its device, resumably, however it drips: a welcome of 512 KiB takes 64 s at
/// 64 kbit/s.
pub const OWED_AGE_MAX: Duration = Duration::from_secs(90);
/// A device that is behind for this long is closed, resumably.
pub const BEHIND_AGE_MAX: Duration = Duration::from_secs(15);
/// Unsent bytes the kernel may hold for a device (`TCP_NOTSENT_LOWAT`).
pub const KERNEL_UNSENT_BYTES_MAX: u32 = 16 * 1024;
/// How long a closing connection may take over its goodbye.
pub const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// Largest message from a device, all fragments together. Past it: close 1009.
pub const DEVICE_MESSAGE_BYTES_MAX: usize = 4 * KIB;
/// Frames a second a device may send, before its rooms are counted. Past it: close 1008.
pub const DEVICE_FRAMES_PER_SECOND: u32 = 20;
/// Further frames a second for each joined room.
pub const DEVICE_FRAMES_PER_SECOND_AND_ROOM: u32 = 5;
/// Rooms of one connection. Past it: error frame `too_many_rooms`.
pub const ROOMS_PER_CONNECTION_MAX: usize = 16;
/// Time for a request's head. Past it: closed.
pub const HANDSHAKE_AGE_MAX: Duration = Duration::from_secs(5);
/// Time for a request's body. Past it: closed.
pub const BODY_AGE_MAX: Duration = Duration::from_secs(10);
/// Connections that have not been upgraded yet. Past it: they wait in the kernel's queue.
pub const HALF_OPEN_MAX: usize = 1024;
/// Connections of the publisher door, and of the operator door. Past it: they wait in the kernel's queue.
pub const DOOR_CONNECTIONS_MAX: usize = 1024;
/// How long a connection at a full door may be without a whole request before it gives its place to one that waits.
pub const FULL_DOOR_GRACE: Duration = Duration::from_secs(1);
/// Answers with a page of a room's history that are not wholly with the kernel yet. Past it: 503 `pulls_full`.
pub const PULLS_MAX: u64 = 64;
/// Time for a peer to acknowledge what was sent, or to open its window, also once nobody holds the connection any more
/// (`TCP_USER_TIMEOUT`). Past it: the kernel forgets what it keeps for it.
pub const KERNEL_UNACKED_AGE_MAX: Duration = Duration::from_secs(30);
/// A request's head, its target included. Past it: 431 and closed.
pub const HEAD_BYTES_MAX: usize = 16 * KIB;
/// What a door buffers of one connection. Past it: the rest waits in the kernel.
pub const DOOR_BUFFER_BYTES_MAX: usize = 64 * KIB;
/// Time between two requests of one kept-alive connection. Past it: closed.
pub const IDLE_AGE_MAX: Duration = Duration::from_secs(75);
/// Time for a door's peer to take an answer: 256 KiB of history at 64 kbit/s is 33 s. Past it: closed.
pub const ANSWER_AGE_MAX: Duration = Duration::from_secs(60);
/// Time for a shard to answer a door. Past it: 503 `shard_silent`.
pub const SHARD_ANSWER_AGE_MAX: Duration = Duration::from_secs(10);
/// First pause of a door whose accept failed; doubles up to `ACCEPT_PAUSE_MAX`.
pub const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause of a door whose accept failed.
pub const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Connections the kernel may hold for a door before it accepts them.
pub const LISTEN_BACKLOG: i32 = 4096;
/// How long the doors may take over answers under way once the shards have drained.
pub const DOORS_LINGER: Duration = Duration::from_secs(1);
/// Rooms of one `GET /v1/rooms`. Past it: 400.
pub const ROOMS_LISTED_MAX: usize = 1000;
/// Rooms of one `GET /v1/rooms` that names no limit.
pub const ROOMS_LISTED_DEFAULT: usize = 50;
/// Largest `expected_audience`. Past it: 400.
pub const EXPECTED_AUDIENCE_MAX: u64 = 100_000_000;
/// Longest `idle_close_s`. Past it: 400.
pub const IDLE_CLOSE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Descriptors kept for the doors, the store and the log. Connections of one node: nofile minus this. Past it: 503.
pub const DESCRIPTORS_KEPT: u64 = 128;
/// A welcome's size. Past it: the oldest history is left out; latest values and totals are whole even then.
pub const WELCOME_BYTES_MAX: usize = 512 * KIB;
/// A device that is silent for 2.5 times its heartbeat is closed.
pub const HEARTBEAT: Duration = Duration::from_millis(25_000);
/// How long a drain may take.
pub const DRAIN_AGE_MAX: Duration = Duration::from_secs(30);
/// What a draining node tells its devices: come back elsewhere within this time.
pub const RECONNECT_WITHIN: Duration = Duration::from_secs(30);
/// What a device is advised that was closed for its own sake alone: come back within this time.
pub const RECONNECT_SOON: Duration = Duration::from_secs(2);
/// What a publisher that was refused is told to wait, in whole seconds.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Longest `Retry-After` of a join that was refused because too many came at once.
pub const JOIN_RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// How much longer than the rate needs for them those joins are spread over: others come meanwhile.
pub const JOIN_RETRY_AFTER_SLACK: Duration = Duration::from_secs(2);
/// How much of `viewer.joins_per_second` may come at once, as the time it stands for; one join always may. Past it: 503
/// `joining_too_fast`.
pub const JOIN_BURST: Duration = Duration::from_millis(250);
/// Devices that may join a node in a second, if nothing else is configured.
pub const JOINS_PER_SECOND: u32 = 20_000;
/// Least `viewer.joins_per_second`. Below it: refused at start.
pub const JOINS_PER_SECOND_MIN: u32 = 1;
/// Most `viewer.joins_per_second`. Past it: refused at start.
pub const JOINS_PER_SECOND_MAX: u32 = 1_000_000;

/// Shortest `viewer.heartbeat_ms`. Below it: refused at start.
pub const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
/// Longest `viewer.heartbeat_ms`. Past it: refused at start.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(600);
/// Most shards of one node. Past it: refused at start.
pub const SHARDS_MAX: usize = 256;
/// Members past which a room is hot, unless configured otherwise: those that join it then are placed on several shards.
pub const HOT_MEMBERS: u64 = 2000;
/// Largest `shards.hot_members`. Past it: refused at start.
pub const HOT_MEMBERS_MAX: u64 = 1_000_000;
/// Most names in `shards.hot_rooms`. Past it: refused at start.
pub const HOT_ROOMS_MAX: usize = 10_000;
/// What `flush.cpu_share` may be. Outside: refused at start.
pub const CPU_SHARES: RangeInclusive<f64> = 0.05..=0.95;
/// What one device's write is taken to cost before it was measured.
pub const WRITE_COST_FIRST: Duration = Duration::from_micros(7);
/// Widest stretch of a shard's windows because of all its rooms together, in thousandths. Past it: `/readyz` and a metric
/// say that the shard needs more than it has.
pub const STRETCH_MAX_PERMILLE: u32 = 20_000;
/// How often a shard weighs what its passes took, and tells what it holds.
pub const LOAD_INTERVAL: Duration = Duration::from_secs(1);
/// How often a shard weighs on which step of the ladder it stands; by its queue it goes at most one up or down at a time.
pub const LADDER_INTERVAL: Duration = Duration::from_millis(500);
/// What each publish of an interval has to have waited for one step up.
pub const LADDER_DELAY_UP: Duration = Duration::from_millis(25);
/// What one publish of an interval has to have waited less than for one step down.
pub const LADDER_DELAY_DOWN: Duration = Duration::from_millis(5);
/// Refusals of publishes within an interval, counted once in `INBOX_STANDING`, for one step up: they never ceased.
pub const LADDER_REFUSALS_UP: u32 = 4;
/// As many, counted likewise, are no reason to stay: a burst that did not fit now and then.
pub const LADDER_REFUSALS_DOWN: u32 = 2;
/// Thousandths of the outbound bytes from which on each step is in force, the first step's first.
pub const LADDER_OWED_PERMILLE: [u64; 5] = [800, 825, 850, 875, 900];
/// How far below its thousandths a step is left again.
pub const LADDER_OWED_SLACK_PERMILLE: u64 = 50;
/// How often the members of a hot room are told to the directory, at most.
pub const SCATTER_INTERVAL: Duration = Duration::from_millis(100);
/// Longest gather window of a room. Past it: refused at start, or 400.
pub const GATHER_MAX: Duration = Duration::from_secs(10);
/// Most messages of one batch. Past it: refused at start, or 400.
pub const BATCH_MESSAGES_MAX: usize = 10_000;
/// Smallest byte budget of one batch. Below it: refused at start, or 400.
pub const BATCH_BYTES_MIN: usize = KIB;
/// Largest byte budget of one batch. Past it: refused at start, or 400.
pub const BATCH_BYTES_MAX: usize = MIB;
/// Largest room that may flush without gathering. Past it: refused at start, or 400.
pub const DIRECT_MEMBERS_MAX: u64 = 1_000_000;
/// Longest spacing of early flushes. Past it: refused at start, or 400.
pub const URGENT_SPACING_MAX: Duration = Duration::from_secs(10);
/// Publisher keys that admit at one time: the present one and the next. Past it: refused at start.
pub const PUBLISHER_KEYS_MAX: usize = 2;
/// Keys that sign devices' tokens; a token is tried with each that fits its header. Past it: refused at start.
pub const DEVICE_KEYS_MAX: usize = 8;
/// Shortest HS256 secret, in bytes (RFC 7518 §3.2). Below it: refused at start.
pub const SECRET_BYTES_MIN: usize = 32;
/// Largest file that holds a secret or a public key. Past it: refused at start.
pub const SECRET_BYTES_MAX: usize = 4 * KIB;
/// Longest device token. Past it: 401 `token_invalid`, unread.
pub const TOKEN_BYTES_MAX: usize = 4 * KIB;
/// Rooms and prefixes of one token: a connection keeps them. Past it: 401 `token_invalid`.
pub const TOKEN_ROOMS_MAX: usize = 64;
/// How far a token's `nbf` may lie ahead, since two machines' clocks never agree. Past it: 401 `token_invalid`.
pub const TOKEN_SKEW: Duration = Duration::from_secs(5);

/// Bytes the store may hold, keys and rows. Past it: reliable messages are refused, 503 `store_full`.
pub const STORE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Requests of one shard that the store has not answered, or whose answers the shard has not taken. Past it: `Busy`.
pub const STORE_WAITING_MAX: usize = 4096;
/// Bytes (as encoded) of messages that one shard may have on their way to the store. Past it: 503 `store_busy`.
pub const STORE_WAITING_BYTES_MAX: usize = 32 * MIB;
/// Messages of one commit. Past it: the rest waits for the next.
pub const STORE_COMMIT_MESSAGES_MAX: usize = 1024;
/// Bytes (as encoded for devices) of one commit. Past it: the rest waits for the next.
pub const STORE_COMMIT_BYTES_MAX: usize = 4 * MIB;
/// Loads and pages between two commits. Past it: the rest waits for the next turn.
pub const STORE_TURN_READS_MAX: usize = 16;
/// How long one call of the store may take. Past it: `/readyz` says `store_slow`; the call is waited for all the same.
pub const STORE_CALL_AGE_MAX: Duration = Duration::from_secs(5);
/// First pause before a store that failed is opened again; doubles up to `STORE_REOPEN_PAUSE_MAX`.
pub const STORE_REOPEN_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a store that failed is opened again.
pub const STORE_REOPEN_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a store that is open again, and has had nothing to write, is doubted. Past it: it counts as well.
pub const STORE_HEALED_AFTER: Duration = Duration::from_secs(5);
/// How often the store looks for rows whose time has passed, unless the last look found all it may at once.
pub const STORE_PURGE_INTERVAL: Duration = Duration::from_secs(1);
/// Rows that one purge removes at most, however many came. Past it: the rest waits for the next, which then follows at once.
pub const STORE_PURGE_ROWS_MAX: usize = 1024;
/// Rows that one purge removes though fewer came since the last one: what an append may have to wait for.
pub const STORE_PURGE_ROWS_MIN: usize = 128;
/// Damaged rows kept for a look at them. Past it: the oldest go.
pub const STORE_QUARANTINE_ROWS_MAX: u64 = 256;
/// Pages of its file that the store keeps in memory, in bytes. Past it: the least used go.
pub const STORE_CACHE_BYTES_MAX: usize = 64 * MIB;

const _: () = {
    assert!(BATCH_MESSAGES_MAX <= GATHERED_MESSAGES_MAX, "what a room may gather fits one batch's budget");
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
        "a queue in between changes nothing"
    );
    assert!(LADDER_REFUSALS_DOWN < LADDER_REFUSALS_UP);
    assert!(INBOX_STANDING.as_millis() * LADDER_REFUSALS_UP as u128 <= LADDER_INTERVAL.as_millis());
    assert!(LADDER_OWED_SLACK_PERMILLE < LADDER_OWED_PERMILLE[0]);
    assert!(SEGMENT_QUEUED_MAX < FRAME_LANE_FRAMES_MAX, "one room can't fill a lane by itself");
    assert!(HISTORY_BYTES_MAX < WELCOME_BYTES_MAX);
    assert!(WELCOME_RELIABLE_BYTES_MAX < WELCOME_BYTES_MAX);
    assert!(
        PAYLOAD_BYTES_MAX * 4 / 3 < CATCH_UP_BYTES_MAX,
        "a member that catches up gets on by a whole message"
    );
    assert!(TAIL_BYTES_MAX <= STREAM_BYTES_MAX);
    assert!(TAIL_MESSAGES_MAX <= STREAM_MESSAGES_MAX);
    assert!(HEAD_BYTES_MAX <= DOOR_BUFFER_BYTES_MAX);
    assert!(PULLS_MAX < HALF_OPEN_MAX as u64, "who reads leaves places to who joins");
    assert!(
        PROGRESS_AGE_MAX.as_millis() < KERNEL_UNACKED_AGE_MAX.as_millis(),
        "a device is told before it is cut"
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
};
