//! The proof that an acknowledged message is on a disk: every server of the streams syncs before it acknowledges.
//!
//! By default JetStream acknowledges first and syncs up to two minutes later, so a power failure loses messages
//! that publishers count on. Only the system account tells the setting of a server. Pure but for [`ask`]: a server
//! that is down can't answer, so a proof is given by more than half of the servers, and by none against it.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::Client;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::timeout;

use crate::nats::Login;
use roomcast_core::limits::{PROOF_AGE_MAX, PROOF_ANSWERS_MAX};

/// The question to all servers: `/jsz` of each.
const QUESTION: &str = "$SYS.REQ.SERVER.PING.JSZ";

/// The reason for messages that may be lost, for operators: the sentence says what to set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Servers that acknowledge before their sync.
    #[error(
        "{} acknowledges messages before its disk has them: set sync_interval: always in the section jetstream of \
         the server's configuration and restart it, or set cluster.allow_unsynced",
        .0.join(", ")
    )]
    Unsynced(Vec<String>),
    /// The system account can't be asked.
    #[error(
        "the NATS servers can't be asked if they sync before they acknowledge ({0}): give the system account a user, \
         name the user's file in cluster.system_credentials, or set cluster.allow_unsynced"
    )]
    NotAsked(String),
    /// Too few servers answer.
    #[error("of the NATS servers with the streams, {} did not say if they sync before they acknowledge", .0.join(", "))]
    Silent(Vec<String>),
}

/// A proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proven {
    /// Servers that did not answer. They are to be asked again soon.
    pub(super) silent: Vec<String>,
}

/// One server's answer.
#[derive(Debug, Deserialize)]
struct ServerAnswer {
    server: ServerNamed,
    data: Option<JetStreamSaid>,
}

#[derive(Debug, Deserialize)]
struct ServerNamed {
    name: String,
}

#[derive(Debug, Deserialize)]
struct JetStreamSaid {
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    config: SyncSaid,
}

#[derive(Debug, Default, Deserialize)]
struct SyncSaid {
    /// Left out by servers that do not.
    #[serde(default)]
    sync_always: bool,
}

/// Asks the servers in `holders` if they sync, over a connection of its own.
pub(super) async fn ask(login: &Login, holders: &BTreeSet<String>) -> Result<Proven, Unproven> {
    let client = login.connect_to_system().await.map_err(|error| Unproven::NotAsked(error.to_string()))?;
    let answers = answers(&client, holders).await;
    // Closed after use: an idle connection to the system account would be one more to be guarded.
    client.drain().await.ok();
    judge(&answers.map_err(Unproven::NotAsked)?, holders)
}

/// Server -> the server syncs before it acknowledges.
async fn answers(client: &Client, holders: &BTreeSet<String>) -> Result<BTreeMap<String, bool>, String> {
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
    let asked = client.publish_with_reply(QUESTION, inbox, "{}".into()).await;
    asked.map_err(|error| error.to_string())?;
    let mut answers = BTreeMap::new();
    let all = async {
        for _ in 0..PROOF_ANSWERS_MAX {
            let Some(reply) = replies.next().await else { return };
            // No server of a plain account hears the question.
            if reply.status.is_some() {
                return;
            }
            if let Ok(answer) = serde_json::from_slice::<ServerAnswer>(&reply.payload)
                && let Some(said) = answer.data.filter(|said| !said.disabled)
            {
                answers.insert(answer.server.name, said.config.sync_always);
            }
            if holders.iter().all(|holder| answers.contains_key(holder)) {
                return;
            }
        }
    };
    // Late servers count as silent.
    timeout(PROOF_AGE_MAX, all).await.ok();
    Ok(answers)
}

/// The verdict over the answers.
fn judge(answers: &BTreeMap<String, bool>, holders: &BTreeSet<String>) -> Result<Proven, Unproven> {
    if answers.is_empty() {
        return Err(Unproven::NotAsked("no server answers this user".to_owned()));
    }
    let named = |is_so: &dyn Fn(Option<&bool>) -> bool| -> Vec<String> {
        holders.iter().filter(|holder| is_so(answers.get(*holder))).cloned().collect()
    };
    let unsynced = named(&|said| said == Some(&false));
    if !unsynced.is_empty() {
        return Err(Unproven::Unsynced(unsynced));
    }
    let silent = named(&|said| said.is_none());
    // The streams take appends while more than half of their servers live, and so many have to be proven.
    if silent.len() * 2 >= holders.len() {
        return Err(Unproven::Silent(silent));
    }
    Ok(Proven { silent })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(answers: &[(&str, bool)], holders: &[&str]) -> Result<Vec<String>, Unproven> {
        let answers = answers.iter().map(|(name, syncs)| ((*name).to_owned(), *syncs)).collect();
        let holders = holders.iter().map(|name| (*name).to_owned()).collect();
        judge(&answers, &holders).map(|proven| proven.silent)
    }

    #[test]
    fn one_server_that_does_not_sync_is_enough_against_a_proof() {
        let all = ["a", "b", "c"];
        assert_eq!(judged(&[("a", true), ("b", true), ("c", true)], &all), Ok(vec![]));
        let unsynced = Err(Unproven::Unsynced(vec!["b".to_owned()]));
        assert_eq!(judged(&[("a", true), ("b", false), ("c", true)], &all), unsynced);
        assert_eq!(judged(&[("b", false)], &all), unsynced);
        assert_eq!(judged(&[("a", true), ("z", false)], &["a"]), Ok(vec![]), "z has no copy");
    }

    #[test]
    fn a_proof_takes_more_than_half_of_the_servers() {
        let silent = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = ["a", "b", "c"];
        assert_eq!(judged(&[("a", true), ("c", true)], &all), Ok(silent(&["b"])));
        assert_eq!(judged(&[("a", true)], &all), Err(Unproven::Silent(silent(&["b", "c"]))));
        assert_eq!(judged(&[("z", true)], &["a"]), Err(Unproven::Silent(silent(&["a"]))));
        assert!(matches!(judged(&[], &all), Err(Unproven::NotAsked(_))));
    }

    #[test]
    fn an_answer_without_the_setting_does_not_sync() {
        let said = |text: &str| serde_json::from_str::<ServerAnswer>(text).unwrap().data.unwrap().config;
        let answer = |config: &str| format!(r#"{{"server":{{"name":"n1"}},"data":{{"config":{config}}}}}"#);
        assert!(said(&answer(r#"{"sync_always":true,"max_memory":1}"#)).sync_always);
        assert!(!said(&answer(r#"{"sync_interval":120000000000}"#)).sync_always);
        assert!(!said(r#"{"server":{"name":"n1"},"data":{}}"#).sync_always);
    }
}
