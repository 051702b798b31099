//! The body of a request: hands its bytes on as ranges of what was received and keeps none of them.
//! `framing.rs` has decided how long it is; this only counts.

use bytes::Bytes;
use http::HeaderMap;

use super::framing::Framing;
use super::{Error, Event, Limits, fields};

/// The most bytes of extensions one chunk may have, and all chunks of a body together. Nothing uses them.
const CHUNK_EXTENSIONS: u32 = 1024;
const BODY_EXTENSIONS: u32 = 16 * 1024;

/// The most digits of a chunk size: what 64 bits hold.
const SIZE_DIGITS: u8 = 16;

/// Reads one body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    /// How many bytes are still to come.
    Length(u64),
    Chunked(Chunked),
}

impl Decoder {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Empty => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::new()),
        }
    }

    /// Like `Receiver::receive`.
    pub(super) fn receive(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, Event), Error> {
        match self {
            Self::Length(0) => Ok((0, Event::End { trailers: HeaderMap::new() })),
            Self::Length(left) => Ok(data(left, input, 0)),
            Self::Chunked(chunked) => chunked.receive(input, limits),
        }
    }
}

/// Takes what there is of the `left` bytes, from `at` on.
fn data(left: &mut u64, input: &[u8], at: usize) -> (usize, Event) {
    let available = input.len() - at; // every caller has consumed `at` bytes of `input`
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
    if taken == 0 {
        return (at, Event::NeedMore);
    }
    *left -= taken as u64; // at most `left`
    (at + taken, Event::Data(at..at + taken))
}

/// Reads the chunked coding (RFC 9112 section 7.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunked {
    part: Part,
    /// The size of the current chunk while it is read, then how much of the chunk is still to come.
    left: u64,
    /// The sizes of all chunks so far.
    total: u64,
    /// The extension bytes of all chunks before the current one.
    extensions: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// After so many digits of a chunk size.
    Size(u8),
    /// Blanks after a size: bad whitespace that only an extension may follow (RFC 9112 section 7.1.1).
    Blank(u32),
    /// After so many bytes of extensions.
    Extension(u32),
    /// The LF of the size line.
    SizeEnd,
    Data,
    /// The CR, then the LF after a chunk's data.
    DataCr,
    DataLf,
    Trailers(fields::Scan),
}

impl Chunked {
    const fn new() -> Self {
        Self { part: Part::Size(0), left: 0, total: 0, extensions: 0 }
    }

    fn receive(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, Event), Error> {
        let mut at = 0;
        loop {
            let rest = &input[at..]; // `at` grows by bytes that were there
            match (&mut self.part, rest.first()) {
                (Part::Trailers(scan), _) => {
                    let Some(length) = scan.advance(rest, limits)? else { return Ok((at, Event::NeedMore)) };
                    let trailers = trailers(&rest[..length], scan.lines)?;
                    return Ok((at + length, Event::End { trailers }));
                }
                (_, None) => return Ok((at, Event::NeedMore)),
                (Part::Data, Some(_)) => {
                    let taken = data(&mut self.left, input, at);
                    if self.left == 0 {
                        self.part = Part::DataCr;
                    }
                    return Ok(taken);
                }
                (_, Some(&byte)) => {
                    self.part = self.frame(byte, limits)?;
                    at += 1;
                }
            }
        }
    }

    /// What comes after one byte that is neither data nor trailer.
    fn frame(&mut self, byte: u8, limits: &Limits) -> Result<Part, Error> {
        match (self.part, byte) {
            (Part::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(digits, byte),
            (Part::Size(1..), b'\r' | b' ' | b'\t' | b';') => {
                self.total = self.total.saturating_add(self.left);
                if self.total > limits.max_body {
                    return Err(Error::BodyTooLarge);
                }
                self.after_size(0, byte)
            }
            (Part::Blank(length), b' ' | b'\t' | b';') => self.after_size(length, byte),
            (Part::Extension(length), b'\r') => {
                self.extensions += length; // both are bounded by `after_size`
                Ok(Part::SizeEnd)
            }
            (Part::Extension(length), b'\t' | b' '..=b'~' | 0x80..) => self.extension(length),
            (Part::SizeEnd, b'\n') if self.left == 0 => Ok(Part::Trailers(fields::Scan::new())),
            (Part::SizeEnd, b'\n') => Ok(Part::Data),
            (Part::DataCr, b'\r') => Ok(Part::DataLf),
            (Part::DataLf, b'\n') => Ok(Part::Size(0)),
            (
                Part::Size(_)
                | Part::Blank(_)
                | Part::Extension(_)
                | Part::SizeEnd
                | Part::Data
                | Part::DataCr
                | Part::DataLf
                | Part::Trailers(_),
                _,
            ) => Err(Error::InvalidChunk),
        }
    }

    fn digit(&mut self, digits: u8, byte: u8) -> Result<Part, Error> {
        let value = char::from(byte).to_digit(16).ok_or(Error::InvalidChunk)?;
        if digits == SIZE_DIGITS {
            return Err(Error::InvalidChunk);
        }
        // The first digit starts a new size; 16 of them cannot overflow.
        let size = if digits == 0 { 0 } else { self.left };
        self.left = size << 4 | u64::from(value);
        Ok(Part::Size(digits + 1))
    }

    fn after_size(&mut self, length: u32, byte: u8) -> Result<Part, Error> {
        match byte {
            b'\r' => Ok(Part::SizeEnd),
            b';' => self.extension(length),
            _ => self.extension(length).map(|_| Part::Blank(length + 1)),
        }
    }

    /// Counts one extension byte after `length` others.
    fn extension(&self, length: u32) -> Result<Part, Error> {
        if length >= CHUNK_EXTENSIONS || self.extensions + length >= BODY_EXTENSIONS {
            return Err(Error::ChunkExtensionTooLarge);
        }
        Ok(Part::Extension(length + 1))
    }
}

/// Reads a complete trailer section. Without a field it costs nothing.
fn trailers(section: &[u8], lines: usize) -> Result<HeaderMap, Error> {
    if lines == 0 {
        return Ok(HeaderMap::new());
    }
    let trailers = fields::parse(&Bytes::copy_from_slice(section), lines)?;
    if trailers.keys().any(|name| is_forbidden(name.as_str())) { Err(Error::ForbiddenTrailer) } else { Ok(trailers) }
}

/// Fields for framing, routing, request modifiers, authentication and content that may not come late (RFC 9110
/// section 6.5.1), and those by which proxies say who the client is.
fn is_forbidden(name: &str) -> bool {
    const FORBIDDEN: [&str; 20] = [
        "authorization",
        "cache-control",
        "connection",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "max-forwards",
        "pragma",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-real-ip",
    ];
    FORBIDDEN.contains(&name) || ["content-", "if-", "x-forwarded-"].iter().any(|start| name.starts_with(start))
}
