//! Field sections: the lines after a request line, and the trailer section of a chunked body. One scan finds
//! the end, one parse reads the lines. Knows nothing of what a field means.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use super::{Error, Limits};

/// How far an unfinished section was scanned, so that no byte is looked at twice however it arrives.
/// Positions count from the section's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    scanned: usize,
    /// Where the current line starts. Its first byte was seen when `scanned` is beyond.
    line: usize,
    /// How many field lines have begun.
    pub(super) lines: usize,
}

impl Scan {
    pub(super) const fn new() -> Self {
        Self { scanned: 0, line: 0, lines: 0 }
    }

    /// The length of the section with its blank line, once that is there. `section` is the section as far as it
    /// has arrived, perhaps with bytes after it.
    pub(super) fn advance(&mut self, section: &[u8], limits: &Limits) -> Result<Option<usize>, Error> {
        let window = &section[..section.len().min(limits.max_header_bytes)];
        while let Some(&first) = window.get(self.line) {
            if self.scanned == self.line {
                self.begin_line(first, limits)?;
            }
            let Some(distance) = memchr(b'\n', window.get(self.scanned..).unwrap_or_default()) else {
                self.scanned = window.len();
                break;
            };
            let end = self.scanned + distance;
            if first == b'\r' && end == self.line + 1 {
                return Ok(Some(end + 1));
            }
            // `end` is after `line`: a line that begins with LF was refused.
            if first == b'\r' || window[end - 1] != b'\r' {
                return Err(Error::InvalidLineEnd);
            }
            self.line = end + 1;
            self.scanned = self.line;
        }
        if section.len() > window.len() { Err(Error::HeaderTooLarge) } else { Ok(None) }
    }

    fn begin_line(&mut self, first: u8, limits: &Limits) -> Result<(), Error> {
        match first {
            b'\r' => return Ok(()),
            b'\n' => return Err(Error::InvalidLineEnd),
            b' ' | b'\t' => return Err(Error::ObsoleteFolding),
            _ => self.lines += 1,
        }
        if self.lines > limits.max_headers { Err(Error::TooManyFields) } else { Ok(()) }
    }
}

/// How many fields are parsed without an allocation; browsers send about a dozen.
const ON_STACK: usize = 32;

/// Reads a complete section of `lines` field lines. Values are slices of `section`.
pub(super) fn parse(section: &Bytes, lines: usize) -> Result<HeaderMap, Error> {
    let mut on_stack = [httparse::EMPTY_HEADER; ON_STACK];
    let mut on_heap = Vec::new();
    let room = if lines <= ON_STACK {
        &mut on_stack[..]
    } else {
        on_heap.resize(lines, httparse::EMPTY_HEADER);
        &mut on_heap[..]
    };
    match httparse::parse_headers(section, room) {
        Ok(httparse::Status::Complete((length, fields))) if length == section.len() => collect(section, fields),
        // Anything else would be a disagreement with the scan, which found exactly one blank line.
        Ok(_) | Err(_) => Err(Error::InvalidField),
    }
}

fn collect(section: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, Error> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Error::InvalidField)?;
        // The parser returns slices of `section`, which is what `slice_ref` demands.
        let value = HeaderValue::from_maybe_shared(section.slice_ref(field.value)).map_err(|_| Error::InvalidField)?;
        map.try_append(name, value).map_err(|_| Error::TooManyFields)?;
    }
    Ok(map)
}
