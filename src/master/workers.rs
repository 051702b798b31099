//! The master's list of the workers that live, and of those that are dead and not yet told of, with their records on the
//! scoreboard and the links to them. Decides nothing; forks and signals nobody.

use std::io;
use std::os::fd::OwnedFd;

use super::machine::{Observed, Work};
use crate::board::{Record, Retirement};
use crate::log::error as error_log;
use crate::log::sink::Sink;
use crate::sys::process;
use crate::worker::logs;

/// A process that was forked to serve, and not buried yet.
pub(super) struct Worker {
    pid: i32,
    generation: u32,
    /// Of each of its loops.
    records: Vec<Record>,
    /// Nobody accepts from some of its listeners when it has left.
    last_at_listener: bool,
    /// What the master says here is heard by this worker; that the master is gone, too.
    link: OwnedFd,
    dead: bool,
}

impl Worker {
    pub fn new(pid: i32, generation: u32, records: Vec<Record>, link: OwnedFd) -> Self {
        Self { pid, generation, records, last_at_listener: false, link, dead: false }
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Workers(Vec<Worker>);

impl Workers {
    pub fn add(&mut self, worker: Worker) {
        self.0.push(worker);
    }

    /// Its records stay as they are until it is buried.
    pub fn mark_dead(&mut self, pid: i32) -> Work {
        let mut work = Work::default();
        for worker in self.0.iter_mut().filter(|worker| worker.pid == pid && !worker.dead) {
            worker.dead = true;
            for record in &worker.records {
                record.mark_dead();
                work.answered += record.served();
                work.cut_off += record.running();
            }
        }
        work
    }

    /// Gives the records of the dead back.
    pub fn bury(&mut self) {
        self.0.iter().filter(|worker| worker.dead).flat_map(|worker| &worker.records).for_each(Record::release);
        self.0.retain(|worker| !worker.dead);
    }

    /// Says how it is to leave, before it is told to.
    pub fn retire(&self, pid: i32, retirement: Retirement) {
        self.living(pid).into_iter().flat_map(|worker| &worker.records).for_each(|record| record.retire(retirement));
    }

    /// Notes of the workers of some generations whether all their listeners are others' too.
    pub fn note_listeners(&mut self, within: bool, of: impl Fn(u32) -> bool) {
        self.0.iter_mut().filter(|worker| of(worker.generation)).for_each(|worker| worker.last_at_listener = !within);
    }

    pub fn is_last_at_listener(&self, pid: i32) -> bool {
        self.living(pid).is_some_and(|worker| worker.last_at_listener)
    }

    /// How they are.
    pub fn observe(&self, with_memory: bool) -> Vec<Observed> {
        let living = self.0.iter().filter(|worker| !worker.dead);
        let observe = |worker: &Worker| Observed {
            pid: worker.pid,
            turn_since: worker.records.iter().filter_map(Record::turn_since).min(),
            memory: Some(worker.pid).filter(|_| with_memory).and_then(process::resident_memory),
        };
        living.map(observe).collect()
    }

    /// The records of one that has died, and was not buried yet.
    pub fn records_of_dead(&self, pid: i32) -> &[Record] {
        let dead = self.0.iter().find(|worker| worker.dead && worker.pid == pid);
        dead.map_or(&[][..], |worker| &worker.records)
    }

    /// Opens the log files of a generation anew and has every worker of it write there. Returns what came of it, for a person.
    pub fn reopen_logs(&self, generation: u32, access: &Sink) -> Result<String, String> {
        let error = error_log::sink();
        let mut wrong = Vec::new();
        let mut reopen = |log: &Sink| log.reopen().map_err(|cause| wrong.push(cause.to_string())).is_ok();
        let error = error.as_ref().filter(|log| reopen(log)).and_then(Sink::descriptor);
        let access = Some(access).filter(|log| reopen(log)).and_then(Sink::descriptor);
        if error.is_none() && access.is_none() && wrong.is_empty() {
            return Ok("no log is a file, so none was reopened".to_owned());
        }
        let told = self.0.iter().filter(|worker| worker.generation == generation && !worker.dead);
        for Worker { pid, link, .. } in told {
            match logs::send(link, error, access) {
                Ok(()) => {}
                // It leaves.
                Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {}
                Err(cause) => wrong.push(format!(
                    "the worker pid={pid} cannot be told and writes to the old files ({cause}); reopen again once it runs"
                )),
            }
        }
        if wrong.is_empty() { Ok("the log files were reopened".to_owned()) } else { Err(wrong.join("; ")) }
    }

    /// In a child, which must not keep any worker from noticing that the master is gone.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn living(&self, pid: i32) -> Option<&Worker> {
        self.0.iter().find(|worker| worker.pid == pid && !worker.dead)
    }
}
