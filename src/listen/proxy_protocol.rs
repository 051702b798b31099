//! The header of the PROXY protocol, versions 1 and 2, with which a server in front says for whom it opened a connection
//! (haproxy.org, proxy-protocol.txt). Pure: bytes in, a header out; knows neither the socket nor who may send one.
//!
//! A header that breaks a rule is refused at the byte that shows it, however the bytes were cut into pieces: a word of
//! version 1 by each of its bytes and, once its end is there, as a whole; version 2 by its signature, its first four
//! bytes behind that and, once all of it is there, by what it holds.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header that is read. Senders add names, identifiers and words of TLS, some hundred bytes in all, to at
/// most 232 bytes of addresses; one who sends more keeps us looking for nothing.
pub(crate) const MAX_BYTES: usize = 4 << 10;

/// The longest line of version 1, with its end.
const MAX_LINE: usize = 107;

/// What version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What stands before the addresses of version 2: signature, version and command, family and protocol, length.
const FIXED: usize = SIGNATURE.len() + 4;

/// A header that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its bytes; the first that the client itself sent is behind them.
    pub length: usize,
    pub source: Source,
}

/// For whom a connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// For the sender itself, which sees whether we are well.
    Sender,
    /// For somebody of whom the sender cannot tell us.
    Unknown,
    /// For a process at a Unix socket of the sender's machine.
    Unix,
    Ip(SocketAddr),
}

/// Why bytes are no header, nor the beginning of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Reads the header that `bytes` begin with; none while some of it is missing.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => read_line(bytes),
        Some(_) => read_binary(bytes),
    }
}

fn read_line(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let window = &bytes[..bytes.len().min(MAX_LINE)];
    let end = window.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let text = &window[..end.unwrap_or(window.len())];
    let source = Words { rest: Some(text), ended: end.is_some() }.source()?;
    match end.map(|at| &window[at..]) {
        None if window.len() == MAX_LINE => Err(Malformed("the line is too long")),
        None => Ok(None),
        Some([b'\r', b'\n', ..]) => Ok(source.map(|source| Header { length: text.len() + 2, source })),
        Some([b'\r']) if window.len() < MAX_LINE => Ok(None),
        Some(_) => Err(Malformed("the line does not end with CR LF")),
    }
}

/// The words of a line, which have one blank between them.
struct Words<'a> {
    /// Nothing behind the last.
    rest: Option<&'a [u8]>,
    /// All of the line is there.
    ended: bool,
}

impl<'a> Words<'a> {
    /// What the line says, once it has ended.
    fn source(&mut self) -> Result<Option<Source>, Malformed> {
        let Some(_) = self.one_of(&[b"PROXY"])? else { return Ok(None) };
        let Some(protocol) = self.one_of(&[b"TCP4", b"TCP6", b"UNKNOWN"])? else { return Ok(None) };
        if protocol == b"UNKNOWN" {
            return Ok(self.ended.then_some(Source::Unknown));
        }
        let is_ipv4 = protocol == b"TCP4";
        let Some(address) = self.address(is_ipv4)? else { return Ok(None) };
        let Some(_) = self.address(is_ipv4)? else { return Ok(None) };
        let Some(port) = self.port()? else { return Ok(None) };
        let Some(_) = self.port()? else { return Ok(None) };
        match self.rest {
            None => Ok(Some(Source::Ip(SocketAddr::new(address, port)))),
            Some(_) => Err(Malformed("the line has too many words")),
        }
    }

    fn one_of(&mut self, words: &[&[u8]]) -> Result<Option<&'a [u8]>, Malformed> {
        const OTHER: Malformed = Malformed("the line does not begin as one of version 1");
        let word = self.next(|part| words.iter().any(|word| word.starts_with(part)), OTHER)?;
        if word.is_none_or(|word| words.contains(&word)) { Ok(word) } else { Err(OTHER) }
    }

    fn address(&mut self, is_ipv4: bool) -> Result<Option<IpAddr>, Malformed> {
        const NONE: Malformed = Malformed("an address of the line is none of its family");
        let word = if is_ipv4 {
            self.next(|part| part.len() <= 15 && part.iter().all(|b| b.is_ascii_digit() || *b == b'.'), NONE)?
        } else {
            self.next(|part| part.len() <= 39 && part.iter().all(|b| b.is_ascii_hexdigit() || b":.".contains(b)), NONE)?
        };
        let Some(word) = word else { return Ok(None) };
        let address =
            if is_ipv4 { parsed::<Ipv4Addr>(word).map(Into::into) } else { parsed::<Ipv6Addr>(word).map(Into::into) };
        address.map(Some).ok_or(NONE)
    }

    fn port(&mut self) -> Result<Option<u16>, Malformed> {
        const NONE: Malformed = Malformed("a port of the line is none");
        let may_be = |part: &[u8]| {
            let is_long = part.len() > 5 || part.len() > 1 && part[0] == b'0';
            !is_long && part.iter().all(u8::is_ascii_digit)
        };
        let word = self.next(may_be, NONE)?;
        word.map(|word| parsed(word).ok_or(NONE)).transpose()
    }

    /// The next word, once it is whole. `may_be` is asked of every word and of every beginning of one.
    fn next(&mut self, may_be: impl Fn(&[u8]) -> bool, otherwise: Malformed) -> Result<Option<&'a [u8]>, Malformed> {
        let rest = self.rest.take().ok_or(Malformed("the line has too few words"))?;
        let blank = rest.iter().position(|&byte| byte == b' ');
        let word = &rest[..blank.unwrap_or(rest.len())];
        self.rest = blank.map(|at| &rest[at + 1..]);
        match (may_be(word), blank.is_some() || self.ended) {
            (false, _) => Err(otherwise),
            (true, true) => Ok(Some(word)),
            (true, false) => Ok(None),
        }
    }
}

