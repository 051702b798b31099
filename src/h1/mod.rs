//! HTTP/1.1 without input or output (RFC 9110, RFC 9112): bytes in, events out, bytes out. Holds no socket,
//! reads no clock, and knows nothing of the rest of the crate.
//!
//! A [`Receiver`] reads the requests of one connection; [`plan`] and [`encode_head`] write the responses.
//!
//! ```text
//!             +--------------------------- End ---------------------------+
//!             v                                                           |
//!          [ idle ] --first byte--> [ head ] --Head--> [ body ] --Data--> |
//!                                       |                 |  ^    |       |
//!                                       |                 |  +----+       |
//!                                       v                 v
//!                                     Error             Error      closes the connection
//! ```
//!
//! Every request gives one `Head`, any number of `Data` and one `End`; a request without a body gives `Head`
//! and `End`. `NeedMore` may stand between any two of them. The events, and the byte at which an error shows,
//! do not depend on how the bytes were cut into pieces.
//!
//! The first test in `tests.rs` is a whole exchange.

mod body;
pub(crate) mod coding;
pub(crate) mod conditional;
mod encode;
mod error;
mod fields;
mod framing;
mod head;
pub(crate) mod range;
mod target;
#[cfg(test)]
mod tests;

use std::ops::Range;

use http::HeaderMap;

pub(crate) use coding::Coding;
pub(crate) use encode::{
    CHUNK_END, CONTINUE, LAST_CHUNK, Plan, Transfer, encode_chunk_head, encode_field, encode_head, encode_request, plan,
};
pub(crate) use error::Error;
pub(crate) use head::Head;
pub(crate) use target::is_host;

/// What a request may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The longest request-target, in bytes. More is 414. A target of 64 KiB or more is refused whatever this says.
    pub max_uri: usize,
    /// The longest field section with its blank line, in bytes; the same again for trailers. More is 431.
    pub max_header_bytes: usize,
    /// The most field lines of one section. More is 431.
    pub max_headers: usize,
    /// The longest body, in bytes without chunk framing. More is 413.
    pub max_body: u64,
}

#[cfg(test)]
impl Limits {
    /// The most bytes that a receiver can leave unconsumed and still need more.
    pub const fn max_unconsumed(&self) -> usize {
        const REQUEST_LINE: usize = head::MAX_METHOD + " ".len() + " HTTP/1.1\r\n".len();
        REQUEST_LINE + self.max_uri + self.max_header_bytes
    }
}

/// What a [`Receiver`] found.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // a box would cost each request an allocation; an event lives for one match
pub(crate) enum Event {
    /// Nothing more can be said without more bytes.
    NeedMore,
    /// A request began.
    Head(Head),
    /// Bytes of its body: this range of the input given. Never empty.
    Data(Range<usize>),
    /// The request is complete.
    End {
        /// The trailer fields of a chunked body; most have none.
        trailers: HeaderMap,
    },
}

/// Reads the requests of one connection, one after the other. Keeps positions, never bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Receiver {
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Head(head::Scan),
    Body(body::Decoder),
}

impl Receiver {
    /// A receiver at the start of a request.
    pub const fn new() -> Self {
        Self { state: State::Head(head::Scan::new()) }
    }

    /// Whether nothing of a request was seen yet, not even a blank line before it: the receiver is as new.
    pub const fn is_idle(&self) -> bool {
        match &self.state {
            State::Head(scan) => scan.is_new(),
            State::Body(_) => false,
        }
    }

    /// Reads from the start of `input`: how many of its bytes are done with, and what they gave. Call again with
    /// what is left of them; after [`Event::NeedMore`], with what is left and more behind it. After
    /// [`Event::End`] the next call begins the next request. After an error there is no next call.
    pub fn receive(&mut self, input: &[u8], limits: &Limits) -> Result<(usize, Event), Error> {
        match &mut self.state {
            State::Head(scan) => {
                let found = scan.advance(input, limits)?;
                let Some(length) = found.length else { return Ok((found.skipped, Event::NeedMore)) };
                let end = found.skipped + length;
                let head = scan.read(&input[found.skipped..end], limits)?;
                self.state = State::Body(body::Decoder::new(head.framing));
                Ok((end, Event::Head(head)))
            }
            State::Body(decoder) => {
                let (consumed, event) = decoder.receive(input, limits)?;
                if matches!(event, Event::End { .. }) {
                    *self = Self::new();
                }
                Ok((consumed, event))
            }
        }
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

/// The bytes of a token, of which methods and field names are made (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| TOKEN[usize::from(byte)])
}
