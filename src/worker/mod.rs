//! A worker's life: build the site, say ready, serve, leave. Knows nothing of its siblings but the scoreboard, and of
//! its master only that it lives.

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::board::{Board, Identity, Record};
use crate::config::AccessFormat;
use crate::listen::Listener;
use crate::log;
use crate::log::access::AccessLog;
use crate::log::sink::Sink;
use crate::serve::{Loop, Settings, Turn};
use crate::site::Handler;
use crate::sys::pipe::{self, Heard};
use crate::sys::signal::{Signal, Signals};

/// Builds the site, in each worker anew.
pub(crate) type Factory = dyn Fn(&Identity) -> Result<Box<dyn Handler>, Box<dyn Error>>;

/// What a worker is born with.
pub(crate) struct Birth<'a> {
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
    /// How long it may take to leave when there is no master to cut it off.
    pub graceful_timeout: Duration,
}

/// How a life ends, for the exit code.
const DONE: i32 = 0;
const FAILED: i32 = 1;

/// Lives, from the fork to the exit code.
pub(crate) fn live(birth: Birth<'_>) -> i32 {
    log::error::set_identity(birth.identity);
    let record = birth.record;
    log::error::install_panic_hook(move |text| record.set_last_words(text));
    match serve(birth) {
        Ok(()) => DONE,
        Err(why) => {
            record.set_last_words(&why);
            ::log::error!("{why}");
            FAILED
        }
    }
}

fn serve(birth: Birth<'_>) -> Result<(), String> {
    let Birth { identity, record, signals, liveness, .. } = birth;
    let site = (birth.factory)(&identity).map_err(|why| format!("cannot build the site: {why}"))?;
    let access = AccessLog::new(birth.access_log, birth.access_format, identity);
    let mut serving = Loop::new(&birth.settings, birth.listeners, Arc::from(site), access, birth.board, record)
        .and_then(|serving| serving.watch(signals.as_fd()).map(|()| serving))
        .and_then(|serving| serving.watch(liveness.as_fd()).map(|()| serving))
        .map_err(|why| format!("cannot start the loop: {why}"))?;
    record.open(identity.pid);
    pipe::tell(birth.reports, &identity.pid.to_ne_bytes()).map_err(|why| format!("cannot report: {why}"))?;
    let end = loop {
        match serving.turn() {
            Ok(Turn::Served) => {}
            Ok(Turn::Finished) => break Ok(()),
            Ok(Turn::Watched) => {
                if signals.take().into_iter().any(asks_to_leave) {
                    serving.leave(birth.board.stopping().unwrap_or_default(), None);
                }
                if pipe::hear(liveness, &mut [0]) == Heard::End {
                    ::log::warn!("the master is gone: finishing what is under way, and leaving");
                    serving.leave(Duration::ZERO, Some(birth.graceful_timeout));
                }
            }
            Err(why) => break Err(format!("the loop cannot go on: {why}")),
        }
    };
    serving.flush_log();
    end
}

/// Signals that mean something to the master only are ignored.
fn asks_to_leave(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGQUIT)
}
