//! A worker's life: build the site, say ready, serve, drain. Knows nothing of its siblings but the scoreboard, and of
//! its master only that it lives.

mod beside;
mod health;
pub(crate) mod logs;
mod report;
mod teller;

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::board::{Board, Identity, Record, Retirement};
use crate::config::{self, AccessFormat};
use crate::listen::{Entrance, Listener};
use crate::log;
use crate::log::access::{AccessLog, Resolver};
use crate::log::sink::Sink;
use crate::serve::{Ends, Loop, Parts, Runner, Settings, Turn};
use crate::site::Handler;
use crate::sys::crash;
use crate::sys::process;
use crate::sys::signal::{Signal, Signals};
pub(crate) use beside::Beside;
use logs::Ear;
pub(crate) use report::{REPORT_BYTES, Report};
pub(crate) use teller::Lifetime;
use teller::Teller;

/// Builds the site, in each worker anew.
pub(crate) type Factory = dyn Fn(&Identity) -> Result<Box<dyn Handler>, Box<dyn Error>>;

/// What a worker starts with.
pub(crate) struct Start<'a> {
    pub identity: Identity,
    pub listeners: Vec<Arc<Listener>>,
    pub entrance: Entrance,
    /// Where workers hand over connections to each other.
    pub handover: Option<Ends>,
    /// Requests that wait are handed over, too: siblings have handlers of their own.
    pub shares_requests: bool,
    pub settings: Settings,
    /// What is to run requests.
    pub runner: config::Runner,
    pub factory: &'a Factory,
    /// Signals to this process.
    pub signals: &'a Signals,
    /// What the master says; ends when the master does.
    pub link: &'a OwnedFd,
    /// Takes the reports of this worker.
    pub reports: &'a OwnedFd,
    pub board: Board,
    /// One of each loop.
    pub records: Vec<Record>,
    pub access_log: Sink,
    pub access_format: AccessFormat,
    /// The access log has host names.
    pub reverse_dns: bool,
    /// What it must answer before it is ready, if anything.
    pub health_path: Option<&'a str>,
    /// How long it goes on accepting when the server stops.
    pub accept_window: Duration,
    /// How long it may take to drain when there is no master to cut it off.
    pub graceful_timeout: Duration,
    /// After how many requests it is to be replaced.
    pub lifetime: Lifetime,
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
    let noting = crash::note_causes(move |signal, cause| match signal {
        // A panic that cannot unwind, or a failed assertion of a library, has been told already.
        Signal::SIGABRT => record.precede_reason(cause),
        _ => record.set_reason(cause),
    });
    if let Err(cause) = noting {
        ::log::warn!("cannot watch for fatal signals: {cause}; should one come, its cause will not be known");
    }
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
    let Start { identity, signals, link, .. } = start;
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
    let (handover, shares_requests) = (start.handover.map(Arc::new), start.shares_requests);
    let mut make = |record| {
        let access = AccessLog::new(start.access_log.clone(), start.access_format, identity, resolvers.pop());
        let (listeners, handler, runner) = (start.listeners.clone(), Arc::clone(&site), runner.clone());
        let (entrance, handover, board) = (start.entrance.clone(), handover.clone(), start.board);
        let parts = Parts { listeners, entrance, handover, shares_requests, handler, runner, access, board, record };
        Loop::new(&start.settings, parts).map_err(|why| format!("cannot start the loop: {why}"))
    };
    let beside = start.records.iter().map(|&of| make(of).map(|serving| (serving, of)));
    let beside = beside.collect::<Result<Vec<_>, _>>()?;
    let mut serving = make(record)?;
    let mut ear = Ear::new(link, start.access_log.clone());
    // Until here it has done nothing that it could finish, and might never come here.
    let caught = signals.catch_term();
    let watched = caught.and_then(|()| serving.watch(signals.as_fd())).and_then(|()| serving.watch(link.as_fd()));
    watched.map_err(|why| format!("cannot watch for signals: {why}"))?;
    drop(start.listeners);
    if let Some(path) = start.health_path {
        let healthy = health::check(&mut serving, path, |serving| must_leave(serving, signals) || !ear.hear());
        if !matches!(healthy, Ok(true)) {
            serving.close_log();
            return healthy.map(drop);
        }
    }
    process::die_with_parent(None).map_err(|why| format!("cannot outlive the master: {why}"))?;
    let records = start.records.iter().copied().chain([record]).collect();
    let teller = Teller::new(start.reports, identity.pid, records, start.lifetime);
    let teller = teller.map(Arc::new).map_err(|why| format!("cannot report: {why}"))?;
    let look = {
        let teller = Arc::clone(&teller);
        move |serving: &Loop| teller.look_at(serving)
    };
    let beside = Beside::start(beside, look)?;
    record.open(identity.pid);
    teller.tell(Report::Ready);
    let (accept_window, graceful_timeout) = (start.accept_window, start.graceful_timeout);
    let end = turn_until_drained(&mut serving, &teller, &beside, |serving| {
        if must_leave(serving, signals) {
            note_stranger(record);
            let window = window_to_accept(record.retirement(), accept_window);
            beside.drain(window, None);
            serving.drain(window, None);
        }
        if !ear.hear() {
            ::log::warn!("the master is gone: finishing what is under way, and leaving");
            beside.drain(Duration::ZERO, Some(graceful_timeout));
            serving.drain(Duration::ZERO, Some(graceful_timeout));
        }
    });
    serving.close_log();
    end.and_then(|()| beside.join())
}

