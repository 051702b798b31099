//! A fixed number of handler threads, made at start and fed from one queue; several loops of a process may share it.
//! A panic of the handler is caught, and its thread lives on.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Job, perform};
use crate::site::{Exchange, ExchangeKey, Handler, Outbox};

/// The threads and their queue.
pub(crate) struct Pool {
    threads: usize,
    queue: Mutex<VecDeque<Task>>,
    added: Condvar,
    /// Jobs that wait or run.
    unfinished: AtomicUsize,
}

/// A job, who is told what came of it, and since when it waits.
struct Task {
    job: Job,
    outbox: Arc<Outbox>,
    since: Duration,
}

/// The pool as one loop sees it.
pub(in crate::serve) struct PoolSeat {
    pub(super) pool: Arc<Pool>,
    outbox: Arc<Outbox>,
}

impl Pool {
    /// Starts so many threads, which live as long as the process.
    pub fn start(threads: u32, handler: &Arc<dyn Handler>) -> io::Result<Arc<Self>> {
        let threads = threads as usize;
        let (queue, added, unfinished) = (Mutex::default(), Condvar::new(), AtomicUsize::new(0));
        let pool = Arc::new(Self { threads, queue, added, unfinished });
        for number in 0..threads {
            let (pool, handler) = (Arc::clone(&pool), Arc::clone(handler));
            thread::Builder::new().name(format!("handler-{number}")).spawn(move || pool.work(handler.as_ref()))?;
        }
        Ok(pool)
    }

    fn work(&self, handler: &dyn Handler) {
        loop {
            let Task { job, outbox, .. } = self.next();
            perform(job, handler, &outbox, || {
                self.unfinished.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    fn next(&self) -> Task {
        let mut queue = self.lock();
        loop {
            match queue.pop_front() {
                Some(task) => return task,
                None => queue = self.added.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Task>> {
        // No handler runs while it is held, and a queue is whole at every moment.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolSeat {
    /// A place at the pool for the loop with this outbox.
    pub const fn new(pool: Arc<Pool>, outbox: Arc<Outbox>) -> Self {
        Self { pool, outbox }
    }

    /// Whether a job that comes now would have to wait.
    pub fn is_busy(&self) -> bool {
        self.unfinished() >= self.pool.threads
    }

    /// Since when the job has waited that has waited longest, if one waits.
    pub fn waiting_since(&self) -> Option<Duration> {
        // Most of the time none does, and that is known without the lock.
        (self.unfinished() > self.pool.threads).then(|| self.pool.lock().front().map(|task| task.since)).flatten()
    }

    /// Queues a job.
    pub fn run(&self, job: Job, now: Duration) {
        self.pool.unfinished.fetch_add(1, Ordering::SeqCst);
        let task = Task { job, outbox: Arc::clone(&self.outbox), since: now };
        self.pool.lock().push_back(task);
        self.pool.added.notify_one();
    }

    /// Takes the first request out of the queue that has waited since `before` and that somebody else may answer.
    pub fn withdraw(&self, before: Duration, may_go: impl Fn(&Exchange) -> bool) -> Option<(Exchange, Duration)> {
        let mut queue = self.pool.lock();
        let place = queue.iter().take_while(|task| task.since <= before).position(|task| match &task.job {
            Job::Handle(exchange) => may_go(exchange),
            Job::Pull(..) => false,
        })?;
        let Task { job, since, .. } = queue.remove(place)?;
        self.pool.unfinished.fetch_sub(1, Ordering::SeqCst);
        match job {
            Job::Handle(exchange) => Some((exchange, since)),
            Job::Pull(..) => None,
        }
    }

    /// Puts back what was withdrawn, before all others.
    pub fn put_back(&self, exchange: Exchange, since: Duration) {
        self.pool.unfinished.fetch_add(1, Ordering::SeqCst);
        let task = Task { job: Job::Handle(exchange), outbox: Arc::clone(&self.outbox), since };
        self.pool.lock().push_front(task);
        self.pool.added.notify_one();
    }

    /// Takes out of the queue what waits there for an exchange.
    pub fn forget(&self, key: ExchangeKey) {
        if self.unfinished() <= self.pool.threads {
            return;
        }
        let mut queue = self.pool.lock();
        // Other loops have exchanges of the same name.
        let is_it = |task: &Task| task.job.key() == key && Arc::ptr_eq(&task.outbox, &self.outbox);
        let task = queue.iter().position(is_it).and_then(|place| queue.remove(place));
        drop(queue);
        if let Some(task) = task {
            self.pool.unfinished.fetch_sub(1, Ordering::SeqCst);
            task.job.forget();
        }
    }

    fn unfinished(&self) -> usize {
        self.pool.unfinished.load(Ordering::SeqCst)
    }
}
