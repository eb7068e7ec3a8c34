//! What the servers that stand in for the engine share: a thread per connection.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// Serves every connection of a listener on a thread of its own.
pub(crate) fn accept(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) {
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
}
