//! The loop in front of each door: accepts connections, bounded in number and in time, and speaks HTTP/1.1
//! with them.
//!
//! `places` says which connection gives way at a full door. `paced` puts a deadline on each step of a
//! connection. The meaning of a request is the door's business: this module must not know a route.

pub(super) mod paced;
mod places;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::metrics::{DoorName, Dropped, Metrics};
use crate::seat::{Seat, Seats};
use roomcast_core::limits::{
    ACCEPT_PAUSE_MAX, ACCEPT_PAUSE_MIN, DOOR_BUFFER_BYTES_MAX, DOORS_LINGER, HEAD_BYTES_MAX,
};

use super::problem::Problem;
use paced::PacedStream;
use places::{Place, Places};

/// One request at a door, with its body still unread.
pub(crate) type Request = hyper::Request<Incoming>;

/// A door's answer to one request.
pub(crate) type Answer = Response<Full<Bytes>>;

/// One of the node's three doors.
pub(crate) trait Door: Send + Sync + 'static {
    /// The door's label in metrics and log lines.
    const NAME: DoorName;
    /// Connections at the door at the same time; upgraded devices are not counted. Past the bound, further
    /// connections wait in the kernel's queue, and the longest silent one gives way.
    const CONNECTIONS_MAX: usize;
    /// Silence allowed between two requests. `None`: one request per connection.
    const IDLE_AGE_MAX: Option<Duration>;

    /// Descriptors left to other uses. The less a stranger may do at a door, the smaller the
    /// number.
    const DESCRIPTORS_LEFT: u64;

    /// Answers one request.
    ///
    /// # Errors
    /// The problem is the answer to a mistake in the request.
    fn answer(&self, request: Request) -> impl Future<Output = Result<Answer, Problem>> + Send;
}

/// The process's descriptors for connections, shared by all doors: no door can use up the descriptors of
/// another.
#[derive(Debug, Clone)]
pub(crate) struct Descriptors {
    devices: Seats,
    visits: Seats,
    descriptors_max: u64,
}

impl Descriptors {
    /// At most `descriptors_max` descriptors in all, the seats of `devices` included.
    pub(crate) fn new(devices: Seats, descriptors_max: u64) -> Self {
        Self { devices, visits: Seats::new(u64::MAX), descriptors_max }
    }

    /// Takes a descriptor for a connection at a door, unless fewer than `left` would remain.
    fn take(&self, left: u64) -> Option<Seat> {
        // Taken first and weighed afterwards: two doors that ask at once may both be refused, never both let
        // in.
        let visit = self.visits.take();
        let taken = self.devices.taken() + self.visits.taken();
        visit.filter(|_| taken + left <= self.descriptors_max)
    }
}

/// The shared parts of all doors' loops.
#[derive(Debug, Clone)]
pub(crate) struct Doorway {
    pub(crate) metrics: Metrics,
    pub(crate) descriptors: Descriptors,
    pub(crate) stop: Stop,
}

/// Turns true when the doors must stop. Every loop of the doors ends then.
pub(crate) type Stop = watch::Receiver<bool>;

/// Returns when the doors must stop.
pub(crate) async fn stopped(stop: &mut Stop) {
    // An error says that the server was dropped without a drain: the doors stop as well.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Accepts connections until the doors stop. A failed accept (no descriptors, for example) pauses this door
/// alone.
pub(crate) async fn accept<D: Door>(listener: TcpListener, door: Arc<D>, doorway: Doorway) {
    let Doorway { metrics, descriptors, mut stop } = doorway;
    // Declared after `stop`, so dropped before it: once the last receiver is gone, the port is free.
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
                // Closed at once: a connection that waited here would hold a descriptor that nobody can
                // spare.
                let Some(descriptor) = descriptors.take(D::DESCRIPTORS_LEFT) else {
                    metrics.dropped(D::NAME, Dropped::Full);
                    continue;
                };
                // Further connections wait in the kernel's queue, where they cost no descriptor.
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
                warn!(door = D::NAME.name(), %error, ?pause, "cannot accept connections; the door pauses");
                // Without a pause this loop would spin: the connection stays at the head of the kernel's
                // queue.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
}

/// True for an error of the accepted connection alone. The next accept may succeed, so no pause is due.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// True if an answer with this status is the connection's last one.
fn is_last<D: Door>(status: StatusCode) -> bool {
    match status {
        // The connection goes on as a WebSocket.
        StatusCode::SWITCHING_PROTOCOLS => false,
        // A stranger must not occupy one of the door's places between two guesses.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
        _ => D::IDLE_AGE_MAX.is_none(),
    }
}

fn protocol() -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        // PacedStream has its own deadline for heads; its file says why hyper's does not fit.
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
        // Nagle's algorithm would hold the small write of an answer back for up to 40 ms. A socket that
        // refuses the option is closed by its peer already.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let pulse = Arc::clone(&place.pulse);
        let io = PacedStream::new(stream, D::IDLE_AGE_MAX.unwrap_or_default(), Arc::clone(&pulse));
        let answers = service_fn(|request| {
            pulse.request_began();
            let door = &door;
            let pulse = &pulse;
            let metrics = &metrics;
            async move {
                // Boxed: an idle connection's future would otherwise carry two kilobytes of the last request.
                let mut answer = Box::pin(door.answer(request)).await.unwrap_or_else(Problem::into_answer);
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
                // A request under way is still answered; an idle connection closes at once.
                connection.as_mut().graceful_shutdown();
                timeout(DOORS_LINGER, connection).await.unwrap_or(Ok(()))
            }
        };
        if pulse.late.load(Ordering::Relaxed) {
            metrics.dropped(D::NAME, Dropped::Late);
        }
        if let Err(error) = outcome {
            if error.is_parse() {
                // hyper has answered such a request by itself: 400, or 431 for a head that is too large.
                metrics.answered(D::NAME, StatusCode::BAD_REQUEST);
            }
            // hyper's error says what failed on the connection. It never quotes the request, which may hold a
            // key.
            debug!(door = D::NAME.name(), %error, "a connection ended early");
        }
    }
}
