//! Checks the typed values: each value alone first, then the values against each other.
//!
//! A wrong value leaves a mistake and a stand-in. The stand-in cannot cause a second mistake, so one start
//! reports every mistake once. Of all files, only the secret files are opened here.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::{Table, Value};

use crate::auth::{BearerKeys, DeviceKey, DeviceKeys, Expected, Hosts, KeyHash, Network, Origins, Proxies};
use roomcast_core::now::millis;
use roomcast_core::room::id::RoomName;
use roomcast_core::room::pace::{Quotas, RoomRules, RoomSettings};

use super::flush::{RuleField, SHARE_ALLOWED, Shares, TooMuch};
use super::mistake::{Mistake, Source, nearest};
use super::raw::{Raw, TypedValue};
use super::{Config, Insecure, Log, LogFormat};
use roomcast_core::limits::{
    BEARER_KEYS_MAX, CLAIM_VALUES_MAX, CONNECTIONS_MOST, CPU_SHARES, DEVICE_KEYS_MAX, DRAIN_NOTICE,
    DRAIN_NOTICE_MAX, HEARTBEAT_MAX, HEARTBEAT_MIN, HOSTS_MAX, HOT_MEMBERS_MAX, HOT_ROOMS_MAX,
    JOINS_PER_SECOND_MAX, JOINS_PER_SECOND_MIN, OUTBOUND_BYTES_LEAST, OUTBOUND_BYTES_MOST, PROXIES_MAX,
    RATE_MAX, SECRET_BYTES_MAX, SHARDS_MAX, TOKEN_LIFETIME_LEAST, TOKEN_LIFETIME_MOST,
};

/// The keys of an entry of `auth.device_keys`.
pub(super) const DEVICE_KEY_KEYS: [&str; 5] = ["alg", "kid", "secret", "secret_file", "public_key"];

/// The checked configuration, or `None` after a mistake.
pub(super) fn resolve(raw: &Raw, mistakes: &mut Vec<Mistake>) -> Option<Config> {
    let mut resolver = Resolver { raw, mistakes };
    let viewer_listen = resolver.address("viewer.listen");
    let config = Config {
        viewer_listen,
        publisher_listen: resolver.address("publisher.listen"),
        ops_listen: resolver.address("ops.listen"),
        data_dir: resolver.data_dir(),
        shards: resolver.shards(),
        hot_members: resolver.whole("shards.hot_members", 1..=HOT_MEMBERS_MAX, "members"),
        hot_rooms: resolver.hot_rooms(),
        flush: resolver.flush(),
        types: resolver.types(),
        heartbeat: Duration::from_millis(resolver.whole(
            "viewer.heartbeat_ms",
            millis(HEARTBEAT_MIN)..=millis(HEARTBEAT_MAX),
            "milliseconds",
        )),
        joins_per_second: resolver.whole(
            "viewer.joins_per_second",
            JOINS_PER_SECOND_MIN.into()..=JOINS_PER_SECOND_MAX.into(),
            "joins a second",
        ),
        key_messages_per_second: resolver.whole(
            "limits.key_messages_per_second",
            0..=RATE_MAX.into(),
            "messages a second",
        ),
        outbound_bytes_max: resolver.whole(
            "limits.outbound_bytes",
            OUTBOUND_BYTES_LEAST..=OUTBOUND_BYTES_MOST,
            "bytes",
        ),
        publisher_keys: resolver.bearer_keys("publisher.keys"),
        ops_keys: resolver.bearer_keys("ops.keys"),
        device_keys: resolver.device_keys(),
        origins: resolver.origins(viewer_listen),
        proxies: resolver.proxies(),
        log: resolver.log(),
        hosts: resolver.hosts(),
        insecure: resolver.insecure(),
        connections: Some(resolver.whole("limits.connections", 0..=CONNECTIONS_MOST, "connections"))
            .filter(|connections| *connections > 0),
        drain_notice: Duration::ZERO,
        cluster: resolver.cluster(),
    };
    let drain_notice = resolver.drain_notice(&config);
    let data_dir = config.data_dir.clone().filter(|_| config.cluster.is_none());
    let config = Config { drain_notice, data_dir, ..config };
    resolver.doors_apart(&config);
    resolver.doors_guarded(&config);
    mistakes.is_empty().then_some(config)
}

