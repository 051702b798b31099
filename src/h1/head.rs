//! The head of a request: finds its end, then reads it once. Knows nothing of the body, whose length
//! `framing.rs` decides.

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HOST};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::framing::{Framing, framing};
use super::{Error, Limits, TOKEN, fields, target};

/// The longest method that is read, in bytes; a longer one is answered with 501.
pub(crate) const MAX_METHOD: usize = 32;

/// What follows the blank after the target: `HTTP/1.1` and CR LF.
const VERSION_LINE: usize = 10;

/// The first byte of a TLS record that holds a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// One request head. All of it but the names of uncommon fields is slices of one buffer.
#[derive(Debug)]
pub(crate) struct Head {
    /// The method, case-sensitive; any token of at most [`MAX_METHOD`] bytes, never `CONNECT`.
    pub method: Method,
    /// The request-target as it was sent.
    pub target: Bytes,
    /// The target read: a path, an absolute `http` or `https` URI, or `*` for `OPTIONS`.
    pub uri: Uri,
    /// `HTTP_10` or `HTTP_11`; a later 1.x is 1.1 (RFC 9110 section 2.5).
    pub version: Version,
    /// The fields. `Host` is the target's authority where that has one (RFC 9112 section 3.2.2). Names with `_`
    /// pass: whoever maps `-` to `_` must drop them.
    pub headers: HeaderMap,
    /// How long the body is.
    pub framing: Framing,
    /// Whether the client wants the connection kept (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
}

/// How far an unfinished head was scanned. Positions count from the first byte of the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    stage: Stage,
    version: Version,
    /// The bytes of the current stage that were looked at already.
    scanned: usize,
    method_end: usize,
    target_end: usize,
    fields: fields::Scan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No byte yet.
    Start,
    /// The CR of the one blank line that is let pass before a request (RFC 9112 section 2.2).
    BlankLine,
    Method,
    Target,
    Version,
    Fields,
}

/// What a scan found: how many bytes before the head are done with, and the head's length once all of it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) skipped: usize,
    pub(super) length: Option<usize>,
}

impl Scan {
    pub(super) const fn new() -> Self {
        let (stage, version) = (Stage::Start, Version::HTTP_11);
        Self { stage, version, scanned: 0, method_end: 0, target_end: 0, fields: fields::Scan::new() }
    }

    pub(super) const fn is_new(&self) -> bool {
        matches!(self.stage, Stage::Start)
    }

    /// Scans what has arrived. Each error depends only on the bytes up to the one that shows it, never on how
    /// they were cut into pieces.
    pub(super) fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<Found, Error> {
        let mut skipped = 0;
        loop {
            let head = &input[skipped..]; // at most 2, once two bytes were seen
            let next = match self.stage {
                Stage::Start => head.first().map(|&byte| if byte == b'\r' { Stage::BlankLine } else { Stage::Method }),
                Stage::BlankLine => {
                    let next = blank_line(head)?;
                    skipped += next.map_or(0, |_| 2);
                    next
                }
                Stage::Method => self.method(head)?,
                Stage::Target => self.target(head, limits)?,
                Stage::Version => self.version(head)?,
                Stage::Fields => {
                    let start = self.fields_start();
                    let section = head.get(start..).unwrap_or_default();
                    let length = self.fields.advance(section, limits)?.map(|length| start + length);
                    return Ok(Found { skipped, length });
                }
            };
            match next {
                Some(stage) => self.stage = stage,
                None => return Ok(Found { skipped, length: None }),
            }
        }
    }

    fn method(&mut self, head: &[u8]) -> Result<Option<Stage>, Error> {
        match self.span(head, 0, MAX_METHOD, &TOKEN) {
            Span::Open => Ok(None),
            Span::TooLong => Err(Error::MethodTooLong),
            Span::End(0, TLS_HANDSHAKE) => Err(Error::TlsOnPlainPort),
            Span::End(0, _) => Err(Error::InvalidMethod),
            Span::End(end, b' ') => {
                self.method_end = end;
                Ok(Some(Stage::Target))
            }
            Span::End(_, _) => Err(Error::InvalidMethod),
        }
    }

    fn target(&mut self, head: &[u8], limits: &Limits) -> Result<Option<Stage>, Error> {
        let start = self.method_end + 1;
        match self.span(head, start, limits.max_uri, &target::TARGET) {
            Span::Open => Ok(None),
            Span::TooLong => Err(Error::TargetTooLong),
            Span::End(length, b' ') if length > 0 => {
                self.target_end = start + length;
                Ok(Some(Stage::Version))
            }
            Span::End(_, _) => Err(Error::InvalidTarget),
        }
    }

