//! Publish requests: taken messages, refusals with code and path, and both encodings compared.

use std::time::Duration;

use super::*;
use crate::limits::{KEY_BYTES_MAX, TTL_DEFAULT, WAIT_DEFAULT};
use crate::room::message::{ShedReason, Unavailable};
use crate::room::policy::Merge;

fn types() -> Types {
    let gift = TypePolicy { merge: Merge::Sum, ..TypePolicy::of(Class::Normal) };
    Types::new(
        [
            ("coupon", TypePolicy::of(Class::Reliable)),
            ("gift", gift),
            ("chat", TypePolicy::of(Class::Normal)),
            ("like", TypePolicy::of(Class::Counter)),
            ("price", TypePolicy::of(Class::Latest)),
            ("enter", TypePolicy::of(Class::Lossy)),
        ]
        .map(|(name, policy)| (TypeName::parse(name).unwrap(), policy)),
    )
}

fn taken(body: &str) -> Vec<Message> {
    parse_json(body.as_bytes(), &types()).unwrap()
}

/// Status, code and field of a refusal.
fn refused(body: impl AsRef<[u8]>) -> String {
    let error = parse_json(body.as_ref(), &types()).unwrap_err();
    assert!(!error.allowed.is_empty());
    format!("{} {} {}", error.status, error.code, error.field.as_deref().unwrap_or("-"))
}

fn proto_refused(messages: Vec<proto::PublishMessage>) -> String {
    let body = proto::PublishRequest { messages }.encode_to_vec();
    let error = parse_proto(&body, &types()).unwrap_err();
    format!("{} {} {}", error.status, error.code, error.field.as_deref().unwrap_or("-"))
}

fn text(message: &Message) -> &str {
    str::from_utf8(message.payload.bytes()).unwrap()
}

