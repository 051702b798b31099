//! The connection loop: one turn waits for events, gives every connection that has something to do its turn,
//! accepts, and sees to timers. Knows listeners, connections and a handler; not why it is to drain, nor who asked.

mod accept;
mod connection;
mod deliveries;
mod drive;
mod endings;
mod env;
mod executor;
mod forwarded;
mod gate;
mod handover;
mod idle;
mod introduction;
mod leaving;
mod overdue;
mod parcel;
mod send;
mod stored;
mod timers;
mod transport;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use crate::board::{Board, Record};
use crate::config;
use crate::h1;
use crate::listen::{Entrance, Listener};
use crate::log::access::AccessLog;
use crate::site::{Client, Delivery, Handler, Outbox, guard};
use connection::{Connection, Flight};
use drive::{Drive, Outcome};
use env::Env;
pub(crate) use executor::Runner;
use executor::{Executor, Site};
use gate::Gate;
pub(crate) use handover::Ends;
use handover::Handover;
use timers::{Timeouts, Timers};
use transport::Transport;

/// How soon to look again where no event says when: at a queue that a draining worker could not empty in one turn, and
/// for the free sibling that a busy worker leaves the listener to.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

const EVENTS_PER_TURN: usize = 256;

/// Tokens above all connections: whatever the owner watches, the waker, what others hand over, and the listeners from there
/// down; below them, the sockets of processes that answer requests.
const WATCHED: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const HANDOVER: Token = Token(usize::MAX - 2);
const IDLE_HANDOVER: Token = Token(usize::MAX - 3);
const FIRST_LISTENER: usize = usize::MAX - 4;
const LAST_LISTENER: usize = FIRST_LISTENER - 1000;
const FIRST_PROCESS: usize = usize::MAX / 2;

/// Descriptors of a worker that are no connections: listeners, logs, pipes, files that are kept open or being sent, and
/// the sockets of processes that answer requests.
pub(crate) fn other_descriptors(runner: config::Runner) -> u64 {
    const AT_LEAST: u64 = 512;
    match runner {
        config::Runner::Processes(most) => AT_LEAST + u64::from(most),
        config::Runner::Pool(_) | config::Runner::Threads(_) => AT_LEAST,
    }
}

/// What a loop is told of limits and times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub limits: h1::Limits,
    pub body_in_memory: usize,
    pub max_connections: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
    pub keep_alive_timeout: Duration,
    /// For how long a handler may run.
    pub request_timeout: Duration,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing that the owner must know of.
    Served,
    /// Something that the owner watches has something to say.
    Watched,
    /// The loop was to drain, and all is done.
    Finished,
}

/// What a loop is made of.
pub(crate) struct Parts {
    pub listeners: Vec<Arc<Listener>>,
    pub entrance: Entrance,
    /// Where connections are handed over, if anywhere.
    pub handover: Option<Arc<Ends>>,
    /// Requests that wait are handed over, too.
    pub shares_requests: bool,
    pub handler: Arc<dyn Handler>,
    pub runner: Runner,
    pub access: AccessLog,
    pub board: Board,
    pub record: Record,
}

/// One connection loop.
pub(crate) struct Loop {
    poll: Poll,
    events: Events,
    /// What is watched for others; a process that is forked for a request is not to hold it.
    watched: Vec<RawFd>,
    listeners: Vec<Arc<Listener>>,
    gate: Gate,
    handover: Option<Handover>,
    /// A listener has connections.
    acceptable: bool,
    table: Slab<Connection>,
    timers: Timers,
    /// Connections whose turn ended before they had nothing left to do.
    next_turn: VecDeque<usize>,
    /// Room for what handlers posted, used again in each turn.
    deliveries: Vec<Delivery>,
    max_connections: usize,
    /// Leaving: accept until then, and further until the queue is empty.
    accept_until: Option<Duration>,
    /// Leaving: cut off what is under way then.
    drain_deadline: Option<Duration>,
    /// A handler was given up that goes on running.
    has_stuck_handler: bool,
    board: Board,
    record: Record,
    env: Env,
}

