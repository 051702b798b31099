//! Handlers asked and answering without sockets.

use std::io::Read;
use std::sync::Arc;

use http::Method;

use super::{Client, Exchange, ExchangeKey, Handler, Outbox, Payload, Request, RequestBody, Response};

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
    let outbox = Arc::new(Outbox::new(|| {}));
    let key = ExchangeKey { index: 0, serial: 0 };
    handler.handle(Exchange::new(request, Client::Unix, key, Arc::clone(&outbox)));
    outbox.take_response(key).expect("the handler answers before it returns")
}

/// The whole body.
pub(crate) fn body(response: Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    match response.into_body().into_payload() {
        Payload::Bytes(whole) => bytes.extend_from_slice(&whole),
        Payload::File(part) => {
            assert_eq!(part.range.start, 0, "only whole files are expected");
            part.file.take(part.range.end).read_to_end(&mut bytes).map(drop).unwrap();
        }
        Payload::Stream(mut chunks) => {
            while let Some(chunk) = chunks.next_chunk() {
                bytes.extend_from_slice(&chunk.unwrap());
            }
        }
    }
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
