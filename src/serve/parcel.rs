//! What goes with a connection that is handed over, as a message: who its client is, how far it is, and what was received
//! of it. Knows no queue and no loop.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use super::connection::Connection;
use crate::h1;
use crate::site::{Client, Exchange};
use crate::sys;
use crate::sys::message::{self, Patience};

/// A longer message has its bytes in a file in memory.
const INLINE_BYTES: usize = 60 << 10;

/// What a message brings at most: a connection, and a file with its bytes.
pub(super) const DESCRIPTORS: usize = 2;

/// Puts an idle connection where others take it.
pub(super) fn put_idle(socket: &OwnedFd, connection: &Connection) -> io::Result<()> {
    let stage = if connection.kept { Stage::Kept } else { Stage::Fresh };
    let message = Head::of(connection, stage).write();
    message::send(socket, &message, &[connection.socket.as_raw_fd()], Patience::DoNotWait)
}

/// Puts a connection, with its request and what came after, where siblings take it.
pub(super) fn put_request(socket: &OwnedFd, connection: &Connection, exchange: &Exchange) -> io::Result<()> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let flight = connection.flight.as_deref().ok_or_else(missing)?;
    let underway = flight.underway.as_ref().ok_or_else(missing)?;
    let request = exchange.request();
    let body = request.body().in_memory().ok_or_else(missing)?;
    let mut message = Head::of(connection, Stage::Asked(underway.started)).write();
    let head_bytes = message.len();
    h1::encode_request(&mut message, request.method(), &underway.target, request.version(), request.headers(), body);
    message.extend_from_slice(&flight.input);
    let connection = connection.socket.as_raw_fd();
    if message.len() <= INLINE_BYTES {
        return message::send(socket, &message, &[connection], Patience::DoNotWait);
    }
    let (head, bytes) = message.split_at(head_bytes);
    let file = sys::shared::file_with(bytes)?;
    message::send(socket, head, &[connection, file.as_raw_fd()], Patience::DoNotWait)
}

/// What a message begins with: what its receiver can find out neither from the bytes behind it nor from the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub stage: Stage,
    pub client: Client,
    pub is_stranger: bool,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was received yet.
    Fresh,
    /// All that was received is answered.
    Kept,
    /// A request, which follows, waits for a handler. When its head was complete.
    Asked(Duration),
}

/// The words of a head.
const FRESH: &str = "fresh";
const KEPT: &str = "kept";
/// A client without an address.
const UNIX: &str = "unix";

impl Head {
    fn of(connection: &Connection, stage: Stage) -> Self {
        Self { stage, client: connection.client, is_stranger: connection.is_stranger }
    }

    /// As a line.
    fn write(&self) -> Vec<u8> {
        let stage = match self.stage {
            Stage::Fresh => FRESH.to_owned(),
            Stage::Kept => KEPT.to_owned(),
            Stage::Asked(began) => began.as_nanos().to_string(),
        };
        let client = self.client.address().map_or_else(|| UNIX.to_owned(), |address| address.to_string());
        format!("{stage} {client} {}\n", self.is_stranger).into_bytes()
    }

    /// And what is behind it.
    pub fn read(message: &[u8]) -> Option<(Self, &[u8])> {
        let (line, behind) = message.split_at(message.iter().position(|&byte| byte == b'\n')?);
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let stage = match words.next()? {
            FRESH => Stage::Fresh,
            KEPT => Stage::Kept,
            began => Stage::Asked(Duration::from_nanos(began.parse().ok()?)),
        };
        let client = match words.next()? {
            UNIX => Client::Unix,
            address => Client::Ip(address.parse().ok()?),
        };
        let is_stranger = words.next()?.parse().ok()?;
        Some((Self { stage, client, is_stranger }, &behind[1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_and_how_far_it_is_goes_with_a_connection() {
        let address = |text: &str| Client::Ip(text.parse().unwrap());
        let addresses = ["203.0.113.7:0", "[::ffff:1.2.3.4]:5", "[fe80::1%3]:80"];
        for client in addresses.map(address).into_iter().chain([Client::Unix]) {
            for stage in [Stage::Fresh, Stage::Kept, Stage::Asked(Duration::from_millis(5))] {
                for is_stranger in [false, true] {
                    let head = Head { stage, client, is_stranger };
                    let message = [&head.write()[..], b"GET /\n\n"].concat();
                    assert_eq!(Head::read(&message), Some((head, &b"GET /\n\n"[..])));
                }
            }
        }
        for wrong in ["", "1 unix false", "1 unix\n", "1 nobody false\n", "x unix false\n", "kept unix\n"] {
            assert_eq!(Head::read(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
