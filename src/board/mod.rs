//! The scoreboard: one shared mapping, its writer's and its readers' side.

use std::fmt;

/// Which worker this is: one identity in every log line and on every page that shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its place in the pool, from 0.
    pub worker: u32,
    /// Workers forked from one configuration share their generation, from 1.
    pub generation: u32,
    /// Its process.
    pub pid: i32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker={} gen={} pid={}", self.worker, self.generation, self.pid)
    }
}
