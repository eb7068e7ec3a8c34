//! Checks the typed values of `types.*`: the class and the policy of each type.

use roomcast_core::room::id::TypeName;
use roomcast_core::room::message::Class;
use roomcast_core::room::policy::{TypePolicy, Types};

use super::mistake::{Mistake, Source, nearest};
use super::policy::{PolicyField, Said};
use super::raw::TypeEntries;
use super::resolve::{Resolver, shown};

impl Resolver<'_> {
    pub(super) fn types(&mut self) -> Types {
        let raw = self.raw;
        Types::new(raw.types.iter().filter_map(|(name, entries)| {
            let policy = self.policy(name, entries);
            match TypeName::parse(name) {
                Ok(name) => Some((name, policy?)),
                Err(bad) => {
                    let key = format!("types.{name:?}");
                    self.mistaken(&entries.source, key, "is no name for a type", bad.allowed);
                    None
                }
            }
        }))
    }

    fn policy(&mut self, name: &str, entries: &TypeEntries) -> Option<TypePolicy> {
        let class = self.class(name, entries);
        // Built-in keys are meant for the built-in class. With another class, a built-in type is like any
        // other type.
        let keeps_built_in = entries
            .built_in_class
            .as_ref()
            .is_none_or(|built_in| class.is_none_or(|class| built_in.as_str() == Some(class.name())));
        let entry = |field: PolicyField| {
            let entry = entries.keys.get(field.name())?;
            (keeps_built_in || entry.source != Source::Default).then_some(entry)
        };
        let mut said = Said::default();
        for field in PolicyField::ALL {
            let Some(entry) = entry(field) else { continue };
            // A fraction that JSON cannot spell, such as nan, becomes null, which no key takes.
            let given = serde_json::to_value(&entry.value).unwrap_or_default();
            if said.note(field, &given).is_none() {
                let key = format!("types.{name}.{}", field.name());
                self.refuse(entry, key, field.allowed(), &field.words());
            }
        }
        // Only now: a mistake of the class must not hide those of the other keys.
        let class = class?;
        let plain = TypePolicy::of(class);
        let (change, misfits) = said.over(&plain);
        for misfit in misfits {
            let Some(entry) = entry(misfit.field) else { continue };
            let key = format!("types.{name}.{}", misfit.field.name());
            let wrong = format!("{} does not fit class {}", shown(&entry.value), class.name());
            let wrong = if misfit.field == PolicyField::Burst { "has no rate".to_owned() } else { wrong };
            self.mistaken(&entry.source, key, wrong, misfit.allowed);
        }
        Some(plain.with(&change))
    }

    fn class(&mut self, name: &str, entries: &TypeEntries) -> Option<Class> {
        let key = format!("types.{name}.class");
        let Some(typed) = entries.keys.get("class") else {
            let known = self.raw.types.iter().filter(|(_, entries)| entries.source == Source::Default);
            let meant = nearest(name, known.map(|(name, _)| name.as_str()));
            let key = format!("types.{name}");
            let wrong = "is not a built-in type and has no class";
            let allowed = format!("class = {}", Class::ALL.map(Class::name).join(", "));
            let meant = meant.map(|meant| entries.source.spelling(&format!("types.{meant}")));
            self.mistakes.push(Mistake::new(&entries.source, key, wrong, allowed).guess(meant));
            return None;
        };
        let class = self.word(typed, &key, &Class::ALL.map(|class| (class.name(), class)))?;
        // The engine publishes `online` itself, and devices rely on its newest value.
        if name == "online" && class != Class::Latest {
            self.refuse(typed, key, "latest: the engine publishes this type itself", &[]);
        }
        Some(class)
    }
}
