//! A new process for each request, so many at once at most; beyond, requests wait their turn. A process passes its
//! response back over a socket of its own and is destroyed; the loop does all sending, so that neither a slow client nor
//! a kept connection holds a process. The process that forks has one thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::wire::{self, Message};
use super::{Job, Running, Site, child, refuse};
use crate::site::{BodyStream, Client, Delivery, Exchange, ExchangeKey, pages};
use crate::sys;
use crate::sys::message::{self, Patience};
use crate::sys::process::Ended;
use crate::sys::signal::Signal;

/// How much of a stream is taken in before its client has taken it: what ends within that holds no process, whatever
/// the client does.
const READ_AHEAD: usize = 1 << 20;

/// What a chunk costs beside its bytes, of which it may have one.
const CHUNK_OVERHEAD: usize = 128;

/// No message is longer.
const MESSAGE_BYTES: usize = 256 << 10;

/// The processes of a loop, and the requests that wait for one.
pub(in crate::serve) struct Processes {
    site: Site,
    /// The thread that forks, of which each process has a copy, and its process.
    me: Thread,
    pid: i32,
    registry: Registry,
    /// The token of the first process's socket.
    first_token: usize,
    most: usize,
    waiting: VecDeque<Exchange>,
    children: Slab<Child>,
    living: usize,
    buffer: Box<[u8]>,
}

/// A process, and what it has said.
struct Child {
    pid: i32,
    lives: bool,
    key: ExchangeKey,
    asked: Asked,
    /// Nothing once it has said all, or nothing more is wanted.
    socket: Option<OwnedFd>,
    /// Its response was delivered, or is no longer wanted.
    answered: bool,
    /// When it was given what it is to do now: to answer, to make a chunk, or to end.
    since: Duration,
    /// Nothing more is wanted of it but that it ends.
    released: bool,
    /// It was killed, and why was said.
    given_up: bool,
    /// Chunks of its stream that the loop has not asked for yet; `None` is the end.
    items: VecDeque<Option<io::Result<Bytes>>>,
    /// What they hold of [`READ_AHEAD`].
    held_bytes: usize,
    /// The loop waits for the next.
    wanted: Option<BodyStream>,
}

/// For the error log.
struct Asked {
    method: Method,
    uri: Uri,
    client: Client,
}

impl Processes {
    /// At most so many processes at once. Their sockets are registered with tokens from `first_token` up.
    pub fn new(most: u32, site: Site, registry: Registry, first_token: usize) -> Self {
        let (waiting, children, living) = (VecDeque::new(), Slab::new(), 0);
        let buffer = vec![0; MESSAGE_BYTES].into();
        let (me, pid, most) = (thread::current(), sys::process::pid(), most as usize);
        Self { site, me, pid, registry, first_token, most, waiting, children, living, buffer }
    }

    /// Whether a request that comes now would have to wait.
    pub const fn is_busy(&self) -> bool {
        self.living >= self.most
    }

    /// Lets a request wait for its process, or a stream for its next chunk.
    pub fn run(&mut self, job: Job, now: Duration) {
        match job {
            Job::Handle(exchange) => self.waiting.push_back(exchange),
            Job::Pull(key, stream) => match self.find(key) {
                Some(index) => {
                    self.children[index].wanted = Some(stream);
                    self.children[index].since = now;
                    self.feed(index);
                }
                None => refuse(Job::Pull(key, stream), &self.site.outbox, "its process is gone"),
            },
        }
    }

    /// Forks for those who wait, as far as there may be more processes. `others` are the descriptors of the loop, which
    /// the processes are not to hold.
    pub fn start(&mut self, now: Duration, others: impl Fn() -> Vec<RawFd>) {
        while !self.is_busy() {
            let Some(exchange) = self.waiting.pop_front() else { return };
            let mut exchange = Some(exchange);
            let started = self.fork(&mut exchange, &others);
            match (started, exchange) {
                (Ok((pid, socket)), Some(exchange)) => self.admit(pid, socket, exchange, now),
                (Err(cause), Some(exchange)) => {
                    log::error!(
                        "cannot fork for a request: {cause}; answering 503 (raise the limits of processes and open \
                         files, or lower maxProcesses)"
                    );
                    refuse(Job::Handle(exchange), &self.site.outbox, "");
                }
                (Ok(_) | Err(_), None) => {}
            }
        }
    }

