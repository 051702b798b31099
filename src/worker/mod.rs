//! A worker's life: build the site, say ready, serve, drain. Knows nothing of its siblings but the scoreboard, and of
//! its master only that it lives.

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::board::{Board, Identity, Record};
use crate::config::AccessFormat;
use crate::listen::Listener;
use crate::log;
use crate::log::access::{AccessLog, Resolver};
use crate::log::sink::Sink;
use crate::serve::{Loop, Settings, Turn};
use crate::site::Handler;
use crate::sys::pipe::{self, Read};
use crate::sys::process;
use crate::sys::signal::{Signal, Signals};

/// Builds the site, in each worker anew.
pub(crate) type Factory = dyn Fn(&Identity) -> Result<Box<dyn Handler>, Box<dyn Error>>;

/// What a worker starts with.
pub(crate) struct Start<'a> {
    pub identity: Identity,
    pub listeners: Vec<Listener>,
    pub settings: Settings,
    pub factory: &'a Factory,
    /// Signals to this process.
    pub signals: &'a Signals,
    /// Ends when the master does.
    pub liveness: &'a OwnedFd,
    /// Takes the report that this worker is ready.
    pub reports: &'a OwnedFd,
    pub board: Board,
    pub record: Record,
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

/// Runs from the fork to the exit code.
pub(crate) fn run(start: Start<'_>) -> i32 {
    log::error::set_identity(start.identity);
    log::error::limit_volume();
    let record = start.record;
    log::error::install_panic_hook(move |text| record.set_reason(text));
    match serve(start) {
        Ok(()) => DONE,
        Err(why) => {
            record.set_reason(&why);
            ::log::error!("{why}");
            FAILED
        }
    }
}

fn serve(start: Start<'_>) -> Result<(), String> {
    let Start { identity, record, signals, liveness, .. } = start;
    // Before there can be threads: it is forked.
    let resolver = (start.reverse_dns && !start.access_log.is_off()).then(Resolver::start);
    let site = (start.factory)(&identity).map_err(|why| format!("cannot build the site: {why}"))?;
    let access = AccessLog::new(start.access_log, start.access_format, identity, resolver);
    let mut serving = Loop::new(&start.settings, start.listeners, Arc::from(site), access, start.board, record)
        .and_then(|serving| serving.watch(signals.as_fd()).map(|()| serving))
        .and_then(|serving| serving.watch(liveness.as_fd()).map(|()| serving))
        .map_err(|why| format!("cannot start the loop: {why}"))?;
    process::die_with_parent(None).map_err(|why| format!("cannot outlive the master: {why}"))?;
    record.open(identity.pid);
    pipe::write(start.reports, &identity.pid.to_ne_bytes()).map_err(|why| format!("cannot report: {why}"))?;
    let end = loop {
        match serving.turn() {
            Ok(Turn::Served) => {}
            Ok(Turn::Finished) => break Ok(()),
            Ok(Turn::Watched) => {
                if signals.take().into_iter().any(asks_to_drain) {
                    // A stop may reach this worker before it reaches the master, as it does from a service manager that
                    // signals every process; only a retired worker leaves the queue to its siblings.
                    let window = if record.is_retired() { Duration::ZERO } else { start.accept_window };
                    serving.drain(window, None);
                }
                if pipe::read(liveness, &mut [0]) == Read::End {
                    ::log::warn!("the master is gone: finishing what is under way, and leaving");
                    serving.drain(Duration::ZERO, Some(start.graceful_timeout));
                }
            }
            Err(why) => break Err(format!("the loop cannot go on: {why}")),
        }
    };
    serving.close_log();
    end
}

/// Signals that mean something to the master only are ignored.
fn asks_to_drain(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGQUIT)
}
