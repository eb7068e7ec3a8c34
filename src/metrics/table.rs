//! The table of metrics: the definition and the documentation of each. docs/operations.md shows the same
//! rows.

/// The kind of a metric's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows while the node lives.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// Counts of observations by size, in seconds where the name says so.
    Histogram,
}

/// A row of the table of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// The name for Prometheus, such as `roomcast_batches_total`.
    pub name: &'static str,
    /// The kind of the number.
    pub kind: Kind,
    /// The names of the labels. Each label has a fixed set of values.
    pub labels: &'static [&'static str],
    /// The counted thing in a sentence, for the `# HELP` line and docs/operations.md.
    pub help: &'static str,
}

// A constant for each row: a counter names its row, so no name of a metric is spelt twice.
macro_rules! table {
    ($($metric:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $metric: Definition =
            Definition { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// Every metric of the node.
        pub const DEFINITIONS: &[Definition] = &[$($metric),*];
    };
}

table! {
    PUBLISHED = Counter "roomcast_messages_published_total" ["class"]
        "Messages that reached their room, with any outcome.";
    ACCEPTED = Counter "roomcast_messages_accepted_total" ["class"] "Messages taken into their room.";
    MERGED = Counter "roomcast_messages_merged_total" ["class"]
        "Messages merged with a waiting message of their type and key, so that one message leaves. By the \
         rule of the type: `latest` keeps the later one, `first` the first one, and `sum` the later one \
         with the sum of their counts.";
    SHED = Counter "roomcast_messages_shed_total" ["class", "reason"] "Messages dropped on purpose.";
    OVER_LIMIT = Counter "roomcast_messages_over_limit_total" ["limit"]
        "Messages past a limit of messages a second: refused, or, with `limits.observe_only`, taken all \
         the same.";
    UNAVAILABLE = Counter "roomcast_messages_unavailable_total" ["reason"]
        "Reliable messages that were not stored, or perhaps not stored.";
    DUPLICATES = Counter "roomcast_messages_duplicate_total" []
        "Messages with an id that was published before.";
    IDS_EVICTED = Counter "roomcast_ids_evicted_total" []
        "Ids forgotten early because their room knew too many.";
    BATCHES = Counter "roomcast_batches_total" [] "Batches cut.";
    FRAMES = Counter "roomcast_frames_total" ["kind"]
        "Frames that a device's socket or outbox took: level, composed or refresh.";
    WELCOMES_ENCODED = Counter "roomcast_welcomes_encoded_total" []
        "Welcomes encoded; devices that join a room between two of its batches share one.";
    FRAMES_SKIPPED = Counter "roomcast_frames_skipped_total" []
        "Frames not sent to a device because it was behind.";
    FRAMES_QUEUED = Counter "roomcast_frames_queued_total" []
        "Frames a socket took in part or not at all, so that the device waits.";
    MESSAGES_SKIPPED = Counter "roomcast_messages_skipped_total" [] "Messages told to devices as skipped.";
    LANE_FULL = Counter "roomcast_lane_full_total" []
        "Times a frame lane was full, or another node took no batch for a second, so that members heal by refresh.";
    FRAMES_CARRIED = Counter "roomcast_frames_carried_total" []
        "Carry frames: reliable messages again, for devices that did not acknowledge in time.";
    FRAMES_CATCHING_UP = Counter "roomcast_frames_catching_up_total" []
        "Refresh frames after which the device still lacked reliable messages or latest values.";
    ACKS = Counter "roomcast_acks_total" [] "Acknowledgements taken.";
    ACKS_IGNORED = Counter "roomcast_acks_ignored_total" []
        "Acknowledgements of an offset that was not sent to the device.";
    CURSORS_RESET = Counter "roomcast_cursors_reset_total" []
        "Joins with a cursor that was not honoured. These devices got every message that is alive.";
    STREAMS_FAILED = Counter "roomcast_streams_failed_total" []
        "Times a room had to load its reliable stream again because the store failed a request.";
    ROOMS_FORGOTTEN = Counter "roomcast_rooms_forgotten_total" [] "Idle rooms forgotten.";
    CLOSED = Counter "roomcast_connections_closed_total" ["reason"]
        "Connections closed, by the row of the close table.";
    CONNECTIONS = Gauge "roomcast_connections" ["shard"] "Connections placed on a shard.";
    MEMBERS = Gauge "roomcast_members" ["shard"] "Members: places of a shard's connections in rooms.";
    OVERDUE = Gauge "roomcast_members_overdue" ["shard"]
        "Members that lack a reliable message past its time: no acknowledgement has come.";
    ROOMS = Gauge "roomcast_rooms" ["shard"] "Rooms with this shard as their home.";
    WAITING = Gauge "roomcast_connections_waiting" ["shard"] "Connections with an outbox that is not empty.";
    BEHIND = Gauge "roomcast_connections_behind" ["shard"]
        "Connections that are behind, so that batches are skipped for them.";
    GATHERED = Gauge "roomcast_messages_gathered" ["shard"]
        "Messages that wait in a shard's rooms for their flush.";
    NOT_DURABLE = Gauge "roomcast_messages_not_durable" ["shard"]
        "Reliable messages of a shard's rooms on their way to the store.";
    BUSY = Gauge "roomcast_shard_busy_ratio" ["shard"]
        "Processor time of a shard's thread over the last second.";
    PASSES = Gauge "roomcast_shard_passes_ratio" ["shard"]
        "Share of a shard's processor time for writing to devices, smoothed. `flush.cpu_share` bounds it.";
    STRETCH = Gauge "roomcast_shard_stretch_ratio" ["shard"]
        "Factor on the gather windows of all rooms of a shard, widened because its passes do not fit. 1: \
         no widening.";
    WINDOW_NEEDED = Gauge "roomcast_shard_window_needed_seconds" ["shard"]
        "The gather window that a shard's most costly room needs to keep writing within \
         `flush.cpu_share`. Past `flush.gather_max_ms` the shard has too much to do.";
    LADDER_STEP = Gauge "roomcast_ladder_step" ["shard"]
        "The step of the ladder in force on a shard, 0 to 5. 0: everything is as promised.";
    LADDER_CHANGES = Counter "roomcast_ladder_changes_total" ["direction"]
        "Changes of a shard's own step of the ladder, up or down.";
    OUTBOUND_OWED = Gauge "roomcast_outbound_owed_bytes" ["shard"]
        "Bytes that a shard's devices are owed, welcomes and history included. A frame counts once for each \
         device, waiting history once for all that share it.";
    BUSY_SPREAD = Gauge "roomcast_shards_busy_max_over_mean" []
        "Processor time of the busiest shard over the mean of all shards. 1: all are equally busy.";
    MEMBERS_SPREAD = Gauge "roomcast_shards_members_max_over_mean" []
        "Members of the fullest shard over the mean of all shards. 1: all have as many.";
    ROOMS_HOT = Gauge "roomcast_rooms_hot" []
        "Hot rooms: their further devices are placed on several shards.";
    ROOMS_PROMOTED = Counter "roomcast_rooms_promoted_total" []
        "Promotions: times a room's further devices were to be placed on more shards.";
    ROOMS_DEMOTED = Counter "roomcast_rooms_demoted_total" []
        "Demotions: times a room's further devices were to be placed on fewer shards.";
    STORE_COMMITS = Counter "roomcast_store_commits_total" []
        "Commits of reliable messages. One commit may hold the messages of many publishes.";
    STORE_COMMIT_TIME = Counter "roomcast_store_commit_microseconds_total" []
        "Total time of these commits, syncs included.";
    STORE_MESSAGES = Counter "roomcast_store_messages_total" [] "Reliable messages made durable.";
    STORE_FAILURES = Counter "roomcast_store_failures_total" []
        "Failed calls of the store, failed reopenings included.";
    STORE_REOPENINGS = Counter "roomcast_store_reopenings_total" []
        "Successful reopenings of the store after a failure.";
    STORE_QUARANTINED = Counter "roomcast_store_quarantined_total" []
        "Damaged messages and entries that were found in the store and put aside.";
    STORE_READS_FAILED = Counter "roomcast_store_reads_failed_total" []
        "Failed reads of a room's stored messages. All other rooms go on.";
    STORE_WRITES_FAILED = Counter "roomcast_store_writes_failed_total" []
        "Failed writes of a room alone: a page of the file is damaged. All other rooms go on.";
    STORE_PURGED = Counter "roomcast_store_purged_total" [] "Expired messages removed from the store.";
    STORE_BYTES = Gauge "roomcast_store_bytes" []
        "Bytes of stored messages, keys included. The file is larger.";
    STORE_FAILING = Gauge "roomcast_store_failing" [] "1 while the store fails, else 0.";
    STORE_ROOMS_ASIDE = Gauge "roomcast_store_rooms_aside" []
        "Rooms whose stored messages can't be read or written. Their reliable messages are refused.";
    STORE_CALL = Gauge "roomcast_store_call_seconds" []
        "Time since the store's call under way began. 0: no call is under way.";
    LOG_SLOTS = Gauge "roomcast_log_slots" ["state"]
        "Slots of a cluster that this node holds, or claims. A node without `cluster.nats` has none.";
    CLAIMS = Counter "roomcast_claims_total" ["why"]
        "Claims of slots. `ordered`: by the cluster. `reopened`: by the log, after an append of unknown outcome.";
    FENCED = Counter "roomcast_fenced_total" [] "Slots lost to another node's claim, perhaps to be held again.";
    OUT_OF_TERM = Counter "roomcast_out_of_term_total" []
        "Records of an older term behind a newer claim, which are never sent. Past 0: acknowledged messages may be \
         lost, and the NATS servers are at fault.";
    CPU = Counter "roomcast_cpu_microseconds_total" [] "Processor time of the process, in all its threads.";
    RESIDENT = Gauge "roomcast_resident_bytes" []
        "Memory of the process in use, without the kernel's memory for its sockets. 0: unknown on this \
         system.";
    BUILD_INFO = Gauge "roomcast_build_info" ["version"] "Always 1; the label says which version runs.";
    START_TIME = Gauge "roomcast_start_time_seconds" [] "The start of the node, in seconds since 1970.";
    CONNECTIONS_MAX = Gauge "roomcast_connections_max" []
        "Places for devices: the limit of `roomcast_connections`, over all shards.";
    DESCRIPTORS = Gauge "roomcast_descriptors" [] "Descriptors of devices and of connections at the doors.";
    DESCRIPTORS_MAX = Gauge "roomcast_descriptors_max" []
        "The process's limit of descriptors. 128 of them are kept for the doors, the store and the log.";
    STORE_LIMIT = Gauge "roomcast_store_bytes_max" [] "The limit of `roomcast_store_bytes`.";
    OUTBOUND_OWED_MAX = Gauge "roomcast_outbound_owed_bytes_max" []
        "`limits.outbound_bytes`: the limit of `roomcast_outbound_owed_bytes`, over all shards.";
    DRAINING = Gauge "roomcast_draining" [] "1 while the node drains, else 0.";
    PUBLISH_TO_WRITE = Histogram "roomcast_publish_to_write_seconds" []
        "From the acceptance of a batch's oldest message to the end of the pass that wrote it.";
    WINDOW = Histogram "roomcast_gather_window_seconds" []
        "The gather window under which the last batch of each of a shard's turns was cut.";
    LOG_COMMIT = Histogram "roomcast_log_commit_seconds" []
        "From the append of a record to JetStream to its acknowledgement.";
    LOG_RECORD_ROWS = Histogram "roomcast_log_record_rows" [] "Messages of a record in JetStream.";
    HTTP = Counter "roomcast_http_requests_total" ["door", "status"]
        "Requests answered, by door and class of status.";
    DROPPED = Counter "roomcast_door_connections_dropped_total" ["door", "reason"]
        "Connections that a door closed without an answer. `full`: the connection made way, or no \
         descriptor was left. `late`: its request was late.";
    ACCEPT_FAILED = Counter "roomcast_accept_failures_total" ["door"]
        "Failures to accept a connection; the door paused after each.";
    RELOADS = Counter "roomcast_reloads_total" ["outcome"]
        "Readings of the configuration on SIGHUP. `done`: all shards follow. `refused`: the files have mistakes or \
         were not read in time, and nothing changed.";
    NODE_CALLS = Counter "roomcast_node_calls_total" ["outcome"]
        "Requests for a room of another node, by outcome. `answered`: by the room's home. `busy`: not sent. `unknown`: \
         sent and not answered. `no_home`: no node was known to order the room. `not_home`: asked of this node by \
         another one, though this one is not the home.";
    ROUTE_ANSWERS = Counter "roomcast_route_answers_total" ["kind"]
        "Answers of `/v1/route`. `cold`: the room's home, perhaps with its heir. `hot`: all nodes of the room. \
         `door`: no node, so that the device stays at the door.";
    SLOTS = Gauge "roomcast_slots" ["state"]
        "Slots of the cluster, as this node sees them. `here`: ordered by this node. `frozen`: by this node, \
         without the right to order. `there`: by another node. `nobody`: by no living node.";
    LINK_BYTES = Counter "roomcast_link_bytes_total" ["peer"] "Bytes of messages sent to other nodes.";
    LINK_FRAMES = Counter "roomcast_link_frames_total" ["peer"]
        "Entries sent to other nodes: batches, joins, answers, calls.";
    LINK_LAPSED = Counter "roomcast_link_lapsed_total" ["peer"]
        "Batches left out of links to other nodes: too much was on its way. Devices there heal by refresh.";
    LINK_REPEATED = Counter "roomcast_link_repeated_total" ["peer"] "Messages sent to other nodes again.";
    LINK_RESETS = Counter "roomcast_link_resets_total" ["peer"]
        "Links to other nodes that began anew: the members at the other end join again.";
    LINK_STALE = Counter "roomcast_link_stale_total" ["peer"]
        "Messages and words of other nodes that were dropped: of a former life, or unreadable.";
    LINK_AGE = Gauge "roomcast_link_age_seconds" ["peer"]
        "Age of the oldest entry on a link to another node without an acknowledgement.";
    ECHO = Gauge "roomcast_echo_seconds" []
        "Age of this node's own heartbeat, as it came back from NATS. Above 2, this node orders nothing.";
    HAND_OVERS = Counter "roomcast_hand_overs_total" ["outcome"]
        "Hand-overs of this node's slots that have ended. `given`: the next home goes on. `kept`: given up, and the \
         rooms go on here. `lost`: another node has claimed the slot.";
    TAKEOVER = Histogram "roomcast_takeover_seconds" []
        "Time from the last heartbeat of a slot's former node to the slot's rooms at this node.";
    KEPT = Gauge "roomcast_kept_bytes" ["shard"]
        "Bytes of other nodes' rooms that a shard keeps for takeovers: totals and latest values. A node without \
         `cluster.nats` has none.";
    KEPT_LEFT_OUT = Counter "roomcast_kept_left_out_total" []
        "Words about kept rooms that were left out, and kept rooms that were forgotten for want of space: a takeover \
         finds these rooms older, or without totals and latest values.";
    QUOTA_ALLOCATION = Gauge "roomcast_quota_allocation" ["key_index"]
        "Messages a second of a publisher key at this node, its share of `limits.key_messages_per_second`, by the \
         place in `publisher.keys`. 0: no such limit, or no cluster.";
    JOINS_ALLOCATION = Gauge "roomcast_joins_allocation" []
        "Joins a second at this node, its share of `viewer.joins_per_second`. 0: no cluster.";
    QUOTAS_WITHOUT_SHARE = Gauge "roomcast_quotas_without_share" []
        "Limits of the cluster without a share for this node, which keeps to limit ÷ known nodes.";
    REWELCOMES = Counter "roomcast_rewelcomes_total" []
        "Members that were welcomed again on their connection: their room has another home, or the link to it began \
         anew.";
    STALE_WORDS = Counter "roomcast_stale_words_total" []
        "Words of other nodes about members or batches that a room does not know.";
    HANDSHAKES = Counter "roomcast_handshakes_accepted_total" [] "Devices answered with 101.";
    HANDSHAKES_REFUSED = Counter "roomcast_handshakes_refused_total" ["reason"]
        "Devices refused at the viewer door.";
}
