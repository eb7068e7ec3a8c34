//! Which room each device sits in: how large rooms are, and how devices are spread over them. Pure.

use serde::{Deserialize, Serialize};

/// How large the rooms of a run are. Each has at least one device, as long as there are enough of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sizes {
    /// All alike: device n sits in room n modulo the rooms.
    #[default]
    Even,
    /// The first has this share of the devices, in millionths; the others share the rest alike.
    Giant { share: u32 },
    /// The n-th has a part in proportion to 1 / n to the power of this.
    Zipf { exponent: f64 },
    /// Sizes drawn from a lognormal distribution whose logarithm has this standard deviation.
    Lognormal { sigma: f64 },
    /// As live platforms see them: one large room (half of the devices), hundreds of middle ones (a tenth of the rooms,
    /// three tenths of the devices), all others small.
    Field,
}
