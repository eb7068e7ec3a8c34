//! The client of JetStream: performs the operations of the slots' machines. It keeps no state of a slot.
//!
//! Appends and the reads of `Last` go to the leader of the stream. The leader alone knows the last message. Other
//! reads are answered by any replica, which may lag behind: a read is over when a message at or behind its end was
//! seen, and a missing message is asked for at the leader again.

use std::sync::Arc;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use roomcast_core::cluster::Slot;
use roomcast_core::limits::{
    LOG_APPEND_PATIENCE, LOG_OP_AGE_MAX, LOG_READ_BYTES_MAX, LOG_READ_MESSAGES_MAX, LOG_READ_PAUSE,
    LOG_READ_SILENCE_MAX, LOG_READ_STALLS_MAX, LOG_READS_MAX, LOG_STREAMS,
};

use super::ops::{LogEntry, LogHeard, LogOp, LogOpKind, OpId};

/// The expectation does not hold.
const WRONG_LAST_SEQUENCE: u64 = 10071;
/// The expectation may not hold: another append of the subject is under way.
const APPEND_UNDER_WAY: u64 = 10164;
/// The stream took nothing, by its own text.
const NOT_STORED: u64 = 10077;
/// The text beside [`NOT_STORED`] of a stream at its bound of bytes, which the leader judges before it asks the
/// other replicas. After any other refusal another replica may have stored the append.
const STREAM_FULL: &str = "maximum bytes exceeded";
/// No such message.
const NO_MESSAGE: u64 = 10037;

/// An answer to an operation, on its way to the slot's machine.
#[derive(Debug)]
pub(super) struct HeardOp {
    pub(super) slot: Slot,
    pub(super) id: OpId,
    pub(super) heard: LogHeard,
}

/// The way of an operation's answers to the log's thread.
struct Hearer {
    slot: Slot,
    id: OpId,
    to: Sender<HeardOp>,
}

impl Hearer {
    async fn tell(&self, heard: LogHeard) {
        let Self { slot, id, to } = self;
        // An error: the log's thread has ended.
        to.send(HeardOp { slot: *slot, id: *id, heard }).await.ok();
    }
}

/// The way to the logs of all slots. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LogClient {
    client: Client,
    /// `<name>.log`: a slot's number follows.
    subjects: Arc<str>,
    /// `<NAME>_LOG`: a stream's number follows.
    streams: Arc<str>,
    /// A place for each read under way.
    reads: Arc<Semaphore>,
}

/// The reason for an operation without a certain outcome, for operators.
type Unknown = String;

/// The answer of JetStream to an append.
#[derive(Debug, Deserialize)]
struct PubAck {
    #[serde(default)]
    seq: u64,
    error: Option<ApiError>,
}

/// A refusal of JetStream.
#[derive(Debug, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    pub(super) description: String,
}

/// A leader's answer with a message.
#[derive(Debug, Deserialize)]
struct MessageGot {
    message: Option<StoredMessage>,
    error: Option<ApiError>,
}

#[derive(Debug, Deserialize)]
struct StoredMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    data: String,
}

impl LogClient {
    /// A way to the logs of the cluster `name`.
    pub(super) fn new(client: Client, name: &str) -> Self {
        Self {
            client,
            subjects: format!("{name}.log").into(),
            streams: streams_of(name).into(),
            reads: Arc::new(Semaphore::new(LOG_READS_MAX)),
        }
    }

    /// Performs an operation and tells every part of its answer. Ends within `LOG_OP_AGE_MAX`, but for a long read
    /// that goes on.
    pub(super) async fn perform(self, op: LogOp, to: Sender<HeardOp>) {
        let LogOp { id, slot, kind } = op;
        let heard = Hearer { slot, id, to };
        // Queued before a lost connection, operations of the whole outage would be sent at its end.
        let connected = timeout(LOG_APPEND_PATIENCE, async {
            while self.client.connection_state() != State::Connected {
                sleep(LOG_READ_PAUSE).await;
            }
        });
        if connected.await.is_err() {
            return heard.tell(LogHeard::Unknown("no NATS server is connected".to_owned())).await;
        }
        let outcome = match kind {
            LogOpKind::Read { from, through } => self.read(slot, from, through, &heard).await,
            kind => timeout(LOG_OP_AGE_MAX, self.ask(slot, kind))
                .await
                .unwrap_or_else(|_| Err("JetStream does not answer".to_owned())),
        };
        heard.tell(outcome.unwrap_or_else(LogHeard::Unknown)).await;
    }

