//! The life of a process that answers one request: runs the handler, sends what it answers to the loop, and ends.
//! Knows no connection; what it inherited of them is closed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::thread::{self, Thread};

use bytes::Bytes;
use http::StatusCode;

use super::handle;
use super::wire::{self, Encoded};
use crate::site::{
    Body, BodyStream, Exchange, FileRange, Handler, Outbox, Passage, Payload, Piece, Response, guard, pages,
};
use crate::sys;
use crate::sys::message::{self, Patience};

/// Bytes of a body that travel within its message; more travel as a file in memory. Of pieces, of which there can be
/// many in one message, fewer do.
const INLINE_BYTES: usize = 32 << 10;
const INLINE_PIECE: usize = 1 << 10;

/// The exit codes of such a process.
const DONE: i32 = 0;
const FAILED: i32 = 1;

/// Runs from the fork to the exit code, in the one thread that there is, `me`. Nobody takes its response when its worker,
/// `parent`, is gone.
pub(super) fn run(
    me: Thread,
    parent: i32,
    handler: &dyn Handler,
    exchange: Exchange,
    socket: &OwnedFd,
    inherited: Vec<RawFd>,
) -> i32 {
    sys::process::close_inherited(inherited);
    if let Err(cause) = sys::signal::ignore_in_child() {
        log::error!("cannot unblock signals: {cause}");
        return FAILED;
    }
    if sys::process::die_with_parent(Some(parent)).is_err() {
        return FAILED;
    }
    match send(socket, answer(me, handler, exchange)) {
        Err(cause) if is_unwanted(&cause) => DONE,
        Err(cause) => {
            log::error!("cannot pass the response on: {cause}");
            FAILED
        }
        Ok(()) => DONE,
    }
}

/// The handler may answer later, from a thread that it starts, or when it is tended.
fn answer(me: Thread, handler: &dyn Handler, mut exchange: Exchange) -> Response {
    let key = exchange.key();
    let outbox = Arc::new(Outbox::new(move || me.unpark()));
    exchange.deliver_to(Arc::clone(&outbox));
    handle(handler, exchange);
    loop {
        if let Some(response) = outbox.take_response(key) {
            return response;
        }
        if outbox.may_sleep() {
            wait(handler);
            outbox.awake();
        }
    }
}

fn wait(handler: &dyn Handler) {
    match handler.next_deadline() {
        None => thread::park(),
        Some(deadline) => {
            thread::park_timeout(deadline.saturating_sub(sys::clock::monotonic()));
            let now = sys::clock::monotonic();
            if deadline <= now {
                guard(|| handler.tend(now));
            }
        }
    }
}

fn send(socket: &OwnedFd, response: Response) -> io::Result<()> {
    let Encoded { message, files, stream } = wire::encode(spill(response)?);
    let descriptors: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    match message::send(socket, &message, &descriptors, Patience::Wait) {
        Err(cause) if !is_unwanted(&cause) => {
            log::error!("the response cannot be passed on ({} bytes of fields?): {cause}; sending 500", message.len());
            let page = wire::encode(pages::page(StatusCode::INTERNAL_SERVER_ERROR));
            return message::send(socket, &page.message, &[], Patience::Wait);
        }
        sent => sent?,
    }
    stream.map_or(Ok(()), |stream| send_stream(socket, stream))
}

/// Whether a message found nobody, for the client has left: a socket that is closed with something unread says so by a
/// reset.
fn is_unwanted(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Sends chunks as they are made, as fast as the loop takes them.
fn send_stream(socket: &OwnedFd, mut stream: BodyStream) -> io::Result<()> {
    loop {
        match stream.next_chunk() {
            Some(Ok(chunk)) => {
                for part in chunk.chunks(INLINE_BYTES) {
                    message::send(socket, &wire::encode_item(Ok(Some(part))), &[], Patience::Wait)?;
                }
            }
            Some(Err(why)) => {
                return message::send(socket, &wire::encode_item(Err(&why.to_string())), &[], Patience::Wait);
            }
            None => return message::send(socket, &wire::encode_item(Ok(None)), &[], Patience::Wait),
        }
    }
}

/// Puts what is large into files in memory.
fn spill(response: Response) -> io::Result<Response> {
    let (parts, body) = response.into_parts();
    let (fields, payload) = body.into_parts();
    let payload = match payload {
        Payload::Bytes(bytes) => Payload::Pieces(vec![spill_bytes(bytes, INLINE_BYTES)?]),
        Payload::Pieces(pieces) => {
            let spilled = pieces.into_iter().map(|piece| match piece {
                Piece::Bytes(bytes) => spill_bytes(bytes, INLINE_PIECE),
                Piece::File(part) => Ok(Piece::File(part)),
            });
            Payload::Pieces(spilled.collect::<io::Result<_>>()?)
        }
        Payload::File(part) => Payload::File(part),
        Payload::Stream(stream) => Payload::Stream(stream),
    };
    Ok(Response::from_parts(parts, Body::of(payload).with_fields(fields)))
}

fn spill_bytes(bytes: Bytes, inline: usize) -> io::Result<Piece> {
    if bytes.len() <= inline {
        return Ok(Piece::Bytes(bytes));
    }
    let file = sys::shared::file_with(&bytes)?.into();
    let range = 0..bytes.len() as u64;
    Ok(Piece::File(FileRange { file, range, version: None, passage: Passage::Sendfile }))
}
