//! The bodies of requests and responses. Knows nothing of how they travel.

use std::any::Any;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::sys::version::Version;

/// The body of a response: bytes, a range of a file, or a stream that is pulled as the client takes it.
#[derive(Debug, Default)]
pub struct Body {
    payload: Payload,
    /// Fields of the response that are encoded already, by [`h1::encode_field`](crate::h1::encode_field): the same
    /// for every response with this body.
    fields: Bytes,
}

/// What a [`Body`] consists of.
pub(crate) enum Payload {
    Bytes(Bytes),
    File(FileRange),
    /// One after the other.
    Pieces(Vec<Piece>),
    Stream(BodyStream),
}

/// A part of a body whose length is known.
#[derive(Debug)]
pub(crate) enum Piece {
    Bytes(Bytes),
    File(FileRange),
}

/// Bytes `range` of `file`.
#[derive(Clone, Debug)]
pub(crate) struct FileRange {
    pub file: Arc<File>,
    pub range: Range<u64>,
    /// The version that the response is of: where the file has another one before the last byte is sent, the connection
    /// is cut.
    pub version: Option<Version>,
    pub passage: Passage,
}

/// How the bytes of a file get to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// From the page cache, without passing through the process. What waits in the socket are the pages of the file
    /// themselves: when the file is written to, they change (sendfile(2)).
    Sendfile,
    /// Read, and sent as they were then.
    Copied,
}

impl FileRange {
    /// How many bytes it has left.
    pub fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Whether the file is still the version that was to be sent, as far as anybody asked.
    pub fn is_unchanged(&self) -> bool {
        let same = |version: &Version| Version::of(&self.file).is_ok_and(|now| now.has_content_of(version));
        self.version.as_ref().is_none_or(same)
    }
}

impl Piece {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(part) => part.len(),
        }
    }
}

/// Chunks that are made while the client takes them; an error cuts the connection. What it is made of is the handler's:
/// a panic of it is caught, also when it is dropped.
pub(crate) struct BodyStream(Option<Box<dyn Iterator<Item = io::Result<Bytes>> + Send>>);

impl BodyStream {
    /// The next chunk; a panic is an error of the stream.
    pub fn next_chunk(&mut self) -> Option<io::Result<Bytes>> {
        let chunks = self.0.as_mut()?;
        guard(|| chunks.next()).unwrap_or_else(|| Some(Err(io::Error::other("it panicked"))))
    }
}

impl Drop for BodyStream {
    fn drop(&mut self) {
        guard(|| drop(self.0.take()));
    }
}

/// Runs code of the site; `None` when it panicked, which the panic hook has reported.
pub(crate) fn guard<T>(code: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).map_err(forget).ok()
}

/// What a panic carries is the site's too, and may panic again when it is dropped; a text does not.
fn forget(payload: Box<dyn Any + Send>) {
    if !payload.is::<String>() && !payload.is::<&str>() {
        std::mem::forget(payload);
    }
}

impl Body {
    /// No bytes.
    pub const fn empty() -> Self {
        Self::of(Payload::Bytes(Bytes::new()))
    }

    pub(crate) const fn of(payload: Payload) -> Self {
        Self { payload, fields: Bytes::new() }
    }

    /// The body with fields of its response, encoded by [`h1::encode_field`](crate::h1::encode_field).
    pub(crate) fn with_fields(self, fields: Bytes) -> Self {
        Self { fields, ..self }
    }

    /// The bytes `range` of an open file.
    ///
    /// A file that turns out shorter than the range says cuts the connection, so that the client notices.
    pub fn file(file: impl Into<Arc<File>>, range: Range<u64>) -> Self {
        let (file, version, passage) = (file.into(), None, Passage::Sendfile);
        Self::of(Payload::File(FileRange { file, range, version, passage }))
    }

