//! One connection's turn: receives, lets requests be answered, sends, until there is nothing to do for it now or
//! others have waited long enough. Knows one connection; the loop knows when it is whose turn.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};

use super::connection::{Connection, Ending, Flight, Phase, Underway};
use super::env::Env;
use super::executor::{self, Job};
use super::forwarded;
use super::send::Sent;
use super::stored;
use super::timers::Timer;
use super::transport::Received;
use crate::board::Entry;
use crate::config::Senders;
use crate::h1::{self, Event};
use crate::listen::tls::Refusal;
use crate::site::{Exchange, ExchangeKey, Origin, RequestBody, Response, Trailers, pages};
use crate::sys;

/// What a connection may receive and send in one turn, and how long handlers and streams may keep the loop for it;
/// then it is another's turn.
const TURN_BYTES: usize = 1 << 20;
const TURN_TIME: Duration = Duration::from_millis(1);

/// How many events of a request are taken between two looks at the clock.
const EVENTS_PER_LOOK: u32 = 64;

/// What a client hears that speaks plain HTTP to a port for TLS.
const HTTPS_ONLY: &str = "This port speaks HTTPS: put https:// in front of the address.\n";

/// What the connection waits for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// To be able to go on, but for so long only; `true` restarts a timer that runs already.
    Wait(Timer, bool),
    /// The handler; for how long, is seen where it runs.
    WaitForHandler,
    /// Its next turn.
    NextTurn,
    /// To be closed.
    Close,
    /// The client's end, before it is closed.
    Linger,
}

/// A connection, its flight, and all it shares with others.
pub(super) struct Drive<'a> {
    pub index: usize,
    pub connection: &'a mut Connection,
    pub flight: Box<Flight>,
    pub env: &'a mut Env,
    /// Of this turn; nothing when it is over.
    pub left_bytes: usize,
    over_at: Option<Duration>,
    events: u32,
    /// Something was received or sent in this turn.
    pub progress: bool,
    /// A response became whole in this turn.
    pub answered: bool,
}

impl<'a> Drive<'a> {
    pub fn new(index: usize, connection: &'a mut Connection, env: &'a mut Env) -> Self {
        let flight = connection.flight.take().unwrap_or_else(|| env.take_flight());
        let left_bytes = TURN_BYTES;
        Self { index, connection, flight, env, left_bytes, over_at: None, events: 0, progress: false, answered: false }
    }

    /// A handler or a stream is about to run: the turn ends when they have had their time.
    pub fn spend_time(&mut self) {
        let now = sys::clock::monotonic();
        if now >= *self.over_at.get_or_insert(now + TURN_TIME) {
            self.left_bytes = 0;
        }
    }

    pub fn spend_bytes(&mut self, n: usize) {
        self.left_bytes = self.left_bytes.saturating_sub(n);
        self.progress = true;
    }

    /// Does all that can be done now.
    pub fn run(mut self) -> Outcome {
        let outcome = loop {
            if let Some(outcome) = self.step() {
                break outcome;
            }
            if self.left_bytes == 0 {
                break Outcome::NextTurn;
            }
        };
        match outcome {
            Outcome::Close | Outcome::Linger => self.give_up(),
            Outcome::Wait(..) | Outcome::WaitForHandler | Outcome::NextTurn if self.flight.is_over() => {
                self.env.return_flight(self.flight);
            }
            Outcome::Wait(..) | Outcome::WaitForHandler | Outcome::NextTurn => {
                self.connection.flight = Some(self.flight);
            }
        }
        outcome
    }

    fn step(&mut self) -> Option<Outcome> {
        let needs_more = self.consume_kept_input();
        match self.send() {
            Sent::Done => {}
            Sent::Blocked => return Some(Outcome::Wait(Timer::Write, self.progress)),
            Sent::Gone => return Some(Outcome::Close),
        }
        match (self.flight.phase, self.flight.ending) {
            (Phase::Handling, _) if self.flight.left_open => Some(Outcome::Wait(Timer::Answer, false)),
            (Phase::Handling | Phase::Pulling, _) => Some(Outcome::WaitForHandler),
            // What the client sends beyond would, unread, reset the connection, and destroy what it has not taken yet.
            (Phase::Receiving, Ending::Close) if self.has_more_from_client() => Some(Outcome::Linger),
            (Phase::Receiving, Ending::Close | Ending::Reset) => Some(Outcome::Close),
            (Phase::Receiving, Ending::Linger) => Some(Outcome::Linger),
            (Phase::Receiving, Ending::Keep) if needs_more => self.receive(),
            (Phase::Receiving, Ending::Keep) | (Phase::Sending, _) => None,
        }
    }

