//! Runs bytes through a receiver in every way they can arrive and demands the same outcome each time.

use http::{HeaderMap, Method, Version};

use crate::h1::framing::Framing;
use crate::h1::{Error, Event, Head, Limits, Receiver};

pub(super) type Fields = Vec<(String, Vec<u8>)>;

/// What a head said, in a form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenHead {
    pub(super) method: Method,
    pub(super) target: Vec<u8>,
    pub(super) uri: String,
    pub(super) version: Version,
    pub(super) fields: Fields,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) expect_continue: bool,
}

/// An event, with consecutive data put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Head(Box<SeenHead>),
    Data(Vec<u8>),
    End(Fields),
    Error(Error),
}

/// A receiver, the bytes it has not consumed, and all that it said.
#[derive(Debug, Default)]
pub(super) struct Replay {
    receiver: Option<Receiver>,
    rest: Vec<u8>,
    trace: Trace,
}

/// The outcome of a replay.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Trace {
    pub(super) seen: Vec<Seen>,
    pub(super) consumed: usize,
    pub(super) idle: bool,
}

impl Replay {
    /// Gives the receiver more bytes, until it needs more or fails.
    pub(super) fn feed(&mut self, bytes: &[u8], limits: &Limits) {
        if matches!(self.trace.seen.last(), Some(Seen::Error(_))) {
            return;
        }
        self.rest.extend_from_slice(bytes);
        let receiver = self.receiver.get_or_insert(Receiver::new());
        loop {
            let (consumed, event) = match receiver.receive(&self.rest, limits) {
                Ok(outcome) => outcome,
                Err(error) => return self.trace.fail(error),
            };
            assert!(consumed <= self.rest.len(), "{consumed} of {} bytes consumed", self.rest.len());
            self.trace.consumed += consumed;
            self.trace.idle = receiver.is_idle();
            match event {
                Event::NeedMore => {
                    self.rest.drain(..consumed);
                    assert!(self.rest.len() <= limits.max_unconsumed(), "{} bytes kept", self.rest.len());
                    return;
                }
                Event::Head(head) => self.trace.seen.push(Seen::Head(Box::new(seen_head(head)))),
                Event::Data(range) => {
                    assert_eq!(range.end, consumed);
                    assert!(!range.is_empty());
                    self.trace.data(&self.rest[range]);
                }
                Event::End { trailers } => self.trace.seen.push(Seen::End(fields(&trailers))),
            }
            self.rest.drain(..consumed);
        }
    }
}

impl Trace {
    /// What was consumed before an error matters to nobody.
    fn fail(&mut self, error: Error) {
        self.seen.push(Seen::Error(error));
        (self.consumed, self.idle) = (0, false);
    }

    fn data(&mut self, bytes: &[u8]) {
        if let Some(Seen::Data(data)) = self.seen.last_mut() {
            data.extend_from_slice(bytes);
        } else {
            self.seen.push(Seen::Data(bytes.to_vec()));
        }
    }
}

fn seen_head(head: Head) -> SeenHead {
    SeenHead {
        method: head.method,
        target: head.target.to_vec(),
        uri: head.uri.to_string(),
        version: head.version,
        fields: fields(&head.headers),
        framing: head.framing,
        keep_alive: head.keep_alive,
        expect_continue: head.expect_continue,
    }
}

/// Sorted by name, for the map has an order of its own; the values of one name keep theirs.
fn fields(map: &HeaderMap) -> Fields {
    let mut fields: Fields = map.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

/// The outcome for bytes that arrive in these pieces.
pub(super) fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Trace {
    let mut replay = Replay::default();
    replay.feed(b"", limits);
    for piece in pieces {
        replay.feed(piece, limits);
    }
    replay.trace
}

pub(super) fn whole(input: &[u8], limits: &Limits) -> Trace {
    in_pieces([input], limits)
}

/// The outcome of `input`, after asserting that it is the same whole, byte by byte, in two pieces cut anywhere, for
/// every prefix, and with other bytes behind it.
pub(super) fn every_way(input: &[u8], limits: &Limits) -> Trace {
    let trace = whole(input, limits);
    let mut by_byte = Replay::default();
    for (count, byte) in input.chunks(1).enumerate().map(|(index, byte)| (index + 1, byte)) {
        by_byte.feed(byte, limits);
        // All cuts of a long input would take minutes; its ends are where the decisions are.
        if input.len() < 2000 || count < 200 || input.len() - count < 200 {
            assert_same(&whole(&input[..count], limits), &by_byte.trace, &input[..count], "a prefix by byte");
            let (before, after) = input.split_at(count);
            assert_same(&in_pieces([before, after], limits), &trace, input, "cut in two");
        }
    }
    if !input.is_empty() {
        assert_same(&by_byte.trace, &trace, input, "by byte");
    }
    with_trailing_bytes(input, &trace, limits);
    trace
}

fn with_trailing_bytes(input: &[u8], trace: &Trace, limits: &Limits) {
    let has_failed = matches!(trace.seen.last(), Some(Seen::Error(_)));
    if !has_failed && !trace.idle {
        return; // what follows belongs to the same request
    }
    for trailing in [&b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"[..], b"\0", b"\xff\n", b"\r\n\r\n", b"0\r\n\r\n"] {
        let longer = whole(&[input, trailing].concat(), limits);
        let same = longer.seen[..trace.seen.len()] == trace.seen[..];
        assert!(same && (!has_failed || longer.seen.len() == trace.seen.len()), "{}", input.escape_ascii());
    }
}

fn assert_same(one: &Trace, other: &Trace, input: &[u8], way: &str) {
    assert!(one == other, "{way}: {one:#?}\nis not\n{other:#?}\nfor {}", input.escape_ascii());
}
