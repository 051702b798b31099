//! What answers a request: the [`Handler`] trait, what a handler is given and what it gives back, and
//! the sites that come with Regrow. Knows nothing of sockets, loops and processes.

mod body;
mod exchange;
pub(crate) mod files;
pub(crate) mod pages;
pub(crate) mod routes;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod welcome;

pub use body::{Body, RequestBody, Trailers};
pub(crate) use body::{BodyStream, FileRange, Payload};
pub use exchange::{Client, Exchange, Responder};
pub(crate) use exchange::{Delivery, ExchangeKey, Outbox};

/// A request with its whole body.
pub type Request = http::Request<RequestBody>;

/// A response; its body is bytes, a range of a file, or a stream.
pub type Response = http::Response<Body>;

/// Answers requests.
///
/// One handler serves all requests of a worker. A plain `Fn(Request) -> Response` is a handler that may block;
/// [`quick`] makes one that does not.
pub trait Handler: Send + Sync + 'static {
    /// Takes the exchange and answers it, now or later, from this thread or another.
    fn handle(&self, exchange: Exchange);

    /// Whether answering this request may take long: sleep, wait for a lock, a disk, a database or another
    /// server, or compute for more than about a millisecond.
    ///
    /// One that may block runs on the worker's handler thread, one that does not runs in the connection loop
    /// itself, which saves a change of threads and must not be held up.
    fn may_block(&self, _request: &Request) -> bool {
        true
    }
}

impl<F> Handler for F
where
    F: Fn(Request) -> Response + Send + Sync + 'static,
{
    fn handle(&self, exchange: Exchange) {
        let (request, responder) = exchange.into_parts();
        responder.respond(self(request));
    }
}

/// A handler that never blocks, made of a function: it runs in the connection loop.
pub fn quick(function: impl Fn(Request) -> Response + Send + Sync + 'static) -> impl Handler {
    Quick(function)
}

struct Quick<F>(F);

impl<F: Handler> Handler for Quick<F> {
    fn handle(&self, exchange: Exchange) {
        self.0.handle(exchange);
    }

    fn may_block(&self, _request: &Request) -> bool {
        false
    }
}

impl Handler for Box<dyn Handler> {
    fn handle(&self, exchange: Exchange) {
        self.as_ref().handle(exchange);
    }

    fn may_block(&self, request: &Request) -> bool {
        self.as_ref().may_block(request)
    }
}
