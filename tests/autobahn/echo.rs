//! An echo server over the engine's own reader of device frames, for Autobahn's fuzzing client
//! (`tests/autobahn/run.sh`). The client shows that the reader keeps to RFC 6455. This server is not a door:
//! one small handshake, no limits on connections, no deadlines.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use roomcast_core::wire::reader::{FrameReader, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Autobahn's largest message is 16 MiB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const SCRATCH_BYTES: usize = 64 << 10;
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// The answer to a close frame without a code.
const NORMAL: u16 = 1000;
/// The time for the other side to read the close frame.
const LINGER: Duration = Duration::from_secs(1);

/// `autobahn-echo [ADDRESS]`, 127.0.0.1:7690 by default.
#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7690".to_owned());
    let listener = TcpListener::bind(&address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A connection that fails ends alone. Autobahn's report has its verdict.
        drop(tokio::spawn(async move { echo(stream).await.ok() }));
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut scratch = vec![0; SCRATCH_BYTES];
    let mut read_bytes = handshake(&mut stream, &mut scratch).await?;
    let mut reader = FrameReader::default();
    loop {
        let mut answer = Vec::new();
        let mut is_closed = false;
        let outcome = reader.feed(&mut scratch[..read_bytes], MESSAGE_BYTES_MAX, &mut |incoming| {
            match incoming {
                Incoming::Text(text) => push_frame(&mut answer, OpCode::Data(Data::Text), text.as_bytes()),
                Incoming::Binary(bytes) => push_frame(&mut answer, OpCode::Data(Data::Binary), bytes),
                Incoming::Ping(bytes) => push_frame(&mut answer, OpCode::Control(Control::Pong), bytes),
                Incoming::Fragment | Incoming::Pong => {}
                Incoming::Close(code) => {
                    let code = code.unwrap_or(NORMAL);
                    push_frame(&mut answer, OpCode::Control(Control::Close), &code.to_be_bytes());
                    is_closed = true;
                }
            }
            ControlFlow::Continue(())
        });
        if let Err(code) = outcome.map_err(|reason| reason.code().unwrap_or_default()) {
            push_frame(&mut answer, OpCode::Control(Control::Close), &code.to_be_bytes());
            is_closed = true;
        }
        stream.write_all(&answer).await?;
        if is_closed {
            return part(stream, &mut scratch).await;
        }
        read_bytes = stream.read(&mut scratch).await?;
        if read_bytes == 0 {
            return Ok(());
        }
    }
}

/// Answers the upgrade. Moves the bytes behind the request to the front of `scratch`, and returns their
/// number.
async fn handshake(stream: &mut TcpStream, scratch: &mut [u8]) -> io::Result<usize> {
    let mut read_bytes = 0;
    let head_bytes = loop {
        let more = stream.read(&mut scratch[read_bytes..REQUEST_BYTES_MAX]).await?;
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read_bytes += more;
        if let Some(end) = scratch[..read_bytes].windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&scratch[..head_bytes]);
    let key = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    });
    let accept = derive_accept_key(key.ok_or(io::ErrorKind::InvalidData)?.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    scratch.copy_within(head_bytes..read_bytes, 0);
    Ok(read_bytes - head_bytes)
}

fn push_frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Writing to a Vec cannot fail.
    header.format(payload.len() as u64, out).unwrap_or_default();
    out.extend_from_slice(payload);
}

/// Ends a connection after its close frame.
async fn part(mut stream: TcpStream, scratch: &mut [u8]) -> io::Result<()> {
    stream.shutdown().await?;
    // A socket closed with unread bytes sends a reset, which may overtake the close frame.
    let until_end = async { while stream.read(scratch).await.is_ok_and(|read_bytes| read_bytes > 0) {} };
    // Past the linger the socket is dropped all the same.
    tokio::time::timeout(LINGER, until_end).await.unwrap_or_default();
    Ok(())
}
