//! The configuration of message types and of batches.

use super::*;

#[test]
fn each_built_in_type_has_its_policy() {
    let config = Config::load(&Args::default(), variables(&[])).unwrap();
    let types: Vec<(&str, TypePolicy)> =
        config.types.iter().map(|(name, policy)| (name.as_str(), *policy)).collect();
    let plain = TypePolicy::of;
    let gift = TypePolicy { priority: Priority::High, merge: Merge::Sum, weight: 5, ..plain(Class::Normal) };
    let counted = TypePolicy { merge: Merge::First, ..plain(Class::Lossy) };
    assert_eq!(
        types,
        [
            ("chat", plain(Class::Normal)),
            ("coupon", plain(Class::Reliable)),
            ("enter", counted),
            ("follow", counted),
            ("gift", gift),
            ("like", plain(Class::Counter)),
            ("online", plain(Class::Latest)),
            ("product_card", plain(Class::Reliable)),
            ("red_packet", plain(Class::Reliable)),
        ]
    );
    assert_eq!(plain(Class::Reliable).ttl, limits::TTL_DEFAULT);
    assert_eq!(plain(Class::Normal).ttl, limits::WAIT_DEFAULT);
}

#[test]
fn every_key_of_a_type_has_its_meaning() {
    let file = "[types.poll]\nclass = 'normal'\npriority = 'low'\nmerge = 'first'\nurgent = true\nttl_ms = 5000\n\
                rate = 20\nburst = 3\nhistory = false\nweight = 7\n\
                [types.card]\nclass = 'reliable'\nrate = 2";
    let config = load(file, &[("ROOMCAST__TYPES__CHAT__RATE", "50")], &[]).unwrap();
    assert_eq!(
        policy(&config, "poll"),
        TypePolicy {
            class: Class::Normal,
            priority: Priority::Low,
            merge: Merge::First,
            urgent: true,
            ttl: Duration::from_secs(5),
            rate: Some(TypeRate { per_second: 20, burst: 3 }),
            history: false,
            weight: 7,
        }
    );
    let rated = |class, rate| TypePolicy {
        rate: Some(TypeRate { per_second: rate, burst: rate }),
        ..TypePolicy::of(class)
    };
    assert_eq!(policy(&config, "card"), rated(Class::Reliable, 2));
    assert_eq!(policy(&config, "chat"), rated(Class::Normal, 50));
    let burst = [("ROOMCAST__TYPES__CARD__BURST", "9")];
    let config = load(file, &burst, &[]).unwrap();
    assert_eq!(policy(&config, "card").rate, Some(TypeRate { per_second: 2, burst: 9 }), "of two layers");
}

#[test]
fn a_built_in_type_of_another_class_keeps_nothing_that_was_built_in() {
    for (name, class) in [
        ("gift", Class::Counter),
        ("gift", Class::Lossy),
        ("gift", Class::Reliable),
        ("enter", Class::Reliable),
        ("enter", Class::Latest),
        ("coupon", Class::Lossy),
        ("coupon", Class::Counter),
    ] {
        let file = format!("[types]\n{name} = {{ class = '{}' }}", class.name());
        assert_eq!(policy(&load(&file, &[], &[]).unwrap(), name), TypePolicy::of(class), "{file}");
    }
    let same = load("[types]\ngift = { class = 'normal', weight = 2 }", &[], &[]).unwrap();
    let gift = policy(&same, "gift");
    assert_eq!((gift.priority, gift.merge, gift.weight), (Priority::High, Merge::Sum, 2), "its own class");
}

#[test]
fn rooms_begin_with_what_is_configured() {
    let file = "[flush]\nhigh_share = 0.25\nnormal_share = 0.5\nlow_share = 0.25\n\
                [readable]\nnormal_per_second = 30\nhigh_per_second = 10\n\
                [limits]\nroom_messages_per_second = 500\nkey_messages_per_second = 20000\n\
                outbound_bytes = 16_777_216\nobserve_only = true";
    let config = load(file, &[], &[]).unwrap();
    let rules = RoomRules {
        quotas: Quotas { permille: [250, 500, 250] },
        readable: Readable { normal_per_second: 30, high_per_second: 10 },
        messages_per_second: 500,
        observe_only: true,
        ..RoomRules::default()
    };
    assert_eq!(config.flush, rules);
    assert_eq!((config.key_messages_per_second, config.outbound_bytes_max), (20_000, 16 << 20));
    let whole = load("flush.high_share = 1", &[], &[]).unwrap();
    assert_eq!(whole.flush.quotas, Quotas { permille: [0, 0, 1000] }, "a whole number is a share, too");
}

#[test]
fn shares_of_two_layers_that_are_too_much_are_blamed_on_the_higher_one() {
    let typed = [("ROOMCAST__FLUSH__LOW_SHARE", "0.3")];
    let mistakes = load("flush.normal_share = 0.4", &typed, &[]).unwrap_err();
    assert_eq!(mistakes.0.len(), 1, "{mistakes}");
    assert_eq!(mistakes.0[0].source, Source::Environment("ROOMCAST__FLUSH__LOW_SHARE".to_owned()));
    let told = mistakes.to_string();
    assert!(Shares::PATHS.iter().all(|path| told.contains(path)) && told.contains("1.2"), "{told}");
}
