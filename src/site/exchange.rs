//! An exchange: a request and the promise of its response, and the way the response takes back to the loop.
//! Knows neither the loop nor the connection, only the key the loop gave.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::{BodyStream, Request, Response, pages};

/// A request and the duty to answer it. It is owned and may travel to another thread.
///
/// An exchange that is dropped without an answer, as by a panic, is answered with 500.
#[derive(Debug)]
pub struct Exchange {
    request: Request,
    responder: Responder,
}

impl Exchange {
    pub(crate) fn new(request: Request, origin: Origin, key: ExchangeKey, outbox: Arc<Outbox>) -> Self {
        let responder = Responder { origin, key, outbox, answered: false };
        Self { request, responder }
    }

    /// What the client asks.
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Who asks: the other end of the connection or, where that is a server in front whose word counts (`[proxy]` of the
    /// configuration), whom that server names.
    pub const fn client(&self) -> Client {
        self.responder.client()
    }

    /// Whether the client came by https, to Regrow itself or to a server in front whose word counts.
    pub const fn is_https(&self) -> bool {
        self.responder.origin.https
    }

    /// Answers.
    pub fn respond(self, response: Response) {
        self.responder.respond(response);
    }

    /// Which exchange of its loop it is.
    pub(crate) const fn key(&self) -> ExchangeKey {
        self.responder.key
    }

    /// Has its answer delivered elsewhere: this is another process than that of the loop.
    pub(crate) fn deliver_to(&mut self, outbox: Arc<Outbox>) {
        self.responder.outbox = outbox;
    }

    /// Somebody else has the duty to answer now.
    pub(crate) fn release(mut self) -> Request {
        self.responder.answered = true;
        self.request
    }

    /// The request, to be consumed, and the duty to answer it.
    pub fn into_parts(self) -> (Request, Responder) {
        (self.request, self.responder)
    }
}

/// The duty to answer a request whose [`Exchange`] was taken apart. Dropped without an answer it answers 500.
#[derive(Debug)]
pub struct Responder {
    origin: Origin,
    key: ExchangeKey,
    outbox: Arc<Outbox>,
    answered: bool,
}

impl Responder {
    /// Who asks, as [`Exchange::client`] says.
    pub const fn client(&self) -> Client {
        self.origin.client
    }

    /// Answers.
    pub fn respond(mut self, response: Response) {
        self.deliver(response);
    }

    fn deliver(&mut self, mut response: Response) {
        self.answered = true;
        // Whatever a handler keeps there is of its own making, and not to be dropped in the loop.
        response.extensions_mut().clear();
        self.outbox.post(Delivery::Response(self.key, response));
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            if !std::thread::panicking() {
                log::error!("an exchange with {} was dropped without an answer; sending 500", self.client());
            }
            self.deliver(pages::page(StatusCode::INTERNAL_SERVER_ERROR));
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A TCP client's address and port; port 0 where a server in front named the address alone.
    Ip(SocketAddr),
    /// A process that connected to `socketFile`, or to a Unix socket of a server in front.
    Unix,
}

/// Who asks, and how they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub client: Client,
    pub https: bool,
}

impl Client {
    pub(crate) fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(address),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) if address.port() == 0 => address.ip().fmt(f),
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix:"),
        }
    }
}

/// Names one exchange of one loop; never used again, so that an answer that comes after its connection is gone
/// finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExchangeKey {
    /// Where the connection is in the loop's table.
    pub index: usize,
    /// Counts the loop's exchanges.
    pub serial: u64,
}

/// What reaches the loop from other threads.
pub(crate) enum Delivery {
    Response(ExchangeKey, Response),
    /// The next chunk of a stream that was asked off the loop, and the stream itself.
    Chunk(ExchangeKey, BodyStream, Option<io::Result<Bytes>>),
    /// A thread has finished a job of this exchange, which it had begun at that time.
    JobDone(ExchangeKey, Duration),
    /// The loop is to drain: for how long it goes on accepting, and after how long it is to cut off what is under way.
    Drain(Duration, Option<Duration>),
}

/// Where handlers of any thread leave their answers for the loop, which is woken only when it sleeps.
pub(crate) struct Outbox {
    deliveries: Mutex<Vec<Delivery>>,
    loop_sleeps: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Outbox {
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { deliveries: Mutex::default(), loop_sleeps: AtomicBool::new(false), wake: Box::new(wake) }
    }

    pub fn post(&self, delivery: Delivery) {
        self.lock().push(delivery);
        if self.loop_sleeps.swap(false, Ordering::SeqCst) {
            (self.wake)();
        }
    }

    /// The response to an exchange whose handler has just returned, unless it is to come later.
    pub fn take_response(&self, key: ExchangeKey) -> Option<Response> {
        let is_it = |delivery: &Delivery| matches!(delivery, Delivery::Response(of, _) if *of == key);
        let mut deliveries = self.lock();
        let place = deliveries.iter().rposition(is_it)?;
        match deliveries.remove(place) {
            Delivery::Response(_, response) => Some(response),
            Delivery::Chunk(..) | Delivery::JobDone(..) | Delivery::Drain(..) => None,
        }
    }

    /// Swaps what was posted for an empty list, whose room is used again.
    pub fn collect(&self, into: &mut Vec<Delivery>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut *self.lock(), into);
    }

    /// The loop is about to sleep. Returns false, and it must not, when something was posted meanwhile.
    pub fn may_sleep(&self) -> bool {
        self.loop_sleeps.store(true, Ordering::SeqCst);
        let nothing_posted = self.lock().is_empty();
        if !nothing_posted {
            self.awake();
        }
        nothing_posted
    }

    /// The loop is up: posts need not wake it.
    pub fn awake(&self) {
        self.loop_sleeps.store(false, Ordering::SeqCst);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Delivery>> {
        // A list of deliveries is whole at every moment, so a panic elsewhere has not harmed it.
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbox")
    }
}
