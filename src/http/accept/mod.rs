//! The loop in front of each door: accepts connections, bounded in number and in time, and speaks HTTP/1.1
//! with them.
//!
//! `places` says which connection gives way at a full door. `paced` puts a deadline on each step of a
//! connection. `misread` words the refusals of bytes that are no request. The meaning of a request is the
//! door's business: this module must not know a route.

mod descriptors;
mod misread;
pub(super) mod paced;
pub(crate) mod places;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::Extensions;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;

use crate::auth::{PROXY_HEAD_BYTES, Proxies, proxy_rest_bytes, proxy_source};
use crate::clock;
use crate::metrics::{DoorName, Dropped, Metrics};
use crate::seat::{Address, Seat};
use roomcast_core::limits::{
    ACCEPT_PAUSE_MAX, ACCEPT_PAUSE_MIN, DOOR_BUFFER_BYTES_MAX, DOORS_LINGER, HANDSHAKE_AGE_MAX,
    HEAD_BYTES_MAX, PROXY_BYTES_MAX,
};

use super::problem::Problem;
pub(crate) use descriptors::{Descriptors, DescriptorsHeld};
use paced::{PacedStream, Pulse};
use places::{Place, Places, Search};

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

    /// Answers one request.
    ///
    /// # Errors
    /// The problem is the answer to a mistake in the request.
    fn answer(&self, request: Request) -> impl Future<Output = Result<Answer, Problem>> + Send;
}

/// The peer of a request, as the door's loop knows it.
pub(super) fn visitor(extensions: &Extensions) -> Option<&Visitor> {
    extensions.get()
}

/// The shared parts of all doors' loops.
#[derive(Debug, Clone)]
pub(crate) struct Doorway {
    pub(crate) metrics: Metrics,
    pub(crate) descriptors: Descriptors,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) stop: Stop,
}