    /// Performs an operation with one answer.
    async fn ask(&self, slot: Slot, kind: LogOpKind) -> Result<LogHeard, Unknown> {
        match kind {
            LogOpKind::Append { expect, message_id, ttl, entry, .. } => {
                let mut headers = HeaderMap::new();
                if let Some(expect) = expect {
                    headers.insert("Nats-Expected-Last-Subject-Sequence", expect.to_string());
                }
                headers.insert("Nats-Msg-Id", message_id);
                // Whole seconds, the next one up: a message must not go before its time.
                headers.insert("Nats-TTL", format!("{}s", ttl.as_millis().div_ceil(1000).max(1)));
                self.append(slot, headers, entry).await
            }
            LogOpKind::Last => {
                let subject = self.subject(slot);
                let last = self.ask_leader(slot, &json!({ "last_by_subj": subject })).await?;
                Ok(LogHeard::Last(last))
            }
            LogOpKind::Get { sequences } => {
                let entries = self.get(slot, sequences).await?;
                Ok(LogHeard::Read { entries, done: true })
            }
            LogOpKind::Read { .. } => unreachable!("a read has many answers"),
        }
    }

    async fn append(&self, slot: Slot, headers: HeaderMap, entry: Bytes) -> Result<LogHeard, Unknown> {
        let request = Request::new().headers(headers).payload(entry).timeout(None);
        let answer = self.client.send_request(self.subject(slot), request).await;
        let answer = answer.map_err(|error| format!("an append is not answered: {error}"))?;
        appended(&answer.payload)
    }

    /// Reads from `from` up to `through`, and tells `heard` each part but the last one, which is returned.
    async fn read(&self, slot: Slot, from: u64, through: u64, heard: &Hearer) -> Result<LogHeard, Unknown> {
        let mut next = from;
        let mut stalls = 0;
        while stalls < LOG_READ_STALLS_MAX {
            let mut entries = self.next_entries(slot, next).await?;
            let Some(last) = entries.last().map(|entry| entry.sequence) else {
                stalls += 1;
                sleep(LOG_READ_PAUSE).await;
                continue;
            };
            stalls = 0;
            next = last + 1;
            entries.retain(|entry| entry.sequence <= through);
            if last >= through {
                return Ok(LogHeard::Read { entries, done: true });
            }
            heard.tell(LogHeard::Read { entries, done: false }).await;
        }
        Err(format!("no replica of {} has the message {through}", self.stream(slot)))
    }

    /// The next messages of the slot from a sequence on, as one replica has them. Messages lost on the way end the
    /// list before the first hole.
    async fn next_entries(&self, slot: Slot, from: u64) -> Result<Vec<LogEntry>, Unknown> {
        let _place = self.reads.acquire().await.expect("the places are never closed");
        let subject = self.subject(slot);
        let question = json!({
            "seq": from,
            "next_by_subj": subject,
            "batch": LOG_READ_MESSAGES_MAX,
            "max_bytes": LOG_READ_BYTES_MAX,
        });
        let inbox = self.client.new_inbox();
        let not_asked = |error: &dyn std::fmt::Display| format!("a read could not be asked for: {error}");
        let asked = async {
            let answers = self.client.subscribe(inbox.clone()).await.map_err(|error| not_asked(&error))?;
            let payload = question.to_string().into();
            let asking = self.client.publish_with_reply(self.direct(slot), inbox.clone(), payload);
            asking.await.map_err(|error| not_asked(&error))?;
            Ok(answers)
        };
        let mut answers =
            timeout(LOG_OP_AGE_MAX, asked).await.unwrap_or_else(|_| Err(not_asked(&"timed out")))?;
        let mut entries: Vec<LogEntry> = Vec::new();
        loop {
            // Silence: the answer's rest was lost with a server, and is asked for again.
            let Ok(Some(answer)) = timeout(LOG_READ_SILENCE_MAX, answers.next()).await else { break };
            match answer.status {
                None => {}
                Some(StatusCode::NO_RESPONDERS) => return Err("no replica answers a read".to_owned()),
                // The end of the answer (204), or nothing there (404).
                Some(_) => break,
            }
            let before = entries.last().map_or(0, |entry| entry.sequence);
            // Each message of an answer names the one before.
            if number(&answer, "Nats-Last-Sequence") != Some(before) {
                break;
            }
            match entry_of(&answer, &subject) {
                Some(entry) if entry.sequence > before => entries.push(entry),
                Some(_) | None => break,
            }
        }
        Ok(entries)
    }

