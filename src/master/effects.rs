//! Does what the machine decides: forks, signals, speaks. The only place that forks workers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::blueprint::Blueprint;
use super::deaths::Deaths;
use super::estate::{Estate, Heir, Invocation, News};
use super::machine::{Action, Input, Observed, Plan, Work, WorkerSignal};
use super::reporters::Reporters;
use super::turnover::let_go;
use super::workers::{Worker, Workers};
use crate::board::{Board, Identity, Pool, Record, Retirement};
use crate::listen::Listener;
use crate::log;
use crate::serve::Ends;
use crate::sys;
use crate::sys::message;
use crate::sys::pid_file::PidFile;
use crate::sys::pipe::{self, Read};
use crate::sys::process;
use crate::sys::signal::{Signal, Signals};
use crate::worker::{self, Lifetime, REPORT_BYTES, Report, Start};

/// The exit code of a worker that could not even begin.
pub(super) const CANNOT_START: i32 = 1;

/// Room on the scoreboard: for two generations of the largest pool.
const RECORDS: usize = 4096;

/// All that is needed to supervise a site.
pub(crate) struct Setup {
    pub blueprint: Blueprint,
    /// Reads the configuration anew, and uses again what the present one has open.
    pub renew: Box<Renew>,
    pub invocation: Invocation,
    /// What another master leaves to this one.
    pub estate: Option<Estate>,
    /// What this master holds from the start; none where another one has it still.
    pub seat: Option<Seat>,
    /// Takes what another one has let go of.
    pub take_seat: Box<TakeSeat>,
}

/// What only one master of a site can have. Goes last: when it is gone, so is all that the master held.
#[derive(Default)]
pub(crate) struct Seat {
    /// Is this master's as long as it lives.
    pub pid_file: Option<PidFile>,
    /// Where commands come in, if anywhere.
    pub control_listener: Option<Arc<Listener>>,
}

/// Takes the seat of a master that has let go of it; what cannot be had is said in the log.
pub(crate) type TakeSeat = dyn Fn(&Blueprint) -> Seat;

/// What a reload makes of the blueprint in force: another one, or what is wrong with it.
pub(crate) type Renew = dyn Fn(&Blueprint) -> Result<Blueprint, String>;

/// What the master holds of the world.
pub(super) struct Effects {
    /// What workers are forked from.
    pub(super) blueprint: Blueprint,
    /// Its generation.
    pub(super) generation: u32,
    /// What they are to be forked from, and its generation.
    pub(super) coming: Option<(u32, Blueprint)>,
    pub(super) renew: Box<Renew>,
    pub(super) invocation: Invocation,
    /// How many descriptors each process may have.
    pub(super) descriptors: u64,
    pub(super) signals: Signals,
    /// The master's.
    pub(super) pid: i32,
    pub(super) board: Board,
    pub(super) workers: Workers,
    deaths: Deaths,
    /// Where workers hand over connections to each other; open here, so that it outlives each of them. Nothing where it was
    /// passed on.
    pub(super) handover: Option<Ends>,
    pub(super) reporters: Reporters,
    pub(super) seat: Seat,
    pub(super) take_seat: Box<TakeSeat>,
    /// Where workers report: the read end and the write end.
    reports: (OwnedFd, OwnedFd),
    /// To the master whose place this one is to take; until then that one answers for both.
    pub(super) predecessor: Option<OwnedFd>,
    /// To the master that is to take this one's place.
    pub(super) heir: Option<Heir>,
    /// Everything is that master's.
    pub(super) handed_over: bool,
}

impl Effects {
    pub fn new(setup: Setup, signals: Signals) -> io::Result<Self> {
        let Setup { blueprint, renew, invocation, estate, seat, take_seat } = setup;
        let descriptors = sys::limits::raise_descriptors().unwrap_or_else(|cause| {
            ::log::warn!("cannot raise the limit of open files: {cause}");
            u64::MAX
        });
        let (handover, predecessor) = match estate {
            Some(Estate { handover, link, .. }) => (handover, Some(link)),
            None => (Ends::open()?, None),
        };
        Ok(Self {
            blueprint,
            generation: 1,
            coming: None,
            renew,
            invocation,
            descriptors,
            signals,
            pid: process::pid(),
            board: Board::new(RECORDS)?,
            workers: Workers::default(),
            deaths: Deaths::new(),
            handover: Some(handover),
            reporters: Reporters::default(),
            seat: seat.unwrap_or_default(),
            take_seat,
            reports: pipe::pipe()?,
            predecessor,
            heir: None,
            handed_over: false,
        })
    }

