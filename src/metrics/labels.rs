//! The labels of the doors' metrics: fixed sets, so a stranger's request cannot add a value.

// An enum for each label: a value is named once, and no value can be left out of the list.
macro_rules! labels {
    ($($(#[$about:meta])* $vis:vis enum $Label:ident {
        $($(#[$of_value:meta])* $Value:ident = $name:literal,)*
    })*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $Label {
            $($(#[$of_value])* $Value,)*
        }

        impl $Label {
            /// Every value, in the order of the indices.
            pub(crate) const ALL: [Self; [$($name),*].len()] = [$(Self::$Value),*];

            /// The value in the text of the metrics.
            #[must_use]
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$Value => $name,)*
                }
            }
        }
    )*};
}

labels! {
    /// The name of a door in metrics and logs.
    pub enum DoorName {
        /// The door for devices.
        Viewer = "viewer",
        /// The door for publishers.
        Publisher = "publisher",
        /// The door for operators.
        Operator = "operator",
    }

    /// The reason of a door to close a connection without an answer.
    pub(crate) enum Dropped {
        /// The connection made way for another at a full door, or no descriptor was left.
        Full = "full",
        /// The head of the request, or the reading of the answer, took too long.
        Late = "late",
    }

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
