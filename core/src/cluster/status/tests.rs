//! Answers put together from made-up words of nodes.

use super::*;
use crate::cluster::SLOTS;

fn term(sequence: u64) -> Term {
    Term { generation: 0, sequence }
}

fn own(slot: u8, sequence: u64) -> OwnSlot {
    OwnSlot { slot: Slot(slot), term: term(sequence), is_frozen: false }
}

fn said(links: &[&str]) -> NodeSaid {
    let link = |node: &&str| LinkView {
        node: (*node).to_owned(),
        state: NodeState::Serving,
        lag_ms: Some(0),
        kept_bytes: 0,
    };
    NodeSaid {
        version: "0.1.0".to_owned(),
        started_at: 0,
        members: 7,
        rooms: 1,
        links: links.iter().map(link).collect(),
        log: LogView::default(),
    }
}

/// A node that answers, with these links and slots. `None`: it did not answer.
fn part(node: &str, said: Option<NodeSaid>, slots: Vec<OwnSlot>) -> ClusterPart {
    let view = ClusterNodeView {
        node: node.to_owned(),
        state: if said.is_some() { NodeState::Serving } else { NodeState::Silent },
        region: "eu".to_owned(),
        seats: 1000,
        free_seats: 900,
        busy_permille: 10,
        words_version: 1,
        heard_ms: 1240,
        said,
    };
    ClusterPart { view, slots }
}

/// Two nodes that answer and hold all slots together.
fn well() -> Vec<ClusterPart> {
    vec![
        part("node-2", Some(said(&["node-1"])), (128..=255).map(|slot| own(slot, 9)).collect()),
        part("node-1", Some(said(&["node-2"])), (0..=127).map(|slot| own(slot, 5)).collect()),
    ]
}

fn view(parts: Vec<ClusterPart>, heard: &[HeardSlot]) -> ClusterView {
    ClusterView::new("rc", "node-1", 60_000, parts, heard)
}

fn nobody() -> Vec<HeardSlot> {
    vec![HeardSlot::default(); SLOTS]
}

fn codes(view: &ClusterView) -> Vec<&str> {
    view.troubles.iter().map(|trouble| &*trouble.code).collect()
}

#[test]
fn a_cluster_that_is_well_has_a_home_for_each_slot_and_no_trouble() {
    let view = view(well(), &nobody());
    assert_eq!(codes(&view), [""; 0]);
    assert_eq!(view.slots_in(SlotState::Ordered).count(), SLOTS);
    assert_eq!(view.nodes.iter().map(|node| &*node.node).collect::<Vec<_>>(), ["node-1", "node-2"]);
    let line = SlotView {
        slot: Slot(128),
        state: SlotState::Ordered,
        home: Some("node-2".to_owned()),
        term: term(9),
    };
    assert_eq!((view.slots.len(), &view.slots[128]), (SLOTS, &line));
}

#[test]
fn the_spelling_of_an_answer_is_the_contract() {
    let mut parts = well();
    parts.push(part("node-3", None, Vec::new()));
    let view = view(parts, &nobody());
    let json = serde_json::to_value(&view).unwrap();
    assert_eq!(
        json["nodes"][1],
        serde_json::json!({
            "node": "node-2", "state": "serving", "region": "eu", "seats": 1000, "free_seats": 900,
            "busy_permille": 10, "words_version": 1, "heard_ms": 1240,
            "said": {
                "version": "0.1.0", "started_at": 0, "members": 7, "rooms": 1,
                "links": [{"node": "node-1", "state": "serving", "lag_ms": 0, "kept_bytes": 0}],
                "log": {"claiming": 0, "troubled": []},
            },
        })
    );
    assert_eq!(json["silent"], serde_json::json!(["node-3"]));
    assert_eq!(
        json["slots"][3],
        serde_json::json!({
            "slot": 3, "state": "ordered", "home": "node-1", "term": {"generation": 0, "sequence": 5},
        })
    );
    let text = "node-3 does not answer: its last heartbeat is 1.2 s old";
    assert_eq!(json["troubles"], serde_json::json!([{"code": "node_silent", "text": text}]));
    assert_eq!(serde_json::from_value::<ClusterView>(json).unwrap(), view);
}

#[test]
fn the_slots_of_a_silent_node_are_named_until_another_one_has_them() {
    let mut parts = well();
    parts.remove(0);
    parts.push(part("node-2", None, Vec::new()));
    let mut heard = nobody();
    for slot in &mut heard[128..] {
        *slot = HeardSlot { home: Some("node-2".to_owned()), term: term(9) };
    }
    // One of them is claimed again by now, and one was lost since.
    parts[0].slots.push(own(130, 11));
    heard[255] = HeardSlot { home: None, term: term(9) };
    let view = view(parts, &heard);
    assert_eq!(view.slots[130].home.as_deref(), Some("node-1"));
    assert_eq!((view.slots[131].state, view.slots[131].home.as_deref()), (SlotState::Silent, Some("node-2")));
    assert_eq!((view.slots[255].state, view.slots[255].term), (SlotState::Nobody, term(9)));
    let texts: Vec<&str> = view.troubles.iter().map(|trouble| &*trouble.text).collect();
    assert_eq!(
        texts[1..],
        [
            "1 slot without a home: no node orders their rooms (255)",
            "126 slots with a home that does not answer (128-129, 131-254)",
        ]
    );
}

