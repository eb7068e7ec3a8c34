//! A way to a server over loopback that can be cut, in one direction or in both. The bytes of a cut way stay where
//! they are, as behind a network that drops each packet: nobody's connection ends.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The directions that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) to_server: bool,
    pub(crate) to_client: bool,
}

impl Open {
    pub(crate) const BOTH: Self = Self { to_server: true, to_client: true };
    pub(crate) const NONE: Self = Self { to_server: false, to_client: false };
}

/// A way to a server.
#[derive(Debug)]
pub(crate) struct Way {
    /// The clients' end.
    pub(crate) address: SocketAddr,
    open: watch::Sender<Open>,
}

impl Way {
    /// An open way to `server`, for any number of connections.
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_open) = watch::channel(Open::BOTH);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, is_open.clone(), |open| open.to_server));
                tokio::spawn(carry(from_server, to_client, is_open.clone(), |open| open.to_client));
            }
        });
        Self { address, open }
    }

    pub(crate) fn set(&self, open: Open) {
        self.open.send_replace(open);
    }
}

/// Carries bytes while the direction is open, until an end is gone.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_open: watch::Receiver<Open>,
    direction: fn(&Open) -> bool,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let sent = async {
            is_open.wait_for(direction).await.ok()?;
            to.write_all(&bytes[..count]).await.ok()
        };
        if sent.await.is_none() {
            return;
        }
    }
}
