//! Handlers asked and answering without sockets.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use super::{
    Body, Client, Exchange, ExchangeKey, FileRange, Handler, Origin, Outbox, Payload, Piece, Request, RequestBody,
    Response,
};
use crate::sys::clock;

/// What the handler answers to a request without a body before `handle` returns.
pub(crate) fn answer(handler: &impl Handler, method: Method, target: &str) -> Response {
    let request = http::Request::builder().method(method).uri(target).body(RequestBody::default()).unwrap();
    answer_to(handler, request)
}

/// What the handler answers to `GET target`.
pub(crate) fn get(handler: &impl Handler, target: &str) -> Response {
    answer(handler, Method::GET, target)
}

/// What the handler answers before `handle` returns.
pub(crate) fn answer_to(handler: &impl Handler, request: Request) -> Response {
    let asked = Asked::new(handler, request);
    loop {
        if let Some(response) = asked.response() {
            return response;
        }
        // As in the loop: a file that was written just now is answered a moment later.
        let deadline = handler.next_deadline().expect("the handler answers before it returns, or later");
        while clock::monotonic() < deadline {
            std::thread::yield_now();
        }
        handler.tend(clock::monotonic());
    }
}

/// A request that was handed to a handler, and whose answer may come later.
pub(crate) struct Asked {
    outbox: Arc<Outbox>,
}

impl Asked {
    pub fn new(handler: &impl Handler, request: Request) -> Self {
        let outbox = Arc::new(Outbox::new(|| {}));
        let origin = Origin { client: Client::Unix, https: false };
        handler.handle(Exchange::new(request, origin, KEY, Arc::clone(&outbox)));
        Self { outbox }
    }

    /// The answer, if it has come and was not taken.
    pub fn response(&self) -> Option<Response> {
        self.outbox.take_response(KEY).map(decoded)
    }
}

const KEY: ExchangeKey = ExchangeKey { index: 0, serial: 0 };

/// The response with the fields that were encoded already among the others.
fn decoded(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let (fields, payload) = body.into_parts();
    for field in std::str::from_utf8(&fields).unwrap().lines() {
        let (name, value) = field.split_once(": ").unwrap();
        parts.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
    }
    Response::from_parts(parts, Body::of(payload))
}

/// The whole body.
pub(crate) fn body(response: Response) -> Vec<u8> {
    match response.into_body().into_parts().1 {
        Payload::Bytes(whole) => whole.to_vec(),
        Payload::File(part) => bytes_of(&part),
        Payload::Pieces(pieces) => pieces
            .into_iter()
            .flat_map(|piece| match piece {
                Piece::Bytes(bytes) => bytes.to_vec(),
                Piece::File(part) => bytes_of(&part),
            })
            .collect(),
        Payload::Stream(mut chunks) => {
            let mut bytes = Vec::new();
            while let Some(chunk) = chunks.next_chunk() {
                bytes.extend_from_slice(&chunk.unwrap());
            }
            bytes
        }
    }
}

fn bytes_of(part: &FileRange) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(part.len()).unwrap()];
    part.file.read_exact_at(&mut bytes, part.range.start).unwrap();
    bytes
}

/// The body, as text.
pub(crate) fn text(response: Response) -> String {
    String::from_utf8(body(response)).unwrap()
}

/// The value of a field, `""` where it is missing.
pub(crate) fn field<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}
