//! The keys of a type and the classes that take each key, shared by the configuration (`types.NAME.*`) and by
//! `PUT /v1/rooms/{room}`. A key without effect for a class is refused: an accepted key would promise an
//! effect. The value of a key is JSON at both places.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use roomcast_core::named;
use roomcast_core::now::millis;
use roomcast_core::room::message::Class;
use roomcast_core::room::policy::{Merge, PolicyChange, Priority, TypePolicy, TypeRate};

use roomcast_core::limits::{RATE_MAX, TTL_MAX, TTL_MIN, WEIGHT_MAX};

named! {
    /// A key of a type, other than `class`.
    pub enum PolicyField {
        /// The priority: low, normal or high.
        Priority = "priority",
        /// The rule for waiting messages of the same key.
        Merge = "merge",
        /// True: a message makes its room flush at once.
        Urgent = "urgent",
        /// Milliseconds: the life of a reliable message, or the longest wait of another message.
        TtlMs = "ttl_ms",
        /// Messages per second into a room. 0: no limit.
        Rate = "rate",
        /// Messages into a room at once, beside a rate.
        Burst = "burst",
        /// True: the room's history keeps the messages.
        History = "history",
        /// The chance of a message in a sample, relative to other types.
        Weight = "weight",
    }
}

impl PolicyField {
    /// The key called `name`, if any.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// The allowed values, over all classes.
    fn values(self) -> Values {
        match self {
            Self::Priority => Values::Words(Priority::ALL.map(Priority::name).to_vec()),
            Self::Merge => Values::Words(Merge::ALL.map(Merge::name).to_vec()),
            Self::Urgent | Self::History => Values::Switch,
            Self::TtlMs => Values::Number(millis(TTL_MIN)..=millis(TTL_MAX), " milliseconds"),
            Self::Rate => Values::Number(0..=RATE_MAX.into(), " messages a second"),
            Self::Burst => Values::Number(1..=RATE_MAX.into(), " messages"),
            Self::Weight => Values::Number(1..=WEIGHT_MAX.into(), ""),
        }
    }

    /// The allowed words. Empty for a key without words.
    pub(crate) fn words(self) -> Vec<&'static str> {
        if let Values::Words(words) = self.values() { words } else { Vec::new() }
    }

    /// The allowed values in words, over all classes.
    pub(crate) fn allowed(self) -> String {
        match self.values() {
            Values::Words(words) => words.join(", "),
            Values::Switch => "true or false".to_owned(),
            Values::Number(bounds, unit) => {
                format!("a whole number, {} to {}{unit}", bounds.start(), bounds.end())
            }
        }
    }
}

/// The allowed values of a key.
enum Values {
    Words(Vec<&'static str>),
    Switch,
    /// Whole numbers, and their unit behind a space. A weight has no unit.
    Number(RangeInclusive<u64>, &'static str),
}

/// The given keys of a type, each value checked alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Said {
    change: PolicyChange,
    /// 0: no limit.
    rate: Option<u32>,
    burst: Option<u32>,
}

/// A key in contradiction to the class of the type, or to another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}: {allowed}", field.name())]
pub(crate) struct Misfit {
    /// The contradicting key.
    pub(crate) field: PolicyField,
    /// The allowed values, and the reason.
    pub(crate) allowed: &'static str,
}

impl Said {
    /// Notes one value. `None`, and no change, for a value not allowed for the key.
    #[must_use]
    pub(crate) fn note(&mut self, field: PolicyField, given: &Value) -> Option<()> {
        let number = match field.values() {
            Values::Number(bounds, _) => given.as_u64().filter(|number| bounds.contains(number)),
            Values::Words(_) | Values::Switch => None,
        };
        let small = number.and_then(|number| u32::try_from(number).ok());
        let word = given.as_str();
        let change = &mut self.change;
        match field {
            PolicyField::Priority => {
                change.priority = Some(Priority::ALL.into_iter().find(|it| Some(it.name()) == word)?);
            }
            PolicyField::Merge => {
                change.merge = Some(Merge::ALL.into_iter().find(|it| Some(it.name()) == word)?);
            }
            PolicyField::Urgent => change.urgent = Some(given.as_bool()?),
            PolicyField::History => change.history = Some(given.as_bool()?),
            PolicyField::TtlMs => change.ttl = Some(Duration::from_millis(number?)),
            PolicyField::Rate => self.rate = Some(small?),
            PolicyField::Burst => self.burst = Some(small?),
            PolicyField::Weight => change.weight = Some(small?),
        }
        Some(())
    }