#[test]
fn the_higher_term_names_the_home_whoever_says_it() {
    let mut parts = well();
    parts[0].slots.push(own(3, 20));
    parts[1].slots[4].is_frozen = true;
    let mut heard = nobody();
    // A node that answers speaks for itself, whatever was heard of it.
    heard[5] = HeardSlot { home: Some("node-2".to_owned()), term: term(30) };
    let view = view(parts, &heard);
    assert_eq!((view.slots[3].home.as_deref(), view.slots[3].term), (Some("node-2"), term(20)));
    assert_eq!((view.slots[4].state, view.slots[4].home.as_deref()), (SlotState::Frozen, Some("node-1")));
    assert_eq!((view.slots[5].home.as_deref(), view.slots[5].term), (Some("node-1"), term(30)));
    assert_eq!(codes(&view), ["slots_frozen"]);
}

#[test]
fn nodes_in_trouble_are_named_and_a_drain_is_none() {
    for (state, codes_of) in [
        (NodeState::Draining, &[][..]),
        (NodeState::Deaf, &["node_deaf"]),
        (NodeState::Unlinked, &["node_unlinked"]),
        (NodeState::Ended, &["node_ended"]),
    ] {
        let mut parts = well();
        parts[0].view.state = state;
        assert_eq!(codes(&view(parts, &nobody())), codes_of, "{state:?}");
    }
}

#[test]
fn links_that_lag_or_are_missing_are_named_between_nodes_that_answer() {
    let mut parts = well();
    let lag = |parts: &mut [ClusterPart], lag_ms| {
        parts[0].view.said.as_mut().unwrap().links[0].lag_ms = Some(lag_ms);
    };
    lag(&mut parts, millis(LINK_LAG_MAX) - 1);
    assert_eq!(codes(&view(parts.clone(), &nobody())), [""; 0]);
    lag(&mut parts, 1350);
    let shown = view(parts.clone(), &nobody());
    assert_eq!(shown.troubles[0].text, "the link from node-2 to node-1 lags by 1.3 s");
    // A node that was not heard of, and one that counts as dead there.
    parts[1].view.said.as_mut().unwrap().links.clear();
    parts[0].view.said.as_mut().unwrap().links[0].state = NodeState::Silent;
    let shown = view(parts.clone(), &nobody());
    assert_eq!(codes(&shown), ["node_unheard", "node_unheard", "link_lags"]);
    assert_eq!(shown.troubles[0].text, "node-1 does not hear node-2");
    // Nobody expects to be heard by a silent node, or to hear one.
    parts[0].view.said = None;
    parts[0].slots.clear();
    let heard = vec![HeardSlot { home: Some("node-2".to_owned()), term: term(1) }; SLOTS];
    assert_eq!(codes(&view(parts, &heard)), ["slots_silent"]);
}

#[test]
fn a_log_in_trouble_says_since_when_and_why() {
    let mut parts = well();
    let log = |parts: &mut [ClusterPart], log| parts[1].view.said.as_mut().unwrap().log = log;
    log(&mut parts, LogView { troubled: vec![Slot(7)], ..LogView::default() });
    let text = |parts: &[ClusterPart]| view(parts.to_vec(), &nobody()).troubles[0].text.clone();
    assert_eq!(text(&parts), "the log of node-1 fails: 1 slot in trouble (7)");
    let failing = Some(FailingView { since: 57_700, why: "JetStream does not answer".to_owned() });
    log(&mut parts, LogView { claiming: 2, troubled: vec![Slot(7), Slot(8)], failing: failing.clone() });
    assert_eq!(
        text(&parts),
        "the log of node-1 fails for 2.3 s, 2 slots in trouble (7-8): JetStream does not answer"
    );
    // The other machine's clock may be ahead.
    let failing = failing.map(|failing| FailingView { since: u64::MAX, ..failing });
    log(&mut parts, LogView { failing, ..LogView::default() });
    assert_eq!(text(&parts), "the log of node-1 fails for 0.0 s: JetStream does not answer");
}

#[test]
fn the_word_of_a_stranger_is_cut_to_its_bounds() {
    let mut word = said(&["n"; NODES_MAX + 9]);
    word.version = "9".repeat(1_000_000);
    word.log.troubled = vec![Slot(4); 1000];
    word.log.failing = Some(FailingView { since: 0, why: "ä".repeat(1000) });
    let word = word.bounded();
    assert_eq!((word.links.len(), word.version.len()), (NODES_MAX, TEXT_CHARS_MAX));
    assert_eq!(word.log.troubled, [Slot(4)]);
    assert_eq!(word.log.failing.unwrap().why.chars().count(), TEXT_CHARS_MAX);
    // A slot that is said a thousand times has one line.
    let mut parts = well();
    parts[0].slots = vec![own(200, 8); 1000];
    assert_eq!(view(parts, &nobody()).slots.len(), SLOTS);
}

#[test]
fn slots_are_listed_as_ranges() {
    let slots = |numbers: &[u8]| numbers.iter().copied().map(Slot).collect::<Vec<_>>();
    assert_eq!(ranges(&slots(&[0, 1, 2, 4, 254, 255])), "0-2, 4, 254-255");
    assert_eq!(ranges(&[]), "");
    assert_eq!(ranges(&Slot::all().collect::<Vec<_>>()), "0-255");
    // A sentence has some of them.
    let even: Vec<Slot> = Slot::all().step_by(2).collect();
    assert_eq!(first_ranges(&even[..8]), "0, 2, 4, 6, 8, 10, 12, 14");
    assert_eq!(first_ranges(&even), "0, 2, 4, 6, 8, 10, 12, 14, …");
}