    /// The messages at some sequences, without those that have expired.
    async fn get(&self, slot: Slot, sequences: Vec<u64>) -> Result<Vec<LogEntry>, Unknown> {
        let mut gets = JoinSet::new();
        for sequence in sequences {
            let client = self.clone();
            gets.spawn(async move { client.found_at(slot, sequence).await });
        }
        let mut entries = Vec::new();
        while let Some(got) = gets.join_next().await {
            entries.extend(got.map_err(|error| error.to_string())??);
        }
        entries.sort_unstable_by_key(|entry| entry.sequence);
        Ok(entries)
    }

    async fn found_at(&self, slot: Slot, sequence: u64) -> Result<Option<LogEntry>, Unknown> {
        let question = json!({ "seq": sequence });
        let answer = self.client.request(self.direct(slot), question.to_string().into()).await;
        let answer = answer.map_err(|error| format!("a message is not read: {error}"))?;
        match answer.status {
            None => Ok(entry_of(&answer, &self.subject(slot))),
            // Expired, or not yet at the replica.
            Some(StatusCode::NOT_FOUND) => self.ask_leader(slot, &question).await,
            Some(status) => Err(format!("a message is not read: {status}")),
        }
    }

    /// A message as the leader of the slot's stream has it. `None`: there is none.
    async fn ask_leader(
        &self,
        slot: Slot,
        question: &serde_json::Value,
    ) -> Result<Option<LogEntry>, Unknown> {
        let subject = format!("$JS.API.STREAM.MSG.GET.{}", self.stream(slot));
        let answer = self.client.request(subject, question.to_string().into()).await;
        let answer = answer.map_err(|error| format!("the leader does not answer: {error}"))?;
        got(&answer.payload, &self.subject(slot))
    }

    fn subject(&self, slot: Slot) -> String {
        format!("{}.{}", self.subjects, slot.0)
    }

    fn stream(&self, slot: Slot) -> String {
        format!("{}_{}", self.streams, slot.index() % LOG_STREAMS)
    }

    fn direct(&self, slot: Slot) -> String {
        format!("$JS.API.DIRECT.GET.{}", self.stream(slot))
    }
}

/// The first part of the streams' names in the cluster `name`.
pub(super) fn streams_of(name: &str) -> String {
    format!("{}_LOG", name.to_ascii_uppercase())
}

/// The meaning of an answer to an append.
fn appended(payload: &[u8]) -> Result<LogHeard, Unknown> {
    let ack: PubAck = serde_json::from_slice(payload)
        .map_err(|error| format!("an append's answer is unreadable: {error}"))?;
    match ack.error {
        None if ack.seq > 0 => Ok(LogHeard::Appended { sequence: ack.seq }),
        None => Err("an append's answer names no sequence".to_owned()),
        Some(ApiError { err_code: WRONG_LAST_SEQUENCE | APPEND_UNDER_WAY, .. }) => Ok(LogHeard::Refused),
        Some(ApiError { err_code: NOT_STORED, description }) if description == STREAM_FULL => {
            Ok(LogHeard::Full)
        }
        Some(ApiError { err_code, description }) => {
            Err(format!("an append failed: {description} ({err_code})"))
        }
    }
}

