//! What answers a request: the [`Handler`] trait, what a handler is given and what it gives back, and
//! the sites that come with Regrow. Knows nothing of sockets, loops and processes.

use std::time::Duration;

mod body;
pub(crate) mod control;
mod exchange;
pub(crate) mod files;
pub(crate) mod health;
pub(crate) mod pages;
pub(crate) mod routes;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod welcome;

pub use body::{Body, RequestBody, Trailers};
pub(crate) use body::{BodyStream, FileRange, Passage, Payload, Piece, guard};
pub use exchange::{Client, Exchange, Responder};
pub(crate) use exchange::{Delivery, ExchangeKey, Origin, Outbox};

/// A request with its whole body.
pub type Request = http::Request<RequestBody>;

/// A response; its body is bytes, a range of a file, or a stream.
///
/// [`http::Response::builder`] makes one with a status and fields; the alias itself has `new` and `from_parts` only:
///
/// ```
/// use regrow::{Body, Response, http};
///
/// fn gone() -> Result<Response, http::Error> {
///     http::Response::builder().status(410).header("content-type", "text/plain").body(Body::from("Gone.\n"))
/// }
/// # assert_eq!(gone().unwrap().status(), 410);
/// ```
///
/// The fields that belong to the connection are Regrow's: `Connection`, `Transfer-Encoding` and the like are left out,
/// `Content-Length` is that of the body, and `Date` is added. No `Content-Type` is. A 1xx is no answer and becomes a 500.
pub type Response = http::Response<Body>;

/// Answers requests.
///
/// One handler serves all requests of a worker. It may answer later, from a thread of its own:
///
/// ```
/// use regrow::{Exchange, Handler, Response};
///
/// struct Slow;
///
/// impl Handler for Slow {
///     fn handle(&self, exchange: Exchange) {
///         std::thread::spawn(move || exchange.respond(Response::new("At last.\n".into())));
///     }
///
///     fn may_block(&self, _: &regrow::Request) -> bool {
///         false // starting a thread is quick
///     }
/// }
/// ```
///
/// What is not answered within `requestTimeout` of the call is answered with 504, and an answer that comes later is
/// dropped. When the server stops, what is not answered within `gracefulTimeout` is cut off. A plain `Fn(Request) -> Response` is a handler that may block;
/// [`quick`] makes one that does not.
pub trait Handler: Send + Sync + 'static {
    /// Takes the exchange and answers it, now or later, from this thread or another.
    fn handle(&self, exchange: Exchange);

    /// Whether answering this request may take long: sleep, wait for a lock, a disk, a database or another
    /// server, or compute for more than about a millisecond.
    ///
    /// One that may block runs on a handler thread. One that does not runs in the connection loop itself, which saves a
    /// change of threads and must not be held up: nobody else is served meanwhile. With `forking=1` or `threading=1` it is
    /// not asked: there every request has a process or a thread of its own.
    fn may_block(&self, _request: &Request) -> bool {
        true
    }

    /// When [`tend`](Self::tend) is to be called next, on the monotonic clock. It is asked in every turn of the loop.
    #[doc(hidden)]
    fn next_deadline(&self) -> Option<Duration> {
        None
    }

    /// Does in the loop, quickly, what time has come for: answers what had to wait a moment, lets go of what is no
    /// longer needed.
    #[doc(hidden)]
    fn tend(&self, _now: Duration) {}
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

    fn next_deadline(&self) -> Option<Duration> {
        self.as_ref().next_deadline()
    }

    fn tend(&self, now: Duration) {
        self.as_ref().tend(now);
    }
}