    /// Behind its end too there may be bytes that nobody received; and within TLS a client says so when it goes, perhaps
    /// before it has taken all of its answer.
    fn has_more_from_client(&self) -> bool {
        !self.flight.input.is_empty() || self.connection.readable || self.connection.is_tls()
    }

    fn receive(&mut self) -> Option<Outcome> {
        if self.connection.awaits_introduction {
            return self.be_introduced();
        }
        if !self.connection.can_receive() {
            return Some(self.wait_for_client());
        }
        let mut buffer = std::mem::take(&mut self.env.buffer);
        let mut opened = std::mem::take(&mut self.env.opened);
        let outcome = match self.connection.receive(&mut buffer, &mut opened) {
            Ok(Received::Bytes(arrived, said)) => {
                self.left_bytes = self.left_bytes.saturating_sub(arrived);
                // Records that say nothing keep nobody waiting for longer.
                self.progress |= !said.is_empty();
                self.take_in(said);
                None
            }
            Ok(Received::Refused(refusal)) => {
                self.refuse_session(&refusal);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.connection.readable = false;
                None
            }
            Ok(Received::End) | Err(_) => Some(Outcome::Close),
        };
        (self.env.buffer, self.env.opened) = (buffer, opened);
        outcome
    }

    fn refuse_session(&mut self, refusal: &Refusal) {
        log::debug!("{}: {refusal}", self.connection.client);
        match refusal {
            Refusal::PlainHttp => self.refuse_with(pages::explained(StatusCode::BAD_REQUEST, HTTPS_ONLY)),
            // The alert is what there is to be sent.
            Refusal::Broken(_) => self.flight.ending = Ending::Linger,
        }
    }

    fn take_in(&mut self, bytes: &[u8]) {
        let used = if self.flight.input.is_empty() { self.consume(bytes).0 } else { 0 };
        self.flight.input.extend_from_slice(&bytes[used..]);
    }

    /// Whether more must come before anything else can be made of it.
    fn consume_kept_input(&mut self) -> bool {
        let mut input = std::mem::take(&mut self.flight.input);
        let (used, needs_more) = self.consume(&input);
        input.drain(..used);
        self.flight.input = input;
        needs_more
    }

    pub fn wait_for_client(&self) -> Outcome {
        let flight = &self.flight;
        if flight.head.is_some() {
            return Outcome::Wait(Timer::Body, self.progress);
        }
        let between_requests = flight.receiver.is_idle() && flight.input.is_empty();
        match (between_requests, self.env.draining) {
            (true, false) if self.connection.kept => Outcome::Wait(Timer::KeepAlive, self.progress),
            (true, true) => Outcome::Wait(Timer::Drain, self.progress),
            // A head must be complete in time, however often a byte of it comes; the next head has a time of its own.
            (true | false, _) => Outcome::Wait(Timer::Header, self.answered),
        }
    }

    /// Takes requests from `bytes` until one has to wait for its answer. Returns how many bytes that took, and whether
    /// it ended because more must come.
    fn consume(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut used = 0;
        while self.flight.may_consume() && self.left_bytes > 0 {
            let input = &bytes[used..];
            let (n, event) = match self.flight.receiver.receive(input, &self.env.limits) {
                Ok(received) => received,
                Err(error) => {
                    log::debug!("{}: {error}", self.connection.client);
                    self.refuse(error.status());
                    return (bytes.len(), false);
                }
            };
            used += n;
            self.events += 1;
            if self.events % EVENTS_PER_LOOK == 0 {
                self.spend_time();
            }
            match event {
                Event::NeedMore => {
                    self.ask_for_more();
                    return (used, true);
                }
                Event::Head(head) => self.take_head(head),
                Event::Data(range) => self.keep(&input[range]),
                Event::End { trailers } => self.dispatch(trailers),
            }
        }
        (used, false)
    }

    fn take_head(&mut self, mut head: h1::Head) {
        self.flight.began = self.flight.began_elsewhere.take().unwrap_or(self.env.now);
        let nobody = Senders::default();
        let trusted = if self.connection.is_stranger { &nobody } else { &self.env.entrance.trusted };
        let sender = self.sender();
        let origin = forwarded::trace(sender, trusted, &mut head.headers);
        if origin.client != sender.client {
            self.env.meet(origin.client);
        }
        self.flight.origin = Some(origin);
        self.flight.head = Some(head);
    }

    /// The other end, as far as it speaks for itself.
    fn sender(&self) -> Origin {
        Origin { client: self.connection.client, https: self.connection.is_tls() }
    }

    /// Of the request whose head was complete last.
    fn origin(&self) -> Origin {
        self.flight.origin.unwrap_or_else(|| self.sender())
    }

