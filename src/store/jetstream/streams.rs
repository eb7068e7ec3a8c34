//! The streams of the log: made by the first node, and checked by all others.
//!
//! The metadata of each stream fixes the number of slots, the cluster's id, and the key that hashes rooms to
//! slots. A node that would hash with another key would look for rooms in the wrong slots.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use tokio::time::timeout;

use roomcast_core::cluster::{SLOTS, Slot};
use roomcast_core::limits::{
    LOG_DUPLICATE_WINDOW, LOG_OP_AGE_MAX, LOG_RESERVE_BYTES, LOG_STREAMS, STORE_BYTES_MAX,
};
use roomcast_core::room::id::NameKey;

use super::log::streams_of;

/// The names of the metadata.
const SLOTS_KEY: &str = "roomcast_slots";
const CLUSTER_KEY: &str = "roomcast_cluster";
const HASH_KEY: &str = "roomcast_slot_key";

/// The identity of a cluster, as its streams have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// A number drawn by the node that made the streams.
    pub(super) cluster: u64,
    /// The key that hashes rooms to slots.
    pub(super) key: NameKey,
}

/// The reason for streams that can't be used, for operators.
#[derive(Debug, thiserror::Error)]
pub enum StreamsError {
    /// A stream of the name has another shape, or belongs to something else.
    #[error("the stream {stream} can't be used: {difference}; or give this cluster another cluster.name")]
    Shape {
        /// The stream.
        stream: String,
        /// The difference, as a sentence.
        difference: String,
    },
    /// JetStream made no stream.
    #[error(
        "the stream {stream} can't be made with {replicas} copies (cluster.replicas): {why}; JetStream needs as many \
         servers in one cluster, and max_file_store of 8.5 GiB or more on each"
    )]
    NotMade {
        /// The stream.
        stream: String,
        /// Copies of the configuration.
        replicas: usize,
        /// JetStream's word.
        why: String,
    },
    /// JetStream does not answer.
    #[error("JetStream does not answer about the stream {stream}: {why}")]
    Silent {
        /// The stream.
        stream: String,
        /// The last error.
        why: String,
    },
    /// The system gives no random numbers.
    #[error("no random number for the cluster's id: {0}")]
    NoRandom(String),
}

/// The streams of a cluster, found or made.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) identity: Identity,
    /// The names of the servers with a copy of a stream. Empty: a server that is in no cluster of servers.
    pub(super) servers: BTreeSet<String>,
}

impl Streams {
    /// Finds the streams of the cluster `name`, and makes those that are missing.
    pub(super) async fn open(jetstream: &Context, name: &str, replicas: usize) -> Result<Self, StreamsError> {
        let mut streams = Self { identity: Identity::drawn()?, servers: BTreeSet::new() };
        for number in 0..LOG_STREAMS {
            let stream = format!("{}_{number}", streams_of(name));
            let wanted = streams.identity.stream(name, number, replicas);
            let info = match found(jetstream, &stream).await? {
                Some(info) => info,
                None => Box::pin(made(jetstream, &wanted)).await?,
            };
            let identity = checked(&info.config, &wanted)
                .map_err(|difference| StreamsError::Shape { stream: stream.clone(), difference })?;
            // The first stream decides: its maker may have stopped before the others.
            if number > 0 && identity != streams.identity {
                let difference = "it belongs to another cluster than the first stream".to_owned();
                return Err(StreamsError::Shape { stream, difference });
            }
            streams.identity = identity;
            if let Some(cluster) = info.cluster {
                streams.servers.extend(cluster.leader);
                streams.servers.extend(cluster.replicas.into_iter().map(|replica| replica.name));
            }
        }
        Ok(streams)
    }
}

impl Identity {
    fn drawn() -> Result<Self, StreamsError> {
        let draw = || getrandom::u64().map_err(|error| StreamsError::NoRandom(error.to_string()));
        Ok(Self { cluster: draw()?, key: NameKey([draw()?, draw()?]) })
    }

