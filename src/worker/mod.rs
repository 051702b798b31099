//! A worker's life: build the site, say ready, serve, drain. Knows nothing of its siblings but the scoreboard, and of
//! its master only that it lives.

mod beside;
mod report;

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::board::{Board, Identity, Record};
use crate::config::{self, AccessFormat};
use crate::listen::{Entrance, Listener};
use crate::log;
use crate::log::access::{AccessLog, Resolver};
use crate::log::sink::Sink;
use crate::serve::{Ends, Loop, Parts, Runner, Settings, Turn};
use crate::site::Handler;
use crate::sys::pipe::{self, Read};
use crate::sys::process;
use crate::sys::signal::{Signal, Signals};
pub(crate) use beside::Beside;
pub(crate) use report::{REPORT_BYTES, Report};

/// Builds the site, in each worker anew.
pub(crate) type Factory = dyn Fn(&Identity) -> Result<Box<dyn Handler>, Box<dyn Error>>;

/// What a worker starts with.
pub(crate) struct Start<'a> {
    pub identity: Identity,
    pub listeners: Vec<Arc<Listener>>,
    pub entrance: Entrance,
    /// Where siblings hand over connections, if there are siblings.
    pub handover: Option<Ends>,
    pub settings: Settings,
    /// What is to run requests.
    pub runner: config::Runner,
    pub factory: &'a Factory,
    /// Signals to this process.
    pub signals: &'a Signals,
    /// Ends when the master does.
    pub liveness: &'a OwnedFd,
    /// Takes the reports of this worker.
    pub reports: &'a OwnedFd,
    pub board: Board,
    /// One of each loop.
    pub records: Vec<Record>,
    pub access_log: Sink,
    pub access_format: AccessFormat,
    /// The access log has host names.
    pub reverse_dns: bool,
    /// How long it goes on accepting when the server stops.
    pub accept_window: Duration,
    /// How long it may take to drain when there is no master to cut it off.
    pub graceful_timeout: Duration,
}

/// The exit codes of a worker.
const DONE: i32 = 0;
const FAILED: i32 = 1;

/// How often a loop that has drained looks whether those beside it have, too.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Runs from the fork to the exit code.
pub(crate) fn run(mut start: Start<'_>) -> i32 {
    log::error::set_identity(start.identity);
    log::error::limit_volume();
    if start.records.is_empty() {
        ::log::error!("there is no room on the scoreboard");
        return FAILED;
    }
    let record = start.records.remove(0);
    // The panic of a process that it forks for a request is no reason for its own end.
    let pid = start.identity.pid;
    log::error::install_panic_hook(move |text| {
        if process::pid() == pid {
            record.set_reason(text);
        }
    });
    match serve(start, record) {
        Ok(()) => DONE,
        Err(why) => {
            record.set_reason(&why);
            ::log::error!("{why}");
            FAILED
        }
    }
}

fn serve(start: Start<'_>, record: Record) -> Result<(), String> {
    let Start { identity, signals, liveness, .. } = start;
    // Before there can be threads: it is forked.
    let with_names = start.reverse_dns && !start.access_log.is_off();
    let mut resolvers = if with_names { Resolver::start(1 + start.records.len()) } else { Vec::new() };
    let site = (start.factory)(&identity).map_err(|why| format!("cannot build the site: {why}"))?;
    let site: Arc<dyn Handler> = Arc::from(site);
    let runner =
        Runner::start(start.runner, &site).map_err(|why| format!("cannot start the handler threads: {why}"))?;
    if matches!(runner, Runner::Processes(_)) {
        stay_alone()?;
    }
    let mut make = |record, handover| {
        let access = AccessLog::new(start.access_log.clone(), start.access_format, identity, resolvers.pop());
        let (listeners, handler, runner) = (start.listeners.clone(), Arc::clone(&site), runner.clone());
        let entrance = start.entrance.clone();
        let parts = Parts { listeners, entrance, handover, handler, runner, access, board: start.board, record };
        Loop::new(&start.settings, parts).map_err(|why| format!("cannot start the loop: {why}"))
    };
    let beside = start.records.iter().map(|&of| make(of, None).map(|serving| (serving, of)));
    let beside = beside.collect::<Result<Vec<_>, _>>()?;
    let mut serving = make(record, start.handover)?;
    let watched = serving.watch(signals.as_fd()).and_then(|()| serving.watch(liveness.as_fd()));
    watched.map_err(|why| format!("cannot watch for signals: {why}"))?;
    drop(start.listeners);
    process::die_with_parent(None).map_err(|why| format!("cannot outlive the master: {why}"))?;
    let beside = Beside::start(beside, identity.pid)?;
    record.open(identity.pid);
    pipe::write(start.reports, &Report::Ready.write(identity.pid)).map_err(|why| format!("cannot report: {why}"))?;
    let end = loop {
        match serving.turn() {
            Ok(Turn::Served) => {}
            Ok(Turn::Finished) if beside.has_finished() => break Ok(()),
            // The others must still hear of it when the master is gone.
            Ok(Turn::Finished) => thread::sleep(LOOK_AGAIN),
            Ok(Turn::Watched) => {
                let taken = signals.take();
                if taken.contains(&Signal::SIGCHLD) {
                    serving.reap();
                }
                if taken.into_iter().any(asks_to_drain) {
                    // A stop may reach this worker before it reaches the master, as it does from a service manager that
                    // signals every process; only a retired worker leaves the queue to its siblings.
                    let window = if record.is_retired() { Duration::ZERO } else { start.accept_window };
                    beside.drain(window, None);
                    serving.drain(window, None);
                }
                if pipe::read(liveness, &mut [0]) == Read::End {
                    ::log::warn!("the master is gone: finishing what is under way, and leaving");
                    beside.drain(Duration::ZERO, Some(start.graceful_timeout));
                    serving.drain(Duration::ZERO, Some(start.graceful_timeout));
                }
            }
            Err(why) => break Err(format!("the loop cannot go on: {why}")),
        }
    };
    serving.close_log();
    end.and_then(|()| beside.join())
}

/// A worker that forks must have one thread: the processes that it forks would lack the others, and hold for ever what
/// locks they held.
fn stay_alone() -> Result<(), String> {
    match process::threads() {
        1 => Ok(()),
        threads => Err(format!(
            "the site has started threads ({threads} in all), and with forking=1 none may run; say threading or \
             processPool, or start threads where requests are handled"
        )),
    }
}

/// Signals that mean something to the master only are ignored.
fn asks_to_drain(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGQUIT)
}
