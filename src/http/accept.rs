//! The loop in front of each door: takes connections in, bounded in number and time, and speaks HTTP/1.1 with them.
//!
//! What a request means is the door's business (`http`). This file must not know a route.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::metrics::{DoorName, Dropped, Metrics};
use roomcast_core::limits::{
    ACCEPT_PAUSE_MAX, ACCEPT_PAUSE_MIN, DOOR_BUFFER_BYTES_MAX, DOORS_LINGER, HEAD_BYTES_MAX,
};

use super::paced::PacedStream;
use super::places::{Place, Places};
use crate::seat::{Seat, Seats};

/// What a door says to one request.
pub type Answer = Response<Full<Bytes>>;

/// One of the node's three doors.
pub trait Door: Send + Sync + 'static {
    /// Which one.
    const NAME: DoorName;
    /// How many connections it holds at one time, those that became devices not counted. Past it: they wait in the
    /// kernel's queue, and the one that has been without a whole request the longest gives way.
    const CONNECTIONS_MAX: usize;
    /// How long a connection may be silent between two requests; `None`: one request per connection.
    const IDLE_AGE_MAX: Option<Duration>;

    /// How many of the node's descriptors it leaves to others. The less a stranger may do at a door, the fewer.
    const DESCRIPTORS_LEFT: u64;

    /// Answers one request. Never fails: what is wrong with a request is an answer.
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// The process's descriptors, as far as connections take them: shared by all doors, so that no door can shut another
/// one out.
#[derive(Debug, Clone)]
pub struct Descriptors {
    devices: Seats,
    visits: Seats,
    descriptors_max: u64,
}

impl Descriptors {
    /// `descriptors_max` of them, some of which `devices` hold.
    #[must_use]
    pub fn new(devices: Seats, descriptors_max: u64) -> Self {
        Self { devices, visits: Seats::new(u64::MAX), descriptors_max }
    }

    /// Takes one for a connection at a door, unless fewer than `left` would be left.
    fn take(&self, left: u64) -> Option<Seat> {
        let visit = self.visits.take();
        let taken = self.devices.taken() + self.visits.taken();
        visit.filter(|_| taken + left <= self.descriptors_max)
    }
}

/// What all doors share.
#[derive(Debug, Clone)]
pub struct Doorway {
    /// What operators see.
    pub metrics: Metrics,
    /// What connections may take.
    pub descriptors: Descriptors,
    /// When to stop.
    pub stop: Stop,
}

/// Whether the doors are to stop: all loops end once it turns true.
pub type Stop = watch::Receiver<bool>;

/// Waits until the doors are to stop; a server that is gone has stopped, too.
pub async fn stopped(stop: &mut Stop) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Takes connections in until told to stop. A failure to accept (descriptors run out, say) pauses this door alone.
pub async fn accept<D: Door>(listener: TcpListener, door: Arc<D>, doorway: Doorway) {
    let Doorway { metrics, descriptors, mut stop } = doorway;
    // Declared after `stop`, and so dropped before it: whoever sees the last receiver go finds the port free.
    let listener = listener;
    let mut places = Places::new(D::CONNECTIONS_MAX);
    let protocol = Arc::new(protocol());
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                pause = ACCEPT_PAUSE_MIN;
                let Some(descriptor) = descriptors.take(D::DESCRIPTORS_LEFT) else {
                    metrics.dropped(D::NAME, Dropped::Full);
                    continue;
                };
                // Those behind it wait in the kernel's queue: whoever came to say something gets to say it.
                let place = tokio::select! {
                    biased;
                    () = stopped(&mut stop) => return,
                    place = places.take() => place,
                };
                let visit =
                    Visit { place, _descriptor: descriptor, metrics: metrics.clone(), stop: stop.clone() };
                tokio::spawn(visit.serve(stream, Arc::clone(&door), Arc::clone(&protocol)));
            }
            Err(error) if is_of_one_connection(&error) => {
                debug!(door = D::NAME.name(), %error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                metrics.accept_failed(D::NAME);
                warn!(door = D::NAME.name(), %error, ?pause, "cannot accept connections");
                // Without a pause this loop would spin: the connection stays at the head of the kernel's queue.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
}

/// Errors that say something of one connection and nothing of the next.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Whether a connection ends with an answer of this status. Whoever has shown no right to be here gets no place to keep.
fn is_last<D: Door>(status: StatusCode) -> bool {
    match status {
        StatusCode::SWITCHING_PROTOCOLS => false,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
        _ => D::IDLE_AGE_MAX.is_none(),
    }
}

fn protocol() -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        // Its deadlines are PacedStream's.
        .header_read_timeout(None)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(DOOR_BUFFER_BYTES_MAX);
    protocol
}

/// One connection at a door.
struct Visit {
    /// Given back, like the descriptor, when the connection ends or becomes a device.
    place: Place,
    _descriptor: Seat,
    metrics: Metrics,
    stop: Stop,
}

impl Visit {
    async fn serve<D: Door>(self, stream: TcpStream, door: Arc<D>, protocol: Arc<http1::Builder>) {
        let Self { place, _descriptor, metrics, mut stop } = self;
        // An answer is one small write; waiting for more to send with it would cost the publisher 40 ms.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let pulse = Arc::clone(&place.pulse);
        let io = PacedStream::new(stream, D::IDLE_AGE_MAX.unwrap_or_default(), Arc::clone(&pulse));
        let answers = service_fn(|request| {
            pulse.request_began();
            let answer = Arc::clone(&door).answer(request);
            let (pulse, metrics) = (&pulse, &metrics);
            async move {
                let mut answer = answer.await;
                pulse.request_answered();
                if is_last::<D>(answer.status()) {
                    answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
                }
                metrics.answered(D::NAME, answer.status());
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = protocol.serve_connection(io, answers).with_upgrades();
        tokio::pin!(connection);
        let outcome = tokio::select! {
            biased;
            outcome = connection.as_mut() => outcome,
            () = pulse.gives_way() => {
                metrics.dropped(D::NAME, Dropped::Full);
                return;
            }
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                timeout(DOORS_LINGER, connection).await.unwrap_or(Ok(()))
            }
        };
        if pulse.was_late() {
            metrics.dropped(D::NAME, Dropped::Late);
        }
        if let Err(error) = outcome {
            if error.is_parse() {
                // hyper has answered it by itself: 400, or 431 for a head too large.
                metrics.answered(D::NAME, StatusCode::BAD_REQUEST);
            }
            // hyper's error names what went wrong with the connection, never what the request said.
            debug!(door = D::NAME.name(), %error, "a connection ended early");
        }
    }
}