    /// The metadata of a stream.
    fn metadata(self) -> HashMap<String, String> {
        let NameKey([first, second]) = self.key;
        [
            (SLOTS_KEY, SLOTS.to_string()),
            (CLUSTER_KEY, format!("{:016x}", self.cluster)),
            (HASH_KEY, format!("{first:016x}{second:016x}")),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// The identity in the metadata of a stream.
    fn read(metadata: &HashMap<String, String>) -> Result<Self, String> {
        let text = |key: &str| metadata.get(key).map(String::as_str).unwrap_or_default();
        let word = |text: Option<&str>| u64::from_str_radix(text.unwrap_or("-"), 16).ok();
        let slots = text(SLOTS_KEY);
        let hash = text(HASH_KEY);
        if slots != SLOTS.to_string() {
            return Err(format!("its metadata has {SLOTS_KEY} \"{slots}\", not {SLOTS}"));
        }
        let cluster = word(Some(text(CLUSTER_KEY)));
        let key = word(hash.get(..16)).zip(word(hash.get(16..)));
        match cluster.zip(key) {
            Some((cluster, (first, second))) => Ok(Self { cluster, key: NameKey([first, second]) }),
            None => Err(format!("its metadata has no {CLUSTER_KEY} and {HASH_KEY}")),
        }
    }

    /// The stream with this number, as it is made.
    fn stream(self, name: &str, number: usize, replicas: usize) -> Config {
        let slots = Slot::all().filter(|slot| slot.index() % LOG_STREAMS == number);
        let bytes_max = STORE_BYTES_MAX / LOG_STREAMS as u64 + LOG_RESERVE_BYTES;
        Config {
            name: format!("{}_{number}", streams_of(name)),
            subjects: slots.map(|slot| format!("{name}.log.{}", slot.0)).collect(),
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::New,
            num_replicas: replicas,
            max_bytes: i64::try_from(bytes_max).expect("some GiB"),
            allow_direct: true,
            allow_message_ttl: true,
            duplicate_window: LOG_DUPLICATE_WINDOW,
            metadata: self.metadata(),
            ..Config::default()
        }
    }
}

/// A stream as JetStream has it. `None`: there is none.
async fn found(jetstream: &Context, stream: &str) -> Result<Option<Info>, StreamsError> {
    let silent = |why: String| StreamsError::Silent { stream: stream.to_owned(), why };
    let asked = timeout(LOG_OP_AGE_MAX, jetstream.get_stream(stream)).await;
    match asked.map_err(|_| silent("timed out".to_owned()))? {
        Ok(found) => Ok(Some(found.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            _ => Err(silent(error.to_string())),
        },
    }
}

/// Makes a stream. Another node may make it at the same time: then that node's is used.
async fn made(jetstream: &Context, wanted: &Config) -> Result<Info, StreamsError> {
    let stream = &wanted.name;
    let not_made =
        |why: String| StreamsError::NotMade { stream: stream.clone(), replicas: wanted.num_replicas, why };
    match timeout(LOG_OP_AGE_MAX, Box::pin(jetstream.create_stream(wanted.clone()))).await {
        Err(_) => Err(not_made("timed out".to_owned())),
        Ok(Ok(made)) => Ok(made.cached_info().clone()),
        Ok(Err(error)) => match error.kind() {
            CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {
                found(jetstream, stream).await?.ok_or_else(|| not_made("it went away".to_owned()))
            }
            _ => Err(not_made(error.to_string())),
        },
    }
}

/// The identity of a stream with the wanted shape, or the difference as a sentence. `max_bytes` may differ: an
/// operator may give the streams another size.
fn checked(config: &Config, wanted: &Config) -> Result<Identity, String> {
    let identity = Identity::read(&config.metadata)?;
    let subjects = |config: &Config| config.subjects.iter().cloned().collect::<BTreeSet<_>>();
    let has = |what: &str, has: String, wanted: String| Err(format!("it has {what} {has}, not {wanted}"));
    if subjects(config) != subjects(wanted) {
        return Err("it has other subjects than the slots of its number".to_owned());
    }
    if config.num_replicas != wanted.num_replicas {
        let is = config.num_replicas;
        let wanted = wanted.num_replicas;
        return Err(format!("its num_replicas is {is}, and cluster.replicas is {wanted}: set that to {is}"));
    }
    if config.duplicate_window != wanted.duplicate_window {
        return has("duplicate_window", seconds(config.duplicate_window), seconds(wanted.duplicate_window));
    }
    for (is_right, rule) in [
        (config.storage == wanted.storage, "it does not store in files"),
        (config.retention == wanted.retention, "its retention is not by limits"),
        (config.discard == wanted.discard, "it discards old messages, not new ones"),
        (config.allow_direct, "it does not allow direct gets"),
        (config.allow_message_ttl, "it does not allow a TTL for a message"),
        (config.max_bytes > 0, "it has no max_bytes, so that claims would have no reserve"),
        (config.max_age.is_zero() && config.max_messages <= 0, "it lets messages go by age or count"),
        (config.max_messages_per_subject <= 0, "it lets messages of a slot go by their count"),
        (config.max_message_size <= 0, "it bounds the size of a message"),
        (config.mirror.is_none() && config.sources.is_none(), "it copies another stream"),
        (!config.sealed && !config.no_ack, "it takes or acknowledges no messages"),
    ] {
        if !is_right {
            return Err(rule.to_owned());
        }
    }
    Ok(identity)
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { cluster: 7, key: NameKey([1, u64::MAX]) };

    #[test]
    fn a_stream_tells_its_cluster_and_the_key_of_its_slots() {
        let stream = IDENTITY.stream("rc", 3, 3);
        assert_eq!(stream.name, "RC_LOG_3");
        assert_eq!(stream.subjects.len(), SLOTS / LOG_STREAMS);
        assert_eq!(stream.subjects[..2], ["rc.log.3", "rc.log.11"]);
        assert_eq!(checked(&stream, &stream), Ok(IDENTITY));
        let other = Identity::drawn().unwrap().stream("rc", 3, 3);
        assert_eq!(checked(&stream, &other), Ok(IDENTITY), "the stream's own identity counts");
        assert_eq!(checked(&Config { max_bytes: 9, ..stream }, &other), Ok(IDENTITY));
    }

    #[test]
    fn another_shape_is_named() {
        let wanted = IDENTITY.stream("rc", 0, 3);
        let difference = |change: &dyn Fn(&mut Config)| {
            let mut config = wanted.clone();
            change(&mut config);
            checked(&config, &wanted).unwrap_err()
        };
        assert_eq!(
            difference(&|it| it.num_replicas = 1),
            "its num_replicas is 1, and cluster.replicas is 3: set that to 1"
        );
        assert_eq!(
            difference(&|it| it.discard = DiscardPolicy::Old),
            "it discards old messages, not new ones"
        );
        assert_eq!(difference(&|it| it.allow_message_ttl = false), "it does not allow a TTL for a message");
        let longer = difference(&|it| it.duplicate_window = Duration::from_secs(9));
        assert_eq!(longer, "it has duplicate_window 9 s, not 120 s");
        assert!(difference(&|it| drop(it.subjects.pop())).contains("other subjects"));
        assert!(difference(&|it| it.max_age = Duration::from_secs(1)).contains("go by age"));
        let metadata =
            |change: &dyn Fn(&mut HashMap<String, String>)| difference(&|it| change(&mut it.metadata));
        assert!(metadata(&HashMap::clear).contains("roomcast_slots \"\""));
        for broken in ["", "12", "é".repeat(16).as_str(), "-".repeat(32).as_str()] {
            let named = metadata(&|it| drop(it.insert(HASH_KEY.to_owned(), broken.to_owned())));
            assert!(named.contains("no roomcast_cluster"), "{named}");
        }
    }
}
