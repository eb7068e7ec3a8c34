//! The table of metrics: each defined and documented once. No label takes a value that a stranger can choose: there is no
//! room, type or device label.

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the node lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of observations by size, in seconds.
    Histogram,
}

/// One row of the table of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// As Prometheus sees it.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Names of its labels, each with a fixed set of values.
    pub labels: &'static [&'static str],
    /// What it counts, for the `# HELP` line and docs/operations.md.
    pub help: &'static str,
}

macro_rules! table {
    ($($metric:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $metric: Definition =
            Definition { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// Every metric of the node.
        pub const DEFINITIONS: &[Definition] = &[$($metric),*];
    };
}

table! {
    PUBLISHED = Counter "roomcast_messages_published_total" ["class"] "Messages that reached their room, whatever became of them.";
    ACCEPTED = Counter "roomcast_messages_accepted_total" ["class"] "Messages taken into their room.";
    MERGED = Counter "roomcast_messages_merged_total" ["class"] "Messages replaced by a later one of their key while they waited.";
    SHED = Counter "roomcast_messages_shed_total" ["class", "reason"] "Messages dropped on purpose.";
    OVER_LIMIT = Counter "roomcast_messages_over_limit_total" ["limit"] "Messages past a limit of messages a second: refused, or, with `limits.observe_only`, taken all the same.";
    UNAVAILABLE = Counter "roomcast_messages_unavailable_total" ["reason"] "Reliable messages that were not, or perhaps not, stored.";
    DUPLICATES = Counter "roomcast_messages_duplicate_total" [] "Messages whose id was published before.";
    IDS_EVICTED = Counter "roomcast_ids_evicted_total" [] "Ids forgotten before their time because their room knew too many.";
    BATCHES = Counter "roomcast_batches_total" [] "Batches cut.";
    FRAMES = Counter "roomcast_frames_total" ["kind"] "Frames that a device's socket or outbox took: level, composed or refresh.";
    WELCOMES_ENCODED = Counter "roomcast_welcomes_encoded_total" [] "Welcomes encoded; devices that join a room between two of its batches share one.";
    FRAMES_SKIPPED = Counter "roomcast_frames_skipped_total" [] "Frames a device that was behind was not sent.";
    FRAMES_QUEUED = Counter "roomcast_frames_queued_total" [] "Frames a socket took in part or not at all, so that the device waits.";
    MESSAGES_SKIPPED = Counter "roomcast_messages_skipped_total" [] "Messages told to devices as skipped.";
    LANE_FULL = Counter "roomcast_lane_full_total" [] "Times a frame lane was full, so that a segment heals by refresh.";
    FRAMES_CARRIED = Counter "roomcast_frames_carried_total" [] "Frames with reliable messages again, for devices that did not acknowledge in time.";
    FRAMES_CATCHING_UP = Counter "roomcast_frames_catching_up_total" [] "Refresh frames after which the device still lacked reliable messages.";
    ACKS = Counter "roomcast_acks_total" [] "Acknowledgements taken.";
    ACKS_IGNORED = Counter "roomcast_acks_ignored_total" [] "Acknowledgements that named nothing sent to that device.";
    CURSORS_RESET = Counter "roomcast_cursors_reset_total" [] "Joins whose cursor was not honoured: those devices got everything that is alive.";
    STREAMS_FAILED = Counter "roomcast_streams_failed_total" [] "Times a room lost sight of its reliable stream because the store did not do what it asked.";
    ROOMS_FORGOTTEN = Counter "roomcast_rooms_forgotten_total" [] "Rooms forgotten because they were idle.";
    CLOSED = Counter "roomcast_connections_closed_total" ["reason"] "Connections closed, by the row of the close table.";
    CONNECTIONS = Gauge "roomcast_connections" ["shard"] "Connections placed on a shard.";
    MEMBERS = Gauge "roomcast_members" ["shard"] "Places of a shard's connections in rooms.";
    ROOMS = Gauge "roomcast_rooms" ["shard"] "Rooms a shard is the home of.";
    WAITING = Gauge "roomcast_connections_waiting" ["shard"] "Connections whose outbox is not empty.";
    BEHIND = Gauge "roomcast_connections_behind" ["shard"] "Connections that are behind, so that batches are skipped for them.";
    GATHERED = Gauge "roomcast_messages_gathered" ["shard"] "Messages that wait in a shard's rooms for their flush.";
    NOT_DURABLE = Gauge "roomcast_messages_not_durable" ["shard"] "Reliable messages of a shard's rooms on their way to the store.";
    BUSY = Gauge "roomcast_shard_busy_ratio" ["shard"] "Processor time that a shard's thread took of the last second.";
    PASSES = Gauge "roomcast_shard_passes_ratio" ["shard"] "Processor time that writing to devices takes of a shard, smoothed; `flush.cpu_share` bounds it.";
    STRETCH = Gauge "roomcast_shard_stretch_ratio" ["shard"] "By how much the windows of all rooms of a shard are widened together because their passes do not fit it; 1: not at all.";
    WINDOW_NEEDED = Gauge "roomcast_shard_window_needed_seconds" ["shard"] "The gather window that a shard's most costly room needs so that writing keeps to `flush.cpu_share`; past `flush.gather_max_ms` the shard has more to do than it can.";
    BUSY_SPREAD = Gauge "roomcast_shards_busy_max_over_mean" [] "How much busier than the mean the busiest shard is; 1: all are as busy.";
    MEMBERS_SPREAD = Gauge "roomcast_shards_members_max_over_mean" [] "How many times the mean of members the fullest shard has; 1: all have as many.";
    ROOMS_HOT = Gauge "roomcast_rooms_hot" [] "Rooms whose further devices are placed on several shards.";
    ROOMS_PROMOTED = Counter "roomcast_rooms_promoted_total" [] "Times further devices of a room were to be placed on more shards.";
    ROOMS_DEMOTED = Counter "roomcast_rooms_demoted_total" [] "Times further devices of a room were to be placed on fewer shards.";
    STORE_COMMITS = Counter "roomcast_store_commits_total" [] "Commits of reliable messages; each may hold those of many publishes.";
    STORE_COMMIT_TIME = Counter "roomcast_store_commit_microseconds_total" [] "How long those commits took together, syncs included.";
    STORE_MESSAGES = Counter "roomcast_store_messages_total" [] "Reliable messages made durable.";
    STORE_FAILURES = Counter "roomcast_store_failures_total" [] "Calls of the store that failed, attempts to open it again included.";
    STORE_REOPENINGS = Counter "roomcast_store_reopenings_total" [] "Times the store was open again after it had failed.";
    STORE_QUARANTINED = Counter "roomcast_store_quarantined_total" [] "Stored messages and entries that were found damaged and put aside.";
    STORE_PURGED = Counter "roomcast_store_purged_total" [] "Stored messages removed because their time had passed.";
    STORE_BYTES = Gauge "roomcast_store_bytes" [] "Bytes of what is stored, keys included; the file is larger.";
    STORE_FAILING = Gauge "roomcast_store_failing" [] "1 while the store fails, else 0.";
    STORE_CALL = Gauge "roomcast_store_call_seconds" [] "How long the store's call under way takes already; 0: there is none.";
    CPU = Counter "roomcast_cpu_microseconds_total" [] "Processor time that the process has used, in all its threads.";
    RESIDENT = Gauge "roomcast_resident_bytes" [] "Memory of the process that is in use; what the kernel holds for its sockets is not in it. 0: not known here.";
    DRAINING = Gauge "roomcast_draining" [] "1 while the node drains, else 0.";
    PUBLISH_TO_WRITE = Histogram "roomcast_publish_to_write_seconds" [] "From the acceptance of a batch's oldest message to the end of the pass that wrote it.";
    WINDOW = Histogram "roomcast_gather_window_seconds" [] "The gather window under which the last batch of each of a shard's turns was cut.";
    HTTP = Counter "roomcast_http_requests_total" ["door", "status"] "Requests answered, by door and class of status.";
    DROPPED = Counter "roomcast_door_connections_dropped_total" ["door", "reason"] "Connections a door closed without an answer: full (it made way, or no descriptor was left), or late with their request.";
    ACCEPT_FAILED = Counter "roomcast_accept_failures_total" ["door"] "Failures to accept a connection; the door paused after each.";
    HANDSHAKES = Counter "roomcast_handshakes_accepted_total" [] "Devices answered with 101.";
    HANDSHAKES_REFUSED = Counter "roomcast_handshakes_refused_total" ["reason"] "Devices that were not let in.";
}