/// The meaning of a leader's answer.
fn got(payload: &[u8], subject: &str) -> Result<Option<LogEntry>, Unknown> {
    let got: MessageGot = serde_json::from_slice(payload)
        .map_err(|error| format!("a leader's answer is unreadable: {error}"))?;
    match got {
        MessageGot { error: Some(ApiError { err_code: NO_MESSAGE, .. }), .. } => Ok(None),
        MessageGot { error: Some(ApiError { err_code, description }), .. } => {
            Err(format!("the leader can't read: {description} ({err_code})"))
        }
        MessageGot { message: Some(message), .. } if message.subject == subject => {
            let entry = STANDARD.decode(&message.data);
            let entry = entry.map_err(|error| format!("a leader's answer is unreadable: {error}"))?;
            Ok(Some(LogEntry { sequence: message.seq, entry: entry.into() }))
        }
        // Another slot's message: the one that was asked for is gone.
        MessageGot { message: Some(_), .. } => Ok(None),
        MessageGot { message: None, .. } => Err("a leader's answer has no message".to_owned()),
    }
}

/// The message of a replica's answer. `None`: it is not of the slot.
fn entry_of(answer: &Message, subject: &str) -> Option<LogEntry> {
    let headers = answer.headers.as_ref()?;
    let is_of_slot = headers.get("Nats-Subject").is_some_and(|named| named.as_str() == subject);
    let sequence = number(answer, "Nats-Sequence").filter(|_| is_of_slot)?;
    Some(LogEntry { sequence, entry: answer.payload.clone() })
}

/// The number in a header.
fn number(answer: &Message, header: &str) -> Option<u64> {
    answer.headers.as_ref()?.get(header)?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_appends_are_told_apart_by_their_codes() {
        let heard = |text: &str| appended(text.as_bytes());
        let refused = |code, text| {
            heard(&format!(r#"{{"error":{{"code":400,"err_code":{code},"description":"{text}"}}}}"#))
        };
        assert_eq!(heard(r#"{"stream":"RC_LOG_1","seq":7}"#), Ok(LogHeard::Appended { sequence: 7 }));
        let repeated = heard(r#"{"stream":"RC_LOG_1","seq":7,"duplicate":true}"#);
        assert_eq!(repeated, Ok(LogHeard::Appended { sequence: 7 }));
        assert_eq!(refused(10071, "wrong last sequence: 5"), Ok(LogHeard::Refused));
        assert_eq!(refused(10164, "wrong last sequence"), Ok(LogHeard::Refused));
        assert_eq!(refused(10077, "maximum bytes exceeded"), Ok(LogHeard::Full));
        assert!(refused(10077, "no space left on device").is_err(), "another replica may have stored it");
        assert!(refused(10023, "insufficient resources").is_err(), "likewise");
        assert!(refused(10008, "system unavailable").is_err());
        for unreadable in ["", "{}", "null", "[]", r#"{"seq":-1}"#, "\u{0}"] {
            assert!(heard(unreadable).is_err(), "{unreadable}");
        }
    }

    #[test]
    fn a_leader_s_answer_is_a_message_of_the_slot_or_none() {
        let asked = |text: &str| got(text.as_bytes(), "rc.log.5");
        let entry = LogEntry { sequence: 9, entry: Bytes::from_static(b"abc") };
        let message =
            |subject| format!(r#"{{"message":{{"subject":"{subject}","seq":9,"data":"YWJj","time":"x"}}}}"#);
        assert_eq!(asked(&message("rc.log.5")), Ok(Some(entry)));
        assert_eq!(asked(&message("rc.log.13")), Ok(None));
        assert_eq!(
            asked(r#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#),
            Ok(None)
        );
        assert!(asked(r#"{"error":{"code":503,"err_code":10008,"description":"unavailable"}}"#).is_err());
        assert!(asked(r#"{"message":{"subject":"rc.log.5","seq":9,"data":"*"}}"#).is_err());
        assert!(asked("{}").is_err());
    }
}
