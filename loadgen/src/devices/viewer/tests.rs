//! Facts about devices, and devices for the tests of the other files: in their rooms by their phase alone,
//! without connections.

use std::net::Ipv4Addr;

use super::{Device, Devices, Phase};
use crate::devices::assignment::Assignment;
use crate::devices::known::Known;
use crate::devices::watch::Watch;
use crate::run::args::tests::resolve;
use crate::scenario::habits::Awkward;
use crate::scenario::seating::Sizes;
use crate::scenario::units::Share;

/// One worker's devices, all in their rooms. The first room has nine tenths of the devices.
pub(super) fn watching(devices: u32, rooms: u32, awkward: Awkward) -> Devices {
    let mut plan = resolve(&format!("--devices {devices} --rooms {rooms}")).unwrap();
    plan.sizes = Sizes::Giant { share: Share::of_millionths(900_000) };
    plan.awkward = awkward;
    let rooms: Vec<u32> = (0..rooms).collect();
    let known = Known::new(Vec::new(), &[], 1);
    let watch = Watch::new(known, plan.encoding, &plan.target.room_stem, &rooms);
    let source = Ipv4Addr::LOCALHOST;
    let assignment = Assignment { plan, worker: 0, workers: 1, source, handshakes_max: 1, ahead_ns: 0 };
    let mut viewers = Devices::new(assignment, &rooms, watch).unwrap();
    viewers.start_ns = 1;
    for device in &mut viewers.devices {
        device.phase = Phase::Watching;
    }
    viewers.watching = viewers.devices.len();
    viewers.shaking = 0;
    viewers
}

#[test]
fn a_device_costs_no_more_than_136_bytes_here() {
    assert!(size_of::<Device>() <= 136, "{}", size_of::<Device>());
}