    fn keep(&mut self, data: &[u8]) {
        if let Err(error) = self.flight.body.push(data, self.env.body_in_memory, &mut self.env.bodies) {
            self.refuse_body(&error);
        }
    }

    /// A client that waits for leave to send its body gets it (RFC 9110 section 10.1.1).
    fn ask_for_more(&mut self) {
        if let Some(head) = &mut self.flight.head {
            if std::mem::take(&mut head.expect_continue) {
                self.flight.out.extend_from_slice(h1::CONTINUE);
            }
        }
    }

    fn refuse_body(&mut self, error: &stored::Error) {
        match error {
            stored::Error::Full => log::warn!("request bodies hold all the room they may; answering 503"),
            stored::Error::File(cause) => log::error!(
                "cannot keep a request body in {}: {cause}; make room there or set TMPDIR; answering 503",
                std::env::temp_dir().display()
            ),
        }
        self.refuse(StatusCode::SERVICE_UNAVAILABLE);
    }

    /// The request is complete: lets the site answer it.
    fn dispatch(&mut self, trailers: HeaderMap) {
        let Some(head) = self.flight.head.take() else { return };
        let body = match self.flight.body.finish() {
            Ok(body) => body,
            Err(cause) => return self.refuse_body(&stored::Error::File(cause)),
        };
        let key = ExchangeKey { index: self.index, serial: self.env.next_serial() };
        let origin = self.origin();
        let mut underway = self.underway(&head, key.serial);
        let mut request = into_request(head, body);
        if !trailers.is_empty() {
            request.extensions_mut().insert(Trailers(trailers));
        }
        underway.may_block = self.env.executor.takes_all() || executor::may_block(self.env.handler.as_ref(), &request);
        let may_block = underway.may_block;
        let record = &self.env.record;
        let client = origin.client.address();
        underway.entry = record.begin_request(underway.method.as_str(), &underway.target, client, self.env.now);
        self.flight.underway = Some(underway);
        self.flight.phase = Phase::Handling;
        self.flight.left_open = false;
        let exchange = Exchange::new(request, origin, key, self.env.outbox.clone());
        if may_block {
            self.env.run(Job::Handle(exchange));
        } else {
            self.spend_time();
            executor::handle(self.env.handler.as_ref(), exchange);
            match self.env.outbox.take_response(key) {
                Some(response) => self.respond(response),
                None => self.flight.left_open = true,
            }
        }
    }

    fn underway(&self, head: &h1::Head, serial: u64) -> Underway {
        Underway {
            serial,
            entry: Entry::default(),
            client: self.origin().client,
            method: head.method.clone(),
            version: head.version,
            target: head.target.clone(),
            referer: head.headers.get(http::header::REFERER).cloned(),
            user_agent: head.headers.get(http::header::USER_AGENT).cloned(),
            keep_alive: head.keep_alive,
            may_block: false,
            started: self.flight.began,
            status: client_gone(),
            body_bytes: 0,
        }
    }

    /// Answers bytes that are no acceptable request: the connection cannot be trusted any further.
    pub fn refuse(&mut self, status: StatusCode) {
        self.refuse_with(pages::page(status));
    }

    fn refuse_with(&mut self, response: Response) {
        let status = response.status();
        let body_bytes = response.body().len().unwrap_or(0);
        self.flight.input.clear();
        self.encode_refusal(response);
        self.flight.ending = Ending::Linger;
        match self.flight.head.take() {
            Some(head) => {
                let refused = Underway { status, body_bytes, ..self.underway(&head, 0) };
                self.env.log(&refused);
            }
            None => self.env.log_refusal(self.connection.client, status, body_bytes),
        }
    }

    /// The connection ends here, whatever was under way.
    pub fn give_up(mut self) {
        if self.flight.is_sending() || self.flight.ending == Ending::Reset || self.connection.has_sealed() {
            sys::socket::reset_on_close(self.connection.socket.as_fd());
        } else {
            self.connection.end_session();
        }
        if let Some(mut underway) = self.flight.underway.take() {
            underway.body_bytes = underway.body_bytes.saturating_sub(self.flight.source.left());
            self.env.record.abandon_request(underway.entry);
            let key = ExchangeKey { index: self.index, serial: underway.serial };
            self.env.executor.forget(key, || underway.asked());
            self.env.log(&underway);
        }
        self.env.return_flight(self.flight);
    }
}

fn into_request(head: h1::Head, body: RequestBody) -> crate::site::Request {
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    request
}

/// What the log says of a request whose client left before the answer; nginx made the number known.
fn client_gone() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)
}