fn parsed<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn read_binary(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let signature = &bytes[..bytes.len().min(SIGNATURE.len())];
    if !SIGNATURE.starts_with(signature) {
        return Err(Malformed("it begins with neither version of the protocol"));
    }
    let rest = &bytes[signature.len()..];
    let Some(&command) = rest.first() else { return Ok(None) };
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("its version is not 2, or its command unknown")),
    };
    let Some(&family) = rest.get(1) else { return Ok(None) };
    // What comes with LOCAL is to be discarded, the family too.
    let kind = if is_local { Kind::Local } else { Kind::of(family)? };
    let Some(&[high, low]) = rest.get(2..4) else { return Ok(None) };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_BYTES {
        return Err(Malformed("it is longer than 4096 bytes"));
    }
    if length < FIXED + kind.address_bytes() {
        return Err(Malformed("it is too short for its addresses"));
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let source = kind.source(&header[FIXED..]);
    if !matches!(kind, Kind::Local | Kind::Unspecified) {
        check_additions(header, FIXED + kind.address_bytes())?;
    }
    Ok(Some(Header { length, source }))
}

/// What the addresses of version 2 are.
#[derive(Clone, Copy)]
enum Kind {
    /// None that count.
    Local,
    /// None that we could read.
    Unspecified,
    Ipv4,
    Ipv6,
    Unix,
}

impl Kind {
    /// Of addresses that come with PROXY. Datagrams are taken too: HTTP/3 may have brought them to the sender.
    fn of(family: u8) -> Result<Self, Malformed> {
        match (family >> 4, family & 15) {
            (4.., _) | (_, 3..) => Err(Malformed("its family or protocol is unknown")),
            (0, _) | (_, 0) => Ok(Self::Unspecified),
            (1, _) => Ok(Self::Ipv4),
            (2, _) => Ok(Self::Ipv6),
            (3, _) => Ok(Self::Unix),
        }
    }

    const fn address_bytes(self) -> usize {
        match self {
            Self::Local | Self::Unspecified => 0,
            Self::Ipv4 => 2 * 4 + 2 * 2,
            Self::Ipv6 => 2 * 16 + 2 * 2,
            Self::Unix => 2 * 108,
        }
    }

    /// Source address, destination address, source port, destination port.
    fn source(self, block: &[u8]) -> Source {
        let port = |at: usize| block.get(at..at + 2).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
        let ip = |address: Option<IpAddr>, port| {
            address.map_or(Source::Unknown, |address| Source::Ip(SocketAddr::new(address, port)))
        };
        match self {
            Self::Local => Source::Sender,
            Self::Unspecified => Source::Unknown,
            Self::Ipv4 => ip(block.first_chunk::<4>().map(|&octets| octets.into()), port(8)),
            Self::Ipv6 => ip(block.first_chunk::<16>().map(|&octets| octets.into()), port(32)),
            Self::Unix => Source::Unix,
        }
    }
}

/// What stands behind the addresses: a type, a length in two bytes and so many bytes, again and again. Only a checksum
/// of the header means something here.
fn check_additions(header: &[u8], start: usize) -> Result<(), Malformed> {
    const CHECKSUM: u8 = 3;
    const CUT_OFF: Malformed = Malformed("something behind its addresses is cut off");
    let (mut at, mut checked) = (start, false);
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else { return Err(CUT_OFF) };
        let value = at + 3;
        at = value + usize::from(u16::from_be_bytes([high, low]));
        let Some(value_bytes) = header.get(value..at) else { return Err(CUT_OFF) };
        if kind == CHECKSUM {
            let is_right = value_bytes == checksum(header, value).to_be_bytes();
            if !is_right || std::mem::replace(&mut checked, true) {
                return Err(Malformed("its checksum is wrong"));
            }
        }
    }
    Ok(())
}

/// `CRC32c` (RFC 4960, appendix B) of a header, whose four bytes at `place`, where it stands itself, count as zeros.
fn checksum(header: &[u8], place: usize) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let bytes = header.iter().enumerate().map(|(at, &byte)| if (place..place + 4).contains(&at) { 0 } else { byte });
    !bytes.fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 })
    })
}
