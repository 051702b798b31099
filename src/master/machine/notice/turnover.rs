//! What there is to say of reloads and upgrades.

use std::fmt;
use std::time::Duration;

use log::Level;

use super::Short;
use crate::master::children::Pid;

/// A reload or an upgrade, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turnover {
    /// A reload begins.
    Reloading {
        /// The generation that it is to bring.
        generation: u32,
    },
    /// A reload is wanted, and has to wait.
    ReloadLater,
    /// A reload is wanted, but the server stops.
    NoReload,
    /// A reload is wanted, but the server was upgraded meanwhile.
    LeftToHeir,
    /// A new generation serves.
    Reloaded {
        /// Which.
        generation: u32,
        /// How many workers it has.
        workers: u32,
        /// Since the reload began.
        took: Duration,
    },
    /// A new generation does not come.
    NotReloaded {
        /// Which.
        generation: u32,
        /// The one that goes on.
        in_force: u32,
        /// What went wrong.
        why: String,
    },
    /// A new master boots its workers.
    Upgrading {
        /// Its process.
        pid: Pid,
        /// How long it may take.
        within: Duration,
    },
    /// There is no new master.
    NotUpgraded {
        /// What went wrong.
        why: String,
    },
    /// The new master has taken over.
    HandedOver {
        /// Its process.
        pid: Pid,
        /// Since it was started.
        took: Duration,
    },
}

impl Turnover {
    pub(super) fn level(&self) -> Level {
        match self {
            Self::Reloading { .. }
            | Self::ReloadLater
            | Self::Reloaded { .. }
            | Self::Upgrading { .. }
            | Self::HandedOver { .. } => Level::Info,
            Self::NoReload | Self::LeftToHeir => Level::Warn,
            Self::NotReloaded { .. } | Self::NotUpgraded { .. } => Level::Error,
        }
    }
}

impl fmt::Display for Turnover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reloading { generation } => {
                write!(f, "reloading: generation {generation} is started beside the present one")
            }
            Self::ReloadLater => {
                write!(
                    f,
                    "the reload begins when the server runs, what is under way is done and the workers before have left"
                )
            }
            Self::NoReload => write!(f, "not reloaded: the server is stopping"),
            Self::LeftToHeir => write!(
                f,
                "not reloaded: the server was upgraded meanwhile; where the configuration has changed since the new master \
                 read it, reload again"
            ),
            Self::Reloaded { generation, workers, took } => {
                let took = Short(*took);
                write!(
                    f,
                    "reloaded in {took}: {workers} workers of generation {generation} serve; those before finish and leave"
                )
            }
            Self::NotReloaded { generation, in_force, why } => {
                write!(f, "not reloaded: generation {generation} is withdrawn, generation {in_force} goes on: {why}")
            }
            Self::Upgrading { pid, within } => {
                write!(f, "upgrading: the new master pid={pid} has {} to have all its workers ready", Short(*within))
            }
            Self::NotUpgraded { why } => write!(f, "not upgraded, this master goes on: {why}"),
            Self::HandedOver { pid, took } => {
                write!(
                    f,
                    "upgraded in {}: the new master pid={pid} takes over; this one finishes and leaves",
                    Short(*took)
                )
            }
        }
    }
}
