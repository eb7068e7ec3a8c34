//! The section `[cluster]`.

use std::time::Duration;

use super::{Scratch, args, file_mistakes, load, variables};
use roomcast::config::{Config, print};

#[test]
fn without_nats_servers_there_is_no_cluster() {
    assert_eq!(load("", &[], &[]).unwrap().cluster, None);
    assert_eq!(load("[cluster]\nnode = 'n1'", &[], &[]).unwrap().cluster, None);
    assert_eq!(file_mistakes("cluster.replicas = 6").len(), 1, "a mistake all the same");
}

#[test]
fn a_cluster_on_loopback_needs_the_servers_alone() {
    let config = load("cluster.nats = ['nats://127.0.0.1:4222', 'nats://localhost:4223']", &[], &[]).unwrap();
    assert_eq!(config.data_dir, None, "the store is JetStream");
    let cluster = config.cluster.unwrap();
    assert!(cluster.is_local());
    assert_eq!(cluster.servers, ["nats://127.0.0.1:4222", "nats://localhost:4223"]);
    assert_eq!((&*cluster.name, cluster.replicas, cluster.dead_after), ("rc", 3, Duration::from_secs(3)));
    assert!(!cluster.node.is_empty(), "the host's name");
    assert!(cluster.node.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-_".contains(&letter)));
}

#[test]
fn servers_off_loopback_need_credentials_and_tls_or_insecure() {
    let bare = file_mistakes("cluster.nats = ['nats://10.0.0.7:4222']");
    assert_eq!(bare.len(), 2, "{bare:?}");
    assert!(bare[0].contains("nats://10.0.0.7:4222 is not loopback, and has no TLS"), "{bare:?}");
    assert!(bare[1].contains("needs credentials off loopback"), "{bare:?}");
    assert_eq!(file_mistakes("cluster.nats = ['tls://nats-1:4222']").len(), 1);
    let credentials = Scratch::holding("a seed");
    let guarded =
        format!("cluster.nats = ['tls://nats-1:4222']\ncluster.credentials = '{}'", credentials.path());
    assert!(load(&guarded, &[], &[]).is_ok());
    assert!(load("cluster.nats = ['nats://nats-1']", &[], &["--insecure-nats"]).is_ok());
    assert!(load("[cluster]\nnats = ['nats://nats-1']\ninsecure = true", &[], &[]).is_ok());
}

#[test]
fn another_store_beside_a_cluster_is_a_mistake() {
    let typed = [("ROOMCAST__CLUSTER__NATS", "['nats://127.0.0.1']")];
    for file in ["store.data_dir = 'rooms'", "store.ephemeral = true"] {
        let both = load(file, &typed, &[]).unwrap_err();
        assert_eq!(both.0.len(), 1, "{both:?}");
        assert!(both.0[0].wrong.contains("with which JetStream is the store"), "{both:?}");
    }
    assert_eq!(load("", &typed, &["--ephemeral"]).unwrap_err().0.len(), 1);
    assert!(load("store.ephemeral = false", &typed, &[]).is_ok());
}

#[test]
fn no_mistake_quotes_a_password_in_a_url() {
    let mistakes = file_mistakes("cluster.nats = ['nats://me:canary@127.0.0.1:4222']");
    assert_eq!(mistakes.len(), 1);
    assert!(
        mistakes[0].contains("without user and password") && !mistakes[0].contains("canary"),
        "{mistakes:?}"
    );
}

#[test]
fn wrong_values_say_what_is_allowed() {
    for (file, told) in [
        ("cluster.nats = 'nats://127.0.0.1'", "cluster.nats: \"nats://127.0.0.1\" is not allowed"),
        ("cluster.nats = ['http://127.0.0.1']", "cluster.nats[0]: is no such URL"),
        ("cluster.name = 'a.b'", "cluster.name: \"a.b\" is not allowed; allowed: at most 32 small letters"),
        ("cluster.name = ''", "cluster.name: \"\" is not allowed; allowed: at least one letter"),
        ("cluster.node = 'n 1'", "cluster.node: \"n 1\" is not allowed"),
        ("cluster.region = '*'", "cluster.region: \"*\" is not allowed"),
        ("cluster.viewer_url = 'http://x'", "cluster.viewer_url: \"http://x\" is not allowed"),
        ("cluster.credentials = '/nowhere'", "cluster.credentials: \"/nowhere\" is no file"),
        (
            "cluster.replicas = 0",
            "cluster.replicas: 0 is not allowed; allowed: a whole number, 1 to 5 copies",
        ),
        ("cluster.dead_after_ms = 999", "cluster.dead_after_ms: 999 is not allowed"),
        ("cluster.allow_unsynced = 1", "cluster.allow_unsynced: 1 is not allowed"),
    ] {
        let mistakes = file_mistakes(file);
        assert_eq!(mistakes.len(), 1, "{file}: {mistakes:?}");
        assert!(mistakes[0].contains(told), "{file}: {mistakes:?}");
    }
}

#[test]
fn a_printed_cluster_means_the_same() {
    let typed = [("ROOMCAST__CLUSTER__NATS", "['nats://127.0.0.1:4222']"), ("ROOMCAST__CLUSTER__NODE", "n1")];
    let printed = print(&args(&["config", "print"]), variables(&typed)).unwrap();
    let before = Config::load(&args(&[]), variables(&typed)).unwrap();
    let after = load(&printed, &[], &[]).unwrap();
    assert_eq!(before.cluster, after.cluster);
    assert_eq!(after.data_dir, None);
}
