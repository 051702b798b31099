//! Does what the machine decides: forks, signals, speaks. The only place that forks workers.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use super::links::Links;
use super::machine::{Action, Death, Exit, Input, WorkerSignal};
use super::reporter::{self, Reporter};
use crate::board::{Board, Identity, Pool, Record, Retirement};
use crate::config::{Config, Layout};
use crate::h1;
use crate::listen::{Entrance, Listener};
use crate::log::sink::Sink;
use crate::serve::{Ends, Settings, other_descriptors};
use crate::sys;
use crate::sys::message;
use crate::sys::pipe::{self, Read};
use crate::sys::privileges::Account;
use crate::sys::process::{self, Ended};
use crate::sys::signal::{Signal, Signals};
use crate::worker::{self, Factory, REPORT_BYTES, Report, Start};

/// A pool can be scaled up to so many workers, or to twice what it began with.
const ROOM_FOR_WORKERS: u32 = 64;

/// The exit code of a worker that could not even begin.
const CANNOT_START: i32 = 1;

/// All that is needed to supervise a site.
pub(crate) struct Setup {
    pub config: Config,
    /// What the mode takes.
    pub layout: Layout,
    pub listeners: Vec<Arc<Listener>>,
    pub entrance: Entrance,
    /// Where balancers ask how the pool is, if anywhere.
    pub status_listeners: Vec<Arc<Listener>>,
    pub factory: Box<Factory>,
    pub access_log: Sink,
    /// Whose the workers and the reporter are, unless they stay what the master is.
    pub account: Option<Account>,
}

/// Workers accept at least so long once a stop began, to empty the queue of the listener.
const ACCEPT_WINDOW_MIN: Duration = Duration::from_millis(200);

impl Setup {
    /// How long a worker that is told to stop goes on accepting, unless its siblings do.
    pub fn accept_window(&self) -> Duration {
        self.config.supervisor.drain_delay.max(ACCEPT_WINDOW_MIN)
    }

    pub fn max_slots(&self) -> u32 {
        let Layout { workers, scalable, .. } = self.layout;
        if scalable { ROOM_FOR_WORKERS.max(workers.saturating_mul(2)) } else { workers }
    }
}

/// What the master holds of the world.
pub(super) struct Effects {
    setup: Setup,
    settings: Settings,
    signals: Signals,
    /// The master's.
    pid: i32,
    board: Board,
    /// Where workers hand over connections to each other; open here, so that it outlives each of them.
    handover: Option<Ends>,
    reporter: Reporter,
    /// Where workers report that they are ready: the read end and the write end.
    reports: (OwnedFd, OwnedFd),
    links: Links,
    /// How many requests dead workers had answered, and how many they had not.
    served: u64,
    cut_off: u64,
}

impl Effects {
    pub fn new(setup: Setup, signals: Signals) -> io::Result<Self> {
        let board = Board::new(setup.max_slots(), setup.layout.loops)?;
        let handover = setup.layout.scalable.then(Ends::open).transpose()?;
        let descriptors = sys::limits::raise_descriptors().unwrap_or_else(|cause| {
            log::warn!("cannot raise the limit of open files: {cause}");
            u64::MAX
        });
        let settings = settings(&setup.config, &setup.layout, descriptors);
        let reports = pipe::pipe()?;
        let links = Links::default();
        let pid = process::pid();
        let (reporter, served, cut_off) = (Reporter::default(), 0, 0);
        Ok(Self { setup, settings, signals, pid, board, handover, reporter, reports, links, served, cut_off })
    }