    /// What the machine is to keep up.
    pub fn plan(&self) -> Plan {
        Plan { is_heir: self.predecessor.is_some(), ..self.blueprint.plan() }
    }

    /// Does it, and says what became of it where the machine needs to know.
    pub fn perform(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Spawn { slot, generation } => return Some(self.spawn(slot, generation)),
            Action::Signal { pid, signal } => self.send(pid, signal),
            Action::Prepare { generation } => return Some(self.prepare(generation)),
            Action::Commit => self.commit(),
            Action::Abandon => self.abandon(),
            Action::Upgrade { program } => return Some(self.upgrade(program)),
            Action::HandOver => self.hand_over(),
            Action::TakeOver => self.take_over(),
            Action::Reopen { ticket } => self.reopen(ticket),
            Action::Observe => return Some(Input::Observed(self.observe())),
            Action::BeginStop => self.begin_stop(),
            Action::TendTls => self.tend_tls(),
            Action::Answer { ticket, outcome } => self.reporters.answer(ticket, outcome),
            Action::Explain(death) => {
                self.deaths.explain(&death, self.workers.records_of_dead(death.worker.pid));
            }
            Action::Say(notice) => ::log::log!(notice.level(), "{notice}"),
            Action::Exit { .. } => {}
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
        readable.extend(self.heir.as_ref().map(AsFd::as_fd));
        pipe::wait(&readable, &self.reporters.writable(), timeout)
    }

    /// Everything that has come in, but for signals and deaths.
    pub fn inputs(&mut self) -> VecDeque<Input> {
        let mut inputs: VecDeque<_> =
            self.reports().into_iter().map(|(pid, report)| Input::Reported { pid, report }).collect();
        inputs.extend(self.commands().into_iter().map(|(ticket, command)| Input::Command { ticket, command }));
        match self.heir.as_ref().and_then(Heir::news) {
            Some(News::Ready) => inputs.push_back(Input::HeirReady),
            // Its death is seen elsewhere; a link that has ended would end each wait at once.
            Some(News::Gone) => self.heir = None,
            None => {}
        }
        inputs
    }

    /// Tells those who ask how the pool is.
    pub fn tell(&self, pool: Pool) {
        self.board.tell(pool);
    }

    /// The signals that have come.
    pub fn signals(&self) -> Vec<Signal> {
        self.signals.take()
    }

    /// What workers have reported.
    fn reports(&self) -> Vec<(i32, Report)> {
        let (mut reports, mut buffer) = (Vec::new(), [0; 32 * REPORT_BYTES]);
        // Reports are written whole, and the buffer holds a whole number of them.
        while let Read::Bytes(n) = pipe::read(&self.reports.0, &mut buffer) {
            let whole = buffer[..n].chunks_exact(REPORT_BYTES);
            reports.extend(whole.filter_map(|bytes| Report::read(bytes.try_into().ok()?)));
        }
        reports
    }

    /// A child is dead: whatever is said of it, its siblings no longer count on it. Returns what it had done.
    pub fn mark_dead(&mut self, pid: i32) -> Work {
        self.workers.mark_dead(pid)
    }

    /// All that is to be said of the dead has been said.
    pub fn bury(&mut self) {
        self.workers.bury();
    }

    fn spawn(&mut self, slot: u32, generation: u32) -> Input {
        let of = self.blueprint_of(generation);
        let Some(records) = self.board.claim(of.layout.loops.max(1) as usize) else {
            let error = format!("there is no room for more than {RECORDS} connection loops at once");
            return Input::SpawnFailed { slot, generation, error };
        };
        match self.fork_worker(slot, generation, &records) {
            Ok((pid, link)) => {
                self.workers.add(Worker::new(pid, generation, records, link));
                Input::Spawned { slot, generation, pid }
            }
            Err(cause) => {
                records.iter().for_each(Record::release);
                Input::SpawnFailed { slot, generation, error: format!("fork: {cause}") }
            }
        }
    }

    fn fork_worker(&mut self, slot: u32, generation: u32, records: &[Record]) -> io::Result<(i32, OwnedFd)> {
        let (near, far) = message::pair()?;
        let mut near = Some(near);
        let pid = process::fork_child(|| {
            near = None;
            self.run_worker(slot, generation, records.to_vec(), &far)
        })?;
        near.map(|near| (pid, near)).ok_or_else(|| io::Error::other("there is no link to it"))
    }

    fn blueprint_of(&self, generation: u32) -> &Blueprint {
        match &self.coming {
            Some((coming, blueprint)) if *coming == generation => blueprint,
            Some(_) | None => &self.blueprint,
        }
    }

