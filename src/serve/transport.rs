//! How a connection's bytes travel: as they are, or within TLS. To everybody else here both look alike. Knows no HTTP.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use super::connection::Connection;
use crate::listen::Entrance;
use crate::listen::tls::{Refusal, Session};
use crate::sys;

/// What lies between the socket and HTTP.
#[derive(Debug)]
pub(super) enum Transport {
    Plain,
    Tls(Box<Session>),
}

/// What was received.
pub(super) enum Received<'a> {
    /// How many bytes arrived, and what the client says with them.
    Bytes(usize, &'a [u8]),
    /// The client will say nothing more.
    End,
    /// TLS does not go on. An alert that says why may wait to be sent.
    Refused(Refusal),
}

impl Connection {
    /// Begins as the entrance demands, with the next byte that arrives.
    pub fn begin(&mut self, entrance: &Entrance) -> Result<(), Refusal> {
        if let Some(acceptor) = &entrance.tls {
            self.transport = Transport::Tls(acceptor.session()?);
        }
        Ok(())
    }

    pub const fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// Whether receiving may give something.
    pub fn can_receive(&self) -> bool {
        self.readable || matches!(&self.transport, Transport::Tls(session) if session.has_ended())
    }

    /// Receives as much as `buffer` holds, and opens it into `opened` where it is sealed.
    pub fn receive<'a>(&mut self, buffer: &'a mut [u8], opened: &'a mut Vec<u8>) -> io::Result<Received<'a>> {
        if matches!(&self.transport, Transport::Tls(session) if session.has_ended()) {
            return Ok(Received::End);
        }
        let arrived = sys::socket::receive(self.socket.as_fd(), buffer)?;
        if arrived == 0 {
            return Ok(Received::End);
        }
        // Less than asked for: there is no more, and epoll tells of the next (epoll(7)).
        self.readable = arrived == buffer.len() || self.ended;
        let bytes = &buffer[..arrived];
        let Transport::Tls(session) = &mut self.transport else { return Ok(Received::Bytes(arrived, bytes)) };
        opened.clear();
        match session.open(bytes, opened) {
            Ok(()) => Ok(Received::Bytes(arrived, opened)),
            Err(refusal @ Refusal::PlainHttp) => {
                self.transport = Transport::Plain;
                Ok(Received::Refused(refusal))
            }
            Err(refusal @ Refusal::Broken(_)) => Ok(Received::Refused(refusal)),
        }
    }

    /// Sends some of two pieces, and returns how much is taken; within TLS that may not have left yet.
    pub fn send(&mut self, first: &[u8], second: &[u8], more_follows: bool) -> io::Result<usize> {
        let socket = self.socket.as_fd();
        let Transport::Tls(session) = &mut self.transport else {
            return sys::socket::send(socket, first, second, more_follows);
        };
        // What the socket does not take now holds up what comes after it, not this.
        flush(session, socket)?;
        let taken = session.seal(first, second);
        match flush(session, socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(()) | Err(_) => Ok(taken),
        }
    }

    /// Sends what is sealed and waits for that.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.transport {
            Transport::Plain => Ok(()),
            Transport::Tls(session) => flush(session, self.socket.as_fd()),
        }
    }

    /// Whether something that was taken has not left.
    pub fn has_sealed(&self) -> bool {
        matches!(&self.transport, Transport::Tls(session) if session.has_sealed())
    }

    /// Says within TLS that nothing more comes; a client that does not take it now will see the connection end without.
    pub fn end_session(&mut self) {
        if let Transport::Tls(session) = &mut self.transport {
            session.seal_end();
            let _ = flush(session, self.socket.as_fd());
        }
    }
}

fn flush(session: &mut Session, socket: BorrowedFd<'_>) -> io::Result<()> {
    while session.has_sealed() {
        session.write_to(&mut Wire(socket))?;
    }
    Ok(())
}

/// Where sealed records go.
struct Wire<'a>(BorrowedFd<'a>);

impl io::Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::socket::send(self.0, bytes, &[], false)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        sys::socket::send_pieces(self.0, pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
