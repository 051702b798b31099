//! What there is to say of workers that are replaced although they live.

use std::fmt;
use std::time::Duration;

use log::Level;

use super::Short;
use crate::board::Identity;
use crate::master::children::Spent;

/// Something is the matter with a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// A worker has reached a limit.
    Spent {
        /// Which one.
        worker: Identity,
        /// Which limit.
        spent: Spent,
        /// Of memory, where there is one.
        limit: Option<u64>,
    },
    /// A handler does not end.
    Hung {
        /// In which worker.
        worker: Identity,
    },
    /// A loop does not come round.
    LoopHung {
        /// Of which worker.
        worker: Identity,
        /// For so long.
        hung_for: Duration,
    },
    /// A signal has stopped a worker.
    Frozen {
        /// Which one.
        worker: Identity,
        /// It is killed when it does not go on in that time, if ever.
        within: Option<Duration>,
    },
    /// It goes on.
    Thawed {
        /// Which one.
        worker: Identity,
    },
}

impl Care {
    pub(super) fn level(&self) -> Level {
        match self {
            Self::Spent { .. } | Self::Thawed { .. } => Level::Info,
            Self::Frozen { .. } => Level::Warn,
            Self::Hung { .. } | Self::LoopHung { .. } => Level::Error,
        }
    }
}

impl fmt::Display for Care {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spent { worker, spent: Spent::Requests, .. } => {
                write!(f, "{worker} has answered maxRequests requests: it is replaced once its successor is ready")
            }
            Self::Spent { worker, spent: Spent::Memory(has), limit } => {
                let (has, most) = (has >> 20, limit.unwrap_or_default() >> 20);
                write!(
                    f,
                    "{worker} has {has} MiB of memory, more than maxMemory={most}m: it is replaced once its successor is ready"
                )
            }
            Self::Hung { worker } => {
                write!(
                    f,
                    "{worker} has a request that is over requestTimeout: it finishes what else it does, and is replaced"
                )
            }
            Self::LoopHung { worker, hung_for } => write!(
                f,
                "{worker} does not come round for {}, longer than requestTimeout: it is killed and replaced",
                Short(*hung_for)
            ),
            Self::Frozen { worker, within: Some(within) } => write!(
                f,
                "{worker} was stopped by a signal from outside: it is killed unless it goes on (kill -CONT) within {}",
                Short(*within)
            ),
            Self::Frozen { worker, within: None } => {
                write!(
                    f,
                    "{worker} was stopped by a signal from outside, and stands still until it goes on (kill -CONT)"
                )
            }
            Self::Thawed { worker } => write!(f, "{worker} goes on"),
        }
    }
}
