//! Environment variables with a name like configuration: their owner, or the intended key.
//! Pure. Only names are read: a value may be a secret.

use super::mistake::nearest;
use super::raw::{KEYS, type_keys};

/// Variables of the load generator and of the tests.
const OURS: [&str; 5] = [
    "ROOMCAST_PUBLISHER_KEY",
    "ROOMCAST_DEVICE_TOKEN",
    "ROOMCAST_WORKER_KEY",
    "ROOMCAST_SEED",
    "ROOMCAST_SEEDS",
];

/// True for a `ROOMCAST_…` variable of the load generator, of the tests, or of Kubernetes.
pub(super) fn is_anothers(name: &str) -> bool {
    // Kubernetes sets variables in every pod beside a service, by the service's name. A node must start
    // beside a service called roomcast. ROOMCAST_PORT_7600_TCP is such a variable, ROOMCAST_PORT_HOT is not.
    let port = name.split_once("_PORT_").map(|(_, after)| after);
    OURS.contains(&name)
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT_")
        || port.is_some_and(|port| port.starts_with(|first: char| first.is_ascii_digit()))
}

/// The intended key, by a guess. `rest` is the part behind `ROOMCAST_`, in lower case.
pub(super) fn meant(rest: &str) -> Option<String> {
    let of_type = rest.strip_prefix("types_").and_then(|rest| {
        let key_of = |key: &str| {
            let name = rest.strip_suffix(key)?.trim_matches('_');
            (!name.is_empty()).then(|| format!("types.{name}.{key}"))
        };
        type_keys().find_map(key_of)
    });
    of_type.or_else(|| nearest(rest, KEYS.iter().map(|(key, _)| *key)).map(str::to_owned))
}
