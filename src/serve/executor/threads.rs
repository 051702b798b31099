//! A new thread for each job, so many at once at most; beyond, jobs wait their turn.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Job, Running, Site, perform, refuse};
use crate::site::ExchangeKey;

/// The threads of a loop that are running, and the jobs that wait for one.
pub(in crate::serve) struct Threads {
    site: Site,
    most: usize,
    /// The oldest first. A thread that was given up is not among them.
    running: Vec<Running>,
    waiting: VecDeque<Job>,
}

impl Threads {
    /// At most so many threads at once.
    pub const fn new(most: u32, site: Site) -> Self {
        Self { site, most: most as usize, running: Vec::new(), waiting: VecDeque::new() }
    }

    /// Whether a job that comes now would have to wait.
    pub fn is_busy(&self) -> bool {
        self.running.len() >= self.most
    }

    /// Starts a thread for a job, or lets it wait for one.
    pub fn run(&mut self, job: Job, now: Duration) {
        self.waiting.push_back(job);
        self.start(now);
    }

    /// A thread has done its job, and ends.
    pub fn job_done(&mut self, key: ExchangeKey, now: Duration) {
        if let Some(place) = self.running.iter().position(|job| job.key == key) {
            self.running.remove(place);
        }
        self.start(now);
    }

    /// Lets no job wait for an exchange any more.
    pub fn forget(&mut self, key: ExchangeKey, asked: impl FnOnce() -> String) {
        let place = self.waiting.iter().position(|job| job.key() == key);
        if let Some(job) = place.and_then(|place| self.waiting.remove(place)) {
            job.forget();
        } else if let Some(job) = self.running.iter_mut().rfind(|job| job.key == key) {
            job.asked = Some(asked());
        }
    }

    /// When the oldest began. Where one waits, there is an oldest.
    pub fn oldest(&self) -> Option<Duration> {
        self.running.first().map(|job| job.since)
    }

    /// Counts no longer on a thread whose job began at that time or before.
    pub fn give_up(&mut self, began: Duration, now: Duration) -> Option<Running> {
        self.oldest().filter(|since| *since <= began)?;
        let given_up = self.running.remove(0);
        self.start(now);
        Some(given_up)
    }

    fn start(&mut self, now: Duration) {
        while !self.is_busy() {
            let Some(job) = self.waiting.pop_front() else { return };
            let key = job.key();
            match spawn(job, self.site.clone(), now) {
                None => self.running.push(Running { key, since: now, asked: None }),
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
fn spawn(job: Job, site: Site, now: Duration) -> Option<(Job, io::Error)> {
    let place = Arc::new(Mutex::new(Some(job)));
    let job = Arc::clone(&place);
    let take = |place: &Mutex<Option<Job>>| place.lock().unwrap_or_else(PoisonError::into_inner).take();
    let started = thread::Builder::new().name("request".into()).spawn(move || {
        if let Some(job) = take(&job) {
            perform(job, now, site.handler.as_ref(), &site.outbox, || {});
        }
    });
    started.err().and_then(|cause| Some((take(&place)?, cause)))
}
