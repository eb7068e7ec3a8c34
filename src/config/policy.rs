//! What may be said of a type, and which class takes it, in one place for the configuration (`types.NAME.*`) and for
//! `PUT /v1/rooms/{room}`. A key that nobody would read for a class is refused: it would promise something.

use std::ops::RangeInclusive;
use std::time::Duration;

use roomcast_core::now::millis;
use roomcast_core::room::message::Class;
use roomcast_core::room::policy::{Merge, PolicyChange, Priority, TypePolicy, TypeRate};

use roomcast_core::limits::{RATE_MAX, TTL_MAX, TTL_MIN, WEIGHT_MAX};

/// One key of a type, its class aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyField {
    /// Who goes first.
    Priority,
    /// What becomes of several that wait.
    Merge,
    /// Whether it makes its room flush at once.
    Urgent,
    /// Milliseconds it lives, or waits.
    TtlMs,
    /// How many a room takes a second.
    Rate,
    /// How many of those at once.
    Burst,
    /// Whether it is kept in the history.
    History,
    /// Its chance to be shown.
    Weight,
}

impl PolicyField {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Priority,
        Self::Merge,
        Self::Urgent,
        Self::TtlMs,
        Self::Rate,
        Self::Burst,
        Self::History,
        Self::Weight,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::Merge => "merge",
            Self::Urgent => "urgent",
            Self::TtlMs => "ttl_ms",
            Self::Rate => "rate",
            Self::Burst => "burst",
            Self::History => "history",
            Self::Weight => "weight",
        }
    }

    /// The field of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// The whole numbers it takes; `None`: it is no number.
    #[must_use]
    pub fn bounds(self) -> Option<RangeInclusive<u64>> {
        match self {
            Self::TtlMs => Some(millis(TTL_MIN)..=millis(TTL_MAX)),
            Self::Rate => Some(0..=RATE_MAX.into()),
            Self::Burst => Some(1..=RATE_MAX.into()),
            Self::Weight => Some(1..=WEIGHT_MAX.into()),
            Self::Priority | Self::Merge | Self::Urgent | Self::History => None,
        }
    }

    /// What its number counts; empty where it is a bare number, or none.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::TtlMs => "milliseconds",
            Self::Rate => "messages a second",
            Self::Burst => "messages",
            Self::Priority | Self::Merge | Self::Urgent | Self::History | Self::Weight => "",
        }
    }

    /// The words it takes; none: it is no word.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        match self {
            Self::Priority => Priority::ALL.map(Priority::name).to_vec(),
            Self::Merge => Merge::ALL.map(Merge::name).to_vec(),
            _ => Vec::new(),
        }
    }

    /// What it takes, whatever the class.
    #[must_use]
    pub fn allowed(self) -> String {
        match self.bounds() {
            Some(bounds) => {
                let text = format!("a whole number, {} to {} {}", bounds.start(), bounds.end(), self.unit());
                text.trim_end().to_owned()
            }
            None if self.words().is_empty() => "true or false".to_owned(),
            None => self.words().join(", "),
        }
    }
}

/// A value as it was given, whatever it was spelt in.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// A whole number that is not negative.
    Whole(u64),
    /// Text.
    Word(&'a str),
    /// `true` or `false`.
    Switch(bool),
    /// Anything else.
    Other,
}

/// What was said of a type, each value checked by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said {
    change: PolicyChange,
    /// 0: as many as come.
    rate: Option<u32>,
    burst: Option<u32>,
}

/// Something said of a type that contradicts its class, or something else that was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}: {allowed}", field.name())]
pub struct Misfit {
    /// What does not fit.
    pub field: PolicyField,
    /// What would, and why.
    pub allowed: &'static str,
}

impl Said {
    /// Notes one value; `None`, and no change, if the field does not take it.
    #[must_use]
    pub fn note(&mut self, field: PolicyField, given: Given<'_>) -> Option<()> {
        let bounded = field.bounds().zip(match given {
            Given::Whole(number) => Some(number),
            Given::Word(_) | Given::Switch(_) | Given::Other => None,
        });
        let number = bounded.and_then(|(bounds, number)| bounds.contains(&number).then_some(number));
        let small = number.and_then(|number| u32::try_from(number).ok());
        let change = &mut self.change;
        match (field, given) {
            (PolicyField::Priority, Given::Word(word)) => {
                change.priority = Some(Priority::ALL.into_iter().find(|it| it.name() == word)?);
            }
            (PolicyField::Merge, Given::Word(word)) => {
                change.merge = Some(Merge::ALL.into_iter().find(|it| it.name() == word)?);
            }
            (PolicyField::Urgent, Given::Switch(urgent)) => change.urgent = Some(urgent),
            (PolicyField::History, Given::Switch(history)) => change.history = Some(history),
            (PolicyField::TtlMs, _) => change.ttl = Some(Duration::from_millis(number?)),
            (PolicyField::Rate, _) => self.rate = Some(small?),
            (PolicyField::Burst, _) => self.burst = Some(small?),
            (PolicyField::Weight, _) => change.weight = Some(small?),
            (
                PolicyField::Priority | PolicyField::Merge | PolicyField::Urgent | PolicyField::History,
                Given::Whole(_) | Given::Word(_) | Given::Switch(_) | Given::Other,
            ) => return None,
        }
        Some(())
    }

