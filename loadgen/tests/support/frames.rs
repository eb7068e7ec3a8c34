//! The fake node's spelling: messages, welcomes, batches and pages, as JSON or as protobuf.

use prost::Message as _;
use roomcast_core::proto;
use serde_json::{Value, json};

/// The one life of every room's stream.
pub(crate) const EPOCH: &str = "000000000000000e";

/// One message, from its publish request to its frames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) type_name: String,
    /// Empty where the message is not reliable.
    pub(crate) id: String,
    /// 0 where the message is not reliable.
    pub(crate) offset: u64,
    pub(crate) key: String,
    pub(crate) count: u64,
    /// JSON text.
    pub(crate) payload: String,
}

impl Message {
    fn json(&self) -> Value {
        let payload: Value = serde_json::from_str(&self.payload).expect("JSON");
        let mut message = json!({"type": self.type_name, "payload": payload, "at": 1});
        if self.offset > 0 {
            message["offset"] = self.offset.into();
            message["id"] = self.id.clone().into();
        }
        if !self.key.is_empty() {
            message["key"] = self.key.clone().into();
        }
        if self.count != 1 {
            message["count"] = self.count.into();
        }
        message
    }

    fn proto(&self) -> proto::Message {
        proto::Message {
            r#type: self.type_name.clone(),
            payload: self.payload.clone().into_bytes().into(),
            json: true,
            id: self.id.clone(),
            offset: self.offset,
            key: self.key.clone(),
            // Absent means 1.
            count: if self.count == 1 { 0 } else { self.count },
            ..proto::Message::default()
        }
    }

    /// The messages of a publish request.
    pub(crate) fn all_of(body: &[u8], is_proto: bool) -> Vec<Self> {
        if is_proto {
            let request = proto::PublishRequest::decode(body).expect("a request");
            let read = |message: proto::PublishMessage| Self {
                type_name: message.r#type,
                id: message.id,
                offset: 0,
                key: message.key,
                count: message.count.unwrap_or(1),
                payload: String::from_utf8(message.payload.to_vec()).expect("JSON is text"),
            };
            return request.messages.into_iter().map(read).collect();
        }
        let request: Value = serde_json::from_slice(body).expect("a request");
        let messages = request["messages"].as_array().cloned().unwrap_or_else(|| vec![request]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let read = |message: &Value| Self {
            type_name: text(&message["type"]),
            id: text(&message["id"]),
            offset: 0,
            key: text(&message["key"]),
            count: message["count"].as_u64().unwrap_or(1),
            payload: message["payload"].to_string(),
        };
        messages.iter().map(read).collect()
    }
}

/// The stream's part of a frame. All zero: nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    pub(crate) after: u64,
    pub(crate) through: u64,
}

/// A room at the join of a device.
pub(crate) struct Welcome<'a> {
    pub(crate) room: &'a str,
    pub(crate) run: u64,
    pub(crate) seq: u64,
    /// Empty: the room knows no stream.
    pub(crate) epoch: &'a str,
    /// Empty: the cursor is as good as new.
    pub(crate) reset: &'a str,
    pub(crate) told: Told,
    pub(crate) reliable: Vec<&'a Message>,
}

impl Welcome<'_> {
    pub(crate) fn frame(&self, is_proto: bool) -> Vec<u8> {
        let Self { room, run, seq, epoch, reset, told, reliable } = self;
        let run = format!("{run:016x}");
        if is_proto {
            let welcome = proto::Welcome {
                room: (*room).to_owned(),
                run,
                seq: *seq,
                heartbeat_ms: 25_000,
                epoch: (*epoch).to_owned(),
                offset: told.through,
                reset: (*reset).to_owned(),
                after: told.after,
                through: told.through,
                ack_within_ms: 50,
                reliable: reliable.iter().map(|message| message.proto()).collect(),
                ..proto::Welcome::default()
            };
            return proto::ServerFrame { frame: Some(proto::server_frame::Frame::Welcome(welcome)) }
                .encode_to_vec();
        }
        let reset = if reset.is_empty() { Value::Null } else { (*reset).into() };
        let mut welcome = json!({"kind": "welcome", "room": room, "run": run, "seq": seq, "heartbeat_ms": 25_000,
            "reset": reset});
        if !epoch.is_empty() {
            welcome["epoch"] = (*epoch).into();
            welcome["offset"] = told.through.into();
            welcome["after"] = told.after.into();
            welcome["through"] = told.through.into();
            welcome["ack_within_ms"] = 50.into();
            welcome["reliable"] = reliable.iter().map(|message| message.json()).collect::<Vec<_>>().into();
        }
        welcome.to_string().into_bytes()
    }
}

/// The account of a batch, beside its messages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Account {
    /// Chat that was shed, or in batches that were passed over.
    pub(crate) skipped: u64,
    /// Gifts that were merged.
    pub(crate) merged: u64,
    /// The counter's growth and total.
    pub(crate) likes: Option<(u64, u64)>,
}

/// One batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) room: &'a str,
    pub(crate) run: u64,
    pub(crate) seq: u64,
    pub(crate) account: Account,
    pub(crate) told: Told,
    /// The messages were sent before.
    pub(crate) is_carried: bool,
}

impl Batch<'_> {
    pub(crate) fn frame(&self, messages: &[&Message], is_proto: bool) -> Vec<u8> {
        let Self { room, run, seq, account, told, is_carried } = *self;
        let run = format!("{run:016x}");
        if is_proto {
            let spelt: Vec<proto::Message> = messages.iter().map(|message| message.proto()).collect();
            let one =
                |name: &str, count: u64| (count > 0).then(|| (name.to_owned(), count)).into_iter().collect();
            let change = |(add, total)| ("like".to_owned(), proto::CounterChange { add, total });
            let batch = proto::Batch {
                room: room.to_owned(),
                run,
                seq,
                after: told.after,
                through: told.through,
                ack_within_ms: if told.through > 0 { 50 } else { 0 },
                skipped: one("chat", account.skipped),
                merged: one("gift", account.merged),
                counters: account.likes.map(change).into_iter().collect(),
                carried: if is_carried { spelt.clone() } else { Vec::new() },
                messages: if is_carried { Vec::new() } else { spelt },
                ..proto::Batch::default()
            };
            return proto::ServerFrame { frame: Some(proto::server_frame::Frame::Batch(batch)) }
                .encode_to_vec();
        }
        let spelt: Vec<Value> = messages.iter().map(|message| message.json()).collect();
        let field = if is_carried { "carried" } else { "messages" };
        let mut batch = json!({"kind": "batch", "room": room, "run": run, "seq": seq, field: spelt});
        if account.skipped > 0 {
            batch["skipped"] = json!({"chat": account.skipped});
        }
        if account.merged > 0 {
            batch["merged"] = json!({"gift": account.merged});
        }
        if let Some((add, total)) = account.likes {
            batch["counters"] = json!({"like": {"add": add, "total": total}});
        }
        if told.through > 0 {
            batch["after"] = told.after.into();
            batch["through"] = told.through.into();
            batch["ack_within_ms"] = 50.into();
        }
        batch.to_string().into_bytes()
    }
}

/// A page of a room's stream.
pub(crate) fn page(room: &str, head: u64, told: Told, messages: &[&Message]) -> String {
    let messages: Vec<Value> = messages.iter().map(|message| message.json()).collect();
    json!({"room": room, "epoch": EPOCH, "offset": head, "reset": null, "after": told.after,
           "through": told.through, "reliable": messages})
    .to_string()
}