    /// In the child, which has a copy of everything the master has.
    fn run_worker(&mut self, worker: u32, generation: u32, records: Vec<Record>, link: &OwnedFd) -> i32 {
        if let Some((_, blueprint)) = self.coming.take().filter(|(coming, _)| *coming == generation) {
            self.blueprint = blueprint;
        }
        self.workers.clear();
        (self.coming, self.heir, self.predecessor) = (None, None, None);
        self.blueprint.status_listeners.clear();
        self.seat = Seat::default();
        self.reporters = Reporters::default();
        log::error::switch(self.blueprint.error_log.clone(), *self.blueprint.config.log.level);
        process::be_the_first_to_go();
        // Another user's process has forgotten to die with its parent, so in this order; until it serves, and watches the
        // link by itself.
        let alive = self.blueprint.become_account().and_then(|()| process::die_with_parent(Some(self.pid)));
        if let Err(cause) = alive.and_then(|()| self.signals.separate_in_child()) {
            ::log::error!("worker={worker}: cannot start: {cause}");
            return CANNOT_START;
        }
        let settings = self.blueprint.settings(self.descriptors);
        let accept_window = self.blueprint.accept_window();
        let listeners = std::mem::take(&mut self.blueprint.listeners);
        let (blueprint, config) = (&self.blueprint, &self.blueprint.config);
        worker::run(Start {
            identity: Identity { worker, generation, pid: process::pid() },
            listeners,
            entrance: blueprint.entrance.clone(),
            handover: self.handover.take(),
            shares_requests: blueprint.layout.scalable,
            health_path: config.supervisor.health_path.as_deref(),
            settings,
            runner: blueprint.layout.runner,
            factory: &*blueprint.factory,
            signals: &self.signals,
            link,
            reports: &self.reports.1,
            board: self.board,
            records,
            access_log: blueprint.access_log.clone(),
            access_format: *config.log.access_format,
            reverse_dns: *config.server.reverse_dns,
            accept_window,
            graceful_timeout: *config.supervisor.graceful_timeout,
            lifetime: Lifetime {
                max_requests: *config.supervisor.max_requests,
                jitter: *config.supervisor.max_requests_jitter,
            },
        })
    }

    pub(super) fn send(&self, pid: i32, signal: WorkerSignal) {
        let signal = match signal {
            WorkerSignal::Term => {
                if let Some(retirement) = self.retirement(pid) {
                    self.workers.retire(pid, retirement);
                }
                Signal::SIGTERM
            }
            WorkerSignal::Kill => Signal::SIGKILL,
        };
        if let Err(cause) = process::signal(pid, signal) {
            ::log::error!("cannot send {signal} to pid={pid}: {cause}");
        }
    }

    /// How a worker is to leave; none where the whole server stops.
    fn retirement(&self, pid: i32) -> Option<Retirement> {
        if self.handed_over {
            Some(Retirement::ToOthers)
        } else if self.blueprint.listeners.is_empty() {
            None
        } else if self.board.pool().wanted == 0 {
            Some(Retirement::Alone)
        } else if self.workers.is_last_at_listener(pid) {
            Some(Retirement::LastAtListener)
        } else {
            Some(Retirement::ToOthers)
        }
    }

    fn reopen(&mut self, ticket: Option<u64>) {
        let outcome = self.workers.reopen_logs(self.generation, &self.blueprint.access_log);
        match &outcome {
            Ok(said) => ::log::info!("{said}"),
            Err(wrong) => ::log::error!("{wrong}"),
        }
        if let Some(ticket) = ticket {
            self.reporters.answer(ticket, outcome);
        }
        self.reporters.note_outdated();
    }

    /// How all workers are.
    fn observe(&self) -> Vec<Observed> {
        self.workers.observe(*self.blueprint.config.supervisor.max_memory > 0)
    }

    fn begin_stop(&mut self) {
        self.blueprint.listeners.iter().for_each(|listener| let_go(listener));
        // Removes a socket's file too. What connects after the last worker has left would wait for nobody if the master
        // still listened.
        self.blueprint.listeners.clear();
    }

    fn tend_tls(&self) {
        let Some(tls) = &self.blueprint.entrance.tls else { return };
        if let Err(cause) = tls.rotate_keys() {
            ::log::error!("cannot change the keys of TLS tickets: {cause}; the ones before stay in use");
        }
        let Some((level, wrong)) = tls.validity().concern(SystemTime::now()) else { return };
        let file = self.blueprint.config.server.ssl_certificate_file.as_deref().unwrap_or(Path::new("")).display();
        ::log::log!(level, "sslCertificateFile = {file}: {}; {}", wrong.problem, wrong.remedy);
    }
}