impl Loop {
    pub fn new(settings: &Settings, parts: Parts) -> io::Result<Self> {
        let Parts { listeners, entrance, handover, shares_requests, handler, runner, access, board, record } = parts;
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let wake = move || {
            if let Err(cause) = waker.wake() {
                log::error!("cannot wake the loop: {cause}; an answer is late");
            }
        };
        let outbox = Arc::new(Outbox::new(wake));
        let site = Site { handler: Arc::clone(&handler), outbox: Arc::clone(&outbox) };
        let executor = Executor::new(&runner, site, poll.registry(), FIRST_PROCESS)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            watched: Vec::new(),
            listeners,
            gate: Gate::default(),
            handover: handover.map(|ends| Handover::new(ends, shares_requests)),
            acceptable: false,
            table: Slab::new(),
            timers: Timers::new(timeouts(settings)),
            next_turn: VecDeque::new(),
            deliveries: Vec::new(),
            max_connections: settings.max_connections,
            accept_until: None,
            drain_deadline: None,
            has_stuck_handler: false,
            board,
            record,
            env: Env::new(entrance, handler, outbox, executor, settings, record, access),
        })
    }

    /// Has [`Turn::Watched`] returned when `fd` can be read.
    pub fn watch(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.watched.push(fd.as_raw_fd());
        self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), WATCHED, Interest::READABLE)
    }

    /// Whether it is to accept, and to take what others hand over: from the start, unless it is told otherwise.
    pub fn set_open(&mut self, open: bool) {
        self.gate.closed = !open;
    }

    /// Serves, from the next turn on, a connection that was made within this process, as if it came from a listener without
    /// TLS.
    pub fn serve(&mut self, socket: OwnedFd) {
        let index = self.admit(Connection::new(socket, Transport::Plain, Client::Unix));
        self.queue(index);
    }

    /// Waits for something to happen, and sees to it.
    pub fn turn(&mut self) -> io::Result<Turn> {
        self.move_listeners()?;
        self.move_handover()?;
        self.wait()?;
        self.env.begin_turn();
        self.take_turns();
        let watched = self.take_events();
        self.tend_site();
        self.take_deliveries();
        self.accept();
        self.hand_over();
        self.start_processes();
        self.end_overdue();
        self.expire_timers();
        self.env.flush_log_when_due();
        Ok(if watched {
            Turn::Watched
        } else if self.is_finished() {
            Turn::Finished
        } else {
            Turn::Served
        })
    }

    /// Writes what is left to be written of the log, and tells what was lost: this is the end.
    pub fn close_log(&mut self) {
        self.env.access.flush(Duration::MAX);
    }

    fn wait(&mut self) -> io::Result<()> {
        let timeout = if self.env.outbox.may_sleep() { self.timeout() } else { Some(Duration::ZERO) };
        self.record.end_turn();
        let polled = self.poll.poll(&mut self.events, timeout);
        self.env.outbox.awake();
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.next_turn.is_empty() || self.is_finished() {
            return Some(Duration::ZERO);
        }
        let now = self.env.now;
        let accept_until = self.accept_until.filter(|_| !self.listeners.is_empty());
        let deadlines = [
            self.gate.next_deadline(),
            self.handover.as_ref().and_then(Handover::next_deadline),
            self.env.log_deadline(),
            accept_until,
            self.drain_deadline,
            self.env.look_at_jobs,
            self.env.handler.next_deadline(),
        ];
        let until = |deadline: Duration| deadline.saturating_sub(now);
        let look_again = self.gate.busy.then_some(LOOK_AGAIN);
        deadlines.into_iter().flatten().map(until).chain(self.timers.next_timeout(now)).chain(look_again).min()
    }

    fn take_events(&mut self) -> bool {
        let mut watched = false;
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                WATCHED => watched = true,
                WAKER => {}
                HANDOVER => self.handover.iter_mut().for_each(Handover::has_some),
                IDLE_HANDOVER => self.handover.iter_mut().for_each(|handover| handover.idle.has_some = true),
                Token(LAST_LISTENER..=FIRST_LISTENER) => self.acceptable = true,
                token @ Token(FIRST_PROCESS..) => self.env.executor.readable(token),
                Token(index) => {
                    // What comes for a connection that this turn has closed finds nobody: accepting, which gives
                    // its place away, comes later.
                    let Some(connection) = self.table.get_mut(index) else { continue };
                    let failed = event.is_error();
                    connection.ended |= event.is_read_closed() || failed;
                    connection.readable |= event.is_readable() || connection.ended;
                    connection.writable |= event.is_writable() || event.is_write_closed() || failed;
                    if failed && connection.flight.as_deref().is_some_and(Flight::waits) {
                        self.cut(index);
                    } else if !connection.queued {
                        self.drive(index);
                    }
                }
            }
        }
        self.events = events;
        watched
    }

    /// Lets those go on whose turn ended early; what they put off again is for the next turn.
    fn take_turns(&mut self) {
        for _ in 0..self.next_turn.len() {
            let Some(index) = self.next_turn.pop_front() else { return };
            if let Some(connection) = self.table.get_mut(index) {
                connection.queued = false;
                self.drive(index);
            }
        }
    }

    fn queue(&mut self, index: usize) {
        if let Some(connection) = self.table.get_mut(index) {
            if !std::mem::replace(&mut connection.queued, true) {
                self.next_turn.push_back(index);
            }
        }
    }

    fn tend_site(&mut self) {
        let handler = &self.env.handler;
        if handler.next_deadline().is_some_and(|at| at <= self.env.now) {
            guard(|| handler.tend(self.env.now));
        }
    }

    fn drive(&mut self, index: usize) {
        let Some(connection) = self.table.get_mut(index) else { return };
        if connection.lingering {
            return self.linger(index);
        }
        let outcome = Drive::new(index, connection, &mut self.env).run();
        self.settle(index, outcome);
    }

    fn settle(&mut self, index: usize, outcome: Outcome) {
        match outcome {
            Outcome::Wait(timer, anew) => {
                if anew || self.timers.current(index) != Some(timer) {
                    self.timers.set(index, timer, self.env.now);
                }
                self.watch_connection(index);
            }
            Outcome::WaitForHandler => {
                self.timers.clear(index);
                self.watch_connection(index);
            }
            Outcome::NextTurn => {
                self.timers.clear(index);
                self.queue(index);
            }
            Outcome::Close => self.close(index),
            Outcome::Linger => self.begin_to_linger(index),
        }
    }

    fn watch_connection(&mut self, index: usize) {
        let Some(connection) = self.table.get_mut(index) else { return };
        if let Err(cause) = connection.watch(self.poll.registry(), index) {
            log::error!("{}: cannot watch the connection: {cause}; closing it", connection.client);
            self.cut(index);
        }
    }

    fn close(&mut self, index: usize) {
        self.timers.clear(index);
        if let Some(mut connection) = self.table.try_remove(index) {
            if let Some(flight) = connection.flight.take() {
                self.env.return_flight(flight);
            }
            if self.env.executor.forks() {
                // A process that was just forked may hold the socket for a moment yet, and its events would go on.
                connection.unwatch(self.poll.registry());
            }
            drop(connection);
            self.record.set_connections(self.table.len());
        }
    }

    /// Closes a connection on which an exchange may be under way.
    fn cut(&mut self, index: usize) {
        if let Some(connection) = self.table.get_mut(index) {
            Drive::new(index, connection, &mut self.env).give_up();
        }
        self.close(index);
    }
}

const fn timeouts(settings: &Settings) -> Timeouts {
    Timeouts {
        header_timeout: settings.header_timeout,
        body_timeout: settings.body_timeout,
        write_timeout: settings.write_timeout,
        keep_alive_timeout: settings.keep_alive_timeout,
        drain_timeout: leaving::QUIET_TIMEOUT,
        linger_timeout: endings::LINGER_TIMEOUT,
        request_timeout: settings.request_timeout,
    }
}
