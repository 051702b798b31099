//! Responses on their way out: heads into the buffer, bodies from memory, files and streams into the socket.
//! Continues `drive`; knows nothing of requests.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use bytes::{Buf, Bytes};
use http::{Method, StatusCode, Version};

use super::connection::{Ending, Phase, Source, Stream};
use super::drive::Drive;
use super::executor::Job;
use crate::h1::{self, Plan, Transfer};
use crate::site::{BodyStream, ExchangeKey, Passage, Payload, Piece, Response, pages};
use crate::sys;

/// Bodies up to here are copied behind their head, to leave in one call with it and with the answers before and
/// after; larger ones leave from where they are, or in pieces of so many bytes.
const COPIED_BYTES: usize = 16 << 10;

/// Why a file is not sent to its end.
const CHANGED: &str = "the file changed meanwhile";

/// What became of that which was there to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The kernel has it, or as much of it as one turn may send.
    Done,
    /// The client must take some of it first.
    Blocked,
    /// There is nobody to send to.
    Gone,
}

impl Drive<'_> {
    /// Begins the response to the request that is under way.
    pub fn respond(&mut self, response: Response) {
        self.begin_response(response, self.env.keep_alive && !self.env.draining);
    }

    /// Answers in place of a handler, and lets the client ask no more on this connection.
    pub fn answer_for_handler(&mut self, status: StatusCode) {
        self.begin_response(pages::page(status), false);
    }

    fn begin_response(&mut self, mut response: Response, may_keep: bool) {
        let Some(underway) = &mut self.flight.underway else { return };
        if response.status().is_informational() {
            log::error!("{}: answered with {}, which is no answer; sending 500", underway.shown(), response.status());
            response = pages::page(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let (parts, body) = response.into_parts();
        let may_keep = may_keep && underway.keep_alive;
        underway.status = parts.status;
        let plan = h1::plan(&underway.method, underway.version, parts.status, &parts.headers, body.len(), may_keep);
        let (fields, payload) = body.into_parts();
        let date = self.env.dates.http_date(self.env.wall);
        h1::encode_head(&mut self.flight.out, underway.version, parts.status, &parts.headers, &fields, &plan, date);
        self.flight.body.release(&mut self.env.bodies);
        self.begin_body(payload, plan);
    }

    fn begin_body(&mut self, payload: Payload, plan: Plan) {
        let client_goes_on = self.flight.underway.as_ref().is_some_and(|underway| underway.keep_alive);
        self.flight.ending = match (plan.keep_alive, client_goes_on) {
            (true, _) => Ending::Keep,
            // Its next request may be on the way, and must not reset the connection before it has read this answer.
            (false, true) => Ending::Linger,
            (false, false) => Ending::Close,
        };
        self.flight.phase = Phase::Sending;
        let left = match plan.transfer {
            Transfer::None => return self.end_response(),
            Transfer::Length(length) => Some(length),
            Transfer::Chunked | Transfer::UntilClose => None,
        };
        match payload {
            Payload::Bytes(bytes) => self.begin_piece(Piece::Bytes(bytes)),
            Payload::File(part) => self.begin_piece(Piece::File(part)),
            Payload::Pieces(pieces) => {
                self.flight.pieces = pieces.into_iter();
                self.end_piece();
            }
            Payload::Stream(chunks) => {
                let chunked = plan.transfer == Transfer::Chunked;
                self.flight.source = Source::Stream(Stream { chunks: Some(chunks), left, chunked });
            }
        }
    }

    fn begin_piece(&mut self, piece: Piece) {
        self.count(piece.len());
        match piece {
            Piece::Bytes(bytes) if bytes.len() > COPIED_BYTES => self.flight.source = Source::Bytes(bytes),
            Piece::Bytes(bytes) => {
                self.flight.out.extend_from_slice(&bytes);
                self.end_piece();
            }
            // No bytes would follow the head to push it out.
            Piece::File(part) if part.len() == 0 => self.end_piece(),
            Piece::File(part) => self.flight.source = Source::File(part),
        }
    }

    /// Goes on with the next piece, or ends the response behind the last.
    fn end_piece(&mut self) {
        match self.flight.pieces.next() {
            Some(piece) => self.begin_piece(piece),
            None => self.end_response(),
        }
    }

    /// Puts a refusal behind what is to be sent; no exchange stands behind it.
    pub fn encode_refusal(&mut self, response: Response) {
        let (parts, body) = response.into_parts();
        let plan = h1::plan(&Method::GET, Version::HTTP_11, parts.status, &parts.headers, body.len(), false);
        let (fields, payload) = body.into_parts();
        let date = self.env.dates.http_date(self.env.wall);
        h1::encode_head(&mut self.flight.out, Version::HTTP_11, parts.status, &parts.headers, &fields, &plan, date);
        match payload {
            Payload::Bytes(bytes) => self.flight.out.extend_from_slice(&bytes),
            Payload::File(_) | Payload::Pieces(_) | Payload::Stream(_) => {}
        }
    }

    /// The response is whole, in the kernel's hands or in the buffer.
    fn end_response(&mut self) {
        let Some(underway) = self.flight.underway.take() else { return };
        self.env.record.end_request(underway.entry);
        self.env.executor.answered(ExchangeKey { index: self.index, serial: underway.serial }, self.env.now);
        self.env.log(&underway);
        self.connection.kept = true;
        self.answered = true;
        self.flight.source = Source::Nothing;
        self.flight.phase = Phase::Receiving;
    }

    /// The response cannot be completed: the client must notice.
    fn break_off(&mut self, why: &dyn std::fmt::Display) {
        if let Some(underway) = &self.flight.underway {
            log::error!("{}: the response was cut off: {why}", underway.shown());
        }
        self.flight.ending = Ending::Reset;
        self.flight.source = Source::Nothing;
        self.flight.pieces = Vec::new().into_iter();
        self.flight.phase = Phase::Receiving;
    }

    /// Sends what is there: the buffer, and what follows it as long as the turn lasts.
    pub fn send(&mut self) -> Sent {
        loop {
            let sent = self.send_bytes();
            if sent != Sent::Done || self.flight.phase != Phase::Sending || self.left_bytes == 0 {
                return sent;
            }
            let sent = self.send_source();
            if sent != Sent::Done {
                return sent;
            }
        }
    }

    /// Sends the buffer, and what is in memory behind it.
    fn send_bytes(&mut self) -> Sent {
        loop {
            let flight = &mut *self.flight;
            let buffered = &flight.out[flight.sent..];
            let (body, more_follows): (&[u8], bool) = match &flight.source {
                Source::Bytes(bytes) => (bytes, false),
                Source::File(part) => (&[], part.len() > 0),
                Source::Nothing | Source::Stream(_) => (&[], false),
            };
            let is_empty = buffered.is_empty() && body.is_empty();
            if is_empty && !self.connection.has_sealed() {
                flight.out.clear();
                flight.sent = 0;
                return Sent::Done;
            }
            // Within TLS a file's bytes are put behind these, to be sealed with them.
            if more_follows && buffered.len() < COPIED_BYTES && self.connection.is_tls() {
                return Sent::Done;
            }
            if !self.connection.writable {
                return Sent::Blocked;
            }
            let from_buffer = buffered.len();
            let sent = if is_empty {
                self.connection.flush().map(|()| 0)
            } else {
                self.connection.send(buffered, body, more_follows)
            };
            match sent {
                Ok(n) => {
                    flight.sent += n.min(from_buffer);
                    if let Source::Bytes(bytes) = &mut flight.source {
                        bytes.advance(n.saturating_sub(from_buffer));
                    }
                    self.note_sent(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.connection.writable = false,
                Err(_) => return Sent::Gone,
            }
        }
    }

    /// Sends some of what follows the buffer, puts some of it into the buffer, or ends the response behind the last.
    fn send_source(&mut self) -> Sent {
        match &self.flight.source {
            Source::Nothing | Source::Bytes(_) => self.end_piece(),
            Source::File(part) if part.len() == 0 => self.end_piece(),
            Source::File(part) => match part.passage {
                Passage::Sendfile if !self.connection.is_tls() => return self.send_file(),
                Passage::Sendfile | Passage::Copied => self.copy_file(),
            },
            Source::Stream(_) => self.pull(),
        }
        Sent::Done
    }

    fn send_file(&mut self) -> Sent {
        let Source::File(part) = &mut self.flight.source else { return Sent::Done };
        if !self.connection.writable {
            return Sent::Blocked;
        }
        let want = usize::try_from(part.len()).unwrap_or(usize::MAX).min(self.left_bytes);
        if want as u64 == part.len() && !part.is_unchanged() {
            self.break_off(&CHANGED);
            return Sent::Done;
        }
        let (socket, start) = (self.connection.socket.as_fd(), part.range.start);
        match sys::socket::send_file(socket, part.file.as_fd(), start, want) {
            Ok(0) => self.break_off(&CHANGED),
            Ok(n) => {
                part.range.start += n as u64;
                self.note_sent(n);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.connection.writable = false,
            Err(error) if client_is_gone(&error) => return Sent::Gone,
            Err(error) => self.break_off(&error),
        }
        Sent::Done
    }

    /// Reads the next bytes of the file into the buffer, behind what is there; the last ones only where the file is still
    /// the same after that.
    fn copy_file(&mut self) {
        let Source::File(part) = &mut self.flight.source else { return };
        let room = COPIED_BYTES.saturating_sub(self.flight.out.len() - self.flight.sent);
        let want = usize::try_from(part.len()).unwrap_or(usize::MAX).min(room);
        match read_at(part.file.as_ref(), &mut self.env.buffer[..want], part.range.start) {
            Ok(0) => self.break_off(&CHANGED),
            Ok(n) => {
                part.range.start += n as u64;
                if part.len() == 0 && !part.is_unchanged() {
                    return self.break_off(&CHANGED);
                }
                // Within TLS the end of the record before may still wait, so that the buffer was not emptied.
                self.flight.out.drain(..std::mem::take(&mut self.flight.sent));
                self.flight.out.extend_from_slice(&self.env.buffer[..n]);
            }
            Err(error) => self.break_off(&error),
        }
    }

    /// Has the next chunk made, here or beside the loop.
    fn pull(&mut self) {
        let Source::Stream(stream) = &mut self.flight.source else { return };
        let (Some(mut chunks), Some(underway)) = (stream.chunks.take(), &self.flight.underway) else { return };
        if underway.may_block {
            let key = ExchangeKey { index: self.index, serial: underway.serial };
            self.flight.phase = Phase::Pulling;
            self.env.run(Job::Pull(key, chunks));
        } else {
            self.spend_time();
            let chunk = chunks.next_chunk();
            self.take_chunk(chunks, chunk);
        }
    }

    /// Puts a chunk into the buffer, or ends the response behind the last.
    pub fn take_chunk(&mut self, chunks: BodyStream, chunk: Option<io::Result<Bytes>>) {
        self.flight.phase = Phase::Sending;
        let Source::Stream(stream) = &mut self.flight.source else { return };
        stream.chunks = Some(chunks);
        match chunk {
            None if stream.left.is_some_and(|left| left > 0) => {
                self.break_off(&"the stream ended before its Content-Length");
            }
            None => {
                if stream.chunked {
                    self.flight.out.extend_from_slice(h1::LAST_CHUNK);
                }
                self.end_response();
            }
            Some(Err(error)) => self.break_off(&error),
            Some(Ok(bytes)) => self.push_chunk(&bytes),
        }
    }

    fn push_chunk(&mut self, bytes: &[u8]) {
        let Source::Stream(stream) = &mut self.flight.source else { return };
        let length = bytes.len() as u64;
        if let Some(left) = &mut stream.left {
            match left.checked_sub(length) {
                Some(rest) => *left = rest,
                None => return self.break_off(&"the stream is longer than its Content-Length"),
            }
        }
        if length > 0 && stream.chunked {
            h1::encode_chunk_head(&mut self.flight.out, bytes.len());
            self.flight.out.extend_from_slice(bytes);
            self.flight.out.extend_from_slice(h1::CHUNK_END);
        } else {
            self.flight.out.extend_from_slice(bytes);
        }
        self.count(length);
    }

    fn note_sent(&mut self, n: usize) {
        self.spend_bytes(n);
        self.flight.untaken = None;
    }

    fn count(&mut self, body_bytes: u64) {
        if let Some(underway) = &mut self.flight.underway {
            underway.body_bytes += body_bytes;
        }
    }
}

fn read_at(file: &impl FileExt, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Whether an error of sendfile(2) is about the socket rather than the file.
fn client_is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
    )
}