    /// Does it, and says what became of it where the machine needs to know.
    pub fn perform(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Spawn { slot, generation } => return Some(self.spawn(slot, generation)),
            Action::Signal { pid, signal } => self.send(pid, signal),
            Action::BeginStop => self.begin_stop(),
            Action::TendTls => self.tend_tls(),
            Action::Answer { ticket, outcome } => log::debug!("{ticket}: {outcome:?}"),
            Action::Explain(death) => self.explain(&death),
            Action::Say(notice) => log::log!(notice.level(), "{notice}"),
            Action::Exit { .. } => self.report(),
        }
        None
    }

    /// Waits until something has happened, or the deadline has come.
    pub fn wait(&self, deadline: Option<Duration>) -> io::Result<()> {
        let reporter = self.reporter.next_deadline().filter(|_| !self.setup.status_listeners.is_empty());
        let deadline = deadline.into_iter().chain(reporter).min();
        let timeout = deadline.map(|deadline| deadline.saturating_sub(sys::clock::monotonic()));
        pipe::wait(self.signals.as_fd(), self.reports.0.as_fd(), timeout)
    }

    /// Tells those who ask how the pool is.
    pub fn tell(&self, pool: Pool) {
        self.board.tell(pool);
    }

    /// Sees to it that there is a reporter, where one is wanted.
    pub fn tend_reporter(&mut self) {
        let now = sys::clock::monotonic();
        if self.setup.status_listeners.is_empty() || !self.reporter.is_due(now) {
            return;
        }
        let forked = process::fork_child(|| self.run_reporter());
        if let Err(cause) = &forked {
            log::error!("cannot fork the reporter, so nobody answers on statusPort: {cause}; trying again");
        }
        self.reporter.forked(forked.ok(), now);
    }

    /// The end: nobody answers for a master that is gone, and its port is free for the next one.
    pub fn end_reporter(&mut self) {
        const LOOKS: u32 = 100;
        let Some(pid) = self.reporter.pid() else { return };
        self.send(pid, WorkerSignal::Kill);
        let gone = (0..LOOKS).any(|_| {
            let ended = process::reap_child(pid).is_some();
            if !ended {
                thread::sleep(Duration::from_millis(10));
            }
            ended
        });
        if !gone {
            log::error!("the reporter pid={pid} does not end; its port is taken until it does");
        }
    }

    /// In the child.
    fn run_reporter(&mut self) -> i32 {
        self.links.clear();
        self.handover = None;
        // A queue that it held would have clients wait for nobody.
        self.setup.listeners.clear();
        if let Err(cause) = self.become_account() {
            log::error!("the reporter cannot start: {cause}");
            return CANNOT_START;
        }
        reporter::run(std::mem::take(&mut self.setup.status_listeners), self.settings, self.board, self.pid)
    }

    /// Whether the child that has ended was the reporter.
    pub fn was_reporter(&mut self, pid: i32, ended: Ended) -> bool {
        let was_it = self.reporter.ended(pid);
        if was_it {
            log::warn!("the reporter pid={pid} ended with {ended}; replacing it");
        }
        was_it
    }

    /// The signals that have come.
    pub fn signals(&self) -> Vec<Signal> {
        self.signals.take()
    }

    /// What workers have reported.
    pub fn reports(&self) -> Vec<(i32, Report)> {
        let (mut reports, mut buffer) = (Vec::new(), [0; 32 * REPORT_BYTES]);
        // Reports are written whole, and the buffer holds a whole number of them.
        while let Read::Bytes(n) = pipe::read(&self.reports.0, &mut buffer) {
            let whole = buffer[..n].chunks_exact(REPORT_BYTES);
            reports.extend(whole.filter_map(|bytes| Report::read(bytes.try_into().ok()?)));
        }
        reports
    }

    /// A child is dead: whatever is said of it, its requests are counted, and its siblings no longer count on it.
    pub fn mark_dead(&mut self, pid: i32) {
        for record in self.board.of(pid) {
            record.mark_dead();
            self.served += record.served();
            self.cut_off += record.running();
        }
        self.links.remove(pid);
    }

    /// Has the master and all workers write to new log files. Returns what came of it, for a person.
    pub fn reopen_logs(&self) -> Result<String, String> {
        self.links.reopen_logs(&self.setup.access_log)
    }

    fn spawn(&mut self, slot: u32, generation: u32) -> Input {
        self.board.records(slot, generation).for_each(|record| record.clear());
        match self.fork_worker(slot, generation) {
            Ok(pid) => Input::Spawned { slot, pid },
            Err(cause) => Input::SpawnFailed { slot, error: format!("fork: {cause}") },
        }
    }

    fn fork_worker(&mut self, slot: u32, generation: u32) -> io::Result<i32> {
        let (near, far) = message::pair()?;
        let mut near = Some(near);
        let pid = process::fork_child(|| {
            near = None;
            self.run_worker(slot, generation, &far)
        })?;
        if let Some(near) = near {
            self.links.add(pid, near);
        }
        Ok(pid)
    }

    /// In the child, which has a copy of everything the master has.
    fn run_worker(&mut self, worker: u32, generation: u32, link: &OwnedFd) -> i32 {
        self.links.clear();
        self.setup.status_listeners.clear();
        // Another user's process has forgotten to die with its parent, so in this order; until it serves, and watches the
        // link by itself.
        let alive = self.become_account().and_then(|()| process::die_with_parent(Some(self.pid)));
        if let Err(cause) = alive.and_then(|()| self.signals.separate_in_child()) {
            log::error!("worker={worker}: cannot start: {cause}");
            return CANNOT_START;
        }
        let config = &self.setup.config;
        worker::run(Start {
            identity: Identity { worker, generation, pid: process::pid() },
            listeners: std::mem::take(&mut self.setup.listeners),
            entrance: self.setup.entrance.clone(),
            handover: self.handover.take(),
            settings: self.settings,
            runner: self.setup.layout.runner,
            factory: &*self.setup.factory,
            signals: &self.signals,
            link,
            reports: &self.reports.1,
            board: self.board,
            records: self.board.records(worker, generation).collect(),
            access_log: self.setup.access_log.clone(),
            access_format: *config.log.access_format,
            reverse_dns: *config.server.reverse_dns,
            accept_window: self.setup.accept_window(),
            graceful_timeout: *config.supervisor.graceful_timeout,
        })
    }

    /// In a child: its privileges end here.
    fn become_account(&self) -> io::Result<()> {
        let assumed = self.setup.account.as_ref().map_or(Ok(()), Account::assume);
        assumed.map_err(|cause| io::Error::other(format!("it cannot become its user: {cause}")))
    }

    fn send(&self, pid: i32, signal: WorkerSignal) {
        let signal = match signal {
            WorkerSignal::Term => {
                // Its siblings go on accepting, unless the whole server stops and has no listeners any more.
                if !self.setup.listeners.is_empty() {
                    self.board.of(pid).for_each(|record| record.retire(Retirement::ToOthers));
                }
                Signal::SIGTERM
            }
            WorkerSignal::Kill => Signal::SIGKILL,
        };
        if let Err(cause) = process::signal(pid, signal) {
            log::error!("cannot send {signal} to pid={pid}: {cause}");
        }
    }

    fn begin_stop(&mut self) {
        for listener in &self.setup.listeners {
            if let Err(cause) = listener.stop_deferring() {
                log::error!("{listener}: cannot clear TCP_DEFER_ACCEPT: {cause}; waiting clients may be lost");
            }
        }
        // Removes a socket's file too. What connects after the last worker has left would wait for nobody if the master
        // still listened.
        self.setup.listeners.clear();
    }

    fn tend_tls(&self) {
        let Some(tls) = &self.setup.entrance.tls else { return };
        if let Err(cause) = tls.rotate_keys() {
            log::error!("cannot change the keys of TLS tickets: {cause}; the ones before stay in use");
        }
        let Some((level, wrong)) = tls.validity().concern(SystemTime::now()) else { return };
        let file = self.setup.config.server.ssl_certificate_file.as_deref().unwrap_or(Path::new("")).display();
        log::log!(level, "sslCertificateFile = {file}: {}; {}", wrong.problem, wrong.remedy);
    }

    /// A death, its reason if the worker could say it, and what it was doing.
    fn explain(&self, death: &Death) {
        let records = self.board.records(death.worker.worker, death.worker.generation).collect();
        log::log!(death.level(), "{death}{}", Circumstances { death, records });
    }

    /// The end: how many requests there were.
    fn report(&self) {
        let (served, cut_off) = (self.served, self.cut_off);
        log::info!("{served} requests were answered, {cut_off} were cut off");
    }
}

