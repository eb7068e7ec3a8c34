//! The policy of a message type: the promise, and the treatment of messages in a full batch or room.

use std::collections::BTreeMap;
use std::time::Duration;

use super::id::TypeName;
use super::message::Class;
use crate::limits::{TTL_DEFAULT, WAIT_DEFAULT};

named! {
    /// Order of leaving with a full batch, and of making room in a full room.
    pub enum Priority {
        /// Leaves last, and makes room for all others.
        Low = "low",
        /// Shares the unreserved part of a batch with `High`, in room order.
        Normal = "normal",
        /// Has half of a batch reserved, unless configured otherwise.
        High = "high",
    }
}

named! {
    /// The rule for a message behind a waiting message of the same type and key.
    pub enum Merge {
        /// Both leave.
        None = "none",
        /// The later message leaves, in the place of the first: "the price is 7".
        Latest = "latest",
        /// The first message leaves, and later messages are counted: "A and 41 others came in". All messages
        /// of the type without a key merge as well.
        First = "first",
        /// The later message leaves, in the place of the first, with the sum of both counts: "A sends 12
        /// roses".
        Sum = "sum",
    }
}

/// A room's rate for a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeRate {
    /// Messages a second in the long run, at least 1.
    pub per_second: u32,
    /// Messages at once, at least 1.
    pub burst: u32,
}

/// The configuration of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypePolicy {
    /// The engine's promise.
    pub class: Class,
    /// Order of leaving. Reliable messages leave before all others, at any priority.
    pub priority: Priority,
    /// The rule for several waiting messages.
    pub merge: Merge,
    /// True: the room flushes at once. The default for class reliable.
    pub urgent: bool,
    /// Life of a reliable message, or longest wait of any other, unless the publisher names a time.
    pub ttl: Duration,
    /// The room's rate for the type; `None`: no limit.
    pub rate: Option<TypeRate>,
    /// True: the room's history keeps the message for late joiners.
    pub history: bool,
    /// Chance of being drawn into a sample, relative to other messages; at least 1.
    pub weight: u32,
}

impl TypePolicy {
    /// The default policy of a class.
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
            // A lossy message makes room for all others, and a newer one of its key stands for it.
            Class::Lossy => Self { priority: Priority::Low, merge: Merge::Latest, ..plain },
        }
    }

    /// This policy, overridden by `change`.
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

    /// True if a message of the type may name a `count`.
    pub fn takes_count(&self) -> bool {
        self.class == Class::Counter || self.merge == Merge::Sum
    }

    /// True if a message of the type may name a `ttl_ms`.
    pub fn takes_ttl(&self) -> bool {
        matches!(self.class, Class::Reliable | Class::Normal | Class::Lossy)
    }
}

/// A room's change to a type's policy; `None` leaves a setting as configured. No room changes the class: a
/// publish is checked against the class before the room is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyChange {
    /// Order of leaving.
    pub priority: Option<Priority>,
    /// The rule for several waiting messages.
    pub merge: Option<Merge>,
    /// True: the room flushes at once.
    pub urgent: Option<bool>,
    /// Life or longest wait, unless the publisher names a time.
    pub ttl: Option<Duration>,
    /// The room's rate; `Some(None)` takes the rate away.
    pub rate: Option<Option<TypeRate>>,
    /// True: the room's history keeps the message.
    pub history: Option<bool>,
    /// Chance of being drawn into a sample, at least 1.
    pub weight: Option<u32>,
}

impl PolicyChange {
    /// The configured settings of a type: those unlike the default of its class.
    #[must_use]
    pub fn configured(policy: &TypePolicy) -> Self {
        let plain = TypePolicy::of(policy.class);
        Self {
            priority: (policy.priority != plain.priority).then_some(policy.priority),
            merge: (policy.merge != plain.merge).then_some(policy.merge),
            urgent: (policy.urgent != plain.urgent).then_some(policy.urgent),
            ttl: (policy.ttl != plain.ttl).then_some(policy.ttl),
            rate: (policy.rate != plain.rate).then_some(policy.rate),
            history: (policy.history != plain.history).then_some(policy.history),
            weight: (policy.weight != plain.weight).then_some(policy.weight),
        }
    }

    /// This change, overridden by `later`.
    pub(super) fn then(self, later: &Self) -> Self {
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

/// The configured types. Any other type is normal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Types(BTreeMap<TypeName, TypePolicy>);

impl Types {
    /// A table of `policies`. The last entry of a name counts.
    pub fn new(policies: impl IntoIterator<Item = (TypeName, TypePolicy)>) -> Self {
        Self(policies.into_iter().collect())
    }

    /// The configured policy of a type, or the default policy of class normal.
    pub fn policy(&self, type_name: &TypeName) -> TypePolicy {
        self.0.get(type_name).copied().unwrap_or_else(|| TypePolicy::of(Class::Normal))
    }

    /// The configured type of this name, with the policy. Messages share the name and copy nothing.
    pub fn configured(&self, name: &str) -> Option<(&TypeName, TypePolicy)> {
        self.0.get_key_value(name).map(|(type_name, policy)| (type_name, *policy))
    }

    /// All configured types, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&TypeName, &TypePolicy)> {
        self.0.iter()
    }
}
