//! Everything that the machine has to say, deaths apart, in words for the person who reads the log at 3 a.m.

use std::fmt;
use std::time::Duration;

use log::Level;

use super::START_FAILURES;
use super::failure::{Failure, WINDOW};
use super::messages::Signal;
use crate::board::Identity;

/// Something for the error log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A worker reported that it accepts connections.
    Ready {
        /// Which one.
        worker: Identity,
        /// How many serve now.
        serving: u32,
        /// How many are to serve.
        wanted: u32,
    },
    /// A slot waits before it forks again.
    BackingOff {
        /// Which slot.
        slot: u32,
        /// Attempts in a row that ended before a worker was ready.
        failures: u32,
        /// How long it waits.
        delay: Duration,
    },
    /// A fork failed.
    NotForked {
        /// For which slot.
        slot: u32,
        /// Operation and cause.
        error: String,
        /// How long the slot waits before it tries again.
        delay: Duration,
    },
    /// Failures that were counted instead of told.
    Withheld {
        /// How many.
        count: u64,
        /// The last of them.
        last: Failure,
    },
    /// The program gives up, because no worker ever became ready.
    StartFailed {
        /// What made it give up.
        why: StartFailed,
        /// The last reason on record.
        last: Option<Failure>,
    },
    /// One worker more.
    ScaledUp {
        /// Its slot.
        slot: u32,
        /// How many there are to be now.
        wanted: u32,
    },
    /// One worker fewer.
    ScaledDown {
        /// The slot that was given up.
        slot: u32,
        /// How many there are to be now.
        wanted: u32,
    },
    /// All workers are to drain, master and listeners stay.
    Retired {
        /// How many there were to be.
        workers: u32,
    },
    /// No room for one worker more.
    AtMost {
        /// The most there can be.
        max_slots: u32,
    },
    /// The last worker is not given up by TTOU.
    AtLeast,
    /// This mode has a fixed number of workers.
    NotScalable {
        /// What was asked for.
        signal: Signal,
    },
    /// WINCH came from the terminal.
    Resized,
    /// A signal that means nothing in this phase.
    Ignored {
        /// Which.
        signal: Signal,
    },
    /// A graceful stop begins.
    Stopping {
        /// Who asked for it.
        signal: Signal,
        /// How many workers are to finish.
        workers: u32,
        /// How long they may take.
        within: Duration,
    },
    /// A signal to stop, while stopping.
    AlreadyStopping {
        /// Which.
        signal: Signal,
    },
    /// The first INT while another signal's stop runs.
    InterruptAgain,
    /// Workers are killed, because INT came a second time.
    StoppingAtOnce {
        /// How many were left.
        workers: u32,
    },
    /// A killed worker does not go away.
    Unkillable {
        /// Which one.
        worker: Identity,
    },
    /// Nobody woke the master for far too long.
    StoodStill {
        /// The most it can have been.
        at_most: Duration,
    },
    /// The last words.
    Stopped(Closing),
}

/// Why a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartFailed {
    /// Every slot failed [`START_FAILURES`] times.
    Exhausted,
    /// Nobody was ready in time.
    TimedOut {
        /// The configured time.
        start_timeout: Duration,
    },
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Closing {
    /// Workers that drained as asked.
    pub left: u32,
    /// Workers that died of something else meanwhile.
    pub died: u32,
    /// Workers that we killed.
    pub cut_off: u32,
    /// Workers that could not even be killed.
    pub stuck: u32,
    /// From the signal to the end.
    pub took: Duration,
}

impl Notice {
    /// How loud to say it.
    pub fn level(&self) -> Level {
        match self {
            Self::Ready { .. }
            | Self::ScaledUp { .. }
            | Self::ScaledDown { .. }
            | Self::Retired { .. }
            | Self::Stopping { .. }
            | Self::AlreadyStopping { .. }
            | Self::InterruptAgain => Level::Info,
            Self::BackingOff { .. }
            | Self::AtMost { .. }
            | Self::AtLeast
            | Self::NotScalable { .. }
            | Self::Ignored { .. }
            | Self::StoppingAtOnce { .. }
            | Self::StoodStill { .. } => Level::Warn,
            Self::NotForked { .. } | Self::Withheld { .. } | Self::StartFailed { .. } | Self::Unkillable { .. } => {
                Level::Error
            }
            Self::Resized => Level::Debug,
            Self::Stopped(report) => report.level(),
        }
    }
}