    /// The given keys as a change of the policy `base`, and the keys without a fit to the class of `base`.
    pub(crate) fn over(self, base: &TypePolicy) -> (PolicyChange, Vec<Misfit>) {
        let before = base.rate.map_or(0, |rate| rate.per_second);
        let rate = match (self.rate, self.burst) {
            (Some(0), _) => Some(None),
            // Without a burst, the messages of one second may come at once.
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

/// The keys of a change without effect for the class, or against the promise of the class.
fn misfits(class: Class, change: &PolicyChange) -> Vec<Misfit> {
    // A value that the class has anyway may be given: it is true, and files that spell everything out stay
    // valid.
    let other = |said: Option<bool>, only: bool| said.is_some_and(|said| said != only);
    let priority = |only| other(change.priority.map(|priority| priority == only), true);
    let merge = |only| other(change.merge.map(|merge| merge == only), true);
    let history = other(change.history, false);
    let ttl = change.ttl.is_some();
    let weight = change.weight.is_some_and(|weight| weight != 1);
    let not_high = priority(Priority::High);
    use PolicyField::{History, Merge as MergeField, Priority as PriorityField, TtlMs, Urgent, Weight};
    let wrong: &[(bool, PolicyField, &'static str)] = match class {
        Class::Reliable => &[
            (not_high, PriorityField, "high, or nothing: reliable messages go before all others"),
            (merge(Merge::None), MergeField, "none, or nothing: each reliable message arrives"),
            (history, History, "false, or nothing: reliable messages have a stream of their own"),
            (weight, Weight, "1, or nothing: reliable messages are never sampled"),
        ],
        Class::Latest => &[
            (not_high, PriorityField, "high, or nothing: the newest values leave beside high priority"),
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
    use serde_json::json;

    fn said(all: &[(PolicyField, Value)]) -> Said {
        let mut said = Said::default();
        for (field, given) in all {
            said.note(*field, given).unwrap_or_else(|| panic!("{field:?} {given:?}"));
        }
        said
    }

    const ALL_FOUR: [PolicyField; 4] =
        [PolicyField::Priority, PolicyField::Merge, PolicyField::History, PolicyField::Weight];

    fn misfits_of(class: Class, all: &[(PolicyField, Value)]) -> Vec<PolicyField> {
        said(all).over(&TypePolicy::of(class)).1.into_iter().map(|misfit| misfit.field).collect()
    }

    #[test]
    fn each_number_has_its_bounds() {
        for field in PolicyField::ALL {
            assert_eq!(PolicyField::named(field.name()), Some(field));
            let Values::Number(bounds, _) = field.values() else { continue };
            let (min, max) = bounds.into_inner();
            for number in [min, max] {
                assert_eq!(Said::default().note(field, &json!(number)), Some(()), "{field:?} {number}");
            }
            for number in [min.checked_sub(1), Some(max + 1), Some(u64::MAX)].into_iter().flatten() {
                assert_eq!(Said::default().note(field, &json!(number)), None, "{field:?} {number}");
            }
        }
    }

    #[test]
    fn a_value_of_another_kind_is_not_taken() {
        for field in PolicyField::ALL {
            let kinds = [json!(1000), json!("high"), json!("sum"), json!(true)];
            let taken = kinds.iter().filter(|given| Said::default().note(field, given).is_some()).count();
            assert_eq!(taken, 1, "{field:?}");
            for other in [json!(null), json!([]), json!({}), json!(-1), json!(0.5)] {
                assert_eq!(Said::default().note(field, &other), None, "{other}");
            }
        }
    }

    #[test]
    fn what_a_class_has_anyway_may_be_said_and_nothing_that_contradicts_it() {
        for class in Class::ALL {
            let policy = TypePolicy::of(class);
            let own = [
                (PolicyField::Priority, json!(policy.priority.name())),
                (PolicyField::Merge, json!(policy.merge.name())),
                (PolicyField::Urgent, json!(policy.urgent)),
                (PolicyField::History, json!(policy.history)),
                (PolicyField::Weight, json!(policy.weight)),
                (PolicyField::Rate, json!(0)),
            ];
            let (change, misfits) = said(&own).over(&policy);
            assert_eq!((policy.with(&change), misfits), (policy, vec![]), "{class:?}");
            let ttl = misfits_of(class, &[(PolicyField::TtlMs, json!(5000))]);
            assert_eq!(ttl.is_empty(), policy.takes_ttl(), "{class:?}");
        }
        let strange = [
            (PolicyField::Priority, json!("low")),
            (PolicyField::Merge, json!("sum")),
            (PolicyField::History, json!(true)),
            (PolicyField::Weight, json!(2)),
        ];
        assert_eq!(misfits_of(Class::Reliable, &strange), ALL_FOUR);
        assert_eq!(misfits_of(Class::Latest, &strange), ALL_FOUR);
        assert_eq!(misfits_of(Class::Counter, &[(PolicyField::Urgent, json!(true))]), [PolicyField::Urgent]);
        assert_eq!(misfits_of(Class::Counter, &strange), ALL_FOUR);
        assert_eq!(misfits_of(Class::Normal, &strange), []);
        assert_eq!(misfits_of(Class::Lossy, &strange), []);
    }

    #[test]
    fn a_burst_goes_with_a_rate() {
        let rate = || (PolicyField::Rate, json!(5));
        let burst = || (PolicyField::Burst, json!(9));
        let plain = TypePolicy::of(Class::Normal);
        let of = |all: &[_], base: &TypePolicy| said(all).over(base).0.rate;
        assert_eq!(of(&[], &plain), None);
        assert_eq!(of(&[rate()], &plain), Some(Some(TypeRate { per_second: 5, burst: 5 })));
        assert_eq!(of(&[rate(), burst()], &plain), Some(Some(TypeRate { per_second: 5, burst: 9 })));
        let limited = TypePolicy { rate: Some(TypeRate { per_second: 7, burst: 1 }), ..plain };
        assert_eq!(of(&[burst()], &limited), Some(Some(TypeRate { per_second: 7, burst: 9 })));
        let off = || (PolicyField::Rate, json!(0));
        assert_eq!(of(&[off()], &limited), Some(None));
        for alone in [vec![burst()], vec![off(), burst()]] {
            assert_eq!(misfits_of(Class::Normal, &alone), [PolicyField::Burst]);
        }
        assert_eq!(said(&[off(), burst()]).over(&limited).1.len(), 1, "the rate is taken away");
    }
}
