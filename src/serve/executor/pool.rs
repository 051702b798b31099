//! A fixed number of handler threads, made at start and fed from one queue; several loops of a process may share it.
//! A panic of the handler is caught, and its thread lives on. A thread whose job does not end is given up: another works in
//! its place, and should it come back, it ends.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Job, Running, perform};
use crate::site::{Exchange, ExchangeKey, Handler, Outbox};
use crate::sys;

/// The threads and their queue.
pub(crate) struct Pool {
    handler: Arc<dyn Handler>,
    /// One more for each that was given up and did not come back.
    threads: AtomicUsize,
    queue: Mutex<Queue>,
    added: Condvar,
    /// Jobs that wait or run.
    unfinished: AtomicUsize,
}

/// What waits, and what each thread does that was ever started.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Task>,
    threads: Vec<Activity>,
}

/// What a thread does.
enum Activity {
    Waits,
    Runs {
        job: Running,
        /// Of this loop.
        outbox: usize,
    },
    /// Another works in its place.
    GivenUp,
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
        let (handler, queue, added) = (Arc::clone(handler), Mutex::default(), Condvar::new());
        let (started, unfinished) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let pool = Arc::new(Self { handler, threads: started, queue, added, unfinished });
        for _ in 0..threads {
            pool.start_thread()?;
        }
        Ok(pool)
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let mut queue = self.lock();
        let (pool, number) = (Arc::clone(self), queue.threads.len());
        thread::Builder::new().name(format!("handler-{number}")).spawn(move || pool.work(number))?;
        queue.threads.push(Activity::Waits);
        self.threads.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn work(&self, number: usize) {
        while let Some((Task { job, outbox, .. }, since)) = self.next(number) {
            perform(job, since, self.handler.as_ref(), &outbox, || {
                self.unfinished.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    /// The next job of this thread and when it begins, unless the thread was given up.
    fn next(&self, number: usize) -> Option<(Task, Duration)> {
        let mut queue = self.lock();
        if matches!(queue.threads[number], Activity::GivenUp) {
            self.threads.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        queue.threads[number] = Activity::Waits;
        let mut had_to_wait = true;
        loop {
            if let Some(task) = queue.waiting.pop_front() {
                // What finds a thread waiting begins when it comes: nobody needs to look at the clock.
                let since = if had_to_wait { sys::clock::monotonic() } else { task.since };
                let job = Running { key: task.job.key(), since, asked: None };
                queue.threads[number] = Activity::Runs { job, outbox: name_of(&task.outbox) };
                return Some((task, since));
            }
            had_to_wait = false;
            queue = self.added.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many take jobs, or come back.
    pub(super) fn threads(&self) -> usize {
        self.threads.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No handler runs while it is held, and a queue is whole at every moment.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    /// The job that it runs, if that is one of the loop with this outbox.
    fn runs_for(&self, loops: &Arc<Outbox>) -> Option<&Running> {
        match self {
            Self::Runs { job, outbox } if *outbox == name_of(loops) => Some(job),
            Self::Runs { .. } | Self::Waits | Self::GivenUp => None,
        }
    }
}

/// Loops that share a pool have exchanges of the same name, but no two have one outbox.
fn name_of(outbox: &Arc<Outbox>) -> usize {
    Arc::as_ptr(outbox).addr()
}

impl PoolSeat {
    /// A place at the pool for the loop with this outbox.
    pub const fn new(pool: Arc<Pool>, outbox: Arc<Outbox>) -> Self {
        Self { pool, outbox }
    }

    /// Whether a job that comes now would have to wait.
    pub fn is_busy(&self) -> bool {
        self.unfinished() >= self.pool.threads()
    }

    /// Since when the job has waited that has waited longest, if one waits.
    pub fn waiting_since(&self) -> Option<Duration> {
        // Most of the time none does, and that is known without the lock.
        (self.unfinished() > self.pool.threads())
            .then(|| self.pool.lock().waiting.front().map(|task| task.since))
            .flatten()
    }

    /// Queues a job.
    pub fn run(&self, job: Job, now: Duration) {
        self.pool.unfinished.fetch_add(1, Ordering::SeqCst);
        let task = Task { job, outbox: Arc::clone(&self.outbox), since: now };
        self.pool.lock().waiting.push_back(task);
        self.pool.added.notify_one();
    }

    /// Takes the first request out of the queue that has waited since `before` and that somebody else may answer.
    pub fn withdraw(&self, before: Duration, may_go: impl Fn(&Exchange) -> bool) -> Option<(Exchange, Duration)> {
        let mut queue = self.pool.lock();
        let place = queue.waiting.iter().take_while(|task| task.since <= before).position(|task| match &task.job {
            Job::Handle(exchange) => may_go(exchange),
            Job::Pull(..) => false,
        })?;
        let Task { job, since, .. } = queue.waiting.remove(place)?;
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
        self.pool.lock().waiting.push_front(task);
        self.pool.added.notify_one();
    }

    /// Takes out of the queue what waits there for an exchange. What runs is remembered by what was asked.
    pub fn forget(&self, key: ExchangeKey, asked: impl FnOnce() -> String) {
        let mut queue = self.pool.lock();
        let is_it = |task: &Task| task.job.key() == key && Arc::ptr_eq(&task.outbox, &self.outbox);
        if let Some(task) = queue.waiting.iter().position(is_it).and_then(|place| queue.waiting.remove(place)) {
            drop(queue);
            self.pool.unfinished.fetch_sub(1, Ordering::SeqCst);
            return task.job.forget();
        }
        let runs_it = |thread: &&mut Activity| thread.runs_for(&self.outbox).is_some_and(|job| job.key == key);
        if let Some(Activity::Runs { job, .. }) = queue.threads.iter_mut().find(runs_it) {
            job.asked = Some(asked());
        }
    }

    /// When the job of this loop began that has run for longest; what waits begins `now` at the earliest.
    pub fn oldest(&self, now: Duration) -> Option<Duration> {
        let queue = self.pool.lock();
        let running = queue.threads.iter().filter_map(|thread| thread.runs_for(&self.outbox)).map(|job| job.since);
        running.min().or_else(|| (self.unfinished() > 0).then_some(now))
    }

    /// Gives up a thread whose job of this loop began at that time or before, and starts another.
    pub fn give_up(&self, began: Duration) -> Option<Running> {
        let mut queue = self.pool.lock();
        let is_overdue = |thread: &&mut Activity| thread.runs_for(&self.outbox).is_some_and(|job| job.since <= began);
        let thread = queue.threads.iter_mut().find(is_overdue)?;
        let Activity::Runs { job, .. } = std::mem::replace(thread, Activity::GivenUp) else { return None };
        drop(queue);
        if let Err(cause) = self.pool.start_thread() {
            log::error!("cannot start a thread in place of one that is stuck: {cause}; the others go on");
        }
        Some(job)
    }

    fn unfinished(&self) -> usize {
        self.pool.unfinished.load(Ordering::SeqCst)
    }
}
