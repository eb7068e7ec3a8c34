//! Variables of the environment that look like configuration and are not: whose they are, or what they were meant to be.
//! Pure, and by the name alone: a value may be a secret.

use super::mistake::nearest;
use super::raw::{KEYS, TYPE_KEYS};

/// What the load generator and the tests read.
const OURS: [&str; 4] =
    ["ROOMCAST_PUBLISHER_KEY", "ROOMCAST_DEVICE_TOKEN", "ROOMCAST_SEED", "ROOMCAST_SEEDS"];

/// Whether a `ROOMCAST_…` variable is somebody else's: the load generator's, the tests', or one that Kubernetes sets in
/// every pod beside a service whose name begins with `roomcast`. A node must start there.
pub(super) fn is_anothers(name: &str) -> bool {
    let numbered = |(_, after): (&str, &str)| after.starts_with(|first: char| first.is_ascii_digit());
    OURS.contains(&name)
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.split_once("_PORT_").is_some_and(numbered)
}

/// The key that was probably meant by what follows `ROOMCAST_`, in small letters.
pub(super) fn meant(rest: &str) -> Option<String> {
    let of_type = rest.strip_prefix("types_").and_then(|rest| {
        let key_of = |key: &str| {
            let name = rest.strip_suffix(key)?.trim_matches('_');
            (!name.is_empty()).then(|| format!("types.{name}.{key}"))
        };
        TYPE_KEYS.iter().find_map(|(key, _)| key_of(key))
    });
    of_type.or_else(|| nearest(rest, KEYS.iter().map(|(key, _)| *key)).map(str::to_owned))
}