impl Closing {
    fn level(&self) -> Level {
        if self.died + self.cut_off + self.stuck == 0 { Level::Info } else { Level::Warn }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { worker, serving, wanted } => write!(f, "{worker} ready ({serving} of {wanted} serve)"),
            Self::BackingOff { slot, failures, delay } => {
                write!(
                    f,
                    "worker={slot} failed {failures} times before it was ready: next attempt in {}",
                    Short(*delay)
                )
            }
            Self::NotForked { slot, error, delay } => {
                let delay = Short(*delay);
                write!(f, "worker={slot} could not be forked: {error}: next attempt in {delay}; the others go on")
            }
            Self::Withheld { count, last } => {
                write!(f, "{count} more failures within {WINDOW:?} that are not told one by one; the last: {last}")
            }
            Self::StartFailed { why, last } => write_start_failed(f, *why, last.as_ref()),
            Self::ScaledUp { slot, wanted } => write!(f, "one worker more, worker={slot}: {wanted} are to serve"),
            Self::ScaledDown { slot, wanted } => {
                write!(f, "one worker fewer, worker={slot} finishes and leaves: {wanted} are to serve")
            }
            Self::Retired { workers } => {
                write!(
                    f,
                    "{workers} workers finish and leave; new connections wait in the queue until TTIN brings workers"
                )
            }
            Self::AtMost { max_slots } => write!(f, "TTIN ignored: there is no room for more than {max_slots} workers"),
            Self::AtLeast => write!(f, "TTOU ignored: the last worker stays; WINCH retires it, TERM stops the server"),
            Self::NotScalable { signal } => {
                write!(f, "{signal} ignored: only a process pool can be scaled; set processPool=n to have one")
            }
            Self::Resized => write!(f, "WINCH ignored: the master is on a terminal, which sends it on every resize"),
            Self::Ignored { signal } => {
                write!(f, "{signal} ignored: the server is not running, but starting or stopping")
            }
            Self::Stopping { signal, workers, within } => {
                write!(f, "{signal}: stopping; {workers} workers have {} to finish", Short(*within))
            }
            Self::AlreadyStopping { signal: Signal::Int } => write!(f, "INT changes nothing: already stopping at once"),
            Self::AlreadyStopping { signal } => {
                write!(f, "{signal} changes nothing: already stopping; INT twice stops at once")
            }
            Self::InterruptAgain => write!(f, "INT: already stopping; INT again stops at once and cuts off what runs"),
            Self::StoppingAtOnce { workers } => write!(f, "INT again: stopping at once, {workers} workers are killed"),
            Self::Unkillable { worker } => write!(
                f,
                "{worker} was killed but does not end: the kernel holds it, mostly for a disk or network mount that \
                 hangs (ps shows state D); its slot stays taken until it ends"
            ),
            Self::StoodStill { at_most } => write!(
                f,
                "nothing ran for up to {}: machine suspended or starved; workers get their time anew",
                Short(*at_most)
            ),
            Self::Stopped(report) => report.fmt(f),
        }
    }
}

fn write_start_failed(f: &mut fmt::Formatter<'_>, why: StartFailed, last: Option<&Failure>) -> fmt::Result {
    match why {
        StartFailed::Exhausted => {
            write!(f, "cannot start: every worker failed {START_FAILURES} times before it was ready")?;
        }
        StartFailed::TimedOut { start_timeout } => {
            write!(f, "cannot start: no worker was ready within startTimeout={}", Short(start_timeout))?;
        }
    }
    match last {
        Some(failure) => write!(f, "; the last: {failure}; the lines above may say more"),
        None => write!(f, "; none failed either: raise startTimeout if the site needs longer to load"),
    }
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { left, died, cut_off, stuck, took } = self;
        write!(f, "stopped after {}: {left} workers drained as asked, {cut_off} were cut off", Short(*took))?;
        if *died > 0 {
            write!(f, ", {died} died meanwhile")?;
        }
        if *stuck > 0 {
            write!(f, ", {stuck} could not be killed and remain")?;
        }
        Ok(())
    }
}

/// A duration to the millisecond: the rest is noise in a log.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        write!(f, "{:?}", Duration::from_millis(ms))
    }
}