    /// What it changes of a type that is otherwise as `base` says, and everything of it that does not fit that type's class.
    /// A rate without a burst lets a second's worth through at once.
    #[must_use]
    pub fn over(self, base: &TypePolicy) -> (PolicyChange, Vec<Misfit>) {
        let before = base.rate.map_or(0, |rate| rate.per_second);
        let rate = match (self.rate, self.burst) {
            (Some(0), _) => Some(None),
            (Some(per_second), burst) => {
                Some(Some(TypeRate { per_second, burst: burst.unwrap_or(per_second) }))
            }
            (None, Some(burst)) if before > 0 => Some(Some(TypeRate { per_second: before, burst })),
            (None, _) => None,
        };
        let has_rate = self.rate.unwrap_or(before) > 0;
        let change = PolicyChange { rate, ..self.change };
        let mut misfits = misfits(base.class, &change);
        if self.burst.is_some() && !has_rate {
            misfits.push(Misfit { field: PolicyField::Burst, allowed: "beside a rate of at least 1" });
        }
        (change, misfits)
    }
}

/// What of a change nobody would read for this class, or would break its promise.
fn misfits(class: Class, change: &PolicyChange) -> Vec<Misfit> {
    let other = |said: Option<bool>, only: bool| said.is_some_and(|said| said != only);
    let priority = |only| other(change.priority.map(|priority| priority == only), true);
    let merge = |only| other(change.merge.map(|merge| merge == only), true);
    let (history, ttl) = (other(change.history, false), change.ttl.is_some());
    let weight = change.weight.is_some_and(|weight| weight != 1);
    use PolicyField::{History, Merge as MergeField, Priority as PriorityField, TtlMs, Urgent, Weight};
    let wrong: &[(bool, PolicyField, &'static str)] = match class {
        Class::Reliable => &[
            (
                priority(Priority::High),
                PriorityField,
                "high, or nothing: reliable messages go before all others",
            ),
            (merge(Merge::None), MergeField, "none, or nothing: each reliable message arrives"),
            (history, History, "false, or nothing: reliable messages have a stream of their own"),
            (weight, Weight, "1, or nothing: reliable messages are never sampled"),
        ],
        Class::Latest => &[
            (
                priority(Priority::High),
                PriorityField,
                "high, or nothing: the newest values leave beside high priority",
            ),
            (merge(Merge::Latest), MergeField, "latest, or nothing: the newest value is what arrives"),
            (ttl, TtlMs, "nothing: of class latest, a newer value is what ends one"),
            (history, History, "false, or nothing: late joiners get the newest values anyway"),
            (weight, Weight, "1, or nothing: latest values are never sampled"),
        ],
        Class::Counter => &[
            (priority(Priority::Normal), PriorityField, "normal, or nothing: totals leave with any batch"),
            (other(change.urgent, false), Urgent, "false, or nothing: totals leave with any batch"),
            (merge(Merge::None), MergeField, "none, or nothing: counters are summed"),
            (ttl, TtlMs, "nothing: increments are added at once"),
            (history, History, "false, or nothing: late joiners get the totals"),
            (weight, Weight, "1, or nothing: counters are never sampled"),
        ],
        Class::Normal | Class::Lossy => &[],
    };
    let wrong = wrong.iter().filter(|(is_wrong, ..)| *is_wrong);
    wrong.map(|&(_, field, allowed)| Misfit { field, allowed }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(all: &[(PolicyField, Given<'_>)]) -> Said {
        let mut said = Said::default();
        for (field, given) in all {
            said.note(*field, *given).unwrap_or_else(|| panic!("{field:?} {given:?}"));
        }
        said
    }

    const ALL_FOUR: [PolicyField; 4] =
        [PolicyField::Priority, PolicyField::Merge, PolicyField::History, PolicyField::Weight];

    fn misfits_of(class: Class, all: &[(PolicyField, Given<'_>)]) -> Vec<PolicyField> {
        said(all).over(&TypePolicy::of(class)).1.into_iter().map(|misfit| misfit.field).collect()
    }

    #[test]
    fn each_number_has_its_bounds() {
        for field in PolicyField::ALL {
            assert_eq!(PolicyField::named(field.name()), Some(field));
            let Some((min, max)) = field.bounds().map(RangeInclusive::into_inner) else { continue };
            for number in [min, max] {
                assert_eq!(Said::default().note(field, Given::Whole(number)), Some(()), "{field:?} {number}");
            }
            for number in [min.checked_sub(1), Some(max + 1), Some(u64::MAX)].into_iter().flatten() {
                assert_eq!(Said::default().note(field, Given::Whole(number)), None, "{field:?} {number}");
            }
        }
    }

    #[test]
    fn a_value_of_another_kind_is_not_taken() {
        for field in PolicyField::ALL {
            let kinds = [Given::Whole(1000), Given::Word("high"), Given::Word("sum"), Given::Switch(true)];
            let taken = kinds.iter().filter(|given| Said::default().note(field, **given).is_some()).count();
            assert_eq!(taken, 1, "{field:?}");
            assert_eq!(Said::default().note(field, Given::Other), None);
        }
    }

    #[test]
    fn what_a_class_has_anyway_may_be_said_and_nothing_that_contradicts_it() {
        for class in Class::ALL {
            let policy = TypePolicy::of(class);
            let own = [
                (PolicyField::Priority, Given::Word(policy.priority.name())),
                (PolicyField::Merge, Given::Word(policy.merge.name())),
                (PolicyField::Urgent, Given::Switch(policy.urgent)),
                (PolicyField::History, Given::Switch(policy.history)),
                (PolicyField::Weight, Given::Whole(policy.weight.into())),
                (PolicyField::Rate, Given::Whole(0)),
            ];
            let (change, misfits) = said(&own).over(&policy);
            assert_eq!((policy.with(&change), misfits), (policy, vec![]), "{class:?}");
            let ttl = misfits_of(class, &[(PolicyField::TtlMs, Given::Whole(5000))]);
            assert_eq!(ttl.is_empty(), policy.takes_ttl(), "{class:?}");
        }
        let strange = [
            (PolicyField::Priority, Given::Word("low")),
            (PolicyField::Merge, Given::Word("sum")),
            (PolicyField::History, Given::Switch(true)),
            (PolicyField::Weight, Given::Whole(2)),
        ];
        assert_eq!(misfits_of(Class::Reliable, &strange), ALL_FOUR);
        assert_eq!(misfits_of(Class::Latest, &strange), ALL_FOUR);
        assert_eq!(
            misfits_of(Class::Counter, &[(PolicyField::Urgent, Given::Switch(true))]),
            [PolicyField::Urgent]
        );
        assert_eq!(misfits_of(Class::Counter, &strange), ALL_FOUR);
        assert_eq!(misfits_of(Class::Normal, &strange), []);
        assert_eq!(misfits_of(Class::Lossy, &strange), []);
    }

    #[test]
    fn a_burst_goes_with_a_rate() {
        let (rate, burst) = ((PolicyField::Rate, Given::Whole(5)), (PolicyField::Burst, Given::Whole(9)));
        let plain = TypePolicy::of(Class::Normal);
        let of = |all: &[_], base: &TypePolicy| said(all).over(base).0.rate;
        assert_eq!(of(&[], &plain), None);
        assert_eq!(of(&[rate], &plain), Some(Some(TypeRate { per_second: 5, burst: 5 })));
        assert_eq!(of(&[rate, burst], &plain), Some(Some(TypeRate { per_second: 5, burst: 9 })));
        let limited = TypePolicy { rate: Some(TypeRate { per_second: 7, burst: 1 }), ..plain };
        assert_eq!(of(&[burst], &limited), Some(Some(TypeRate { per_second: 7, burst: 9 })));
        let off = (PolicyField::Rate, Given::Whole(0));
        assert_eq!(of(&[off], &limited), Some(None));
        for alone in [vec![burst], vec![off, burst]] {
            assert_eq!(misfits_of(Class::Normal, &alone), [PolicyField::Burst]);
        }
        assert_eq!(said(&[off, burst]).over(&limited).1.len(), 1, "the rate is taken away");
    }
}
