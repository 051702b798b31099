//! The reporter: the process that answers load balancers, apart from all workers, so that it answers whatever becomes of
//! them. It serves one port, reads the scoreboard, and ends with its master.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::board::{Board, Identity};
use crate::config::{self, AccessFormat, LogTarget};
use crate::listen::{Entrance, Listener};
use crate::log;
use crate::log::access::AccessLog;
use crate::log::sink::Sink;
use crate::serve::{Loop, Parts, Runner, Settings};
use crate::site::Handler;
use crate::site::health::Health;
use crate::sys::{process, signal};

/// It is not forked more often than this.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections of balancers, and of people who want to know: few.
const MAX_CONNECTIONS: usize = 256;

/// The exit code of one that cannot go on.
const FAILED: i32 = 1;

/// When there is a reporter, and when there is to be one again. Pure.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    pid: Option<i32>,
    /// Not before then.
    fork_deadline: Duration,
}

impl Reporter {
    /// Whether it is to be forked now.
    pub fn is_due(&self, now: Duration) -> bool {
        self.pid.is_none() && self.fork_deadline <= now
    }

    /// When to ask again although nothing has happened.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.pid.is_none().then_some(self.fork_deadline)
    }

    /// Its process, while it lives.
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// It was forked, or could not be.
    pub fn forked(&mut self, pid: Option<i32>, now: Duration) {
        self.pid = pid;
        self.fork_deadline = now + PAUSE;
    }

    /// A child has ended. Returns whether it was the reporter.
    pub fn ended(&mut self, pid: i32) -> bool {
        let was_it = self.pid == Some(pid);
        if was_it {
            self.pid = None;
        }
        was_it
    }
}

/// Runs from the fork to the end, which comes with that of `master`. Signals come to nothing: a service manager may send
/// them to every process, and balancers must hear of a stop until it is over.
pub(super) fn run(listeners: Vec<Arc<Listener>>, settings: Settings, board: Board, master: i32) -> i32 {
    let pid = process::pid();
    log::error::set_identity(format_args!("reporter pid={pid}"));
    log::error::limit_volume();
    let alive = process::die_with_parent(Some(master)).and_then(|()| signal::ignore_in_child());
    let served = alive.and_then(|()| serve(listeners, settings, board, master, pid));
    if let Err(cause) = served {
        ::log::error!("cannot answer on statusPort: {cause}");
    }
    FAILED
}

fn serve(listeners: Vec<Arc<Listener>>, settings: Settings, board: Board, master: i32, pid: i32) -> io::Result<()> {
    let handler: Arc<dyn Handler> = Arc::new(Health::new(board, master));
    // A scoreboard of its own: to the workers it is no sibling.
    let own = Board::new(1)?;
    let record =
        own.claim(1).and_then(|records| records.first().copied()).ok_or_else(|| io::Error::other("no record"))?;
    let identity = Identity { worker: 0, generation: 1, pid };
    let off = Sink::open(&LogTarget::Off).map_err(io::Error::other)?;
    let parts = Parts {
        listeners,
        entrance: Entrance::default(),
        handover: None,
        shares_requests: false,
        runner: Runner::start(config::Runner::Pool(1), &handler)?,
        handler,
        access: AccessLog::new(off, AccessFormat::Combined, identity, None),
        board: own,
        record,
    };
    let mut serving = Loop::new(&Settings { max_connections: MAX_CONNECTIONS, ..settings }, parts)?;
    record.open(pid);
    loop {
        serving.turn()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_forked_again_at_once_but_not_in_a_tight_loop() {
        let mut reporter = Reporter::default();
        assert!(reporter.is_due(9 * S));
        reporter.forked(Some(7), 9 * S);
        assert!(!reporter.is_due(90 * S) && reporter.next_deadline().is_none());
        assert!(!reporter.ended(8));
        assert!(reporter.ended(7));
        assert!(reporter.is_due(90 * S), "after a long life");
        reporter.forked(Some(9), 90 * S);
        assert!(reporter.ended(9) && !reporter.ended(9));
        assert_eq!((reporter.is_due(90 * S), reporter.next_deadline()), (false, Some(91 * S)));
        assert!(reporter.is_due(91 * S));
        reporter.forked(None, 91 * S);
        assert_eq!(reporter.next_deadline(), Some(92 * S), "the fork failed");
    }
}
