//! Publish requests as bytes. Pure.

use std::io::Write as _;

use prost::Message as _;
use roomcast_core::proto;

use crate::scenario::mix::{Class, Load, ReliableTypes, type_seed};
use crate::scenario::payload::{Payloads, reliable_seed};
use crate::scenario::plan::{Plan, room_name};
use crate::scenario::schedule::Schedule;
use crate::wire::doors::Door;
use crate::wire::frame::Encoding;
use crate::wire::http::authorization;

/// The messages of a publisher.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Traffic {
    /// Type, counts and keys. Reliable messages have an `id`, which makes another attempt safe.
    pub(crate) load: Load,
    /// Life of reliable messages in ms; `None`: as the type says.
    pub(crate) ttl_ms: Option<u64>,
    /// Attempts at a request. After the last, the messages stay unknown.
    pub(crate) attempts_max: u32,
    /// Types of reliable messages; `None`: the load's type for all.
    pub(crate) reliable_types: Option<ReliableTypes>,
}

impl Traffic {
    fn type_name(&self, number: u64) -> &str {
        self.reliable_types.as_ref().map_or(&self.load.type_name, |types| types.of(number))
    }
}

/// Writes the requests of a run.
#[derive(Debug)]
pub(crate) struct Requests {
    encoding: Encoding,
    traffic: Traffic,
    payloads: Payloads,
    /// The head of each room's requests up to the length of the body, for the doors one after the other.
    heads: Vec<Vec<u8>>,
    rooms: usize,
    body: Vec<u8>,
}

impl Requests {
    pub(crate) fn new(plan: &Plan, traffic: Traffic) -> Self {
        let Plan { target, encoding, seed, .. } = plan;
        let bearer = authorization(target.publisher_key.as_deref());
        let content_type = encoding.content_type();
        let head = |(door, room): (&Door, u32)| {
            let host = &door.authority;
            let room = room_name(&target.room_stem, room);
            format!(
                "POST /v1/rooms/{room}/messages HTTP/1.1\r\nHost: {host}\r\n{bearer}Content-Type: {content_type}\r\n\
                 Accept: {content_type}\r\nContent-Length: "
            )
            .into_bytes()
        };
        let seed = match traffic.load.class {
            Class::Reliable => reliable_seed(*seed),
            _ => type_seed(*seed, &traffic.load.type_name),
        };
        let payloads = Payloads::new(traffic.load.length, seed);
        let doors = target.publisher_doors.iter();
        let heads = doors.flat_map(|door| (0..plan.rooms).map(move |room| (door, room))).map(head).collect();
        Self { encoding: *encoding, traffic, payloads, heads, rooms: plan.rooms as usize, body: Vec::new() }
    }

    fn id(&self, number: u64) -> Option<String> {
        (self.traffic.load.class == Class::Reliable).then(|| self.payloads.id(number))
    }

    /// Appends `request` for the door at place `door` to `out`.
    pub(crate) fn write(&mut self, schedule: &Schedule, request: u64, door: usize, out: &mut Vec<u8>) {
        self.body.clear();
        match self.encoding {
            Encoding::Json => self.write_json(schedule, request),
            Encoding::Proto => self.write_proto(schedule, request),
        }
        out.extend_from_slice(&self.heads[door * self.rooms + schedule.room_of_request(request) as usize]);
        write!(out, "{}\r\n\r\n", self.body.len()).expect("writing to memory can't fail");
        out.extend_from_slice(&self.body);
    }

    fn write_json(&mut self, schedule: &Schedule, request: u64) {
        let numbers = schedule.numbers_of(request);
        let first = numbers.start;
        let many = schedule.messages_per_request > 1;
        if many {
            self.body.extend_from_slice(b"{\"messages\":[");
        }
        for number in numbers {
            if number > first {
                self.body.push(b',');
            }
            let load = &self.traffic.load;
            let type_name = self.traffic.type_name(number);
            write!(self.body, "{{\"type\":\"{type_name}\"").expect("writing to memory can't fail");
            if let Some(id) = self.id(number) {
                write!(self.body, ",\"id\":\"{id}\"").expect("writing to memory can't fail");
            }
            if let Some(key) = load.key(number) {
                write!(self.body, ",\"key\":\"{key}\"").expect("writing to memory can't fail");
            }
            if let Some(count) = load.count {
                write!(self.body, ",\"count\":{count}").expect("writing to memory can't fail");
            }
            if let Some(ttl_ms) = self.traffic.ttl_ms {
                write!(self.body, ",\"ttl_ms\":{ttl_ms}").expect("writing to memory can't fail");
            }
            // Only counters go without a payload (docs/protocol.md, publishing).
            if !load.is_counter() {
                self.body.extend_from_slice(b",\"payload\":");
                self.payloads.write(schedule, number, &mut self.body);
            }
            self.body.push(b'}');
        }
        if many {
            self.body.extend_from_slice(b"]}");
        }
    }

    fn write_proto(&mut self, schedule: &Schedule, request: u64) {
        let messages = schedule.numbers_of(request).map(|number| {
            let load = &self.traffic.load;
            let mut payload = Vec::new();
            if !load.is_counter() {
                self.payloads.write(schedule, number, &mut payload);
            }
            proto::PublishMessage {
                r#type: self.traffic.type_name(number).to_owned(),
                json: !payload.is_empty(),
                payload: payload.into(),
                id: self.id(number).unwrap_or_default(),
                key: load.key(number).unwrap_or_default(),
                count: load.count.map(u64::from),
                ttl_ms: self.traffic.ttl_ms,
            }
        });
        let request = proto::PublishRequest { messages: messages.collect() };
        request.encode(&mut self.body).expect("a Vec grows");
    }
}