    /// Looks for the first byte that is not in `allowed`, from `start` and at most `longest` bytes on.
    fn span(&mut self, head: &[u8], start: usize, longest: usize, allowed: &[bool; 256]) -> Span {
        let stage = head.get(start..).unwrap_or_default();
        let window = &stage[..stage.len().min(longest.saturating_add(1))];
        let fresh = window.iter().skip(self.scanned);
        for (length, &byte) in (self.scanned..).zip(fresh) {
            if !allowed[usize::from(byte)] {
                self.scanned = 0;
                return Span::End(length, byte);
            }
        }
        self.scanned = window.len();
        if window.len() > longest { Span::TooLong } else { Span::Open }
    }

    fn version(&mut self, head: &[u8]) -> Result<Option<Stage>, Error> {
        let rest = head.get(self.target_end + 1..).unwrap_or_default();
        let window = &rest[..rest.len().min(VERSION_LINE)];
        let end = window.iter().position(|&byte| byte == b'\n').map(|lf| lf + 1);
        let line = &window[..end.unwrap_or(window.len())];
        match *line {
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b'\r', b'\n']
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                self.version = version(major, minor)?;
                Ok(Some(Stage::Fields))
            }
            [.., before, b'\n'] if before != b'\r' => Err(Error::InvalidLineEnd),
            _ if end.is_some() || line.len() == VERSION_LINE => Err(Error::InvalidVersion),
            _ => Ok(None),
        }
    }

    fn fields_start(&self) -> usize {
        self.target_end + 1 + VERSION_LINE
    }

    /// Reads the head whose end [`Scan::advance`] found.
    pub(super) fn read(&self, head: &[u8], limits: &Limits) -> Result<Head, Error> {
        // The three positions were found in this order in these bytes.
        let head = Bytes::copy_from_slice(head);
        let method = Method::from_bytes(&head[..self.method_end]).map_err(|_| Error::InvalidMethod)?;
        let target = head.slice(self.method_end + 1..self.target_end);
        let uri = target::parse(&method, &target)?;
        let version = self.version;
        let mut headers = fields::parse(&head.slice(self.fields_start()..), self.fields.lines)?;
        settle_host(version, &uri, &mut headers)?;
        let framing = framing(version, &headers, limits)?;
        let expect_continue = expects_continue(version, &headers)? && framing != Framing::Empty;
        let keep_alive = wants_keep_alive(version, &headers);
        Ok(Head { method, target, uri, version, headers, framing, keep_alive, expect_continue })
    }
}

/// The outcome of [`Scan::span`].
enum Span {
    /// All bytes that are there belong to the span.
    Open,
    /// The span's length, and the byte after it.
    End(usize, u8),
    TooLong,
}

fn blank_line(head: &[u8]) -> Result<Option<Stage>, Error> {
    match head.get(1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some(Stage::Method)),
        Some(_) => Err(Error::InvalidLineEnd),
    }
}

fn version(major: u8, minor: u8) -> Result<Version, Error> {
    match (major, minor) {
        (b'1', b'0') => Ok(Version::HTTP_10),
        (b'1', _) => Ok(Version::HTTP_11),
        (_, _) => Err(Error::UnsupportedVersion),
    }
}

/// Demands the one valid `Host` of RFC 9112 section 3.2, and puts the authority of an absolute target in its place.
/// It may be empty where the target has no authority.
fn settle_host(version: Version, uri: &Uri, headers: &mut HeaderMap) -> Result<(), Error> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_10 => {}
        (None, _) => return Err(Error::MissingHost),
        (Some(_), Some(_)) => return Err(Error::DuplicateHost),
        (Some(host), None) if host.is_empty() && uri.authority().is_none() => {}
        (Some(host), None) if target::is_host(host.as_bytes()) => {}
        (Some(_), None) => return Err(Error::InvalidHost),
    }
    if let Some(authority) = uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Error::InvalidTarget)?;
        headers.insert(HOST, host);
    }
    Ok(())
}

/// RFC 9110 section 10.1.1: an HTTP/1.0 client does not know expectations, so they are ignored there.
fn expects_continue(version: Version, headers: &HeaderMap) -> Result<bool, Error> {
    if version == Version::HTTP_10 {
        return Ok(false);
    }
    let mut expectations = headers.get_all(EXPECT).iter().peekable();
    let any = expectations.peek().is_some();
    if expectations.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        Ok(any)
    } else {
        Err(Error::UnknownExpectation)
    }
}

fn wants_keep_alive(version: Version, headers: &HeaderMap) -> bool {
    !names_option(headers, b"close") && (version != Version::HTTP_10 || names_option(headers, b"keep-alive"))
}

/// Whether `Connection` lists the option, which is compared without case (RFC 9110 section 7.6.1).
pub(super) fn names_option(headers: &HeaderMap, option: &[u8]) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(option))
}
