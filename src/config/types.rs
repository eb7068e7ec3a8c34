//! What the typed values of `types.*` mean: each type's class and policy, checked against each other.

use toml::Value;

use roomcast_core::room::id::TypeName;
use roomcast_core::room::message::Class;
use roomcast_core::room::policy::{TypePolicy, Types};

use super::mistake::{Mistake, Source, nearest};
use super::policy::{Given, PolicyField, Said};
use super::raw::{Entry, TypeEntries};
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
        let class = self.class(name, entries)?;
        // What is built in for a type is meant for its class: with another one it is a type like any other.
        let keeps_built_in =
            entries.built_in_class.as_ref().is_none_or(|built_in| built_in.as_str() == Some(class.name()));
        let entry = |field: PolicyField| {
            let entry = entries.keys.get(field.name())?;
            (keeps_built_in || entry.source != Source::Default).then_some(entry)
        };
        let mut said = Said::default();
        for field in PolicyField::ALL {
            let Some(entry) = entry(field) else { continue };
            if said.note(field, given(&entry.value)).is_none() {
                self.refuse(entry, format!("types.{name}.{}", field.name()), field);
            }
        }
        let plain = TypePolicy::of(class);
        let (change, misfits) = said.over(&plain);
        for misfit in misfits {
            let entry = entry(misfit.field)?;
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
            self.mistakes.push(Mistake {
                source: entries.source.clone(),
                key: format!("types.{name}"),
                wrong: "is not a built-in type and has no class".to_owned(),
                allowed: format!("class = {}", Class::ALL.map(Class::name).join(", ")),
                meant: meant.map(|meant| entries.source.spelling(&format!("types.{meant}"))),
            });
            return None;
        };
        let class = self.word(typed, &key, &Class::ALL.map(|class| (class.name(), class)))?;
        if name == "online" && class != Class::Latest {
            let wrong = format!("{} is not allowed", shown(&typed.value));
            self.mistaken(&typed.source, key, wrong, "latest: the engine publishes this type itself");
        }
        Some(class)
    }

    /// A value that its field does not take, whatever the class.
    fn refuse(&mut self, entry: &Entry, key: String, field: PolicyField) {
        let meant = entry.value.as_str().and_then(|typed| nearest(typed, field.words().into_iter()));
        self.mistakes.push(Mistake {
            source: entry.source.clone(),
            key,
            wrong: format!("{} is not allowed", shown(&entry.value)),
            allowed: field.allowed(),
            meant: meant.map(str::to_owned),
        });
    }
}

fn given(value: &Value) -> Given<'_> {
    match value {
        Value::Integer(number) => u64::try_from(*number).map_or(Given::Other, Given::Whole),
        Value::String(word) => Given::Word(word),
        Value::Boolean(switch) => Given::Switch(*switch),
        Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => Given::Other,
    }
}