/// The peer of a request, as an extension of the request.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// The address that the peer's shares count for. `None`: a trusted proxy has not named one.
    pub(super) address: Option<Address>,
    pub(super) pulse: Arc<Pulse>,
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
    let Doorway { metrics, descriptors, proxies, mut stop } = doorway;
    // Declared after `stop`, so dropped before it: once the last receiver is gone, the port is free.
    let listener = listener;
    let places = Places::new(D::CONNECTIONS_MAX);
    let protocol = Arc::new(protocol());
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = ACCEPT_PAUSE_MIN;
                let peer = peer.ip();
                // All devices behind a proxy would look like one crowd.
                let address = (!proxies.trust(peer)).then(|| Address::of(peer));
                let descriptor = tokio::select! {
                    biased;
                    () = stopped(&mut stop) => return,
                    descriptor = places.spare(address, || descriptors.take(D::NAME)) => descriptor,
                };
                let Some(descriptor) = descriptor else {
                    metrics.dropped(D::NAME, Dropped::Full);
                    continue;
                };
                let pulse = Arc::new(Pulse::new(clock::now().instant));
                // Further connections wait in the kernel's queue, where they cost no descriptor.
                let place = tokio::select! {
                    biased;
                    () = stopped(&mut stop) => return,
                    place = places.take(address, Arc::clone(&pulse)) => place,
                };
                let visit = Visit {
                    peer,
                    pulse,
                    _descriptor: descriptor,
                    metrics: metrics.clone(),
                    proxies: Arc::clone(&proxies),
                    stop: stop.clone(),
                };
                let door = Arc::clone(&door);
                let protocol = Arc::clone(&protocol);
                match place {
                    Search::Found(place) => drop(tokio::spawn(visit.serve(place, stream, door, protocol))),
                    // Off this loop: the next connection may be of an address that holds less.
                    Search::Aside => {
                        let places = places.clone();
                        tokio::spawn(async move {
                            if let Some(place) = visit.waits_aside::<D>(&places, address, &stream).await {
                                visit.serve(place, stream, door, protocol).await;
                            }
                        });
                    }
                }
            }
            Err(error) if is_of_one_connection(&error) => {
                debug!(door = D::NAME.name(), %error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                metrics.accept_failed(D::NAME, &error);
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
    /// The other end of the socket: the device, or a proxy.
    peer: IpAddr,
    pulse: Arc<Pulse>,
    /// Given back, like the place, when the connection ends or becomes a device.
    _descriptor: Seat,
    metrics: Metrics,
    proxies: Arc<Proxies>,
    stop: Stop,
}

impl Visit {
    /// Waits for a place as a newcomer of the address that holds most. `None`: the connection is to be closed.
    async fn waits_aside<D: Door>(
        &self,
        places: &Places,
        address: Option<Address>,
        stream: &TcpStream,
    ) -> Option<Place> {
        let mut stop = self.stop.clone();
        let place = tokio::select! {
            biased;
            () = stopped(&mut stop) => return None,
            // Nobody waits any more: the descriptor, and the turn aside, are others'.
            () = gone(stream) => return None,
            place = places.take_aside(address, Arc::clone(&self.pulse), HANDSHAKE_AGE_MAX) => place,
        };
        if place.is_none() {
            self.metrics.dropped(D::NAME, Dropped::Full);
        }
        place
    }

    async fn serve<D: Door>(
        self,
        place: Place,
        mut stream: TcpStream,
        door: Arc<D>,
        protocol: Arc<http1::Builder>,
    ) {
        let Self { peer, pulse, _descriptor, metrics, proxies, mut stop } = self;
        // Nagle's algorithm would hold the small write of an answer back for up to 40 ms. A socket that
        // refuses the option is closed by its peer already.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let mut source = peer;
        if proxies.trust(peer) {
            // Boxed: few connections come through a proxy, and all of them carry this future.
            let named = Box::pin(named_source::<D>(&mut stream, &pulse, &mut stop, &metrics)).await;
            let Some(named) = named else { return };
            source = named.unwrap_or(peer);
            if !proxies.trust(source) {
                place.name(Address::of(source));
            }
        }
        let io = PacedStream::new(stream, D::IDLE_AGE_MAX.unwrap_or_default(), Arc::clone(&pulse));
        let answers = service_fn(|mut request: Request| {
            pulse.request_began();
            let address = address(&proxies, source, request.headers());
            request.extensions_mut().insert(Visitor { address, pulse: Arc::clone(&pulse) });
            let has_body = !request.body().is_end_stream();
            let door = &door;
            let pulse = &pulse;
            let metrics = &metrics;
            async move {
                // Boxed: an idle connection's future would otherwise carry two kilobytes of the last request.
                let mut answer = Box::pin(door.answer(request)).await.unwrap_or_else(Problem::into_answer);
                let is_refused = answer.status().is_client_error() || answer.status().is_server_error();
                pulse.request_answered(has_body && is_refused);
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
            note_failure::<D>(&error, &metrics);
        }
    }
}

/// The address that a proxy's header names; `Some(None)`: the header names none. `None`: the connection is over.
async fn named_source<D: Door>(
    stream: &mut TcpStream,
    pulse: &Pulse,
    stop: &mut Stop,
    metrics: &Metrics,
) -> Option<Option<IpAddr>> {
    let named = tokio::select! {
        biased;
        named = timeout(HANDSHAKE_AGE_MAX, proxy_header(stream)) => named,
        () = pulse.gives_way() => {
            metrics.dropped(D::NAME, Dropped::Full);
            return None;
        }
        () = stopped(stop) => return None,
    };
    match named {
        Ok(Ok(named)) => return Some(named),
        Ok(Err(error)) => debug!(door = D::NAME.name(), %error, "a proxy's header is broken"),
        Err(_) => metrics.dropped(D::NAME, Dropped::Late),
    }
    None
}

/// Counts and logs a connection that failed.
fn note_failure<D: Door>(error: &hyper::Error, metrics: &Metrics) {
    if error.is_parse() {
        // hyper has answered such a request by itself: 400, or 431 for a head that is too large.
        metrics.answered(D::NAME, StatusCode::BAD_REQUEST);
    }
    // hyper's error says what failed on the connection. It never quotes the request, which may hold a key.
    debug!(door = D::NAME.name(), %error, "a connection ended early");
}

/// Returns once the peer has ended a connection on which nothing came. Takes nothing from the socket.
async fn gone(stream: &TcpStream) {
    // The end of a connection with unread bytes is behind them. Its peer waits for an answer, or did.
    if let Ok(1..) = stream.peek(&mut [0]).await {
        std::future::pending::<()>().await;
    }
}

/// The address that a request's shares count for. `None`: a trusted proxy has not named one.
fn address(proxies: &Proxies, source: IpAddr, headers: &HeaderMap) -> Option<Address> {
    if !proxies.trust(source) {
        return Some(Address::of(source));
    }
    // Foreign bytes are the device's own claim, and must not hide the address that the proxy added.
    let lines = headers.get_all("x-forwarded-for").iter();
    let lines: Vec<_> = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    proxies.forwarded(lines.iter().map(|line| &**line)).map(Address::of)
}

/// Reads the header of the PROXY protocol, if the connection begins with one. Returns the address in the
/// header. Nothing else is taken from the socket.
async fn proxy_header(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut first = [0];
    // No request begins with a carriage return, so one byte tells a header from a request.
    if stream.peek(&mut first).await? == 0 || first != *b"\r" {
        return Ok(None);
    }
    let mut head = [0; PROXY_HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let rest_bytes = proxy_rest_bytes(&head).filter(|rest_bytes| *rest_bytes <= PROXY_BYTES_MAX);
    let mut rest = vec![0; rest_bytes.ok_or(io::ErrorKind::InvalidData)?];
    stream.read_exact(&mut rest).await?;
    proxy_source(&head, &rest).map_err(|()| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::task::yield_now;

    use super::*;
    use crate::seat::Seats;
    use roomcast_core::limits::DESCRIPTORS_KEPT;

    /// Longest wait for an end, on a machine with much other work.
    const ENDS_WITHIN: Duration = Duration::from_secs(20);

    /// Answers after a wait, so that hyper asks for more bytes while the door has its turn.
    #[derive(Debug)]
    struct Thoughtful;

    impl Door for Thoughtful {
        const NAME: DoorName = DoorName::Publisher;
        const CONNECTIONS_MAX: usize = 64;
        const IDLE_AGE_MAX: Option<Duration> = Some(Duration::from_millis(300));

        async fn answer(&self, request: Request) -> Result<Answer, Problem> {
            let turns = request.uri().path().len();
            for _ in 1..turns {
                yield_now().await;
            }
            Ok(Answer::default())
        }
    }

    fn doorway() -> (Doorway, watch::Sender<bool>) {
        let (sender, stop) = watch::channel(false);
        let descriptors = Descriptors::new(Seats::new(64), 64 + DESCRIPTORS_KEPT);
        let metrics = Metrics::new(1).unwrap();
        (Doorway { metrics, descriptors, proxies: Arc::default(), stop }, sender)
    }

    /// Silence ended in 7 of 10 cases: hyper slept without a timer if it had asked for bytes too early.
    #[tokio::test]
    async fn silence_after_an_answer_has_an_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (doorway, _stop) = doorway();
        tokio::spawn(accept(listener, Arc::new(Thoughtful), doorway));
        let mut idle = tokio::task::JoinSet::new();
        for turns in 0..10 {
            for requests in 1..4 {
                idle.spawn(async move {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    let request = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(turns));
                    for _ in 0..requests {
                        stream.write_all(request.as_bytes()).await.unwrap();
                        let mut answer = Vec::new();
                        while !answer.ends_with(b"\r\n\r\n") {
                            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "an answer");
                        }
                    }
                    let end = timeout(ENDS_WITHIN, stream.read(&mut [0; 1])).await;
                    assert!(end.is_ok(), "{requests} requests, each answered after {turns} turns: no end");
                });
            }
        }
        while let Some(ended) = idle.join_next().await {
            ended.unwrap();
        }
    }
}
