//! What runs the handler of a request beside the loop, as the mode has it: a pool of threads, a thread for each request,
//! or a process for each. Results come back through the outbox. Knows no connection.

mod child;
mod pool;
mod processes;
mod threads;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

use mio::{Registry, Token};

use crate::config;
use crate::site::{BodyStream, Delivery, Exchange, ExchangeKey, Handler, Outbox, Request, guard, pages};

use pool::{Pool, PoolSeat};
use processes::Processes;
use threads::Threads;

/// What may block.
#[allow(clippy::large_enum_variant)] // most jobs are the large one
pub(super) enum Job {
    /// Answering a request.
    Handle(Exchange),
    /// Making the next chunk of a response.
    Pull(ExchangeKey, BodyStream),
}

/// A job that runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub key: ExchangeKey,
    /// When it began.
    pub since: Duration,
    /// Which request it is, where no connection tells any more.
    pub asked: Option<String>,
}

impl Job {
    const fn key(&self) -> ExchangeKey {
        match self {
            Self::Handle(exchange) => exchange.key(),
            Self::Pull(key, _) => *key,
        }
    }

    /// Nobody waits for it any more.
    fn forget(self) {
        match self {
            Self::Handle(exchange) => drop(exchange.release()),
            Self::Pull(..) => {}
        }
    }
}

/// What runs the handlers of a worker, whose loops share it.
#[derive(Clone)]
pub(crate) enum Runner {
    Pool(Arc<Pool>),
    /// So many at once.
    Threads(u32),
    /// So many at once.
    Processes(u32),
}

impl Runner {
    /// Starts what is there from the start.
    pub fn start(wanted: config::Runner, handler: &Arc<dyn Handler>) -> io::Result<Self> {
        Ok(match wanted {
            config::Runner::Pool(threads) => Self::Pool(Pool::start(threads, handler)?),
            config::Runner::Threads(most) => Self::Threads(most),
            config::Runner::Processes(most) => Self::Processes(most),
        })
    }
}

/// What the executor of a loop is made with.
#[derive(Clone)]
pub(super) struct Site {
    pub handler: Arc<dyn Handler>,
    pub outbox: Arc<Outbox>,
}

/// One loop's access to what runs handlers.
pub(super) enum Executor {
    /// A fixed number of threads with one queue.
    Pool(PoolSeat),
    /// A new thread for each job.
    Threads(Threads),
    /// A new process for each request.
    Processes(Processes),
}

impl Executor {
    /// Sockets of processes are registered with tokens from `first_token` up.
    pub fn new(runner: &Runner, site: Site, registry: &Registry, first_token: usize) -> io::Result<Self> {
        Ok(match runner {
            Runner::Pool(pool) => Self::Pool(PoolSeat::new(Arc::clone(pool), site.outbox)),
            Runner::Threads(most) => Self::Threads(Threads::new(*most, site)),
            Runner::Processes(most) => Self::Processes(Processes::new(*most, site, registry.try_clone()?, first_token)),
        })
    }

    /// Whether every request goes through here, those too that cannot block: the mode says where each is to run.
    pub const fn takes_all(&self) -> bool {
        match self {
            Self::Pool(_) => false,
            Self::Threads(_) | Self::Processes(_) => true,
        }
    }

    /// Whether there are other processes that may hold what the loop has open.
    pub const fn forks(&self) -> bool {
        match self {
            Self::Processes(_) => true,
            Self::Pool(_) | Self::Threads(_) => false,
        }
    }

    /// The socket of a process, registered with this token, can be read.
    pub fn readable(&mut self, token: Token) {
        match self {
            Self::Processes(processes) => processes.readable(token),
            Self::Pool(_) | Self::Threads(_) => {}
        }
    }

    /// Whether a job that comes now would have to wait.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Pool(pool) => pool.is_busy(),
            Self::Threads(threads) => threads.is_busy(),
            Self::Processes(processes) => processes.is_busy(),
        }
    }

    /// Has a job done as soon as that is possible.
    pub fn run(&mut self, job: Job, now: Duration) {
        match self {
            Self::Pool(pool) => pool.run(job, now),
            Self::Threads(threads) => threads.run(job, now),
            Self::Processes(processes) => processes.run(job, now),
        }
    }

    /// A job was reported done.
    pub fn job_done(&mut self, key: ExchangeKey, now: Duration) {
        match self {
            Self::Threads(threads) => threads.job_done(key, now),
            Self::Pool(_) | Self::Processes(_) => {}
        }
    }

    /// An exchange is answered: nothing more is wanted of its process.
    pub fn answered(&mut self, key: ExchangeKey, now: Duration) {
        match self {
            Self::Processes(processes) => processes.let_go(key, now),
            Self::Pool(_) | Self::Threads(_) => {}
        }
    }

    /// The client of an exchange is gone: if it waits, it waits no more. If it runs, `asked` tells later which request it
    /// was.
    pub fn forget(&mut self, key: ExchangeKey, asked: impl FnOnce() -> String) {
        match self {
            Self::Pool(pool) => pool.forget(key, asked),
            Self::Threads(threads) => threads.forget(key, asked),
            Self::Processes(processes) => processes.forget(key),
        }
    }

    /// When the job began that has run for longest, as far as that is known. Where none runs but some wait, those can
    /// begin `now` at the earliest.
    pub fn oldest(&self, now: Duration) -> Option<Duration> {
        match self {
            Self::Pool(pool) => pool.oldest(now),
            Self::Threads(threads) => threads.oldest(),
            Self::Processes(processes) => processes.oldest(now),
        }
    }

    /// Gives up a job that began at that time or before, if there is one. A process is killed; a thread cannot be, but
    /// another may take its place.
    pub fn give_up(&mut self, began: Duration, now: Duration) -> Option<Running> {
        match self {
            Self::Pool(pool) => pool.give_up(began),
            Self::Threads(threads) => threads.give_up(began, now),
            Self::Processes(processes) => processes.give_up(began),
        }
    }
}

/// Does a job, in a thread that may block, and then what makes room for the next.
fn perform(job: Job, since: Duration, handler: &dyn Handler, outbox: &Outbox, make_room: impl FnOnce()) {
    let key = job.key();
    match job {
        Job::Handle(exchange) => handle(handler, exchange),
        Job::Pull(key, mut stream) => {
            let chunk = stream.next_chunk();
            outbox.post(Delivery::Chunk(key, stream, chunk));
        }
    }
    make_room();
    outbox.post(Delivery::JobDone(key, since));
}

/// Answers for a job that nobody can be found to do; the client may try again soon.
fn refuse(job: Job, outbox: &Outbox, what: &str) {
    match job {
        Job::Handle(exchange) => {
            let mut response = pages::page(StatusCode::SERVICE_UNAVAILABLE);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            exchange.respond(response);
        }
        Job::Pull(key, stream) => {
            outbox.post(Delivery::Chunk(key, stream, Some(Err(io::Error::other(what.to_owned())))));
        }
    }
}

/// Asks the handler whether it may block. One that panics over the question may do anything.
pub(super) fn may_block(handler: &dyn Handler, request: &Request) -> bool {
    guard(|| handler.may_block(request)).unwrap_or(true)
}

/// Lets the handler answer. A panic drops the exchange, which answers 500.
pub(super) fn handle(handler: &dyn Handler, exchange: Exchange) {
    guard(|| handler.handle(exchange));
}

#[cfg(test)]
mod tests;