pub(super) struct Resolver<'a> {
    pub(super) raw: &'a Raw,
    pub(super) mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Resolver<'a> {
    pub(super) fn entry(&self, key: &str) -> &'a TypedValue {
        self.raw.entry(key)
    }

    pub(super) fn mistaken(
        &mut self,
        source: &Source,
        key: impl Into<String>,
        wrong: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        self.mistakes.push(Mistake::new(source, key, wrong, allowed));
    }

    /// Adds a mistake for the value of `entry`, with the nearest of `words` as a guess.
    pub(super) fn refuse(
        &mut self,
        entry: &TypedValue,
        key: impl Into<String>,
        allowed: impl Into<String>,
        words: &[&str],
    ) {
        let wrong = format!("{} is not allowed", shown(&entry.value));
        let meant = entry.value.as_str().and_then(|typed| nearest(typed, words.iter().copied()));
        self.mistakes.push(Mistake::new(&entry.source, key, wrong, allowed).guess(meant));
    }

    /// The text of a key without secrets. Empty after a mistake.
    pub(super) fn text(&mut self, key: &str, allowed: &str) -> &'a str {
        let entry = self.entry(key);
        entry.value.as_str().unwrap_or_else(|| {
            self.mistaken(&entry.source, key, format!("{} is not text", shown(&entry.value)), allowed);
            ""
        })
    }

    /// The whole number of a key. The lower bound after a mistake.
    pub(super) fn whole<T>(&mut self, key: &str, bounds: RangeInclusive<u64>, unit: &str) -> T
    where
        T: TryFrom<u64, Error: std::fmt::Debug>,
    {
        let entry = self.entry(key);
        let value = entry.value.as_integer().and_then(|value| u64::try_from(value).ok());
        let value = value.filter(|value| bounds.contains(value)).unwrap_or_else(|| {
            let allowed = format!("a whole number, {} to {} {unit}", bounds.start(), bounds.end());
            self.refuse(entry, key, allowed, &[]);
            *bounds.start()
        });
        T::try_from(value).expect("the bounds of a key fit its type")
    }

    pub(super) fn switch(&mut self, key: &str) -> bool {
        let entry = self.entry(key);
        entry.value.as_bool().unwrap_or_else(|| {
            self.refuse(entry, key, "true or false", &[]);
            false
        })
    }

    /// The meaning of a word among `words`. `None` after a mistake.
    pub(super) fn word<T>(&mut self, entry: &TypedValue, key: &str, words: &[(&str, T)]) -> Option<T>
    where
        T: Copy,
    {
        let typed = entry.value.as_str();
        if let Some((_, meaning)) = words.iter().find(|(word, _)| typed == Some(*word)) {
            return Some(*meaning);
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.refuse(entry, key, names.join(", "), &names);
        None
    }

    /// An address and a port. After a mistake: loopback and any port, which passes every check of a door.
    fn address(&mut self, key: &str) -> SocketAddr {
        const ALLOWED: &str = "an IP address and a port, such as 127.0.0.1:7600 or [::1]:7600";
        let text = self.text(key, ALLOWED);
        text.parse().unwrap_or_else(|_| {
            let entry = self.entry(key);
            // A value that is no text has its mistake already.
            if entry.value.is_str() {
                let wrong = format!("{} is no such address", shown(&entry.value));
                self.mistaken(&entry.source, key, wrong, ALLOWED);
            }
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
        })
    }

    fn data_dir(&mut self) -> Option<PathBuf> {
        const ALLOWED: &str = "a folder, or a path where one can be made";
        let ephemeral = self.switch("store.ephemeral");
        let text = self.text("store.data_dir", ALLOWED);
        let entry = self.entry("store.data_dir");
        let said = self.entry("store.ephemeral");
        let path = entry.source.path(text);
        if entry.value.is_str()
            && (text.is_empty() || text.contains('\0') || (path.exists() && !path.is_dir()))
        {
            let wrong = format!("{} is no folder", shown(&entry.value));
            self.mistaken(&entry.source, "store.data_dir", wrong, ALLOWED);
        }
        // --data-dir over a file's `ephemeral = true` asks for a store; a file's data_dir under --ephemeral
        // does not.
        if !ephemeral || entry.source.layer() > said.source.layer() {
            return Some(path);
        }
        // In one layer nobody can tell which of the two was meant.
        if entry.source.layer() == said.source.layer() {
            let wrong = format!("stands beside store.ephemeral = true ({})", said.source);
            self.mistaken(&entry.source, "store.data_dir", wrong, "one of them");
        }
        None
    }

    fn proxies(&mut self) -> Proxies {
        let entry = self.entry("proxy.trusted");
        let Some(typed) = entry.value.as_array().filter(|typed| typed.len() <= PROXIES_MAX) else {
            self.refuse(entry, "proxy.trusted", format!("a list of at most {PROXIES_MAX} networks"), &[]);
            return Proxies::default();
        };
        let mut networks = Vec::new();
        for (at, network) in typed.iter().enumerate() {
            match Network::parse(network.as_str().unwrap_or_default()) {
                Ok(network) => networks.push(network),
                Err(bad) => {
                    let wrong = format!("{} is no network", shown(network));
                    self.mistaken(&entry.source, format!("proxy.trusted[{at}]"), wrong, bad.allowed);
                }
            }
        }
        Proxies::of(networks)
    }

    fn shards(&mut self) -> usize {
        let entry = self.entry("shards.count");
        if entry.value.as_str() == Some("auto") {
            // A cgroup's quota and the affinity mask count here, so a container with two cores gets two shards.
            return std::thread::available_parallelism().map_or(1, usize::from).min(SHARDS_MAX);
        }
        self.whole("shards.count", 1..=SHARDS_MAX as u64, "threads, or \"auto\"")
    }

    fn hot_rooms(&mut self) -> Vec<RoomName> {
        let allowed = format!("a list of at most {HOT_ROOMS_MAX} room names");
        let entry = self.entry("shards.hot_rooms");
        let Some(typed) = entry.value.as_array().filter(|typed| typed.len() <= HOT_ROOMS_MAX) else {
            self.refuse(entry, "shards.hot_rooms", allowed, &[]);
            return Vec::new();
        };
        let mut rooms = Vec::new();
        for (at, name) in typed.iter().enumerate() {
            match name.as_str().map(RoomName::parse) {
                Some(Ok(room)) => rooms.push(room),
                Some(Err(bad)) => {
                    let wrong = format!("{} is no room name", shown(name));
                    self.mistaken(&entry.source, format!("shards.hot_rooms[{at}]"), wrong, bad.allowed);
                }
                None => {
                    let wrong = format!("{} is not text", shown(name));
                    self.mistaken(&entry.source, format!("shards.hot_rooms[{at}]"), wrong, "a room name");
                }
            }
        }
        rooms
    }

    fn cpu_permille(&mut self) -> u32 {
        let entry = self.entry("flush.cpu_share");
        if let Some(share) = entry.value.as_float().filter(|share| CPU_SHARES.contains(share)) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "50 to 950")]
            return (share * 1000.0).round() as u32;
        }
        let allowed = format!("a share, {} to {}", CPU_SHARES.start(), CPU_SHARES.end());
        self.refuse(entry, "flush.cpu_share", allowed, &[]);
        RoomRules::default().cpu_permille
    }

    fn flush(&mut self) -> RoomRules {
        let mut typed = RoomSettings::default();
        for field in RuleField::all() {
            let value = self.whole(field.path, field.bounds.clone(), field.unit);
            field.set(value, &mut typed).expect("it is within the field's bounds");
        }
        let rules = RoomRules {
            cpu_permille: self.cpu_permille(),
            quotas: self.quotas(),
            observe_only: self.switch("limits.observe_only"),
            ..RoomRules::default()
        };
        rules.with(&typed)
    }

    fn quotas(&mut self) -> Quotas {
        let mut shares = Shares::default();
        for path in Shares::PATHS {
            let entry = self.entry(path);
            // A whole number is a share as well: TOML's 0 and 1 are integers.
            let whole = entry.value.as_integer().and_then(|whole| u8::try_from(whole).ok()).map(f64::from);
            let share = entry.value.as_float().or(whole).unwrap_or(f64::NAN);
            if shares.set(path, share).is_none() {
                self.refuse(entry, path, SHARE_ALLOWED, &[]);
            }
        }
        shares.quotas().unwrap_or_else(|TooMuch { sum }| {
            // The highest layer is blamed: its share made the sum too large.
            let blamed = Shares::PATHS.into_iter().rev().max_by_key(|path| self.entry(path).source.layer());
            let key = blamed.unwrap_or(Shares::PATHS[0]);
            let wrong = format!("with it, {} add up to {sum}", Shares::PATHS.join(", "));
            self.mistaken(&self.entry(key).source, key, wrong, "shares that add up to at most 1");
            Quotas::default()
        })
    }

    fn log(&mut self) -> Log {
        use tracing::Level;
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let levels = [
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ];
        Log {
            format: self.word(self.entry("log.format"), "log.format", &formats).unwrap_or(LogFormat::Text),
            level: self.word(self.entry("log.level"), "log.level", &levels).unwrap_or(Level::INFO),
        }
    }

    fn origins(&mut self, viewer_listen: SocketAddr) -> Origins {
        let entry = self.entry("viewer.origins");
        if entry.value.as_str() == Some("auto") {
            return Origins::default_for(viewer_listen.ip());
        }
        let Some(list) = entry.value.as_array() else {
            self.refuse(entry, "viewer.origins", "a list of origins, or \"auto\"", &[]);
            return Origins::Listed(BTreeSet::new());
        };
        let mut listed = BTreeSet::new();
        for (at, value) in list.iter().enumerate() {
            // A value that is no text is checked as "", which is refused.
            match Origins::check(value.as_str().unwrap_or_default()) {
                Ok(()) => listed.extend(value.as_str().map(str::to_owned)),
                Err(bad) => {
                    let wrong = format!("{} is not allowed", shown(value));
                    self.mistaken(&entry.source, format!("viewer.origins[{at}]"), wrong, bad.allowed);
                }
            }
        }
        Origins::Listed(listed)
    }

    fn hosts(&mut self) -> Hosts {
        let entry = self.entry("hosts");
        let Some(typed) = entry.value.as_array().filter(|typed| typed.len() <= HOSTS_MAX) else {
            self.refuse(entry, "hosts", format!("a list of at most {HOSTS_MAX} names"), &[]);
            return Hosts::default();
        };
        let mut hosts = BTreeSet::new();
        for (at, value) in typed.iter().enumerate() {
            match Hosts::check(value.as_str().unwrap_or_default()) {
                Ok(host) => drop(hosts.insert(host)),
                Err(bad) => {
                    let wrong = format!("{} is no host", shown(value));
                    self.mistaken(&entry.source, format!("hosts[{at}]"), wrong, bad.allowed);
                }
            }
        }
        Hosts::of(hosts)
    }

    fn insecure(&mut self) -> Insecure {
        let all = self.switch("insecure");
        Insecure {
            viewer: self.switch("viewer.insecure") | all,
            publisher: self.switch("publisher.insecure") | all,
            ops: self.switch("ops.insecure") | all,
        }
    }

    /// The notice before a drain. A node whose doors are all on loopback has no balancer in front of it.
    fn drain_notice(&mut self, config: &Config) -> Duration {
        if self.entry("drain.notice_ms").value.as_str() == Some("auto") {
            let doors = [config.viewer_listen, config.publisher_listen, config.ops_listen];
            let is_local = doors.iter().all(|door| door.ip().to_canonical().is_loopback());
            return if is_local { Duration::ZERO } else { DRAIN_NOTICE };
        }
        let bounds = 0..=millis(DRAIN_NOTICE_MAX);
        Duration::from_millis(self.whole("drain.notice_ms", bounds, "milliseconds, or \"auto\""))
    }

    /// The bearer keys of a door. No mistake quotes a value: somebody may have typed the key in place of its
    /// hash.
    fn bearer_keys(&mut self, key: &str) -> BearerKeys {
        let entry = self.entry(key);
        let list = self.secrets(entry, key, BEARER_KEYS_MAX);
        let mut hashes = Vec::new();
        for (at, value) in list.iter().enumerate() {
            match KeyHash::parse(value.as_str().unwrap_or_default()) {
                Ok(hash) => hashes.push(hash),
                Err(bad) => {
                    let key = format!("{key}[{at}]");
                    self.mistaken(&entry.source, key, "is no hash of a key", bad.allowed);
                }
            }
        }
        BearerKeys::new(hashes)
    }

    /// The list of a key with secrets. Empty after a mistake.
    fn secrets<'e>(&mut self, entry: &'e TypedValue, key: &str, count_max: usize) -> &'e [Value] {
        let Some(list) = entry.value.as_array() else {
            self.mistaken(&entry.source, key, "is not a list", format!("a list of at most {count_max}"));
            return &[];
        };
        if list.len() > count_max {
            let wrong = format!("has {} entries", list.len());
            self.mistaken(&entry.source, key, wrong, format!("a list of at most {count_max}"));
        }
        list
    }

    /// The device keys. No mistake quotes a value, either.
    fn device_keys(&mut self) -> DeviceKeys {
        let entry = self.entry("auth.device_keys");
        let list = self.secrets(entry, "auth.device_keys", DEVICE_KEYS_MAX);
        let mut keys: Vec<DeviceKey> = Vec::new();
        for (at, value) in list.iter().enumerate() {
            let at = format!("auth.device_keys[{at}]");
            let Some(table) = value.as_table() else {
                let allowed = "a table, such as { alg = \"HS256\", secret_file = \"device.key\" }";
                self.mistaken(&entry.source, at, "is not a table", allowed);
                continue;
            };
            let Some(key) = self.device_key(&entry.source, &at, table) else { continue };
            // A token chooses its key by kid: with two of a kind, one of them would never be asked for alone.
            if key.kid.is_some() && keys.iter().any(|other| other.kid == key.kid) {
                self.mistaken(&entry.source, format!("{at}.kid"), "stands twice", "one key of each kid");
            }
            keys.push(key);
        }
        DeviceKeys::new(keys, self.expected_claims())
    }

    /// The claims of a device's token beside its rooms.
    fn expected_claims(&mut self) -> Expected {
        let bounds = TOKEN_LIFETIME_LEAST.as_secs()..=TOKEN_LIFETIME_MOST.as_secs();
        Expected {
            audiences: self.claim_values("auth.audiences"),
            issuers: self.claim_values("auth.issuers"),
            lifetime_max: Duration::from_secs(self.whole("auth.lifetime_max_s", bounds, "seconds")),
        }
    }

    fn claim_values(&mut self, key: &str) -> Vec<String> {
        let entry = self.entry(key);
        let typed = entry.value.as_array().filter(|typed| typed.len() <= CLAIM_VALUES_MAX);
        let values: Option<Vec<String>> = typed.and_then(|typed| {
            let texts = typed.iter().map(|value| value.as_str().filter(|text| !text.is_empty()));
            texts.map(|text| text.map(str::to_owned)).collect()
        });
        values.unwrap_or_else(|| {
            self.refuse(entry, key, format!("a list of at most {CLAIM_VALUES_MAX} texts, none empty"), &[]);
            Vec::new()
        })
    }

    fn device_key(&mut self, source: &Source, at: &str, table: &Table) -> Option<DeviceKey> {
        let before = self.mistakes.len();
        for (key, value) in table {
            if !DEVICE_KEY_KEYS.contains(&key.as_str()) {
                let meant = nearest(key, DEVICE_KEY_KEYS.into_iter());
                let allowed = DEVICE_KEY_KEYS.join(", ");
                let unknown = Mistake::new(source, format!("{at}.{key}"), "unknown key", allowed);
                self.mistakes.push(unknown.guess(meant));
            } else if value.as_str().is_none_or(str::is_empty) {
                self.mistaken(source, format!("{at}.{key}"), "is empty or not text", "text in quotes");
            }
        }
        let given = |key: &str| table.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let kid = given("kid").map(str::to_owned);
        // With a misspelt key the check below would report a missing one as well. What was typed is checked all
        // the same, each value alone.
        if self.mistakes.len() > before {
            if given("alg").is_some_and(|alg| !matches!(alg, "HS256" | "EdDSA")) {
                self.mistaken(source, format!("{at}.alg"), "is not supported", "\"HS256\" or \"EdDSA\"");
            }
            let secret = given("secret").map(|secret| DeviceKey::hs256(None, secret.as_bytes()));
            let public_key = given("public_key").map(|public_key| DeviceKey::eddsa(None, public_key));
            for bad in [secret, public_key].into_iter().flatten().filter_map(Result::err) {
                self.mistaken(source, at, "is no key of its algorithm", bad.allowed);
            }
            return None;
        }
        let made = match (given("alg"), given("secret"), given("secret_file"), given("public_key")) {
            (Some("HS256"), Some(secret), None, None) => DeviceKey::hs256(kid, secret.as_bytes()),
            (Some("HS256"), None, Some(file), None) => {
                let secret = self.secret_file(source, at, file)?;
                DeviceKey::hs256(kid, &secret)
            }
            (Some("EdDSA"), None, None, Some(public_key)) => DeviceKey::eddsa(kid, public_key),
            (alg, ..) => {
                let (wrong, allowed) = match alg {
                    Some("HS256") => ("needs one secret and no public key", "either secret or secret_file"),
                    Some("EdDSA") => ("needs a public key and no secret", "public_key alone"),
                    _ => {
                        let allowed = "\"HS256\" or \"EdDSA\"";
                        self.mistaken(source, format!("{at}.alg"), "is missing or not supported", allowed);
                        return None;
                    }
                };
                self.mistaken(source, at, wrong, allowed);
                return None;
            }
        };
        made.map_err(|bad| self.mistaken(source, at, "is no key of its algorithm", bad.allowed)).ok()
    }

    /// The content of a secret's file, without a final line end.
    fn secret_file(&mut self, source: &Source, at: &str, typed: &str) -> Option<Vec<u8>> {
        let path = source.path(typed);
        let mut secret = Vec::new();
        // One byte past the limit tells a file that is too large. A path like /dev/zero would never end.
        let read = std::fs::File::open(&path)
            .and_then(|file| file.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut secret));
        let wrong = match read {
            Ok(bytes) if bytes <= SECRET_BYTES_MAX => {
                // Editors and `echo` end a file with a line end, which is not part of the secret.
                let text = secret.strip_suffix(b"\n").unwrap_or(&secret);
                return Some(text.strip_suffix(b"\r").unwrap_or(text).to_vec());
            }
            Ok(_) => format!("{} is too large", path.display()),
            Err(trouble) => format!("{} can't be read ({trouble})", path.display()),
        };
        let allowed = format!("a file of at most {SECRET_BYTES_MAX} bytes");
        self.mistaken(source, format!("{at}.secret_file"), wrong, allowed);
        None
    }

    /// Adds a mistake for each door on the port of an earlier door.
    fn doors_apart(&mut self, config: &Config) {
        let doors = [
            ("viewer.listen", config.viewer_listen),
            ("publisher.listen", config.publisher_listen),
            ("ops.listen", config.ops_listen),
        ];
        for (at, (key, address)) in doors.iter().enumerate() {
            let clash = doors[..at].iter().find(|(_, other)| {
                // 0.0.0.0 and [::] include every address. Port 0 is a free port of the system's choice.
                let overlap = other.ip() == address.ip()
                    || other.ip().is_unspecified()
                    || address.ip().is_unspecified();
                address.port() != 0 && other.port() == address.port() && overlap
            });
            if let Some((other, _)) = clash {
                let source = &self.entry(key).source;
                let wrong = format!("{address} is taken by {other}");
                self.mistaken(source, *key, wrong, "a port of its own, or 0 for any");
            }
        }
    }

    /// Adds a mistake for each door off loopback without authentication, unless `insecure` allows it.
    fn doors_guarded(&mut self, config: &Config) {
        // A door may be open only because its keys, or `insecure` itself, were mistyped. That mistake is
        // enough.
        let mistyped =
            |mistakes: &[Mistake], key: &str| mistakes.iter().any(|mistake| mistake.key.starts_with(key));
        let insecure_mistyped = mistyped(self.mistakes, "insecure");
        let Insecure { viewer, publisher, ops } = config.insecure;
        for (section, address, is_open, keys, insecure) in [
            ("viewer", config.viewer_listen, config.device_keys.is_open(), "auth.device_keys", viewer),
            (
                "publisher",
                config.publisher_listen,
                config.publisher_keys.is_open(),
                "publisher.keys",
                publisher,
            ),
            ("ops", config.ops_listen, config.ops_keys.is_open(), "ops.keys", ops),
        ] {
            let insecure_key = format!("{section}.insecure");
            let excused = insecure || insecure_mistyped || mistyped(self.mistakes, &insecure_key);
            let is_open = is_open && !mistyped(self.mistakes, keys);
            // ::ffff:127.0.0.1 is loopback in IPv6's spelling.
            if is_open && !excused && !address.ip().to_canonical().is_loopback() {
                let key = format!("{section}.listen");
                let wrong = format!("{address} is not loopback, and the door has no authentication");
                let source = &self.entry(&key).source;
                self.mistaken(source, key, wrong, format!("{keys}, a loopback address, or {insecure_key}"));
            }
        }
    }
}

/// The quote of a value in a mistake: one line, at most 60 characters.
pub(super) fn shown(value: &Value) -> String {
    let spelt = value.to_string().replace('\n', " ");
    match spelt.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &spelt[..at]),
        None => spelt,
    }
}
