//! A new thread for each job, so many at once at most; beyond, jobs wait their turn.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::{Job, Site, perform, refuse};
use crate::site::ExchangeKey;

/// The threads of a loop that are running, and the jobs that wait for one.
pub(in crate::serve) struct Threads {
    site: Site,
    most: usize,
    running: usize,
    waiting: VecDeque<Job>,
}

impl Threads {
    /// At most so many threads at once.
    pub const fn new(most: u32, site: Site) -> Self {
        Self { site, most: most as usize, running: 0, waiting: VecDeque::new() }
    }

    /// Whether a job that comes now would have to wait.
    pub const fn is_busy(&self) -> bool {
        self.running >= self.most
    }

    /// Starts a thread for a job, or lets it wait for one.
    pub fn run(&mut self, job: Job) {
        self.waiting.push_back(job);
        self.start();
    }

    /// A thread has done its job, and ends.
    pub fn job_done(&mut self) {
        self.running = self.running.saturating_sub(1);
        self.start();
    }

    /// Lets no job wait for an exchange any more.
    pub fn forget(&mut self, key: ExchangeKey) {
        let place = self.waiting.iter().position(|job| job.key() == key);
        if let Some(job) = place.and_then(|place| self.waiting.remove(place)) {
            job.forget();
        }
    }

    fn start(&mut self) {
        while !self.is_busy() {
            let Some(job) = self.waiting.pop_front() else { return };
            match spawn(job, self.site.clone()) {
                None => self.running += 1,
                Some((job, cause)) => {
                    log::error!(
                        "cannot start a thread for a request: {cause}; answering 503 (raise the limit of tasks)"
                    );
                    refuse(job, &self.site.outbox, "no thread could be started for it");
                }
            }
        }
    }
}

/// A job whose thread could not be started comes back.
fn spawn(job: Job, site: Site) -> Option<(Job, io::Error)> {
    let place = Arc::new(Mutex::new(Some(job)));
    let job = Arc::clone(&place);
    let take = |place: &Mutex<Option<Job>>| place.lock().unwrap_or_else(PoisonError::into_inner).take();
    let started = thread::Builder::new().name("request".into()).spawn(move || {
        if let Some(job) = take(&job) {
            perform(job, site.handler.as_ref(), &site.outbox, || {});
        }
    });
    started.err().and_then(|cause| Some((take(&place)?, cause)))
}
