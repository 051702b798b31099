//! Does what the machine decides: forks, signals, speaks. The only place that forks workers.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::machine::{Action, Death, Exit, Input, WorkerSignal};
use super::reporter;
use super::reporters::{End, Reporters};
use crate::board::{Board, Identity, Pool, Record, Retirement};
use crate::config::{Config, Layout};
use crate::h1;
use crate::listen::{Entrance, Listener};
use crate::log::sink::Sink;
use crate::serve::{Ends, Settings, other_descriptors};
use crate::site::control::Command;
use crate::sys;
use crate::sys::message;
use crate::sys::pid_file::PidFile;
use crate::sys::pipe::{self, Read};
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
    /// Is this master's as long as it lives.
    #[allow(dead_code)] // until an upgrade hands it over
    pub pid_file: Option<PidFile>,
    /// Where commands come in, if anywhere. Goes last: when it is gone, so is all that the master held.
    pub control_listener: Option<Arc<Listener>>,
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
    reporters: Reporters,
    /// Where workers report that they are ready: the read end and the write end.
    reports: (OwnedFd, OwnedFd),
    /// Ends, for the workers that read it, when the master is gone: nothing is ever written.
    liveness: OwnedFd,
    /// The write end of `liveness`, which only the master holds.
    liveness_writer: Option<OwnedFd>,
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
        let (liveness, liveness_writer) = pipe::pipe()?;
        let liveness_writer = Some(liveness_writer);
        let pid = process::pid();
        let (reporters, served, cut_off) = (Reporters::default(), 0, 0);
        Ok(Self {
            setup,
            settings,
            signals,
            pid,
            board,
            handover,
            reporters,
            reports,
            liveness,
            liveness_writer,
            served,
            cut_off,
        })
    }

    /// Does it, and says what became of it where the machine needs to know.
    pub fn perform(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Spawn { slot, generation } => return Some(self.spawn(slot, generation)),
            Action::Signal { pid, signal } => self.send(pid, signal),
            Action::BeginStop => self.begin_stop(),
            Action::TendTls => self.tend_tls(),
            Action::Answer { ticket, outcome } => self.reporters.answer(ticket, outcome),
            Action::Explain(death) => self.explain(&death),
            Action::Say(notice) => log::log!(notice.level(), "{notice}"),
            Action::Exit { .. } => self.report(),
        }
        None
    }

    /// Waits until something has happened, or the deadline has come.
    pub fn wait(&self, deadline: Option<Duration>) -> io::Result<()> {
        let reporter = self.reporters.next_deadline().filter(|_| self.wants_reporter());
        let deadline = deadline.into_iter().chain(reporter).min();
        let timeout = deadline.map(|deadline| deadline.saturating_sub(sys::clock::monotonic()));
        let mut readable = self.reporters.readable();
        readable.extend([self.signals.as_fd(), self.reports.0.as_fd()]);
        pipe::wait(&readable, &self.reporters.writable(), timeout)
    }

    /// Tells those who ask how the pool is.
    pub fn tell(&self, pool: Pool) {
        self.board.tell(pool);
    }

    /// What people have asked for, each with its ticket.
    pub fn commands(&mut self) -> Vec<(u64, Command)> {
        self.reporters.questions()
    }

    /// Sees to it that there is a reporter, where one is wanted.
    pub fn tend_reporter(&mut self) {
        let now = sys::clock::monotonic();
        if !self.wants_reporter() || !self.reporters.is_due(now) {
            return;
        }
        let forked = message::pair().and_then(|(own, other)| {
            let pid = process::fork_child(|| self.run_reporter(other))?;
            Ok((pid, own))
        });
        match forked {
            Ok((pid, own)) => self.reporters.forked(pid, own, now),
            Err(cause) if self.reporters.not_forked(now) => {
                log::error!("cannot fork the reporter: {cause}; until it can, statusPort and controlSocket are mute");
            }
            Err(_) => {}
        }
    }

    fn wants_reporter(&self) -> bool {
        self.setup.control_listener.is_some() || !self.setup.status_listeners.is_empty()
    }

    /// Puts another reporter in the place of the present one, with the listeners and the scoreboard there are now. The
    /// one before answers what it was asked, and leaves.
    #[allow(dead_code)] // until a reload changes what a reporter needs
    pub fn replace_reporter(&mut self) {
        self.reporters.replace(sys::clock::monotonic());
        self.tend_reporter();
    }

    /// The end: outcomes reach whoever waits for them, nobody answers for a master that is gone, and its port is free
    /// for the next one.
    pub fn end_reporters(&mut self) {
        const TO_LEAVE: Duration = Duration::from_secs(1);
        self.reporters.end();
        let reporters = self.reporters.pids();
        let stayed = self.reap(reporters, TO_LEAVE);
        for &pid in &stayed {
            self.send(pid, WorkerSignal::Kill);
        }
        for pid in self.reap(stayed, TO_LEAVE) {
            log::error!("the reporter pid={pid} does not end; its port is taken until it does");
        }
    }

    /// Waits until these children have ended. Returns those that have not within `patience`.
    fn reap(&self, mut pids: Vec<i32>, patience: Duration) -> Vec<i32> {
        let deadline = sys::clock::monotonic() + patience;
        loop {
            pids.retain(|&pid| process::reap_child(pid).is_none());
            let left = deadline.saturating_sub(sys::clock::monotonic());
            if pids.is_empty() || left.is_zero() {
                return pids;
            }
            // Each end comes with a SIGCHLD; what other signals say is too late.
            if pipe::wait(&[self.signals.as_fd()], &[], Some(left)).is_err() {
                return pids;
            }
            self.signals.take();
        }
    }

    /// In the child, which is given its end of the link.
    fn run_reporter(&mut self, link: OwnedFd) -> i32 {
        self.liveness_writer = None;
        self.handover = None;
        self.reporters = Reporters::default();
        self.setup.pid_file = None;
        // A queue that it held would have clients wait for nobody.
        self.setup.listeners.clear();
        reporter::run(reporter::Start {
            status_listeners: std::mem::take(&mut self.setup.status_listeners),
            control_listener: self.setup.control_listener.take(),
            link,
            board: self.board,
            master: self.pid,
        })
    }

    /// Whether the child that has ended was a reporter.
    pub fn was_reporter(&mut self, pid: i32, ended: Ended) -> bool {
        let end = self.reporters.ended(pid, sys::clock::monotonic());
        match end {
            Some(End::News) => log::warn!("the reporter pid={pid} ended with {ended}; replacing it"),
            Some(End::Known | End::Asked) => log::debug!("the reporter pid={pid} ended with {ended}"),
            None => {}
        }
        end.is_some()
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
    }

    fn spawn(&mut self, slot: u32, generation: u32) -> Input {
        self.board.records(slot, generation).for_each(|record| record.clear());
        match process::fork_child(|| self.run_worker(slot, generation)) {
            Ok(pid) => Input::Spawned { slot, pid },
            Err(cause) => Input::SpawnFailed { slot, error: format!("fork: {cause}") },
        }
    }

    /// In the child, which has a copy of everything the master has.
    fn run_worker(&mut self, worker: u32, generation: u32) -> i32 {
        self.liveness_writer = None;
        self.setup.status_listeners.clear();
        self.setup.pid_file = None;
        self.setup.control_listener = None;
        self.reporters = Reporters::default();
        // Until it serves, and watches the master's liveness by itself.
        let alive = process::die_with_parent(Some(self.pid));
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
            liveness: &self.liveness,
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
