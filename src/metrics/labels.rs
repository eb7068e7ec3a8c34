//! The labels of the doors' metrics: fixed sets, so a stranger's request cannot add a value.

/// The name of a door in metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorName {
    /// The door for devices.
    Viewer,
    /// The door for publishers.
    Publisher,
    /// The door for operators.
    Operator,
}

impl DoorName {
    /// Every door, in the order of the indices.
    pub(crate) const ALL: [Self; 3] = [Self::Viewer, Self::Publisher, Self::Operator];

    /// The value of the label.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
            Self::Operator => "operator",
        }
    }
}

/// The reason of a door to close a connection without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The connection made way for another at a full door, or no descriptor was left.
    Full,
    /// The head of the request, or the reading of the answer, took too long.
    Late,
}

impl Dropped {
    /// Every reason, in the order of the indices.
    pub(crate) const ALL: [Self; 2] = [Self::Full, Self::Late];

    /// The value of the label.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Late => "late",
        }
    }
}

/// The reason of the viewer door to refuse a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The node is draining.
    Draining,
    /// A room name, a header or a query field violates the protocol.
    BadRequest,
    /// The origin is not on the allow-list.
    Origin,
    /// The device offered subprotocols, but none of the engine's.
    Subprotocol,
    /// The token is missing or not valid.
    Token,
    /// The token does not cover the room.
    Room,
    /// All places for connections are taken.
    ConnectionsFull,
    /// More devices are joining than `viewer.joins_per_second` allows.
    TooFast,
    /// The ladder of the shard, or of the room, refuses joins.
    JoinsRefused,
    /// The shard has the most arrivals waiting that it may have.
    ArrivalsFull,
    /// The device left between its request and the answer.
    Gone,
}

impl Refusal {
    /// Every reason, in the order of the indices.
    pub(crate) const ALL: [Self; 11] = [
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

    /// The value of the label.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
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
