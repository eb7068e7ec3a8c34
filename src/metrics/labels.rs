//! Labels of metrics that the doors count by: fixed sets, whatever strangers send.

/// One of the node's three doors, as metrics and logs call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorName {
    /// Devices come in here.
    Viewer,
    /// Streaming backends publish here.
    Publisher,
    /// Operators look in here.
    Operator,
}

impl DoorName {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Publisher, Self::Operator];

    /// Its label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
            Self::Operator => "operator",
        }
    }
}

/// Why a door closed a connection without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It made way for another at a full door, or no descriptor was left for it.
    Full,
    /// The head of its request, or its reading of the answer, took too long.
    Late,
}

impl Dropped {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 2] = [Self::Full, Self::Late];

    /// Its label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Late => "late",
        }
    }
}

/// Why a device was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The node is draining.
    Draining,
    /// A room name, a header or a query field is not what the protocol says.
    BadRequest,
    /// Its origin is not on the list.
    Origin,
    /// It offered only subprotocols that are not ours.
    Subprotocol,
    /// Its token is missing or not valid.
    Token,
    /// Its token does not cover the room.
    Room,
    /// All places for connections are taken.
    ConnectionsFull,
    /// More devices come than `viewer.joins_per_second`.
    TooFast,
    /// The room's shard, or the room, has joins refused.
    JoinsRefused,
    /// The shard has too many arrivals waiting.
    ArrivalsFull,
    /// It left between its request and the answer.
    Gone,
}

impl Refusal {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 11] = [
        Self::Draining,
        Self::BadRequest,
        Self::Origin,
        Self::Subprotocol,
        Self::Token,
        Self::Room,
        Self::ConnectionsFull,
        Self::TooFast,
        Self::JoinsRefused,
        Self::ArrivalsFull,
        Self::Gone,
    ];

    /// Its label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::BadRequest => "bad_request",
            Self::Origin => "origin",
            Self::Subprotocol => "subprotocol",
            Self::Token => "token",
            Self::Room => "room",
            Self::ConnectionsFull => "connections_full",
            Self::TooFast => "too_fast",
            Self::JoinsRefused => "joins_refused",
            Self::ArrivalsFull => "arrivals_full",
            Self::Gone => "gone",
        }
    }
}
