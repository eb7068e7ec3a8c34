//! Receipts: a named device counts once, and an unnamed connection takes no other's departure.

use super::*;
use crate::limits::RECEIPT_DEVICES_MAX;

fn told(receipt: &view::ReceiptView) -> (u64, u64, u64, u64) {
    (receipt.online, receipt.devices, receipt.acknowledged, receipt.left)
}

/// A phone that changes its network: the newer connection acknowledged, the older one died, and the receipt
/// told of three devices.
#[test]
fn a_device_on_an_old_and_a_new_connection_counts_once() {
    let mut bench = Bench::ready();
    bench.tell(left(&bench, 0));
    let phone = 7;
    bench.tell(named(phone, None));
    bench.tell(named(8, None));
    bench.publish(vec![coupon("1")]);
    bench.sync();
    let lacks = bench.cursor(0);
    bench.tell(named(phone, Some(lacks)));
    assert_eq!(told(&bench.receipt_with(1, &[phone]).unwrap()), (2, 2, 1, 0), "the newer acknowledges");
    bench.tell(named_left(&bench, phone, 0));
    assert_eq!(told(&bench.receipt_with(1, &[phone, 8]).unwrap()), (2, 2, 2, 0), "the older dies");
    bench.tell(named_left(&bench, phone, 1));
    assert_eq!(told(&bench.receipt_with(1, &[8]).unwrap()), (2, 2, 2, 0), "the newer goes as well");
    assert_eq!(bench.room.devices(), 1);
}

#[test]
fn a_device_that_acknowledged_and_comes_with_an_older_cursor_or_none_counts_once() {
    let mut bench = Bench::ready();
    bench.tell(left(&bench, 0));
    bench.tell(named(7, None));
    bench.publish(vec![coupon("1")]);
    bench.sync();
    bench.tell(named_left(&bench, 7, 1));
    let older = bench.cursor(0);
    for cursor in [Some(older), None] {
        bench.tell(named(7, cursor));
        assert_eq!(told(&bench.receipt_with(1, &[7, 7]).unwrap()), (1, 1, 1, 0));
        bench.tell(named_left(&bench, 7, 0));
    }
    assert_eq!(told(&bench.receipt(1).unwrap()), (1, 1, 1, 0));
}

#[test]
fn a_connection_without_a_name_takes_no_other_departure() {
    let mut bench = Bench::ready();
    bench.tell(join(2, None));
    bench.publish(vec![coupon("1")]);
    bench.sync();
    bench.tell(left(&bench, 0));
    let has = bench.cursor(1);
    for connection in 3..9 {
        bench.tell(join(connection, Some(has)));
    }
    assert_eq!(told(&bench.receipt(1).unwrap()), (2, 0, 0, 1));
}

#[test]
fn a_device_that_was_away_for_all_of_a_message_is_not_in_its_receipt() {
    let mut bench = Bench::ready();
    bench.tell(left(&bench, 0));
    bench.tell(named(7, None));
    bench.publish(vec![coupon("1")]);
    bench.sync();
    bench.tell(named_left(&bench, 7, 1));
    bench.tell(named(8, None));
    bench.wait(Duration::from_millis(100));
    bench.publish(vec![Message { ttl: Duration::from_secs(1), ..coupon("2") }, coupon("3")]);
    bench.sync();
    bench.wait(Duration::from_secs(2));
    let cursor = bench.cursor(1);
    bench.tell(named(7, Some(cursor)));
    assert_eq!(told(&bench.receipt(2).unwrap()), (1, 1, 0, 0), "8 alone");
    assert_eq!(told(&bench.receipt(3).unwrap()), (2, 2, 0, 0));
    assert_eq!(told(&bench.receipt_with(2, &[7, 8]).unwrap()), (1, 1, 1, 0));
}

#[test]
fn names_past_their_bound_count_as_connections_and_devices_without_a_receipt_are_forgotten() {
    let mut bench = Bench::ready();
    bench.tell(left(&bench, 0));
    for device in 1..=RECEIPT_DEVICES_MAX as u64 {
        bench.tell(named(device, None));
    }
    let outputs = bench.tell(named(u64::MAX, None));
    let [Output::Welcomed(welcomed)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(welcomed.stands.unwrap().device, 0);
    bench.tell(named_left(&bench, 5, 0));
    let outputs = bench.tell(named(u64::MAX, None));
    let [Output::Welcomed(welcomed)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(welcomed.stands.unwrap().device, u64::MAX, "5 stood in no receipt");
}

/// `[coupon, chat id=x "A"]` waited for the sync. A chat with id x and another payload was accepted meanwhile,
/// and then A as well.

#[test]
fn departures_from_a_stream_that_went_back_in_time_are_none_of_its_new_members() {
    let mut bench = Bench::ready();
    bench.publish(vec![coupon("1")]);
    bench.sync();
    bench.publish(vec![coupon("2")]);
    bench.fail();
    bench.wait(STORE_RETRY);
    let epoch = bench.room.epoch().unwrap();
    let outputs = bench.load(Some(Stored { epoch, head: 0, records: Vec::new(), tail: Vec::new() }));
    assert!(matches!(outputs[..], [Output::StreamChanged]), "{outputs:?}");
    bench.tell(join(2, None));
    bench.tell(left(&bench, 0));
    bench.publish(vec![coupon("3")]);
    bench.sync();
    bench.wait(Duration::from_millis(20));
    assert_eq!(told(&bench.receipt(1).unwrap()), (1, 0, 0, 0), "the new member");
}
