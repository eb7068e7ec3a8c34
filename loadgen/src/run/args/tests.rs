//! Facts about the command line: what is typed, and what it comes to.

use super::*;

/// The plan of `run` with these flags.
pub(crate) fn resolve(flags: &str) -> Result<Plan, String> {
    typed::<RunArgs>(flags)?.resolve()
}

#[test]
fn bad_input_is_named_before_any_load() {
    for (flags, named) in [
        ("--rooms 0", "--rooms"),
        ("--rate 0", "--rate"),
        ("--rate fast", "--rate"),
        ("--reliable-rate 1000000 --seconds 1000", "--reliable-rate"),
        ("--reliable-rate 1 --reliable-type A!", "--reliable-type"),
        ("--reliable-type coupon", "--reliable-type"),
        ("--reliable-rate 1 --ttl-ms 5", "--ttl-ms"),
        ("--ttl-ms 5000", "--ttl-ms: no type is reliable"),
        ("--rate 2000000000000000", "--rate"),
        ("--drop-acks-share 1.5", "--drop-acks-share"),
        ("--settle-seconds 0", "--settle-seconds"),
        ("--seconds 0", "--seconds"),
        ("--payload-bytes 10", "--payload-bytes"),
        ("--payload-bytes 99999", "--payload-bytes"),
        ("--rate 1000000 --seconds 600000", "--rate"),
        ("--json /nowhere/at/all.json", "--json"),
        ("--viewer-door http://127.0.0.1:1", "--viewer-door"),
        ("--viewer-door nonsense", "--viewer-door"),
        ("--room-prefix a/b", "--room-prefix"),
        ("--speed 3", "--speed"),
        ("--type chat", "NAME[/CLASS]=RATE"),
        ("--type chat=1 --type chat=2", "--type chat: named twice"),
        ("--type chat=1 --rate 2", "--type chat: named twice"),
        ("--type coupon=1 --reliable-rate 1", "--type coupon: named twice"),
        ("--type chat=1000000 --seconds 1000", "--type chat"),
        ("--type gift=1 --readable-max chat=40", "--readable-max chat"),
        ("--type like=1 --readable-max like=40", "--readable-max like"),
        ("--readable-max chat=0", "--readable-max"),
        ("--room-stem a/b", "--room-stem"),
        ("--room-stem a --room-prefix b", "--room-"),
    ] {
        let error = resolve(flags).unwrap_err();
        assert!(error.contains(named), "{flags}: {error}");
    }
}

#[test]
fn reliable_messages_may_go_alone_or_beside_chat() {
    let plan = resolve("--rate 0 --reliable-rate 2 --seconds 60 --drop-acks-share 0.1").unwrap();
    assert_eq!(plan.loads, []);
    assert_eq!(plan.reliable.map(|reliable| reliable.schedule.messages), Some(120));
    assert_eq!((plan.awkward.drop_acks_share, plan.awkward.drop_acks), (100_000, 500_000));
    assert_eq!(resolve("--rate 1").unwrap().reliable, None);
    for types in ["--scenario red-packet", "--reliable-rate 1", "--type red_packet=1"] {
        let plan = resolve(&format!("{types} --ttl-ms 5000")).unwrap();
        assert_eq!(plan.reliable.and_then(|reliable| reliable.ttl_ms), Some(5_000), "{types}");
    }
}

#[test]
fn a_mix_has_a_schedule_of_each_type() {
    let mix = "--type chat=10000 --type gift=20:5 --type like=1000x50 --type red_packet=0.5";
    let plan =
        resolve(&format!("{mix} --seconds 60 --messages-per-request 50 --readable-max chat=40")).unwrap();
    let messages: Vec<u64> = plan.loads.iter().map(|load| load.schedule.messages).collect();
    assert_eq!(messages, [600_000, 1_200, 60_000]);
    let per_request: Vec<u32> = plan.loads.iter().map(|load| load.schedule.messages_per_request).collect();
    assert_eq!(per_request, [50, 1, 10]);
    assert_eq!((plan.loads[1].keys, plan.loads[2].each()), (5, 50));
    let reliable = plan.reliable.unwrap();
    assert_eq!((reliable.types.of(7), reliable.schedule.messages), ("red_packet", 30));
    let chat = &resolve("").unwrap().loads;
    assert_eq!((chat.len(), &*chat[0].type_name, chat[0].schedule.rate_milli), (1, "chat", 10_000));
    assert_eq!(resolve("--room-stem shared").unwrap().target.room_stem, "shared");
}

#[test]
fn the_last_message_is_due_before_the_end() {
    let plan = resolve("--rate 0.1 --seconds 5").unwrap();
    assert_eq!(plan.loads[0].schedule.messages, 1);
    assert_eq!(resolve("--rate 200 --seconds 30").unwrap().loads[0].schedule.messages, 6_000);
}

#[test]
fn workers_and_sources_elsewhere_have_to_make_sense() {
    let door = "--viewer-door ws://192.0.2.1:7600";
    let plan = resolve(&format!("{door} --worker 192.0.2.2:7 --worker 127.0.0.1:8 --source 192.0.2.3"));
    let plan = plan.unwrap();
    assert_eq!((plan.target.remote_workers.len(), plan.target.sources.len()), (2, 1));
    assert!(resolve("--worker 127.0.0.1:7").is_ok(), "both on this machine");
    for (flags, named) in [
        ("--worker nonsense", "--worker nonsense: no HOST:PORT"),
        ("--worker 192.0.2.2:7", "--viewer-door ws://127.0.0.1:7600 is that machine itself"),
        ("--source ::1", "--source ::1"),
        ("--source here", "--source"),
    ] {
        let error = resolve(flags).unwrap_err();
        assert!(error.contains(named), "{flags}: {error}");
    }
}

#[test]
fn a_type_is_a_name_a_rate_and_what_else_is_said() {
    let plain = |text: &str| text.parse::<NamedType>().unwrap().published;
    let chat = plain("chat=10000");
    assert_eq!(
        (chat.class, chat.rate.milli(), chat.count, chat.keys),
        (Some(Class::Normal), 10_000_000, None, 0)
    );
    let like = plain("like=1000x50");
    assert_eq!((like.class, like.count), (Some(Class::Counter), Some(50)));
    assert_eq!(plain("red_packet=0.5").class, Some(Class::Reliable));
    let gift = plain("gift=20x3:7");
    assert_eq!((gift.class, gift.count, gift.keys), (Some(Class::Normal), Some(3), 7));
    assert_eq!(plain("price/latest=2:3").class, Some(Class::Latest));
    assert_eq!(plain("like/normal=2").class, Some(Class::Normal));
}

#[test]
fn what_is_no_type_says_why() {
    for (text, why) in [
        ("chat", "NAME[/CLASS]=RATE"),
        ("chat=", "no number"),
        ("chat=0", "more than 0"),
        ("chat=fast", "no number"),
        ("chat=1x0", "count from 1"),
        ("chat=1x", "count from 1"),
        ("chat=1:0", "keys from 1"),
        ("chat=1:99999", "keys from 1 to 10000"),
        ("Chat=1", "a type is"),
        ("chat/steady=1", "no class"),
        ("online=1", "engine's own"),
        ("coupon=1x2", "a reliable message has no count"),
        ("like=1:2", "a counter message has no key"),
    ] {
        let error = text.parse::<NamedType>().unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    assert!("chat".parse::<Limit>().is_err() && "chat=0".parse::<Limit>().is_err());
}
