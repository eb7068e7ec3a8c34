//! Devices for tests: in their rooms by their phase alone, without connections.

use std::net::Ipv4Addr;

use super::{Crowd, Devices, Phase, Seats};
use crate::devices::known::Known;
use crate::devices::watch::{RoomToWatch, Watch};
use crate::scenario::audience::Audience;
use crate::scenario::habits::Awkward;
use crate::scenario::seating::{Seating, Sizes};
use crate::scenario::units::Share;
use crate::wire::doors::Door;
use crate::wire::frame::Encoding;
use crate::wire::handshake::Handshake;

/// One worker's devices, all in their rooms. The first room has nine tenths of the devices.
pub(super) fn watching(devices: u32, rooms: u32, awkward: Awkward) -> Devices {
    let door: Door = "ws://127.0.0.1:1".parse().unwrap();
    let name = |room: u32| format!("lg-{room}");
    let to_watch = (0..rooms).map(|room| RoomToWatch { room, name: name(room) });
    let watch = Watch::new(Known::new(Vec::new(), 1), Encoding::Json, to_watch);
    let seating = Seating::new(Sizes::Giant { share: Share::of_millionths(900_000) }, devices, rooms, 1);
    let seats = Seats {
        room_names: (0..rooms).map(name).collect(),
        places: (0..devices).map(|device| seating.room_of(device)).collect(),
    };
    let crowd = Crowd {
        worker: 0,
        workers: 1,
        rooms,
        seating,
        audience: Audience::steady(devices),
        storms: Vec::new(),
        source: Ipv4Addr::LOCALHOST,
        handshakes_max: 1,
        awkward,
        seed: 1,
    };
    let address = door.address();
    let handshake = Handshake::new(door, Encoding::Json, None);
    let mut viewers = Devices::new(crowd, address, handshake, Vec::new(), seats, watch).unwrap();
    viewers.start_ns = 1;
    for device in &mut viewers.devices {
        device.phase = Phase::Watching;
    }
    viewers.watching = viewers.devices.len();
    viewers.shaking = 0;
    viewers
}
