//! The labels of the doors' metrics: fixed sets, so a stranger's request cannot add a value.

use roomcast_core::named;

named! {
    /// The name of a door in metrics and logs.
    pub enum DoorName {
        /// The door for devices.
        Viewer = "viewer",
        /// The door for publishers.
        Publisher = "publisher",
        /// The door for operators.
        Operator = "operator",
    }
}

named! {
    /// The reason of a door to close a connection without an answer.
    pub(crate) enum Dropped {
        /// The connection made way for another at a full door, or no descriptor was left.
        Full = "full",
        /// The head of the request, or the reading of the answer, took too long.
        Late = "late",
    }
}

named! {
    /// The outcome of a reload.
    pub(crate) enum ReloadOutcome {
        /// The new configuration is in force in all shards, but for the keys that need a restart.
        Done = "done",
        /// The files have mistakes, or were not read in time.
        Refused = "refused",
    }
}

named! {
    /// The reason of the viewer door to refuse a device.
    pub(crate) enum Refusal {
        /// The node is draining.
        Draining = "draining",
        /// A room name, a header or a query field violates the protocol.
        BadRequest = "bad_request",
        /// The origin is not on the allow-list.
        Origin = "origin",
        /// The device offered subprotocols, but none of the engine's.
        Subprotocol = "subprotocol",
        /// The token is missing or not valid.
        Token = "token",
        /// The token does not cover the room.
        Room = "room",
        /// All places for connections are taken.
        ConnectionsFull = "connections_full",
        /// More devices are joining than `viewer.joins_per_second` allows.
        TooFast = "too_fast",
        /// The ladder of the shard, or of the room, refuses joins.
        JoinsRefused = "joins_refused",
        /// The shard has the most arrivals waiting that it may have.
        ArrivalsFull = "arrivals_full",
        /// The device left between its request and the answer.
        Gone = "gone",
    }
}

named! {
    /// The outcome of a request for a room with its home on another node.
    pub(crate) enum NodeCallOutcome {
        /// The home answered, with any status.
        Answered = "answered",
        /// Nothing was sent: too much waits for the home, or no link leads there.
        Busy = "busy",
        /// The home may have taken the request, and did not answer.
        Unknown = "unknown",
        /// No node is known to order the room, or NATS is out of reach.
        NoHome = "no_home",
        /// Another node asked this one for a room that this one does not order.
        NotHome = "not_home",
    }
}

named! {
    /// The kind of an answer of `/v1/route`.
    pub(crate) enum RouteKind {
        /// The home of the room, and perhaps the heir.
        Cold = "cold",
        /// All nodes of a hot room.
        Hot = "hot",
        /// No node: the door that was asked is as good as any.
        Door = "door",
    }
}
