//! How a loop leaves: it accepts a last time, hands over what is idle to those who go on, if anybody does, and answers
//! what is under way.

use std::time::Duration;

use super::Loop;
use super::timers::Timer;
use crate::board::Retirement;

/// How long a kept connection must be quiet before a worker closes it that leaves while the server goes on.
pub(super) const QUIET_TIMEOUT: Duration = Duration::from_secs(2);

impl Loop {
    /// Begins to drain: accepts for `window` more and then until the queue is empty, or, where that is zero, no
    /// more; answers what is asked with `Connection: close`, and is finished when the last connection is gone. Where the
    /// scoreboard says that others go on, they get the idle connections at once.
    ///
    /// After `patience`, if any is given, it is finished whatever is still under way. Said again, it can only make
    /// it sooner.
    pub fn drain(&mut self, window: Duration, patience: Option<Duration>) {
        let now = self.env.now;
        self.drain_deadline = self.drain_deadline.or(patience.map(|patience| now + patience));
        let retirement = self.record.retirement();
        if matches!(retirement, Some(Retirement::ToOthers | Retirement::LastAtListener)) {
            self.begin_to_give_idle();
        }
        if self.accept_until.is_some_and(|at| at <= now + window) {
            return;
        }
        self.accept_until = Some(now + window);
        self.env.draining = true;
        let server_stops = retirement.is_none() && !window.is_zero();
        self.timers.timeouts.drain_timeout = if server_stops { window } else { QUIET_TIMEOUT };
        for (index, connection) in &self.table {
            if connection.flight.is_none() && !connection.lingering {
                self.timers.set(index, Timer::Drain, now);
            }
        }
        if window.is_zero() {
            self.close_listeners();
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        let drained = self.listeners.is_empty() && self.accept_until.is_some() && self.table.is_empty();
        drained || self.drain_deadline.is_some_and(|at| at <= self.env.now)
    }
}
