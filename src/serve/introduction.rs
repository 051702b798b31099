//! Who a client is where `proxyProtocol` has a server in front say it, before TLS and HTTP: takes the header off the
//! connection, and turns away whoever cannot have sent one. What a header says is `listen::proxy_protocol`'s to read.

use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::connection::Connection;
use super::drive::{Drive, Outcome};
use super::env::Env;
use crate::listen::proxy_protocol::{self, Header, Malformed, Source};
use crate::site::Client;
use crate::sys;

/// How often the log says above `debug` that somebody was turned away: whoever scans the internet is, all the time, and
/// whoever sets up a server in front needs to hear of it once.
const TOLD_EVERY: Duration = Duration::from_secs(600);

impl Env {
    /// Whether this client may say for whom it comes. Where nobody is named, everybody may.
    pub fn may_introduce(&self, client: Client) -> bool {
        let trusted = &self.entrance.trusted;
        trusted.is_empty() || trusted.contain(client.address().map(|address| address.ip()))
    }

    /// Says why a connection is closed without a word.
    pub fn tell_turned_away(&mut self, client: Client, why: &dyn Display) {
        let level = if self.told_until.is_some_and(|until| self.now < until) {
            log::Level::Debug
        } else {
            self.told_until = Some(self.now + TOLD_EVERY);
            log::Level::Warn
        };
        log::log!(level, "{client}: turned away, for with proxyProtocol = 1 {why} (others like it: level = debug)");
    }
}

impl Drive<'_> {
    /// Takes the header, and nothing of what is behind it.
    pub fn be_introduced(&mut self) -> Option<Outcome> {
        if !self.connection.readable {
            return Some(self.wait_for_client());
        }
        match self.connection.peek_header(&mut self.env.buffer[..proxy_protocol::MAX_BYTES]) {
            Ok(Peeked::Header(header)) => self.introduce(header),
            Ok(Peeked::Part) if self.connection.ended => Some(Outcome::Close),
            // Epoll tells of the next byte, and not before (epoll(7)).
            Ok(Peeked::Part) => {
                self.connection.readable = false;
                None
            }
            Ok(Peeked::Malformed(why)) => {
                let why = format_args!("a connection begins with the PROXY protocol: {why}");
                self.env.tell_turned_away(self.connection.client, &why);
                Some(Outcome::Close)
            }
            Ok(Peeked::End) | Err(_) => Some(Outcome::Close),
        }
    }

    fn introduce(&mut self, header: Header) -> Option<Outcome> {
        let connection = &mut *self.connection;
        match sys::socket::receive(connection.socket.as_fd(), &mut self.env.buffer[..header.length]) {
            Ok(length) if length == header.length => {}
            Ok(_) | Err(_) => return Some(Outcome::Close),
        }
        if let Err(refusal) = connection.begin(&self.env.entrance) {
            log::error!("{}: cannot begin: {refusal}; closing the connection", connection.client);
            return Some(Outcome::Close);
        }
        connection.awaits_introduction = false;
        (connection.client, connection.is_stranger) = match header.source {
            Source::Sender => (connection.client, false),
            Source::Unknown => (connection.client, true),
            Source::Unix => (Client::Unix, true),
            Source::Ip(address) => (Client::Ip(address), false),
        };
        self.env.meet(connection.client);
        None
    }
}

/// What a connection begins with.
enum Peeked {
    Header(Header),
    /// The beginning of a header.
    Part,
    Malformed(Malformed),
    End,
}

impl Connection {
    fn peek_header(&self, buffer: &mut [u8]) -> io::Result<Peeked> {
        let arrived = match sys::socket::peek(self.socket.as_fd(), buffer) {
            Ok(0) => return Ok(Peeked::End),
            Ok(arrived) => &buffer[..arrived],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => &[],
            Err(error) => return Err(error),
        };
        Ok(match proxy_protocol::read(arrived) {
            Ok(Some(header)) => Peeked::Header(header),
            Ok(None) => Peeked::Part,
            Err(why) => Peeked::Malformed(why),
        })
    }
}