    /// Chunks that are asked for as the client takes them, one at a time. An `Err` cuts the connection, so that
    /// the client does not take what it has for the whole.
    ///
    /// Where the response has a `Content-Length`, the stream must produce exactly that many bytes; otherwise it
    /// travels in chunks (to HTTP/1.0 clients until the connection closes). The stream is asked where the
    /// handler ran: in the loop for one that does not block, beside it otherwise.
    pub fn stream<S>(chunks: S) -> Self
    where
        S: Iterator<Item = io::Result<Bytes>> + Send + 'static,
    {
        Self::of(Payload::Stream(BodyStream(Some(Box::new(chunks)))))
    }

    /// Its length in bytes; `None` for a stream.
    pub fn len(&self) -> Option<u64> {
        match &self.payload {
            Payload::Bytes(bytes) => Some(bytes.len() as u64),
            Payload::File(part) => Some(part.len()),
            Payload::Pieces(pieces) => Some(pieces.iter().map(Piece::len).sum()),
            Payload::Stream(_) => None,
        }
    }

    /// Whether it certainly has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The encoded fields, and what follows the head.
    pub(crate) fn into_parts(self) -> (Bytes, Payload) {
        (self.fields, self.payload)
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::File(part) => write!(f, "bytes {:?} of a file", part.range),
            Self::Pieces(pieces) => write!(f, "{} pieces", pieces.len()),
            Self::Stream(_) => f.write_str("a stream"),
        }
    }
}

impl From<Piece> for Body {
    fn from(piece: Piece) -> Self {
        Self::of(match piece {
            Piece::Bytes(bytes) => Payload::Bytes(bytes),
            Piece::File(part) => Payload::File(part),
        })
    }
}

impl From<Vec<Piece>> for Body {
    fn from(pieces: Vec<Piece>) -> Self {
        Self::of(Payload::Pieces(pieces))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::of(Payload::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

/// The whole body of a request, in memory or, where it is large, in an unlinked temporary file.
///
/// It can be read once, as [`Read`], or taken as bytes.
#[derive(Debug, Default)]
pub struct RequestBody(Stored);

#[derive(Debug)]
enum Stored {
    Memory(Bytes),
    /// Positioned at what is read next; the number is how many bytes are left.
    File(File, u64),
}

impl Default for Stored {
    fn default() -> Self {
        Self::Memory(Bytes::new())
    }
}

impl RequestBody {
    /// A body that was kept in a file, positioned at its start.
    pub(crate) const fn from_file(file: File, len: u64) -> Self {
        Self(Stored::File(file, len))
    }

    /// How many bytes are left to read.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Stored::Memory(bytes) => bytes.len() as u64,
            Stored::File(_, left) => *left,
        }
    }

    /// What is left, where it is in memory.
    pub(crate) fn in_memory(&self) -> Option<&[u8]> {
        match &self.0 {
            Stored::Memory(bytes) => Some(bytes),
            Stored::File(..) => None,
        }
    }

    /// Whether no byte is left to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its file, where it is in one.
    pub(crate) fn file(&self) -> Option<&File> {
        match &self.0 {
            Stored::Memory(_) => None,
            Stored::File(file, _) => Some(file),
        }
    }

    /// What is left, in memory: free for a small body; a large one is read from its file.
    ///
    /// # Errors
    /// The temporary file could not be read.
    pub fn into_bytes(mut self) -> io::Result<Bytes> {
        if let Stored::Memory(bytes) = self.0 {
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(0));
        self.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// The trailer fields of a chunked request, in its extensions where it has some (RFC 9112 section 7.1.2).
#[derive(Clone, Debug)]
pub struct Trailers(pub http::HeaderMap);

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self(Stored::Memory(bytes))
    }
}

impl Read for RequestBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Stored::Memory(bytes) => {
                let n = buffer.len().min(bytes.len());
                bytes.copy_to_slice(&mut buffer[..n]);
                Ok(n)
            }
            Stored::File(file, left) => {
                let n = file.take(*left).read(buffer)?;
                *left -= n as u64;
                Ok(n)
            }
        }
    }
}