    /// Only the child takes the exchange.
    fn fork(&self, exchange: &mut Option<Exchange>, others: impl Fn() -> Vec<RawFd>) -> io::Result<(i32, OwnedFd)> {
        let (ours, theirs) = message::pair()?;
        let pid = sys::process::fork_child(|| {
            let Some(exchange) = exchange.take() else { return 0 };
            let sockets = self.children.iter().filter_map(|(_, child)| child.socket.as_ref());
            let bodies = self.waiting.iter().filter_map(|exchange| exchange.request().body().file());
            let mut inherited = others();
            inherited.extend(sockets.chain([&ours]).map(AsRawFd::as_raw_fd));
            inherited.extend(bodies.map(AsRawFd::as_raw_fd));
            inherited.push(self.registry.as_raw_fd());
            child::run(self.me.clone(), self.pid, self.site.handler.as_ref(), exchange, &theirs, inherited)
        })?;
        Ok((pid, ours))
    }

    fn admit(&mut self, pid: i32, socket: OwnedFd, exchange: Exchange, now: Duration) {
        self.living += 1;
        let entry = self.children.vacant_entry();
        let token = Token(self.first_token + entry.key());
        let watched = self.registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE);
        let (key, client) = (exchange.key(), exchange.client());
        let request = exchange.release();
        let asked = Asked { method: request.method().clone(), uri: request.uri().clone(), client };
        let (items, wanted) = (VecDeque::new(), None);
        let child = Child {
            pid,
            lives: true,
            key,
            asked,
            socket: Some(socket),
            answered: false,
            since: now,
            released: false,
            given_up: false,
            items,
            held_bytes: 0,
            wanted,
        };
        let index = entry.key();
        entry.insert(child);
        if let Err(cause) = watched {
            log::error!("{}: cannot watch its process: {cause}", self.children[index].asked.shown());
            self.close(index);
        }
    }

    /// The socket with this token has something to say.
    pub fn readable(&mut self, token: Token) {
        let index = token.0 - self.first_token;
        if self.children.contains(index) {
            self.read(index);
            self.feed(index);
            self.tidy(index);
        }
    }

    /// Takes note of processes that have ended.
    pub fn reap(&mut self) {
        while let Some((pid, ended)) = sys::process::reap() {
            let Some(index) = self.children.iter().find_map(|(index, child)| (child.pid == pid).then_some(index))
            else {
                // It belongs to something that a process left behind.
                continue;
            };
            self.children[index].lives = false;
            self.living -= 1;
            self.read(index);
            self.explain(index, ended);
            self.feed(index);
            self.tidy(index);
        }
    }

    /// An exchange is answered: its process is to end.
    pub fn let_go(&mut self, key: ExchangeKey, now: Duration) {
        if let Some(index) = self.find(key) {
            self.children[index].since = now;
            self.release(index);
        }
    }

    /// Nothing more is wanted of a process.
    fn release(&mut self, index: usize) {
        let child = &mut self.children[index];
        (child.answered, child.released) = (true, true);
        child.items.clear();
        child.wanted = None;
        self.close(index);
        self.tidy(index);
    }

    /// Nothing more is wanted of an exchange, nor of its process if it has one.
    pub fn forget(&mut self, key: ExchangeKey) {
        if let Some(index) = self.find(key) {
            self.release(index);
        }
        let place = self.waiting.iter().position(|exchange| exchange.key() == key);
        place.and_then(|place| self.waiting.remove(place)).map(Exchange::release);
    }

    /// When the process was given its task that has been at it for longest; what waits begins `now` at the earliest.
    pub fn oldest(&self, now: Duration) -> Option<Duration> {
        let at_work = self.children.iter().filter(|(_, child)| child.is_at_work()).map(|(_, child)| child.since);
        at_work.min().or_else(|| (!self.waiting.is_empty() || self.living > 0).then_some(now))
    }

    /// Kills a process that was given its task at that time or before.
    pub fn give_up(&mut self, began: Duration) -> Option<Running> {
        let is_overdue = |child: &Child| child.is_at_work() && child.since <= began;
        let index = self.children.iter().find_map(|(index, child)| is_overdue(child).then_some(index))?;
        let child = &mut self.children[index];
        child.given_up = true;
        if let Err(cause) = sys::process::signal(child.pid, Signal::SIGKILL) {
            log::error!("cannot kill child={}: {cause}", child.pid);
        }
        let given_up = Running { key: child.key, since: child.since, asked: Some(child.asked.shown()) };
        self.release(index);
        Some(given_up)
    }

    fn find(&self, key: ExchangeKey) -> Option<usize> {
        self.children.iter().find_map(|(index, child)| (child.key == key).then_some(index))
    }

    /// Takes in what a process says, as far as there is room.
    fn read(&mut self, index: usize) {
        loop {
            let child = &mut self.children[index];
            let Some(socket) = child.socket.as_ref().filter(|_| child.held_bytes < READ_AHEAD) else { return };
            match message::receive(socket, &mut self.buffer, Patience::DoNotWait) {
                Ok((0, _)) => return self.end(index),
                Ok((n, files)) => match wire::decode(&self.buffer[..n], files) {
                    Some(message) => self.take(index, message),
                    None => return self.end(index),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && child.lives => return,
                // Nothing more comes of a dead process, even where something that it left behind has its socket.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.end(index),
                Err(cause) => {
                    log::error!(
                        "cannot take what child={} says: {cause} (too few descriptors? raise the limit of open files)",
                        child.pid
                    );
                    return self.end(index);
                }
            }
        }
    }

    fn take(&mut self, index: usize, message: Message) {
        let child = &mut self.children[index];
        match message {
            Message::Response(response) => {
                child.answered = true;
                self.site.outbox.post(Delivery::Response(child.key, response));
            }
            Message::Chunk(bytes) => {
                child.held_bytes += bytes.len() + CHUNK_OVERHEAD;
                child.items.push_back(Some(Ok(bytes)));
            }
            Message::End => child.items.push_back(None),
            Message::Broken(why) => child.items.push_back(Some(Err(io::Error::other(why)))),
        }
    }

    /// A process has said its last word. Where that was no end of a stream, it is an error of the stream; if there is
    /// none, nobody asks for it.
    fn end(&mut self, index: usize) {
        self.close(index);
        self.children[index].items.push_back(Some(Err(io::Error::other("its process died"))));
    }

    /// Says why a process died, and answers in its place where it did not.
    fn explain(&mut self, index: usize, ended: Ended) {
        let child = &mut self.children[index];
        if child.given_up {
            return;
        }
        let answered = std::mem::replace(&mut child.answered, true);
        let (pid, asked) = (child.pid, child.asked.shown());
        match (answered, ended) {
            (true, Ended::Code(0)) => {}
            (true, _) => log::error!("child={pid} ended ({ended}) after it had answered {asked}"),
            (false, _) => {
                log::error!("child={pid} ended ({ended}) before it had answered {asked}; answering 502");
                self.site.outbox.post(Delivery::Response(child.key, pages::page(StatusCode::BAD_GATEWAY)));
            }
        }
    }

    /// Gives the loop the next chunk, where it waits for one that is there.
    fn feed(&mut self, index: usize) {
        let child = &mut self.children[index];
        if child.wanted.is_none() || child.items.is_empty() {
            return;
        }
        if let (Some(stream), Some(item)) = (child.wanted.take(), child.items.pop_front()) {
            if let Some(Ok(bytes)) = &item {
                child.held_bytes -= bytes.len() + CHUNK_OVERHEAD;
            }
            self.site.outbox.post(Delivery::Chunk(child.key, stream, item));
            // There may be room again for what was left in the socket.
            self.read(index);
        }
    }

    fn close(&mut self, index: usize) {
        if let Some(socket) = self.children[index].socket.take() {
            // A process that was just forked may hold it for a moment yet, and its events would go on.
            let _ = self.registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
        }
    }

    /// Lets go of a dead process that nobody expects anything of.
    fn tidy(&mut self, index: usize) {
        let child = &self.children[index];
        if !child.lives && child.socket.is_none() && child.items.is_empty() {
            self.children.remove(index);
        }
    }
}

impl Child {
    /// Whether something is wanted of it: one whose client takes its time waits for that.
    fn is_at_work(&self) -> bool {
        let is_asked = !self.answered || self.wanted.is_some() || self.released;
        self.lives && !self.given_up && is_asked
    }
}

impl Asked {
    fn shown(&self) -> String {
        format!("{} {} from {}", self.method, self.uri, self.client)
    }
}
