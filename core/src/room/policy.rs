//! What is promised for each type of message, and how it is treated where not everything fits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::id::TypeName;
use super::message::Class;
use crate::limits::{TTL_DEFAULT, WAIT_DEFAULT};

/// Who goes first where not everything fits a batch, and who makes room where too much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Makes room for all others, and goes last.
    Low,
    /// Shares what is not reserved with `High`, in room order.
    Normal,
    /// Half of a batch is its own unless configured otherwise.
    High,
}

impl Priority {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// Its name in the configuration and in `PUT /v1/rooms/{room}`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// What becomes of a message that finds one of its type and key waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Merge {
    /// Both leave.
    None,
    /// The later one leaves, in the place of the first: "the price is 7".
    Latest,
    /// The first one leaves, the later ones are counted: "A and 41 others came in". Without a key, all of the type are one.
    First,
    /// The later one leaves, in the place of the first, with the sum of their counts: "A sends 12 roses".
    Sum,
}

impl Merge {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Latest, Self::First, Self::Sum];

    /// Its name in the configuration and in `PUT /v1/rooms/{room}`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Latest => "latest",
            Self::First => "first",
            Self::Sum => "sum",
        }
    }
}

/// How many messages of a type a room takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeRate {
    /// In the long run; at least 1.
    pub per_second: u32,
    /// At once; at least 1.
    pub burst: u32,
}

/// What the configuration says of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypePolicy {
    /// What is promised.
    pub class: Class,
    /// Who goes first. Reliable messages go before all others, whatever this says.
    pub priority: Priority,
    /// What becomes of several that wait.
    pub merge: Merge,
    /// Whether it makes its room flush at once; reliable types do unless told otherwise.
    pub urgent: bool,
    /// How long a reliable message lives, or another one may wait for its turn, when the publisher says nothing.
    pub ttl: Duration,
    /// How many a room takes; `None`: as many as come.
    pub rate: Option<TypeRate>,
    /// Whether it is kept in the room's history for late joiners.
    pub history: bool,
    /// Its chance to be shown where only a sample is, against that of others; at least 1.
    pub weight: u32,
}

impl TypePolicy {
    /// A type of which nothing is known but its class.
    #[must_use]
    pub fn of(class: Class) -> Self {
        let plain = Self {
            class,
            priority: Priority::Normal,
            merge: Merge::None,
            urgent: false,
            ttl: WAIT_DEFAULT,
            rate: None,
            history: false,
            weight: 1,
        };
        match class {
            Class::Reliable => Self { priority: Priority::High, urgent: true, ttl: TTL_DEFAULT, ..plain },
            Class::Normal => Self { history: true, ..plain },
            // At most one of each key waits: they take little, and nobody wants them late.
            Class::Latest => Self { priority: Priority::High, merge: Merge::Latest, ..plain },
            Class::Counter => plain,
            Class::Lossy => Self { priority: Priority::Low, merge: Merge::Latest, ..plain },
        }
    }

    /// This policy with what `change` names in its stead.
    #[must_use]
    pub fn with(self, change: &PolicyChange) -> Self {
        Self {
            class: self.class,
            priority: change.priority.unwrap_or(self.priority),
            merge: change.merge.unwrap_or(self.merge),
            urgent: change.urgent.unwrap_or(self.urgent),
            ttl: change.ttl.unwrap_or(self.ttl),
            rate: change.rate.unwrap_or(self.rate),
            history: change.history.unwrap_or(self.history),
            weight: change.weight.unwrap_or(self.weight),
        }
    }

    /// Whether its publisher may say how many a message stands for.
    #[must_use]
    pub fn takes_count(&self) -> bool {
        self.class == Class::Counter || self.merge == Merge::Sum
    }

    /// Whether its publisher may say how long a message lives, or waits.
    #[must_use]
    pub fn takes_ttl(&self) -> bool {
        matches!(self.class, Class::Reliable | Class::Normal | Class::Lossy)
    }
}

/// What a room does otherwise for a type. `None` leaves it as it is. The class is the node's to say: what a publish may
/// hold depends on it, and is checked before anyone knows the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyChange {
    /// Who goes first.
    pub priority: Option<Priority>,
    /// What becomes of several that wait.
    pub merge: Option<Merge>,
    /// Whether it makes its room flush at once.
    pub urgent: Option<bool>,
    /// How long it lives or waits when the publisher says nothing.
    pub ttl: Option<Duration>,
    /// How many the room takes.
    pub rate: Option<Option<TypeRate>>,
    /// Whether it is kept in the history.
    pub history: Option<bool>,
    /// Its chance to be shown.
    pub weight: Option<u32>,
}

impl PolicyChange {
    /// This change, and `later` over it.
    #[must_use]
    pub fn then(self, later: &Self) -> Self {
        Self {
            priority: later.priority.or(self.priority),
            merge: later.merge.or(self.merge),
            urgent: later.urgent.or(self.urgent),
            ttl: later.ttl.or(self.ttl),
            rate: later.rate.or(self.rate),
            history: later.history.or(self.history),
            weight: later.weight.or(self.weight),
        }
    }
}

/// The configured types. A type that is not among them is normal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Types(BTreeMap<TypeName, TypePolicy>);

impl Types {
    /// A table of these policies.
    pub fn new(policies: impl IntoIterator<Item = (TypeName, TypePolicy)>) -> Self {
        Self(policies.into_iter().collect())
    }

    /// The policy of a type; that of a plain normal one where nothing is configured.
    #[must_use]
    pub fn policy(&self, type_name: &TypeName) -> TypePolicy {
        self.0.get(type_name).copied().unwrap_or_else(|| TypePolicy::of(Class::Normal))
    }

    /// The configured type of this name and its policy, so that a message can share the name instead of copying it.
    #[must_use]
    pub fn configured(&self, name: &str) -> Option<(&TypeName, TypePolicy)> {
        self.0.get_key_value(name).map(|(type_name, policy)| (type_name, *policy))
    }

    /// All configured types, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&TypeName, &TypePolicy)> {
        self.0.iter()
    }
}
