//! Tokens that end while their devices are connected.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use roomcast::auth::DeviceKeys;
use roomcast::config::Config;
use roomcast::config::args::Args;
use roomcast::seat::Seats;
use roomcast::shard::lane::{LaneBounds, mesh};
use roomcast::shard::{Plan, Shard};
use roomcast_core::limits::TOKEN_END_AGE_MAX;
use roomcast_core::now::Now;
use roomcast_core::room::id::Encoding;
use roomcast_core::room::pace::RoomRules;

use crate::socket::{Pipe, SimSocket};
use crate::world::name;

const SECRET: &str = "thirty-two bytes are what HS256 asks for";

/// A token that ends `seconds` after `now`, for these rooms.
fn token(now: Now, seconds: u64, rooms: &[&str]) -> String {
    let claims = serde_json::json!({"exp": now.unix_ms / 1000 + seconds, "rooms": rooms});
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

fn device_keys() -> DeviceKeys {
    let keys = format!("[{{ alg = 'HS256', secret = '{SECRET}' }}]");
    let environment = [("ROOMCAST__AUTH__DEVICE_KEYS".to_owned(), keys)];
    Config::load(&Args::default(), environment.into_iter()).unwrap().device_keys
}

/// A shard with one device, whose heartbeat is so slow that silence closes nothing.
struct Stage {
    shard: Shard<SimSocket>,
    now: Now,
    key: u64,
    pipe: Rc<RefCell<Pipe>>,
}

impl Stage {
    /// The device has a token of 100 s for `r` and `s`, and has asked for `r`.
    fn new() -> Self {
        let now = roomcast::clock::now();
        let plan = Plan::new(0, 1, RoomRules::default(), Duration::from_secs(36_000), 1);
        let plan = Plan { device_keys: device_keys(), ..plan };
        let mut shard = Shard::new(plan, mesh(1, LaneBounds::default()).remove(0), now.instant);
        let (socket, pipe) = SimSocket::new(usize::MAX);
        let seat = Seats::new(1).take().unwrap();
        let grant = device_keys().grant(Some(&token(now, 100, &["r", "s"])), now.unix_ms / 1000).unwrap();
        let key = shard.residents.connect(socket, Encoding::Json, grant, seat, now);
        shard.residents.join(key, &name("r"), None, None, now);
        let mut stage = Self { shard, now, key, pipe };
        stage.turn();
        stage
    }

    fn turn(&mut self) {
        while self.shard.turn(self.now) {}
    }

    /// Lets time pass, with a turn at each deadline.
    fn wait(&mut self, by: Duration) {
        let until = self.now.later(by);
        while self.now.instant < until.instant {
            let step = Duration::from_millis(500).min(until.instant - self.now.instant);
            self.now = self.now.later(step);
            self.turn();
        }
    }

    /// The device says a frame, and the text of all that it hears at once comes back.
    fn say(&mut self, text: &str) -> String {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        let mut bytes = if text.len() < 126 {
            vec![0x81, 0x80 | length[1], 0, 0, 0, 0]
        } else {
            vec![0x81, 0x80 | 126, length[0], length[1], 0, 0, 0, 0]
        };
        bytes.extend(text.as_bytes());
        self.pipe.borrow_mut().in_flight.clear();
        self.shard.residents.receive(self.key, &mut bytes, self.now);
        self.turn();
        self.heard()
    }

    fn say_token(&mut self, token: &str) -> String {
        self.say(&format!(r#"{{"kind":"token","token":"{token}"}}"#))
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.pipe.borrow().in_flight).into_owned()
    }

    fn is_closed(&self) -> bool {
        self.heard().contains("token_expired") && self.pipe.borrow().ended
    }
}

/// An expired token used to go on joining rooms, for as long as its connection lived.
#[test]
fn a_join_after_the_end_of_the_token_is_refused_and_the_device_is_closed() {
    let mut stage = Stage::new();
    stage.wait(Duration::from_secs(99));
    assert!(!stage.heard().contains("token_expired"));
    assert!(!stage.say(r#"{"kind":"join","room":"s"}"#).contains("error"), "a second before its end");
    stage.now = stage.now.later(Duration::from_millis(1100));
    let refused = stage.say(r#"{"kind":"join","room":"t"}"#);
    assert!(refused.contains(r#""code":"token_expired","room":"t""#), "{refused}");
    stage.pipe.borrow_mut().in_flight.clear();
    stage.wait(TOKEN_END_AGE_MAX + Duration::from_secs(1));
    assert!(stage.is_closed(), "{}", stage.heard());
}

#[test]
fn a_fresh_token_keeps_the_device_until_its_own_end() {
    let mut stage = Stage::new();
    stage.wait(Duration::from_secs(50));
    let fresh = token(stage.now, 300, &["r", "s", "t"]);
    let taken = stage.say_token(&fresh);
    let exp = stage.now.unix_ms / 1000 + 300;
    assert!(taken.contains(&format!(r#"{{"kind":"token","exp":{exp}}}"#)), "{taken}");
    stage.wait(Duration::from_secs(299));
    assert!(!stage.is_closed(), "the first token has ended long ago");
    let joined = stage.say(r#"{"kind":"join","room":"t"}"#);
    assert!(!joined.contains("error"), "a room of the fresh token: {joined}");
    assert!(stage.shard.residents.connection(stage.key).is_some(), "it is still there");
    stage.wait(Duration::from_secs(2) + TOKEN_END_AGE_MAX);
    assert!(stage.is_closed(), "{}", stage.heard());
}

#[test]
fn a_token_that_is_not_good_changes_nothing() {
    let mut stage = Stage::new();
    let ended = token(stage.now, 0, &["r"]);
    for (bad, code) in [
        ("a.b.c".to_owned(), "token_invalid"),
        (ended, "token_expired"),
        (token(stage.now, 300, &["s"]), "room_not_granted"),
    ] {
        let refused = stage.say_token(&bad);
        assert!(refused.contains(&format!(r#""code":"{code}""#)), "{refused}");
        assert!(refused.contains(r#""field":"token""#), "{refused}");
        stage.wait(Duration::from_secs(2));
    }
    stage.wait(Duration::from_secs(95) + TOKEN_END_AGE_MAX);
    assert!(stage.is_closed(), "at the end of the first token");
}

#[test]
fn a_device_that_floods_the_shard_with_tokens_is_closed() {
    let mut stage = Stage::new();
    let fresh = token(stage.now, 300, &["r"]);
    let heard: Vec<String> = (0..10).map(|_| stage.say_token(&fresh)).collect();
    assert!(heard[0].contains(r#""kind":"token""#), "{heard:?}");
    assert!(heard.iter().any(|frames| frames.contains("frame_flood")), "{heard:?}");
}