/// Turns the loop until it has drained, and those beside it have, too; `listen` sees to what is watched.
fn turn_until_drained(
    serving: &mut Loop,
    teller: &Teller,
    beside: &Beside,
    mut listen: impl FnMut(&mut Loop),
) -> Result<(), String> {
    loop {
        let turn = serving.turn();
        teller.look_at(serving);
        match turn {
            Ok(Turn::Served) => {}
            Ok(Turn::Finished) if beside.has_finished() => return Ok(()),
            // The others must still hear of it when the master is gone.
            Ok(Turn::Finished) => thread::sleep(LOOK_AGAIN),
            Ok(Turn::Watched) => listen(serving),
            Err(why) => return Err(format!("the loop cannot go on: {why}")),
        }
    }
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

/// Takes the signals that have come. Whether one asks this worker to leave.
fn must_leave(serving: &mut Loop, signals: &Signals) -> bool {
    let taken = signals.take();
    if taken.contains(&Signal::SIGCHLD) {
        serving.reap();
    }
    taken.into_iter().any(asks_to_drain)
}

/// How long a worker goes on accepting that is to leave. A stop may reach it before it reaches the master, as it does from a
/// service manager that signals every process; only a retired worker leaves the queues to others.
const fn window_to_accept(retirement: Option<Retirement>, longest: Duration) -> Duration {
    match retirement {
        None | Some(Retirement::LastAtListener) => longest,
        Some(Retirement::ToOthers | Retirement::Alone) => Duration::ZERO,
    }
}

/// A worker that anybody but its master asks to leave, leaves, and says who it was.
fn note_stranger(record: Record) {
    if let Some(sender) = Signals::sender().filter(|sender| sender.pid != process::parent()) {
        record.set_reason(&format!("TERM or QUIT {sender}"));
    }
}

/// Signals that mean something to the master only are ignored.
fn asks_to_drain(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGQUIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whose_queues_are_left_to_others_or_to_later_accepts_no_more_at_once() {
        let longest = Duration::from_secs(3);
        let window = |retirement| window_to_accept(retirement, longest);
        assert_eq!((window(None), window(Some(Retirement::LastAtListener))), (longest, longest));
        assert_eq!(window(Some(Retirement::ToOthers)), Duration::ZERO);
        assert_eq!(window(Some(Retirement::Alone)), Duration::ZERO);
    }
}
