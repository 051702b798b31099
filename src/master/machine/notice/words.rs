//! What the machine has to say, in words for the person who reads the log at 3 a.m.

use std::fmt;
use std::time::Duration;

use super::{Closing, Notice, StartFailed};
use crate::master::machine::START_FAILURES;
use crate::master::machine::failure::{Failure, WINDOW};
use crate::master::machine::messages::Signal;

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { worker, serving, wanted } => write!(f, "{worker} ready ({serving} of {wanted} serve)"),
            Self::BackingOff { slot, failures, delay } => {
                let delay = Short(*delay);
                write!(f, "worker={slot} failed {failures} times before it was ready: next attempt in {delay}")
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
            Self::Retired { workers: n } => {
                write!(f, "{n} workers finish and leave; new connections wait in the queue until TTIN brings workers")
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
            Self::StoppingAtOnce { workers } => write!(f, "stopping at once, {workers} workers are killed"),
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
            Self::Asked { command } => write!(f, "asked for over the control socket: {command}"),
            Self::NotNow { signal } => {
                write!(f, "{signal} ignored: a reload or an upgrade is under way; send it again when that is done")
            }
            Self::Turnover(turnover) => turnover.fmt(f),
            Self::Care(care) => care.fmt(f),
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
        let Self { left, died, cut_off, stuck, took, done } = self;
        write!(f, "stopped after {}: {left} workers drained as asked, {cut_off} were cut off", Short(*took))?;
        if *died > 0 {
            write!(f, ", {died} died meanwhile")?;
        }
        if *stuck > 0 {
            write!(f, ", {stuck} could not be killed and remain")?;
        }
        write!(f, "; {} requests were answered, {} were cut off", done.answered, done.cut_off)
    }
}

/// A duration to the millisecond: the rest is noise in a log.
pub(in super::super) struct Short(pub Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        write!(f, "{:?}", Duration::from_millis(ms))
    }
}
