//! roomcast: the broadcast engine for live rooms.
//!
//! A streaming backend publishes messages to a room over HTTP; every device in the room gets them over one WebSocket, in
//! one order. This page is the tour: one picture, the words, and what is where.
//!
//! ```text
//!  POST /v1/rooms/{room}/messages                                            publisher door
//!   └ http            parse, check, look the type up → Message{type, class, key, payload}
//!      └ home shard     the one shard that orders this room; bounded inbox, full → 503
//!         ├ reliable?     an offset in the room's stream → store: one thread, one sync for all that waits → durable
//!         └ Room          gather · merge by key · sum counters; reliable messages take their place once they are durable
//!            └ flush        the oldest message has waited long enough, or a batch is full, or it is urgent
//!               └ Batch       encoded once per encoding, WebSocket header and all: one `Bytes`
//!                  └ frame lane  every shard that holds members of the room gets the same bytes
//!                     └ Segment    the room's members on that shard, one pass: try_write(frame) for each
//!                        └ Outbox    what a socket did not take is owed: references, no copies
//! ```
//!
//! A member that takes too little is *behind*: batches are skipped for it, and when it has drained, one refresh frame
//! tells it exactly what it missed. So a slow device costs pointers, and costs the others nothing.
//!
//! A member acknowledges reliable messages to its own segment. One that does not is *carried* them again, from the tail that the
//! room keeps, or from the store; one that lacks more than a frame holds is *catching up*. A room whose members are all
//! level pays nothing for either. A device that comes back with its *cursor* gets what is behind it and alive, whatever has
//! happened to the node meanwhile.
//!
//! A room with more members than one shard should write to is *hot*: devices that join it from then on are scattered, placed on
//! further shards, the least loaded first. Its home still orders and encodes once; each shard writes to its own segment. Passes are metered:
//! a room's window widens so that they keep to their share of a shard, and comes back down.
//!
//! What does not fit leaves by priority, reliable messages first; what people could not read is sampled; and a shard with more
//! before it than it gets done goes up a ladder, leaving out the least important first. Publishers, devices and metrics are told of each
//! message that was merged or shed.
//!
//! # What is where
//!
//! Pure modules hold no task, socket, clock, lock or random number; they are driven with `now` passed in.
//!
//! - [`room`] (pure): one room's order and everything that follows from it: buffer, pace, counters, latest values,
//!   history, accounts, the reliable stream and its receipts. One way in, [`Room::handle`](room::Room::handle); one way out,
//!   [`Room::poll_output`](room::Room::poll_output).
//! - [`wire`] (pure): how things are spelt: frames to devices, frames from devices, publish requests, and the one table of
//!   close reasons.
//! - [`fanout`] (pure): a room's members on one shard and the pass that writes to them; when they are carried what they have
//!   not acknowledged; the outbox of a connection.
//! - [`store`]: where reliable messages are kept until they expire: the promises, the file, the thread that owns it.
//! - [`shard`]: one thread that owns rooms, segments and connections, and takes bounded turns between them; the lanes
//!   between shards; the bounded way in for the doors.
//! - [`connection`]: devices on their way in (accept, handshake) and placed on a shard.
//! - [`http`]: the three doors: publishers, viewers, operators.
//! - [`auth`] (pure): who may: publishers by key, devices by token, pages by origin.
//! - [`config`]: what was typed, what it means, and [`config::limits`]: every bound with what happens past it.
//! - [`metrics`]: what operators see, each metric defined once.
//! - [`clock`]: the only reader of the clock.
//! - [`server`]: assembles the parts, and owns the order in which they stop.
//!
//! # The words
//!
//! One word, one meaning, in code, protocol, metrics and logs.
//!
//! | word | means |
//! |---|---|
//! | room | what one member hears, all hear, in one order |
//! | message · payload | one thing published to a room · the publisher's bytes; the engine never looks inside |
//! | type · class | the publisher's name for a kind of message · what the engine promises for it: reliable, normal, latest, counter, lossy |
//! | publisher | who posts over HTTP |
//! | device · connection · member | the program at the other end · one WebSocket · one connection's place in one room |
//! | shard · home | one thread, owner of its rooms, segments and connections · the shard that orders a room |
//! | segment · pass | one room's members on one shard · one walk over them, writing |
//! | lane | a bounded FIFO between two shards |
//! | scatter | placing a hot room's members on several shards |
//! | gather · merge | waiting in the buffer for company · a later message takes the place of a waiting one with the same key |
//! | flush · batch · body | a room's buffer giving up a batch · the messages of one cut, in room order · their encoding, without a header |
//! | remainder | what a cut left behind |
//! | frame | bytes on the wire, header and all, immutable, shared; *level* for members that need nothing more, *composed* for others |
//! | encoding | how a frame is spelt: `json`, `proto` |
//! | outbox | what one connection is owed and has not taken |
//! | waiting · behind | outbox not empty · full or too old, so batches are skipped |
//! | refresh | the frame that brings a member which was behind up to date |
//! | offset · epoch · cursor | place in the reliable stream · one life of it · `epoch:offset` a device has applied |
//! | durable | synced by the store, and so may be broadcast |
//! | carry | putting unacknowledged reliable messages into a later frame |
//! | level · catching up | holds everything sent so far, fed by the segment · fed from tail and store until it does |
//! | recall | the publisher takes a reliable message back |
//! | seq · run | number of a batch · one life of the room in memory |
//! | shed | dropped on purpose under pressure, with a reason |
//! | ladder · step | what a shard leaves out while it has too much before it, the least important first · how far it goes |
//! | drain | stopping gracefully: refuse, flush, say goodbye, sync |

pub mod auth;
pub mod clock;
pub mod config;
pub mod connection;
pub mod fanout;
pub mod http;
pub mod metrics;
pub mod room;
pub mod server;
pub mod shard;
pub mod store;
pub mod wire;
