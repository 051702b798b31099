//! What the loop remembers of a connection: little while it is idle, and a [`Flight`] while bytes are under way.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Version};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::stored::Stored;
use super::transport::Transport;
use crate::board::Entry;
use crate::h1::{Head, Receiver};
use crate::site::{BodyStream, Client, FileRange, Origin, Piece};

/// A connection. An idle one is all there is of it: no buffer, no parser.
#[derive(Debug)]
pub(super) struct Connection {
    pub socket: OwnedFd,
    pub transport: Transport,
    /// The other end or, where the PROXY protocol names another, that one.
    pub client: Client,
    pub flight: Option<Box<Flight>>,
    /// Bytes, the end or an error may be there to be received (edge-triggered: known until EAGAIN).
    pub readable: bool,
    pub writable: bool,
    /// The client has ended its side: behind the last byte the end is there to be received, of which epoll tells no more.
    pub ended: bool,
    /// Its next turn comes without an event.
    pub queued: bool,
    /// At least one request was answered here.
    pub kept: bool,
    /// Everything is sent and said; what the client still sends is thrown away until it hears of the end.
    pub lingering: bool,
    /// The PROXY protocol has not yet said who the client is.
    pub awaits_introduction: bool,
    /// It said that it does not know: the client is somebody behind the other end, who says nothing of others that counts.
    pub is_stranger: bool,
    watched: Watched,
}

/// What epoll watches. Most connections never need more than `Reads`, and one that is served and closed at once
/// needs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    Nothing,
    Reads,
    ReadsAndWrites,
}

impl Connection {
    /// A connection that was just accepted: its first request is probably there.
    pub const fn new(socket: OwnedFd, transport: Transport, client: Client) -> Self {
        let watched = Watched::Nothing;
        let (readable, writable, ended) = (true, true, false);
        Self {
            socket,
            transport,
            client,
            flight: None,
            readable,
            writable,
            ended,
            queued: false,
            kept: false,
            lingering: false,
            awaits_introduction: false,
            is_stranger: false,
            watched,
        }
    }

    /// All that it has open: its socket, and files that go one way or the other.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let files = self.flight.iter().flat_map(|flight| flight.files());
        files.map(AsRawFd::as_raw_fd).chain([self.socket.as_raw_fd()])
    }

    /// Whether any other loop could go on with it as it is: it is idle, and all that is known of it can be told.
    pub fn is_portable(&self) -> bool {
        self.flight.is_none() && !self.lingering && !self.awaits_introduction && !self.is_tls()
    }

    /// Has the loop hear no more of it, though it is not closed: another process has it too.
    pub fn unwatch(&mut self, registry: &Registry) {
        if std::mem::replace(&mut self.watched, Watched::Nothing) != Watched::Nothing {
            // What was registered and is open can be taken out (epoll_ctl(2)).
            let _ = registry.deregister(&mut SourceFd(&self.socket.as_raw_fd()));
        }
    }

    /// Sees to it that the loop hears of what this connection waits for.
    pub fn watch(&mut self, registry: &Registry, index: usize) -> std::io::Result<()> {
        let fd = self.socket.as_raw_fd();
        match (self.watched, self.writable) {
            (Watched::Nothing, true) => {
                registry.register(&mut SourceFd(&fd), Token(index), Interest::READABLE)?;
                self.watched = Watched::Reads;
            }
            (Watched::Nothing, false) => {
                registry.register(&mut SourceFd(&fd), Token(index), Interest::READABLE | Interest::WRITABLE)?;
                self.watched = Watched::ReadsAndWrites;
            }
            (Watched::Reads, false) => {
                registry.reregister(&mut SourceFd(&fd), Token(index), Interest::READABLE | Interest::WRITABLE)?;
                self.watched = Watched::ReadsAndWrites;
            }
            (Watched::Reads, true) | (Watched::ReadsAndWrites, _) => {}
        }
        Ok(())
    }
}

/// What a connection needs while bytes are under way. Reused by other connections after.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub receiver: Receiver,
    pub phase: Phase,
    /// Received and not yet consumed.
    pub input: Vec<u8>,
    /// When the last head was complete.
    pub began: Duration,
    /// When the next one was, where a sibling received it.
    pub began_elsewhere: Option<Duration>,
    /// Of the request whose body arrives.
    pub head: Option<Head>,
    /// Of the request whose head was complete last.
    pub origin: Option<Origin>,
    pub body: Stored,
    pub underway: Option<Underway>,
    /// The handler has returned without an answer, which somebody else may yet give.
    pub left_open: bool,
    /// To be sent, from `sent` on.
    pub out: Vec<u8>,
    pub sent: usize,
    /// What follows `out`.
    pub source: Source,
    /// What follows the source.
    pub pieces: std::vec::IntoIter<Piece>,
    pub ending: Ending,
    /// How much of what was sent the client had not taken when the write timer ran out last.
    pub untaken: Option<i32>,
}