/// What the scoreboard tells of a dead worker.
struct Circumstances<'a> {
    death: &'a Death,
    /// Of each of its loops.
    records: Vec<Record>,
}

impl fmt::Display for Circumstances<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { death, records } = self;
        if death.as_asked() {
            return write!(f, "; it answered {} requests", records.iter().map(Record::served).sum::<u64>());
        }
        if let (Exit::Code(_), Some(words)) = (death.exit, records.iter().find_map(Record::reason)) {
            write!(f, "; its reason: {words}")?;
        }
        let running = records.iter().map(Record::running).sum::<u64>();
        let at_work = records.iter().filter(|record| record.running() > 0);
        match (at_work.chain(records).find_map(Record::last_request), running) {
            (None, _) => Ok(()),
            (Some(request), 0) => write!(f, "; its last request, which it had answered: {request}"),
            (Some(request), running) => write!(f, "; {running} requests were cut off, the last of them: {request}"),
        }
    }
}

/// The settings of each loop, for workers that may have so many descriptors.
fn settings(config: &Config, layout: &Layout, descriptors: u64) -> Settings {
    let limits = &config.limits;
    let room = room_for_connections(descriptors, other_descriptors(layout.runner));
    let max_connections = (*limits.max_connections).min(room).div_ceil(layout.loops.max(1) as usize);
    Settings {
        limits: h1::Limits {
            max_uri: *limits.max_uri,
            max_header_bytes: *limits.max_header_bytes,
            max_headers: *limits.max_headers,
            max_body: *limits.max_body,
        },
        body_in_memory: *limits.body_in_memory,
        max_connections,
        header_timeout: *limits.header_timeout,
        body_timeout: *limits.body_timeout,
        write_timeout: *limits.write_timeout,
        keep_alive_timeout: *limits.keep_alive_timeout,
    }
}

/// How many connections a worker with so many descriptors can have: it needs some for `others`, but where they are few,
/// most are for clients.
fn room_for_connections(descriptors: u64, others: u64) -> usize {
    let others = others.min(descriptors / 4);
    usize::try_from(descriptors - others).unwrap_or(usize::MAX)
}
