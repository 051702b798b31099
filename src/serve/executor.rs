//! Runs what may block beside the loop: one handler thread, made when it is first needed. Knows no connection.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use http::StatusCode;

use crate::site::{BodyStream, Delivery, Exchange, ExchangeKey, Handler, Outbox, Request, guard, pages};

/// What may block.
#[allow(clippy::large_enum_variant)] // most jobs are the large one
pub(super) enum Job {
    /// Answering a request.
    Handle(Exchange),
    /// Making the next chunk of a response.
    Pull(ExchangeKey, BodyStream),
}

/// The handler thread and how much it has to do. Results come back through the outbox.
pub(super) struct Executor {
    handler: Arc<dyn Handler>,
    outbox: Arc<Outbox>,
    queue: Option<mpsc::Sender<Job>>,
    unfinished: usize,
}

impl Executor {
    pub fn new(handler: Arc<dyn Handler>, outbox: Arc<Outbox>) -> Self {
        Self { handler, outbox, queue: None, unfinished: 0 }
    }

    /// Whether a job that comes now would have to wait.
    pub const fn is_busy(&self) -> bool {
        self.unfinished > 0
    }

    /// Queues a job; its end is reported by [`Delivery::JobDone`].
    pub fn run(&mut self, job: Job) {
        let refused = match self.queue() {
            Ok(queue) => match queue.send(job) {
                Ok(()) => None,
                Err(unsent) => {
                    self.queue = None;
                    Some(unsent.0)
                }
            },
            Err(cause) => {
                log::error!("cannot start the handler thread: {cause}; answering 503 until it can be started");
                Some(job)
            }
        };
        match refused {
            None => self.unfinished += 1,
            Some(Job::Handle(exchange)) => exchange.respond(pages::page(StatusCode::SERVICE_UNAVAILABLE)),
            Some(Job::Pull(key, stream)) => {
                let error = io::Error::other("there is no handler thread");
                self.outbox.post(Delivery::Chunk(key, stream, Some(Err(error))));
            }
        }
    }

    /// A job was reported done.
    pub fn job_done(&mut self) {
        self.unfinished = self.unfinished.saturating_sub(1);
    }

    fn queue(&mut self) -> io::Result<&mpsc::Sender<Job>> {
        let queue = match self.queue.take() {
            Some(queue) => queue,
            None => self.start()?,
        };
        Ok(self.queue.insert(queue))
    }

    fn start(&self) -> io::Result<mpsc::Sender<Job>> {
        let (queue, jobs) = mpsc::channel();
        let (handler, outbox) = (Arc::clone(&self.handler), Arc::clone(&self.outbox));
        thread::Builder::new().name("handler".into()).spawn(move || work(&jobs, handler.as_ref(), &outbox))?;
        Ok(queue)
    }
}

fn work(jobs: &mpsc::Receiver<Job>, handler: &dyn Handler, outbox: &Outbox) {
    for job in jobs {
        match job {
            Job::Handle(exchange) => handle(handler, exchange),
            Job::Pull(key, mut stream) => {
                let chunk = stream.next_chunk();
                outbox.post(Delivery::Chunk(key, stream, chunk));
            }
        }
        outbox.post(Delivery::JobDone);
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