#[test]
fn a_single_message_and_a_list_are_taken_as_they_stand() {
    let one = &taken(r#" {"payload": { "a" : [1, 2] } , "id":"i\u0031","type":"chat","key":"k"} "#)[0];
    assert_eq!(text(one), r#"{ "a" : [1, 2] }"#, "the payload's own whitespace stays");
    assert!(matches!(one.payload, Payload::Json(_)));
    assert_eq!((one.id.as_ref().unwrap().as_str(), one.key.as_ref().unwrap().as_str()), ("i1", "k"));
    assert_eq!((one.class(), one.count, one.at_ms), (Class::Normal, 1, 0));

    let list = taken(r#"{"messages":[{"type":"chat","payload":null},{"type":"like","count":3,"id":null}]}"#);
    assert_eq!(text(&list[0]), "null");
    assert_eq!((list[1].count, list[1].payload.clone()), (3, Payload::Opaque(Bytes::new())));
}

#[test]
fn a_type_gives_its_class_and_one_that_is_not_configured_is_normal() {
    let list = taken(
        r#"{"messages":[{"type":"poll","payload":1},{"type":"poll","payload":2},{"type":"price","payload":3}]}"#,
    );
    assert_eq!(list[0].class(), Class::Normal);
    assert!(std::ptr::eq(list[0].type_name.as_str(), list[1].type_name.as_str()), "one name for both");
    assert_eq!(list[2].key.as_ref().unwrap().as_str(), "price", "latest without a key has its type as key");
}

#[test]
fn a_reliable_message_lives_as_long_as_its_publisher_or_else_its_type_says() {
    let list = taken(
        r#"{"messages":[{"type":"coupon","payload":1},{"type":"coupon","payload":1,"ttl_ms":1000},
            {"type":"coupon","payload":1,"ttl_ms":604800000},{"type":"chat","payload":1,"ttl_ms":null}]}"#,
    );
    let lives: Vec<Duration> = list.iter().map(|message| message.ttl).collect();
    assert_eq!(lives, [TTL_DEFAULT, TTL_MIN, TTL_MAX, WAIT_DEFAULT]);
    assert_eq!((list[0].class(), list[0].policy.urgent, list[0].offset), (Class::Reliable, true, 0));
}

#[test]
fn a_normal_or_lossy_message_waits_as_long_as_its_publisher_or_else_its_type_says() {
    for name in ["chat", "gift", "enter", "never_configured"] {
        let list = taken(&format!(
            r#"{{"messages":[{{"type":"{name}","payload":1}},{{"type":"{name}","payload":1,"ttl_ms":1500}}]}}"#
        ));
        let waits: Vec<Duration> = list.iter().map(|message| message.ttl).collect();
        assert_eq!(waits, [WAIT_DEFAULT, Duration::from_millis(1500)], "{name}");
    }
}

#[test]
fn a_count_is_taken_where_counts_are_summed_and_nowhere_else() {
    for type_name in ["like", "gift"] {
        for count in [1, 12, COUNT_MAX] {
            let one = &taken(&format!(r#"{{"type":"{type_name}","payload":1,"count":{count}}}"#))[0];
            assert_eq!(one.count, count, "{type_name}");
        }
        for count in ["0", "1000000001", "-1", "1.5", "99999999999999999999", "\"1\"", "true"] {
            let body = format!(r#"{{"messages":[{{"type":"{type_name}","payload":1,"count":{count}}}]}}"#);
            assert_eq!(refused(body), "400 bad_value messages[0].count", "{type_name} {count}");
        }
    }
    assert_eq!(taken(r#"{"type":"gift","payload":1}"#)[0].count, 1);
    for type_name in ["chat", "coupon", "price", "enter", "never_configured"] {
        let body = format!(r#"{{"type":"{type_name}","payload":1,"count":1}}"#);
        assert_eq!(refused(body), "400 bad_value count", "{type_name}");
    }
    let counted = |count| proto::PublishMessage {
        r#type: "gift".into(),
        payload: "1".into(),
        count: Some(count),
        ..Default::default()
    };
    for count in [0, COUNT_MAX + 1, u64::MAX] {
        assert_eq!(proto_refused(vec![counted(1), counted(count)]), "400 bad_value messages[1].count");
    }
}

#[test]
fn a_key_has_its_length() {
    let keyed = |bytes: usize| format!(r#"{{"type":"gift","payload":1,"key":"{}"}}"#, "k".repeat(bytes));
    assert_eq!(taken(&keyed(KEY_BYTES_MAX)).len(), 1);
    assert_eq!(refused(keyed(KEY_BYTES_MAX + 1)), "400 bad_value key");
    let among = format!(r#"{{"messages":[{{"type":"like"}},{}]}}"#, keyed(KEY_BYTES_MAX + 1));
    assert_eq!(refused(among), "400 bad_value messages[1].key");
    // Bytes, not characters.
    let wide = format!(r#"{{"type":"gift","payload":1,"key":"{}"}}"#, "é".repeat(KEY_BYTES_MAX / 2 + 1));
    assert_eq!(refused(wide), "400 bad_value key");
    let proto = |bytes: usize| proto::PublishMessage {
        r#type: "chat".into(),
        payload: "1".into(),
        key: "k".repeat(bytes),
        ..Default::default()
    };
    assert_eq!(
        proto_refused(vec![proto(KEY_BYTES_MAX), proto(KEY_BYTES_MAX + 1)]),
        "400 bad_value messages[1].key"
    );
}

#[test]
fn opaque_bytes_come_in_base64() {
    let one = &taken(r#"{"type":"chat","payload_b64":"AP8="}"#)[0];
    assert_eq!(one.payload, Payload::Opaque(Bytes::from_static(&[0, 255])));
    assert_eq!(refused(r#"{"type":"chat","payload_b64":"AP8"}"#), "400 bad_value payload_b64");
    assert_eq!(refused(r#"{"type":"chat","payload_b64":"AP8=","payload":1}"#), "400 bad_value payload_b64");
    assert_eq!(refused(r#"{"type":"chat","payload_b64":""}"#), "400 missing_field payload");
}

#[test]
fn the_field_at_fault_is_named() {
    let second =
        |message: &str| refused(format!(r#"{{"messages":[{{"type":"chat","payload":1}},{message}]}}"#));
    assert_eq!(second(r#"{"payload":1}"#), "400 missing_field messages[1].type");
    assert_eq!(second(r#"{"type":"Chat","payload":1}"#), "400 bad_value messages[1].type");
    assert_eq!(second(r#"{"type":7,"payload":1}"#), "400 bad_value messages[1].type");
    assert_eq!(second(r#"{"type":"chat"}"#), "400 missing_field messages[1].payload");
    assert_eq!(second(r#"{"type":"chat","payload":1,"id":""}"#), "400 bad_value messages[1].id");
    assert_eq!(second(r#"{"type":"chat","payload":1,"key":"a\nb"}"#), "400 bad_value messages[1].key");
    assert_eq!(second(r#"{"type":"chat","payload":1,"count":2}"#), "400 bad_value messages[1].count");
    for count in ["0", "1000000001", "-1", "1.5", "99999999999999999999", "\"1\""] {
        assert_eq!(
            second(&format!(r#"{{"type":"like","count":{count}}}"#)),
            "400 bad_value messages[1].count"
        );
    }
    for (type_name, ttl) in [
        ("coupon", "999"),
        ("coupon", "604800001"),
        ("chat", "999"),
        ("enter", "604800001"),
        ("chat", "-1"),
        ("price", "5000"),
        ("like", "5000"),
    ] {
        let message = format!(r#"{{"type":"{type_name}","payload":1,"ttl_ms":{ttl}}}"#);
        assert_eq!(second(&message), "400 bad_value messages[1].ttl_ms");
    }
    assert_eq!(second(r#"{"type":"chat","paylod":1}"#), "400 unknown_field messages[1].paylod");
    assert_eq!(second(r#"{"type":"chat","type":"chat","payload":1}"#), "400 bad_value messages[1].type");
    assert_eq!(second(r#"{"messages":[]}"#), "400 unknown_field messages[1].messages");
    assert_eq!(second(r#""chat""#), "400 bad_value messages[1]");
    assert_eq!(second(r#"["chat",1]"#), "400 bad_value messages[1]");
}

#[test]
fn a_request_that_is_no_request_is_refused_whole() {
    assert_eq!(refused(""), "400 bad_json -");
    assert_eq!(refused("[]"), "400 bad_value -");
    assert_eq!(refused("{}"), "400 missing_field type");
    assert_eq!(refused(r#"{"type":"chat","payload":1} x"#), "400 bad_json -");
    assert_eq!(refused(r#"["chat",1]"#), "400 bad_value -");
    assert_eq!(refused(r#"[{"type":"chat","payload":1}]"#), "400 bad_value -");
    assert_eq!(refused(r#"{"messages":[]}"#), "400 bad_value messages");
    assert_eq!(refused(r#"{"messages":5}"#), "400 bad_value messages");
    assert_eq!(refused(r#"{"messages":[{"type":"like"}],"id":"x"}"#), "400 unknown_field id");
    assert_eq!(refused(r#"{"id":"x","messages":[]}"#), "400 unknown_field messages");
    let list = |count| format!(r#"{{"messages":[{}]}}"#, vec![r#"{"type":"like"}"#; count].join(","));
    assert_eq!(taken(&list(REQUEST_MESSAGES_MAX)).len(), REQUEST_MESSAGES_MAX);
    assert_eq!(refused(list(REQUEST_MESSAGES_MAX + 1)), "400 bad_value messages");
}

#[test]
fn a_payload_is_one_shallow_json_value_in_utf8() {
    for broken in ["{]", "[1,]", "tru", "'a'", "\"\u{1}\"", "[\"\\x\"]", "01"] {
        assert_eq!(
            refused(format!(r#"{{"type":"chat","payload":{broken}}}"#)),
            "400 payload_not_json payload",
            "{broken}"
        );
    }
    assert_eq!(refused(b"{\"type\":\"chat\",\"payload\":\"\xff\"}"), "400 payload_not_json payload");
    let nested = |depth| format!(r#"{{"type":"chat","payload":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(taken(&nested(PAYLOAD_DEPTH_MAX)).len(), 1);
    assert_eq!(refused(nested(PAYLOAD_DEPTH_MAX + 1)), "400 payload_not_json payload");
    assert_eq!(refused(nested(8_000)), "400 payload_not_json payload");
    let wide = format!(r#"{{"type":"chat","payload":[{}{{"[{{\"[":[]}}]}}"#, "[],".repeat(500));
    assert_eq!(taken(&wide).len(), 1, "brackets side by side and in strings are no depth");
}

#[test]
fn a_payload_that_strict_parsers_refuse_is_told_with_its_place() {
    for (payload, detail) in [
        (r#""\ud83d""#, "at byte 1: half of a surrogate pair (RFC 7493 §2.1)"),
        (
            r#"{"user":{"name":"\ude00"}}"#,
            "at byte 17, in user.name: half of a surrogate pair (RFC 7493 §2.1)",
        ),
        (r#"{"a":1,"\u0061":2}"#, "at byte 8, in a: a name that its object has already (RFC 7493 §2.3)"),
        ("1e400", "at byte 0: a number that no double holds (RFC 7493 §2.2)"),
    ] {
        let error = parse_json(format!(r#"{{"type":"chat","payload":{payload}}}"#).as_bytes(), &types());
        let error = error.unwrap_err();
        assert_eq!((error.code, error.detail.as_deref()), ("payload_not_json", Some(detail)), "{payload}");
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let message =
            proto::PublishMessage { r#type: "chat".into(), payload, json: true, ..Default::default() };
        assert_eq!(proto_refused(vec![message]), "400 payload_not_json messages[0].payload");
    }
    let broken = parse_json(br#"{"type":"chat","payload":[1,]}"#, &types()).unwrap_err();
    assert_eq!(broken.detail.as_deref(), Some("in the request: expected value at line 1 column 29"));
}

#[test]
fn the_engines_own_type_is_not_for_publishers() {
    assert_eq!(refused(r#"{"type":"online","payload":3}"#), "400 bad_value type");
    let online = proto::PublishMessage { r#type: "online".into(), payload: "3".into(), ..Default::default() };
    assert_eq!(proto_refused(vec![online]), "400 bad_value messages[0].type");
}

#[test]
fn payloads_have_their_size() {
    let sized = |type_name: &str, bytes: usize| {
        format!(r#"{{"type":"{type_name}","payload":"{}"}}"#, "x".repeat(bytes - 2))
    };
    assert_eq!(taken(&sized("chat", PAYLOAD_BYTES_MAX)).len(), 1);
    assert_eq!(refused(sized("chat", PAYLOAD_BYTES_MAX + 1)), "413 payload_too_large payload");
    assert_eq!(taken(&sized("price", LATEST_PAYLOAD_BYTES_MAX)).len(), 1);
    assert_eq!(refused(sized("price", LATEST_PAYLOAD_BYTES_MAX + 1)), "400 latest_payload_too_large payload");
    let opaque =
        |bytes: usize| format!(r#"{{"type":"chat","payload_b64":"{}"}}"#, BASE64.encode(vec![7; bytes]));
    for bytes in PAYLOAD_BYTES_MAX - 2..=PAYLOAD_BYTES_MAX {
        assert_eq!(taken(&opaque(bytes)).len(), 1);
    }
    assert_eq!(refused(opaque(PAYLOAD_BYTES_MAX + 1)), "413 payload_too_large payload_b64");
}

#[test]
fn protobuf_is_held_to_the_same_rules() {
    let chat = |payload: &[u8]| proto::PublishMessage {
        r#type: "chat".into(),
        payload: Bytes::copy_from_slice(payload),
        json: true,
        ..Default::default()
    };
    assert_eq!(proto_refused(vec![]), "400 bad_value messages");
    assert_eq!(proto_refused(vec![chat(b"1"), chat(b"1 2")]), "400 payload_not_json messages[1].payload");
    assert_eq!(proto_refused(vec![chat(b"\"\xff\"")]), "400 payload_not_json messages[0].payload");
    assert_eq!(proto_refused(vec![chat(b"")]), "400 missing_field messages[0].payload");
    let lasting = proto::PublishMessage { ttl_ms: Some(999), ..chat(b"1") };
    assert_eq!(proto_refused(vec![lasting]), "400 bad_value messages[0].ttl_ms");
    let latest = proto::PublishMessage { ttl_ms: Some(5_000), r#type: "price".into(), ..chat(b"1") };
    assert_eq!(proto_refused(vec![latest]), "400 bad_value messages[0].ttl_ms");
    let counted = proto::PublishMessage { count: Some(0), r#type: "like".into(), ..Default::default() };
    assert_eq!(proto_refused(vec![counted]), "400 bad_value messages[0].count");
    assert_eq!(proto_refused(vec![chat(b"1"); REQUEST_MESSAGES_MAX + 1]), "400 bad_value messages");
    let announced = parse_proto(&[0x0a, 0xff, 0xff, 0xff, 0x7f], &types()).unwrap_err();
    assert_eq!((announced.code, announced.field.as_deref()), ("bad_proto", Some("messages[0]")));
}

#[test]
fn a_payload_never_shares_the_requests_memory() {
    let body = Bytes::from_static(br#"{"type":"chat","payload":"abc"}"#);
    let message = &parse_json(&body, &types()).unwrap()[0];
    assert!(!body.as_ptr_range().contains(&message.payload.bytes().as_ptr()));
}

#[test]
fn answers_name_each_verdict() {
    let verdicts = [
        Verdict::Accepted,
        Verdict::Durable { offset: 8 },
        Verdict::Merged,
        Verdict::Duplicate { offset: Some(7) },
        Verdict::Duplicate { offset: None },
        Verdict::Shed(ShedReason::RoomFull),
        Verdict::Shed(ShedReason::TypesFull),
        Verdict::Unavailable(Unavailable::StoreFailing),
    ];
    assert_eq!(
        String::from_utf8(answer_json(&verdicts)).unwrap(),
        concat!(
            r#"{"results":[{"result":"accepted"},{"result":"durable","offset":8},{"result":"merged"},"#,
            r#"{"result":"duplicate","offset":7},{"result":"duplicate"},"#,
            r#"{"result":"shed","reason":"room_full","retry_after_ms":1000},{"result":"shed","reason":"types_full"},"#,
            r#"{"result":"unavailable","reason":"store_failing","retry_after_ms":1000}]}"#
        )
    );
    let answer = proto::PublishAnswer::decode(&*answer_proto(&verdicts)).unwrap();
    assert_eq!(answer.results.len(), verdicts.len());
    assert_eq!((answer.results[1].result.as_str(), answer.results[1].offset), ("durable", 8));
    assert_eq!((answer.results[3].result.as_str(), answer.results[3].offset), ("duplicate", 7));
    assert_eq!((answer.results[5].reason.as_str(), answer.results[5].retry_after_ms), ("room_full", 1000));
    assert_eq!(
        (answer.results[7].reason.as_str(), answer.results[7].retry_after_ms),
        ("store_failing", 1000)
    );
    assert_eq!(answer_json(&[]), b"{\"results\":[]}");
}

#[test]
fn what_may_be_otherwise_a_second_later_says_when_to_try_again() {
    for reason in ShedReason::ALL {
        let json: serde_json::Value = serde_json::from_slice(&answer_json(&[Verdict::Shed(reason)])).unwrap();
        let proto = proto::PublishAnswer::decode(&*answer_proto(&[Verdict::Shed(reason)])).unwrap();
        let lasts = matches!(
            reason,
            ShedReason::LatestKeysFull
                | ShedReason::CounterTypesFull
                | ShedReason::TypesFull
                | ShedReason::RoomClosed
        );
        let wait = if lasts { 0 } else { millis(RETRY_AFTER) };
        assert_eq!(json["results"][0]["retry_after_ms"].as_u64().unwrap_or(0), wait, "{reason:?}");
        assert_eq!(proto.results[0].retry_after_ms, wait, "{reason:?}");
        assert_eq!(json["results"][0]["reason"], reason.name());
    }
}

#[test]
fn a_count_that_did_not_fit_whole_was_accepted_and_says_so() {
    let json = answer_json(&[Verdict::Saturated]);
    assert_eq!(json, br#"{"results":[{"result":"accepted","reason":"count_saturated"}]}"#);
    let proto = proto::PublishAnswer::decode(&*answer_proto(&[Verdict::Saturated])).unwrap();
    let one = &proto.results[0];
    assert_eq!((&*one.result, &*one.reason, one.retry_after_ms), ("accepted", "count_saturated", 0));
}

/// A valid message of any type, in both spellings.
fn random_message(rng: &mut fastrand::Rng) -> (String, proto::PublishMessage) {
    let type_name = *rng.choice(&["chat", "like", "price", "enter", "poll", "coupon", "gift"]).unwrap();
    let mut json = vec![format!(r#""type":"{type_name}""#)];
    let mut proto = proto::PublishMessage { r#type: type_name.into(), ..Default::default() };
    if type_name != "like" || rng.bool() {
        if rng.bool() {
            let payload =
                *rng.choice(&["1", "null", r#"{"a":[1,"]"]}"#, r#""é \u00e9""#, "[ 1 ,\n2 ]"]).unwrap();
            json.push(format!(r#""payload":{payload}"#));
            (proto.payload, proto.json) = (payload.into(), true);
        } else {
            let bytes: Vec<u8> = (0..rng.usize(1..40)).map(|_| rng.u8(..)).collect();
            json.push(format!(r#""payload_b64":"{}""#, BASE64.encode(&bytes)));
            proto.payload = bytes.into();
        }
    }
    if rng.bool() {
        proto.id = format!("id-{}", rng.u32(..));
        json.push(format!(r#""id":"{}""#, proto.id));
    }
    if rng.bool() {
        proto.key = format!("ключ {}", rng.u8(..));
        json.push(format!(r#""key":"{}""#, proto.key));
    }
    if matches!(type_name, "like" | "gift") && rng.bool() {
        proto.count = Some(rng.u64(1..=COUNT_MAX));
        json.push(format!(r#""count":{}"#, proto.count.unwrap()));
    }
    if !matches!(type_name, "like" | "price") && rng.bool() {
        proto.ttl_ms = Some(rng.u64(1_000..=604_800_000));
        json.push(format!(r#""ttl_ms":{}"#, proto.ttl_ms.unwrap()));
    }
    rng.shuffle(&mut json);
    (format!("{{{}}}", json.join(",")), proto)
}

fn random_request(rng: &mut fastrand::Rng) -> (Vec<u8>, Vec<u8>) {
    let both = (0..rng.usize(1..8)).map(|_| random_message(rng));
    let (json, messages): (Vec<_>, Vec<_>) = both.unzip();
    let json = format!(r#"{{"messages":[{}]}}"#, json.join(","));
    (json.into_bytes(), proto::PublishRequest { messages }.encode_to_vec())
}

#[test]
fn both_encodings_of_the_same_request_give_the_same_messages() {
    let types = types();
    for seed in 0..2_000 {
        let (json, proto) = random_request(&mut fastrand::Rng::with_seed(seed));
        let of_json = parse_json(&json, &types).unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
        let of_proto = parse_proto(&proto, &types).unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
        assert_eq!(format!("{of_json:?}"), format!("{of_proto:?}"), "seed {seed}");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let types = types();
    let mut refusals = 0;
    for seed in 0..20_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (json, proto) = random_request(&mut rng);
        for (mut body, parse) in [
            (json, parse_json as fn(&[u8], &Types) -> Result<Vec<Message>, PublishError>),
            (proto, parse_proto),
        ] {
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..body.len());
                match rng.u8(..4) {
                    0 => body[at] = rng.u8(..),
                    1 => body[at] ^= 1 << rng.u8(..8),
                    2 => body.truncate(at.max(1)),
                    _ => body.insert(at, *rng.choice(b"{}[]\",:\\0\x80").unwrap()),
                }
            }
            refusals += usize::from(parse(&body, &types).is_err());
        }
        let noise: Vec<u8> = (0..rng.usize(..64)).map(|_| rng.u8(..)).collect();
        refusals += usize::from(parse_json(&noise, &types).is_err());
        drop(parse_proto(&noise, &types));
    }
    assert!(refusals > 30_000, "{refusals}: mutations that change nothing test nothing");
}
