//! The drain of all shards, as the server orders it.

use super::handle::{DoorRequest, Shards};

impl Shards {
    /// Drains: publishes are refused, buffers flush, devices get `bye` and 1012. Returns once every
    /// connection is gone. The caller bounds the wait.
    pub async fn drain(&self) {
        // All shards flush before the first says goodbye: their batches have members on other shards. Once
        // all have answered, every batch has been taken into a pass; once they have answered again, those
        // passes are over.
        self.ask_all(|reply| DoorRequest::Drain { reply }).await;
        self.ask_all(|reply| DoorRequest::Drain { reply }).await;
        self.ask_all(|reply| DoorRequest::Farewell { reply }).await;
    }

    /// Says goodbye to all devices, while the rooms go on for those of other nodes. Returns once every connection is
    /// gone. The caller bounds the wait.
    pub async fn part_with_devices(&self) {
        self.ask_all(|reply| DoorRequest::PartWithDevices { reply }).await;
    }
}
