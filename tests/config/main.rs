//! The configuration from the operator's side: layers, mistakes, hints, secrets, paths, and the printed form.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod cluster;
mod secrets;
mod types;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use roomcast::auth::{Origins, Refused};
use roomcast::config::args::Args;
use roomcast::config::flush::Shares;
use roomcast::config::{Config, Insecure, Loaded, LogFormat, Mistakes, Source, check, print};
use roomcast_core::limits;
use roomcast_core::room::id::{RoomName, TypeName};
use roomcast_core::room::message::Class;
use roomcast_core::room::pace::{Quotas, Readable, RoomRules};
use roomcast_core::room::policy::{Merge, Priority, TypePolicy, TypeRate};

/// The SHA-256 of `secret`.
const KEY_HASH: &str = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
const SECRET: &str = "canary-secret-of-thirty-two-bytes!";

/// A file in the system's scratch folder, removed at the end of its test.
struct Scratch(PathBuf);

impl Scratch {
    fn holding(text: impl AsRef<[u8]>) -> Self {
        let path = std::env::temp_dir().join(format!(
            "roomcast-config-{}-{:016x}",
            std::process::id(),
            fastrand::u64(..)
        ));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

fn args(flags: &[&str]) -> Args {
    Args::try_parse_from(["roomcast"].iter().chain(flags)).unwrap()
}

fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    owned.into_iter()
}

fn load(file: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<Config, Mistakes> {
    let file = Scratch::holding(file);
    let mut line = vec!["--config", file.path()];
    line.extend(flags);
    Config::load(&args(&line), variables(environment))
}

fn file_mistakes(file: &str) -> Vec<String> {
    load(file, &[], &[]).err().as_ref().map(told).unwrap_or_default()
}

/// The text of each mistake without its source.
fn told(mistakes: &Mistakes) -> Vec<String> {
    let tell =
        |mistake: &roomcast::config::Mistake| mistake.to_string().split_once(": ").unwrap().1.to_owned();
    mistakes.0.iter().map(tell).collect()
}

fn policy(config: &Config, name: &str) -> TypePolicy {
    config.types.policy(&TypeName::parse(name).unwrap())
}

#[test]
fn the_built_in_defaults_are_those_of_the_code() {
    let config = Config::load(&Args::default(), variables(&[])).unwrap();
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(config.viewer_listen, local(7600));
    assert_eq!(config.publisher_listen, local(7601));
    assert_eq!(config.ops_listen, local(7602));
    assert_eq!(config.data_dir, Some(PathBuf::from("data")));
    assert_eq!(config.shards, std::thread::available_parallelism().unwrap().get());
    assert_eq!(config.flush, RoomRules::default());
    assert_eq!(config.heartbeat, limits::HEARTBEAT);
    assert_eq!(config.joins_per_second, limits::JOINS_PER_SECOND);
    assert_eq!(config.outbound_bytes_max, limits::OUTBOUND_BYTES);
    assert_eq!(config.key_messages_per_second, 0);
    assert!(config.publisher_keys.is_open() && config.device_keys.is_open());
    assert!(config.ops_keys.is_open() && config.insecure == Insecure::default());
    assert_eq!((config.connections, config.drain_notice), (None, Duration::ZERO));
    assert_eq!(limits::TOKEN_LIFETIME.as_secs(), 2_592_000);
    assert_eq!(config.origins, Origins::Loopback);
    assert_eq!((config.log.format, config.log.level), (LogFormat::Text, tracing::Level::INFO));
}

#[test]
fn flags_stand_over_the_environment_over_the_file_over_the_defaults() {
    let file = "[viewer]\nlisten = '127.0.0.1:1'\nheartbeat_ms = 2000\n\
                joins_per_second = 300\n[shards]\ncount = 2\n[flush]\ngather_ms = 20";
    let environment = [
        ("ROOMCAST__VIEWER__LISTEN", "127.0.0.1:2"),
        ("ROOMCAST__FLUSH__GATHER_MS", "10"),
        ("ROOMCAST__SHARDS__COUNT", "3"),
        ("ROOMCAST__VIEWER__JOINS_PER_SECOND", "1"),
    ];
    let config = load(file, &environment, &["--viewer-listen", "127.0.0.1:3", "serve"]).unwrap();
    assert_eq!(config.viewer_listen.port(), 3, "flag");
    assert_eq!(config.flush.gather, Duration::from_millis(10), "environment");
    assert_eq!(config.shards, 3, "environment");
    assert_eq!(config.heartbeat, Duration::from_secs(2), "file");
    assert_eq!(config.joins_per_second, 1, "environment");
    assert_eq!(config.flush.messages_max, 100, "default");
    assert_eq!(load(file, &environment, &["--shards", "4"]).unwrap().shards, 4, "flag");
}

#[test]
fn a_relative_data_dir_counts_from_the_folder_of_its_file_and_else_from_the_working_directory() {
    let file = "store.data_dir = 'rooms'";
    let beside_the_file = std::env::temp_dir().join("rooms");
    assert_eq!(load(file, &[], &[]).unwrap().data_dir, Some(beside_the_file));
    let typed = [("ROOMCAST__STORE__DATA_DIR", "rooms")];
    assert_eq!(load("", &typed, &[]).unwrap().data_dir, Some(PathBuf::from("rooms")), "environment");
    let flag = ["--data-dir", "rooms"];
    assert_eq!(load(file, &[], &flag).unwrap().data_dir, Some(PathBuf::from("rooms")), "flag");
    let absolute = load("store.data_dir = '/var/lib/roomcast'", &[], &[]).unwrap();
    assert_eq!(absolute.data_dir, Some(PathBuf::from("/var/lib/roomcast")));
    assert_eq!(
        load("", &[], &[]).unwrap().data_dir,
        Some(PathBuf::from("data")),
        "the default has no folder"
    );
}

#[test]
fn printed_paths_are_absolute_so_that_they_mean_the_same_in_another_folder() {
    let secret = Scratch::holding(SECRET);
    let name = secret.0.file_name().unwrap().to_str().unwrap();
    let file = Scratch::holding(format!(
        "store.data_dir = 'rooms'\nauth.device_keys = [{{ alg = 'HS256', secret_file = '{name}' }}]"
    ));
    let printed = print(&args(&["config", "print", file.path()]), variables(&[])).unwrap();
    let rooms = std::env::temp_dir().join("rooms");
    assert!(printed.contains(&format!("data_dir = \"{}\"", rooms.display())), "{printed}");
    assert!(printed.contains(&format!("secret_file = \"{}\"", secret.path())), "{printed}");
    let default = print(&Args::default(), variables(&[])).unwrap();
    let data = std::env::current_dir().unwrap().join("data");
    assert!(default.contains(&format!("data_dir = \"{}\"", data.display())), "{default}");
}

#[test]
fn other_variables_are_passed_over() {
    let others = [
        "PATH",
        "ROOMCAST",
        "ROOMCASTER_ID",
        // Variables of the load generator and of the tests.
        "ROOMCAST_PUBLISHER_KEY",
        "ROOMCAST_DEVICE_TOKEN",
        "ROOMCAST_WORKER_KEY",
        "ROOMCAST_SEED",
        "ROOMCAST_SEEDS",
        // Variables that Kubernetes sets for services named roomcast and roomcast-viewer.
        "ROOMCAST_SERVICE_HOST",
        "ROOMCAST_SERVICE_PORT",
        "ROOMCAST_SERVICE_PORT_HTTP",
        "ROOMCAST_PORT",
        "ROOMCAST_PORT_7600_TCP",
        "ROOMCAST_PORT_7600_TCP_ADDR",
        "ROOMCAST_VIEWER_SERVICE_HOST",
        "ROOMCAST_VIEWER_PORT_7600_TCP_PROTO",
    ];
    let set: Vec<(&str, &str)> = others.iter().map(|name| (*name, "x")).collect();
    let config = Config::load(&Args::default(), variables(&set));
    assert!(config.is_ok(), "{config:?}");
}

#[test]
fn a_variable_with_single_underscores_is_a_mistake_that_names_what_was_meant() {
    for (name, meant) in [
        ("ROOMCAST_FLUSH_GATHER_MS", Some("ROOMCAST__FLUSH__GATHER_MS")),
        ("ROOMCAST_FLUSH__GATHER_MS", Some("ROOMCAST__FLUSH__GATHER_MS")),
        ("ROOMCAST_INSECURE", Some("ROOMCAST__INSECURE")),
        ("ROOMCAST_PUBLISHER_KEYS", Some("ROOMCAST__PUBLISHER__KEYS")),
        ("ROOMCAST_TYPES_COUPON_TTL_MS", Some("ROOMCAST__TYPES__COUPON__TTL_MS")),
        ("ROOMCAST_SOMETHING", None),
        ("ROOMCAST_", None),
    ] {
        let mistakes = load("", &[(name, "canary")], &[]).unwrap_err();
        let shown = mistakes.to_string();
        assert_eq!(mistakes.0.len(), 1, "{shown}");
        assert_eq!(mistakes.0[0].source, Source::Environment(name.to_owned()));
        assert_eq!(mistakes.0[0].meant.as_deref(), meant, "{shown}");
        assert!(shown.contains("ROOMCAST__SECTION__KEY") && !shown.contains("canary"), "{shown}");
    }
}

#[test]
fn types_are_merged_key_by_key() {
    let file = "[types]\ncoupon = { urgent = false }\ngift = { class = 'reliable' }\n\
                \"a.b\" = { class = 'lossy', urgent = true }\n\
                red_packet = { class = 'normal' }";
    let config = load(
        file,
        &[("ROOMCAST__TYPES__COUPON__TTL_MS", "5000"), ("ROOMCAST__TYPES__VIP__CLASS", "latest")],
        &[],
    )
    .unwrap();
    let five_seconds = Duration::from_secs(5);
    assert_eq!(
        policy(&config, "coupon"),
        TypePolicy { urgent: false, ttl: five_seconds, ..TypePolicy::of(Class::Reliable) }
    );
    assert_eq!(
        policy(&config, "gift"),
        TypePolicy { urgent: true, ttl: limits::TTL_DEFAULT, ..TypePolicy::of(Class::Reliable) }
    );
    assert_eq!((policy(&config, "a.b").class, policy(&config, "a.b").urgent), (Class::Lossy, true));
    assert_eq!(
        (policy(&config, "red_packet").class, policy(&config, "red_packet").urgent),
        (Class::Normal, false)
    );
    assert_eq!(policy(&config, "vip").class, Class::Latest);
    assert_eq!(policy(&config, "chat").class, Class::Normal, "untouched");
    let inline = [("ROOMCAST__TYPES__STICKER", "{ class = 'lossy' }")];
    assert_eq!(policy(&load("", &inline, &[]).unwrap(), "sticker").class, Class::Lossy);
}

#[test]
fn every_mistake_of_every_layer_is_reported_at_once_with_where_it_was_typed() {
    let file = Scratch::holding(
        "[flush]\ngather_ms = 0\nmax_bytes = 'big'\n[log]\nformat = 'xml'\n[wiever]\nlisten = 1",
    );
    let line = args(&["--config", file.path(), "--shards", "0", "--ops-listen", "here"]);
    let environment = variables(&[("ROOMCAST__FLUSH__MAX_MESAGES", "7"), ("ROOMCAST__INSECURE", "perhaps")]);
    let Mistakes(mistakes) = Config::load(&line, environment).unwrap_err();
    let mut seen: Vec<(u8, &str)> =
        mistakes.iter().map(|mistake| (mistake.source.layer(), mistake.key.as_str())).collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            (1, "flush.gather_ms"),
            (1, "flush.max_bytes"),
            (1, "log.format"),
            (1, "wiever"),
            (2, "flush.max_mesages"),
            (2, "insecure"),
            (3, "ops.listen"),
            (3, "shards.count"),
        ]
    );
    let text = Mistakes(mistakes).to_string();
    assert!(text.starts_with("8 mistakes in the configuration:\n"), "{text}");
    for part in [
        file.path(),
        "flush.gather_ms: 0 is not allowed; allowed: a whole number, 1 to 10000 milliseconds",
        "ROOMCAST__FLUSH__MAX_MESAGES: flush.max_mesages: unknown key; did you mean ROOMCAST__FLUSH__MAX_MESSAGES?",
        "wiever: unknown key; did you mean viewer?",
        "--shards: shards.count: 0 is not allowed; allowed: a whole number, 1 to 256 threads, or \"auto\"",
        "--ops-listen: ops.listen: \"here\" is no such address",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// A file with one mistake, and the beginning of the report.
const WRONG: &[(&str, &str)] = &[
    ("insecure = 'yes'", "insecure: \"yes\" is not allowed; allowed: true or false"),
    ("flush = 5", "flush: is a section, not a value; allowed: a table of its keys"),
    (
        "flush.gather_ms = { a = 1 }",
        "flush.gather_ms: { a = 1 } is not allowed; allowed: a whole number, 1 to 10000 milliseconds",
    ),
    (
        "flush.gather_ms = 10001",
        "flush.gather_ms: 10001 is not allowed; allowed: a whole number, 1 to 10000 milliseconds",
    ),
    (
        "flush.gather_ms = 1.5",
        "flush.gather_ms: 1.5 is not allowed; allowed: a whole number, 1 to 10000 milliseconds",
    ),
    (
        "flush.max_messages = -1",
        "flush.max_messages: -1 is not allowed; allowed: a whole number, 1 to 10000 messages",
    ),
    (
        "flush.max_bytes = 1023",
        "flush.max_bytes: 1023 is not allowed; allowed: a whole number, 1024 to 1048576 bytes",
    ),
    (
        "flush.direct_members = 1000001",
        "flush.direct_members: 1000001 is not allowed; allowed: a whole number, 0 to 1000000 members",
    ),
    (
        "flush.urgent_spacing_ms = 0",
        "flush.urgent_spacing_ms: 0 is not allowed; allowed: a whole number, 1 to 10000 milliseconds",
    ),
    (
        "flush.gather_max_ms = 10001",
        "flush.gather_max_ms: 10001 is not allowed; allowed: a whole number, 1 to 10000 milliseconds",
    ),
    ("flush.cpu_share = 0.96", "flush.cpu_share: 0.96 is not allowed; allowed: a share, 0.05 to 0.95"),
    ("flush.cpu_share = nan", "flush.cpu_share: nan is not allowed; allowed: a share, 0.05 to 0.95"),
    ("flush.cpu_share = 60", "flush.cpu_share: 60 is not allowed; allowed: a share, 0.05 to 0.95"),
    ("flush.budget_ms = 1000", "flush.budget_ms: unknown key"),
    (
        "shards.hot_members = 0",
        "shards.hot_members: 0 is not allowed; allowed: a whole number, 1 to 1000000 members",
    ),
    (
        "shards.hot_rooms = 'r1'",
        "shards.hot_rooms: \"r1\" is not allowed; allowed: a list of at most 10000 room names",
    ),
    ("shards.hot_rooms = ['r1', 'r 2']", "shards.hot_rooms[1]: \"r 2\" is no room name; allowed: "),
    ("shards.hot_rooms = [7]", "shards.hot_rooms[0]: 7 is not text; allowed: a room name"),
    (
        "viewer.heartbeat_ms = 999",
        "viewer.heartbeat_ms: 999 is not allowed; allowed: a whole number, 1000 to 600000 milliseconds",
    ),
    (
        "viewer.joins_per_second = 0",
        "viewer.joins_per_second: 0 is not allowed; allowed: a whole number, 1 to 1000000 joins a second",
    ),
    ("viewer.joins_per_second = 1_000_001", "viewer.joins_per_second: 1000001 is not allowed"),
    ("viewer.listen = 7600", "viewer.listen: 7600 is not text"),
    ("viewer.listen = '127.0.0.1'", "viewer.listen: \"127.0.0.1\" is no such address"),
    ("viewer.gather_ms = 1", "viewer.gather_ms: unknown key; did you mean flush.gather_ms?"),
    (
        "viewer.origins = ['https://shop.example/']",
        "viewer.origins[0]: \"https://shop.example/\" is not allowed",
    ),
    (
        "viewer.origins = 'all'",
        "viewer.origins: \"all\" is not allowed; allowed: a list of origins, or \"auto\"",
    ),
    ("shards.count = 257", "shards.count: 257 is not allowed"),
    ("store.data_dir = ''", "store.data_dir: \"\" is no folder"),
    ("store.data_dir = '/dev/null'", "store.data_dir: \"/dev/null\" is no folder"),
    (
        "log.level = 'warning'",
        "log.level: \"warning\" is not allowed; allowed: error, warn, info, debug, trace",
    ),
    ("log.format = 'jsn'", "log.format: \"jsn\" is not allowed; allowed: text, json; did you mean json?"),
    (
        "[types]\nchat = 'normal'",
        "types.chat: is not a table; allowed: a table, such as { class = \"normal\" }",
    ),
    (
        "[types]\nchat = { class = 'norml' }",
        "types.chat.class: \"norml\" is not allowed; allowed: reliable, normal, latest, counter, lossy; \
         did you mean normal?",
    ),
    ("flush.high_share = 1.1", "flush.high_share: 1.1 is not allowed; allowed: a share, 0 to 1"),
    ("flush.high_share = 2", "flush.high_share: 2 is not allowed; allowed: a share, 0 to 1"),
    ("flush.low_share = -0.1", "flush.low_share: -0.1 is not allowed; allowed: a share, 0 to 1"),
    ("flush.normal_share = nan", "flush.normal_share: nan is not allowed; allowed: a share, 0 to 1"),
    (
        "flush.normal_share = 0.501",
        "flush.normal_share: with it, flush.low_share, flush.normal_share, flush.high_share add up to 1.001; \
         allowed: shares",
    ),
    (
        "readable.normal_per_second = -1",
        "readable.normal_per_second: -1 is not allowed; allowed: a whole number, 0 to 1000000",
    ),
    ("readable.high_per_second = 1_000_001", "readable.high_per_second: 1000001 is not allowed"),
    (
        "limits.room_messages_per_second = 1_000_001",
        "limits.room_messages_per_second: 1000001 is not allowed",
    ),
    ("limits.key_messages_per_second = 'all'", "limits.key_messages_per_second: \"all\" is not allowed"),
    (
        "limits.outbound_bytes = 16_777_215",
        "limits.outbound_bytes: 16777215 is not allowed; allowed: a whole number, 16777216 to 1099511627776 bytes",
    ),
    ("limits.observe_only = 1", "limits.observe_only: 1 is not allowed; allowed: true or false"),
    ("limits.observe = true", "limits.observe: unknown key"),
    (
        "[types]\nchat = { priority = 'hihg' }",
        "types.chat.priority: \"hihg\" is not allowed; allowed: low, normal, high; did you mean high?",
    ),
    (
        "[types]\nchat = { merge = 'som' }",
        "types.chat.merge: \"som\" is not allowed; allowed: none, latest, first, sum; did you mean sum?",
    ),
    (
        "[types]\nchat = { weight = 0 }",
        "types.chat.weight: 0 is not allowed; allowed: a whole number, 1 to 1000000",
    ),
    (
        "[types]\nchat = { rate = 1_000_001 }",
        "types.chat.rate: 1000001 is not allowed; allowed: a whole number, 0 to 1000000 messages a second",
    ),
    ("[types]\nchat = { rate = -1 }", "types.chat.rate: -1 is not allowed"),
    ("[types]\nchat = { burst = 5 }", "types.chat.burst: has no rate; allowed: beside a rate of at least 1"),
    ("[types]\nchat = { rate = 0, burst = 5 }", "types.chat.burst: has no rate"),
    (
        "[types]\nchat = { history = 'yes' }",
        "types.chat.history: \"yes\" is not allowed; allowed: true or false",
    ),
    ("[types]\nchat = { ttl_ms = 999 }", "types.chat.ttl_ms: 999 is not allowed"),
    (
        "[types]\ncoupon = { priority = 'low' }",
        "types.coupon.priority: \"low\" does not fit class reliable; allowed: high, or nothing",
    ),
    (
        "[types]\ncoupon = { merge = 'sum' }",
        "types.coupon.merge: \"sum\" does not fit class reliable; allowed: none, or nothing",
    ),
    ("[types]\ncoupon = { history = true }", "types.coupon.history: true does not fit class reliable"),
    ("[types]\ncoupon = { weight = 2 }", "types.coupon.weight: 2 does not fit class reliable"),
    ("[types]\nlike = { merge = 'sum' }", "types.like.merge: \"sum\" does not fit class counter"),
    ("[types]\nlike = { priority = 'high' }", "types.like.priority: \"high\" does not fit class counter"),
    (
        "[types]\nlike = { ttl_ms = 5000 }",
        "types.like.ttl_ms: 5000 does not fit class counter; allowed: nothing",
    ),
    ("[types]\nonline = { merge = 'none' }", "types.online.merge: \"none\" does not fit class latest"),
    ("[types]\nonline = { history = true }", "types.online.history: true does not fit class latest"),
    ("[types]\nonline = { ttl_ms = 5000 }", "types.online.ttl_ms: 5000 does not fit class latest"),
    (
        "[types]\ncoupon = { ttl_ms = 999 }",
        "types.coupon.ttl_ms: 999 is not allowed; allowed: a whole number, 1000 to 604800000 milliseconds",
    ),
    ("[types]\ncoupon = { ttl = 5000 }", "types.coupon.ttl: unknown key; did you mean types.coupon.ttl_ms?"),
    ("[types]\ncoupn = { ttl_ms = 5000 }", "types.coupn: is not a built-in type and has no class"),
    ("[types]\nnew = {}", "types.new: is not a built-in type and has no class"),
    ("[types]\nChat = { class = 'normal' }", "types.\"Chat\": is no name for a type"),
    ("[types]\nonline = { class = 'normal' }", "types.online.class: \"normal\" is not allowed"),
    ("[types]\ncoupon = { urgent = 1 }", "types.coupon.urgent: 1 is not allowed; allowed: true or false"),
    ("[flush]\ngather_ms = \n", "line 2: "),
    ("[log]\nlevel = 'info'\nlevel = 'warn'", "line 3: "),
];

#[test]
fn each_kind_of_wrong_value_says_what_is_allowed() {
    for (file, wrong) in WRONG {
        let mistakes = file_mistakes(file);
        assert_eq!(mistakes.len(), 1, "{file}: {mistakes:#?}");
        assert!(mistakes[0].starts_with(wrong), "{file}: {mistakes:#?}");
    }
}

#[test]
fn a_mistyped_type_is_told_its_built_in_neighbour() {
    assert!(file_mistakes("[types]\ncoupn = { ttl_ms = 5000 }")[0].ends_with("did you mean types.coupon?"));
    let typed = [("ROOMCAST__TYPES__COUPN__TTL_MS", "5000")];
    let told = load("", &typed, &[]).unwrap_err().to_string();
    assert!(told.contains("did you mean ROOMCAST__TYPES__COUPON?"), "{told}");
}

#[test]
fn a_file_that_is_not_there_or_named_twice_is_a_mistake() {
    let missing =
        Config::load(&args(&["--config", "/nonexistent/roomcast.toml"]), variables(&[])).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/roomcast.toml: file: can't be read"), "{missing}");
    let file = Scratch::holding("");
    let twice = args(&["config", "check", file.path(), "--config", file.path()]);
    assert_eq!(check(&twice, variables(&[])).unwrap_err().0[0].source, Source::Flag("--config"));
}

#[test]
fn of_data_dir_and_ephemeral_the_higher_layer_counts_and_one_layer_says_one() {
    let data_dir =
        |file, environment: &[_], flags: &[_]| load(file, environment, flags).map(|config| config.data_dir);
    assert_eq!(data_dir("", &[], &["--ephemeral"]), Ok(None));
    assert_eq!(data_dir("store.data_dir = 'd'", &[], &["--ephemeral"]), Ok(None));
    assert_eq!(data_dir("store.ephemeral = true", &[], &["--data-dir", "2026"]), Ok(Some("2026".into())));
    assert_eq!(
        data_dir("", &[("ROOMCAST__STORE__DATA_DIR", "2026-01-01")], &[]),
        Ok(Some("2026-01-01".into()))
    );
    let both = data_dir("", &[], &["--data-dir", "d", "--ephemeral"]).unwrap_err();
    assert_eq!(both.0[0].key, "store.data_dir");
    assert_eq!(file_mistakes("[store]\ndata_dir = 'd'\nephemeral = true").len(), 1);
}

#[test]
fn two_doors_on_one_port_are_a_mistake() {
    assert_eq!(load("", &[], &["--ops-listen", "127.0.0.1:7600"]).unwrap_err().0[0].key, "ops.listen");
    let any = [
        "--viewer-listen",
        "127.0.0.1:0",
        "--publisher-listen",
        "127.0.0.1:0",
        "--ops-listen",
        "127.0.0.1:0",
    ];
    assert!(load("", &[], &any).is_ok(), "port 0 is any port");
    assert!(load("", &[], &["--ops-listen", "127.0.0.2:7600"]).is_ok(), "another address");
    assert!(load("", &[], &["--ops-listen", "0.0.0.0:7600", "--insecure"]).is_err(), "it includes the other");
}

#[test]
fn a_door_off_loopback_needs_authentication_or_insecure() {
    let open =
        ["--viewer-listen", "0.0.0.0:1", "--publisher-listen", "[::]:2", "--ops-listen", "192.0.2.1:3"];
    let mistakes = load("", &[], &open).unwrap_err();
    let keys: Vec<&str> = mistakes.0.iter().map(|mistake| mistake.key.as_str()).collect();
    assert_eq!(keys, ["viewer.listen", "publisher.listen", "ops.listen"]);
    assert!(
        mistakes.to_string().contains("allowed: publisher.keys, a loopback address, or publisher.insecure"),
        "{mistakes}"
    );

    let insecure = load("insecure = true", &[], &open).unwrap();
    assert_eq!(insecure.insecure, Insecure { viewer: true, publisher: true, ops: true });
    assert!(!insecure.origins.allows(Some("http://localhost")), "off loopback no page is admitted unasked");
    assert!(load("", &[], &[&open[..], &["--insecure"]].concat()).is_ok());

    let keyed = format!(
        "[publisher]\nkeys = ['{KEY_HASH}']\n[auth]\ndevice_keys = [{{ alg = 'HS256', secret = '{SECRET}' }}]"
    );
    let ops_only = load(&keyed, &[], &open).unwrap_err();
    assert_eq!(ops_only.0.len(), 1);
    assert_eq!(ops_only.0[0].key, "ops.listen", "which never asks");
    assert!(load(&keyed, &[], &open[..4]).is_ok());
    assert!(load("", &[], &["--viewer-listen", "127.9.9.9:1", "--ops-listen", "[::1]:2"]).is_ok());
}

#[test]
fn what_is_printed_shows_where_each_value_comes_from_and_no_secret() {
    let file = Scratch::holding(format!(
        "[publisher]\nkeys = ['{KEY_HASH}']\n\
         [auth]\ndevice_keys = [{{ kid = 'k', alg = 'HS256', secret = '{SECRET}' }}]\n\
         [types]\n\"a.b\" = {{ class = 'lossy' }}"
    ));
    let line = args(&["config", "print", file.path(), "--shards", "3"]);
    let text = print(&line, variables(&[("ROOMCAST__FLUSH__GATHER_MS", "10")])).unwrap();
    for part in [
        "gather_ms = 10  # ROOMCAST__FLUSH__GATHER_MS\n",
        "count = 3  # --shards\n",
        "max_messages = 100\n",
        &format!("keys = [\"[redacted]\"]  # {}\n", file.path()),
        "kid = \"k\"",
        "secret = \"[redacted]\"",
        "high_share = 0.5\n",
        "outbound_bytes = 1073741824\n",
        "coupon = { class = \"reliable\", priority = \"high\", merge = \"none\", urgent = true, ttl_ms = 600000, \
         rate = 0, history = false, weight = 1 }\n",
        "like = { class = \"counter\", priority = \"normal\", merge = \"none\", urgent = false, rate = 0, \
         history = false, weight = 1 }\n",
        &format!(
            "\"a.b\" = {{ class = \"lossy\", priority = \"low\", merge = \"latest\", urgent = false, ttl_ms = 10000, \
             rate = 0, history = false, weight = 1 }}  # {}\n",
            file.path()
        ),
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let config = Config::load(&line, variables(&[])).unwrap();
    for shown in [text, format!("{config:?} {config:#?} {line:?}")] {
        assert!(!shown.contains("canary") && !shown.contains(&KEY_HASH[7..]), "{shown}");
    }
}

#[test]
fn what_is_printed_without_secrets_is_a_configuration_that_means_the_same() {
    let flags = ["config", "print", "--viewer-listen", "127.0.0.1:9", "--shards", "3", "--ephemeral"];
    let typed = [
        ("ROOMCAST__TYPES__VIP.GIFT__CLASS", "reliable"),
        ("ROOMCAST__VIEWER__ORIGINS", "['null']"),
        ("ROOMCAST__FLUSH__HIGH_SHARE", "0.333"),
        ("ROOMCAST__FLUSH__LOW_SHARE", "0.6"),
        ("ROOMCAST__READABLE__NORMAL_PER_SECOND", "30"),
        ("ROOMCAST__LIMITS__KEY_MESSAGES_PER_SECOND", "70"),
        ("ROOMCAST__LIMITS__OBSERVE_ONLY", "true"),
        ("ROOMCAST__TYPES__GIFT__CLASS", "lossy"),
        ("ROOMCAST__TYPES__RED_PACKET__CLASS", "counter"),
        ("ROOMCAST__TYPES__CHAT", "{ rate = 5, burst = 9, priority = 'low', merge = 'first', weight = 3 }"),
        ("ROOMCAST__TYPES__POLL__CLASS", "latest"),
    ];
    let printed = print(&args(&flags), variables(&typed)).unwrap();
    let before = Config::load(&args(&flags), variables(&typed)).unwrap();
    let after = load(&printed, &[], &[]).unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    assert_eq!(check(&args(&flags), variables(&typed)).unwrap(), "the configuration is valid\n");
}

#[test]
fn a_reload_takes_over_what_it_can_and_names_what_needs_a_restart() {
    let file = Scratch::holding("[types]\nvote = { class = 'counter' }");
    let line = args(&["--config", file.path(), "--shards", "3"]);
    let running = Loaded::load(&line, variables(&[])).unwrap();
    let same = running.reload(&line, variables(&[])).unwrap();
    assert!(same.changed.is_empty() && same.waiting.is_empty(), "{same:?}");
    let later = format!(
        "log.level = 'debug'\n[types]\nvote = {{ class = 'latest' }}\npoll = {{ class = 'normal' }}\n\
         [publisher]\nkeys = ['{KEY_HASH}']\n[viewer]\nheartbeat_ms = 2000\nlisten = '0.0.0.0:9'\n\
         insecure = true\n[shards]\ncount = 7\nhot_members = 9"
    );
    std::fs::write(file.path(), later).unwrap();
    let reloaded = running.reload(&line, variables(&[])).unwrap();
    let changed = ["viewer.insecure", "publisher.keys", "log.level", "types.poll", "types.vote"];
    assert_eq!(reloaded.changed, changed);
    // The flag stands over the file's count of shards before and after.
    assert_eq!(reloaded.waiting, ["viewer.listen", "viewer.heartbeat_ms", "shards.hot_members"]);
    let config = &reloaded.loaded.config;
    assert_eq!((config.viewer_listen, config.shards), (running.config.viewer_listen, 3));
    assert_eq!(config.heartbeat, limits::HEARTBEAT);
    assert_eq!(config.origins, Origins::Loopback, "by the address that the door has");
    assert_eq!(config.log.level, tracing::Level::DEBUG);
    let again = reloaded.loaded.reload(&line, variables(&[])).unwrap();
    std::fs::write(file.path(), "").unwrap();
    let emptied = reloaded.loaded.reload(&line, variables(&[])).unwrap_err();
    assert_eq!(
        told(&emptied),
        ["publisher.keys: would lose its last key; allowed: a key; only a restart opens a door"]
    );
    assert!(again.changed.is_empty(), "{again:?}");
    assert_eq!(again.waiting, reloaded.waiting, "a restart is still needed");
}

#[test]
fn no_mistake_of_a_file_hides_another_one_and_each_has_its_line() {
    let file = Scratch::holding(
        "wiever.listen = 'x'\n[viewer]\nlisten = 'nowhere'\nheartbeat_ms = 1\norigins = [\n'https://a.example',\n\
         'https://b.example/',\n]\n[publisher]\nkeys = ['secret']\n[auth]\n\
         device_keys = [{ alg = 'RS256', secrt = 'x', public_key = 'y' }]\n[flush]\ngather_ms = 0\n\
         [types]\npoll = { priority = 'highest', ttl_ms = 1 }\nvote = { class = 'countr', weight = 0 }\n",
    );
    let mistakes = Config::load(&args(&["config", "check", file.path()]), variables(&[])).unwrap_err();
    let found: Vec<(Option<usize>, &str)> =
        mistakes.0.iter().map(|mistake| (mistake.line, mistake.key.as_str())).collect();
    for wanted in [
        (Some(1), "wiever"),
        (Some(3), "viewer.listen"),
        (Some(4), "viewer.heartbeat_ms"),
        (Some(7), "viewer.origins[1]"),
        (Some(10), "publisher.keys[0]"),
        (Some(12), "auth.device_keys[0].secrt"),
        (Some(12), "auth.device_keys[0].alg"),
        (Some(12), "auth.device_keys[0]"),
        (Some(14), "flush.gather_ms"),
        (Some(16), "types.poll"),
        (Some(16), "types.poll.priority"),
        (Some(16), "types.poll.ttl_ms"),
        (Some(17), "types.vote.class"),
        (Some(17), "types.vote.weight"),
    ] {
        assert!(found.contains(&wanted), "{wanted:?} in {found:?}");
    }
    assert_eq!(found.len(), 14, "{found:?}");
    let text = mistakes.to_string();
    assert!(text.contains(&format!("{}:14: flush.gather_ms: 0 is not allowed", file.path())), "{text}");
}
