//! What the connections of a loop share: the site, the clock of this turn, the logs, buffers and limits.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::Settings;
use super::connection::{Flight, Underway};
use super::executor::{Executor, Job};
use super::stored;
use crate::board::Record;
use crate::h1;
use crate::listen::Entrance;
use crate::log::access::{AccessLog, Entry};
use crate::log::stamp::DateCache;
use crate::site::{Client, Handler, Outbox};
use crate::sys;

/// How long lines may wait to be written with others.
const LOG_DELAY: Duration = Duration::from_millis(50);

/// The most flights that are kept for reuse.
const KEPT_FLIGHTS: usize = 64;

/// What arrives in one call; many requests, or a good piece of a body.
const RECEIVE_BYTES: usize = 64 << 10;

pub(super) struct Env {
    pub entrance: Entrance,
    pub handler: Arc<dyn Handler>,
    pub outbox: Arc<Outbox>,
    pub executor: Executor,
    pub limits: h1::Limits,
    pub body_in_memory: usize,
    /// For how long a handler may run; zero is for ever.
    pub request_timeout: Duration,
    /// When to look whether one has run for too long: no job that runs now began so long before.
    pub look_at_jobs: Option<Duration>,
    /// Connections are kept for the next request.
    pub keep_alive: bool,
    pub bodies: stored::Budget,
    pub record: Record,
    pub access: AccessLog,
    /// What this turn began with.
    pub now: Duration,
    pub wall: SystemTime,
    pub dates: DateCache,
    /// The worker is draining: every response is the last of its connection.
    pub draining: bool,
    pub buffer: Box<[u8]>,
    /// What was sealed in the buffer.
    pub opened: Vec<u8>,
    #[allow(clippy::vec_box)] // they go from here to a connection, which is to stay small
    spare: Vec<Box<Flight>>,
    last_serial: u64,
    log_deadline: Option<Duration>,
    /// That clients are turned away was said, and is not said again above `debug` before then.
    pub told_until: Option<Duration>,
}

impl Env {
    pub fn new(
        entrance: Entrance,
        handler: Arc<dyn Handler>,
        outbox: Arc<Outbox>,
        executor: Executor,
        settings: &Settings,
        record: Record,
        access: AccessLog,
    ) -> Self {
        Self {
            entrance,
            handler,
            outbox,
            executor,
            limits: settings.limits,
            body_in_memory: settings.body_in_memory,
            request_timeout: settings.request_timeout,
            look_at_jobs: None,
            keep_alive: !settings.keep_alive_timeout.is_zero(),
            bodies: stored::Budget::new(settings.limits.max_body),
            record,
            access,
            now: sys::clock::monotonic(),
            wall: SystemTime::now(),
            dates: DateCache::new(),
            draining: false,
            buffer: vec![0; RECEIVE_BYTES].into(),
            opened: Vec::new(),
            spare: Vec::new(),
            last_serial: 0,
            log_deadline: None,
            told_until: None,
        }
    }

    /// A new turn of the loop has begun.
    pub fn begin_turn(&mut self) {
        self.now = sys::clock::monotonic();
        self.wall = SystemTime::now();
        self.record.begin_turn(self.now);
    }

    /// Has a job done beside the loop.
    pub fn run(&mut self, job: Job) {
        if self.look_at_jobs.is_none() && !self.request_timeout.is_zero() {
            self.look_at_jobs = Some(self.now + self.request_timeout);
        }
        self.executor.run(job, self.now);
    }

    pub fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// A flight without anything under way.
    pub fn take_flight(&mut self) -> Box<Flight> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes back a flight that is no longer needed.
    pub fn return_flight(&mut self, mut flight: Box<Flight>) {
        flight.body.release(&mut self.bodies);
        if self.spare.len() < KEPT_FLIGHTS {
            flight.reset();
            self.spare.push(flight);
        }
    }

    /// A client is there, and will be in the log.
    pub fn meet(&mut self, client: Client) {
        if let Some(address) = client.address() {
            self.access.meet(address.ip(), self.now);
        }
    }

    /// Logs an exchange that is over, answered or not.
    pub fn log(&mut self, of: &Underway) {
        self.log_entry(&Entry {
            client: of.client.address().map(|address| address.ip()),
            time: self.wall,
            method: of.method.as_str(),
            target: &of.target,
            version: Some(of.version),
            status: of.status.as_u16(),
            body_bytes: of.body_bytes,
            referer: of.referer.as_ref().map(http::HeaderValue::as_bytes),
            user_agent: of.user_agent.as_ref().map(http::HeaderValue::as_bytes),
            duration: sys::clock::monotonic().saturating_sub(of.started),
        });
    }

    /// Logs a refusal of what was no whole request.
    pub fn log_refusal(&mut self, client: Client, status: StatusCode, body_bytes: u64) {
        self.log_entry(&Entry {
            client: client.address().map(|address| address.ip()),
            time: self.wall,
            method: "-",
            target: b"",
            version: None,
            status: status.as_u16(),
            body_bytes,
            referer: None,
            user_agent: None,
            duration: Duration::ZERO,
        });
    }

    fn log_entry(&mut self, entry: &Entry<'_>) {
        self.access.record(entry, self.now);
        if self.access.is_full() {
            self.flush_log();
        } else if self.log_deadline.is_none() && !self.access.is_empty() {
            self.log_deadline = Some(self.now + LOG_DELAY);
        }
    }

    /// Writes the log lines that wait, once they have waited long enough.
    pub fn flush_log_when_due(&mut self) {
        if self.log_deadline.is_some_and(|deadline| deadline <= self.now) {
            self.flush_log();
        }
    }

    fn flush_log(&mut self) {
        self.access.flush(self.now);
        // What waits for a name is looked at again.
        self.log_deadline = (!self.access.is_empty()).then(|| self.now + LOG_DELAY);
    }

    pub fn log_deadline(&self) -> Option<Duration> {
        self.log_deadline
    }
}