/// Where an exchange is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Receiving,
    /// A handler has it.
    Handling,
    Sending,
    /// The next chunk is made, beside the loop.
    Pulling,
}

/// What becomes of the connection once everything is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    #[default]
    Keep,
    Close,
    /// The client may still be sending: closing at once would reset the connection and could destroy the answer.
    Linger,
    /// The response is broken: the client must not take it for whole.
    Reset,
}

/// A response's body, as far as it is not in `out`.
#[derive(Debug, Default)]
pub(super) enum Source {
    #[default]
    Nothing,
    Bytes(Bytes),
    File(FileRange),
    Stream(Stream),
}

impl Source {
    /// How many bytes of a known length have not been sent.
    pub fn left(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(part) => part.len(),
            Self::Nothing | Self::Stream(_) => 0,
        }
    }
}

/// A body that is asked for chunk by chunk.
pub(super) struct Stream {
    /// Not here while a chunk is made beside the loop.
    pub chunks: Option<BodyStream>,
    /// How many bytes are left of a length that was promised.
    pub left: Option<u64>,
    /// Whether it travels in chunks.
    pub chunked: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

/// What is remembered of a request while it is answered: for the response, and for the log.
#[derive(Debug)]
pub(super) struct Underway {
    pub serial: u64,
    /// Where the scoreboard has it.
    pub entry: Entry,
    pub client: Client,
    pub method: Method,
    pub version: Version,
    pub target: Bytes,
    pub referer: Option<HeaderValue>,
    pub user_agent: Option<HeaderValue>,
    /// The client can be answered again on this connection.
    pub keep_alive: bool,
    /// Its handler may block, and so may the stream that it answers with.
    pub may_block: bool,
    pub started: Duration,
    pub status: StatusCode,
    pub body_bytes: u64,
}

impl Underway {
    /// Method and target, for the error log, which escapes what could forge a line.
    pub fn shown(&self) -> String {
        format!("{} {}", self.method, String::from_utf8_lossy(&self.target))
    }

    /// The same, and who asks.
    pub fn asked(&self) -> String {
        format!("{} from {}", self.shown(), self.client)
    }
}

/// Buffers above this are not kept for the next flight.
const KEPT_CAPACITY: usize = 64 << 10;

impl Flight {
    /// Nothing is under way.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Receiving
            && self.receiver.is_idle()
            && self.input.is_empty()
            && self.out.is_empty()
            && self.head.is_none()
    }

    /// Whether it waits for a handler, and so finds out in no other way that its client is gone.
    pub fn waits(&self) -> bool {
        matches!(self.phase, Phase::Handling | Phase::Pulling)
    }

    /// Whether the next bytes of input may be looked at.
    pub fn may_consume(&self) -> bool {
        self.phase == Phase::Receiving && self.ending == Ending::Keep && self.out.len() < KEPT_CAPACITY
    }

    /// Whether a response has begun that is not wholly in the kernel's hands.
    pub fn is_sending(&self) -> bool {
        self.underway.is_some() || self.sent < self.out.len()
    }

    /// Where its bodies are kept or come from.
    fn files(&self) -> impl Iterator<Item = &File> {
        let source = match &self.source {
            Source::File(part) => Some(part),
            Source::Nothing | Source::Bytes(_) | Source::Stream(_) => None,
        };
        let pieces = self.pieces.as_slice().iter().filter_map(|piece| match piece {
            Piece::File(part) => Some(part),
            Piece::Bytes(_) => None,
        });
        source.into_iter().chain(pieces).map(|part| part.file.as_ref()).chain(self.body.file())
    }

    /// Prepares it for another connection.
    pub fn reset(&mut self) {
        let mut fresh = Self::default();
        for (new, old) in [(&mut fresh.input, &mut self.input), (&mut fresh.out, &mut self.out)] {
            if old.capacity() <= KEPT_CAPACITY {
                old.clear();
                std::mem::swap(new, old);
            }
        }
        *self = fresh;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // With its timer and twice the room a growing table may have, below 256 bytes.
        assert!(size_of::<Connection>() <= 64, "{}", size_of::<Connection>());
    }
}
