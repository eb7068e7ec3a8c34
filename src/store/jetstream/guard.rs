//! The watch over the NATS servers while the node runs: do they sync, and have the streams room left? The log's
//! thread reads the verdicts before each append.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::Context;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use roomcast_core::cluster::Slot;
use roomcast_core::limits::{
    LOG_OP_AGE_MAX, LOG_RESERVE_BYTES, LOG_SIZE_INTERVAL, LOG_STREAMS, PROOF_INTERVAL, PROOF_RETRY,
};

use super::log::streams_of;
use super::proof::{self, Proven};
use super::streams::Streams;
use crate::nats::Login;

/// The verdicts, shared between the tasks that watch and the log's thread.
#[derive(Debug)]
pub(super) struct Guard {
    /// The reason for which no append may be sent.
    unproven: Mutex<Option<String>>,
    /// Stream -> only claims have room.
    full: [AtomicBool; LOG_STREAMS],
}

impl Guard {
    pub(super) fn new() -> Self {
        Self { unproven: Mutex::new(None), full: array::from_fn(|_| AtomicBool::new(false)) }
    }

    /// The reason for which messages could be lost. `None`: the servers sync.
    pub(super) fn unproven(&self) -> Option<String> {
        self.unproven.lock().clone()
    }

    /// True if the slot's stream takes no more rows.
    pub(super) fn is_full(&self, slot: Slot) -> bool {
        self.full[slot.index() % LOG_STREAMS].load(Ordering::Relaxed)
    }

    /// Asks the servers if they sync: after each reconnect, and now and then. `proven` is the proof of the start.
    pub(super) async fn keep_proving(
        self: Arc<Self>,
        login: Login,
        streams: Arc<Streams>,
        reconnected: Arc<Notify>,
        proven: Proven,
    ) {
        let mut pause = pause_after(&proven);
        loop {
            tokio::select! {
                () = reconnected.notified() => {}
                () = sleep(pause) => {}
            }
            let verdict = proof::ask(&login, &streams.servers).await;
            pause = verdict.as_ref().map_or(PROOF_RETRY, pause_after);
            let why = verdict.err().map(|why| why.to_string());
            let former = std::mem::replace(&mut *self.unproven.lock(), why.clone());
            match (former, why) {
                (None, Some(why)) => error!(why, "reliable messages are refused"),
                (Some(_), None) => info!("the NATS servers sync before they acknowledge"),
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
    }

    /// Looks at the sizes of the streams.
    pub(super) async fn keep_measuring(self: Arc<Self>, jetstream: Context, name: String) {
        loop {
            for (number, full) in self.full.iter().enumerate() {
                let stream = format!("{}_{number}", streams_of(&name));
                // The last size counts while JetStream is silent.
                let Ok(Ok(stream)) = timeout(LOG_OP_AGE_MAX, jetstream.get_stream(&stream)).await else {
                    continue;
                };
                let info = stream.cached_info();
                // As it is now: an operator may have given the stream more space. Without a bound it is negative.
                let bytes_max = u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX);
                let is_full = info.state.bytes + LOG_RESERVE_BYTES >= bytes_max;
                if is_full && !full.swap(is_full, Ordering::Relaxed) {
                    warn!(
                        number,
                        bytes_max, "a stream of the log is full: its reliable messages are refused"
                    );
                }
                full.store(is_full, Ordering::Relaxed);
            }
            sleep(LOG_SIZE_INTERVAL).await;
        }
    }
}

/// The pause before the next question. A silent server may come back with another setting.
fn pause_after(proven: &Proven) -> Duration {
    if proven.silent.is_empty() { PROOF_INTERVAL } else { PROOF_RETRY }
}
