//! The TLS session of one connection: what arrived is opened, what is to be said is sealed. Holds no socket.

use std::fmt;
use std::io::{self, BufRead as _, Write as _};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

/// How many sealed bytes may wait for the client to take them; what is said beyond is not taken yet.
const SEALED_BYTES: usize = 64 << 10;

/// What a client may send until both sides know each other. A hello with every key of tomorrow takes a tenth of it, and
/// who sends more wants memory.
const HANDSHAKE_BYTES: usize = 16 << 10;

/// A session.
pub(crate) struct Session {
    connection: ServerConnection,
    /// How many bytes the handshake may still take.
    handshake_left: usize,
    /// The client has said that it will say nothing more.
    ended: bool,
}

/// Why a session does not go on.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The client speaks HTTP without TLS.
    PlainHttp,
    /// What it said is not TLS, or nothing that both sides can agree on. An alert for it waits to be sent.
    Broken(rustls::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlainHttp => f.write_str("plain HTTP came to a port for TLS"),
            Self::Broken(cause) => write!(f, "TLS: {cause}"),
        }
    }
}

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Refusal> {
        let mut connection = ServerConnection::new(config).map_err(Refusal::Broken)?;
        connection.set_buffer_limit(Some(SEALED_BYTES));
        Ok(Self { connection, handshake_left: HANDSHAKE_BYTES, ended: false })
    }

    /// Takes what arrived, and appends what the client said to `opened`.
    pub fn open(&mut self, mut arrived: &[u8], opened: &mut Vec<u8>) -> Result<(), Refusal> {
        if self.handshake_left == HANDSHAKE_BYTES && arrived.first().is_some_and(u8::is_ascii_alphabetic) {
            return Err(Refusal::PlainHttp);
        }
        while !arrived.is_empty() {
            match self.connection.read_tls(&mut arrived) {
                // Behind its end a client says nothing that counts.
                Ok(0) => break,
                Ok(taken) if self.connection.is_handshaking() => {
                    self.handshake_left = self.handshake_left.checked_sub(taken).ok_or_else(too_long)?;
                }
                Ok(_) => {}
                Err(_) => return Err(too_long()),
            }
            self.ended = self.connection.process_new_packets().map_err(Refusal::Broken)?.peer_has_closed();
            let mut reader = self.connection.reader();
            while let Ok(said @ [_, ..]) = reader.fill_buf() {
                let length = said.len();
                opened.extend_from_slice(said);
                reader.consume(length);
            }
        }
        Ok(())
    }

    /// Seals some of what is to be said, and returns how much: all, unless much was sealed before and is not sent.
    pub fn seal(&mut self, first: &[u8], second: &[u8]) -> usize {
        // Writing fails never; it stops where the room ends.
        self.connection.writer().write_vectored(&[io::IoSlice::new(first), io::IoSlice::new(second)]).unwrap_or(0)
    }

    /// Says that nothing more will be said (RFC 8446, section 6.1).
    pub fn seal_end(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether something sealed is to be sent.
    pub fn has_sealed(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes what is sealed, as much as `to` takes in one call.
    pub fn write_to(&mut self, to: &mut dyn io::Write) -> io::Result<usize> {
        self.connection.write_tls(to)
    }

    /// Whether the client has said that it will say nothing more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}

fn too_long() -> Refusal {
    Refusal::Broken(rustls::Error::General("a message without end".into()))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}
