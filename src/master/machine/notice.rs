//! Everything that the machine has to say, deaths apart, and how loud; in which words stands in `words`.

use std::time::Duration;

use log::Level;

use super::failure::Failure;
use super::messages::{Signal, Work};
use crate::board::Identity;
use crate::site::control::Command;

mod care;
mod turnover;
mod words;

pub(crate) use care::Care;
pub(crate) use turnover::Turnover;
pub(super) use words::Short;

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
    /// A person has asked for something.
    Asked {
        /// For what.
        command: Command,
    },
    /// TTIN, TTOU or WINCH came while a reload or an upgrade was under way.
    NotNow {
        /// Which.
        signal: Signal,
    },
    /// A reload or an upgrade.
    Turnover(Turnover),
    /// A worker is replaced although it lives, or may be.
    Care(Care),
    /// The last words.
    Stopped(Closing),
}

/// Why a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartFailed {
    /// Every slot failed [`START_FAILURES`](super::START_FAILURES) times.
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
    /// What all workers had done since the start.
    pub done: Work,
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
            | Self::Asked { .. }
            | Self::InterruptAgain => Level::Info,
            Self::BackingOff { .. }
            | Self::AtMost { .. }
            | Self::AtLeast
            | Self::NotScalable { .. }
            | Self::Ignored { .. }
            | Self::StoppingAtOnce { .. }
            | Self::NotNow { .. }
            | Self::StoodStill { .. } => Level::Warn,
            Self::NotForked { .. } | Self::Withheld { .. } | Self::StartFailed { .. } | Self::Unkillable { .. } => {
                Level::Error
            }
            Self::Resized => Level::Debug,
            Self::Turnover(turnover) => turnover.level(),
            Self::Care(care) => care.level(),
            Self::Stopped(report) => report.level(),
        }
    }
}

impl Closing {
    fn level(&self) -> Level {
        if self.died + self.cut_off + self.stuck == 0 { Level::Info } else { Level::Warn }
    }
}
